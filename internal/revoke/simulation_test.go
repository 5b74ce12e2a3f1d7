package revoke

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

var seeds = flag.Int("seeds", 400, "how many networks the simulation plays")

// A network is one way in which messages between a gate and its PDP are lost,
// delayed, and cut off from each other. Each gate has its own.
type network struct {
	rng       *rand.Rand
	loss      float64
	slow      float64 // share of messages that take seconds
	cut, heal time.Duration
	start     time.Time
}

func newNetwork(seed uint64, gate int, start time.Time) *network {
	rng := rand.New(rand.NewPCG(seed, uint64(gate)))
	n := &network{rng: rng, loss: rng.Float64() * 0.5, slow: rng.Float64() * 0.5, start: start}
	n.cut = time.Duration(rng.Int64N(int64(15 * time.Second)))
	n.heal = n.cut + time.Duration(rng.Int64N(int64(12*time.Second)))
	return n
}

// carry takes a message to the other side, or never.
func (n *network) carry(ctx context.Context) error {
	delay := time.Duration(n.rng.Int64N(int64(5 * time.Millisecond)))
	if n.rng.Float64() < n.slow {
		delay = time.Duration(n.rng.Int64N(int64(3 * time.Second)))
	}
	lost := n.rng.Float64() < n.loss
	at := time.Since(n.start)
	if lost || at > n.cut && at < n.heal {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A played network is what a simulation found.
type played struct {
	late  time.Duration // the latest allow after the acknowledgement
	acked time.Duration // how long the acknowledgement took
	cuts  int           // streams that were cut
	allow int           // before it
}

// play has three gates of one PDP decide all the time, suspends the agent
// somewhere in between, and looks for an allow, or an open stream, after that
// was acknowledged.
func play(t *testing.T, seed uint64, since func(asked, answered time.Time) time.Time) played {
	var p played
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		a, err := NewAuthority(Config{Store: newMemory(), Node: "n", Record: func(context.Context, Change) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		work.Go(func() { a.Follow(ctx) })
		start := time.Now()
		var acked atomic.Int64 // since start; 0: not yet
		var mu sync.Mutex
		scope := []authz.Entity{{Type: KindAgent, ID: "bot"}}
		for g := range 3 {
			net := newNetwork(seed, g, start)
			w := NewWatch(nil)
			f := follower{watch: w, since: since, ask: func(ctx context.Context, epoch uint64) (*Set, time.Duration, error) {
				if err := net.carry(ctx); err != nil {
					return nil, 0, err
				}
				set, term, err := a.Lease(ctx, fmt.Sprint("gate-", g), epoch)
				if err != nil {
					return nil, 0, err
				}
				return set, term, net.carry(ctx)
			}}
			work.Go(func() { f.run(ctx) })
			work.Go(func() {
				defer w.Close()
				var stream *Hold
				tick := rand.New(rand.NewPCG(seed, uint64(100+g)))
				for ctx.Err() == nil {
					at := time.Since(start)
					was := time.Duration(acked.Load())
					ok := w.Check(scope) == nil
					mu.Lock()
					switch {
					case ok && was > 0:
						p.late = max(p.late, at-was, 1)
					case ok:
						p.allow++
					}
					if stream != nil && stream.Cut() != nil {
						p.cuts++
						stream = nil
					} else if stream != nil && was > 0 {
						p.late = max(p.late, at-was, 1)
					}
					mu.Unlock()
					if ok && stream == nil {
						stream = w.Hold(scope)
					}
					time.Sleep(time.Duration(1 + tick.Int64N(int64(20*time.Millisecond))))
				}
			})
		}
		rng := rand.New(rand.NewPCG(seed, 99))
		time.Sleep(time.Duration(rng.Int64N(int64(14 * time.Second))))
		killed := time.Now()
		if _, err := a.Change(ctx, Change{Time: killed, Verb: Suspend, Entity: scope[0], By: "test", Reason: "test"}); err != nil {
			t.Error(err)
		}
		acked.Store(max(1, int64(time.Since(start))))
		p.acked = time.Since(killed)
		time.Sleep(8 * time.Second)
		stop()
		work.Wait()
		a.watch.Close()
	})
	return p
}

func fromAsking(asked, _ time.Time) time.Time       { return asked }
func fromAnswering(_, answered time.Time) time.Time { return answered }

// Whatever the network does, nothing is allowed and no stream is open once a
// suspension has been acknowledged, and that takes the term of a lease at most.
func TestNothingIsAllowedAfterASuspensionIsAcknowledged(t *testing.T) {
	var slowest time.Duration
	var cuts, allow int
	for seed := range uint64(*seeds) {
		p := play(t, seed, fromAsking)
		if p.late > 0 {
			t.Errorf("seed %d: allowed %v after the acknowledgement", seed, p.late)
		}
		if most := Term + margin(Term) + time.Millisecond; p.acked > most {
			t.Errorf("seed %d: acknowledged after %v, more than %v", seed, p.acked, most)
		}
		slowest = max(slowest, p.acked)
		cuts, allow = cuts+p.cuts, allow+p.allow
	}
	if cuts == 0 || allow == 0 {
		t.Errorf("the simulation shows nothing: %d streams cut, %d allows", cuts, allow)
	}
	t.Logf("%d networks: slowest acknowledgement %v, %d streams cut, %d allows before", *seeds, slowest, cuts, allow)
}

// The simulation would see a lease that counts from when the answer came.
func TestSimulationSeesALeaseCountedFromReceipt(t *testing.T) {
	found, worst := 0, time.Duration(0)
	for seed := range uint64(min(*seeds, 400)) {
		if p := play(t, seed, fromAnswering); p.late > 0 {
			found++
			worst = max(worst, p.late)
		}
	}
	if found == 0 {
		t.Error("a lease counted from receipt was not noticed")
	}
	t.Logf("found with %d of %d networks, worst %v late", found, min(*seeds, 400), worst)
}

// A node whose store cannot be read denies once its lease has run out, cuts what
// is open, and goes on when it can be read again.
func TestUnreadableStoreDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		m := newMemory()
		a, err := NewAuthority(Config{Store: m, Node: "n", Record: func(context.Context, Change) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		w := a.Watch()
		scope := []authz.Entity{{Type: KindAgent, ID: "bot"}}
		if why := w.Check(scope); why == nil || why.Code != authz.ReasonRevocationUnknown {
			t.Errorf("before anything is known: %v", why)
		}
		if err := a.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		work.Go(func() { a.Follow(ctx) })
		h := w.Hold(scope)
		time.Sleep(10 * Term)
		if why := w.Check(scope); why != nil || h.Cut() != nil {
			t.Errorf("a lease that is renewed: %v, %v", why, h.Cut())
		}
		m.broken(errors.New("the disk is gone"))
		time.Sleep(Term - 2*pollEvery)
		if why := w.Check(scope); why != nil {
			t.Errorf("before the lease has run out: %v", why)
		}
		time.Sleep(3 * pollEvery)
		if why := w.Check(scope); why == nil || why.Code != authz.ReasonRevocationUnknown {
			t.Errorf("after the lease has run out: %v", why)
		}
		if cut := h.Cut(); cut == nil || cut.Code != authz.ReasonRevocationUnknown {
			t.Errorf("what was open: %v", cut)
		}
		if _, _, err := a.Lease(ctx, "gate", 0); err == nil {
			t.Error("a lease was granted on what is not known")
		}
		m.broken(nil)
		time.Sleep(2 * pollEvery)
		if why := w.Check(scope); why != nil {
			t.Errorf("when it can be read again: %v", why)
		}
		stop()
		work.Wait()
		w.Close()
	})
}
