package engine

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

func TestCompileNeedsASet(t *testing.T) {
	t.Parallel()
	if _, err := Compile(nil); err == nil {
		t.Error("no set was compiled")
	}
}

func TestNoPolicyPermitsNothing(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, "")
	a := p.Authorize(bankRequest(1))
	if a.Allow || a.Code != authz.ReasonNoPermit || p.Reachable(bankRequest(1)) {
		t.Errorf("got %+v", a)
	}
}

// An error denies whatever it is in, with the message that Cedar gives it.
// Plain Cedar skips a forbid that fails, and would allow both of these.
func TestAnErrorDenies(t *testing.T) {
	t.Parallel()
	for _, effect := range []string{"permit", "forbid"} {
		p := mustCompile(t, `
@id("all") permit (principal, action, resource);
@id("bad") `+effect+` (principal, action, resource) when { context.input.amount * 9223372036854775807 > 0 };`)
		a := p.Authorize(bankRequest(2))
		if a.Allow || a.Code != authz.ReasonPolicyError || !a.CedarAllow() {
			t.Errorf("%s: got %+v", effect, a)
		}
		want := "integer overflow while attempting to multiply `2` by `9223372036854775807`"
		if len(a.Errors) != 1 || a.Errors[0].Policy.ID != "bad" || a.Errors[0].Message != want {
			t.Errorf("%s: errors %+v", effect, a.Errors)
		}
		if len(a.Determining) != 1 || a.Determining[0].ID != "all" {
			t.Errorf("%s: determining %v", effect, a.Determining)
		}
	}
}

// A caller that controls the entities must not be able to put an action into
// a group.
func TestTheSchemaDecidesWhatAnActionIsIn(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `
@id("scope") permit (principal, action in Action::"write", resource) when { context.input.amount == 1 };
@id("condition") permit (principal, action, resource) when { context.input.amount == 2 && action in [Action::"write"] };
@id("elsewhere") permit (principal, action, resource) when { context.input.amount == 3 && (if action in Action::"read" then true else false) };`)
	req := bankRequest(1)
	req.Action = types.NewEntityUID("Action", "bank/list")
	write := types.NewEntityUID("Action", "write")
	req.Entities[req.Action] = types.Entity{UID: req.Action, Parents: types.NewEntityUIDSet(write)}
	for amount, want := range map[int64]bool{1: false, 2: false, 3: true} {
		req.Context = bankRequest(amount).Context
		if a := p.Authorize(req); a.Allow != want {
			t.Errorf("amount %d: %+v", amount, a)
		}
	}
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	p := mustCompile(t, `
@id("a") permit (principal in Group::"staff", action in [Action::"read", Action::"bank/send"], resource is Server)
when { context.input.amount < 100 && context.input.to like "b*" && principal.clearance >= 2 && ["bob", "eve"].contains(context.input.to) }
unless { context.labels.contains("untrusted") || context.input has memo && context.input.memo == "x" };
@id("b") forbid (principal, action == Action::"bank/send", resource) when { context.labels.containsAny(["x", "y"]) };`)
	boxed := bankRequest(50, types.String("clean"))
	shared := *asFields(boxed)
	shared.World, shared.Entities = mustWorld(t, slices.Collect(maps.Values(boxed.Entities))...), nil
	mixed := *asFields(boxed)
	mixed.World, mixed.Entities = shared.World, maps.Clone(boxed.Entities)
	delete(mixed.Entities, boxed.Resource)
	for name, req := range map[string]*Request{"boxed": boxed, "fields": asFields(boxed), "world": &shared, "some of the world": &mixed} {
		if a := p.Authorize(req); !a.Allow {
			t.Fatalf("%s: got %+v", name, a)
		}
		s := newScratch(p)
		decide := func() {
			s.start(req)
			if !s.authorize().Allow {
				t.Error("denied")
			}
		}
		if n := testing.AllocsPerRun(100, decide); n != 0 {
			t.Errorf("%s: %v allocations in a decision", name, n)
		}
	}
}

func TestAProgramServesManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(3)
	p := compile(w.policies, w.schema)
	var requests []*Request
	var want []string
	for range 50 {
		req := w.request()
		requests = append(requests, req)
		want = append(want, p.Authorize(req).Code)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i, req := range requests {
				if got := p.Authorize(req).Code; got != want[i] {
					t.Errorf("request %d: %s, alone it was %s", i, got, want[i])
				}
			}
		})
	}
	wg.Wait()
}

