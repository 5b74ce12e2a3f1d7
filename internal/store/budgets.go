package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/budget"
)

const budgetsVersion = 1

const budgetsSchema = `
CREATE TABLE counter (
	budget  TEXT NOT NULL,
	subject TEXT NOT NULL,
	window  INTEGER NOT NULL, -- when it began, microseconds since 1970
	spent   INTEGER NOT NULL,
	PRIMARY KEY (budget, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE open (
	decision TEXT PRIMARY KEY,
	at       INTEGER NOT NULL, -- microseconds since 1970
	spends   TEXT NOT NULL     -- JSON array
) STRICT, WITHOUT ROWID;
CREATE TABLE position (only INTEGER PRIMARY KEY CHECK (only = 1), next INTEGER NOT NULL, ahead TEXT NOT NULL) STRICT;
INSERT INTO position VALUES (1, 0, '[]');
`

// Budgets is the database of what was used up of budgets. It is safe for
// concurrent use.
type Budgets struct {
	db *sql.DB
}

var _ budget.Store = (*Budgets)(nil)

// OpenBudgets opens the database in the file, creating it if need be.
func OpenBudgets(ctx context.Context, file string) (*Budgets, error) {
	// NORMAL, as for the sessions: the evidence catches up what a power cut loses.
	dsn := (&url.URL{Scheme: "file", Opaque: file, RawQuery: url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)",
	}, "_txlock": {"immediate"}}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open budgets %s: %w", file, err)
	}
	if err := migrate(ctx, db, budgetsVersion, budgetsSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("open budgets %s: %w", file, err), db.Close())
	}
	return &Budgets{db: db}, nil
}

// Close closes the database.
func (s *Budgets) Close() error { return s.db.Close() }

// Budgets implements [budget.Store].
func (s *Budgets) Budgets(ctx context.Context) (budget.Saved, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return budget.Saved{}, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	var saved budget.Saved
	var next int64
	var ahead []byte
	if err := tx.QueryRowContext(ctx, "SELECT next, ahead FROM position").Scan(&next, &ahead); err != nil {
		return budget.Saved{}, err
	}
	saved.Position = uint64(next)
	if err := json.Unmarshal(ahead, &saved.Ahead); err != nil {
		return budget.Saved{}, fmt.Errorf("the position is damaged: %w", err)
	}
	err = each(ctx, tx, "SELECT budget, subject, window, spent FROM counter", func(scan func(...any) error) error {
		var c budget.Counter
		var window int64
		err := scan(&c.Budget, &c.Subject, &window, &c.Spent)
		c.Window = time.UnixMicro(window).UTC()
		saved.Counters = append(saved.Counters, c)
		return err
	})
	if err != nil {
		return budget.Saved{}, err
	}
	err = each(ctx, tx, "SELECT decision, at, spends FROM open", func(scan func(...any) error) error {
		var o budget.Open
		var at int64
		var spends []byte
		if err := scan(&o.Decision, &at, &spends); err != nil {
			return err
		}
		o.Time = time.UnixMicro(at).UTC()
		saved.Open = append(saved.Open, o)
		return json.Unmarshal(spends, &saved.Open[len(saved.Open)-1].Spends)
	})
	if err != nil {
		return budget.Saved{}, err
	}
	return saved, nil
}

func each(ctx context.Context, tx *sql.Tx, query string, row func(scan func(...any) error) error) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// SaveBudgets implements [budget.Store].
func (s *Budgets) SaveBudgets(ctx context.Context, d budget.Delta) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	exec := func(query string, args ...any) {
		if err == nil {
			_, err = tx.ExecContext(ctx, query, args...)
		}
	}
	for _, c := range d.Counters {
		exec("INSERT OR REPLACE INTO counter VALUES (?, ?, ?, ?)", c.Budget, c.Subject, c.Window.UnixMicro(), c.Spent)
	}
	for _, k := range d.Gone {
		exec("DELETE FROM counter WHERE budget = ? AND subject = ?", k.Budget, k.Subject)
	}
	for _, id := range d.Closed {
		exec("DELETE FROM open WHERE decision = ?", id)
	}
	for _, o := range d.Opened {
		spends, jsonErr := json.Marshal(o.Spends)
		if jsonErr != nil {
			return jsonErr
		}
		exec("INSERT OR REPLACE INTO open VALUES (?, ?, ?)", o.Decision, o.Time.UnixMicro(), string(spends))
	}
	ahead, jsonErr := json.Marshal(append([]uint64{}, d.Ahead...))
	if jsonErr != nil {
		return jsonErr
	}
	exec("UPDATE position SET next = ?, ahead = ?", int64(d.Position), string(ahead))
	if err != nil {
		return err
	}
	return tx.Commit()
}
