package revoke

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
)

var bot = authz.Entity{Type: KindAgent, ID: "bot"}

func change(v Verb, e authz.Entity) Change {
	return Change{Time: time.Now(), Verb: v, Entity: e, By: "ann", Reason: "because"}
}

// authority is a real Authority over a memory, which knows what is in force.
func authority(t *testing.T, record func(context.Context, Change) error) (*Authority, *memory) {
	t.Helper()
	m := newMemory()
	if record == nil {
		record = func(context.Context, Change) error { return nil }
	}
	a, err := NewAuthority(Config{Store: m, Node: "n", Record: record})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Watch().Close)
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, m
}

func TestEachPartOfAScopeCanBeSuspended(t *testing.T) {
	scope := []authz.Entity{bot, {Type: KindSession, ID: "s"}, {Type: KindOwner, ID: "ann"}, {Type: KindGroup, ID: "g"}, {Type: KindTool, ID: "m/t"}, {Type: KindServer, ID: "m"}}
	for _, tt := range []struct {
		suspend authz.Entity
		code    string // empty: it may go on
	}{
		{bot, authz.ReasonAgentSuspended},
		{authz.Entity{Type: KindSession, ID: "s"}, authz.ReasonSessionSuspended},
		{authz.Entity{Type: KindOwner, ID: "ann"}, authz.ReasonOwnerSuspended},
		{authz.Entity{Type: KindGroup, ID: "g"}, authz.ReasonGroupSuspended},
		{authz.Entity{Type: KindTool, ID: "m/t"}, authz.ReasonToolSuspended},
		{authz.Entity{Type: KindServer, ID: "m"}, authz.ReasonServerSuspended},
		{authz.Entity{Type: KindAll}, authz.ReasonKilled},
		{authz.Entity{Type: KindAgent, ID: "s"}, ""}, // the id of another kind
		{authz.Entity{Type: KindAgent, ID: "Bot"}, ""},
	} {
		a, _ := authority(t, nil)
		w := a.Watch()
		h := w.Hold(scope)
		var heard *Cut
		h.OnCut(func(c *Cut) { heard = c })
		ctx, cancel := h.Bind(t.Context())
		defer cancel()
		if why := w.Check(scope); why != nil {
			t.Fatalf("before: %v", why)
		}
		if _, err := a.Change(t.Context(), change(Suspend, tt.suspend)); err != nil {
			t.Fatal(err)
		}
		for what, why := range map[string]*Cut{"check": w.Check(scope), "what is open": h.Cut(), "what hears of it": heard, "what begins": w.Hold(scope).Cut()} {
			if (why == nil) != (tt.code == "") || why != nil && (why.Code != tt.code || why.Message == "") {
				t.Errorf("%v: %s: %v, want %q", tt.suspend, what, why, tt.code)
			}
		}
		var cut *Cut
		if got := errors.As(context.Cause(ctx), &cut); got != (tt.code != "") {
			t.Errorf("%v: the ctx ended with %v", tt.suspend, context.Cause(ctx))
		}
		if _, err := a.Change(t.Context(), change(Resume, tt.suspend)); err != nil {
			t.Fatal(err)
		}
		if why := w.Check(scope); why != nil {
			t.Errorf("%v: after it was resumed: %v", tt.suspend, why)
		}
	}
}

func TestUnknownGroupsEndWithAnyGroup(t *testing.T) {
	a, _ := authority(t, nil)
	h := a.Watch().Hold([]authz.Entity{bot, UnknownGroups()})
	if a.Watch().Set().Groups() {
		t.Error("no group is suspended")
	}
	if _, err := a.Change(t.Context(), change(Suspend, authz.Entity{Type: KindGroup, ID: "x"})); err != nil {
		t.Fatal(err)
	}
	if h.Cut() == nil || !a.Watch().Set().Groups() {
		t.Error("a subject whose groups nobody knows may go on")
	}
}

func TestReleasedHoldsAreForgotten(t *testing.T) {
	a, _ := authority(t, nil)
	w := a.Watch()
	h := w.Hold([]authz.Entity{bot})
	heard := 0
	undo := h.OnCut(func(*Cut) { heard++ })
	h.OnCut(func(*Cut) { heard += 10 })
	undo()
	gone := w.Hold([]authz.Entity{bot})
	gone.OnCut(func(*Cut) { heard += 100 })
	gone.Release()
	if w.Held() != 1 {
		t.Errorf("%d holds, want 1", w.Held())
	}
	if _, err := a.Change(t.Context(), change(Suspend, bot)); err != nil {
		t.Fatal(err)
	}
	if heard != 10 || w.Held() != 0 {
		t.Errorf("heard %d, %d holds", heard, w.Held())
	}
}

