package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"strings"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

const (
	// journalID marks a SQLite file as a journal ("BLWJ"), so that no other
	// database is taken for one.
	journalID      = 0x424c574a
	journalVersion = 1
)

// journalSchema has no index beside the primary key: one would halve the
// throughput. The triggers keep a slip of our own hand from changing evidence;
// who wants to can drop them, and the tree will show it.
const journalSchema = `
CREATE TABLE entry (
	idx        INTEGER PRIMARY KEY CHECK (idx >= 0),
	hash       BLOB NOT NULL,
	leaf       BLOB NOT NULL,
	payload    BLOB NOT NULL,
	checkpoint BLOB,
	frontier   BLOB
) STRICT;
CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
`

const entryColumns = "idx, hash, leaf, payload, checkpoint, frontier"

// A Journal is the evidence journal in one SQLite file.
type Journal struct {
	read *sql.DB
	// write is nil in a journal that is only read. It has one connection.
	write *sql.DB
	conn  *sql.Conn
}

var _ audit.Journal = (*Journal)(nil)

// OpenJournal opens the journal in file for writing and makes it if it is
// missing. The caller must be the only writer.
func OpenJournal(ctx context.Context, file string) (*Journal, error) {
	j := &Journal{}
	err := createPrivate(file)
	if err == nil {
		err = j.openWriter(ctx, file)
	}
	if err == nil {
		err = j.openReader(ctx, file, "mode=ro")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", file, err), j.Close())
	}
	return j, nil
}

// createPrivate makes the file, if it is missing, readable by its owner only.
// SQLite gives the files beside it the same mode.
func createPrivate(file string) error {
	// Never open one that exists: closing it would drop the locks that SQLite
	// holds on it for this process.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// ReadJournal opens the journal in file for reading only, also while another
// process writes to it.
func ReadJournal(ctx context.Context, file string) (*Journal, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{}
	err := j.openReader(ctx, file, "mode=ro")
	if err != nil && !exists(file+"-wal") {
		// Without a WAL all is in the one file; in a directory where SQLite
		// cannot make its shared memory, it must be told that nobody writes.
		err = errors.Join(j.Close(), j.openReader(ctx, file, "mode=ro&immutable=1"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", file, err), j.Close())
	}
	return j, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func dataSource(file, query string) string {
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(file), RawQuery: query}).String()
}

func (j *Journal) openWriter(ctx context.Context, file string) error {
	// A commit is one fsync of the WAL. Checkpoints of 1,000 pages keep the
	// pauses short; larger ones make fewer and longer pauses.
	q := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(1000)", "cache_size(-4096)",
	}}
	var err error
	if j.write, err = sql.Open("sqlite", dataSource(file, q.Encode())); err != nil {
		return err
	}
	if j.conn, err = j.write.Conn(ctx); err != nil {
		return err
	}
	id, version, err := identify(ctx, j.conn)
	switch {
	case err != nil:
		return err
	case id == 0 && version == 0:
		if err := j.create(ctx); err != nil {
			return err
		}
	default:
		if err := checkIdentity(id, version); err != nil {
			return err
		}
	}
	return j.settle(ctx)
}

func (j *Journal) create(ctx context.Context) error {
	tx, err := j.conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("create tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, q := range []string{
		journalSchema,
		fmt.Sprintf("PRAGMA application_id = %d", journalID),
		fmt.Sprintf("PRAGMA user_version = %d", journalVersion),
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("create tables: %w", err)
	}
	return nil
}

// settle moves the WAL into the file and syncs it. After a failed fsync the
// kernel may show pages that are not on the disk and will never be written
// again; copying them makes them dirty once more, so that what is read from
// now on is what is durable.
func (j *Journal) settle(ctx context.Context) error {
	var busy, frames, moved int
	err := j.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	if err != nil {
		return fmt.Errorf("move the write-ahead log into the file: %w", err)
	}
	if busy != 0 {
		return errors.New("move the write-ahead log into the file: a reader has held it for too long")
	}
	return nil
}

func (j *Journal) openReader(ctx context.Context, file, mode string) error {
	var err error
	if j.read, err = sql.Open("sqlite", dataSource(file, mode+"&_pragma=busy_timeout(5000)&_pragma=query_only(1)")); err != nil {
		return err
	}
	id, version, err := identify(ctx, j.read)
	if err != nil {
		return err
	}
	return checkIdentity(id, version)
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func identify(ctx context.Context, q querier) (id, version int, err error) {
	if err := q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return 0, 0, fmt.Errorf("read the file's kind: %w", err)
	}
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, 0, fmt.Errorf("read the file's version: %w", err)
	}
	return id, version, nil
}

func checkIdentity(id, version int) error {
	switch {
	case id != journalID:
		return errors.New("not a Bailiwick journal")
	case version != journalVersion:
		return fmt.Errorf("a journal of version %d, and this program knows version %d: use the program that wrote it, or a newer one", version, journalVersion)
	}
	return nil
}

// Close closes the journal.
func (j *Journal) Close() error {
	var errs []error
	if j.read != nil {
		errs = append(errs, j.read.Close())
	}
	if j.conn != nil {
		errs = append(errs, j.conn.Close())
	}
	if j.write != nil {
		errs = append(errs, j.write.Close())
	}
	return errors.Join(errs...)
}