// Marks of earlier requests must not come back to life when the generations
// start again.
func TestGenerationsStartAgain(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal in Group::"staff", action, resource) when { context.input.amount == 1 };`)
	s := newScratch(p)
	s.start(bankRequest(1)) // generation 1: alice is in staff
	s.generation = math.MaxUint32
	stranger := bankRequest(2)
	stranger.Entities = nil
	s.start(stranger)
	s.candidates()
	if s.generation != 1 || len(s.found) != 0 {
		t.Errorf("generation %d found %v", s.generation, s.found)
	}
	if v := s.slot(s.p.code.instructions[p.addresses[0]].a); v == nil || v.n != 2 {
		t.Errorf("slot %+v is of an earlier request", v)
	}
}

// What cannot be understood must never satisfy a policy.
func TestTheUnknownFailsClosed(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal, action, resource);`)
	p.code.instructions[0].op = 255
	if a := p.Authorize(bankRequest(1)); a.Allow || a.Code != authz.ReasonPolicyError || !strings.Contains(a.Errors[0].Message, "could not be evaluated") {
		t.Errorf("an unknown instruction: %+v", a)
	}
	part := scopePart{of: func(*ast.Policy) ast.IsScopeNode { return nil }}
	if part.fits(nil) {
		t.Error("an unknown scope fits")
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, policies     string
		want, wantAnywhere bool
	}{
		{"nothing", ``, false, false},
		{"depends on the context", `@id("a") permit (principal, action, resource) when { context.input.amount < 5 };`, true, true},
		{"does not fit", `@id("a") permit (principal in Group::"x", action, resource);`, false, false},
		{"depends on the resource", `@id("a") permit (principal, action, resource is McpResource);`, false, true},
		{"on the resource in the condition", `@id("a") permit (principal, action, resource) when { resource == McpResource::"x" };`, false, true},
		{"never true", `@id("a") permit (principal, action, resource) when { context.input.amount < 5 && principal.clearance > 2 };`, false, false},
		{"never true, the other way round", `@id("a") permit (principal, action, resource) when { principal.clearance > 2 || false } when { context.input.amount < 5 };`, false, false},
		{"unless it is always so", `@id("a") permit (principal, action, resource) unless { context.input.amount < 5 || principal.clearance == 2 };`, false, false},
		{"a choice", `@id("a") permit (principal, action, resource) when { if context.input.amount < 5 then false else principal.clearance == 2 };`, true, true},
		{"a choice of two evils", `@id("a") permit (principal, action, resource) when { if context.input.amount < 5 then false else !(principal.clearance == 2) };`, false, false},
		{"forbidden for all", `@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource) unless { false && context.input.amount < 5 };`, false, false},
		{"forbidden for some", `@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource) when { context.input.amount < 5 };`, true, true},
		{"forbidden for a server", `@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource == Server::"bank");`, false, true},
		{"always an error", `@id("a") permit (principal, action, resource);
@id("b") permit (principal, action, resource) when { principal.clearance + 9223372036854775807 == 0 && context.input.amount < 5 };`, false, false},
		{"sometimes an error", `@id("a") permit (principal, action, resource);
@id("b") permit (principal, action, resource) when { context.input.amount < 5 && principal.clearance + 9223372036854775807 == 0 };`, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := mustCompile(t, tt.policies)
			req := bankRequest(0)
			req.Context = types.Record{}
			if got := p.Reachable(req); got != tt.want {
				t.Errorf("reachable: %v", got)
			}
			req.Resource = types.EntityUID{}
			if got := p.Reachable(req); got != tt.wantAnywhere {
				t.Errorf("reachable at an unknown resource: %v", got)
			}
		})
	}
}

