package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

const bankSchema = `
entity Group;
entity Agent in [Group] { clearance: Long };
entity Server;
entity McpResource in [Server];
action "read"; action "write" in ["read"];
action "bank/send" in ["write"] appliesTo { principal: [Agent], resource: [Server, McpResource],
  context: { input: { amount: Long, to: String, memo?: String }, labels: Set<String> } };
action "bank/list" in ["read"] appliesTo { principal: [Agent], resource: [Server],
  context: { input: { amount: Long, to: String, memo?: String }, labels: Set<String> } };
`

// mustCompile compiles policies written against bankSchema.
func mustCompile(t *testing.T, text string) *Program {
	t.Helper()
	set, err := policy.New(policy.Config{Schema: []byte(bankSchema), Policies: []policy.Source{{File: "bank.cedar", Text: []byte(text)}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	if p.Set() != set {
		t.Error("the program does not know its set")
	}
	return p
}

func bankRequest(amount int64, labels ...types.Value) *Request {
	alice, staff, bank := types.NewEntityUID("Agent", "alice"), types.NewEntityUID("Group", "staff"), types.NewEntityUID("Server", "bank")
	return &Request{
		Principal: alice, Action: types.NewEntityUID("Action", "bank/send"), Resource: bank,
		Context: types.NewRecord(types.RecordMap{
			"input":  types.NewRecord(types.RecordMap{"amount": types.Long(amount), "to": types.String("bob")}),
			"labels": types.NewSet(labels...),
		}),
		Entities: types.EntityMap{
			alice: {UID: alice, Parents: types.NewEntityUIDSet(staff), Attributes: types.NewRecord(types.RecordMap{"clearance": types.Long(2)})},
			bank:  {UID: bank},
		},
	}
}

func TestExplainSaysWhy(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `
@id("small") permit (principal in Group::"staff", action == Action::"bank/send", resource)
when { context.input.to like "b*" && context.input.amount <= 100 };
@id("clean") permit (principal, action in Action::"write", resource)
unless { context.input.amount > 5000 || context.labels.contains("untrusted") };
@id("broken") forbid (principal is Agent, action, resource)
when { context.input.amount + 9223372036854775807 > 0 && principal.clearance > 5 };
@id("auditors") permit (principal in Group::"auditors", action, resource);
@id("lists") permit (principal, action == Action::"bank/list", resource);
@id("file") permit (principal, action, resource == McpResource::"bank/x") when { context.input.amount == 0 };
@id("far") permit (principal in Group::"x", action == Action::"bank/list", resource);
`)
	type row struct {
		ID, Outcome, Text string
		Want              bool
		Values            []Value
	}
	explain := func(req *Request) (string, []row, Explanation) {
		e := p.Explain(req)
		var rows []row
		for _, c := range e.Considered {
			r := row{ID: c.Policy.ID, Outcome: string(c.Outcome)}
			if c.Failed != nil {
				r.Text, r.Want, r.Values = c.Failed.Text, c.Failed.Want, c.Failed.Values
			}
			if (c.Error != "") != (c.Outcome == Failed) {
				t.Errorf("%s: outcome %s with error %q", r.ID, c.Outcome, c.Error)
			}
			rows = append(rows, r)
		}
		return e.Answer.Code, rows, e
	}

	code, rows, e := explain(bankRequest(-200, types.String("untrusted")))
	if code != authz.ReasonPolicyAllow {
		t.Errorf("code %s", code)
	}
	want := []row{
		{ID: "small", Outcome: "satisfied"},
		{ID: "broken", Outcome: "unsatisfied", Text: "principal.clearance > 5", Want: true,
			Values: []Value{{"principal.clearance", "2"}}},
		{ID: "clean", Outcome: "unsatisfied", Text: `context.labels.contains("untrusted")`, Want: false,
			Values: []Value{{"context.labels", `["untrusted"]`}}},
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if len(e.Near) != 0 {
		t.Errorf("an allow has near permits: %v", e.Near)
	}

	code, rows, _ = explain(bankRequest(200))
	if code != authz.ReasonPolicyError {
		t.Errorf("code %s", code)
	}
	want = []row{
		{ID: "broken", Outcome: "error"},
		{ID: "clean", Outcome: "satisfied"},
		{ID: "small", Outcome: "unsatisfied", Text: "context.input.amount <= 100", Want: true,
			Values: []Value{{"context.input.amount", "200"}}},
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}

	req := bankRequest(-200, types.String("untrusted"))
	alice := req.Entities[req.Principal]
	alice.Parents = types.EntityUIDSet{}
	req.Entities[req.Principal] = alice
	code, _, e = explain(req)
	if code != authz.ReasonNoPermit {
		t.Errorf("code %s", code)
	}
	var near []string
	for _, n := range e.Near {
		near = append(near, fmt.Sprintf("%s: %s: %s, not %s, %s", n.Policy.ID, n.Part, n.Wants, n.Has, n.Outcome))
	}
	wantNear := []string{
		`file: resource: resource == McpResource::"bank/x", not Server::"bank", unsatisfied`,
		`auditors: principal: principal in Group::"auditors", not Agent::"alice", satisfied`,
		`small: principal: principal in Group::"staff", not Agent::"alice", satisfied`,
		`lists: action: action == Action::"bank/list", not Action::"bank/send", satisfied`,
	}
	if d := cmp.Diff(wantNear, near); d != "" {
		t.Errorf("near (-want +got)\n%s", d)
	}
}

func TestExplainShowsTheForbidAlone(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `
@id("yes") permit (principal, action, resource);
@id("no") forbid (principal, action, resource) when { !(context.input has memo) };
@id("near") permit (principal in Group::"other", action, resource);
`)
	e := p.Explain(bankRequest(1))
	if e.Answer.Code != authz.ReasonForbidden || len(e.Near) != 0 || e.Considered[0].Policy.ID != "no" {
		t.Errorf("got %+v", e)
	}
}

func TestExplainIsBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "@id(\"in%02d\") permit (principal, action, resource) when { context.input.to == %q };\n", i, strings.Repeat("ß", 400))
		fmt.Fprintf(&b, "@id(\"near%02d\") permit (principal is Agent in Group::\"g%d\", action in [Action::\"write\"], resource is Server);\n", i, i)
	}
	p := mustCompile(t, b.String())
	req := bankRequest(1)
	long := types.NewRecord(types.RecordMap{"amount": types.Long(1), "to": types.String(strings.Repeat("x", 1000))})
	req.Context = types.NewRecord(types.RecordMap{"input": long, "labels": types.Set{}})
	e := p.Explain(req)
	if len(e.Considered) != maxConsidered || e.Omitted != 50-maxConsidered || len(e.Near) != maxNear {
		t.Errorf("%d considered, %d omitted, %d near", len(e.Considered), e.Omitted, len(e.Near))
	}
	failed := e.Considered[0].Failed
	if len(failed.Text) > maxText+len("…") || !strings.HasSuffix(failed.Text, "…") || strings.ContainsRune(failed.Text, '�') {
		t.Errorf("text of %d bytes: %q", len(failed.Text), failed.Text)
	}
	if len(failed.Values) != 0 {
		t.Errorf("a long value is shown: %v", failed.Values)
	}
}

