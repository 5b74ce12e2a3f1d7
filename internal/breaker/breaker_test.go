package breaker

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSettingsAreChecked(t *testing.T) {
	for _, s := range []Settings{{Failures: -1}, {Share: -0.1}, {Share: 1.1}, {Window: -1}, {Pause: -1}, {Slow: -1}, {Window: time.Nanosecond}} {
		if s.Check() == nil {
			t.Errorf("%+v is right", s)
		}
	}
	if err := (Settings{Failures: 3, Share: 1, Window: time.Second, Pause: time.Second}).Check(); err != nil {
		t.Error(err)
	}
}

// A model is a breaker as one would write it down: all results, kept.
type model struct {
	state   State
	until   time.Time
	pause   time.Duration
	probe   time.Time
	results []modelResult
}

type modelResult struct {
	slot int64
	fail bool
}

// The breaker does what the model does, whatever happens when.
func TestBreakerIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Settings{Failures: 3, Share: 0.5, Window: 60 * time.Second, Pause: 30 * time.Second}.withDefaults()
		m := &machine{}
		ref := &model{state: Closed}
		now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
		var probing bool
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				ok, probe := m.admit(&s, now)
				wantOK, wantProbe := true, false
				switch {
				case ref.state == Closed:
				case ref.state == Open && now.Before(ref.until), ref.state == HalfOpen && now.Before(ref.probe.Add(ref.pause)):
					wantOK = false
				default:
					ref.state, ref.probe, wantProbe = HalfOpen, now, true
				}
				if ok != wantOK || probe != wantProbe {
					t.Fatalf("admitted %v, probe %v; want %v, %v", ok, probe, wantOK, wantProbe)
				}
				probing = probing || probe
			case 1, 2:
				fail, probe := rapid.Bool().Draw(t, "fail"), probing && rapid.Bool().Draw(t, "probe")
				m.result(&s, fail, probe, now)
				switch {
				case ref.state == Closed:
					slot := now.UnixNano() / (10 * time.Second).Nanoseconds()
					ref.results = append(ref.results, modelResult{slot, fail})
					good, bad := 0, 0
					for _, r := range ref.results {
						switch {
						case r.slot <= slot-buckets:
						case r.fail:
							bad++
						default:
							good++
						}
					}
					if bad >= 3 && bad >= good {
						ref.state, ref.pause, ref.until, ref.results = Open, s.Pause, now.Add(s.Pause), nil
					}
				case ref.state == HalfOpen && probe && fail:
					ref.pause = min(2*ref.pause, mostDoubled*s.Pause)
					ref.state, ref.until, probing = Open, now.Add(ref.pause), false
				case ref.state == HalfOpen && probe:
					*ref, probing = model{state: Closed}, false
				}
			case 3:
				m.abandon(now)
				if ref.state == HalfOpen {
					ref.state, ref.until, probing = Open, now, false
				}
			}
			if m.at() != ref.state {
				t.Fatalf("%s, want %s", m.at(), ref.state)
			}
		}
	})
}

