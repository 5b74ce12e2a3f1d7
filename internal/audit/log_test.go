package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

func TestAppendReturnsWhenTheRecordIsDurable(t *testing.T) {
	d := &disk{}
	l := mustOpen(t, memoryConfig(t.TempDir(), d))
	if err := l.Post(decision("posted", false)); err != nil {
		t.Fatal(err)
	}
	got, err := l.Append(t.Context(), decision("appended", true))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"started", "deny posted", "allow appended"}
	if diff := cmp.Diff(want, d.acts(t)); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	if got.Index != 2 || got.Size() != 3 {
		t.Errorf("receipt for index %d of size %d, want 2 of 3", got.Index, got.Size())
	}
	mustClose(t, l)
	if acts := d.acts(t); acts[len(acts)-1] != "stopped" {
		t.Errorf("the last record is %q, want stopped", acts[len(acts)-1])
	}
	if _, err := l.Append(t.Context(), decision("late", true)); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Append after Close: %v, want ErrClosed", err)
	}
}

// Records survive the way to the disk and back, to the millisecond and the
// byte.
func TestRecordsComeBackAsTheyWere(t *testing.T) {
	d := &disk{}
	l := mustOpen(t, memoryConfig(t.TempDir(), d))
	want := decision("d-1", true)
	want.Input = []byte("{\n \"b\": 1.50, \"a\": \"<&\u2028>\" }")
	if _, err := l.Append(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	var got audit.Recorded
	err := audit.Records(t.Context(), &memory{disk: d}, 1, 2, func(r audit.Recorded) error { got = r; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(audit.Recorded{Index: 1, Record: want}, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeRecordedIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*audit.Record)
	}{
		{"no kind", func(r *audit.Record) { r.Kind = "" }},
		{"no decision id", func(r *audit.Record) { r.Decision = "" }},
		{"quote in id", func(r *audit.Record) { r.Decision = `a"b` }},
		{"line end in effect", func(r *audit.Record) { r.Effect = "allow\n" }},
		{"long version", func(r *audit.Record) { r.Version = strings.Repeat("x", 300) }},
		{"decision without why", func(r *audit.Record) { r.Why = nil }},
		{"outcome without outcome", func(r *audit.Record) { r.Kind = audit.KindOutcome }},
		{"system details not JSON", func(r *audit.Record) { r.System = []byte("{") }},
		{"year 10000", func(r *audit.Record) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"too large", func(r *audit.Record) { r.Input = []byte(`"` + strings.Repeat("x", 17<<20) + `"`) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &disk{}
			l := mustOpen(t, memoryConfig(t.TempDir(), d))
			r := decision("d", true)
			tt.change(&r)
			if _, err := l.Append(t.Context(), r); !errors.Is(err, audit.ErrInvalid) {
				t.Errorf("Append: %v, want ErrInvalid", err)
			}
			if err := l.Post(r); !errors.Is(err, audit.ErrInvalid) {
				t.Errorf("Post: %v, want ErrInvalid", err)
			}
			mustClose(t, l)
		})
	}
}

func TestInputThatIsNotJSONIsKept(t *testing.T) {
	d := &disk{}
	l := mustOpen(t, memoryConfig(t.TempDir(), d))
	r := decision("d", false)
	r.Input = []byte("{\"a\": \xff")
	if _, err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	got, err := audit.Decode(d.stored()[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"invalid":"eyJhIjog/w=="}`; string(got.Record.Input) != want {
		t.Errorf("input %s, want %s", got.Record.Input, want)
	}
}

// After a failed commit nothing is acknowledged, whatever the disk says, until
// the journal was opened anew; then all goes on, and the gap is on record.
func TestFailureIsStickyUntilReopened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		d.set(func(d *disk) { d.before, d.openErr = errDisk, errDisk })
		if _, err := l.Append(t.Context(), decision("lost", true)); !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, errDisk) {
			t.Fatalf("Append on a failing disk: %v, want ErrUnavailable", err)
		}
		d.set(func(d *disk) { d.before = nil }) // the disk would write again
		if _, err := l.Append(t.Context(), decision("refused", true)); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Append before the journal was reopened: %v, want ErrUnavailable", err)
		}
		if err := l.Health(); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Health: %v, want ErrUnavailable", err)
		}
		if err := l.Post(outcome("earlier")); err != nil {
			t.Errorf("Post while unavailable: %v, want it to wait", err)
		}
		time.Sleep(time.Minute)
		if _, err := l.Append(t.Context(), decision("refused", true)); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Append while the journal cannot be opened: %v, want ErrUnavailable", err)
		}
		d.set(func(d *disk) { d.openErr = nil })
		time.Sleep(10 * time.Second)
		if err := l.Health(); err != nil {
			t.Fatalf("Health after the disk is back: %v", err)
		}
		if _, err := l.Append(t.Context(), decision("after", false)); err != nil {
			t.Fatal(err)
		}
		want := []string{"started", "recovered", "success earlier", "deny after"}
		if diff := cmp.Diff(want, d.acts(t)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		mustClose(t, l)
		recovered, err := audit.Decode(d.stored()[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := string(recovered.Record.System); !strings.Contains(got, `"refused":2`) {
			t.Errorf("recovered record %s, want it to count 2 refused records", got)
		}
		d.verify(t, l.Key())
	})
}

// An error does not say that nothing was written. What was answered as a
// denial and is found on the disk gets the outcome not_run.
func TestDecisionFoundAfterFailureIsMarkedNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{gate: make(chan struct{})}
		close(d.gate)
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		gate := make(chan struct{})
		d.set(func(d *disk) { d.gate = gate; d.after = errDisk })
		var wg sync.WaitGroup
		fail := func(r audit.Record) {
			wg.Go(func() {
				if _, err := l.Append(t.Context(), r); !errors.Is(err, audit.ErrUnavailable) {
					t.Errorf("Append of %s: %v, want ErrUnavailable", r.Decision, err)
				}
			})
			synctest.Wait()
		}
		fail(decision("alone", true)) // in the commit that hangs
		if err := l.Post(outcome("earlier")); err != nil {
			t.Fatal(err)
		}
		fail(decision("queued", true)) // never reaches the disk
		close(gate)
		wg.Wait()
		d.set(func(d *disk) { d.after = nil; d.gate = nil })
		time.Sleep(10 * time.Second)
		mustClose(t, l)
		want := []string{"started", "allow alone", "recovered", "not_run alone", "success earlier", "stopped"}
		if diff := cmp.Diff(want, d.acts(t)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if r := d.verify(t, l.Key()); r.Open != 0 {
			t.Errorf("%d decisions without an outcome, want none", r.Open)
		}
	})
}

// The same when the commit that should say "recovered" fails, at either end.
func TestRecoveryThatFailsIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*disk, error)
		want []string
	}{
		{"before the write", func(d *disk, err error) { d.before = err },
			[]string{"started", "recovered", "success earlier", "stopped"}},
		{"after the write", func(d *disk, err error) { d.after = err },
			[]string{"started", "success earlier", "recovered", "recovered", "recovered", "stopped"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{}
				l := mustOpen(t, memoryConfig(t.TempDir(), d))
				d.set(func(d *disk) { tt.set(d, errDisk) })
				if err := l.Post(outcome("earlier")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(firstTwoAttempts)
				d.set(func(d *disk) { tt.set(d, nil) })
				time.Sleep(10 * time.Second)
				mustClose(t, l)
				if diff := cmp.Diff(tt.want, d.acts(t)); diff != "" {
					t.Errorf("stored (-want +got):\n%s", diff)
				}
				d.verify(t, l.Key())
			})
		})
	}
}

// firstTwoAttempts is time for two attempts to reopen, after 100 and 200 ms,
// and not for a third.
const firstTwoAttempts = 500 * time.Millisecond

// A caller whose deadline passes answers a denial; the record says so.
func TestRecordThatIsLateIsMarkedNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		gate := make(chan struct{})
		d.set(func(d *disk) { d.gate = gate })
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		_, err := l.Append(ctx, decision("slow", true))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Append on a slow disk: %v, want the deadline", err)
		}
		close(gate)
		mustClose(t, l)
		want := []string{"started", "allow slow", "not_run slow", "stopped"}
		if diff := cmp.Diff(want, d.acts(t)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	})
}

func TestFullQueueRefusesAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		gate := make(chan struct{})
		d.set(func(d *disk) { d.gate = gate })
		accepted := 0
		for l.Post(outcome("d")) == nil {
			accepted++
			if accepted > 1<<20 {
				t.Fatal("the queue has no end")
			}
		}
		if err := l.Post(outcome("d")); !errors.Is(err, audit.ErrBusy) {
			t.Errorf("Post to a full queue: %v, want ErrBusy", err)
		}
		if _, err := l.Append(t.Context(), decision("d", true)); !errors.Is(err, audit.ErrBusy) {
			t.Errorf("Append to a full queue: %v, want ErrBusy", err)
		}
		close(gate)
		mustClose(t, l)
		if got := len(d.stored()) - 2; got != accepted {
			t.Errorf("%d of %d accepted records stored", got, accepted)
		}
	})
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		gate := make(chan struct{})
		d.set(func(d *disk) { d.gate = gate })
		r := decision("d", false)
		r.Input = []byte(`"` + strings.Repeat("x", 8<<20) + `"`)
		var err error
		for n := 0; err == nil && n < 100; n++ {
			err = l.Post(r)
		}
		if !errors.Is(err, audit.ErrBusy) {
			t.Errorf("Post of 800 MiB: %v, want ErrBusy", err)
		}
		close(gate)
		mustClose(t, l)
	})
}

// Closing a log that is down makes one last attempt and says what is lost.
func TestCloseWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		d.set(func(d *disk) { d.before = errDisk })
		if _, err := l.Append(t.Context(), decision("d", true)); err == nil {
			t.Fatal("Append on a failing disk succeeded")
		}
		if err := l.Close(); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Close: %v, want ErrUnavailable", err)
		}
	})
}

func TestLowDiskReleasesNothingAndStillRecords(t *testing.T) {
	d := &disk{}
	c := memoryConfig(t.TempDir(), d)
	c.Reserve = 1 << 62
	l := mustOpen(t, c)
	if _, err := l.Append(t.Context(), advice("advised")); !errors.Is(err, audit.ErrLowDisk) {
		t.Errorf("Append of advice: %v, want ErrLowDisk", err)
	}
	if _, err := l.Append(t.Context(), decision("a", true)); !errors.Is(err, audit.ErrLowDisk) {
		t.Errorf("Append of a release: %v, want ErrLowDisk", err)
	}
	if err := l.Health(); !errors.Is(err, audit.ErrLowDisk) {
		t.Errorf("Health: %v, want ErrLowDisk", err)
	}
	if _, err := l.Append(t.Context(), decision("b", false)); err != nil {
		t.Errorf("Append of a denial: %v", err)
	}
	mustClose(t, l)
}

// What was released before a crash and has no outcome may have run or not.
func TestRestartMarksOpenDecisionsAmbiguous(t *testing.T) {
	d, dir := &disk{}, t.TempDir()
	l := mustOpen(t, memoryConfig(dir, d))
	for _, r := range []audit.Record{
		decision("open-1", true), decision("denied", false), decision("done", true), outcome("done"), decision("open-2", true),
		advice("advised"), // whose outcome nobody will ever report
	} {
		if _, err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	crashed := &disk{entries: d.stored()}
	mustClose(t, l)
	if err := os.WriteFile(filepath.Join(dir, audit.CheckpointFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start finds nothing more to settle
		l = mustOpen(t, memoryConfig(dir, crashed))
		mustClose(t, l)
	}
	want := []string{
		"started", "allow open-1", "deny denied", "allow done", "success done", "allow open-2", "allow advised",
		"started", "ambiguous open-1", "ambiguous open-2", "stopped", "started", "stopped",
	}
	if diff := cmp.Diff(want, crashed.acts(t)); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	for i, want := range map[int]string{7: `"previous":"killed"`, 11: `"previous":"stopped"`} {
		r, err := audit.Decode(crashed.stored()[i])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(r.Record.System), want) {
			t.Errorf("entry %d says %s, want %s", i, r.Record.System, want)
		}
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	d, dir := &disk{}, t.TempDir()
	l := mustOpen(t, memoryConfig(dir, d))
	if _, err := audit.Open(t.Context(), memoryConfig(dir, d)); !errors.Is(err, audit.ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, memoryConfig(dir, d)))
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string, d *disk)
		want   string
	}{
		{"leaf changed", func(_ *testing.T, _ string, d *disk) { d.entries[2].Leaf[100] ^= 1 }, "entry 2: the leaf"},
		{"payload changed", func(_ *testing.T, _ string, d *disk) { d.entries[2].Payload[200] ^= 1 }, "entry 2: "},
		{"entry missing", func(_ *testing.T, _ string, d *disk) { d.entries = append(d.entries[:2], d.entries[3:]...) }, "entry 2: missing"},
		{"end missing", func(_ *testing.T, _ string, d *disk) { d.entries = d.entries[:3] }, "the last 2 are lost"},
		{"checkpoint missing", func(_ *testing.T, _ string, d *disk) { d.entries[4].Checkpoint, d.entries[4].Frontier = nil, nil }, "no checkpoint covers"},
		{"all gone", func(_ *testing.T, _ string, d *disk) { d.entries = nil }, "the last 5 are lost"},
		{"key gone", func(t *testing.T, dir string, _ *disk) { remove(t, dir, audit.KeyFile) }, "restore it from a backup"},
		{"key open to others", func(t *testing.T, dir string, _ *disk) {
			if err := os.Chmod(filepath.Join(dir, audit.KeyFile), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "can be read by others"},
		{"key not a key", func(t *testing.T, dir string, _ *disk) { write(t, dir, audit.KeyFile, "PRIVATE+KEY+x+1+AAAA\n") }, "not a checkpoint key"},
		{"public key of another", func(t *testing.T, dir string, _ *disk) { write(t, dir, audit.PublicKeyFile, "x+00000000+AAAA\n") }, "one of the two was replaced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, dir := &disk{}, t.TempDir()
			l := mustOpen(t, memoryConfig(dir, d))
			for i := range 3 {
				if _, err := l.Append(t.Context(), decision(fmt.Sprint(i), true)); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, l)
			before := len(d.stored())
			tt.change(t, dir, d)
			if l, err := audit.Open(t.Context(), memoryConfig(dir, d)); err == nil {
				t.Error("Open accepted it")
				mustClose(t, l)
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v\nwant it to say %q", err, tt.want)
			}
			if got := len(d.stored()); got > before {
				t.Errorf("Open wrote %d entries to a log it did not trust", got-before)
			}
		})
	}
}

func TestOpenRefusesAnotherName(t *testing.T) {
	d, dir := &disk{}, t.TempDir()
	mustClose(t, mustOpen(t, memoryConfig(dir, d)))
	c := memoryConfig(dir, d)
	c.Origin = "other.example/log"
	if _, err := audit.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), `is named "test.example/log"`) {
		t.Errorf("Open under another name: %v", err)
	}
}

func TestPrivateKeyIsPrivate(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, mustOpen(t, memoryConfig(dir, &disk{})))
	info, err := os.Stat(filepath.Join(dir, audit.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %o, want 600", got)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever the sizes of the commits, every receipt proves its entry, and the
// root is the one that another implementation of RFC 6962 computes.
func TestEveryReceiptProvesItsEntry(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &disk{}
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		l, err := audit.Open(t.Context(), memoryConfig(dir, d))
		if err != nil {
			rt.Fatal(err)
		}
		var receipts []audit.Receipt
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 9), 1, 6).Draw(rt, "commits") {
			// The first posts wait behind a shut gate and become one commit
			// with the record that is waited for.
			for i := range n - 1 {
				if err := l.Post(decision(fmt.Sprint(i), false)); err != nil {
					rt.Fatal(err)
				}
			}
			r, err := l.Append(t.Context(), decision("d", false))
			if err != nil {
				rt.Fatal(err)
			}
			receipts = append(receipts, r)
		}
		if err := l.Close(); err != nil {
			rt.Fatal(err)
		}
		entries := d.stored()
		for _, r := range receipts {
			proof, err := r.Proof()
			if err != nil {
				rt.Fatal(err)
			}
			if err := audit.VerifyProof(l.Key(), proof, entries[r.Index].Leaf); err != nil {
				rt.Fatal(err)
			}
			if err := audit.VerifyProof(l.Key(), proof, entries[(r.Index+1)%uint64(len(entries))].Leaf); err == nil {
				rt.Fatal("the proof proves another entry, too")
			}
		}
		for i := range entries {
			s, err := audit.Show(t.Context(), &memory{disk: d}, l.Key(), uint64(i))
			if err != nil {
				rt.Fatal(err)
			}
			if s.Index != uint64(i) {
				rt.Fatalf("Show(%d) shows %d", i, s.Index)
			}
		}
		report, err := audit.Verify(t.Context(), &memory{disk: d}, audit.Check{Key: l.Key()})
		if err != nil || !report.Verified {
			rt.Fatalf("Verify: %v %v", err, report.Faults)
		}
		if want := rootOf(rt, entries).String(); report.Root != want {
			rt.Fatalf("root %s, and %s by x/mod/sumdb/tlog", report.Root, want)
		}
	})
}

type fataler interface{ Fatal(args ...any) }

// rootOf computes the root with an implementation that shares no code with
// ours.
func rootOf(t fataler, entries []audit.Entry) tlog.Hash {
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i, e := range entries {
		more, err := tlog.StoredHashes(int64(i), e.Leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, more...)
	}
	root, err := tlog.TreeHash(int64(len(entries)), reader)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// The outcome of a call shares the commit of the decision that follows soon,
// and is committed all the same when none does.
func TestOutcomeSharesTheNextCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := mustOpen(t, memoryConfig(t.TempDir(), d))
		const calls = 50
		for i := range calls {
			id := fmt.Sprint(i)
			if _, err := l.Append(t.Context(), decision(id, true)); err != nil {
				t.Fatal(err)
			}
			if err := l.Post(outcome(id)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // the writer has nothing else to do
		}
		time.Sleep(10 * time.Millisecond)
		stored, commits := d.stored(), 0
		for _, e := range stored {
			if e.Checkpoint != nil {
				commits++
			}
		}
		// "started", one for each call, and one for the last outcome.
		if len(stored) != 1+2*calls || commits != 1+calls+1 {
			t.Errorf("%d entries in %d commits", len(stored), commits)
		}
		mustClose(t, l)
	})
}
