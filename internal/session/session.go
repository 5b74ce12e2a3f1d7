// Package session knows what an agent's run has done so far: counters and
// labels that only tighten.
//
// The state is a function of the decision records. It is kept in memory,
// saved behind the decision path, and caught up from the evidence after a
// crash, so that it costs a decision no second write to disk.
package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// ErrOwner is wrapped when a session is asked for by another agent than the
// one that opened it.
var ErrOwner = errors.New("the session belongs to another agent")

// A Snapshot is the state of one session at one moment.
type Snapshot struct {
	ID string
	// Agent is who opened the session; nobody else may use it.
	Agent string
	// Started is when its first decision was taken.
	Started time.Time
	// Calls is how many actions were released before this moment, and Denials
	// how many requests were denied. Lists and handshakes count as neither.
	Calls, Denials int64
	// Labels are what the released actions taught, sorted. A label never goes.
	Labels []string
}

// Integrity is the least trusted of what the session has seen, on the scale of
// trust in a value: 5 for nothing but the user's words, 2 for what tools say of
// their own, 1 for what outsiders have written, 0 for what is from nobody knows
// where. It never rises.
func (s *Snapshot) Integrity() int64 {
	switch {
	case slices.Contains(s.Labels, "unknown"):
		return 0
	case slices.Contains(s.Labels, "untrusted"):
		return 1
	case s.Calls > 0:
		return 2
	default:
		return 5
	}
}

// Confidentiality is the most confidential of what the session has seen: 0 for
// nothing, 1 internal, 2 private, 3 secret. It never falls.
func (s *Snapshot) Confidentiality() int64 {
	for i, label := range []string{"secret", "private", "internal"} {
		if slices.Contains(s.Labels, label) {
			return int64(3 - i)
		}
	}
	return 0
}

// An Effect is what one decision does to its session.
type Effect struct {
	// Released: the action was let through.
	Released bool
	// Uncounted: a list or a handshake; it changes no counter.
	Uncounted bool
	// Labels are what releasing the action teaches.
	Labels []string
}

// A State is what is saved of a session.
type State struct {
	Snapshot
	// Ahead are the indexes of the records that are included although they lie
	// at or behind the saved position, ascending.
	Ahead []uint64
}

// A Store keeps the states of sessions.
type Store interface {
	// Session returns the saved state, or false when there is none.
	Session(ctx context.Context, id string) (State, bool, error)
	// SaveSessions saves the states, and position, in one transaction.
	SaveSessions(ctx context.Context, states []State, position uint64) error
	// SessionPosition returns the position last saved: every decision record
	// before it is included in the saved states.
	SessionPosition(ctx context.Context) (uint64, error)
}

// Config configures a [Tracker].
type Config struct {
	// Store keeps the states. Required.
	Store Store
	// Limit is how many sessions are kept in memory. Default 100,000, about
	// 50 MB. Beyond it, saved sessions are dropped from memory and read again
	// when they are next used.
	Limit int
}

// A Tracker holds the live sessions. It is safe for concurrent use.
type Tracker struct {
	store Store
	limit int

	mu    sync.Mutex
	live  map[string]*entry
	dirty map[string]*entry
	open  map[*Visit]struct{}
	next  uint64 // one more than the highest index applied
}

type entry struct {
	State
	used   time.Time
	visits int
}

// New returns a Tracker without any live session.
func New(c Config) (*Tracker, error) {
	if c.Store == nil {
		return nil, errors.New("session: no store")
	}
	if c.Limit <= 0 {
		c.Limit = 100_000
	}
	return &Tracker{
		store: c.Store, limit: c.Limit,
		live: map[string]*entry{}, dirty: map[string]*entry{}, open: map[*Visit]struct{}{},
	}, nil
}

// A Visit is one decision in a session, from its snapshot until its record
// has been applied. While it is open, the session stays in memory and the
// saved position stays at or before the visit's record.
type Visit struct {
	Snapshot
	t     *Tracker
	e     *entry
	floor uint64
}

// Enter opens a visit for a decision that has not been recorded yet. It opens
// the session for the agent if it is new; the error wraps [ErrOwner] when
// another agent opened it. The caller must Leave.
func (t *Tracker) Enter(ctx context.Context, id, agent string, now time.Time) (*Visit, error) {
	for {
		if v, err := t.enterLive(id, agent, now); v != nil || err != nil {
			return v, err
		}
		saved, ok, err := t.store.Session(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("read session: %w", err)
		}
		if !ok {
			saved = State{Snapshot: Snapshot{ID: id, Agent: agent, Started: now}}
		}
		t.admit(&entry{State: saved, used: now})
	}
}

