package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

func openSuspensions(t *testing.T, file string) *store.Suspensions {
	t.Helper()
	s, err := store.OpenSuspensions(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Two processes share what is suspended, and it is there after a restart.
func TestSuspensionsAreSharedAndKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "suspensions.db")
	one, two := openSuspensions(t, file), openSuspensions(t, file)
	at := time.Date(2026, 11, 25, 9, 0, 0, 1000, time.UTC)
	bot := authz.Entity{Type: revoke.KindAgent, ID: "bot"}
	do := func(s *store.Suspensions, v revoke.Verb, e authz.Entity) (revoke.Change, error) {
		return s.Change(t.Context(), revoke.Change{Time: at, Verb: v, Entity: e, By: "ann", Reason: "why"})
	}
	if set, err := one.Suspensions(t.Context(), 0); err != nil || set == nil || set.Epoch() != 1 || len(set.List()) != 0 {
		t.Fatalf("a new file: %v, %v", set, err)
	}
	if set, err := one.Suspensions(t.Context(), 1); err != nil || set != nil {
		t.Errorf("nothing has changed: %v, %v", set, err)
	}
	if c, err := do(one, revoke.Suspend, bot); err != nil || c.Epoch != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := do(two, revoke.Resume, authz.Entity{Type: revoke.KindAgent, ID: "other"}); !errors.Is(err, revoke.ErrNotSuspended) {
		t.Errorf("resumed what was not suspended: %v", err)
	}
	if _, err := do(two, revoke.Suspend, authz.Entity{Type: revoke.KindAll}); err != nil {
		t.Fatal(err)
	}
	if c, err := do(one, revoke.Resume, authz.Entity{Type: revoke.KindAll}); err != nil || c.Epoch != 4 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := one.Change(t.Context(), revoke.Change{}); err == nil {
		t.Error("a change that is none")
	}
	again := openSuspensions(t, file)
	set, err := again.Suspensions(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]revoke.Suspension{{Entity: bot, Since: at, By: "ann", Reason: "why"}}, set.List()); diff != "" || set.Epoch() != 4 {
		t.Errorf("epoch %d (-want +got):\n%s", set.Epoch(), diff)
	}
	// Each node puts each change on its record once.
	if err := again.Recorded(t.Context(), "n", 2); err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]int{"n": 2, "m": 3} {
		changes, err := again.Unrecorded(t.Context(), node)
		if err != nil || len(changes) != want || changes[len(changes)-1].Epoch != 4 || !changes[0].Time.Equal(at) {
			t.Errorf("node %s: %+v, %v", node, changes, err)
		}
	}
}

// Changes of several processes at once each get an epoch of their own.
func TestSuspensionsOfManyProcesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "suspensions.db")
	var wg sync.WaitGroup
	for p := range 4 {
		s := openSuspensions(t, file)
		wg.Go(func() {
			for i := range 25 {
				_, err := s.Change(t.Context(), revoke.Change{
					Time: time.Now(), Verb: revoke.Suspend, By: "ann", Reason: "why",
					Entity: authz.Entity{Type: revoke.KindAgent, ID: fmt.Sprint(p, "-", i)},
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	set, err := openSuspensions(t, file).Suspensions(t.Context(), 0)
	if err != nil || set.Epoch() != 101 || len(set.List()) != 100 {
		t.Errorf("epoch %d, %d suspensions, %v", set.Epoch(), len(set.List()), err)
	}
}
