package app

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/entity"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
	"github.com/bailiwick-dev/bailiwick/internal/pep/mcpgate"
	"github.com/bailiwick-dev/bailiwick/internal/pep/remote"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
	"github.com/bailiwick-dev/bailiwick/internal/session"
	"github.com/bailiwick-dev/bailiwick/internal/store"
	"github.com/bailiwick-dev/bailiwick/internal/sts"
	"github.com/bailiwick-dev/bailiwick/internal/telemetry"
)

// saveEvery is how often changed sessions are saved. A crash costs no more
// than reading the records of that time again.
const saveEvery = time.Second

// saveHabitsEvery is how often changed habits are saved. A crash costs what was
// learnt since. They are large: every second they would take a tenth of a busy
// node's processor.
const saveHabitsEvery = 30 * time.Second

// drainFor is how long calls in flight may take to end when a node stops.
const drainFor = 10 * time.Second

// A Node is a running plane: decision point, evidence, and gate.
type Node struct {
	// PDP is nil in a node that is a gate only.
	PDP *pdp.PDP
	// Gate is the MCP gateway; nil when there is no upstream.
	Gate *mcpgate.Gate

	decider  pep.Decider // the PDP, or one in another process
	remote   *remote.Decider
	config   *Config
	logger   *slog.Logger
	log      *audit.Log
	state    *store.State
	sessions *session.Tracker
	risk     *risk.Tracker
	entities *entity.Directory
	watch    *revoke.Watch // what is suspended, for the gates

	breakers    *breaker.Book // nil: there are none
	budgets     *budget.Ledger
	spent       *store.Budgets
	suspensions *store.Suspensions // nil in a gate only
	authority   *revoke.Authority  // nil in a gate only
	admin       *http.Server

	live      *live
	apis      *httpgate.Gate       // nil: no API is behind the gateway
	exchange  *sts.Issuer          // nil: no token is issued
	tokenKey  *ecdsa.PrivateKey    // nil with it
	gateways  *extauthz.Gate       // nil: there is no API to ask about
	envoy     *grpc.Server         // nil: not listening
	telemetry *telemetry.Telemetry // nil in a gate only
	metrics   *http.Server         // nil: not listening
	server    *http.Server
	listener  net.Listener
	stop      context.CancelFunc
	tasks     sync.WaitGroup
	served    chan error
}

// Start opens the evidence and the state, loads the policies, and has the gate
// ready. It listens only after [Node.Listen]. Everything that is wrong with
// the configuration is found here.
func Start(ctx context.Context, c *Config, logger *slog.Logger) (*Node, error) {
	n := &Node{config: c, logger: logger}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Close(ctx))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	tasks, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	open := n.openPDP
	if n.config.PDP.URL != "" {
		open = n.openRemote
	}
	if err := open(ctx, tasks); err != nil {
		return err
	}
	if len(n.config.Upstreams) > 0 {
		var err error
		if n.Gate, err = n.newGate(); err != nil {
			return err
		}
	}
	return n.openAPIs()
}

