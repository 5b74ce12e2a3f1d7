package risk

import (
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
)

// mostAgents is how many agents have a habit, about 15 KB each. Of further ones
// nothing is known, so that what is missing counts in full.
const mostAgents = 10_000

// A Tracker knows the habits of agents. It is safe for concurrent use. Its
// memory is bounded: 10,000 agents of about 15 KB.
type Tracker struct {
	mu     sync.RWMutex
	agents map[string]*habit
	dirty  map[string]*habit
}

// New returns a tracker that knows nobody.
func New() *Tracker { return &Tracker{agents: map[string]*habit{}, dirty: map[string]*habit{}} }

// An Assessment is the score of an action that has not been decided yet.
type Assessment struct {
	Score
	omen
	known bool
}

// Assess returns the risk of an action of an agent, and counts the action: what
// is under way counts. Each is followed by one [Tracker.Conclude].
func (t *Tracker) Assess(agent string, e *Event, c *Scorecard) Assessment {
	h := t.habit(agent)
	if h == nil { // one too many
		var fresh habit
		s, _ := fresh.assess(e)
		return Assessment{Score: c.of(&s)}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, o := h.assess(e)
	return Assessment{Score: c.of(&s), omen: o, known: true}
}

// Conclude says what became of an action. An agent's habit learns from what was
// released, unless its score is one that the scorecard flags.
func (t *Tracker) Conclude(agent string, e *Event, a *Assessment, c *Scorecard, released bool) {
	if !a.known {
		return
	}
	h := t.habit(agent)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !released {
		h.deny(e.Unix)
		return
	}
	h.pass(a.omen)
	if h.Learned < warm || a.Total < c.flag && h.Cusum < certain {
		h.learn(e, a.omen)
	}
}

func (t *Tracker) habit(agent string) *habit {
	t.mu.RLock()
	h, fresh := t.agents[agent], t.dirty[agent] == nil
	t.mu.RUnlock()
	if h != nil && !fresh {
		return h
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if h = t.agents[agent]; h == nil {
		if len(t.agents) >= mostAgents {
			return nil
		}
		h = &habit{}
		t.agents[agent] = h
	}
	t.dirty[agent] = h
	return h
}

// Len is how many agents have a habit.
func (t *Tracker) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.agents)
}

// Save hands store the habits that have changed since the last Save, by agent.
// What store fails to keep is handed to it again.
func (t *Tracker) Save(store func(habits map[string][]byte) error) error {
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = map[string]*habit{}
	t.mu.Unlock()
	stored := make(map[string][]byte, len(dirty))
	for agent, h := range dirty {
		stored[agent] = h.append([]byte{stateVersion})
	}
	if len(stored) == 0 {
		return nil
	}
	if err := store(stored); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		maps.Copy(t.dirty, dirty) // the habits are shared, so nothing newer is lost
		return err
	}
	return nil
}

// stateVersion is of the form of a stored habit.
const stateVersion = 1

func (h *habit) append(b []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, err := binary.Append(b, binary.LittleEndian, &h.state)
	if err != nil {
		panic(err) // a state has a fixed size
	}
	return b
}

// Restore takes over a habit that was stored. One of another form is an error,
// and the agent begins without a habit.
func (t *Tracker) Restore(agent string, stored []byte) error {
	h := &habit{}
	if len(stored) == 0 || stored[0] != stateVersion || len(stored) != 1+binary.Size(&h.state) {
		return fmt.Errorf("the stored habit of %q is not of this version", agent)
	}
	if _, err := binary.Decode(stored[1:], binary.LittleEndian, &h.state); err != nil {
		return fmt.Errorf("the stored habit of %q: %w", agent, err)
	}
	if h.KnownDestination > mostDestinations || h.NextDestination >= mostDestinations || h.NextSlot >= mostSessions ||
		!fits(h.Operations[:], h.KnownOperations) || !fits(h.Pairs[:], h.KnownPairs) {
		return fmt.Errorf("the stored habit of %q is damaged", agent)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.agents) < mostAgents {
		t.agents[agent] = h
	}
	return nil
}

// fits reports whether a table has as many keys as it should, and room.
func fits(table []count, used uint32) bool {
	n := uint32(0)
	for i := range table {
		if table[i].Key != 0 {
			n++
		}
	}
	return n == used && n < uint32(len(table))
}