// TestExplainAgreesWithTheIndex compares the candidates of the index with a
// plain test of every scope, and the order of two explanations.
func TestExplainAgreesWithTheIndex(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed < 200; seed++ {
		w := newWorld(seed)
		p := compile(w.policies, w.schema)
		req := w.request()
		e := p.Explain(req)
		s := p.begin(req)
		parts := s.scopeParts()
		var want []string
		for _, pol := range w.policies {
			if !slices.ContainsFunc(parts, func(part scopePart) bool { return !part.fits(pol.AST) }) {
				want = append(want, pol.ID)
			}
		}
		p.end(s)
		var got []string
		for _, c := range e.Considered {
			got = append(got, c.Policy.ID)
			if c.Outcome == Unsatisfied && c.Failed == nil {
				t.Errorf("seed %d: %s has no failed test\n%s", seed, c.Policy.ID, w.text())
			}
		}
		slices.Sort(got)
		if len(want) != len(got)+e.Omitted || e.Omitted == 0 && !slices.Equal(want, got) {
			t.Errorf("seed %d: considered %v, want %v", seed, got, want)
		}
		// cedar-go's messages name the first fault in the order of a map.
		byID := cmp.Comparer(func(a, b *policy.Policy) bool { return a.ID == b.ID })
		message := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Error" || p.Last().String() == ".Message" }, cmp.Ignore())
		if d := cmp.Diff(e, p.Explain(req), byID, message); d != "" {
			t.Fatalf("seed %d: two explanations differ:\n%s", seed, d)
		}
	}
}
