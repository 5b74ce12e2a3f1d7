package pdp_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

func budgets(t testing.TB, list ...budget.Budget) (*budget.Ledger, func() *budget.Ledger) {
	t.Helper()
	s, err := store.OpenBudgets(t.Context(), filepath.Join(t.TempDir(), "budgets.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	again := func() *budget.Ledger {
		l, err := budget.Load(t.Context(), budget.Config{Budgets: list, Store: s})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	return again(), again
}

func use(l *budget.Ledger, id string) int64 {
	for _, s := range l.Standings(time.Now()) {
		if s.Budget == id {
			return s.Used
		}
	}
	return 0
}

// Of a thousand calls at once against a budget of a hundred, a hundred pass.
func TestOneThousandCallsAgainstABudgetOfAHundred(t *testing.T) {
	l, again := budgets(t, budget.Budget{ID: "calls", Per: budget.PerAgent, Limit: 100, Window: 1000 * time.Hour})
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Budgets, c.Deadline = l, time.Minute })
	var allowed, exhausted atomic.Int64
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			req := p.request("clerk", "bank/send_money", pay)
			req.Session = fmt.Sprint("run-", i%7)
			d, err := p.Decide(t.Context(), req)
			switch {
			case err != nil:
				t.Error(err)
			case d.Allow:
				allowed.Add(1)
			case d.Code() == authz.ReasonBudgetExhausted && strings.Contains(d.Message(), "full again at"):
				exhausted.Add(1)
			default:
				t.Errorf("%+v", d)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 100 || exhausted.Load() != 900 {
		t.Errorf("%d passed and %d were refused, want 100 and 900", allowed.Load(), exhausted.Load())
	}
	// Nothing of it was saved: the record alone says it.
	l = again()
	err := audit.Records(t.Context(), p.log, l.Position(), math.MaxUint64, func(r audit.Recorded) error {
		pdp.ReplayBudgets(l, r.Index, r.Record)
		return nil
	})
	if err != nil || use(l, "calls") != 100 {
		t.Errorf("from the record: %d, %v", use(l, "calls"), err)
	}
}

// What policy denies, lists, and what could not be recorded use nothing up; what
// never ran gives it back.
func TestWhatUsesABudgetUp(t *testing.T) {
	l, _ := budgets(t, budget.Budget{ID: "cents", Per: budget.PerAgent, Actions: []string{"bank/send_money"}, Measure: "cents", Limit: 1000, Window: 1000 * time.Hour})
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Budgets, c.Deadline = l, time.Minute })
	n := 0
	ask := func(action, input string) authz.Decision {
		t.Helper()
		n++
		req := p.request("clerk", action, input)
		req.Session = fmt.Sprint("run-", n) // what one has read binds no other
		d, _ := p.Decide(t.Context(), req)
		return d
	}
	want := func(what string, n int64) {
		t.Helper()
		if got := use(l, "cents"); got != n {
			t.Errorf("%s: %d, want %d", what, got, n)
		}
	}
	first := ask("bank/send_money", `{"to":"bob","cents":400}`)
	want("in flight", 400)
	if recs := p.records(t); len(recs[0].Why.Spends) != 1 || recs[0].Why.Spends[0].Amount != 400 || recs[0].Why.Spends[0].Subject != "clerk" {
		t.Errorf("record: %+v", recs[0].Why.Spends)
	}
	if d := ask("bank/send_money", `{"to":"bob","cents":20000}`); d.Code() != authz.ReasonForbidden {
		t.Errorf("%+v", d)
	}
	want("what policy denies", 400)
	if d := ask("bank/send_money", `{"to":"bob","cents":601}`); d.Allow || d.Code() != authz.ReasonBudgetExhausted || !strings.Contains(d.Message(), "600 of 1000") {
		t.Errorf("%+v", d)
	}
	if d := ask("bank/send_money", `{"to":"bob","cents":-5}`); d.Allow || d.Code() != authz.ReasonInputInvalid {
		t.Errorf("%+v", d)
	}
	if d := ask("mail/read_mail", `{"id":"1"}`); !d.Allow {
		t.Errorf("%+v", d)
	}
	want("what it is not about", 400)
	broken := func() error { return context.DeadlineExceeded }
	p.journal.fail.Store(&broken)
	if d := ask("bank/send_money", `{"to":"bob","cents":100}`); d.Allow || d.Code() == authz.ReasonBudgetExhausted {
		t.Errorf("%+v", d)
	}
	p.journal.fail.Store(nil)
	want("what could not be recorded", 400)
	if err := p.Report(t.Context(), authz.Outcome{Decision: first.ID, Status: authz.OutcomeNotRun}); err != nil {
		t.Fatal(err)
	}
	want("what never ran", 0)
}

// An allow that a suspension takes back gives its budget back.
func TestRecalledAllowGivesItsBudgetBack(t *testing.T) {
	a := suspensions(t)
	l, _ := budgets(t, budget.Budget{ID: "calls", Per: budget.PerAgent, Limit: 5, Window: 1000 * time.Hour})
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Suspensions, c.Budgets, c.Deadline = a, l, time.Minute })
	once := func() error {
		p.journal.fail.Store(nil)
		flip(t, a, "suspend", "agent", "clerk")
		return nil
	}
	p.journal.fail.Store(&once)
	if d, _ := p.Decide(t.Context(), p.request("clerk", "bank/send_money", pay)); d.Allow || use(l, "calls") != 0 {
		t.Errorf("%+v, %d used", d, use(l, "calls"))
	}
}
