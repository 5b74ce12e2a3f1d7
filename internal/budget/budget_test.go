package budget_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, file string) *store.Budgets {
	t.Helper()
	s, err := store.OpenBudgets(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func load(t testing.TB, s budget.Store, list ...budget.Budget) *budget.Ledger {
	t.Helper()
	l, err := budget.Load(context.Background(), budget.Config{Budgets: list, Store: s})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func ledger(t testing.TB, list ...budget.Budget) *budget.Ledger {
	return load(t, open(t, filepath.Join(t.TempDir(), "budgets.db")), list...)
}

func call(agent, action string) budget.Call {
	return budget.Call{Session: "s-" + agent, Agent: agent, Action: action, Number: func(string) (int64, bool, error) { return 0, false, nil }}
}

func amount(c budget.Call, n int64) budget.Call {
	c.Number = func(string) (int64, bool, error) { return n, true, nil }
	return c
}

func used(l *budget.Ledger, id, subject string, now time.Time) int64 {
	for _, s := range l.Standings(now) {
		if s.Budget == id && s.Subject == subject {
			return s.Used
		}
	}
	return 0
}

func TestBudgetsAreChecked(t *testing.T) {
	number := func(action, argument string) (exists, number, required bool) {
		return action == "bank/pay", argument == "cents" || argument == "fee", argument == "cents"
	}
	good := budget.Budget{ID: "b", Per: budget.PerAgent, Limit: 10, Window: time.Hour}
	for _, tt := range []struct {
		name   string
		change func(*budget.Budget)
		want   string // empty: it is right
	}{
		{"calls", func(*budget.Budget) {}, ""},
		{"an argument", func(b *budget.Budget) { b.Actions, b.Measure = []string{"bank/pay"}, "cents" }, ""},
		{"an optional argument", func(b *budget.Budget) { b.Actions, b.Measure, b.Worst = []string{"bank/pay"}, "fee", 5 }, ""},
		{"a session without a window", func(b *budget.Budget) { b.Per, b.Window = budget.PerSession, 0 }, ""},
		{"no id", func(b *budget.Budget) { b.ID = "" }, "id"},
		{"an id with a space", func(b *budget.Budget) { b.ID = "a b" }, "id"},
		{"per planet", func(b *budget.Budget) { b.Per = "planet" }, "per"},
		{"no limit", func(b *budget.Budget) { b.Limit = 0 }, "limit"},
		{"worst beyond the limit", func(b *budget.Budget) { b.Worst = 11 }, "worst"},
		{"bytes without a worst case", func(b *budget.Budget) { b.Measure = budget.MeasureBytes }, "worst"},
		{"an agent without a window", func(b *budget.Budget) { b.Window = 0 }, "window"},
		{"a window of nothing", func(b *budget.Budget) { b.Window = time.Millisecond }, "window"},
		{"an unknown action", func(b *budget.Budget) { b.Actions = []string{"bank/rob"} }, "not in the catalogue"},
		{"an unknown argument", func(b *budget.Budget) { b.Actions, b.Measure = []string{"bank/pay"}, "to" }, "no argument"},
		{"an argument of every action", func(b *budget.Budget) { b.Measure = "cents" }, "actions"},
		{"an optional argument without a worst case", func(b *budget.Budget) { b.Actions, b.Measure = []string{"bank/pay"}, "fee" }, "worst"},
	} {
		b := good
		tt.change(&b)
		err := budget.Check([]budget.Budget{b}, number)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if budget.Check([]budget.Budget{good, good}, number) == nil {
		t.Error("two budgets of one name")
	}
}

func TestReserveAndSettle(t *testing.T) {
	l := ledger(t,
		budget.Budget{ID: "money", Per: budget.PerAgent, Actions: []string{"pay"}, Measure: "cents", Limit: 100, Window: 24 * time.Hour},
		budget.Budget{ID: "data", Per: budget.PerAll, Measure: budget.MeasureBytes, Worst: 50, Limit: 100, Window: time.Hour},
	)
	index := uint64(0)
	pay := func(agent string, n int64, want error) string {
		t.Helper()
		r, err := l.Reserve(amount(call(agent, "pay"), n), noon)
		if want != nil || err != nil {
			if !errors.Is(err, want) && fmt.Sprint(err) != fmt.Sprint(want) {
				t.Fatalf("pay %d: %v, want %v", n, err, want)
			}
			return ""
		}
		index++
		id := fmt.Sprint("d", index)
		r.Recorded(id, index, false)
		return id
	}
	check := func(what string, money, data int64) {
		t.Helper()
		if m, d := used(l, "money", "bot", noon), used(l, "data", "all", noon); m != money || d != data {
			t.Errorf("%s: %d of the money, %d of the data; want %d, %d", what, m, d, money, data)
		}
	}
	a := pay("bot", 60, nil)
	check("in flight", 60, 50)
	pay("bot", 41, &budget.Exhausted{Budget: "money", Limit: 100, Left: 40, Cost: 41, Frees: noon.Add(12 * time.Hour)})
	check("what was refused", 60, 50) // takes nothing of any budget
	b := pay("bot", 40, nil)
	pay("other", 1, &budget.Exhausted{Budget: "data", Limit: 100, Left: 0, Cost: 50, Frees: noon.Add(time.Hour)})
	check("all of it", 100, 100)
	l.Settle(a, true, true, 7)
	check("after an answer of 7 bytes", 100, 57)
	l.Settle(a, false, false, 0)
	check("settled once", 100, 57)
	l.Settle(b, false, false, 0)
	check("what never ran", 60, 7)
	c := pay("bot", 30, nil)
	l.Settle(c, true, false, 0)
	check("in doubt", 90, 57)
	pay("bot", -1, budget.ErrUncountable)
	r, err := l.Reserve(amount(call("bot", "pay"), 10), noon.Add(time.Hour)) // the other one is full again
	if err != nil {
		t.Fatal(err)
	}
	r.Cancel()
	r.Cancel()
	r.Recorded("late", 99, false)
	check("cancelled", 90, 0)
	if r, err := l.Reserve(call("bot", "look"), noon); err != nil || len(r.Spends) != 1 {
		t.Errorf("an action that only one budget is about: %+v, %v", r, err)
	}
	if _, err := l.Reserve(amount(call("bot", "pay"), 100), noon.Add(12*time.Hour)); err != nil {
		t.Errorf("in the next window: %v", err)
	}
}

func TestSubjects(t *testing.T) {
	for per, want := range map[string]string{budget.PerSession: "s-bot", budget.PerAgent: "bot", budget.PerOwner: "ann", budget.PerAll: "all"} {
		l := ledger(t, budget.Budget{ID: "b", Per: per, Limit: 1, Window: time.Hour})
		c := call("bot", "x")
		c.Owner = "ann"
		if _, err := l.Reserve(c, noon); err != nil || used(l, "b", want, noon) != 1 {
			t.Errorf("per %s: %v, %+v", per, err, l.Standings(noon))
		}
		var e *budget.Exhausted
		if _, err := l.Reserve(c, noon); !errors.As(err, &e) {
			t.Errorf("per %s: %v", per, err)
		}
	}
	l := ledger(t, budget.Budget{ID: "b", Per: budget.PerOwner, Limit: 1, Window: time.Hour})
	for range 2 {
		if r, err := l.Reserve(call("bot", "x"), noon); r != nil || err != nil {
			t.Errorf("an agent that acts for nobody: %+v, %v", r, err)
		}
	}
}

func TestCountersAreBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "budgets.db"))
	l, err := budget.Load(t.Context(), budget.Config{Budgets: []budget.Budget{{ID: "b", Per: budget.PerAgent, Limit: 9, Window: time.Hour}}, Store: s, Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		r, err := l.Reserve(call(fmt.Sprint(i), "x"), noon)
		if i < 3 && err != nil || i == 3 && !errors.Is(err, budget.ErrFull) {
			t.Errorf("agent %d: %v", i, err)
		}
		r.Recorded(fmt.Sprint("d", i), uint64(i), false)
	}
	if _, err := l.Reserve(call("9", "x"), noon.Add(2*time.Hour)); err != nil {
		t.Errorf("when the windows are over: %v", err)
	}
}

// However often the process ends, and wherever between saves, what the records
// say was used up is used up, once.
func TestRestartsLoseNothingAndCountNothingTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := budget.Budget{ID: "b", Per: budget.PerAgent, Actions: []string{"pay"}, Measure: "cents", Limit: 1 << 40, Window: time.Hour}
		s := open(t, filepath.Join(t.TempDir(), "budgets.db"))
		l := load(t, s, b)
		type entry struct {
			decision string
			spends   []budget.Spend
			notRun   bool // an outcome
			at       time.Time
		}
		var log []entry
		var pending []*budget.Reservation
		var live []string // recorded, without an outcome
		want := int64(0)
		amounts := map[string]int64{}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1:
				r, err := l.Reserve(amount(call("bot", "pay"), rapid.Int64Range(0, 100).Draw(rt, "cents")), noon)
				if err != nil {
					rt.Fatal(err)
				}
				pending = append(pending, r)
			case 2:
				if len(pending) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(pending)-1).Draw(rt, "which")
				r := pending[i]
				pending = append(pending[:i], pending[i+1:]...)
				if rapid.Bool().Draw(rt, "cancel") {
					r.Cancel()
					continue
				}
				id := fmt.Sprint("d", len(log))
				r.Recorded(id, uint64(len(log)), false)
				log = append(log, entry{decision: id, spends: r.Spends, at: noon})
				live = append(live, id)
				amounts[id] = r.Spends[0].Amount
				want += r.Spends[0].Amount
			case 3:
				if len(live) == 0 {
					continue
				}
				id := live[0]
				live = live[1:]
				l.Settle(id, false, false, 0)
				log = append(log, entry{decision: id, notRun: true})
				want -= amounts[id]
			case 4:
				if err := l.Save(context.Background(), noon); err != nil {
					rt.Fatal(err)
				}
			case 5: // it is killed, and starts again
				pending = nil
				l = load(t, s, b)
				for i := l.Position(); i < uint64(len(log)); i++ {
					if e := log[i]; e.notRun {
						l.Settle(e.decision, false, false, 0)
					} else {
						l.Replay(i, budget.Open{Decision: e.decision, Time: e.at, Spends: e.spends}, false)
					}
				}
			}
			got := used(l, "b", "bot", noon)
			for _, r := range pending {
				got -= r.Spends[0].Amount
			}
			if got != want {
				rt.Fatalf("%d was used up, want %d", got, want)
			}
		}
	})
}

