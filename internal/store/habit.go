package store

import (
	"context"
	"errors"
	"fmt"
)

const habitSchema = `
CREATE TABLE IF NOT EXISTS habit (
	agent TEXT PRIMARY KEY,
	state BLOB NOT NULL -- as internal/risk stores it
) WITHOUT ROWID;
`

// Habits calls each with every habit that was saved, by agent.
func (s *State) Habits(ctx context.Context, each func(agent string, state []byte)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read habits: %w", err)
		}
	}()
	rows, err := s.db.QueryContext(ctx, "SELECT agent, state FROM habit")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var agent string
		var state []byte
		if err := rows.Scan(&agent, &state); err != nil {
			return err
		}
		each(agent, state)
	}
	return rows.Err()
}

// SaveHabits saves habits, by agent.
func (s *State) SaveHabits(ctx context.Context, habits map[string][]byte) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("save habits: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	for agent, state := range habits {
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO habit VALUES (?, ?)", agent, state); err != nil {
			return fmt.Errorf("save habits: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("save habits: %w", err)
	}
	return nil
}
