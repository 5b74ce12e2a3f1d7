package revoke

import (
	"context"
	"errors"
	"sync"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// memory is a Store in memory that can be told to fail.
type memory struct {
	mu       sync.Mutex
	by       map[authz.Entity]Suspension
	changes  []Change
	recorded uint64
	fail     error
}

func newMemory() *memory { return &memory{by: map[authz.Entity]Suspension{}} }

func (m *memory) epoch() uint64 { return uint64(len(m.changes)) + 1 }

func (m *memory) broken(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) Suspensions(_ context.Context, have uint64) (*Set, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil || m.epoch() == have {
		return nil, m.fail
	}
	var list []Suspension
	for _, s := range m.by {
		list = append(list, s)
	}
	return NewSet(m.epoch(), list)
}

func (m *memory) Change(_ context.Context, c Change) (Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.fail, c.Check()); err != nil {
		return c, err
	}
	c.Epoch = m.epoch() + 1
	m.changes = append(m.changes, c)
	delete(m.by, c.Entity)
	if c.Verb == Suspend {
		m.by[c.Entity] = Suspension{Entity: c.Entity, Since: c.Time, By: c.By, Reason: c.Reason}
	}
	return c, nil
}

func (m *memory) Unrecorded(context.Context, string) ([]Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Change
	for _, c := range m.changes {
		if c.Epoch > m.recorded {
			list = append(list, c)
		}
	}
	return list, m.fail
}

func (m *memory) Recorded(_ context.Context, _ string, epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recorded = epoch
	return m.fail
}