// Reserve and cancel are linearizable: there is an order in which one after the
// other would have had the same results.
func TestReserveIsLinearizable(t *testing.T) {
	const limit, clients, rounds = 5, 8, 40
	type op struct{ reserve bool }
	model := porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, input, output any) (bool, any) {
			used, in, ok := state.(int), input.(op), output.(bool)
			switch {
			case !in.reserve:
				return true, used - 1
			case ok:
				return used < limit, used + 1
			default:
				return used == limit, used
			}
		},
	}
	for round := range 5 {
		l := ledger(t, budget.Budget{ID: "b", Per: budget.PerAll, Limit: limit, Window: time.Hour})
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		start := time.Now()
		for client := range clients {
			wg.Go(func() {
				for i := range rounds {
					begun := time.Since(start).Nanoseconds()
					r, err := l.Reserve(call("bot", "x"), noon)
					ended := time.Since(start).Nanoseconds()
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: client, Input: op{true}, Call: begun, Output: err == nil, Return: ended})
					mu.Unlock()
					if err != nil {
						continue
					}
					begun = time.Since(start).Nanoseconds()
					if i%2 == 0 {
						r.Cancel()
					} else {
						id := fmt.Sprint(client, "-", i)
						r.Recorded(id, uint64(client*rounds+i), false)
						l.Settle(id, false, false, 0)
					}
					ended = time.Since(start).Nanoseconds()
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: client, Input: op{}, Call: begun, Output: true, Return: ended})
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if result := porcupine.CheckOperationsTimeout(model, history, 20*time.Second); result != porcupine.Ok {
			t.Errorf("round %d: %v", round, result)
		}
	}
}

