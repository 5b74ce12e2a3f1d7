package entity

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// maxConns is how many connections a database gets from one process.
	maxConns = 4
	// patience is how long a decision waits at least before a lack of an answer
	// is taken for a failure of the database.
	patience = 250 * time.Millisecond
)

// errAnswer means that the database answered, and what it said cannot be.
var errAnswer = errors.New("the answer is wrong")

// A database is one of the operator's databases. It is safe for concurrent use.
type database struct {
	conf     SQL
	title    string
	db       *sql.DB
	types    map[types.EntityType]SQLType
	refresh  time.Duration
	timeout  time.Duration
	postgres bool
	circuit  circuit
}

// openDatabase prepares to read a database. It connects to none.
func openDatabase(c SQL) (*database, error) {
	d := &database{conf: c, types: c.entityTypes(), refresh: c.Refresh, timeout: c.Timeout, postgres: c.Driver == "postgres"}
	if d.refresh == 0 {
		d.refresh = defaultRefresh
	}
	if d.timeout == 0 {
		d.timeout = defaultTimeout
	}
	open := d.openSQLite
	if d.postgres {
		open = d.openPostgres
	}
	if err := open(); err != nil {
		return nil, fmt.Errorf("open %s database: %w", c.Driver, err)
	}
	d.db.SetMaxOpenConns(maxConns)
	d.db.SetMaxIdleConns(maxConns)
	d.db.SetConnMaxLifetime(30 * time.Minute)
	return d, nil
}

func (d *database) openPostgres() error {
	conf, err := d.postgresConfig()
	if err != nil {
		return err
	}
	d.title = fmt.Sprintf("postgres database %s at %s", conf.Database, conf.Host)
	d.db = stdlib.OpenDB(*conf, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		now, err := d.postgresConfig()
		if err == nil {
			c.User, c.Password = now.User, now.Password
		}
		return err
	}))
	return nil
}

func (d *database) postgresConfig() (*pgx.ConnConfig, error) {
	dsn, err := d.conf.dsn()
	if err != nil {
		return nil, err
	}
	conf, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err // pgx leaves the password out
	}
	for _, host := range hosts(conf) {
		if !local(host) && !strings.Contains(dsn, "sslmode") {
			// What libpq does when nobody says so is to go on in the clear when
			// the network says that there is no TLS.
			return nil, fmt.Errorf("the connection string for %s does not say sslmode: verify-full is what proves the server", host)
		}
	}
	// database/sql also connects without the context of anybody who waits.
	if conf.ConnectTimeout == 0 || conf.ConnectTimeout > d.timeout {
		conf.ConnectTimeout = d.timeout
	}
	for name, value := range map[string]string{
		"application_name": "bailiwick",
		// Every transaction only reads, also that of a lookup, which is one
		// statement.
		"default_transaction_read_only": "on",
		"statement_timeout":             fmt.Sprint(d.timeout.Milliseconds()),
		"timezone":                      "UTC",
	} {
		conf.RuntimeParams[name] = value
	}
	return conf, nil
}

func hosts(c *pgx.ConnConfig) []string {
	all := []string{c.Host}
	for _, f := range c.Fallbacks {
		all = append(all, f.Host)
	}
	return all
}

// local reports whether a host is this machine: a socket or loopback.
func local(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || err == nil && ip.IsLoopback()
}

func (d *database) openSQLite() error {
	if _, err := os.Stat(d.conf.File); err != nil {
		return err
	}
	d.title = "sqlite database " + d.conf.File
	q := url.Values{"mode": {"ro"}, "_pragma": {"query_only(1)", fmt.Sprintf("busy_timeout(%d)", d.timeout.Milliseconds())}}
	var err error
	d.db, err = sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(d.conf.File), RawQuery: q.Encode()}).String())
	return err
}

func (d *database) name() string { return d.title }
func (d *database) kind() string { return d.conf.Driver }
func (d *database) close() error { return d.db.Close() }

// addLookups adds the types that are looked up here.
func (d *database) addLookups(l lookups) {
	for t, q := range d.types {
		if q.One != "" {
			l[t] = d
		}
	}
}

// query makes a query part of one that gives a row as JSON, if the database can,
// and at most limit rows. As a part of another it cannot be several statements,
// nor one that writes.
func (d *database) query(q string, limit int) string {
	q = strings.TrimRight(q, endOfQuery)
	what := "*"
	if d.postgres {
		what = "row_to_json(bailiwick_row)::text" // a column of this name would hide the row
	}
	return fmt.Sprintf("SELECT %s FROM (\n%s\n) bailiwick_row LIMIT %d", what, q, limit)
}

