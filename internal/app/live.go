package app

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/entity"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// reloadEvery is how often the files are looked at. Reading a few hundred
// kilobytes twice a second costs less than being surprised by an editor that
// replaces files.
const reloadEvery = 500 * time.Millisecond

// A live holds the version in force and follows the files it was made from.
// It implements pdp.PolicySource.
type live struct {
	config   *Config
	logger   *slog.Logger
	agents   *identity.Verifier
	entities *entity.Directory
	changed  func(*pdp.Version)
	version  atomic.Pointer[pdp.Version]
	seen     string
}

// Version implements pdp.PolicySource: the same version for every session,
// until rollouts exist.
func (l *live) Version(string) *pdp.Version { return l.version.Load() }

// follow reloads when the files change, until ctx ends. Files that are wrong
// change nothing: the version in force stays, and the log says why.
func (l *live) follow(ctx context.Context) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.reload()
		}
	}
}

func (l *live) reload() {
	now, err := fingerprint(l.config)
	if err != nil {
		l.logger.Error("cannot look for changes of policy", "error", err)
		return
	}
	if now == l.seen {
		return
	}
	l.seen = now
	agents, err := LoadAgents(l.config)
	if err != nil {
		l.logger.Error("agents file not taken over; the one before stays in force", "error", err)
	} else {
		l.agents.Publish(agents)
	}
	v, err := LoadVersion(l.config)
	if err == nil {
		err = l.entities.SetPolicies(v.Program.Set())
	}
	if err != nil {
		l.logger.Error("change of policy not taken over; the version before stays in force",
			"policy_version", l.version.Load().Digest(), "error", err)
		return
	}
	if before := l.version.Swap(v); before.Digest() != v.Digest() {
		l.logger.Info("policy version in force", "policy_version", v.Digest(), "before", before.Digest())
		l.changed(v)
	}
}

// views are the views of a directory, as the PDP knows them.
type views struct{ *entity.Directory }

func (v views) View() pdp.EntityView { return view{v.Directory.View(), v.Directory} }

// A view is what is known of entities at one moment.
type view struct {
	*entity.View
	directory *entity.Directory
}

func (v view) Lookup(t types.EntityType) bool { return v.directory.Lookup(t) }
