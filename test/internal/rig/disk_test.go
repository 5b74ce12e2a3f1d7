package rig

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskIsFullAndReadOnlyForThoseWithin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	d := NewDisk(t, dir, 2)
	write := func() string {
		line := append(d.Within(), "sh", "-c", `printf '%8192d' 0 >> "$0/file"`, dir)
		// What it prints says more than how it ends.
		out, _ := exec.Command(line[0], line[1:]...).CombinedOutput()
		return string(out)
	}
	if out := write(); out != "" {
		t.Errorf("writing to a free disk: %s", out)
	}
	if err := d.Fill(); err != nil {
		t.Fatal(err)
	}
	if out := write(); out == "" {
		t.Errorf("writing to a full disk: %q", out)
	}
	if err := d.Free(); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadOnly(true); err != nil {
		t.Fatal(err)
	}
	if out := write(); !strings.Contains(out, "Read-only") {
		t.Errorf("writing to a read-only disk: %q", out)
	}
	if err := d.ReadOnly(false); err != nil {
		t.Fatal(err)
	}
	if out := write(); out != "" {
		t.Errorf("writing to the disk again: %s", out)
	}
}
