package gateways

import (
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"testing"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
	"github.com/bailiwick-dev/bailiwick/internal/session"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

const policies = `
@id("clerks")
permit (principal in Group::"clerks", action, resource);

@id("nobody-deletes")
forbid (principal, action == Action::"pets/deletePet", resource);
`

// constant is the one version of the policies.
type constant struct{ version *pdp.Version }

func (c constant) Version(string) *pdp.Version { return c.version }

func version(t testing.TB) *pdp.Version {
	t.Helper()
	lock := &catalog.Lock{}
	for _, def := range parse(t).Definitions() {
		if _, err := lock.Pin("pets", def); err != nil {
			t.Fatal(err)
		}
	}
	cat, err := catalog.New(catalog.Config{Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.New(policy.Config{Policies: []policy.Source{{File: "policies/main.cedar", Text: []byte(policies)}}, Schema: cat.Schema()})
	if err != nil {
		t.Fatal(err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return &pdp.Version{Catalog: cat, Program: program}
}

// real is the PDP with everything that it needs, and its record.
func real(t testing.TB, k keys, entry identity.PEP) (*plane, *audit.Log) {
	t.Helper()
	entry.ID, entry.Key = "edge", k.gatewayHash
	registry, err := identity.NewRegistry([]identity.Agent{{ID: "clerk", Groups: []string{"clerks"}, Key: k.agentHash}}, entry)
	if err != nil {
		t.Fatal(err)
	}
	who, err := identity.New(identity.Config{Agents: registry})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	state, err := store.OpenState(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	tracker, err := session.New(session.Config{Store: state})
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), audit.Config{
		Dir: filepath.Join(dir, "evidence"), Origin: "test/log", Reserve: -1, Logger: slog.New(slog.DiscardHandler),
		Journal: func(ctx context.Context) (audit.Journal, error) {
			return store.OpenJournal(ctx, filepath.Join(dir, "evidence", "journal.db"))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	decider, err := pdp.New(pdp.Config{Identity: who, Sessions: tracker, Policies: constant{version(t)}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return &plane{Decider: decider, keys: k}, log
}

// With the real PDP: what is enforced is what policy says, and every answer is
// on the record.
func TestPolicyIsEnforcedAndOnTheRecord(t *testing.T) {
	t.Parallel()
	for _, g := range gateways() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			p, log := real(t, newKeys(), identity.PEP{Relays: true})
			s := serve(t, g, p, p.gateway)
			enforced(t, g, s)
			s.send(t, "GET /pets/1?q=a&q=b", s.auth())
			s.send(t, "GET /owners", s.auth())
			s.nothingPassed(t, "what is no operation")

			effects := map[string]int{}
			err := audit.Records(t.Context(), log, 0, math.MaxUint64, func(r audit.Recorded) error {
				if r.Record.Kind == audit.KindDecision {
					effects[r.Record.Effect]++
				}
				return nil
			})
			p.mu.Lock()
			asked, allowed := len(p.asked), len(p.allowed)
			p.mu.Unlock()
			if err != nil || allowed != 1 || effects["allow"] != 1 || effects["allow"]+effects["deny"] != asked {
				t.Errorf("%d questions, %d allowed, on the record %v: %v", asked, allowed, effects, err)
			}
		})
	}
}

// A gateway whose entry does not let it pass credentials on lets nothing
// through.
func TestAGatewayThatMayNotRelayLetsNothingThrough(t *testing.T) {
	t.Parallel()
	for _, g := range gateways() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			p, _ := real(t, newKeys(), identity.PEP{})
			s := serve(t, g, p, p.gateway)
			if got := s.send(t, "GET /pets", s.auth()); got.status != 403 {
				t.Errorf("got %d", got.status)
			}
			s.nothingPassed(t, "a gateway that may not relay")
		})
	}
}