// What is resumed stays suspended until that is on the record; what is suspended
// does not wait for the record.
func TestResumingWaitsForTheRecord(t *testing.T) {
	var fail error
	var recorded []string
	a, _ := authority(t, func(_ context.Context, c Change) error {
		if fail == nil {
			recorded = append(recorded, fmt.Sprint(c.Epoch, " ", c.Verb, " ", c.ID, " ", c.By))
		}
		return fail
	})
	scope := []authz.Entity{bot}
	fail = errors.New("the disk is full")
	if _, err := a.Change(t.Context(), change(Suspend, bot)); err == nil {
		t.Error("nobody says that there is no record")
	}
	if a.Watch().Check(scope) == nil {
		t.Error("a suspension waits for the record")
	}
	if _, err := a.Change(t.Context(), change(Resume, bot)); err == nil {
		t.Error("nobody says that there is no record")
	}
	if a.Watch().Check(scope) == nil {
		t.Error("it was resumed without a record")
	}
	if err := a.Sync(t.Context()); err == nil || a.Watch().Check(scope) == nil {
		t.Errorf("it was resumed without a record later: %v", err)
	}
	fail = nil
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if why := a.Watch().Check(scope); why != nil {
		t.Errorf("after the record: %v", why)
	}
	if diff := cmp.Diff([]string{"2 suspend bot ann", "3 resume bot ann"}, recorded); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
}

// A store that goes back in time, or says less than before, frees nothing.
func TestEpochsDoNotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, m := authority(t, nil)
		if _, err := a.Change(t.Context(), change(Suspend, bot)); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.changes, m.by = nil, map[authz.Entity]Suspension{}
		m.mu.Unlock()
		for range 3 * int(Term/pollEvery) {
			_ = a.Sync(t.Context()) // it may fail; what matters is what is in force
			if a.Watch().Check([]authz.Entity{bot}) == nil {
				t.Fatal("a store that was put back has resumed an agent")
			}
			time.Sleep(pollEvery)
		}
	})
}

func TestChangesAreChecked(t *testing.T) {
	long := strings.Repeat("x", maxID+1)
	for _, tt := range []Change{
		{},
		{Verb: "stop", Entity: bot, By: "ann", Reason: "r"},
		{Verb: Suspend, Entity: bot, By: "ann"},
		{Verb: Suspend, Entity: bot, Reason: "r"},
		{Verb: Suspend, Entity: bot, By: long, Reason: "r"},
		{Verb: Suspend, Entity: bot, By: "ann", Reason: long},
		{Verb: Suspend, Entity: authz.Entity{Type: "planet", ID: "x"}, By: "ann", Reason: "r"},
		{Verb: Suspend, Entity: authz.Entity{Type: KindAgent}, By: "ann", Reason: "r"},
		{Verb: Suspend, Entity: authz.Entity{Type: KindAll, ID: "x"}, By: "ann", Reason: "r"},
		{Verb: Suspend, Entity: authz.Entity{Type: KindTool, ID: long}, By: "ann", Reason: "r"},
		{Verb: Suspend, Entity: authz.Entity{Type: KindTool, ID: "a\nb"}, By: "ann", Reason: "r"},
		{Verb: Suspend, Entity: authz.Entity{Type: KindTool, ID: "\xff"}, By: "ann", Reason: "r"},
	} {
		if tt.Check() == nil {
			t.Errorf("%+v is a change", tt)
		}
	}
	if err := (Change{Verb: Resume, Entity: authz.Entity{Type: KindAll}, By: "ann"}).Check(); err != nil {
		t.Error(err)
	}
	if Full(maxSuspensions-1, authz.Entity{Type: KindAll}) || !Full(maxSuspensions-1, bot) {
		t.Error("there is no room to suspend everything, or room for more than there is")
	}
	if _, err := NewSet(1, make([]Suspension, maxSuspensions+1)); err == nil {
		t.Error("a set has no bound")
	}
}

// Whoever asks again has taken over what it was told; a change waits for those
// that have not.
func TestChangeWaitsForTheGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := authority(t, nil)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go a.Follow(ctx)
		if _, _, err := a.Lease(ctx, "g", 0); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		set, term, err := a.Lease(ctx, "g", 1)
		if took := time.Since(start); err != nil || set.Epoch() != 1 || term != Term || took != Term/5 {
			t.Errorf("without a change: %v, %v, %v after %v", set, term, err, took)
		}
		done := make(chan time.Time, 1)
		go func() {
			if _, err := a.Change(ctx, change(Suspend, bot)); err != nil {
				t.Error(err)
			}
			done <- time.Now()
		}()
		start = time.Now()
		set, _, err = a.Lease(ctx, "g", 1) // hears of it at once
		if err != nil || set.Epoch() != 2 || time.Since(start) > 0 {
			t.Fatalf("%v, %v after %v", set, err, time.Since(start))
		}
		time.Sleep(time.Second)
		select {
		case <-done:
			t.Error("acknowledged although a gate may not have it")
		default:
		}
		confirmed := time.Now()
		go func() { _, _, _ = a.Lease(ctx, "g", 2) }()
		if at := <-done; at.Sub(confirmed) > 0 {
			t.Errorf("acknowledged %v after the gate has confirmed it", at.Sub(confirmed))
		}
		if a.Holders() != 1 {
			t.Errorf("%d gates", a.Holders())
		}
		time.Sleep(2 * Term)
		if err := a.Settle(ctx, 99); err != nil || a.Holders() != 0 {
			t.Errorf("a gate that is gone is waited for: %v, %d", err, a.Holders())
		}
		stop()
		synctest.Wait()
	})
}
