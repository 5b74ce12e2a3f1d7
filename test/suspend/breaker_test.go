package suspend_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// An agent that keeps asking for what it may not have is stopped for a while; it
// is listed, recorded, and nobody else is stopped.
func TestBreakerOfTheRealProgram(t *testing.T) {
	rig.EndToEnd(t)
	counter := rig.Count(t, true)
	d := rig.Deploy(t, rig.Setup{
		Policies: rig.PermitAll + `@id("no") forbid (principal == Agent::"tester", action == Action::"counter/forbidden", resource);`, Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}},
		Settings: map[string]any{"breakers": map[string]any{"failures": 5, "pause": "1h"}},
	})
	d.Pin(t)
	key := d.MustRun(t, "agents", "add", "other")
	p := d.Serve(t)
	ask := func(key, tool string) rig.Reply {
		t.Helper()
		r, err := rig.NewRaw(rig.Endpoint{URL: d.Endpoint("counter"), Token: key}, 20*time.Second).Call(t.Context(), tool, `{"id":"x"}`)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for range 5 {
		if r := ask(d.Key, "forbidden"); r.Reason() != "forbidden" {
			t.Fatalf("%s", r.Body)
		}
	}
	if r := ask(d.Key, "forbidden"); r.Reason() != "breaker_open" {
		t.Errorf("%s", r.Body)
	}
	if !ask(d.Key, "act").Done() || !ask(key[:len(key)-1], "forbidden").Done() {
		t.Error("another tool, or another agent, is stopped as well")
	}
	var list []app.Breaker
	if err := json.Unmarshal([]byte(d.MustRun(t, "breakers", "--json")), &list); err != nil || len(list) != 1 || list[0].Agent != rig.Agent || list[0].Tool != "counter/forbidden" || list[0].State != "open" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	opened := 0
	for _, r := range d.Records(t) {
		if r.Kind == audit.KindSystem && r.Effect == "breaker_open" {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("%d records of it", opened)
	}
}
