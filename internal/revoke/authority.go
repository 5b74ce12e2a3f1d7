package revoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// Term is how long a node or a gate may rely on what it has learnt, and so how
// long a suspension takes at most to hold everywhere when the network is cut.
const Term = 5 * time.Second

// pollEvery is how often the store is looked at for what another process has
// changed. A process that is told (see [Authority.Sync]) need not wait for it.
const pollEvery = 100 * time.Millisecond

// A Verb says what a [Change] does.
type Verb string

// The verbs.
const (
	Suspend Verb = "suspend"
	Resume  Verb = "resume"
)

// A Change begins an epoch. By and Reason are for people, at most 512 bytes each.
type Change struct {
	Epoch uint64    `json:"epoch"`
	Time  time.Time `json:"time"`
	Verb  Verb      `json:"verb"`
	authz.Entity
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// Check says what is wrong with a change.
func (c Change) Check() error {
	switch {
	case c.Verb != Suspend && c.Verb != Resume:
		return fmt.Errorf("%q is neither suspend nor resume", c.Verb)
	case c.By == "":
		return errors.New("who does it has to be said")
	case c.Verb == Suspend && c.Reason == "":
		return errors.New("a suspension needs a reason")
	case len(c.By) > maxText || len(c.Reason) > maxText:
		return fmt.Errorf("a reason has at most %d bytes", maxText)
	}
	return Check(c.Entity)
}

// ErrFull is wrapped when there is no room for another suspension. Everything
// can still be suspended at once.
var ErrFull = errors.New("too much is suspended already: resume some of it, or suspend everything")

// ErrNotSuspended is wrapped when what is to be resumed is not suspended.
var ErrNotSuspended = errors.New("is not suspended")

// Full reports whether n suspensions leave no room for e.
func Full(n int, e authz.Entity) bool { return n >= maxSuspensions-1 && e.Type != KindAll }

// A Store keeps what is suspended for all processes of an installation.
type Store interface {
	// Suspensions returns what is suspended, or nil when the epoch is still the
	// one given.
	Suspensions(ctx context.Context, have uint64) (*Set, error)
	// Change makes a change durable and returns it with its epoch.
	Change(ctx context.Context, c Change) (Change, error)
	// Unrecorded returns the changes, in their order, that a node has not put on
	// its record yet.
	Unrecorded(ctx context.Context, node string) ([]Change, error)
	// Recorded says that a node has them on its record up to an epoch.
	Recorded(ctx context.Context, node string, epoch uint64) error
}

// Config configures an [Authority]. Store, Node and Record are required.
type Config struct {
	Store Store
	// Node names the record that changes are put on.
	Node string
	// Record puts a change on the record, durably.
	Record func(context.Context, Change) error
	// Term is how long leases last. Default [Term].
	Term time.Duration
	// Logger is told of a store that cannot be read. Default: nobody is.
	Logger *slog.Logger
}

// An Authority is what a node with a PDP knows of suspensions, and the one who
// tells gates in other processes. It is safe for concurrent use.
type Authority struct {
	Config
	watch *Watch

	syncing sync.Mutex
	epoch   uint64 // of the store, as last read; guarded by syncing
	next    *Set   // what comes into force once it is on the record; guarded by syncing

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when the set in force changes
	grants  grants
}

// NewAuthority returns an Authority that knows nothing before its first Sync.
func NewAuthority(c Config) (*Authority, error) {
	if c.Store == nil || c.Node == "" || c.Record == nil {
		return nil, errors.New("revoke: store, node and record are required")
	}
	if c.Term <= 0 {
		c.Term = Term
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Authority{
		Config: c, watch: NewWatch(nil),
		changed: make(chan struct{}), grants: grants{term: c.Term, holders: map[string]*holder{}},
	}, nil
}

// Watch is what the node knows. That of the nil Authority is nil.
func (a *Authority) Watch() *Watch {
	if a == nil {
		return nil
	}
	return a.watch
}

// Sync takes over what is in force. What is newly suspended is cut before
// anything else is done; what is resumed stays suspended until that is on the
// record.
func (a *Authority) Sync(ctx context.Context) error {
	a.syncing.Lock()
	defer a.syncing.Unlock()
	asked := time.Now()
	have := a.watch.Set()
	set, err := a.Store.Suspensions(ctx, a.epoch)
	switch {
	case err != nil:
		return fmt.Errorf("read suspensions: %w", err)
	case set != nil:
		a.epoch, a.next = set.epoch, set
		a.learn(set.with(have), asked)
	case have != nil:
		a.watch.learn(have, asked, a.Term)
	}
	if a.next == nil {
		return nil
	}
	if err := a.record(ctx); err != nil {
		return fmt.Errorf("record suspensions: %w", err)
	}
	a.learn(a.next, asked)
	a.next = nil
	return nil
}

// learn takes a set over and tells those who wait for it.
func (a *Authority) learn(set *Set, asked time.Time) {
	a.watch.learn(set, asked, a.Term)
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
}

// record puts on the record what is not there yet.
func (a *Authority) record(ctx context.Context) error {
	changes, err := a.Store.Unrecorded(ctx, a.Node)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Epoch > a.epoch {
			break // it is not in force yet
		}
		if err := a.Record(ctx, c); err != nil {
			return err
		}
		if err := a.Store.Recorded(ctx, a.Node, c.Epoch); err != nil {
			return err
		}
	}
	return nil
}

// Follow takes over what other processes change, until ctx ends.
func (a *Authority) Follow(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var said time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := a.Sync(ctx); err != nil && ctx.Err() == nil && time.Since(said) > time.Second {
			said = time.Now()
			a.Logger.Error("suspensions not followed; without them everything is going to be denied", "error", err)
		}
	}
}

