package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A Disk is a small file system in memory, in a mount namespace of its own.
// Making one needs root, or a kernel that lets users make namespaces.
type Disk struct {
	dir    string
	holder *exec.Cmd // keeps the namespace
	enter  []string
}

// NewDisk makes a file system of some megabytes that only processes started
// with [Disk.Within] see, at dir. It skips the test where that is not allowed.
func NewDisk(t testing.TB, dir string, megabytes int) *Disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Disk{dir: dir}
	namespace := []string{"-m"}
	if os.Geteuid() != 0 {
		namespace = []string{"-U", "-r", "-m"}
	}
	script := `mount -t tmpfs -o size=$1m,mode=700 small "$0" && echo mounted && exec cat`
	d.holder = exec.Command("unshare", append(namespace, "sh", "-c", script, dir, strconv.Itoa(megabytes))...)
	// It ends when its standard input does, so it never outlives the test.
	in, err := d.holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	d.holder.Stderr = &stderr
	if err := d.holder.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		// Wait says only that it failed; what it wrote says why.
		_ = d.holder.Wait()
		t.Skipf("no small disk on this machine: %v %s", err, &stderr)
	}
	if line != "mounted\n" {
		t.Fatalf("the holder of the disk wrote %q", line)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), d.holder.Wait()); err != nil {
			t.Error(err)
		}
	})
	d.enter = []string{"nsenter", "--target", strconv.Itoa(d.holder.Process.Pid), "--mount", "--wd=" + filepath.Dir(dir)}
	if os.Geteuid() != 0 {
		d.enter = append(d.enter, "--user", "--preserve-credentials")
	}
	return d
}

// Within is the command line that runs another one where the disk is seen.
func (d *Disk) Within() []string { return d.enter }

// filler is the file that fills the disk, as seen from outside.
func (d *Disk) filler() string {
	return fmt.Sprintf("/proc/%d/root%s/filler", d.holder.Process.Pid, d.dir)
}

// Fill leaves no free byte.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	_, err = io.Copy(f, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(fmt.Errorf("fill disk: it did not become full: %w", err), f.Close())
	}
	return f.Close()
}

// Free takes back what Fill did.
func (d *Disk) Free() error { return os.Remove(d.filler()) }

// ReadOnly makes the disk read-only, or writable again. Nobody may have files
// of it open for writing.
func (d *Disk) ReadOnly(yes bool) error {
	mode := "rw"
	if yes {
		mode = "ro"
	}
	line := append(d.enter[:len(d.enter):len(d.enter)], "mount", "-o", "remount,bind,"+mode, d.dir)
	if text, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("remount %s: %w\n%s", mode, err, text)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
