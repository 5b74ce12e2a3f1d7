package session_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/internal/session"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func openState(t testing.TB, file string) *store.State {
	t.Helper()
	s, err := store.OpenState(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newTracker(t testing.TB, s session.Store, limit int) *session.Tracker {
	t.Helper()
	tr, err := session.New(session.Config{Store: s, Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func snapshot(t testing.TB, tr *session.Tracker, id string) session.Snapshot {
	t.Helper()
	v, err := tr.Enter(t.Context(), id, "bot", start)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Leave()
	return v.Snapshot
}

func TestSessionBelongsToWhoOpenedIt(t *testing.T) {
	tr := newTracker(t, openState(t, filepath.Join(t.TempDir(), "state.db")), 0)
	v, err := tr.Enter(t.Context(), "s", "bot", start)
	if err != nil {
		t.Fatal(err)
	}
	v.Leave()
	if _, err := tr.Enter(t.Context(), "s", "thief", start); !errors.Is(err, session.ErrOwner) {
		t.Errorf("another agent entered: %v", err)
	}
}

func TestLabelsOnlyGrow(t *testing.T) {
	tr := newTracker(t, openState(t, filepath.Join(t.TempDir(), "state.db")), 0)
	for i, eff := range []session.Effect{
		{Released: true, Labels: []string{"untrusted"}},
		{Released: true},
		{Released: false, Labels: []string{"never-learnt"}},
		{Released: true, Labels: []string{"secret", "untrusted"}},
		{Released: true, Uncounted: true},
	} {
		v, err := tr.Enter(t.Context(), "s", "bot", start)
		if err != nil {
			t.Fatal(err)
		}
		v.Apply(uint64(i), eff)
		v.Leave()
	}
	want := session.Snapshot{ID: "s", Agent: "bot", Started: start, Calls: 3, Denials: 1, Labels: []string{"secret", "untrusted"}}
	if d := cmp.Diff(want, snapshot(t, tr, "s")); d != "" {
		t.Error(d)
	}
}

// A crash at any moment, with decisions in any state between snapshot, record
// and application, loses no recorded effect and counts none twice.
func TestStateIsAFunctionOfTheRecords(t *testing.T) {
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		file := filepath.Join(dir, fmt.Sprint(n))
		db := openState(t, file)
		tr := newTracker(t, db, 2)
		type record struct {
			id  string
			eff session.Effect
		}
		type flight struct {
			v     *session.Visit
			id    string
			index int // -1 until recorded
			eff   session.Effect
		}
		var evidence []record
		var flights []*flight
		ids := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1: // a decision begins
				id := ids.Draw(rt, "id")
				v, err := tr.Enter(t.Context(), id, "bot", start)
				if err != nil {
					rt.Fatal(err)
				}
				eff := session.Effect{Released: rapid.Bool().Draw(rt, "released"), Uncounted: rapid.Bool().Draw(rt, "uncounted")}
				if rapid.Bool().Draw(rt, "labelled") {
					eff.Labels = []string{rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "label")}
				}
				flights = append(flights, &flight{v: v, id: id, index: -1, eff: eff})
			case 2, 3: // one in flight is recorded, or applied
				if len(flights) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(flights)-1).Draw(rt, "flight")
				f := flights[i]
				if f.index < 0 {
					f.index = len(evidence)
					evidence = append(evidence, record{f.id, f.eff})
					continue
				}
				f.v.Apply(uint64(f.index), f.eff)
				f.v.Leave()
				flights = slices.Delete(flights, i, i+1)
			case 4:
				if err := tr.Save(t.Context()); err != nil {
					rt.Fatal(err)
				}
			case 5: // crash and start again
				flights = nil
				tr = newTracker(t, db, 2)
				from, err := tr.Position(t.Context())
				if err != nil {
					rt.Fatal(err)
				}
				for i := from; i < uint64(len(evidence)); i++ {
					if err := tr.Replay(t.Context(), evidence[i].id, "bot", i, start, evidence[i].eff); err != nil {
						rt.Fatal(err)
					}
				}
			}
		}
		for _, f := range flights {
			if f.index >= 0 {
				f.v.Apply(uint64(f.index), f.eff)
			}
			f.v.Leave()
		}
		for _, id := range []string{"a", "b", "c", "d"} {
			want := session.Snapshot{ID: id, Agent: "bot", Started: start}
			for _, r := range evidence {
				switch {
				case r.id != id:
					continue
				case r.eff.Uncounted:
				case r.eff.Released:
					want.Calls++
				default:
					want.Denials++
				}
				if r.eff.Released {
					want.Labels = append(want.Labels, r.eff.Labels...)
				}
			}
			slices.Sort(want.Labels)
			want.Labels = slices.Compact(want.Labels)
			if d := cmp.Diff(want, snapshot(t, tr, id)); d != "" {
				rt.Fatalf("session %s:\n%s", id, d)
			}
		}
		db.Close()
	})
}

// broken is a store that fails.
type broken struct{ session.Store }

var errDisk = errors.New("disk on fire")

func (broken) Session(context.Context, string) (session.State, bool, error) {
	return session.State{}, false, errDisk
}

func TestStoreFailureIsAnError(t *testing.T) {
	tr := newTracker(t, broken{}, 0)
	if _, err := tr.Enter(t.Context(), "s", "bot", start); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	if _, err := session.New(session.Config{}); err == nil {
		t.Error("a tracker without a store")
	}
}

func TestFailedSaveIsTriedAgain(t *testing.T) {
	db := openState(t, filepath.Join(t.TempDir(), "state.db"))
	tr := newTracker(t, db, 0)
	v, err := tr.Enter(t.Context(), "s", "bot", start)
	if err != nil {
		t.Fatal(err)
	}
	v.Apply(0, session.Effect{Released: true, Labels: []string{"untrusted"}})
	v.Leave()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Save(ended); err == nil {
		t.Fatal("saved although the context had ended")
	}
	if err := tr.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, newTracker(t, db, 0), "s"); got.Calls != 1 || len(got.Labels) != 1 {
		t.Errorf("lost: %+v", got)
	}
}

func TestConcurrentCallsOfOneSessionAllCount(t *testing.T) {
	tr := newTracker(t, openState(t, filepath.Join(t.TempDir(), "state.db")), 0)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			v, err := tr.Enter(t.Context(), "s", "bot", start)
			if err != nil {
				t.Error(err)
				return
			}
			defer v.Leave()
			v.Apply(uint64(i), session.Effect{Released: true, Labels: []string{fmt.Sprint(i % 4)}})
			if i%16 == 0 {
				if err := tr.Save(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := snapshot(t, tr, "s"); got.Calls != 64 || len(got.Labels) != 4 {
		t.Errorf("%+v", got)
	}
}
