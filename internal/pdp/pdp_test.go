package pdp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
	"github.com/bailiwick-dev/bailiwick/internal/session"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

const (
	readMail  = `{"name":"read_mail","inputSchema":{"type":"object","properties":{"id":{"type":"string"}},"required":["id"],"additionalProperties":false}}`
	sendMoney = `{"name":"send_money","inputSchema":{"type":"object","properties":{"to":{"type":"string"},"cents":{"type":"integer"}},"required":["to","cents"],"additionalProperties":false}}`
)

const overlay = `
servers:
  mail:
    tools:
      read_mail:
        effects: [read]
        outputs: {outsiders: true}
  bank:
    tools:
      send_money:
        effects: [write, external]
        authority: [to, cents]
`

const policies = `
@id("clerks-read-and-pay")
permit (principal in Group::"clerks", action in [Action::"read", Action::"external", Action::"discover"], resource);

@id("small-sums-only")
forbid (principal, action == Action::"bank/send_money", resource)
when { context.input.cents > 10000 };

@id("no-money-after-outsiders")
forbid (principal, action == Action::"bank/send_money", resource)
when { context.session.labels.contains("untrusted") };

@id("guests-read-what-is-public")
permit (principal == Agent::"guest", action == Action::"mcp:resources/read", resource in Server::"mail")
when { resource == McpResource::"mail/file:///public" };

@id("overflows")
forbid (principal, action == Action::"bank/send_money", resource)
when { context.input.cents == 9 && context.input.cents * 4611686018427387904 == 0 };
`

// A plane is everything that a PDP needs, real, with switches that make each
// part fail.
type plane struct {
	*pdp.PDP
	log      *audit.Log
	sessions *faultySessions
	journal  *faultyJournal
	version  atomic.Pointer[pdp.Version]
	keys     map[string]string
	dir      string
	now      time.Time
	reserve  int64 // of the disk, for the log
}

func (p *plane) Version(string) *pdp.Version { return p.version.Load() }

// faultySessions is the real store with a fault in front of it.
type faultySessions struct {
	session.Store
	fail func(context.Context) error
}

func (s *faultySessions) Session(ctx context.Context, id string) (session.State, bool, error) {
	if s.fail != nil {
		if err := s.fail(ctx); err != nil {
			return session.State{}, false, err
		}
	}
	return s.Store.Session(ctx, id)
}

// faultyJournal is the real journal with a fault in front of it.
type faultyJournal struct {
	audit.Journal
	fail atomic.Pointer[func() error]
}

func (j *faultyJournal) Append(ctx context.Context, entries []audit.Entry) error {
	if f := j.fail.Load(); f != nil {
		if err := (*f)(); err != nil {
			return err
		}
	}
	return j.Journal.Append(ctx, entries)
}

