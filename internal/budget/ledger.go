package budget

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// forgetAfter is when a reservation that nobody has settled is no longer
// expected to be; it stands.
const forgetAfter = time.Hour

// saveAfter is after how many records the position is saved although nothing
// was used up.
const saveAfter = 1000

// A Key names one counter.
type Key struct{ Budget, Subject string }

// A Counter is how much was used up in a window.
type Counter struct {
	Key
	Window time.Time // when it began
	Spent  int64
}

// An Open is a decision whose outcome is not known yet.
type Open struct {
	Decision string
	Time     time.Time
	Spends   []Spend
}

// A Saved is what follows from the records before a position, and from some
// after it.
type Saved struct {
	Counters []Counter
	Open     []Open
	// Position: the decisions of all records before it are included; Ahead are
	// those from it on that are, too, ascending.
	Position uint64
	Ahead    []uint64
}

// A Delta is what has changed since the last save.
type Delta struct {
	Counters []Counter // as they are now
	Gone     []Key
	Opened   []Open
	Closed   []string
	Position uint64
	Ahead    []uint64
}

// A Store keeps the state.
type Store interface {
	Budgets(ctx context.Context) (Saved, error)
	// SaveBudgets saves in one transaction.
	SaveBudgets(ctx context.Context, d Delta) error
}

// Config configures a [Ledger]. Store is required.
type Config struct {
	Budgets []Budget
	Store   Store
	// Limit is how many counters, and how many open decisions, are kept. Default
	// 200,000, about 60 MB. Beyond it what would need another counter is denied,
	// and open decisions are settled as used up.
	Limit int
}

// A Ledger counts. It is safe for concurrent use.
type Ledger struct {
	budgets []Budget
	store   Store
	limit   int

	mu       sync.Mutex
	counters map[Key]*counter
	pending  map[*Reservation]struct{} // not recorded yet
	open     map[string]Open
	ahead    []uint64
	next     uint64 // one more than the highest index known
	saved    uint64 // the position saved last

	dirty          map[Key]struct{}
	opened, closed map[string]struct{}
}

type counter struct {
	window  time.Time
	ends    time.Time
	spent   int64 // recorded
	pending int64 // reserved, and not recorded yet
}

// Load returns a Ledger with what was saved. Records from [Ledger.Position] on
// have to be replayed before it is used.
func Load(ctx context.Context, c Config) (*Ledger, error) {
	if c.Store == nil {
		return nil, errors.New("budget: no store")
	}
	if c.Limit <= 0 {
		c.Limit = 200_000
	}
	saved, err := c.Store.Budgets(ctx)
	if err != nil {
		return nil, fmt.Errorf("read budgets: %w", err)
	}
	l := &Ledger{
		budgets: c.Budgets, store: c.Store, limit: c.Limit,
		counters: map[Key]*counter{}, pending: map[*Reservation]struct{}{}, open: map[string]Open{},
		ahead: saved.Ahead, next: saved.Position, saved: saved.Position,
		dirty: map[Key]struct{}{}, opened: map[string]struct{}{}, closed: map[string]struct{}{},
	}
	for _, s := range saved.Counters {
		l.counters[s.Key] = &counter{window: s.Window, ends: l.ends(s.Key, s.Window), spent: s.Spent}
	}
	for _, o := range saved.Open {
		l.open[o.Decision] = o
	}
	return l, nil
}

// ends is when the window of a counter ends. That of a budget that is no longer
// configured is kept for as long as that of a session.
func (l *Ledger) ends(k Key, window time.Time) time.Time {
	for i := range l.budgets {
		if l.budgets[i].ID == k.Budget {
			_, end := l.budgets[i].window(window)
			return end
		}
	}
	return window.Add(sessionWindow)
}

// Position returns the index from which on records have to be replayed.
func (l *Ledger) Position() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Advance says that all decisions before an index have been recorded here or
// had nothing to record, so that a start need not read them again.
func (l *Ledger) Advance(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = max(l.next, index)
}

// A Reservation is what one decision has reserved. The nil Reservation has
// reserved nothing.
type Reservation struct {
	Spends []Spend

	l     *Ledger
	now   time.Time
	floor uint64 // its record comes at this index or later
}

