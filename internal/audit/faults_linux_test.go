package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

// A full disk, without being root: no file may grow beyond a limit, which is
// later lifted. It ends in "done".
func TestFullDiskDeniesThenRecovers(t *testing.T) {
	dir := t.TempDir()
	cmd, out, stderr := startChild(t, "full", dir)
	var told string
	if _, err := fmt.Fscan(out, &told); err != nil {
		told = err.Error()
	}
	if err := cmd.Wait(); err != nil || told != "done" {
		t.Fatalf("child: %v %s %s", err, told, stderr)
	}
	verifyDir(t, dir)
}

func full(dir string) error {
	signal.Ignore(syscall.SIGXFSZ) // writes then fail with EFBIG
	l, err := audit.Open(context.Background(), sqliteConfig(dir))
	if err != nil {
		return err
	}
	if err := limitFiles(256 << 10); err != nil {
		return err
	}
	acknowledged := map[string]bool{}
	for i := 0; err == nil; i++ {
		id := fmt.Sprint("d-", i)
		if _, err = l.Append(context.Background(), decision(id, true)); err == nil {
			acknowledged[id] = true
		}
		if i > 100_000 {
			return errors.New("the limit was never reached")
		}
	}
	if !errors.Is(err, audit.ErrUnavailable) {
		return fmt.Errorf("append on a full disk: %w, want ErrUnavailable", err)
	}
	if _, err := l.Append(context.Background(), decision("denied", true)); !errors.Is(err, audit.ErrUnavailable) {
		return fmt.Errorf("append after a full disk: %w, want ErrUnavailable", err)
	}
	if err := limitFiles(1 << 40); err != nil {
		return err
	}
	for start := time.Now(); l.Health() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			return fmt.Errorf("no recovery: %w", l.Health())
		}
	}
	if _, err := l.Append(context.Background(), decision("after", true)); err != nil {
		return err
	}
	acknowledged["after"] = true
	size, err := audit.Size(context.Background(), l)
	if err != nil {
		return err
	}
	err = audit.Records(context.Background(), l, 0, size, func(r audit.Recorded) error {
		if r.Record.Decision == "denied" {
			return errors.New("a record that was refused is there")
		}
		delete(acknowledged, r.Record.Decision)
		return nil
	})
	if err != nil {
		return err
	}
	if len(acknowledged) > 0 {
		return fmt.Errorf("lost: %v", acknowledged)
	}
	report, err := audit.Verify(context.Background(), l, audit.Check{Key: l.Key()})
	if err != nil || !report.Verified {
		return fmt.Errorf("does not verify: %w %v", err, report.Faults)
	}
	if err := l.Close(); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

func limitFiles(size uint64) error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
		return err
	}
	r.Cur = min(size, r.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r)
}

// The same on a file system that is really full, where one can be mounted.
func TestFullFileSystem(t *testing.T) {
	dir := mountSmall(t)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	evidence := filepath.Join(dir, "evidence")
	l := mustOpen(t, sqliteConfig(evidence))
	var err error
	last := 0
	for ; err == nil; last++ {
		_, err = l.Append(t.Context(), decision(fmt.Sprint("d-", last), true))
	}
	if !errors.Is(err, audit.ErrUnavailable) {
		t.Fatalf("Append on a full file system: %v, want ErrUnavailable", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for err != nil && time.Now().Before(deadline) {
		_, err = l.Append(t.Context(), decision("after", true))
	}
	if err != nil {
		t.Fatalf("no recovery: %v", err)
	}
	mustClose(t, l)
	checkTold(t, evidence, map[string]uint64{"d-0": 1})
}

// mountSmall mounts 4 MiB of memory, or skips the test.
func mountSmall(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnlyDirectoryIsAnErrorNotAPanic(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() == 0 { // whom modes do not stop
		dir = mountSmall(t)
		mustClose(t, mustOpen(t, sqliteConfig(dir)))
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Skipf("cannot remount read-only: %v", err)
		}
	} else {
		mustClose(t, mustOpen(t, sqliteConfig(dir)))
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"journal.db", "lock"} {
			if err := os.Chmod(filepath.Join(dir, f), 0o400); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := audit.Open(t.Context(), sqliteConfig(dir))
	if err == nil {
		t.Fatal("Open of a read-only directory succeeded")
	}
	t.Log(err)
	// Reading and verifying do without writing.
	verifyDir(t, dir)
}
