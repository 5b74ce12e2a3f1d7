package pdp_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// directory is a PIP in memory that can be told to fail.
type directory struct {
	world  *engine.World
	remote types.EntityMap // looked up for each request
	fail   func(context.Context) error
	asked  int
}

func newDirectory(t testing.TB, world, remote types.EntityMap) *directory {
	t.Helper()
	w, err := engine.NewWorld(world)
	if err != nil {
		t.Fatal(err)
	}
	return &directory{world: w, remote: remote}
}

func (d *directory) View() pdp.EntityView { return d }
func (d *directory) World() *engine.World { return d.world }

func (d *directory) Lookup(t types.EntityType) bool {
	for uid := range d.remote {
		if uid.Type == t {
			return true
		}
	}
	return false
}

func (d *directory) Fetch(ctx context.Context, uids ...types.EntityUID) (types.EntityMap, error) {
	if len(d.remote) == 0 {
		return nil, nil
	}
	d.asked++
	if d.fail != nil {
		if err := d.fail(ctx); err != nil {
			return nil, err
		}
	}
	found := types.EntityMap{}
	for _, uid := range uids {
		if e, ok := d.remote[uid]; ok {
			found[uid] = e
		}
	}
	return found, nil
}

func (d *directory) List(_ context.Context, t types.EntityType, after string, limit int) ([]types.EntityUID, error) {
	var list []types.EntityUID
	for _, m := range []types.EntityMap{d.remote, worldMap(d.world)} {
		for uid := range m {
			if uid.Type == t && string(uid.ID) > after {
				list = append(list, uid)
			}
		}
	}
	slices.SortFunc(list, func(a, b types.EntityUID) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list[:min(limit, len(list))], nil
}

func worldMap(w *engine.World) types.EntityMap {
	m := types.EntityMap{}
	for uid, e := range w.All() {
		m[uid] = e
	}
	return m
}

func thing(typ, id string, attrs types.RecordMap, parents ...types.EntityUID) (types.EntityUID, types.Entity) {
	uid := types.NewEntityUID(types.EntityType(typ), types.String(id))
	return uid, types.Entity{UID: uid, Attributes: types.NewRecord(attrs), Parents: types.NewEntityUIDSet(parents...)}
}

func things(add ...func() (types.EntityUID, types.Entity)) types.EntityMap {
	m := types.EntityMap{}
	for _, f := range add {
		uid, e := f()
		m[uid] = e
	}
	return m
}

func a(typ, id string, attrs types.RecordMap, parents ...types.EntityUID) func() (types.EntityUID, types.Entity) {
	return func() (types.EntityUID, types.Entity) { return thing(typ, id, attrs, parents...) }
}

// fixture is the application of the AuthZEN certification scenario.
const fixtureDir = "../../test/authzen/fixture/"

func applicationVersion(t testing.TB, schema, cedar string) *pdp.Version {
	t.Helper()
	lock := &catalog.Lock{}
	if _, err := lock.Pin("bank", json.RawMessage(sendMoney)); err != nil {
		t.Fatal(err)
	}
	cat, err := catalog.New(catalog.Config{Lock: lock, Schema: []byte(schema)})
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.New(policy.Config{Policies: []policy.Source{{File: "policies/app.cedar", Text: []byte(cedar)}}, Schema: cat.Schema()})
	if err != nil {
		t.Fatal(err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return &pdp.Version{Catalog: cat, Program: program}
}

func fixture(t testing.TB) (schema, cedar string) {
	t.Helper()
	var texts []string
	for _, file := range []string{"schema.cedarschema", "policies/records.cedar"} {
		text, err := os.ReadFile(fixtureDir + file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts[0], texts[1]
}

// newRecords is a plane with the fixture, its entities held in memory.
func newRecords(t testing.TB, change func(*pdp.Config)) (*plane, *directory) {
	t.Helper()
	dir := newDirectory(t, things(
		a("Records::user", "alice", nil), a("Records::user", "bob", types.RecordMap{"role": types.String("admin")}),
		a("Records::record", "record-1", types.RecordMap{"status": types.String("active")}),
		a("Records::record", "record-2", types.RecordMap{"status": types.String("archived")}),
	), nil)
	schema, cedar := fixture(t)
	return withPEPs(t, dir, applicationVersion(t, schema, cedar), change), dir
}

// withPEPs is a plane with enforcement points: records speaks for users of the
// application, mute for nobody, relay passes credentials on, agents names
// agents.
func withPEPs(t testing.TB, dir *directory, v *pdp.Version, change func(*pdp.Config)) *plane {
	t.Helper()
	keys := map[string]string{}
	p := newPlane(t, func(c *pdp.Config, ic *identity.Config) {
		agent, agentHash := identity.NewKey()
		keys["clerk"] = agent
		var peps []identity.PEP
		for _, e := range []identity.PEP{
			{ID: "records", Application: "Records", Subjects: []string{"user"}, Asserts: []string{"user.role", "record.status"}},
			{ID: "shy", Application: "Records", Subjects: []string{"user"}},
			{ID: "mute", Application: "Records"},
			{ID: "relay", Relays: true},
			{ID: "agents", Subjects: []string{"Agent"}},
		} {
			key, hash := identity.NewKey()
			keys[e.ID], e.Key = key, hash
			peps = append(peps, e)
		}
		var err error
		ic.Agents, err = identity.NewRegistry([]identity.Agent{{ID: "clerk", Groups: []string{"clerks"}, Key: agentHash}}, peps...)
		if err != nil {
			t.Fatal(err)
		}
		if dir != nil {
			c.Entities = dir
		}
		if change != nil {
			change(c)
		}
	})
	p.keys = keys
	p.version.Store(v)
	return p
}

// asks is what an enforcement point asks.
func (p *plane) asks(name, subject, action, resource string) authz.Request {
	entity := func(s string) authz.Entity {
		t, id, _ := strings.Cut(s, "/")
		return authz.Entity{Type: t, ID: id}
	}
	return authz.Request{
		PEP:      authz.Credential{Kind: authz.CredentialBearer, Value: p.keys[name]},
		Asserted: &authz.Assertion{Subject: entity(subject)},
		Action:   action, Resource: entity(resource), Gate: "authzen",
	}
}

// What a PEP says fills what is not known, never overrides what is, and only
// what its entry lets it say is believed.
func TestAssertionsFillAndNeverOverride(t *testing.T) {
	for _, tt := range []struct {
		name            string
		pep             string
		subject, action string
		resource        string
		subjectProps    string
		resourceProps   string
		actionProps     string
		allow           bool
		code            string
	}{
		{name: "rule 1", subject: "user/alice", action: "read", resource: "record/record-1", allow: true, code: authz.ReasonPolicyAllow},
		{name: "rule 4", subject: "user/bob", action: "write", resource: "record/record-1", code: authz.ReasonNoPermit},
		{name: "stored attributes alone", subject: "user/bob", action: "write", resource: "record/record-2", allow: true, code: authz.ReasonPolicyAllow},
		{name: "asserted role fills", subject: "user/carol", action: "write", resource: "record/record-2", subjectProps: `{"role":"admin"}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "asserted status fills", subject: "user/bob", action: "write", resource: "record/record-9", resourceProps: `{"status":"archived"}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "stored role wins", subject: "user/bob", action: "write", resource: "record/record-2", subjectProps: `{"role":"nobody"}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "stored status wins", subject: "user/alice", action: "write", resource: "record/record-2", resourceProps: `{"status":"active"}`, code: authz.ReasonForbidden},
		{name: "may not supply the role", pep: "shy", subject: "user/carol", action: "write", resource: "record/record-2", subjectProps: `{"role":"admin"}`, code: authz.ReasonAssertion},
		{name: "may not supply the status", pep: "shy", subject: "user/alice", action: "read", resource: "record/record-9", resourceProps: `{"status":"archived"}`, code: authz.ReasonAssertion},
		{name: "may repeat what is stored", pep: "shy", subject: "user/bob", action: "read", resource: "record/record-1", subjectProps: `{"role":"admin"}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "what no policy can see is nobody's business", pep: "shy", subject: "user/alice", action: "read", resource: "record/record-1", subjectProps: `{"shoe":42}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "wrong type of property", subject: "user/carol", action: "read", resource: "record/record-1", subjectProps: `{"role":7}`, code: authz.ReasonInputInvalid},
		{name: "action property", subject: "user/alice", action: "delete", resource: "record/record-1", actionProps: `{"soft":true}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "action property says no", subject: "user/alice", action: "delete", resource: "record/record-1", actionProps: `{"soft":false}`, code: authz.ReasonNoPermit},
		{name: "unknown action", subject: "user/alice", action: "shred", resource: "record/record-1", code: authz.ReasonToolUnknown},
		{name: "unknown resource type", subject: "user/alice", action: "read", resource: "ship/1", code: authz.ReasonInputInvalid},
		{name: "resource of another kind", subject: "user/alice", action: "read", resource: "user/bob", code: authz.ReasonInputInvalid},
		{name: "subject of another type", subject: "Agent/clerk", action: "read", resource: "record/record-1", code: authz.ReasonAssertion},
		{name: "a PEP that speaks for nobody", pep: "mute", subject: "user/alice", action: "read", resource: "record/record-1", code: authz.ReasonAssertion},
		{name: "an unknown PEP", pep: "stranger", subject: "user/alice", action: "read", resource: "record/record-1", code: authz.ReasonUnauthenticated},
		{name: "an agent is no PEP", pep: "clerk", subject: "user/alice", action: "read", resource: "record/record-1", code: authz.ReasonUnauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, _ := newRecords(t, nil)
			if tt.pep == "" {
				tt.pep = "records"
			}
			req := p.asks(tt.pep, tt.subject, tt.action, tt.resource)
			req.Asserted.SubjectProperties, req.Asserted.ResourceProperties, req.Asserted.ActionProperties = raw(tt.subjectProps), raw(tt.resourceProps), raw(tt.actionProps)
			d, err := p.Decide(t.Context(), req)
			if err != nil || d.Allow != tt.allow || d.Code() != tt.code {
				t.Errorf("%+v, %v", d, err)
			}
			r := p.records(t)[0]
			if (r.Effect == "allow") != tt.allow || r.Why.Reasons[0].Code != tt.code {
				t.Errorf("recorded %+v", r)
			}
			if tt.allow && (r.Who.Subject != authz.Entity{Type: "Records::user", ID: req.Asserted.Subject.ID} || r.Who.Auth != identity.MethodAsserted) {
				t.Errorf("who: %+v", r.Who)
			}
		})
	}
}

func raw(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// A gate of this process names nobody, and one of another process proves
// itself before the agent.
func TestWhoMayNameWhom(t *testing.T) {
	v := version(t, policies)
	for _, tt := range []struct {
		name   string
		change func(*plane, *authz.Request)
		allow  bool
		code   string
	}{
		{name: "relayed credential", change: func(p *plane, r *authz.Request) {}, allow: true, code: authz.ReasonPolicyAllow},
		{name: "nothing shown by the gate", change: func(p *plane, r *authz.Request) { r.PEP.Value = "" }, code: authz.ReasonUnauthenticated},
		{name: "a PEP that may not relay", change: func(p *plane, r *authz.Request) { r.PEP.Value = p.keys["records"] }, code: authz.ReasonAssertion},
		{name: "relayed local agent", change: func(p *plane, r *authz.Request) {
			r.Credential = authz.Credential{Kind: authz.CredentialLocal, Value: "clerk"}
		}, code: authz.ReasonAssertion},
		{name: "no agent behind the gate", change: func(p *plane, r *authz.Request) { r.Credential = authz.Credential{} }, code: authz.ReasonUnauthenticated},
		{name: "own gate names a subject", change: func(p *plane, r *authz.Request) {
			r.PEP = authz.Credential{}
			r.Asserted = &authz.Assertion{Subject: authz.Entity{Type: "Agent", ID: "clerk"}}
		}, code: authz.ReasonAssertion},
		{name: "named agent", change: func(p *plane, r *authz.Request) {
			r.PEP.Value, r.Credential = p.keys["agents"], authz.Credential{}
			r.Asserted = &authz.Assertion{Subject: authz.Entity{Type: "Agent", ID: "clerk"}}
		}, allow: true, code: authz.ReasonPolicyAllow},
		{name: "named nonsense", change: func(p *plane, r *authz.Request) {
			r.PEP.Value = p.keys["agents"]
			r.Asserted = &authz.Assertion{Subject: authz.Entity{Type: "Agent", ID: "a/b"}}
		}, code: authz.ReasonUnauthenticated},
		{name: "another agent's session", change: func(p *plane, r *authz.Request) {
			other := p.asks("agents", "Agent/other", "bank/send_money", "")
			other.Session = "run"
			if _, err := p.Decide(t.Context(), other); err != nil {
				t.Error(err)
			}
			r.Session = "run"
		}, code: authz.ReasonSessionMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := withPEPs(t, nil, v, nil)
			req := p.request("clerk", "bank/send_money", `{"to":"bob","cents":5}`)
			req.PEP = authz.Credential{Kind: authz.CredentialBearer, Value: p.keys["relay"]}
			tt.change(p, &req)
			d, err := p.Decide(t.Context(), req)
			if err != nil || d.Allow != tt.allow || d.Code() != tt.code {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// The state of a session binds what its subject's enforcement points ask too.
func TestSessionsOfAssertedSubjects(t *testing.T) {
	p, _ := newRecords(t, nil)
	for range 2 {
		if _, err := p.Decide(t.Context(), p.asks("records", "user/alice", "read", "record/record-1")); err != nil {
			t.Fatal(err)
		}
	}
	rs := p.records(t)
	if rs[1].Why.Session.Calls != 1 || rs[1].Who.Session != "agent/Records::user/alice" {
		t.Errorf("%+v %+v", rs[1].Who, rs[1].Why.Session)
	}
}

// Entities that are looked up are asked for by each request; a source that
// fails, hangs or knows nothing denies.
func TestLookedUpEntities(t *testing.T) {
	schema, cedar := fixture(t)
	remote := things(
		a("Records::user", "bob", types.RecordMap{"role": types.String("admin")}),
		a("Records::record", "record-2", types.RecordMap{"status": types.String("archived")}),
	)
	for _, tt := range []struct {
		name  string
		fail  func(context.Context) error
		who   string
		allow bool
		code  string
		fault bool
	}{
		{name: "found", who: "user/bob", allow: true, code: authz.ReasonPolicyAllow},
		{name: "not found", who: "user/mallory", code: authz.ReasonForbidden},
		{name: "down", who: "user/bob", fail: func(context.Context) error { return errors.New("no database") }, code: authz.ReasonEntitiesDown, fault: true},
		{name: "hangs", who: "user/bob", fail: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, code: authz.ReasonDeadline, fault: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := newDirectory(t, nil, remote)
			dir.fail = tt.fail
			p := withPEPs(t, dir, applicationVersion(t, schema, cedar), nil)
			began := time.Now()
			d, err := p.Decide(t.Context(), p.asks("records", tt.who, "write", "record/record-2"))
			if d.Allow != tt.allow || d.Code() != tt.code || (err != nil) != tt.fault || time.Since(began) > 3*time.Second {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// More than can be decided at once is refused at once, and counted on the
// record.
func TestTooManyAreRefusedAndCounted(t *testing.T) {
	schema, cedar := fixture(t)
	dir := newDirectory(t, nil, things(
		a("Records::user", "bob", types.RecordMap{"role": types.String("admin")}),
		a("Records::record", "record-2", types.RecordMap{"status": types.String("archived")}),
	))
	entered, leave := make(chan struct{}), make(chan struct{})
	dir.fail = func(context.Context) error { entered <- struct{}{}; <-leave; return nil }
	p := withPEPs(t, dir, applicationVersion(t, schema, cedar), func(c *pdp.Config) { c.MaxInFlight, c.Deadline = 1, time.Minute })
	req := p.asks("records", "user/bob", "write", "record/record-2")
	first := make(chan authz.Decision, 1)
	go func() {
		d, err := p.Decide(context.WithoutCancel(t.Context()), req)
		if err != nil {
			t.Error(err)
		}
		first <- d
	}()
	select {
	case <-entered:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is looked up")
	}
	for range 3 {
		if d, err := p.Decide(t.Context(), req); d.Allow || d.Code() != authz.ReasonOverloaded || err != nil {
			t.Errorf("%+v, %v", d, err)
		}
	}
	close(leave)
	if d := <-first; !d.Allow {
		t.Errorf("the one that had room: %+v", d)
	}
	if err := p.RecordRefusals(); err != nil {
		t.Fatal(err)
	}
	dir.fail = nil
	if _, err := p.Decide(t.Context(), req); err != nil { // flushes the queue, and there is room again
		t.Fatal(err)
	}
	hits, err := audit.Search(t.Context(), p.log, audit.Query{Kind: audit.KindSystem, Limit: 20})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(hits, func(h audit.Hit) bool { return h.Record.Effect == "refused" })
	if at < 0 || !strings.Contains(string(hits[at].Record.System), `"gates":{"authzen":3}`) {
		t.Errorf("refusals are not on the record: %+v", hits)
	}
}

// A search finds exactly what would be allowed, page by page.
func TestSearchFindsWhatWouldBeAllowed(t *testing.T) {
	p, _ := newRecords(t, nil)
	all := func(req authz.Request, want pep.Part, limit int) []string {
		t.Helper()
		var ids []string
		q := pep.Query{Want: want, Limit: limit}
		for {
			page, err := p.Search(t.Context(), req, q)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, page.IDs...)
			if !page.More {
				return ids
			}
			if len(page.IDs) != limit {
				t.Fatalf("a page of %d with more to come", len(page.IDs))
			}
			q.After = page.IDs[len(page.IDs)-1]
		}
	}
	for _, tt := range []struct {
		name string
		req  authz.Request
		part pep.Part
		want []string
	}{
		{"S1", p.asks("records", "user/", "read", "record/record-1"), pep.PartSubject, []string{"alice", "bob"}},
		{"S2", p.asks("records", "user/alice", "read", "record/"), pep.PartResource, []string{"record-1"}},
		{"S3", p.asks("records", "user/alice", "", "record/record-1"), pep.PartAction, []string{"read", "write"}},
		{"S4", p.asks("records", "user/", "write", "record/record-2"), pep.PartSubject, []string{"bob"}},
		{"S5", p.asks("records", "user/bob", "write", "record/"), pep.PartResource, []string{"record-2"}},
		{"S6", p.asks("records", "user/bob", "", "record/record-2"), pep.PartAction, []string{"write"}},
		{"nobody", p.asks("records", "user/nobody", "", "record/record-1"), pep.PartAction, nil},
		{"unknown type", p.asks("records", "spaceship/", "read", "record/record-1"), pep.PartSubject, nil},
		{"a PEP that speaks for nobody", p.asks("mute", "user/", "read", "record/record-1"), pep.PartSubject, nil},
	} {
		for _, limit := range []int{1, 2, 100} {
			if diff := cmp.Diff(tt.want, all(tt.req, tt.part, limit)); diff != "" {
				t.Errorf("%s by %d: %s", tt.name, limit, diff)
			}
		}
	}
	if _, err := p.Search(t.Context(), p.asks("stranger", "user/", "read", "record/record-1"), pep.Query{Want: pep.PartSubject, Limit: 1}); !errors.Is(err, pep.ErrRefused) {
		t.Errorf("a stranger's search: %v", err)
	}
	rs := p.records(t)
	if len(rs) == 0 || rs[0].What.Action != "search:subject" || rs[0].Who.Subject.ID != "records" || rs[0].Why.Released {
		t.Errorf("the search is not on the record: %+v", rs)
	}
}

// A denial says which facts would turn it into an allow, and with them policy
// does allow.
func TestDenialSaysWhatWouldChangeIt(t *testing.T) {
	v := version(t, policies+`
@id("large-sums-with-approval")
permit (principal in Group::"auditors", action == Action::"bank/send_money", resource)
when { context.approvals.contains("cfo") };
`)
	p := withPEPs(t, nil, v, func(c *pdp.Config) { c.Elevations = []string{"auditors", "clerks"} })
	req := p.asks("agents", "Agent/stranger", "bank/send_money", "")
	req.Input = json.RawMessage(`{"to":"bob","cents":5}`)
	d, err := p.Decide(t.Context(), req)
	if err != nil || d.Allow {
		t.Fatalf("%+v, %v", d, err)
	}
	want := []authz.Remedy{
		{{Kind: authz.FactElevation, Name: "clerks"}},
		{{Kind: authz.FactApproval, Name: "cfo"}, {Kind: authz.FactElevation, Name: "auditors"}},
	}
	if diff := cmp.Diff(want, d.Remedies); diff != "" {
		t.Error(diff)
	}
	req.Input = json.RawMessage(`{"to":"bob","cents":99999}`)
	if d, err = p.Decide(t.Context(), req); err != nil || d.Allow || d.Remedies != nil {
		t.Errorf("nothing helps against a forbid without exception: %+v, %v", d, err)
	}
}

// Only a gate that relays may report what became of an action.
func TestReportsOfOthers(t *testing.T) {
	p := withPEPs(t, nil, version(t, policies), nil)
	out := authz.Outcome{Decision: "d", Status: authz.OutcomeSuccess}
	for name, ok := range map[string]bool{"relay": true, "agents": false, "stranger": false} {
		err := p.ReportFrom(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: p.keys[name]}, out)
		if (err == nil) != ok || (!ok && !errors.Is(err, pep.ErrRefused)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
