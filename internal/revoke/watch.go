package revoke

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A lease is how long what was learnt may be relied on.
type lease struct {
	// from is when it was asked for. An answer may be old when it arrives, and
	// whoever gave it knows only that it was asked for before.
	from time.Time
	term time.Duration
}

// holds reports whether the lease has not run out. The clock that does not
// count the sleep of a machine, and the one that does, must both agree.
func (l lease) holds(now time.Time) bool {
	return now.Sub(l.from) < l.term && now.Round(0).Sub(l.from.Round(0)) < l.term
}

// known is what is known at one moment.
type known struct {
	set   *Set // nil: nothing
	lease lease
}

// check says why a scope may not act.
func (k *known) check(scope []authz.Entity, now time.Time) *Cut {
	if k == nil || k.set == nil || !k.lease.holds(now) {
		return &Cut{unknown}
	}
	if e, ok := k.set.find(scope); ok {
		return &Cut{reason(e)}
	}
	return nil
}

// A Cut is why something may not go on: a suspension, or that nothing is known.
type Cut struct{ authz.Reason }

func (c *Cut) Error() string { return c.Code + ": " + c.Message }

// A Watch is what is known of suspensions here, and what relies on it. Until it
// has learnt something, and when a lease has run out, nothing is known. The nil
// Watch knows that nothing is ever suspended. It is safe for concurrent use.
type Watch struct {
	known atomic.Pointer[known]
	now   func() time.Time

	mu    sync.Mutex
	held  map[*Hold]struct{}
	timer *time.Timer // when the lease runs out
}

// NewWatch returns a Watch that knows nothing yet. now is the clock; nil for
// time.Now.
func NewWatch(now func() time.Time) *Watch {
	if now == nil {
		now = time.Now
	}
	return &Watch{now: now, held: map[*Hold]struct{}{}}
}

// Set is what was learnt last, or nil.
func (w *Watch) Set() *Set {
	if w == nil {
		return nil
	}
	if k := w.known.Load(); k != nil {
		return k.set
	}
	return nil
}

// Check says why a scope may not act now; nil: it may.
func (w *Watch) Check(scope []authz.Entity) *Cut {
	if w == nil {
		return nil
	}
	return w.known.Load().check(scope, w.now())
}

// learn takes what is in force, which was asked for at a moment, for a term.
// What is older than what is known changes nothing. When it returns, everything
// that the set suspends is cut.
func (w *Watch) learn(set *Set, asked time.Time, term time.Duration) {
	w.mu.Lock()
	have := w.known.Load()
	if have != nil && have.set.epoch > set.epoch {
		w.mu.Unlock()
		return
	}
	next := &known{set: set, lease: lease{asked, term}}
	w.known.Store(next)
	if w.timer == nil {
		w.timer = time.AfterFunc(term, w.expire)
	}
	w.timer.Reset(max(0, term-w.now().Sub(asked)))
	cut := w.taken(next)
	w.mu.Unlock()
	for h, why := range cut {
		h.end(why)
	}
}

// expire cuts everything when the lease has run out.
func (w *Watch) expire() {
	w.mu.Lock()
	k := w.known.Load()
	cut := w.taken(k)
	if k != nil && k.lease.holds(w.now()) { // renewed, or the timer was early
		w.timer.Reset(max(time.Millisecond, k.lease.term-w.now().Sub(k.lease.from)))
	}
	w.mu.Unlock()
	for h, why := range cut {
		h.end(why)
	}
}

// taken removes the holds that may not go on. Called with mu held.
func (w *Watch) taken(k *known) map[*Hold]*Cut {
	var cut map[*Hold]*Cut
	now := w.now()
	for h := range w.held {
		if why := k.check(h.scope, now); why != nil {
			if cut == nil {
				cut = map[*Hold]*Cut{}
			}
			cut[h] = why
			delete(w.held, h)
		}
	}
	return cut
}

// Close ends the timer of the lease.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// Hold registers something that is going to act, or is open, within a scope. It
// returns a hold that was cut already if the scope may not act. The caller must
// Release it.
func (w *Watch) Hold(scope []authz.Entity) *Hold {
	h := &Hold{watch: w, scope: scope}
	if w == nil {
		return h
	}
	// Registered first, looked up second, both under the lock that learning takes:
	// either this sees the suspension, or the suspension sees this.
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.cut = w.known.Load().check(scope, w.now()); h.cut == nil {
		w.held[h] = struct{}{}
	}
	return h
}

// Held is how many holds there are.
func (w *Watch) Held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

// A Hold is something that ends when its scope is suspended. It is safe for
// concurrent use.
type Hold struct {
	watch *Watch
	scope []authz.Entity

	mu   sync.Mutex
	cut  *Cut
	ends []*func(*Cut)
}

// Cut says why the hold was cut, or is nil.
func (h *Hold) Cut() *Cut {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut
}

// OnCut has f called when the hold is cut, at once if it has been. A suspension
// is not acknowledged before f has returned, so f must be quick. undo takes it
// back.
func (h *Hold) OnCut(f func(*Cut)) (undo func()) {
	h.mu.Lock()
	if cut := h.cut; cut != nil {
		h.mu.Unlock()
		f(cut)
		return func() {}
	}
	p := &f
	h.ends = append(h.ends, p)
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for i, e := range h.ends {
			if e == p {
				h.ends = append(h.ends[:i], h.ends[i+1:]...)
				return
			}
		}
	}
}

// Bind returns a ctx that also ends when the hold is cut, with the [Cut] as its
// cause. Its cancel function must be called.
func (h *Hold) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	undo := h.OnCut(func(why *Cut) { cancel(why) })
	return ctx, func() {
		undo()
		cancel(nil)
	}
}

func (h *Hold) end(why *Cut) {
	h.mu.Lock()
	h.cut = why
	ends := h.ends
	h.ends = nil
	h.mu.Unlock()
	for _, f := range ends {
		(*f)(why)
	}
}

// Release forgets the hold: nothing of it is under way any more.
func (h *Hold) Release() {
	if h.watch == nil {
		return
	}
	h.watch.mu.Lock()
	defer h.watch.mu.Unlock()
	delete(h.watch.held, h)
}
