// Package store keeps state and evidence in SQLite. SQL lives only here.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// stateVersion is the schema's version, kept in the file's user_version.
const stateVersion = 1

const stateSchema = `
CREATE TABLE session (
	id      TEXT PRIMARY KEY,
	agent   TEXT NOT NULL,
	started INTEGER NOT NULL, -- microseconds since 1970
	calls   INTEGER NOT NULL,
	denials INTEGER NOT NULL,
	labels  TEXT NOT NULL,    -- JSON array of strings
	ahead   TEXT NOT NULL     -- JSON array of record indexes
) WITHOUT ROWID;
CREATE TABLE position (only INTEGER PRIMARY KEY CHECK (only = 1), next INTEGER NOT NULL);
INSERT INTO position VALUES (1, 0);
`

// A State is the database of everything that is not evidence. It is safe for
// concurrent use.
type State struct {
	db *sql.DB
}

// OpenState opens the database in the file, creating it if need be.
func OpenState(ctx context.Context, file string) (*State, error) {
	// NORMAL may lose the last commits in a power cut. The evidence then
	// catches the state up, because the position goes back with it.
	dsn := (&url.URL{Scheme: "file", Opaque: file, RawQuery: url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)",
	}, "_txlock": {"immediate"}}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", file, err)
	}
	s := &State{db: db}
	if err := migrate(ctx, db, stateVersion, stateSchema, habitSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", file, err), db.Close())
	}
	return s, nil
}

// migrate makes the tables in a new file, and refuses one of another version.
// What was added later is made, unless it is there, in a file of any age.
func migrate(ctx context.Context, db *sql.DB, version int, schema string, added ...string) error {
	later := strings.Join(added, "")
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	var have int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	switch have {
	case version:
		if later == "" {
			return nil
		}
		if _, err := tx.ExecContext(ctx, later); err != nil {
			return err
		}
		return tx.Commit()
	case 0:
	default:
		return fmt.Errorf("schema version %d is not %d: the file was written by another release", have, version)
	}
	if _, err := tx.ExecContext(ctx, schema+later+fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return tx.Commit()
}

// Close closes the database.
func (s *State) Close() error { return s.db.Close() }

// Session implements [session.Store].
func (s *State) Session(ctx context.Context, id string) (session.State, bool, error) {
	st := session.State{Snapshot: session.Snapshot{ID: id}}
	var started int64
	var labels, ahead []byte
	err := s.db.QueryRowContext(ctx, "SELECT agent, started, calls, denials, labels, ahead FROM session WHERE id = ?", id).
		Scan(&st.Agent, &started, &st.Calls, &st.Denials, &labels, &ahead)
	if errors.Is(err, sql.ErrNoRows) {
		return session.State{}, false, nil
	}
	if err != nil {
		return session.State{}, false, err
	}
	st.Started = time.UnixMicro(started).UTC()
	if err := errors.Join(json.Unmarshal(labels, &st.Labels), json.Unmarshal(ahead, &st.Ahead)); err != nil {
		return session.State{}, false, fmt.Errorf("session %q is damaged: %w", id, err)
	}
	return st, true, nil
}

// SaveSessions implements [session.Store].
func (s *State) SaveSessions(ctx context.Context, states []session.State, position uint64) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	insert, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	for _, st := range states {
		labels, err := json.Marshal(st.Labels)
		if err != nil {
			return err
		}
		ahead, err := json.Marshal(st.Ahead)
		if err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, st.ID, st.Agent, st.Started.UnixMicro(), st.Calls, st.Denials, labels, ahead); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE position SET next = ?", int64(position)); err != nil {
		return err
	}
	return tx.Commit()
}

// SessionPosition implements [session.Store].
func (s *State) SessionPosition(ctx context.Context) (uint64, error) {
	var next int64
	err := s.db.QueryRowContext(ctx, "SELECT next FROM position").Scan(&next)
	return uint64(next), err
}