// Reserve reserves all that a call may use up, or nothing: the error is then an
// [Exhausted], wraps [ErrUncountable], or [ErrFull]. The reservation must be
// recorded or cancelled.
func (l *Ledger) Reserve(c Call, now time.Time) (*Reservation, error) {
	if l == nil || len(l.budgets) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var spends []Spend
	for i := range l.budgets {
		b := &l.budgets[i]
		subject := b.subject(&c)
		if subject == "" || len(b.Actions) > 0 && !slices.Contains(b.Actions, c.Action) {
			continue
		}
		cost, err := b.cost(&c)
		if err != nil {
			return nil, err
		}
		at, err := l.counter(b, Key{b.ID, subject}, now)
		if err != nil {
			return nil, err
		}
		left := b.Limit - at.spent - at.pending
		if cost > left {
			return nil, &Exhausted{Budget: b.ID, Limit: b.Limit, Left: max(0, left), Cost: cost, Frees: at.ends}
		}
		spends = append(spends, Spend{Budget: b.ID, Subject: subject, Window: at.window, Amount: cost})
	}
	if len(spends) == 0 {
		return nil, nil
	}
	for _, s := range spends {
		l.counters[s.key()].pending += s.Amount
	}
	r := &Reservation{Spends: spends, l: l, now: now, floor: l.next}
	l.pending[r] = struct{}{}
	return r, nil
}

func (s Spend) key() Key { return Key{s.Budget, s.Subject} }

// counter is the counter of a key, in the window of now or a later one.
func (l *Ledger) counter(b *Budget, k Key, now time.Time) (*counter, error) {
	start, end := b.window(now)
	at := l.counters[k]
	if at == nil {
		if len(l.counters) >= l.limit {
			l.prune(now)
		}
		if len(l.counters) >= l.limit {
			return nil, ErrFull
		}
		at = &counter{window: start, ends: end}
		l.counters[k] = at
	}
	if start.After(at.window) {
		*at = counter{window: start, ends: end}
		l.dirty[k] = struct{}{}
	}
	return at, nil
}

// prune drops the counters whose window has ended.
func (l *Ledger) prune(now time.Time) {
	for k, at := range l.counters {
		if at.pending == 0 && now.After(at.ends) {
			delete(l.counters, k)
			l.dirty[k] = struct{}{}
		}
	}
}

// add adds to a counter if its window is still that of the spend.
func (l *Ledger) add(s Spend, spent, pending int64) {
	at := l.counters[s.key()]
	if at == nil || !at.window.Equal(s.Window) {
		return // the window is over
	}
	at.spent, at.pending = sum(at.spent, spent), at.pending+pending
	l.dirty[s.key()] = struct{}{}
}

// sum adds without overflow, and keeps what was used up from going below zero.
func sum(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return max(0, a+b)
}

// Recorded says that the decision with the reservation is on the record. settled
// says that no outcome will follow.
func (r *Reservation) Recorded(decision string, index uint64, settled bool) {
	if r == nil {
		return
	}
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.pending[r]; !ok {
		return
	}
	delete(l.pending, r)
	for _, s := range r.Spends {
		l.add(s, s.Amount, -s.Amount)
	}
	l.recorded(Open{Decision: decision, Time: r.now, Spends: r.Spends}, index, settled)
}

func (l *Ledger) recorded(o Open, index uint64, settled bool) {
	l.next = max(l.next, index+1)
	at, _ := slices.BinarySearch(l.ahead, index)
	l.ahead = slices.Insert(l.ahead, at, index)
	if settled || len(l.open) >= l.limit {
		return
	}
	l.open[o.Decision] = o
	l.opened[o.Decision] = struct{}{}
	delete(l.closed, o.Decision)
}

// Cancel takes back what was reserved by a decision that was not recorded.
func (r *Reservation) Cancel() {
	if r == nil {
		return
	}
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if _, ok := r.l.pending[r]; !ok {
		return
	}
	delete(r.l.pending, r)
	for _, s := range r.Spends {
		r.l.add(s, 0, -s.Amount)
	}
}

