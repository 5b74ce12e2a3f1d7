package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// childMode makes the test binary play one of the child processes below.
const childMode = "BAILIWICK_AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode, dir, ok := strings.Cut(os.Getenv(childMode), ":"); ok {
		if err := child(mode, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(mode, dir string) error {
	switch mode {
	case "load":
		return load(dir)
	case "full":
		return full(dir)
	default:
		return fmt.Errorf("no child %q", mode)
	}
}

func startChild(t *testing.T, mode, dir string) (*exec.Cmd, io.Reader, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode+":"+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out, stderr
}

func sqliteConfig(dir string) audit.Config {
	return audit.Config{
		Dir: dir, Origin: "test.example/log", Reserve: -1, Logger: quiet(),
		Journal: func(ctx context.Context) (audit.Journal, error) {
			return store.OpenJournal(ctx, filepath.Join(dir, "journal.db"))
		},
	}
}

// load appends as fast as it can and tells each record that was acknowledged,
// until it is killed. Telling stands for the act that was released.
func load(dir string) error {
	l, err := audit.Open(context.Background(), sqliteConfig(dir))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("p%d-w%d-%d", os.Getpid(), w, i)
				r, err := l.Append(context.Background(), decision(id, true))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				// One write: a line is told whole or not at all.
				if _, err := fmt.Fprintf(os.Stdout, "%d %s\n", r.Index, id); err != nil {
					return
				}
				if i%3 > 0 {
					if err := l.Post(outcome(id)); err != nil && !errors.Is(err, audit.ErrBusy) {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// Killed at random moments under load, the log loses nothing that was
// acknowledged, verifies, and goes on.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	const logs, kills = 10, 20
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for i := range logs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			told := map[string]uint64{}
			for range kills {
				killOnce(t, dir, told)
				checkTold(t, dir, told)
			}
			// It can still be opened, closed and verified.
			l := mustOpen(t, sqliteConfig(dir))
			mustClose(t, l)
			report := checkTold(t, dir, told)
			if report.Open != 0 {
				t.Errorf("%d released decisions without any outcome after the last start", report.Open)
			}
			t.Logf("%d kills, %d acknowledged, %d entries", kills, len(told), report.Size)
		})
	}
}

// killOnce runs a child, kills it at a random moment, mostly under load and
// sometimes while it starts, and notes what it told.
func killOnce(t *testing.T, dir string, told map[string]uint64) {
	t.Helper()
	cmd, out, stderr := startChild(t, "load", dir)
	lines := bufio.NewScanner(out)
	var timer *time.Timer
	kill := func() { _ = cmd.Process.Kill() } // it may have ended by itself, which Wait tells
	if rand.IntN(8) == 0 {
		timer = time.AfterFunc(time.Duration(rand.IntN(80))*time.Millisecond, kill)
	}
	for lines.Scan() {
		if timer == nil {
			timer = time.AfterFunc(time.Duration(rand.IntN(100_000))*time.Microsecond, kill)
		}
		var index uint64
		var id string
		if _, err := fmt.Sscan(lines.Text(), &index, &id); err != nil {
			t.Fatalf("the child told %q: %v", lines.Text(), err)
		}
		told[id] = index
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("the child ended by itself: %v %s", err, stderr)
	}
}