// read implements source. It also tries a database that failed.
func (d *database) read(ctx context.Context, seen string) ([]row, string, error) {
	ctx, cancel := context.WithTimeout(ctx, fullFactor*d.timeout)
	defer cancel()
	if err := d.try(ctx, seen == ""); err != nil {
		return nil, "", err
	}
	d.circuit.close()
	rows, err := d.readAll(ctx)
	if err != nil {
		return nil, "", err
	}
	return rows, digestOf(rows), nil
}

// try asks the database something; the first time whether it knows what the
// queries ask for.
func (d *database) try(ctx context.Context, first bool) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var one int
	if err := d.db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return err
	}
	if !first {
		return nil
	}
	for _, t := range sortedTypes(d.types) {
		q := d.types[t]
		if q.One != "" {
			// There is no such entity. A column of numbers cannot even hold its id.
			if _, err := d.rows(ctx, d.db, t, d.query(q.One, 2), ""); err != nil && !ofData(err) {
				return fmt.Errorf("types.%s: one: %w", t, err)
			}
		}
		if q.List != "" {
			if _, err := d.rows(ctx, d.db, t, d.query(q.List, 1), "", 1); err != nil {
				return fmt.Errorf("types.%s: list: %w", t, err)
			}
		}
	}
	return nil
}

// readAll reads all types that are read in full, in one transaction so that
// they fit each other.
func (d *database) readAll(ctx context.Context) ([]row, error) {
	o := &sql.TxOptions{ReadOnly: true}
	if d.postgres {
		o.Isolation = sql.LevelRepeatableRead
	}
	tx, err := d.db.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // there is nothing to lose
	if d.postgres {
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", (fullFactor*d.timeout).Milliseconds())); err != nil {
			return nil, err
		}
	}
	var all []row
	for _, t := range sortedTypes(d.types) {
		if !d.types[t].full() {
			continue
		}
		rows, err := d.rows(ctx, tx, t, d.query(d.types[t].All, maxEntities+1))
		if err != nil {
			return nil, fmt.Errorf("types.%s: all: %w", t, err)
		}
		if all = append(all, rows...); len(all) > maxEntities {
			return nil, fmt.Errorf("there are more than %d entities", maxEntities)
		}
	}
	slices.SortStableFunc(all, func(a, b row) int { return compareUIDs(a.uid, b.uid) })
	return all, nil
}

// digestOf is a digest of sorted rows.
func digestOf(rows []row) string {
	h := sha256.New()
	for _, r := range rows {
		fmt.Fprintf(h, "%q%q%d,%d\n", r.uid.Type, r.uid.ID, len(r.attrs), len(r.parents))
		_, _ = h.Write(r.attrs) // a hash.Hash never returns an error
		_, _ = h.Write(r.parents)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// one looks an entity up.
func (d *database) one(ctx context.Context, uid types.EntityUID) (row, bool, error) {
	rows, err := d.ask(ctx, uid.Type, d.query(d.types[uid.Type].One, 2), string(uid.ID))
	switch {
	case err != nil:
		return row{}, false, fmt.Errorf("%s: %w", uid, err)
	case len(rows) == 0:
		return row{}, false, nil
	case len(rows) > 1:
		return row{}, false, fmt.Errorf("%s: %w: there is more than one", uid, errAnswer)
	case rows[0].uid != uid:
		return row{}, false, fmt.Errorf("%s: %w: it is about another, %s", uid, errAnswer, rows[0].uid)
	default:
		return rows[0], true, nil
	}
}

// list lists ids.
func (d *database) list(ctx context.Context, t types.EntityType, after string, limit int) ([]types.EntityUID, error) {
	q := d.types[t].List
	if q == "" {
		return nil, ErrNoList
	}
	rows, err := d.ask(ctx, t, d.query(q, limit), after, limit)
	if err != nil {
		return nil, err
	}
	uids := make([]types.EntityUID, len(rows))
	seen := map[types.EntityUID]bool{types.NewEntityUID(t, types.String(after)): true}
	for i, r := range rows {
		// A list that comes again to where it was would never end.
		if seen[r.uid] {
			return nil, fmt.Errorf("%w: %s comes twice, or after itself", errAnswer, r.uid)
		}
		seen[r.uid], uids[i] = true, r.uid
	}
	return uids, nil
}

// ask asks on behalf of a decision: in a short time, and not at all while the
// database is known to have failed.
func (d *database) ask(ctx context.Context, t types.EntityType, query string, args ...any) ([]row, error) {
	if err := d.circuit.broken(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.title, err)
	}
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	rows, err := d.rows(limited, d.db, t, query, args...)
	if err != nil {
		if limited.Err() != nil && !errors.Is(err, limited.Err()) {
			err = fmt.Errorf("%w: %w", limited.Err(), err)
		}
		d.circuit.note(err, ctx.Err() == nil || time.Since(begun) >= patience)
		return nil, fmt.Errorf("%s: %w", d.title, err)
	}
	return rows, nil
}

// A querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// rows runs a query.
func (d *database) rows(ctx context.Context, q querier, t types.EntityType, query string, args ...any) ([]row, error) {
	rs, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	scan, err := d.scanner(rs)
	if err != nil {
		return nil, err
	}
	var out []row
	size := 0
	for rs.Next() {
		raw, err := scan()
		if err != nil {
			return nil, fmt.Errorf("%w: row %d: %w", errAnswer, len(out)+1, err)
		}
		r, err := tableRow(t, raw)
		if err != nil {
			return nil, fmt.Errorf("%w: row %d %w", errAnswer, len(out)+1, err)
		}
		r.where = d.title
		if size += len(raw); size > maxFile {
			return nil, fmt.Errorf("%w: it is larger than %d bytes", errAnswer, maxFile)
		}
		out = append(out, r)
	}
	return out, rs.Err()
}

// scanner returns what reads a row as a JSON object.
func (d *database) scanner(rs *sql.Rows) (func() (jsontext.Value, error), error) {
	if d.postgres {
		return func() (jsontext.Value, error) {
			var raw []byte
			err := rs.Scan(&raw)
			return raw, err
		}, nil
	}
	names, err := rs.Columns()
	if err != nil {
		return nil, err
	}
	values := make([]any, len(names))
	to := make([]any, len(names))
	for i := range values {
		to[i] = &values[i]
	}
	return func() (jsontext.Value, error) {
		if err := rs.Scan(to...); err != nil {
			return nil, err
		}
		return rowJSON(names, values)
	}, nil
}

// rowJSON writes a row of SQLite as JSON.
func rowJSON(names []string, values []any) (jsontext.Value, error) {
	b := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = jsontext.AppendQuote(b, name); err != nil {
			return nil, errors.New("the name of a column is not UTF-8")
		}
		if b, err = appendColumn(append(b, ':'), values[i]); err != nil {
			return nil, fmt.Errorf("%s %w", name, err)
		}
	}
	return append(b, '}'), nil
}

