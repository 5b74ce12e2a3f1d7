// Package crash kills the gateway, fills its disk and damages its files, and
// then asks whether anything ran without a record.
package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const onlyAct = `@id("look-around")
permit (principal, action in Action::"discover", resource);

@id("act")
permit (principal, action == Action::"counter/act", resource);
`

// deployments are killed at the same time, kills times each.
const (
	deployments = 4
	kills       = 55
)

// Whenever the gateway is killed, what reached the server has been recorded
// before, what a client was told is in the log, nothing is sent twice, and the
// log verifies.
func TestKilledAtAnyTimeNothingRanWithoutRecord(t *testing.T) {
	rig.EndToEnd(t)
	cycles := kills
	if os.Getenv("BAILIWICK_SOAK") != "" {
		cycles *= 20
	}
	for i := range deployments {
		t.Run(fmt.Sprintf("deployment %d", i), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			killAgainAndAgain(t, cycles, i%2 == 0, rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
}

func killAgainAndAgain(t *testing.T, cycles int, stateless bool, random *rand.Rand) {
	server := rig.Count(t, stateless)
	d := rig.Deploy(t, rig.Setup{Policies: onlyAct, Upstreams: map[string]rig.Upstream{"counter": {URL: server.URL}}})
	d.Pin(t)

	told := &told{done: map[string]bool{}, denied: map[string]bool{}}
	stop := startLoad(t, d, told)
	served := 0
	for range cycles {
		p, err := rig.Start(d.Command("serve"))
		if err != nil {
			t.Fatal(err)
		}
		// One in five dies before it is up, when it is recovering.
		if random.IntN(5) == 0 {
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
		} else {
			if err := waitUp(t.Context(), p, d.Addr); err != nil {
				t.Fatal(err)
			}
			served++
			time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond)
		}
		p.Kill()
	}
	stop()
	// The last start recovers what the last kill left.
	if err := d.Serve(t).Stop(); err != nil {
		t.Fatal(err)
	}
	check(t, d, server.Seen(), told)
	t.Logf("killed %d times, %d of them under load: %d calls reached the server, %d were answered, %d denied",
		cycles, served, len(server.Seen()), len(told.done), len(told.denied))
}

func waitUp(ctx context.Context, p *rig.Process, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return p.Listening(ctx, addr)
}

// check compares what happened with what is recorded.
func check(t *testing.T, d *rig.Deployment, seen map[string]int, told *told) {
	t.Helper()
	if t.Failed() {
		return
	}
	d.MustRun(t, "audit", "verify")
	released, denied, open := map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, r := range d.Records(t) {
		switch r.Kind {
		case audit.KindDecision:
			var in rig.Call
			if r.What.Action == "counter/act" || r.What.Action == "counter/forbidden" {
				if err := json.Unmarshal(r.Input, &in); err != nil {
					t.Fatalf("read the input of %s: %v", r.Decision, err)
				}
			}
			if r.Why.Released {
				released[in.ID] = true
				open[r.Decision] = in.ID
			} else {
				denied[in.ID] = true
			}
		case audit.KindOutcome:
			delete(open, r.Decision)
		}
	}
	if len(seen) == 0 || len(told.denied) == 0 {
		t.Errorf("%d calls reached the server and %d were denied: the test shows nothing", len(seen), len(told.denied))
	}
	for id, n := range seen {
		if !released[id] {
			t.Errorf("call %s reached the server without a record", id)
		}
		if n > 1 {
			t.Errorf("call %s reached the server %d times", id, n)
		}
	}
	for id := range told.done {
		if seen[id] == 0 {
			t.Errorf("call %s was answered and never reached the server", id)
		}
		if !released[id] {
			t.Errorf("call %s was answered without a record", id)
		}
	}
	for id := range told.denied {
		if !denied[id] {
			t.Errorf("call %s was denied without a record", id)
		}
	}
	for decision, id := range open {
		t.Errorf("decision %s (call %s) was released and has no outcome", decision, id)
	}
}

// told is what clients were told.
type told struct {
	mu           sync.Mutex
	done, denied map[string]bool
}

// clients send calls at the same time. The last of them keeps a session.
const clients = 8

// startLoad has clients call until the returned function is called. Every
// fourth call is one that policy denies.
func startLoad(t *testing.T, d *rig.Deployment, told *told) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var next atomic.Int64
	for c := range clients {
		var client caller = stateless{rig.NewRaw(rig.Endpoint{URL: d.Endpoint("counter"), Token: d.Key}, 10*time.Second)}
		if c == clients-1 {
			client = &session{endpoint: rig.Endpoint{URL: d.Endpoint("counter"), Token: d.Key}}
		}
		wait.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				tool := "act"
				if n%4 == 0 {
					tool = "forbidden"
				}
				id := strconv.FormatInt(n, 10)
				done, reason := client.call(ctx, tool, id)
				told.note(id, done, reason)
				if !done && reason == "" {
					// The gateway is down; do not burn the CPU that it needs to start.
					pause(ctx, 5*time.Millisecond)
				}
			}
		})
	}
	return func() {
		cancel()
		wait.Wait()
	}
}

func (o *told) note(id string, done bool, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if done {
		o.done[id] = true
	}
	if reason == "no_permit" {
		o.denied[id] = true
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