func TestSaveFailureLosesNothing(t *testing.T) {
	s := &faulty{Store: open(t, filepath.Join(t.TempDir(), "budgets.db")), fail: errors.New("disk full")}
	b := budget.Budget{ID: "b", Per: budget.PerAgent, Limit: 9, Window: time.Hour}
	l := load(t, s, b)
	r, err := l.Reserve(call("bot", "x"), noon)
	if err != nil {
		t.Fatal(err)
	}
	r.Recorded("d0", 0, false)
	if l.Save(t.Context(), noon) == nil {
		t.Error("nobody says that nothing was saved")
	}
	s.fail = nil
	if err := l.Save(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	again := load(t, s, b)
	if diff := cmp.Diff(l.Standings(noon), again.Standings(noon)); diff != "" || again.Position() != 1 {
		t.Errorf("position %d (-want +got):\n%s", again.Position(), diff)
	}
	again.Settle("d0", false, false, 0)
	if n := used(again, "b", "bot", noon); n != 0 {
		t.Errorf("an open decision was not saved: %d", n)
	}
}

type faulty struct {
	budget.Store
	fail error
}

func (f *faulty) SaveBudgets(ctx context.Context, d budget.Delta) error {
	if f.fail != nil {
		return f.fail
	}
	return f.Store.SaveBudgets(ctx, d)
}

func BenchmarkReserve(b *testing.B) {
	l := ledger(b,
		budget.Budget{ID: "one", Per: budget.PerAgent, Limit: 1 << 60, Window: time.Hour},
		budget.Budget{ID: "two", Per: budget.PerSession, Limit: 1 << 60},
	)
	c := call("bot", "pay")
	b.ReportAllocs()
	for b.Loop() {
		r, err := l.Reserve(c, noon)
		if err != nil {
			b.Fatal(err)
		}
		r.Cancel()
	}
}
