package traces

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
	"github.com/bailiwick-dev/bailiwick/internal/session"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// agent is who makes all recorded calls, as a member of the group that the
// policies permit.
const agent = "assistant"

// relayKey proves the program that the user types into.
const relayKey = "bwk_relay_of_the_recorded_prompts"

// job is what the operator permits: everything that is in the catalogue. The
// pack is what takes it back.
const job = `
@id("job")
permit (principal in Group::"assistants", action, resource);
`

// configure returns the configuration of a suite: its tools, pinned as an MCP
// server would list them, the catalogue file beside this test, and a preset of
// the policy pack.
func configure(tb testing.TB, c corpus, s suite, preset string) *app.Config {
	tb.Helper()
	lock := new(catalog.Lock)
	for _, t := range c.tools(tb, s) {
		def, err := json.Marshal(map[string]any{
			"name": t.Name, "description": t.Description, "inputSchema": t.Parameters,
		})
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := lock.Pin(s.name, def); err != nil {
			tb.Fatal(err)
		}
	}
	text, err := lock.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(tb.TempDir(), "catalog.lock.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	pack, err := app.Pack(preset)
	if err != nil {
		tb.Fatal(err)
	}
	policies := tb.TempDir()
	for name, text := range map[string][]byte{"job.cedar": []byte(job), "pack.cedar": pack} {
		if err := os.WriteFile(filepath.Join(policies, name), text, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return &app.Config{Policies: policies, Catalog: filepath.Join(s.name, "catalog.yaml"), Lock: file}
}

// load makes the version that decides for a suite.
func load(tb testing.TB, c corpus, s suite, preset string) *pdp.Version {
	tb.Helper()
	v, err := app.LoadVersion(configure(tb, c, s, preset))
	if err != nil {
		tb.Fatalf("%s:\n%v", s.name, err)
	}
	return v
}

func readFile(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// fixed is a policy source with one version.
type fixed struct{ version *pdp.Version }

func (f fixed) Version(string) *pdp.Version { return f.version }

// open starts a decision point as the product does: local identity, sessions
// on disk, every decision durable before it is answered.
func open(tb testing.TB, v *pdp.Version) *pdp.PDP {
	tb.Helper()
	ctx := tb.Context()
	dir := tb.TempDir()
	agents, err := identity.NewRegistry([]identity.Agent{{ID: agent, Groups: []string{"assistants"}}},
		identity.PEP{ID: "chat", Key: identity.HashKey(relayKey), Subjects: []string{"Agent"}, Prompts: true})
	if err != nil {
		tb.Fatal(err)
	}
	who, err := identity.New(identity.Config{Agents: agents})
	if err != nil {
		tb.Fatal(err)
	}
	state, err := store.OpenState(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { closed(tb, "state", state.Close()) })
	sessions, err := session.New(session.Config{Store: state})
	if err != nil {
		tb.Fatal(err)
	}
	log, err := audit.Open(ctx, audit.Config{
		Dir: dir, Origin: "traces.test",
		Journal: func(ctx context.Context) (audit.Journal, error) {
			return store.OpenJournal(ctx, filepath.Join(dir, "journal.db"))
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { closed(tb, "log", log.Close()) })
	p, err := pdp.New(pdp.Config{
		Identity: who, Sessions: sessions, Policies: fixed{v}, Log: log,
		Deadline: time.Minute, // a busy machine may be slow, and must not change the numbers
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func closed(tb testing.TB, what string, err error) {
	if err != nil {
		tb.Errorf("close %s: %v", what, err)
	}
}

// replay decides all runs, each as one session, many at a time so that they
// share commits of the log. It returns a verdict for each call.
func replay(tb testing.TB, p *pdp.PDP, s suite, runs []run) [][]verdict {
	tb.Helper()
	const workers = 64
	verdicts := make([][]verdict, len(runs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				v, err := decide(tb.Context(), p, s.name, runs[i])
				if err != nil {
					tb.Errorf("%s: %v", runs[i].ID, err)
				}
				verdicts[i] = v
			}
		})
	}
	for i := range runs {
		next <- i
	}
	close(next)
	wg.Wait()
	return verdicts
}

// decide puts the calls of one run to the decision point, in order. What was
// denied did not run, so it taught the session nothing; the rest of the run is
// decided as it was recorded.
func decide(ctx context.Context, p *pdp.PDP, server string, r run) ([]verdict, error) {
	verdicts := make([]verdict, len(r.Steps))
	err := p.Prompt(ctx, authz.Prompt{
		PEP: authz.Credential{Kind: authz.CredentialBearer, Value: relayKey}, Subject: authz.Entity{Type: "Agent", ID: agent},
		Session: r.ID, Text: r.Prompt,
	})
	if err != nil {
		return verdicts, err
	}
	for i, c := range r.Steps {
		d, err := p.Decide(ctx, authz.Request{
			Credential: authz.Credential{Kind: authz.CredentialLocal, Value: agent},
			Action:     server + "/" + c.Function,
			Server:     server,
			Input:      c.Args,
			Session:    r.ID,
			Gate:       "replay",
		})
		if err != nil {
			return verdicts, fmt.Errorf("call %d, %s: %w", i, c.Function, err)
		}
		verdicts[i] = verdict{Allow: d.Allow, Why: why(d), Approval: approvable(d)}
		if !d.Allow {
			continue
		}
		out := authz.Outcome{Decision: d.ID, Status: authz.OutcomeSuccess}
		text := c.Result
		if c.Error != "" {
			out.Status, out.Error, text = authz.OutcomeError, "tool error", c.Error
		}
		// One pipeline puts delimiters around what its model gets to see, after the
		// call: a gate sees the result without them.
		text = strings.TrimSuffix(strings.TrimPrefix(text, "<<"), ">>")
		out.Output, out.Bytes = []string{text}, int64(len(text))
		if err := p.Report(ctx, out); err != nil {
			return verdicts, err
		}
	}
	return verdicts, nil
}

// approvable reports whether somebody's approval alone would turn a denial into
// an allow.
func approvable(d authz.Decision) bool {
	return slices.ContainsFunc(d.Remedies, func(r authz.Remedy) bool {
		return len(r) == 1 && r[0].Kind == authz.FactApproval
	})
}

// why names the ground of a denial: the forbids that matched, or the reason.
func why(d authz.Decision) string {
	var ids []string
	for _, p := range d.Policies {
		if p.Effect == policy.Forbid {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) == 0 {
		return d.Code()
	}
	slices.Sort(ids)
	return strings.Join(ids, ", ")
}

// factsOf collects what the baselines know about a suite.
func factsOf(v *pdp.Version, tasks []task) facts {
	f := facts{effectful: map[string]bool{}, authority: map[string][]string{}, solution: map[string][]string{}}
	for _, op := range v.Catalog.Operations() {
		if op.Tool == "" {
			continue
		}
		f.effectful[op.Tool] = !slices.Contains(op.Effects, catalog.EffectRead)
		f.authority[op.Tool] = op.Authority
	}
	for _, t := range tasks {
		for _, c := range t.Calls {
			f.solution[t.ID] = append(f.solution[t.ID], c.Function)
		}
	}
	return f
}