// openRemote makes the node a gate of a PDP in another process.
func (n *Node) openRemote(_, tasks context.Context) error {
	key, err := os.ReadFile(n.config.PDP.KeyFile)
	if err != nil {
		return fmt.Errorf("read the gate's key: %w", err)
	}
	n.remote, err = remote.New(remote.Config{
		URL: n.config.PDP.URL, Key: strings.TrimSpace(string(key)), CAFile: n.config.PDP.CAFile, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	n.decider = n.remote
	// Until the PDP has said what is suspended, nothing is let through.
	n.watch = revoke.NewWatch(nil)
	n.tasks.Go(func() {
		revoke.Follow(tasks, n.watch, n.remote.Lease, func(err error) {
			n.logger.Warn("what is suspended could not be asked; without it everything is going to be denied", "error", err)
		})
	})
	return nil
}

// openPDP makes the node a PDP, with what it needs. Its tasks end with their
// context.
func (n *Node) openPDP(ctx, tasks context.Context) error {
	c := n.config
	v, err := LoadVersion(c)
	if err != nil {
		return err
	}
	agents, err := LoadAgents(c)
	if err != nil {
		return err
	}
	verifier, err := n.verifier(agents, tasks)
	if err != nil {
		return err
	}
	if err := n.openData(ctx); err != nil {
		return err
	}
	if err := n.openSuspensions(ctx); err != nil {
		return err
	}
	n.watch = n.authority.Watch()
	n.entities, err = entity.Open(ctx, entity.Config{Sources: c.Entities, Policies: v.Program.Set(), Logger: n.logger})
	if err != nil {
		return err
	}
	n.live = &live{config: c, logger: n.logger, agents: verifier, entities: n.entities, changed: n.policiesChanged}
	n.live.version.Store(v)
	if n.live.seen, err = fingerprint(c); err != nil {
		return err
	}
	if err := n.inForce(v); err != nil {
		return err
	}
	if !c.Breakers.Off {
		n.breakers = breaker.New(c.Breakers, n.breakerChanged)
	}
	if err := n.observe(); err != nil {
		return err
	}
	n.telemetry.SetVersion(v.Digest())
	n.PDP, err = pdp.New(pdp.Config{
		Observer: n.telemetry, Identity: verifier, Sessions: n.sessions, Policies: n.live, Log: n.log, Logger: n.logger, Observe: c.Mode == "observe", Risk: n.risk,
		Suspensions: n.authority, Budgets: n.budgets, Breakers: n.breakers, Entities: views{n.entities}, Elevations: c.Elevations, MaxInFlight: c.MaxInFlight,
	})
	if err != nil {
		return err
	}
	n.decider = n.PDP
	if err := n.openExchange(verifier); err != nil {
		return err
	}
	if err := n.publish(); err != nil {
		return err
	}
	n.tasks.Go(func() { n.live.follow(tasks) })
	n.tasks.Go(func() { n.entities.Follow(tasks) })
	n.tasks.Go(func() { n.keep(tasks) })
	n.tasks.Go(func() { n.authority.Follow(tasks) })
	return nil
}

// openData opens evidence and state, and lets the sessions catch up with the
// evidence.
func (n *Node) openData(ctx context.Context) error {
	if err := os.MkdirAll(n.config.Data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	var err error
	if n.log, err = openEvidence(ctx, n.config, n.logger); err != nil {
		return err
	}
	if n.state, err = store.OpenState(ctx, filepath.Join(n.config.Data, "state.db")); err != nil {
		return err
	}
	if n.sessions, err = session.New(session.Config{Store: n.state}); err != nil {
		return err
	}
	n.risk = risk.New()
	err = n.state.Habits(ctx, func(agent string, state []byte) {
		if err := n.risk.Restore(agent, state); err != nil {
			n.logger.Warn("an agent begins without a habit", "error", err)
		}
	})
	if err != nil {
		return err
	}
	if err := n.openBudgets(ctx); err != nil {
		return err
	}
	from, err := n.sessions.Position(ctx)
	if err != nil {
		return fmt.Errorf("read the sessions' position: %w", err)
	}
	counted := n.budgets.Position()
	err = audit.Records(ctx, n.log, min(from, counted), math.MaxUint64, func(r audit.Recorded) error {
		if r.Index >= counted {
			pdp.ReplayBudgets(n.budgets, r.Index, r.Record)
		}
		if r.Index < from {
			return nil
		}
		return pdp.Replay(ctx, n.sessions, r.Index, r.Record)
	})
	if err != nil {
		return fmt.Errorf("catch sessions and budgets up with the evidence: %w", err)
	}
	return nil
}

// openEvidence takes the evidence directory for writing.
func openEvidence(ctx context.Context, c *Config, logger *slog.Logger) (*audit.Log, error) {
	return audit.Open(ctx, audit.Config{
		Dir: evidenceDir(c), Origin: c.Node, Logger: logger,
		Journal: func(ctx context.Context) (audit.Journal, error) { return store.OpenJournal(ctx, journalFile(c)) },
	})
}

func (n *Node) newGate() (*mcpgate.Gate, error) {
	c := n.config
	upstreams := make([]mcp.Server, 0, len(c.Upstreams))
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		s, err := c.Server(name)
		if err != nil {
			return nil, err
		}
		upstreams = append(upstreams, s)
	}
	return mcpgate.New(mcpgate.Config{
		Decider: n.decider, Watch: n.watch, Upstreams: upstreams, Hosts: hosts(c), Origins: c.Origins, Public: c.public(), Door: c.door, Logger: n.logger,
	})
}

// hosts are the names under which the gateway may be called.
func hosts(c *Config) []string {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil || host == "" {
		return c.Hosts
	}
	return append([]string{host}, c.Hosts...)
}

// inForce records which version decides from now on.
func (n *Node) inForce(v *pdp.Version) error {
	details, err := json.Marshal(map[string]any{
		"policies": len(v.Program.Set().Policies()), "operations": len(v.Catalog.Operations()), "mode": n.config.Mode,
	})
	if err != nil {
		return err
	}
	return n.log.Post(audit.Record{Kind: audit.KindSystem, Time: time.Now(), Effect: "version_in_force", Version: v.Digest(), System: details})
}

func (n *Node) policiesChanged(v *pdp.Version) {
	if err := n.inForce(v); err != nil {
		n.logger.Error("the change of version was not recorded", "policy_version", v.Digest(), "error", err)
	}
	n.telemetry.SetVersion(v.Digest())
	if n.Gate != nil {
		n.Gate.PoliciesChanged()
	}
}

// keep saves what is kept behind the decision path.
func (n *Node) keep(ctx context.Context) {
	tick, habits := time.NewTicker(saveEvery), time.NewTicker(saveHabitsEvery)
	defer tick.Stop()
	defer habits.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-habits.C:
			if err := n.saveHabits(ctx); err != nil && ctx.Err() == nil {
				n.logger.Error("habits not saved; they are lost if the node ends before they are", "error", err)
			}
		case <-tick.C:
			if err := n.sessions.Save(ctx); err != nil && ctx.Err() == nil {
				n.logger.Error("sessions not saved; they will be caught up from the evidence", "error", err)
			}
			if position, err := n.state.SessionPosition(ctx); err == nil {
				n.budgets.Advance(position) // the sessions have seen all decisions before it
			}
			if err := n.budgets.Save(ctx, time.Now()); err != nil && ctx.Err() == nil {
				n.logger.Error("budgets not saved; they will be caught up from the evidence", "error", err)
			}
			if err := n.PDP.RecordRefusals(); err != nil {
				n.logger.Error("refused requests not counted on the record", "error", err)
			}
		}
	}
}

