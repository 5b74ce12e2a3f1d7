package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A node that cannot read what is suspended, or what was used up, does not
// start; it does when it can.
func TestUnreadableStateKeepsANodeFromStarting(t *testing.T) {
	for _, name := range []string{suspensionsName, "budgets.db"} {
		c := runConfig(t)
		if err := os.MkdirAll(c.Data, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(c.Data, name)
		if err := os.WriteFile(file, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := Start(t.Context(), c, slog.New(slog.DiscardHandler))
		if err == nil {
			n.Close(context.Background())
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: started with %v", name, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		n, err = Start(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := os.Stat(filepath.Join(c.Data, socketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the admin socket: %v, %v", info, err)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The socket is reached however long the path of the data directory is.
func TestSocketOfALongPath(t *testing.T) {
	c := runConfig(t)
	c.Data = filepath.Join(c.Data, strings.Repeat("long", 25), strings.Repeat("path", 25))
	n, err := Start(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(context.Background())
	if err := Suspend(t.Context(), c, "agent", "bot", "test"); err != nil {
		t.Fatal(err)
	}
	if list := n.authority.Watch().Set().List(); len(list) != 1 || list[0].ID != "bot" {
		t.Errorf("the node knows of %+v", list)
	}
}