func appendColumn(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case int64:
		return fmt.Appendf(b, "%d", v), nil
	case bool:
		return fmt.Appendf(b, "%t", v), nil
	case float64:
		return appendFloat(b, v)
	case string:
		return appendUTF8(b, v)
	case []byte:
		return appendUTF8(b, string(v))
	case time.Time:
		return appendUTF8(b, v.UTC().Format(time.RFC3339Nano))
	default:
		return nil, fmt.Errorf("is of a type that is not known: %T", v)
	}
}

func appendFloat(b []byte, f float64) ([]byte, error) {
	// As few digits as tell it from others: what was written as 1.1 is 1.1.
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, errors.New("is not a number")
	}
	return append(b, text...), nil
}

func appendUTF8(b []byte, s string) ([]byte, error) {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		return nil, errors.New("is not UTF-8")
	}
	return b, nil
}

// tableRow takes a row's id and parents out of its columns.
func tableRow(t types.EntityType, raw jsontext.Value) (row, error) {
	r := row{uid: types.NewEntityUID(t, ""), table: true, attrs: jsontext.Value{'{'}}
	err := members(raw, func(name string, v jsontext.Value) (err error) {
		switch {
		case name == "parents" && v.Kind() == 'n':
			return nil
		case name == "parents" && v.Kind() == '"':
			if r.parents, err = unquoted(v); err != nil {
				return errors.New("has parents that are text and not JSON")
			}
			return nil
		case name == "parents":
			r.parents = v.Clone()
			return nil
		case name == "id":
			if r.uid.ID, err = tableID(v); err != nil {
				return err
			}
		}
		if len(r.attrs) > 1 {
			r.attrs = append(r.attrs, ',')
		}
		if r.attrs, err = jsontext.AppendQuote(r.attrs, name); err != nil {
			return err
		}
		r.attrs = append(append(r.attrs, ':'), v...)
		return nil
	})
	r.attrs = append(r.attrs, '}')
	if err == nil && r.uid.ID == "" {
		err = errors.New("has no id")
	}
	return r, err
}

// tableID reads an id: text, or an integer.
func tableID(v jsontext.Value) (types.String, error) {
	if s, ok := stringOf(v); ok {
		return types.String(s), nil
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != string(v) {
		return "", errors.New("has an id that is neither text nor an integer")
	}
	return types.String(v), nil
}
