package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runConfig(t *testing.T) *Config {
	t.Helper()
	file := writeConfig(t, "upstreams:\n  notes: {command: notes-server, args: [--root, /srv]}\n")
	if err := os.Mkdir(filepath.Join(filepath.Dir(file), "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Two windows of a client each wrap the same server, each with a log.
func TestRunsDoNotShareALog(t *testing.T) {
	c := runConfig(t)
	var dirs []string
	for range 2 {
		n, err := StartRun(t.Context(), c, "", []string{"notes-server", "--root", "/srv"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close(context.Background())
		dirs = append(dirs, n.config.Data)
	}
	for i, want := range []string{"notes", "notes-2"} {
		if filepath.Base(dirs[i]) != want {
			t.Errorf("process %d keeps its data in %s", i, dirs[i])
		}
	}
	if _, err := OpenEvidence(t.Context(), c); err == nil || !strings.Contains(err.Error(), dirs[1]) {
		t.Errorf("the way to the evidence is not shown: %v", err)
	}
}

func TestRunNeedsAName(t *testing.T) {
	c := runConfig(t)
	for _, tt := range []struct {
		name    string
		command []string
	}{
		{"", []string{"other-server"}},
		{"no/name", []string{"other-server"}},
	} {
		if n, err := StartRun(t.Context(), c, tt.name, tt.command, slog.New(slog.DiscardHandler)); err == nil {
			n.Close(context.Background())
			t.Errorf("%q %q was started", tt.name, tt.command)
		}
	}
}