// Change suspends or resumes something. When it returns without an error, the
// change holds in this process and in every gate that depends on it; that takes
// [Config.Term] at most, and as a rule a round trip. An error after a suspension
// was saved says that it holds here and perhaps not yet everywhere.
func (a *Authority) Change(ctx context.Context, c Change) (Change, error) {
	c, err := a.Store.Change(ctx, c)
	if err != nil {
		return c, fmt.Errorf("%s %s %s: %w", c.Verb, c.Type, c.ID, err)
	}
	return c, errors.Join(a.Sync(ctx), a.Settle(ctx, c.Epoch))
}

// Settle waits until every gate that depends on this node has taken over an
// epoch, or can rely on an earlier one no longer.
func (a *Authority) Settle(ctx context.Context, epoch uint64) error {
	for {
		a.mu.Lock()
		again, open := a.grants.open(epoch, time.Now())
		confirmed := a.grants.confirmed
		if confirmed == nil {
			confirmed = make(chan struct{})
			a.grants.confirmed = confirmed
		}
		a.mu.Unlock()
		if !open {
			return nil
		}
		timer := time.NewTimer(again)
		select {
		case <-confirmed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for the gates of other processes: %w", context.Cause(ctx))
		}
		timer.Stop()
	}
}

// Lease is a gate's request for a lease. holder names the gate's process, and
// epoch is the one that it has taken over; 0: none. It answers when there is a
// later one, or after a fifth of the term. The gate may rely on the answer for
// the term, counted from when it began to ask.
func (a *Authority) Lease(ctx context.Context, holder string, epoch uint64) (*Set, time.Duration, error) {
	timer := time.NewTimer(a.Term / 5)
	defer timer.Stop()
	for late := false; ; {
		set, changed, err := a.offer(holder, epoch, late)
		if set != nil || err != nil {
			return set, a.Term, err
		}
		select {
		case <-changed:
		case <-timer.C:
			late = true
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

// offer grants a lease if there is something new, or if it is late. What is
// granted, and that it is, is one step: a change that comes after it waits for
// this lease.
func (a *Authority) offer(holder string, epoch uint64, late bool) (*Set, <-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants.confirm(holder, epoch)
	set, now := a.watch.Set(), time.Now()
	if why := a.watch.Check(nil); why != nil && why.Code == authz.ReasonRevocationUnknown {
		return nil, nil, errors.New("this node does not know what is suspended")
	}
	if set.epoch == epoch && !late {
		return nil, a.changed, nil
	}
	if err := a.grants.grant(holder, epoch, set.epoch, now); err != nil {
		return nil, nil, err
	}
	return set, nil, nil
}

// Holders is how many gates of other processes depend on this node.
func (a *Authority) Holders() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.grants.holders)
}
