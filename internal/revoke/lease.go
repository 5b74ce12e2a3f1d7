package revoke

import (
	"context"
	"errors"
	"time"
)

// maxHolders bounds how many gates may depend on one node.
const maxHolders = 4096

// margin is what clocks that run at different speeds may make of a term.
func margin(term time.Duration) time.Duration { return term / 50 }

// grants are the leases that were granted. They read no clock. A holder counts
// its lease from before it asked, so a lease that was granted at a moment has
// run out when its term has passed since.
type grants struct {
	term      time.Duration
	holders   map[string]*holder
	confirmed chan struct{} // closed when a holder has taken over an epoch; nil: nobody waits
}

type holder struct {
	epoch  uint64               // that it has taken over
	leases map[uint64]time.Time // the last one of each epoch from that one on
}

var errHolders = errors.New("too many gates depend on this node")

// confirm takes a holder's word that it has taken over an epoch.
func (g *grants) confirm(name string, epoch uint64) {
	h := g.holders[name]
	if h == nil || h.epoch >= epoch {
		return
	}
	h.epoch = epoch
	for e := range h.leases {
		if e < epoch {
			delete(h.leases, e) // it never goes back
		}
	}
	if g.confirmed != nil {
		close(g.confirmed)
		g.confirmed = nil
	}
}

// grant notes a lease on the set of an epoch that is granted now, to a holder
// that has taken over another.
func (g *grants) grant(name string, taken, epoch uint64, now time.Time) error {
	h := g.holders[name]
	if h == nil {
		g.forget(now)
		if len(g.holders) >= maxHolders {
			return errHolders
		}
		h = &holder{epoch: taken, leases: map[uint64]time.Time{}}
		g.holders[name] = h
	}
	h.leases[epoch] = now
	return nil
}

// open reports whether some holder may still rely on what was in force before an
// epoch, and for how long at most. A lease that was granted later is no danger:
// whoever has it has the later set.
func (g *grants) open(epoch uint64, now time.Time) (time.Duration, bool) {
	g.forget(now)
	var most time.Duration
	for _, h := range g.holders {
		if h.epoch >= epoch {
			continue
		}
		for e, at := range h.leases {
			if e < epoch {
				most = max(most, g.left(at, now))
			}
		}
	}
	return most, most > 0
}

// left is how long a lease that was granted at a moment may still be relied on.
func (g *grants) left(granted, now time.Time) time.Duration {
	return granted.Add(g.term + margin(g.term)).Sub(now)
}

// forget drops the leases that have run out, and the holders that have none.
func (g *grants) forget(now time.Time) {
	for name, h := range g.holders {
		for e, at := range h.leases {
			if g.left(at, now) <= 0 {
				delete(h.leases, e)
			}
		}
		if len(h.leases) == 0 {
			delete(g.holders, name)
		}
	}
}

// A Lessor grants leases on what is suspended: see [Authority.Lease].
type Lessor func(ctx context.Context, epoch uint64) (*Set, time.Duration, error)

// A follower keeps a gate's Watch up to date.
type follower struct {
	watch *Watch
	ask   Lessor
	fault func(error)
	// since is from when a lease counts: from when it was asked for. Only a test
	// that shows why says otherwise.
	since func(asked, answered time.Time) time.Time
}

// Follow keeps a Watch up to date until ctx ends. fault is told when a lease
// could not be renewed; may be nil.
func Follow(ctx context.Context, w *Watch, ask Lessor, fault func(error)) {
	f := follower{watch: w, ask: ask, fault: fault, since: func(asked, _ time.Time) time.Time { return asked }}
	f.run(ctx)
}

// Pauses after a lease could not be renewed.
const (
	firstPause = 50 * time.Millisecond
	longPause  = time.Second
)

func (f *follower) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		if err := f.once(ctx); err == nil {
			pause = firstPause
			continue
		} else if f.fault != nil && ctx.Err() == nil {
			f.fault(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}

// once asks for one lease. It gives up while there is time to ask again.
func (f *follower) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Term/2)
	defer cancel()
	var epoch uint64
	if set := f.watch.Set(); set != nil {
		epoch = set.epoch
	}
	asked := time.Now()
	set, term, err := f.ask(ctx, epoch)
	if err != nil {
		return err
	}
	if set == nil || term <= 0 {
		return errors.New("the lease says nothing")
	}
	f.watch.learn(set, f.since(asked, time.Now()), min(term, Term))
	return nil
}
