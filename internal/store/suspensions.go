package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

const suspensionsVersion = 1

const suspensionsSchema = `
CREATE TABLE suspension (
	kind   TEXT NOT NULL,
	id     TEXT NOT NULL,
	since  INTEGER NOT NULL, -- microseconds since 1970
	author TEXT NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE change (
	epoch  INTEGER PRIMARY KEY, -- the first is 2
	at     INTEGER NOT NULL,    -- microseconds since 1970
	verb   TEXT NOT NULL,
	kind   TEXT NOT NULL,
	id     TEXT NOT NULL,
	author TEXT NOT NULL,
	reason TEXT NOT NULL
) STRICT;
CREATE TABLE recorded (node TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`

// keptChanges is how many changes are kept for nodes that have not recorded
// them, because they do not run.
const keptChanges = 100_000

// Suspensions is the database of what is suspended, which all processes of an
// installation share. It is safe for concurrent use.
type Suspensions struct {
	db *sql.DB
}

var _ revoke.Store = (*Suspensions)(nil)

// OpenSuspensions opens the database in the file, creating it if need be.
func OpenSuspensions(ctx context.Context, file string) (*Suspensions, error) {
	// FULL: nothing else says what is suspended, so a power cut may not lose it.
	dsn := (&url.URL{Scheme: "file", Opaque: file, RawQuery: url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)",
	}, "_txlock": {"immediate"}}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open suspensions %s: %w", file, err)
	}
	if err := migrate(ctx, db, suspensionsVersion, suspensionsSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("open suspensions %s: %w", file, err), db.Close())
	}
	return &Suspensions{db: db}, nil
}

// Close closes the database.
func (s *Suspensions) Close() error { return s.db.Close() }

// Suspensions implements [revoke.Store].
func (s *Suspensions) Suspensions(ctx context.Context, have uint64) (*revoke.Set, error) {
	epoch, err := epochOf(ctx, s.db)
	if err != nil || epoch == have {
		return nil, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	if epoch, err = epochOf(ctx, tx); err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, "SELECT kind, id, since, author, reason FROM suspension")
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var list []revoke.Suspension
	for rows.Next() {
		var one revoke.Suspension
		var since int64
		if err := rows.Scan(&one.Type, &one.ID, &since, &one.By, &one.Reason); err != nil {
			return nil, err
		}
		one.Since = time.UnixMicro(since).UTC()
		list = append(list, one)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return revoke.NewSet(epoch, list)
}

func epochOf(ctx context.Context, q querier) (uint64, error) {
	var epoch int64
	err := q.QueryRowContext(ctx, "SELECT coalesce(max(epoch), 1) FROM change").Scan(&epoch)
	return uint64(epoch), err
}

// Change implements [revoke.Store].
func (s *Suspensions) Change(ctx context.Context, c revoke.Change) (revoke.Change, error) {
	if err := c.Check(); err != nil {
		return c, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return c, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	epoch, err := epochOf(ctx, tx)
	if err != nil {
		return c, err
	}
	c.Epoch = epoch + 1
	at := c.Time.UnixMicro()
	var res sql.Result
	if c.Verb == revoke.Suspend {
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM suspension WHERE NOT (kind = ? AND id = ?)", c.Type, c.ID).Scan(&n); err != nil {
			return c, err
		}
		if revoke.Full(n, c.Entity) {
			return c, revoke.ErrFull
		}
		_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO suspension VALUES (?, ?, ?, ?, ?)", c.Type, c.ID, at, c.By, c.Reason)
	} else {
		res, err = tx.ExecContext(ctx, "DELETE FROM suspension WHERE kind = ? AND id = ?", c.Type, c.ID)
	}
	if err != nil {
		return c, err
	}
	if res != nil {
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return c, errors.Join(revoke.ErrNotSuspended, err)
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?)",
		int64(c.Epoch), at, string(c.Verb), c.Type, c.ID, c.By, c.Reason); err != nil {
		return c, err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM change WHERE epoch <= ?", int64(c.Epoch)-keptChanges); err != nil {
		return c, err
	}
	return c, tx.Commit()
}

// Unrecorded implements [revoke.Store].
func (s *Suspensions) Unrecorded(ctx context.Context, node string) ([]revoke.Change, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT epoch, at, verb, kind, id, author, reason FROM change
		WHERE epoch > coalesce((SELECT epoch FROM recorded WHERE node = ?), 0) ORDER BY epoch`, node)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var list []revoke.Change
	for rows.Next() {
		var c revoke.Change
		var e authz.Entity
		var at int64
		if err := rows.Scan(&c.Epoch, &at, &c.Verb, &e.Type, &e.ID, &c.By, &c.Reason); err != nil {
			return nil, err
		}
		c.Entity, c.Time = e, time.UnixMicro(at).UTC()
		list = append(list, c)
	}
	return list, rows.Err()
}

// Recorded implements [revoke.Store].
func (s *Suspensions) Recorded(ctx context.Context, node string, epoch uint64) error {
	_, err := s.db.ExecContext(ctx, "INSERT OR REPLACE INTO recorded VALUES (?, ?)", node, int64(epoch))
	return err
}
