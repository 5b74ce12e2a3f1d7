package engine

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"weak"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

var remedyCases = flag.Int("remedy.cases", 2_000, "random denials whose remedies TestRemediesAreAllLeastSets compares with brute force")

// unchecked compiles policies without a schema, so that they may fail.
func unchecked(t interface{ Fatalf(string, ...any) }, text string) *Program {
	parsed, err := cedar.NewPolicyListFromBytes("p.cedar", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var ps []*policy.Policy
	for i, p := range parsed {
		effect := policy.Permit
		if p.Effect() == cedar.Forbid {
			effect = policy.Forbid
		}
		ps = append(ps, &policy.Policy{ID: fmt.Sprintf("p%03d", i), Effect: effect, AST: (*ast.Policy)(p.AST())})
	}
	return compile(ps, nil)
}

func group(name string) types.EntityUID { return types.NewEntityUID("Group", types.String(name)) }

// deletion is an agent's request to delete something of acme's.
func deletion(context types.RecordMap) *Request {
	bot, db := types.NewEntityUID("Agent", "bot"), types.NewEntityUID("Server", "db")
	return &Request{
		Principal: bot, Action: types.NewEntityUID("Action", "delete"), Resource: db,
		Context: types.NewRecord(context),
		Entities: types.EntityMap{
			bot:             {UID: bot, Parents: types.NewEntityUIDSet(group("bots"))},
			group("oncall"): {UID: group("oncall"), Parents: types.NewEntityUIDSet(group("staff"))},
			db:              {UID: db, Attributes: types.NewRecord(types.RecordMap{"owner": types.String("acme"), "level": types.Long(2)})},
		},
	}
}

func auth(level, age types.Long) types.RecordMap {
	return types.RecordMap{
		"approvals": types.NewSet(),
		"auth":      types.NewRecord(types.RecordMap{"level": level, "age": age, "method": types.String("key")}),
	}
}

func TestRemedies(t *testing.T) {
	t.Parallel()
	approval := func(role string) Fact { return Fact{Kind: Approval, Name: role} }
	stepUp := func(n int64) Fact { return Fact{Kind: StepUp, Level: n} }
	fresh := func(n int64) Fact { return Fact{Kind: FreshAuth, Level: n} }
	scope := func(name string) Fact { return Fact{Kind: Scope, Name: name} }
	scoped := func(names ...types.Value) types.RecordMap {
		c := auth(1, 3600)
		a := c["auth"].(types.Record).Map()
		a["scopes"] = types.NewSet(names...)
		c["auth"] = types.NewRecord(a)
		return c
	}
	elevation := func(g string) Fact { return Fact{Kind: Elevation, Name: group(g).String()} }
	const permit = "permit (principal, action, resource);\n"
	for _, tt := range []struct {
		name, policies string
		context        types.RecordMap
		elevations     []string
		want           []Remedy
	}{
		{name: "allowed", policies: permit},
		{name: "no policy"},
		{name: "an approval that is missing", policies: permit +
			`forbid (principal, action, resource) unless { context.approvals.contains("owner") };`,
			want: []Remedy{{approval("owner")}}},
		{name: "two ways", policies: permit +
			`forbid (principal, action, resource) unless { context.approvals.contains("owner") || context.approvals.containsAll(["a", "b"]) };`,
			want: []Remedy{{approval("owner")}, {approval("a"), approval("b")}}},
		{name: "a set with anything else in it is not it", policies: `permit (principal, action, resource) when { context.approvals == ["a", "b"] };`,
			want: []Remedy{{approval("a"), approval("b")}}},
		{name: "sets in a set", policies: `permit (principal, action, resource) when { [["a"], ["b", "c"]].contains(context.approvals) };`,
			want: []Remedy{{approval("a")}, {approval("b"), approval("c")}}},
		{name: "a role named by the resource", policies: `permit (principal, action, resource) when { context.approvals.contains(resource.owner) };`,
			want: []Remedy{{approval("acme")}}},
		{name: "a role that depends on another fact", policies: `permit (principal, action, resource)
when { context.approvals.contains(if context.auth.level >= 2 then "a" else resource.nobody) };`,
			want: []Remedy{{approval("a"), stepUp(2)}}},
		{name: "a role beside one that does not exist", policies: `permit (principal, action, resource)
when { context.approvals.contains("a") || ["b", resource.nobody].containsAny(context.approvals) }
when { context.approvals.contains("b") };`,
			want: []Remedy{{approval("a"), approval("b")}}},
		{name: "a role that nothing names", policies: `permit (principal, action, resource) when { context.approvals.contains(resource.nobody) };`},
		{name: "approvals that are not a set", policies: `permit (principal, action, resource) when { context.approvals.contains("a") };`,
			context: types.RecordMap{"approvals": types.String("a")}},
		{name: "no approvals at all", policies: `permit (principal, action, resource) when { context.approvals.contains("a") };`,
			context: types.RecordMap{}, want: []Remedy{{approval("a")}}},
		{name: "an approval that forbids", policies: `
permit (principal, action, resource) when { context.approvals.containsAny(["a", "b"]) };
forbid (principal, action, resource) when { context.approvals.contains("a") } unless { context.approvals.contains("c") };`,
			want: []Remedy{{approval("b")}, {approval("a"), approval("c")}}},
		{name: "at least", policies: `permit (principal, action, resource) when { context.auth.level >= 3 };`, want: []Remedy{{stepUp(3)}}},
		{name: "above", policies: `permit (principal, action, resource) when { 3 < context.auth.level };`, want: []Remedy{{stepUp(4)}}},
		{name: "not another", policies: `permit (principal, action, resource) when { context.auth.level != 1 };`, want: []Remedy{{stepUp(2)}}},
		{name: "one of", policies: `permit (principal, action, resource) when { [3, 5].contains(context.auth.level) };`, want: []Remedy{{stepUp(3)}}},
		{name: "a level of the resource's", policies: `permit (principal, action, resource) when { context.auth.level > resource.level };`, want: []Remedy{{stepUp(3)}}},
		{name: "a level nobody has", policies: `permit (principal, action, resource) when { context.auth.level > 9223372036854775807 };`},
		{name: "nobody steps down", policies: `permit (principal, action, resource) when { context.auth.level < 1 };`},
		{name: "higher is not better", policies: `permit (principal, action, resource) when { context.auth.level >= 3 && context.approvals.contains("a") || context.auth.level >= 5 };`,
			want: []Remedy{{stepUp(5)}, {approval("a"), stepUp(3)}}},
		{name: "not older than", policies: `permit (principal, action, resource) when { context.auth.age <= 300 };`, want: []Remedy{{fresh(300)}}},
		{name: "younger than", policies: `permit (principal, action, resource) when { 300 > context.auth.age };`, want: []Remedy{{fresh(299)}}},
		{name: "younger than nothing", policies: `permit (principal, action, resource) when { context.auth.age < 0 };`},
		{name: "just now", policies: `permit (principal, action, resource) when { context.auth.age < 1 };`, want: []Remedy{{fresh(0)}}},
		{name: "older than is no remedy", policies: `permit (principal, action, resource) when { context.auth.age > 3600 };`},
		{name: "no authentication", policies: `permit (principal, action, resource) when { context.auth.level >= 2 && context.auth.age < 60 };`,
			context: types.RecordMap{}, want: []Remedy{{fresh(59), stepUp(2)}}},
		{name: "authentication that is no record", policies: `permit (principal, action, resource) when { context.auth.level >= 2 };`,
			context: types.RecordMap{"auth": types.Long(2)}},
		{name: "the rest of the authentication stays", policies: `permit (principal, action, resource) when { context.auth.level >= 2 && context.auth.method == "key" && context.auth.age == 3600 };`,
			want: []Remedy{{stepUp(2)}}},
		{name: "a scope", policies: `permit (principal, action, resource) when { context.auth.scopes.contains("write") };`, want: []Remedy{{scope("write")}}},
		{name: "scopes, and strength", policies: permit + `forbid (principal, action, resource) unless { context.auth.level >= 2 && context.auth.scopes.containsAll(["b", "a"]) };`,
			context: scoped(types.String("a")), want: []Remedy{{scope("b"), stepUp(2)}}},
		{name: "a scope or an approval", policies: `permit (principal, action, resource) when { context.auth.scopes.contains("a") || context.approvals.contains("x") };`,
			context: scoped(), want: []Remedy{{approval("x")}, {scope("a")}}},
		{name: "a scope too many", policies: permit + `forbid (principal, action, resource) when { context.auth.scopes.contains("a") };`, context: scoped(types.String("a"))},
		{name: "scopes that are not a set", policies: `permit (principal, action, resource) when { context.auth.scopes.contains("a") };`,
			context: types.RecordMap{"auth": types.NewRecord(types.RecordMap{"scopes": types.Long(1)})}},
		{name: "scopes of what is no record", policies: `permit (principal, action, resource) when { context.auth.scopes.contains("a") };`,
			context: types.RecordMap{"auth": types.Long(1)}},
		{name: "an elevation nobody offers", policies: `permit (principal in Group::"staff", action, resource);`},
		{name: "an elevation", policies: `permit (principal in Group::"staff", action, resource);`,
			elevations: []string{"staff", "oncall", "other", "bots", "staff"}, want: []Remedy{{elevation("oncall")}, {elevation("staff")}}},
		{name: "an elevation that a condition asks for", policies: permit + `forbid (principal, action, resource) unless { principal in Group::"staff" };`,
			elevations: []string{"staff", "other"}, want: []Remedy{{elevation("staff")}}},
		{name: "an elevation that brings a policy that brings an approval", policies: `permit (principal in Group::"staff", action, resource) when { context.approvals.contains("a") };`,
			elevations: []string{"staff"}, want: []Remedy{{approval("a"), elevation("staff")}}},
		{name: "an elevation that forbids", policies: permit + `
forbid (principal in Group::"staff", action, resource);
forbid (principal, action, resource) unless { context.approvals.contains("a") || principal in Group::"oncall" };`,
			elevations: []string{"oncall"}, want: []Remedy{{approval("a")}}},
		{name: "all of it", policies: `
permit (principal in Group::"oncall", action, resource) when { context.approvals.contains("a") && context.auth.level >= 2 && context.auth.age <= 60 };`,
			elevations: []string{"oncall"}, want: []Remedy{{approval("a"), elevation("oncall"), fresh(60), stepUp(2)}}},
		{name: "an error that a fact removes", policies: permit + `permit (principal, action, resource) when { context.approvals.contains("a") || context.nothing };`,
			want: []Remedy{{approval("a")}}},
		{name: "an error that no fact removes", policies: permit + `permit (principal, action, resource) when { context.nothing || context.approvals.contains("a") };`},
		{name: "a forbid that no fact removes", policies: permit + `
forbid (principal, action == Action::"delete", resource);
forbid (principal, action, resource) unless { context.approvals.contains("a") };`},
		{name: "policies of other actions are not asked", policies: `permit (principal, action == Action::"read", resource) when { context.approvals.contains("a") };`},
		{name: "the context as a whole", policies: `permit (principal, action, resource) when { context.approvals.contains("a") && context != {a: 1} };`,
			want: []Remedy{{approval("a")}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := unchecked(t, tt.policies)
			req := deletion(tt.context)
			if tt.context == nil {
				req = deletion(auth(1, 3600))
			}
			var o RemedyOptions
			for _, g := range tt.elevations {
				o.Elevations = append(o.Elevations, group(g))
			}
			got := p.Remedies(req, o)
			if d := gocmp.Diff(tt.want, got.Sets); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if !got.Complete {
				t.Error("the search did not end")
			}
		})
	}
}

// Most denials have no remedy, and must not pay for a search.
func TestNoRemedyCostsNoSearch(t *testing.T) {
	t.Parallel()
	for name, policies := range map[string]string{
		"nothing asks for a fact": `permit (principal, action, resource) when { context.x == 1 } when { context.input has y };
forbid (principal, action, resource) when { context.session.risk > 3 };`,
		"a forbid that no fact changes": `forbid (principal, action, resource) when { context.x == 0 };
permit (principal, action, resource) when { context.approvals.contains("a") };`,
		"an error that no fact changes": `permit (principal, action, resource) when { context.y == 0 };
permit (principal, action, resource) when { context.approvals.contains("a") };`,
		"groups that nothing asks for": `permit (principal in Group::"x", action, resource);`,
		"what has been given": `permit (principal, action, resource)
when { context.approvals.contains("given") && context.auth.level >= 1 && context.auth.age <= 1 && context.x == 1 };`,
	} {
		context := auth(1, 1)
		context["x"], context["input"] = types.Long(0), types.NewRecord(nil)
		context["approvals"] = types.NewSet(types.String("given"))
		context["session"] = types.NewRecord(types.RecordMap{"risk": types.Long(0)})
		got := unchecked(t, policies).Remedies(deletion(context), RemedyOptions{Elevations: []types.EntityUID{group("staff")}})
		if d := gocmp.Diff(Remedies{Complete: true}, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

func TestTheBudgetEndsTheSearch(t *testing.T) {
	t.Parallel()
	p := unchecked(t, `permit (principal, action, resource) when { context.approvals.contains("a") || context.approvals.containsAll(["c", "d"]) || context.approvals.containsAll(["b", "c", "d"]) };`)
	for _, tt := range []struct {
		max, budget, sets, evaluations int
		complete                       bool
	}{
		// a, b, c and d alone; without a then bc, bd and cd; nothing is left to
		// try with three.
		{budget: 1, sets: 1, evaluations: 1},
		{budget: 6, sets: 1, evaluations: 6},
		{budget: 7, sets: 2, evaluations: 7, complete: true},
		{sets: 2, evaluations: 7, complete: true},
		{max: 1, sets: 1, evaluations: 4, complete: true},
	} {
		got := p.Remedies(deletion(auth(1, 1)), RemedyOptions{Budget: tt.budget, MaxFacts: tt.max})
		if len(got.Sets) != tt.sets || got.Evaluations != tt.evaluations || got.Complete != tt.complete {
			t.Errorf("budget %d, at most %d facts: got %+v", tt.budget, tt.max, got)
		}
	}
}

// Many facts must not make the search long between two evaluations.
func TestManyFacts(t *testing.T) {
	t.Parallel()
	var roles []string
	for i := range 200 {
		roles = append(roles, fmt.Sprintf("%q", fmt.Sprintf("r%d", i)))
	}
	p := unchecked(t, `permit (principal, action, resource) when { context.approvals.containsAny([`+strings.Join(roles, ",")+`]) };`)
	got := p.Remedies(deletion(auth(1, 1)), RemedyOptions{})
	if len(got.Sets) != 200 || !got.Complete || got.Evaluations != 200 {
		t.Errorf("%d sets after %d evaluations, complete: %v", len(got.Sets), got.Evaluations, got.Complete)
	}
}

// A request is what it was after the search, whose requests share with it.
func TestRemediesLeaveTheRequestAlone(t *testing.T) {
	t.Parallel()
	p := unchecked(t, `permit (principal in Group::"x", action, resource) when { context.approvals.contains("a") && context.auth.level > 1 };`)
	req, same := deletion(auth(1, 1)), deletion(auth(1, 1))
	if got := p.Remedies(req, RemedyOptions{Elevations: []types.EntityUID{group("x")}}); len(got.Sets) != 1 {
		t.Fatalf("got %+v", got)
	}
	if !req.Context.Equal(same.Context) || !maps.EqualFunc(req.Entities, same.Entities, types.Entity.Equal) {
		t.Errorf("the request became %+v", req)
	}
}

// However a request holds its context and entities, it is the same request.
func TestRemediesOfFieldsAndAWorld(t *testing.T) {
	t.Parallel()
	p := unchecked(t, `permit (principal in Group::"staff", action, resource)
when { context.approvals.contains(resource.owner) && context.auth.level >= 2 && context.auth.method == "key" };`)
	o := RemedyOptions{Elevations: []types.EntityUID{group("oncall")}}
	plain := deletion(auth(1, 1))
	want := p.Remedies(plain, o)
	world, err := NewWorld(plain.Entities)
	if err != nil {
		t.Fatal(err)
	}
	other := *plain
	other.Context, other.Entities, other.World = types.Record{}, nil, world
	other.Fields = Fields{Strings("approvals", nil), Nested("auth", Fields{Long("level", 1), Long("age", 1), String("method", "key")})}
	if d := gocmp.Diff(want, p.Remedies(&other, o)); d != "" || len(want.Sets) != 1 || len(want.Sets[0]) != 3 {
		t.Errorf("of %+v (-want +got)\n%s", want, d)
	}
	all := Unknown{Context: paths("auth.level")}
	if d := gocmp.Diff(string(p.Partial(plain, all).Reads.AppendKey(nil)), string(p.Partial(&other, all).Reads.AppendKey(nil))); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, path := range []ReadPath{{Kind: ReadAttribute, Context: true}, {Kind: ReadHas, Context: true, Path: []types.String{"auth", "level"}}, {Kind: ReadAncestors, Entity: group("oncall")}} {
		a, okA := p.Key(plain, Unknown{}, []ReadPath{path}, nil)
		b, okB := p.Key(&other, Unknown{}, []ReadPath{path}, nil)
		if d := gocmp.Diff(string(a), string(b)); d != "" || !okA || !okB {
			t.Errorf("%+v (-want +got)\n%s", path, d)
		}
	}
}

// TestRemediesAreAllLeastSets compares with trying everything that could be
// tried, by other means: cedar.Authorize, and facts that the test knows because
// it made the policies.
func TestRemediesAreAllLeastSets(t *testing.T) {
	t.Parallel()
	n := *remedyCases
	if testing.Short() {
		n = min(n, 500)
	}
	tally := map[string]int{}
	for tally["cases"] < n {
		rapid.Check(t, func(t *rapid.T) {
			w := drawRemedyWorld(t)
			p := unchecked(t, w.text())
			for range 5 {
				req, o := w.request(t), w.options(t)
				want := w.bruteForce(req, o)
				got := p.Remedies(req, o)
				slices.SortFunc(want, compareRemedies)
				if !slices.IsSortedFunc(got.Sets, func(a, b Remedy) int { return len(a) - len(b) }) {
					t.Errorf("not the smallest first: %v", got.Sets)
				}
				for _, r := range got.Sets {
					if !slices.IsSortedFunc(r, compareFacts) {
						t.Errorf("not sorted: %v", r)
					}
				}
				sorted := slices.SortedFunc(slices.Values(got.Sets), compareRemedies)
				if d := gocmp.Diff(want, sorted); d != "" || !got.Complete {
					t.Fatalf("%v %v\n%s\ncomplete: %v (-brute force +engine)\n%s", req, o, w.text(), got.Complete, d)
				}
				if w.allows(req, trial{age: -1}) {
					tally["allowed"]++
					continue
				}
				tally["cases"]++
				tally[fmt.Sprintf("%d remedies", min(len(want), 3))]++
				for _, r := range want {
					tally[fmt.Sprintf("of %d facts", len(r))]++
					for _, f := range r {
						tally[string(f.Kind)]++
					}
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	for _, want := range []string{"0 remedies", "1 remedies", "2 remedies", "3 remedies", "of 1 facts", "of 2 facts", "of 3 facts",
		string(Approval), string(Elevation), string(FreshAuth), string(StepUp)} {
		if tally[want] < tally["cases"]/1000 {
			t.Errorf("only %d of %d cases: %s", tally[want], tally["cases"], want)
		}
	}
	t.Log(tally)
}

func compareRemedies(a, b Remedy) int { return slices.CompareFunc(a, b, compareFacts) }

// BenchmarkRemedies tells what a denial costs more than its decision.
func BenchmarkRemedies(b *testing.B) {
	const others = `
permit (principal in Group::"bots", action == Action::"read", resource);
permit (principal in Group::"bots", action, resource) when { context.auth.method == "other" };
forbid (principal, action, resource) when { resource.owner == "nobody" };
`
	for _, bb := range []struct {
		name, policies string
		evaluations    int
	}{
		{"nothing can help", others, 0},
		{"one fact", others + `permit (principal, action, resource) when { context.approvals.contains("a") };`, 1},
		{"three facts", others + `permit (principal, action, resource) when { context.approvals.contains("a") && context.auth.level >= 2 && context.auth.age < 60 };`, 7},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p, req := unchecked(b, bb.policies), deletion(auth(1, 3600))
			b.ReportAllocs()
			for b.Loop() {
				if got := p.Remedies(req, RemedyOptions{}); got.Evaluations != bb.evaluations {
					b.Fatalf("got %+v", got)
				}
			}
		})
	}
}

// Two requests may find out at once what policies ask for.
func TestRemediesAtOnce(t *testing.T) {
	t.Parallel()
	p := unchecked(t, `permit (principal in Group::"x", action, resource) when { context.approvals.contains("a") && context.auth.level > 1 };`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := p.Remedies(deletion(auth(1, 1)), RemedyOptions{Elevations: []types.EntityUID{group("x")}}); len(got.Sets) != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
	wg.Wait()
}

// What was found out about a program's policies must not outlive it.
func TestFactTablesGoWithTheirPrograms(t *testing.T) {
	t.Parallel()
	use := func() weak.Pointer[Program] {
		p := unchecked(t, `permit (principal, action, resource) when { context.approvals.contains("a") };`)
		p.Remedies(deletion(auth(1, 1)), RemedyOptions{})
		key := weak.Make(p)
		if _, ok := factTables.Load(key); !ok {
			t.Error("nothing was kept")
		}
		return key
	}
	key := use()
	for range 100 {
		runtime.GC()
		if _, ok := factTables.Load(key); !ok {
			return
		}
		runtime.Gosched() // cleanups run on a goroutine of their own
	}
	t.Error("the table is still there")
}