// Of many calls at once, one is the probe.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		b := New(Settings{Failures: 3, Pause: time.Second}, func(c Change) { changes = append(changes, fmt.Sprint(c.Server, " ", c.From, " ", c.To)) })
		fail := func(n int) {
			for i := range n {
				c, stopped := b.Admit("bot", fmt.Sprint("tool-", i), "s", time.Now())
				if stopped != nil {
					return
				}
				id := fmt.Sprint(time.Now(), i)
				c.Released(id)
				b.Settle(id, Broken, time.Now())
			}
		}
		volley := func() (passed []*Call) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					c, stopped := b.Admit("other", "tool", "s", time.Now())
					if stopped != nil && stopped.Server != "s" {
						t.Errorf("stopped by %+v", stopped)
					}
					if stopped == nil {
						mu.Lock()
						defer mu.Unlock()
						passed = append(passed, c)
					}
				})
			}
			wg.Wait()
			return passed
		}
		fail(3)
		if n := len(volley()); n != 0 {
			t.Errorf("%d passed an open breaker", n)
		}
		time.Sleep(time.Second)
		first := volley()
		if len(first) != 1 {
			t.Fatalf("%d probes", len(first))
		}
		first[0].Released("p1")
		b.Settle("p1", Broken, time.Now())
		time.Sleep(time.Second)
		if n := len(volley()); n != 0 {
			t.Errorf("%d passed after a second; a failed probe doubles the pause", n)
		}
		time.Sleep(time.Second)
		second := volley()
		if len(second) != 1 {
			t.Fatalf("%d probes", len(second))
		}
		second[0].Denied(time.Now()) // which says nothing of the server
		third := volley()
		if len(third) != 1 {
			t.Fatalf("%d probes after one that told nothing", len(third))
		}
		third[0].Released("p3")
		b.Settle("p3", Good, time.Now())
		if n := len(volley()); n != 50 || len(b.Standings()) != 0 {
			t.Errorf("%d passed a closed breaker, %+v", n, b.Standings())
		}
		want := []string{"s closed open", "s open half_open", "s half_open open", "s open half_open", "s half_open open", "s open half_open", "s half_open closed"}
		if diff := cmp.Diff(want, changes); diff != "" || b.Transitions() != uint64(len(want)) {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What an agent does wrong stops that agent and tool, and neither the server nor
// anybody else; what the server does wrong stops the server.
func TestWhoIsStopped(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name                     string
		do                       func(*Call, *Book, string)
		same, tool, agent, other bool // may: the same again, another tool, another agent, another server
	}{
		{"denials", func(c *Call, _ *Book, _ string) { c.Denied(now) }, false, true, true, true},
		{"errors", func(c *Call, b *Book, id string) { c.Released(id); b.Settle(id, Bad, now) }, false, true, true, true},
		{"lost answers", func(c *Call, b *Book, id string) { c.Released(id); b.Settle(id, Broken, now) }, false, false, false, true},
		{"slow answers", func(c *Call, b *Book, id string) { c.Released(id); b.Settle(id, Good, now.Add(10*time.Second)) }, false, false, false, true},
		{"answers", func(c *Call, b *Book, id string) { c.Released(id); b.Settle(id, Good, now) }, true, true, true, true},
		{"what we stopped", func(c *Call, b *Book, id string) { c.Released(id); b.Settle(id, Neutral, now) }, true, true, true, true},
		{"what nobody reports on", func(c *Call, _ *Book, _ string) { c.Abandoned(now) }, true, true, true, true},
	} {
		b := New(Settings{Failures: 3, Slow: 5 * time.Second}, nil)
		for i := range 3 {
			c, stopped := b.Admit("bot", "t", "s", now)
			if stopped != nil {
				t.Fatalf("%s: stopped too soon", tt.name)
			}
			tt.do(c, b, fmt.Sprint(i))
		}
		for what, x := range map[string]struct {
			agent, tool, server string
			want                bool
		}{"same": {"bot", "t", "s", tt.same}, "tool": {"bot", "u", "s", tt.tool}, "agent": {"man", "t", "s", tt.agent}, "other": {"man", "v", "r", tt.other}} {
			if _, stopped := b.Admit(x.agent, x.tool, x.server, now); (stopped == nil) != x.want {
				t.Errorf("%s: %s: stopped %+v", tt.name, what, stopped)
			}
		}
	}
	var none *Book
	c, stopped := none.Admit("a", "t", "s", now)
	c.Denied(now)
	c.Released("x")
	c.Abandoned(now)
	none.Settle("x", Broken, now)
	if stopped != nil || len(none.Standings()) != 0 || none.Transitions() != 0 {
		t.Error("no breakers stop something")
	}
}

func TestBookIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	b := New(Settings{}, nil)
	for i := range maxBreakers + 10 {
		c, _ := b.Admit(fmt.Sprint(i), "t", "s", now)
		c.Denied(now)
		c, _ = b.Admit("x", "t", "s", now)
		c.Released(fmt.Sprint(i))
	}
	if len(b.machines) != maxBreakers || len(b.calls) != maxCalls {
		t.Errorf("%d breakers, %d calls", len(b.machines), len(b.calls))
	}
	if _, stopped := b.Admit("new", "t", "s", now); stopped != nil {
		t.Error("a full book stops somebody")
	}
	b.Admit("x", "t", "s", now.Add(2*time.Hour))
	if len(b.machines) != 0 || len(b.calls) != 0 {
		t.Errorf("%d breakers, %d calls are never forgotten", len(b.machines), len(b.calls))
	}
}

func BenchmarkAdmit(b *testing.B) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	book := New(Settings{}, nil)
	b.ReportAllocs()
	for b.Loop() {
		c, _ := book.Admit("bot", "bank/pay", "bank", now)
		c.Released("d")
		book.Settle("d", Good, now)
	}
}
