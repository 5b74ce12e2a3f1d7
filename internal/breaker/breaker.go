package breaker

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// A Key names a breaker: of an agent and a tool, or of a server.
type Key struct {
	Agent  string `json:"agent,omitempty"`
	Tool   string `json:"tool,omitempty"`
	Server string `json:"server,omitempty"`
}

// A Change is a breaker's change of state.
type Change struct {
	Key
	From State `json:"from"`
	To   State `json:"to"`
}

// A Result is what became of a call.
type Result int

// The results.
const (
	Good Result = iota
	// Bad: the tool answered with an error, or the call was denied. It says
	// nothing of the server.
	Bad
	// Broken: the server did not answer.
	Broken
	// Neutral: it says nothing, because the call was stopped from our side.
	Neutral
)

// Limits of a [Book]: about 60 MB when full.
const (
	maxBreakers = 100_000
	maxCalls    = 100_000
	forgetAfter = time.Hour // calls that nobody reports on
)

// A Book has all breakers. What is in no breaker passes, so that a book that is
// full stops nobody. The nil Book has none. It is safe for concurrent use.
type Book struct {
	settings Settings
	changed  func(Change)

	mu          sync.Mutex
	machines    map[Key]*machine
	calls       map[string]*Call // released, by decision
	transitions uint64
	swept       time.Time
}

// New returns a Book whose breakers are closed. changed is told of each change
// of state; it must be quick, and may be nil.
func New(s Settings, changed func(Change)) *Book {
	if changed == nil {
		changed = func(Change) {}
	}
	return &Book{settings: s.withDefaults(), changed: changed, machines: map[Key]*machine{}, calls: map[string]*Call{}}
}

// A Call is one call that passed. The nil Call tells nothing.
type Call struct {
	book  *Book
	keys  [2]Key // of agent and tool, and of the server
	probe [2]bool
	began time.Time
}

// Stopped says that a breaker is open.
type Stopped struct {
	Key
	// Until is when a probe is let through at the earliest.
	Until time.Time
}

// Admit asks whether a call may pass. It does, or Stopped says why not; then
// Denied, Released or Abandoned must follow.
func (b *Book) Admit(agent, tool, server string, now time.Time) (*Call, *Stopped) {
	if b == nil {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	c := &Call{book: b, keys: [2]Key{{Agent: agent, Tool: tool}, {Server: server}}, began: now}
	for i, k := range c.keys {
		m := b.machines[k]
		if m == nil {
			continue
		}
		before := m.at()
		ok, probe := m.admit(&b.settings, now)
		if !ok {
			if i == 1 && c.probe[0] { // the other's probe does not happen
				b.abandon(c.keys[0], now)
			}
			until := m.until
			if m.at() == HalfOpen {
				until = m.probe.Add(m.pause)
			}
			return nil, &Stopped{Key: k, Until: until}
		}
		c.probe[i] = probe
		b.tell(k, before, m.at())
	}
	return c, nil
}

func (b *Book) abandon(k Key, now time.Time) {
	if m := b.machines[k]; m != nil {
		before := m.at()
		m.abandon(now)
		b.tell(k, before, m.at())
	}
}

// Denied says that the call was not let through for a reason of its own. That
// counts against the agent and the tool, not against the server.
func (c *Call) Denied(now time.Time) {
	if c == nil {
		return
	}
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	c.book.result(c.keys[0], true, c.probe[0], now)
	if c.probe[1] {
		c.book.abandon(c.keys[1], now)
	}
}

// Abandoned says that nothing follows from the call.
func (c *Call) Abandoned(now time.Time) {
	if c == nil {
		return
	}
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	c.book.neutral(c, now)
}

func (b *Book) neutral(c *Call, now time.Time) {
	for i, probe := range c.probe {
		if probe {
			b.abandon(c.keys[i], now)
		}
	}
}

// Released says that the call runs, under the id of its decision. An outcome is
// expected.
func (c *Call) Released(decision string) {
	if c == nil {
		return
	}
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	if len(c.book.calls) < maxCalls {
		c.book.calls[decision] = c
	}
}

// Settle says what became of a released call. One that is not known changes
// nothing.
func (b *Book) Settle(decision string, r Result, now time.Time) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[decision]
	if c == nil {
		return
	}
	delete(b.calls, decision)
	if r == Neutral {
		b.neutral(c, now)
		return
	}
	slow := b.settings.Slow > 0 && now.Sub(c.began) >= b.settings.Slow
	b.result(c.keys[0], r != Good || slow, c.probe[0], now)
	if c.keys[1].Server != "" {
		b.result(c.keys[1], r == Broken || slow, c.probe[1], now)
	}
}

func (b *Book) result(k Key, failed, probe bool, now time.Time) {
	m := b.machines[k]
	if m == nil {
		if !failed || len(b.machines) >= maxBreakers {
			return // until something fails there is nothing to count
		}
		m = &machine{}
		b.machines[k] = m
	}
	before := m.at()
	m.result(&b.settings, failed, probe, now)
	b.tell(k, before, m.at())
}

func (b *Book) tell(k Key, from, to State) {
	if from != to {
		b.transitions++
		b.changed(Change{Key: k, From: from, To: to})
	}
}

// sweep forgets what is idle, every window.
func (b *Book) sweep(now time.Time) {
	if now.Sub(b.swept) < b.settings.Window {
		return
	}
	b.swept = now
	for k, m := range b.machines {
		if m.idle(&b.settings, now) {
			delete(b.machines, k)
		}
	}
	for id, c := range b.calls {
		if now.Sub(c.began) > forgetAfter {
			delete(b.calls, id)
		}
	}
}

// A Standing is a breaker that is not closed.
type Standing struct {
	Key
	State State     `json:"state"`
	Until time.Time `json:"until"` // when a probe is let through at the earliest
}

// Standings are the breakers that are not closed, servers first.
func (b *Book) Standings() []Standing {
	list := []Standing{}
	if b == nil {
		return list
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, m := range b.machines {
		if m.at() != Closed {
			list = append(list, Standing{Key: k, State: m.at(), Until: m.until})
		}
	}
	slices.SortFunc(list, func(a, b Standing) int {
		return cmp.Or(-cmp.Compare(a.Server, b.Server), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Tool, b.Tool))
	})
	return list
}

// Transitions is how often a breaker has changed its state.
func (b *Book) Transitions() uint64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.transitions
}