// Settle says what became of a decision: what never ran has used nothing up, and
// of what ran the bytes are known when whole says so. Anything else stands as it
// was reserved. It must be called before the outcome is put on the record.
func (l *Ledger) Settle(decision string, ran, whole bool, bytes int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.open[decision]
	if !ok {
		return
	}
	l.close(decision)
	for _, s := range o.Spends {
		switch {
		case !ran:
			l.add(s, -s.Amount, 0)
		case whole && l.measures(s.Budget) == MeasureBytes:
			l.add(s, bytes-s.Amount, 0)
		}
	}
}

func (l *Ledger) close(decision string) {
	delete(l.open, decision)
	delete(l.opened, decision)
	l.closed[decision] = struct{}{}
}

func (l *Ledger) measures(id string) string {
	for i := range l.budgets {
		if l.budgets[i].ID == id {
			return l.budgets[i].measure()
		}
	}
	return ""
}

// Replay takes a decision of the record into account, during a start. One that
// is included already changes nothing.
func (l *Ledger) Replay(index uint64, o Open, settled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, included := slices.BinarySearch(l.ahead, index); included {
		return
	}
	for _, s := range o.Spends {
		at := l.counters[s.key()]
		if at == nil || s.Window.After(at.window) {
			at = &counter{window: s.Window, ends: l.ends(s.key(), s.Window)}
			l.counters[s.key()] = at
		}
		l.add(s, s.Amount, 0)
	}
	l.recorded(o, index, settled)
}

// Save writes what has changed since the last Save.
func (l *Ledger) Save(ctx context.Context, now time.Time) error {
	d, ok := l.collect(now)
	if !ok {
		return nil
	}
	if err := l.store.SaveBudgets(ctx, d); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range d.Counters {
			l.dirty[c.Key] = struct{}{}
		}
		for _, k := range d.Gone {
			l.dirty[k] = struct{}{}
		}
		for _, o := range d.Opened {
			if _, still := l.open[o.Decision]; still {
				l.opened[o.Decision] = struct{}{}
			}
		}
		for _, id := range d.Closed {
			l.closed[id] = struct{}{}
		}
		return fmt.Errorf("save budgets: %w", err)
	}
	return nil
}

func (l *Ledger) collect(now time.Time) (Delta, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, o := range l.open {
		if now.Sub(o.Time) > forgetAfter {
			l.close(id)
		}
	}
	l.prune(now)
	if len(l.dirty)+len(l.opened)+len(l.closed) == 0 && l.next < l.saved+saveAfter {
		return Delta{}, false
	}
	l.saved = l.next
	d := Delta{Position: l.next, Closed: slices.Collect(maps.Keys(l.closed))}
	for r := range l.pending {
		d.Position = min(d.Position, r.floor)
	}
	at, _ := slices.BinarySearch(l.ahead, d.Position)
	l.ahead = slices.Clone(l.ahead[at:])
	d.Ahead = slices.Clone(l.ahead)
	for k := range l.dirty {
		if c := l.counters[k]; c != nil {
			d.Counters = append(d.Counters, Counter{Key: k, Window: c.window, Spent: c.spent})
		} else {
			d.Gone = append(d.Gone, k)
		}
	}
	for id := range l.opened {
		d.Opened = append(d.Opened, l.open[id])
	}
	l.dirty, l.opened, l.closed = map[Key]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	return d, true
}

// A Standing is how a budget stands.
type Standing struct {
	Budget  string    `json:"budget"`
	Per     string    `json:"per"`
	Subject string    `json:"subject"`
	Used    int64     `json:"used"` // with what is reserved
	Limit   int64     `json:"limit"`
	Frees   time.Time `json:"frees"`
}

// Standings are those in use, by budget and subject.
func (l *Ledger) Standings(now time.Time) []Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []Standing{}
	for k, c := range l.counters {
		for i := range l.budgets {
			if b := &l.budgets[i]; b.ID == k.Budget && now.Before(c.ends) {
				list = append(list, Standing{Budget: b.ID, Per: b.Per, Subject: k.Subject, Used: c.spent + c.pending, Limit: b.Limit, Frees: c.ends})
			}
		}
	}
	slices.SortFunc(list, func(a, b Standing) int {
		if a.Budget != b.Budget {
			return strings.Compare(a.Budget, b.Budget)
		}
		return strings.Compare(a.Subject, b.Subject)
	})
	return list
}
