package session

import (
	"context"
	"fmt"
)

// Owner returns the agent that opened a session. It opens none: known is false
// if nobody has.
func (t *Tracker) Owner(ctx context.Context, id string) (agent string, known bool, err error) {
	t.mu.Lock()
	e := t.live[id]
	t.mu.Unlock()
	if e != nil {
		return e.Agent, true, nil // it never changes
	}
	saved, ok, err := t.store.Session(ctx, id)
	if err != nil {
		return "", false, fmt.Errorf("read session: %w", err)
	}
	return saved.Agent, ok, nil
}