func (t *Tracker) enterLive(id, agent string, now time.Time) (*Visit, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.live[id]
	if e == nil {
		return nil, nil
	}
	if e.Agent != agent {
		return nil, fmt.Errorf("session %q: %w", id, ErrOwner)
	}
	e.used = now
	e.visits++
	// The snapshot shares its labels with the entry: they are replaced, never
	// changed in place.
	// The visit's record will come after all that have been applied so far.
	v := &Visit{Snapshot: e.Snapshot, t: t, e: e, floor: t.next}
	t.open[v] = struct{}{}
	return v, nil
}

func (t *Tracker) admit(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[e.ID] == nil { // nobody else has loaded it meanwhile
		t.evict()
		t.live[e.ID] = e
	}
}

// Apply makes the visit's decision, recorded at index, part of the session.
func (v *Visit) Apply(index uint64, eff Effect) {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	v.e.apply(index, eff)
	v.t.dirty[v.e.ID] = v.e
	v.t.next = max(v.t.next, index+1)
}

// Leave closes the visit.
func (v *Visit) Leave() {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	if _, ok := v.t.open[v]; ok {
		delete(v.t.open, v)
		v.e.visits--
	}
}

func (e *entry) apply(index uint64, eff Effect) {
	at, included := slices.BinarySearch(e.Ahead, index)
	if included {
		return
	}
	if at == len(e.Ahead) {
		e.Ahead = append(e.Ahead, index) // a save reads what was there before
	} else {
		e.Ahead = slices.Insert(slices.Clone(e.Ahead), at, index) // in a slice that no save is reading
	}
	switch {
	case eff.Uncounted:
	case eff.Released:
		e.Calls++
	default:
		e.Denials++
	}
	if eff.Released {
		e.Labels = union(e.Labels, eff.Labels)
	}
}

// union returns the sorted union, or a itself when b adds nothing.
func union(a, b []string) []string {
	for _, l := range b {
		if _, ok := slices.BinarySearch(a, l); !ok {
			return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
		}
	}
	return a
}

// Len is how many sessions are in memory.
func (t *Tracker) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

// Position returns the index from which on records have to be replayed. It is
// called once, at the start, before anything else.
func (t *Tracker) Position(ctx context.Context) (uint64, error) {
	position, err := t.store.SessionPosition(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = max(t.next, position)
	return position, err
}

// Replay applies one record of the evidence during a start. A record that the
// saved state includes already changes nothing.
func (t *Tracker) Replay(ctx context.Context, id, agent string, index uint64, at time.Time, eff Effect) error {
	v, err := t.Enter(ctx, id, agent, at)
	if errors.Is(err, ErrOwner) {
		return nil // the record is of the denial that this mismatch caused
	}
	if err != nil {
		return err
	}
	defer v.Leave()
	v.Apply(index, eff)
	return nil
}

// Save writes what has changed since the last Save.
func (t *Tracker) Save(ctx context.Context) error {
	batch, states, position := t.collect()
	if len(states) == 0 {
		return nil
	}
	if err := t.store.SaveSessions(ctx, states, position); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		maps.Copy(t.dirty, batch) // the entries are shared, so nothing newer is lost
		return fmt.Errorf("save sessions: %w", err)
	}
	return nil
}

// collect takes the dirty sessions and the position up to which all records
// are included in them.
func (t *Tracker) collect() (map[string]*entry, []State, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	position := t.next
	for v := range t.open {
		position = min(position, v.floor)
	}
	batch := t.dirty
	t.dirty = map[string]*entry{}
	states := make([]State, 0, len(batch))
	for _, e := range batch {
		at, _ := slices.BinarySearch(e.Ahead, position)
		e.Ahead = slices.Clone(e.Ahead[at:])
		states = append(states, e.State)
	}
	return batch, states, position
}

// evict makes room when there are too many sessions in memory: saved ones go,
// the longest unused first, a tenth at a time so that the cost is spread.
// Called with mu held.
func (t *Tracker) evict() {
	if len(t.live) < t.limit {
		return
	}
	idle := make([]*entry, 0, len(t.live))
	for id, e := range t.live {
		if t.dirty[id] == nil && e.visits == 0 {
			idle = append(idle, e)
		}
	}
	slices.SortFunc(idle, func(a, b *entry) int { return a.used.Compare(b.used) })
	for _, e := range idle[:min(len(idle), t.limit/10+1)] {
		delete(t.live, e.ID)
	}
}
