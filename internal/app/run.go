package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

const (
	// runDir is where the data of bailiwick run lies in the data directory.
	runDir = "run"
	// maxRuns is how many processes may wrap the same server at a time.
	maxRuns = 32
)

// StartRun starts a node with one stdio upstream, for bailiwick run. The
// upstream is the configured one of that name, or with that command; a server
// that is not configured gets the name given, and its tools are unknown to
// policy until they are pinned.
//
// The evidence of each process goes to a directory of its own, since one log has
// one writer.
func StartRun(ctx context.Context, c *Config, name string, command []string, logger *slog.Logger) (*Node, error) {
	if name == "" {
		name = c.serverOf(command)
	}
	if name == "" {
		return nil, fmt.Errorf("no configured server has the command %q: name it with --server, or add it to the configuration", strings.Join(command, " "))
	}
	if !serverName.MatchString(name) {
		return nil, fmt.Errorf("%q is not a server name: letters, digits, '-' and '_', at most 64", name)
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	up, configured := c.Upstreams[name]
	if !configured {
		up.Cwd = dir
	}
	up.URL, up.Command, up.Args = "", command[0], command[1:]
	one := *c
	one.shared = c.Data
	one.Upstreams = map[string]Upstream{name: up}
	// A desktop client may start the same server more than once, in windows of
	// its own. Each process takes the first directory that no other holds.
	for i := 1; ; i++ {
		own := name
		if i > 1 {
			own = fmt.Sprintf("%s-%d", name, i)
		}
		one.Data = filepath.Join(c.Data, runDir, own)
		one.Node = c.Node + "/run/" + own
		n, err := Start(ctx, &one, logger)
		if i == maxRuns || !errors.Is(err, audit.ErrLocked) {
			return n, err
		}
	}
}

// serverOf finds the upstream that has this command.
func (c *Config) serverOf(command []string) string {
	for _, name := range c.Servers() {
		u := c.Upstreams[name]
		if u.Command == command[0] && slices.Equal(u.Args, command[1:]) {
			return name
		}
	}
	return ""
}