// checkTold verifies the log as the crash left it and looks up each record
// that was acknowledged.
func checkTold(t *testing.T, dir string, told map[string]uint64) audit.Report {
	t.Helper()
	file := filepath.Join(dir, "journal.db")
	if _, err := os.Stat(file); err != nil && len(told) == 0 {
		return audit.Report{} // killed before there was a log
	}
	j, err := store.ReadJournal(t.Context(), file)
	if err != nil {
		if len(told) == 0 {
			return audit.Report{} // killed while the tables were made
		}
		t.Fatal(err)
	}
	defer j.Close()
	stored := map[string]uint64{}
	err = audit.Records(t.Context(), j, 0, math.MaxUint64, func(r audit.Recorded) error {
		if r.Record.Kind == audit.KindDecision {
			stored[r.Record.Decision] = r.Index
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, index := range told {
		if got, ok := stored[id]; !ok || got != index {
			t.Fatalf("record %s was acknowledged at index %d and is at %d (there: %t)", id, index, got, ok)
		}
	}
	if len(told) == 0 {
		return audit.Report{} // perhaps killed before the keys were made
	}
	return verifyDir(t, dir)
}

// verifyDir verifies a whole directory against its own checkpoint file.
func verifyDir(t *testing.T, dir string) audit.Report {
	t.Helper()
	j, err := store.ReadJournal(t.Context(), filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	key, err := audit.ReadKey(filepath.Join(dir, audit.PublicKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	mark, err := os.ReadFile(filepath.Join(dir, audit.CheckpointFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(t.Context(), j, audit.Check{Key: key, Known: [][]byte{mark}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Verified {
		t.Fatalf("the log does not verify: %v", r.Faults)
	}
	return r
}

// crashed copies the files of a log that is in use: what a crash would leave.
func crashed(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n.Name() == "journal.db-shm" { // memory, not disk
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, n.Name()), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// SQLite drops a damaged end of its write-ahead log without a word. Where that
// was acknowledged, the log must not open.
func TestDamagedEndIsFoundNotDropped(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, sqliteConfig(dir))
	for i := range 5 {
		if _, err := l.Append(t.Context(), decision(fmt.Sprint("d-", i), true)); err != nil {
			t.Fatal(err)
		}
	}
	left := crashed(t, dir)
	mustClose(t, l)
	wal := filepath.Join(left, "journal.db-wal")
	content, err := os.ReadFile(wal)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
	}{
		{"bit flipped", func(b []byte) []byte { b[len(b)-3000] ^= 1; return b }},
		{"cut", func(b []byte) []byte { return b[:len(b)-3000] }},
		{"gone", func([]byte) []byte { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := crashed(t, left)
			if err := os.WriteFile(filepath.Join(dir, "journal.db-wal"), tt.change(bytes.Clone(content)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := audit.Open(t.Context(), sqliteConfig(dir))
			if !errors.Is(err, audit.ErrDamaged) {
				t.Fatalf("Open: %v, want ErrDamaged", err)
			}
			if !strings.Contains(err.Error(), "are lost") {
				t.Errorf("the error does not say what is lost: %v", err)
			}
			// The way out that the error names.
			remove(t, dir, audit.CheckpointFile)
			l := mustOpen(t, sqliteConfig(dir))
			if _, err := l.Append(t.Context(), decision("after", true)); err != nil {
				t.Fatal(err)
			}
			mustClose(t, l)
		})
	}
}

// The end of a commit that was never acknowledged is dropped, and all before
// it is there.
func TestTornUnacknowledgedEndIsDropped(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, sqliteConfig(dir))
	if _, err := l.Append(t.Context(), decision("acknowledged", true)); err != nil {
		t.Fatal(err)
	}
	mark, err := os.ReadFile(filepath.Join(dir, audit.CheckpointFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), decision("torn", true)); err != nil {
		t.Fatal(err)
	}
	left := crashed(t, dir)
	mustClose(t, l)
	write(t, left, audit.CheckpointFile, string(mark))
	wal := filepath.Join(left, "journal.db-wal")
	info, err := os.Stat(wal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(wal, info.Size()-100); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, sqliteConfig(left))
	var got []string
	err = audit.Records(t.Context(), l, 0, math.MaxUint64, func(r audit.Recorded) error {
		got = append(got, strings.TrimSuffix(r.Record.Effect+" "+r.Record.Decision, " "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	want := []string{"started", "allow acknowledged", "started", "ambiguous acknowledged"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after the crash (-want +got):\n%s", diff)
	}
}

// Bytes of the database file itself: whatever is changed, the log either
// refuses to open or is as it was.
func TestDamagedFileIsNeverTakenForSound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := mustOpen(t, sqliteConfig(dir))
	for i := range 20 {
		if _, err := l.Append(t.Context(), decision(fmt.Sprint("d-", i), false)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, l)
	file := filepath.Join(dir, "journal.db")
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	contents := func(dir string) (string, error) {
		j, err := store.ReadJournal(t.Context(), filepath.Join(dir, "journal.db"))
		if err != nil {
			return "", err
		}
		defer j.Close()
		r, err := audit.Verify(t.Context(), j, audit.Check{Key: l.Key()})
		if err == nil && !r.Verified {
			err = fmt.Errorf("%v", r.Faults)
		}
		return r.Root, err
	}
	want, err := contents(dir)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 100 {
		copied := t.TempDir()
		changed := bytes.Clone(sound)
		at := rng.IntN(len(changed))
		changed[at] ^= byte(1 << rng.IntN(8))
		if err := os.WriteFile(filepath.Join(copied, "journal.db"), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := contents(copied)
		switch {
		case err != nil:
			found++
		case got != want:
			t.Errorf("byte %d changed: verified with another root", at)
		}
	}
	t.Logf("%d of 100 changed bits were found; the others were in unused space", found)
}
