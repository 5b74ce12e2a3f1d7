package suspend_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// A budget holds against many calls at once and across a crash, and says how it
// stands.
func TestBudgetOutlivesACrash(t *testing.T) {
	rig.EndToEnd(t)
	counter := rig.Count(t, true)
	d := rig.Deploy(t, rig.Setup{
		Policies: rig.PermitAll, Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}},
		Settings: map[string]any{"budgets": []map[string]any{{"id": "acts", "per": "agent", "actions": []string{"counter/act"}, "limit": 20, "window": "8760h"}}},
	})
	if out, err := d.Run("config", "check"); err != nil || out.Code == 0 {
		t.Errorf("a budget of a tool that nobody has pinned: %+v, %v", out, err)
	}
	d.Pin(t)
	p, err := rig.Start(d.Command("serve"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listening(t.Context(), d.Addr); err != nil {
		t.Fatal(err)
	}
	volley := func(n int) int64 {
		var passed atomic.Int64
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				r, err := rig.NewRaw(rig.Endpoint{URL: d.Endpoint("counter"), Token: d.Key}, 20*time.Second).Call(t.Context(), "act", fmt.Sprintf(`{"id":"%d-%d"}`, n, i))
				switch {
				case err != nil:
					t.Error(err)
				case r.Done():
					passed.Add(1)
				case r.Reason() != "budget_exhausted":
					t.Errorf("%s", r.Body)
				}
			})
		}
		wg.Wait()
		return passed.Load()
	}
	if n := volley(12); n != 12 {
		t.Errorf("%d of 12 passed", n)
	}
	p.Kill() // saved or not, the record says what was used up
	d.Serve(t)
	if n := volley(30); n != 8 {
		t.Errorf("%d of 30 passed, want the 8 that were left", n)
	}
	var list []app.Standing
	if err := json.Unmarshal([]byte(d.MustRun(t, "budgets", "--json")), &list); err != nil || len(list) != 1 || list[0].Used != 20 || list[0].Subject != rig.Agent {
		t.Errorf("%+v, %v", list, err)
	}
	if n := len(counter.Seen()); n != 20 {
		t.Errorf("the server has seen %d calls, want 20", n)
	}
}