func TestSortedDoesNotShareItsTail(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource) when { context.input.amount == 9 };`)
	a := p.Authorize(bankRequest(1))
	_ = append(a.Determining, &policy.Policy{})
	if p.policies[1].ID != "b" {
		t.Error("a caller that appends overwrites the program")
	}
}

// Edges that random policies seldom meet, each compared with cedar-go.
func TestEdges(t *testing.T) {
	t.Parallel()
	const least, most = types.Long(math.MinInt64), types.Long(math.MaxInt64)
	long := func(n types.Long) ast.Node { return ast.Value(n) }
	nobody := ast.Value(types.EntityUID{})
	choice := func(n ast.Node) ast.Node { return ast.IfThenElse(ast.Context().Has("x"), nobody, n) }
	zero := ast.Context().Access("zero")
	for name, condition := range map[string]ast.Node{
		"least by -1":                    long(least).Multiply(zero.Subtract(long(1))).Equal(long(least)),
		"-1 by least":                    zero.Subtract(long(1)).Multiply(long(least)).Equal(long(least)),
		"least by 1":                     long(least).Multiply(zero.Add(long(1))).Equal(long(least)),
		"most by 2":                      long(most).Multiply(zero.Add(long(2))).LessThan(long(0)),
		"right sign, wrong all the same": zero.Add(long(1 << 62)).Multiply(long(5)).Equal(long(1 << 62)),
		"0 by least":                     zero.Multiply(long(least)).Equal(long(0)),
		"- least":                        ast.Negate(zero.Add(long(least))).Equal(long(least)),
		"- most":                         ast.Negate(zero.Add(long(most))).LessThan(long(0)),
		"least - 1":                      zero.Add(long(least)).Subtract(long(1)).GreaterThan(long(0)),
		"0 - least":                      zero.Subtract(long(least)).LessThan(long(0)),
		"most + 1":                       zero.Add(long(most)).Add(long(1)).LessThan(long(0)),
		"least + least":                  zero.Add(long(least)).Add(long(least)).Equal(long(0)),
		"attribute of nobody":            choice(nobody).Access("a").Equal(long(1)),
		"attribute of no entity":         choice(ast.Value(types.NewEntityUID("A", "none"))).Access("a").Equal(long(1)),
		"nobody has":                     choice(nobody).Has("a"),
		"nobody is":                      choice(nobody).Is(""),
		"nobody in nobody":               choice(nobody).In(nobody),
		"the context as a value":         ast.Context().Equal(ast.Value(types.NewRecord(types.RecordMap{"zero": types.Long(0)}))),
		"in the empty set":               ast.Principal().In(ast.Set()),
		"nothing in common":              ast.Set().ContainsAny(ast.Set(zero)),
		"all of nothing":                 ast.Set(zero).ContainsAll(ast.Set()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pol := &policy.Policy{ID: "p", Effect: policy.Permit, AST: ast.Permit().When(condition)}
			p := compile([]*policy.Policy{pol}, nil)
			if len(p.code.slow) > 0 {
				t.Fatal("cedar-go would be compared with itself")
			}
			req := &Request{Context: types.NewRecord(types.RecordMap{"zero": types.Long(0)}), Entities: types.EntityMap{
				{}: {Attributes: types.NewRecord(types.RecordMap{"a": types.Long(1)})},
			}}
			s := p.begin(req)
			defer p.end(s)
			want, message := s.cedar(cedarPolicy(pol.AST))
			if got := s.run(p.addresses[0]); got != want {
				t.Errorf("outcome %d, cedar-go's is %d %s", got, want, message)
			}
		})
	}
}

// Hierarchies too large for a search one by one are walked with a map that
// must not remember an earlier walk.
func TestLargeHierarchies(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal in Group::"top", action, resource) when { context.input.to == "x" };
@id("b") permit (principal in Group::"top", action, resource in Server::"top");`)
	req := bankRequest(1)
	top := types.NewEntityUID("Group", "top")
	req.Resource = types.NewEntityUID("McpResource", "r")
	chain := func(from, to types.EntityUID) {
		for i := range 60 {
			next := types.NewEntityUID("Group", types.String(strings.Repeat("x", i+1)))
			e := req.Entities[from]
			e.Parents = types.NewEntityUIDSet(next)
			req.Entities[from] = e
			from = next
		}
		req.Entities[from] = types.Entity{Parents: types.NewEntityUIDSet(to, req.Principal)}
	}
	chain(req.Principal, top)
	chain(req.Resource, top) // the same links again
	req.Entities[top] = types.Entity{Parents: types.NewEntityUIDSet(types.NewEntityUID("Server", "top"))}
	if a := p.Authorize(req); len(a.Determining) != 1 || a.Determining[0].ID != "b" {
		t.Errorf("got %+v", a)
	}
}

// What policies share is kept once: copies of it would not stay in a cache.
func TestConstantsAreShared(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `
@id("a") permit (principal, action, resource) when { context.input.to like "b*" && context.input.to == "bob" && context.labels.contains("x") };
@id("b") permit (principal, action, resource) when { context.input.to like "b*" && context.input.to == "bob" && context.labels.contains("x") };
@id("c") permit (principal, action, resource) when { context.input.to like "b\*" && principal == Agent::"bob" && context.labels.contains("y") };`)
	if patterns, consts := len(p.code.patterns), len(p.code.consts); patterns != 2 || consts != 4 {
		t.Errorf("%d patterns and %d constants", patterns, consts)
	}
	a := p.Authorize(bankRequest(1, types.String("x")))
	if d := cmp.Diff([]string{"a", "b"}, ids(a.Determining)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