func (n *Node) saveHabits(ctx context.Context) error {
	return n.risk.Save(func(habits map[string][]byte) error { return n.state.SaveHabits(ctx, habits) })
}

// Wait returns when ctx ends, or when the HTTP server has failed.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.served:
		return fmt.Errorf("serve HTTP: %w", err)
	}
}

// Close lets the calls in flight end, saves the sessions and closes the
// evidence. It may be called on a node that never started.
func (n *Node) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
	defer cancel()
	var errs []error
	if n.Gate != nil {
		errs = append(errs, n.Gate.Close(ctx))
	}
	if n.apis != nil {
		errs = append(errs, n.apis.Close(ctx))
	}
	if n.envoy != nil {
		n.envoy.Stop() // whoever waits for an answer is denied by its gateway
	}
	if n.server != nil {
		if err := n.server.Shutdown(ctx); err != nil {
			errs = append(errs, n.server.Close())
		}
	}
	if n.remote != nil {
		errs = append(errs, n.remote.Close(ctx))
	}
	if n.metrics != nil {
		errs = append(errs, n.metrics.Close())
	}
	if n.telemetry != nil {
		errs = append(errs, n.telemetry.Close(ctx))
	}
	if n.stop != nil {
		n.stop()
	}
	if n.admin != nil {
		errs = append(errs, n.admin.Close(), os.Remove(filepath.Join(n.config.Data, socketName)))
	}
	n.tasks.Wait()
	if n.watch != nil {
		n.watch.Close()
	}
	if n.suspensions != nil {
		errs = append(errs, n.suspensions.Close())
	}
	if n.entities != nil {
		errs = append(errs, n.entities.Close())
	}
	if n.log != nil {
		if n.sessions != nil {
			errs = append(errs, n.sessions.Save(ctx), n.saveHabits(ctx))
		}
		if n.budgets != nil {
			errs = append(errs, n.budgets.Save(ctx, time.Now()))
		}
		errs = append(errs, n.log.Close())
	}
	if n.spent != nil {
		errs = append(errs, n.spent.Close())
	}
	if n.state != nil {
		errs = append(errs, n.state.Close())
	}
	return errors.Join(errs...)
}