func version(t testing.TB, cedar string) *pdp.Version {
	t.Helper()
	lock := &catalog.Lock{}
	for server, def := range map[string]string{"mail": readMail, "bank": sendMoney} {
		if _, err := lock.Pin(server, json.RawMessage(def)); err != nil {
			t.Fatal(err)
		}
	}
	o, err := catalog.ParseOverlay([]byte(overlay))
	if err != nil {
		t.Fatal(err)
	}
	cat, err := catalog.New(catalog.Config{Lock: lock, Overlay: o})
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.New(policy.Config{Policies: []policy.Source{{File: "policies/main.cedar", Text: []byte(cedar)}}, Schema: cat.Schema()})
	if err != nil {
		t.Fatal(err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return &pdp.Version{Catalog: cat, Program: program}
}

func newPlane(t testing.TB, change func(*pdp.Config, *identity.Config)) *plane {
	t.Helper()
	return openPlane(t, &plane{reserve: -1}, change)
}

func openPlane(t testing.TB, p *plane, change func(*pdp.Config, *identity.Config)) *plane {
	t.Helper()
	p.keys, p.dir, p.now = map[string]string{}, t.TempDir(), time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	var agents []identity.Agent
	for id, groups := range map[string][]string{"clerk": {"clerks"}, "guest": nil} {
		key, hash := identity.NewKey()
		p.keys[id] = key
		agents = append(agents, identity.Agent{ID: id, Groups: groups, Key: hash})
	}
	registry, err := identity.NewRegistry(agents)
	if err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(t.Context(), filepath.Join(p.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	p.sessions = &faultySessions{Store: state}
	tracker, err := session.New(session.Config{Store: p.sessions})
	if err != nil {
		t.Fatal(err)
	}
	p.journal = &faultyJournal{}
	p.log, err = audit.Open(t.Context(), audit.Config{
		Dir: filepath.Join(p.dir, "evidence"), Origin: "test/log", Reserve: p.reserve, Logger: slog.New(slog.DiscardHandler),
		Journal: func(ctx context.Context) (audit.Journal, error) {
			j, err := store.OpenJournal(ctx, filepath.Join(p.dir, "evidence", "journal.db"))
			p.journal.Journal = j
			return p.journal, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.log.Close() })
	p.version.Store(version(t, policies))
	ic := identity.Config{Agents: registry}
	pc := pdp.Config{Sessions: tracker, Policies: p, Log: p.log, Deadline: time.Second}
	if change != nil {
		change(&pc, &ic)
	}
	if pc.Identity, err = identity.New(ic); err != nil {
		t.Fatal(err)
	}
	if p.PDP, err = pdp.New(pc); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) request(agent, action, input string) authz.Request {
	return authz.Request{
		Credential: authz.Credential{Kind: authz.CredentialBearer, Value: p.keys[agent]},
		Action:     action, Input: json.RawMessage(input), Session: "run-" + agent, Gate: "test",
	}
}

// records are all decision records so far.
func (p *plane) records(t testing.TB) []audit.Record {
	t.Helper()
	var all []audit.Record
	err := audit.Records(t.Context(), p.log, 0, math.MaxUint64, func(r audit.Recorded) error {
		if r.Record.Kind == audit.KindDecision {
			all = append(all, r.Record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// snapshot is the session as a record has it.
func snapshot(r audit.Record) session.Snapshot {
	s := r.Why.Session
	return session.Snapshot{ID: s.ID, Agent: r.Who.Subject.ID, Started: s.Started, Calls: s.Calls, Denials: s.Denials, Labels: s.Labels}
}

func ids(refs []authz.PolicyRef) []string {
	var list []string
	for _, r := range refs {
		list = append(list, r.ID)
	}
	return list
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name     string
		agent    string
		action   string
		input    string
		change   func(*authz.Request)
		allow    bool
		code     string
		policies []string
	}{
		{name: "permitted", agent: "clerk", action: "bank/send_money", input: `{"to":"bob","cents":500}`, allow: true, code: authz.ReasonPolicyAllow, policies: []string{"clerks-read-and-pay"}},
		{name: "nothing permits", agent: "guest", action: "bank/send_money", input: `{"to":"bob","cents":500}`, code: authz.ReasonNoPermit},
		{name: "forbidden by the argument", agent: "clerk", action: "bank/send_money", input: `{"to":"bob","cents":10001}`, code: authz.ReasonForbidden, policies: []string{"small-sums-only"}},
		{name: "a policy that fails denies", agent: "clerk", action: "bank/send_money", input: `{"to":"bob","cents":9}`, code: authz.ReasonPolicyError, policies: []string{"clerks-read-and-pay", "overflows"}},
		{name: "method", agent: "clerk", action: "mcp:tools/list", input: `{}`, change: func(r *authz.Request) { r.Server = "bank" }, allow: true, code: authz.ReasonPolicyAllow, policies: []string{"clerks-read-and-pay"}},
		{name: "not in the catalogue", agent: "clerk", action: "bank/rob", input: `{}`, code: authz.ReasonToolUnknown},
		{name: "unknown method", agent: "clerk", action: "mcp:world/end", input: `{}`, code: authz.ReasonToolUnknown},
		{name: "definition changed", agent: "clerk", action: "mail/read_mail", input: `{"id":"1"}`, change: func(r *authz.Request) { r.Definition = "sha256:00" }, code: authz.ReasonToolChanged},
		{name: "wrong type", agent: "clerk", action: "bank/send_money", input: `{"to":"bob","cents":"500"}`, code: authz.ReasonInputInvalid},
		{name: "missing argument", agent: "clerk", action: "bank/send_money", input: `{"to":"bob"}`, code: authz.ReasonInputInvalid},
		{name: "argument that is not there", agent: "clerk", action: "bank/send_money", input: `{"to":"bob","cents":5,"urgent":true}`, code: authz.ReasonInputInvalid},
		{name: "duplicate key", agent: "clerk", action: "bank/send_money", input: `{"to":"bob","cents":5,"cents":50000}`, code: authz.ReasonInputInvalid},
		{name: "no JSON", agent: "clerk", action: "bank/send_money", input: `{`, code: authz.ReasonInputInvalid},
		{name: "nobody", action: "bank/send_money", input: `{}`, change: func(r *authz.Request) { r.Credential = authz.Credential{} }, code: authz.ReasonUnauthenticated},
		{name: "wrong key", action: "bank/send_money", input: `{}`, change: func(r *authz.Request) { r.Credential.Value = "bwk_wrong" }, code: authz.ReasonUnauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlane(t, nil)
			req := p.request(tt.agent, tt.action, tt.input)
			if tt.change != nil {
				tt.change(&req)
			}
			d, err := p.Decide(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allow != tt.allow || d.Code() != tt.code {
				t.Errorf("got allow %v, %s (%s)", d.Allow, d.Code(), d.Message())
			}
			if diff := cmp.Diff(tt.policies, ids(d.Policies)); diff != "" {
				t.Error(diff)
			}
			rs := p.records(t)
			if len(rs) != 1 || rs[0].Decision != d.ID || (rs[0].Effect == "allow") != tt.allow || rs[0].Why.Released != tt.allow {
				t.Fatalf("records %+v", rs)
			}
			if diff := cmp.Diff(d.Reasons, rs[0].Why.Reasons); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Every dependency of the decision path has a row in which it fails, and the
// answer is a denial with a reason, in time.
func TestEveryFailureDenies(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	// Only the claim of the issuer matters: nobody can be asked for its keys.
	payload, err := json.Marshal(map[string]string{"iss": dead.URL, "sub": "clerk"})
	if err != nil {
		t.Fatal(err)
	}
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
	boom := errors.New("boom")
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, tt := range []struct {
		name     string
		code     string
		fault    bool
		sabotage func(*testing.T, *plane, *authz.Request)
	}{
		{name: "issuer down", code: authz.ReasonIdentityDown, fault: true, sabotage: func(_ *testing.T, _ *plane, r *authz.Request) {
			r.Credential.Value = token
		}},
		{name: "session store fails", code: authz.ReasonSessionDown, fault: true, sabotage: func(_ *testing.T, p *plane, _ *authz.Request) {
			p.sessions.fail = func(context.Context) error { return boom }
		}},
		{name: "session store hangs", code: authz.ReasonDeadline, fault: true, sabotage: func(_ *testing.T, p *plane, _ *authz.Request) {
			p.sessions.fail = hang
		}},
		{name: "session of another agent", code: authz.ReasonSessionMismatch, sabotage: func(t *testing.T, p *plane, r *authz.Request) {
			if _, err := p.Decide(t.Context(), p.request("guest", "bank/send_money", `{"to":"x","cents":1}`)); err != nil {
				t.Fatal(err)
			}
			r.Session = "run-guest"
		}},
		{name: "no policies", code: authz.ReasonPolicyUnavailable, sabotage: func(_ *testing.T, p *plane, _ *authz.Request) {
			p.version.Store(nil)
		}},
		{name: "journal fails", code: authz.ReasonAuditDown, fault: true, sabotage: func(_ *testing.T, p *plane, _ *authz.Request) {
			f := func() error { return boom }
			p.journal.fail.Store(&f)
		}},
		{name: "journal hangs", code: authz.ReasonAuditDown, fault: true, sabotage: func(t *testing.T, p *plane, _ *authz.Request) {
			release := make(chan struct{})
			t.Cleanup(func() { close(release) })
			f := func() error { <-release; return boom }
			p.journal.fail.Store(&f)
		}},
		{name: "log closed", code: authz.ReasonAuditDown, fault: true, sabotage: func(_ *testing.T, p *plane, _ *authz.Request) {
			p.log.Close()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, func(_ *pdp.Config, ic *identity.Config) {
				ic.Issuers = []identity.Issuer{{Issuer: dead.URL, Audience: "bailiwick", AgentClaim: "sub"}}
			})
			req := p.request("clerk", "mail/read_mail", `{"id":"1"}`)
			tt.sabotage(t, p, &req)
			began := time.Now()
			d, err := p.Decide(t.Context(), req)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			if d.Allow || d.Code() != tt.code || d.Message() == "" {
				t.Errorf("got allow %v, %s", d.Allow, d.Code())
			}
			if (err != nil) != tt.fault {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A disk that is nearly full still takes the denial, and its reason.
func TestNearlyFullDiskReleasesNothing(t *testing.T) {
	p := openPlane(t, &plane{reserve: 1 << 60}, nil)
	d, err := p.Decide(t.Context(), p.request("clerk", "mail/read_mail", `{"id":"1"}`))
	if d.Allow || d.Code() != authz.ReasonAuditDown || !errors.Is(err, audit.ErrLowDisk) {
		t.Errorf("%+v %v", d, err)
	}
	rs := p.records(t)
	if len(rs) != 1 || rs[0].Effect != "deny" || rs[0].Why.Released || rs[0].Why.Labels != nil || rs[0].Why.Reasons[0].Code != authz.ReasonAuditDown {
		t.Errorf("recorded %+v", rs)
	}
}

func TestUntrustedOutputTaintsTheSession(t *testing.T) {
	p := newPlane(t, nil)
	pay := p.request("clerk", "bank/send_money", `{"to":"bob","cents":500}`)
	for i, step := range []struct {
		req  authz.Request
		code string
	}{
		{pay, authz.ReasonPolicyAllow},
		{p.request("clerk", "mail/read_mail", `{"id":"1"}`), authz.ReasonPolicyAllow},
		{pay, authz.ReasonForbidden},
	} {
		if d, err := p.Decide(t.Context(), step.req); err != nil || d.Code() != step.code {
			t.Fatalf("step %d: %s %v", i, d.Code(), err)
		}
	}
	pay.Session = "another run"
	if d, err := p.Decide(t.Context(), pay); err != nil || !d.Allow {
		t.Errorf("another session is not tainted: %+v %v", d, err)
	}
	want := []audit.Session{
		{ID: "run-clerk", Started: p.records(t)[0].Time},
		{ID: "run-clerk", Calls: 1, Started: p.records(t)[0].Time},
		{ID: "run-clerk", Calls: 2, Labels: []string{"untrusted"}, Started: p.records(t)[0].Time},
	}
	for i, w := range want {
		got := *p.records(t)[i].Why.Session
		got.Started = got.Started.Truncate(time.Millisecond)
		if d := cmp.Diff(w, got); d != "" {
			t.Errorf("record %d: %s", i, d)
		}
	}
}

// A denial teaches the session nothing but the denial.
func TestDeniedReadTaintsNothing(t *testing.T) {
	p := newPlane(t, nil)
	req := p.request("clerk", "mail/read_mail", `{"id":"1"}`)
	req.Definition = "sha256:changed"
	for _, r := range []authz.Request{req, p.request("clerk", "bank/send_money", `{"to":"bob","cents":500}`)} {
		if _, err := p.Decide(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if last := p.records(t)[1]; !last.Why.Released || last.Why.Session.Denials != 1 || last.Why.Session.Labels != nil {
		t.Errorf("%+v", last.Why)
	}
}

func TestObserveLetsPolicyBeWrongNotThePlane(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(*plane, *authz.Request)
		allow    bool
		observed bool
	}{
		{name: "policy allows", change: func(*plane, *authz.Request) {}, allow: true},
		{name: "policy denies", change: func(_ *plane, r *authz.Request) { r.Input = json.RawMessage(`{"to":"x","cents":99999}`) }, allow: true, observed: true},
		{name: "unknown tool", change: func(_ *plane, r *authz.Request) { r.Action = "bank/other" }, allow: true, observed: true},
		{name: "nobody", change: func(_ *plane, r *authz.Request) { r.Credential = authz.Credential{} }},
		{name: "no policies", change: func(p *plane, _ *authz.Request) { p.version.Store(nil) }},
		{name: "no record", change: func(p *plane, _ *authz.Request) { p.log.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Observe = true })
			req := p.request("clerk", "bank/send_money", `{"to":"bob","cents":500}`)
			tt.change(p, &req)
			d, _ := p.Decide(t.Context(), req)
			if d.Allow != tt.allow || d.Observed != tt.observed {
				t.Errorf("%+v", d)
			}
			if tt.observed {
				r := p.records(t)[0]
				if r.Effect != "deny" || !r.Why.Released || r.Why.Mode != "observe" {
					t.Errorf("record %+v %+v", r, r.Why)
				}
			}
		})
	}
}

func TestNoCredentialIsEverWritten(t *testing.T) {
	p := newPlane(t, nil)
	wrong, _ := identity.NewKey()
	for _, key := range []string{p.keys["clerk"], wrong} {
		req := p.request("clerk", "bank/send_money", `{"to":"bob","cents":500}`)
		req.Credential.Value = key
		if _, err := p.Decide(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.log.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, secret := range []string{p.keys["clerk"], wrong} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds a key", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An unverified caller decides neither what is kept nor how much of it.
func TestUnverifiedInputIsNotKept(t *testing.T) {
	p := newPlane(t, nil)
	req := p.request("clerk", strings.Repeat("x", 5000), `{"secret":"payload"}`)
	req.Credential = authz.Credential{}
	if _, err := p.Decide(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if r := p.records(t)[0]; r.Input != nil || len(r.What.Action) > 600 {
		t.Errorf("kept %d bytes of input, action of %d", len(r.Input), len(r.What.Action))
	}
}

func TestReachable(t *testing.T) {
	p := newPlane(t, nil)
	cat := p.version.Load().Catalog
	digest := func(action string) string {
		op, ok := cat.Operation(action)
		if !ok {
			t.Fatal(action)
		}
		return op.Digest
	}
	ops := []pep.Operation{
		{Action: "mail/read_mail", Definition: digest("mail/read_mail")},
		{Action: "bank/send_money", Definition: digest("bank/send_money")},
		{Action: "bank/send_money", Definition: "sha256:changed"},
		{Action: "bank/rob"},
	}
	for agent, want := range map[string][]bool{
		"clerk": {true, true, false, false},
		"guest": {false, false, false, false},
	} {
		got, err := p.Reachable(t.Context(), p.request(agent, "", ""), ops)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", agent, got, want)
		}
	}
	for uri, want := range map[string]bool{"file:///public": true, "file:///secret": false} {
		req := p.request("guest", "", "")
		req.Server, req.Resource = "mail", authz.Entity{Type: "McpResource", ID: "mail/" + uri}
		got, err := p.Reachable(t.Context(), req, []pep.Operation{{Action: "mcp:resources/read"}})
		if err != nil || !slices.Equal(got, []bool{want}) {
			t.Errorf("%s: %v, %v", uri, got, err)
		}
	}
	nobody := p.request("clerk", "", "")
	nobody.Credential.Value = "bwk_wrong"
	if got, err := p.Reachable(t.Context(), nobody, ops); err == nil || slices.Contains(got, true) {
		t.Errorf("nobody reaches %v, %v", got, err)
	}
	p.version.Store(nil)
	if got, err := p.Reachable(t.Context(), p.request("clerk", "", ""), ops); err == nil || slices.Contains(got, true) {
		t.Errorf("without policies: %v, %v", got, err)
	}
}

func TestOutcomeIsRecorded(t *testing.T) {
	p := newPlane(t, nil)
	d, err := p.Decide(t.Context(), p.request("clerk", "mail/read_mail", `{"id":"1"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Report(t.Context(), authz.Outcome{Decision: d.ID, Status: authz.OutcomeError, Bytes: 12, Error: "mailbox full"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Report(t.Context(), authz.Outcome{Decision: d.ID, Status: "splendid"}); err == nil {
		t.Error("an unknown status was recorded")
	}
	if _, err := p.Decide(t.Context(), p.request("clerk", "mail/read_mail", `{"id":"2"}`)); err != nil { // flushes the queue
		t.Fatal(err)
	}
	hits, err := audit.Search(t.Context(), p.log, audit.Query{Decision: d.ID, Kind: audit.KindOutcome, Limit: 2})
	if err != nil || len(hits) != 1 || hits[0].Record.Outcome.Error != "mailbox full" {
		t.Errorf("%+v %v", hits, err)
	}
}

// What was recorded is enough to decide again, and to know the sessions.
func TestRecordsReplay(t *testing.T) {
	p := newPlane(t, nil)
	for _, r := range []authz.Request{
		p.request("clerk", "mcp:tools/list", `{}`),
		p.request("clerk", "bank/send_money", `{"to":"bob","cents":500}`),
		p.request("clerk", "mail/read_mail", `{"id":"1"}`),
		p.request("clerk", "bank/send_money", `{"to":"bob","cents":500}`),
		p.request("guest", "bank/send_money", `{"to":"bob","cents":500}`),
	} {
		if r.Action == "mcp:tools/list" {
			r.Server = "bank"
		}
		if _, err := p.Decide(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	state, err := store.OpenState(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	tracker, err := session.New(session.Config{Store: state})
	if err != nil {
		t.Fatal(err)
	}
	v := p.version.Load()
	for i, r := range p.records(t) {
		op, ok := v.Catalog.Operation(r.What.Action)
		if !ok {
			t.Fatal(r.What.Action)
		}
		who := pdp.Caller{Subject: identity.Subject{Agent: r.Who.Subject.ID, Groups: r.Who.Groups, For: r.Who.For, Method: r.Who.Auth, Level: r.Who.Level, Scopes: r.Who.Scopes}}
		q, err := v.Request(who, snapshot(r), scored(r.Why.Risk), pdp.OriginsOf(r.Why.Origins), op, authz.Request{Action: r.What.Action, Server: r.What.Server, Input: r.Input, Gate: r.Who.Gate}, nil, r.Time)
		if err != nil {
			t.Fatal(err)
		}
		if a := v.Program.Authorize(q); a.Allow != (r.Effect == "allow") || r.Version != v.Digest() {
			t.Errorf("%s: decided %v again", r.What.Action, a.Allow)
		}
		if err := pdp.Replay(t.Context(), tracker, uint64(i), r); err != nil {
			t.Fatal(err)
		}
	}
	visit, err := tracker.Enter(t.Context(), "run-clerk", "clerk", p.now)
	if err != nil {
		t.Fatal(err)
	}
	defer visit.Leave()
	if s := visit.Snapshot; s.Calls != 2 || s.Denials != 1 || !slices.Equal(s.Labels, []string{"untrusted"}) {
		t.Errorf("%+v", s)
	}
}

func TestNewNeedsEveryPart(t *testing.T) {
	if _, err := pdp.New(pdp.Config{}); err == nil {
		t.Error("a PDP of nothing")
	}
}