// Append adds entries in one transaction.
func (j *Journal) Append(ctx context.Context, entries []audit.Entry) error {
	if j.conn == nil {
		return errors.New("append to journal: it is open for reading only")
	}
	// The driver's own connection: database/sql would cost as much again for
	// each row as SQLite itself.
	return j.conn.Raw(func(c any) error {
		if err := appendAll(ctx, c.(driverConn), entries); err != nil {
			return fmt.Errorf("append to journal: %w", err)
		}
		return nil
	})
}

// A driverConn is what Append needs of the driver's connection.
type driverConn interface {
	driver.ConnPrepareContext
	driver.ExecerContext
}

// rowsPerInsert is how many rows one statement inserts when there are enough.
const rowsPerInsert = 32

func appendAll(ctx context.Context, c driverConn, entries []audit.Entry) (err error) {
	if err := exec(ctx, c, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The transaction may be gone already; the journal is not used
			// again after an error anyway.
			_ = exec(context.Background(), c, "ROLLBACK")
		}
	}()
	for _, n := range []int{rowsPerInsert, 1} {
		if entries, err = insert(ctx, c, entries, n); err != nil {
			return err
		}
	}
	return exec(ctx, c, "COMMIT")
}

// insert inserts entries by n at a time and returns those that are left over.
func insert(ctx context.Context, c driverConn, entries []audit.Entry, n int) ([]audit.Entry, error) {
	if len(entries) < n {
		return entries, nil
	}
	const row = "(?,?,?,?,?,?)"
	stmt, err := c.PrepareContext(ctx, "INSERT INTO entry ("+entryColumns+") VALUES "+row+strings.Repeat(","+row, n-1))
	if err != nil {
		return nil, err
	}
	defer stmt.Close()
	args := make([]driver.NamedValue, 0, 6*n)
	for len(entries) >= n {
		args = args[:0]
		for i := range entries[:n] {
			e := &entries[i]
			if e.Index > math.MaxInt64 {
				return nil, fmt.Errorf("index %d is out of range", e.Index)
			}
			for _, v := range []driver.Value{int64(e.Index), e.Hash[:], e.Leaf, notNull(e.Payload), blob(e.Checkpoint), blob(e.Frontier)} {
				args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: v})
			}
		}
		if _, err := stmt.(driver.StmtExecContext).ExecContext(ctx, args); err != nil {
			return nil, err
		}
		entries = entries[n:]
	}
	return entries, nil
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// blob is NULL for no bytes.
func blob(b []byte) driver.Value {
	if len(b) == 0 {
		return nil
	}
	return b
}

func exec(ctx context.Context, c driver.ExecerContext, query string) error {
	_, err := c.ExecContext(ctx, query, nil)
	return err
}

// readChunk is how many entries one query reads: a long read must not keep the
// WAL from being moved into the file.
const readChunk = 1000

// Entries calls f for each entry of [from, to) that exists, in order.
func (j *Journal) Entries(ctx context.Context, from, to uint64, f func(audit.Entry) error) error {
	for from < to {
		n := 0
		err := j.query(ctx, from, to, func(e audit.Entry) error {
			n++
			from = e.Index + 1
			return f(e)
		})
		if err != nil {
			return err
		}
		if n < readChunk {
			return nil
		}
	}
	return nil
}

func (j *Journal) query(ctx context.Context, from, to uint64, f func(audit.Entry) error) error {
	rows, err := j.read.QueryContext(ctx,
		"SELECT "+entryColumns+" FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx LIMIT ?",
		clamp(from), clamp(to), readChunk)
	if err != nil {
		return fmt.Errorf("read journal from entry %d: %w", from, err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return fmt.Errorf("read journal from entry %d: %w", from, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read journal after entry %d: %w", from, err)
	}
	return nil
}

// LastCommit returns the newest entry below index to that carries a
// checkpoint.
func (j *Journal) LastCommit(ctx context.Context, to uint64) (audit.Entry, error) {
	e, err := scanEntry(j.read.QueryRowContext(ctx,
		"SELECT "+entryColumns+" FROM entry WHERE idx < ? AND checkpoint IS NOT NULL ORDER BY idx DESC LIMIT 1", clamp(to)))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return audit.Entry{}, fmt.Errorf("a checkpoint before entry %d: %w", to, audit.ErrNotFound)
	case err != nil:
		return audit.Entry{}, fmt.Errorf("read the checkpoint before entry %d: %w", to, err)
	}
	return e, nil
}

// clamp fits an index into SQLite's integers.
func clamp(i uint64) int64 { return int64(min(i, math.MaxInt64)) }

type scanner interface{ Scan(dest ...any) error }

func scanEntry(s scanner) (audit.Entry, error) {
	var (
		e    audit.Entry
		idx  int64
		hash []byte
	)
	if err := s.Scan(&idx, &hash, &e.Leaf, &e.Payload, &e.Checkpoint, &e.Frontier); err != nil {
		return audit.Entry{}, err
	}
	e.Index = uint64(idx)
	// A hash of another length stays zero and is found not to be the leaf's.
	if len(hash) == len(e.Hash) {
		e.Hash = [32]byte(hash)
	}
	return e, nil
}
