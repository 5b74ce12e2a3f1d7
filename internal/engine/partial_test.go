package engine

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

func paths(of ...string) [][]types.String {
	var all [][]types.String
	for _, p := range of {
		var path []types.String
		for name := range strings.SplitSeq(p, ".") {
			path = append(path, types.String(name))
		}
		all = append(all, path)
	}
	return all
}

// show writes a read as one would in a policy.
func show(r Read) string {
	of := "context"
	if !r.Context {
		of = r.Entity.String()
	}
	value := "<none>"
	switch {
	case r.End == Found:
		value = string(r.Value.MarshalCedar())
	case r.End == NoAttribute:
		value = fmt.Sprintf("<no %s>", r.Path[r.At])
	}
	var names []string
	for _, n := range r.Path {
		names = append(names, string(n))
	}
	path := strings.Join(names, ".")
	switch r.Kind {
	case ReadAttribute:
		return strings.TrimSuffix(of+"."+path, ".") + " = " + value
	case ReadHas:
		return of + " has " + path + " = " + value
	case ReadTag:
		return of + " tag " + path + " = " + value
	case ReadHasTag:
		return of + " hasTag " + path + " = " + value
	case ReadIn:
		return of + " in " + r.Other.String() + " = " + value
	default:
		return of + " in " + value
	}
}

func TestPartial(t *testing.T) {
	t.Parallel()
	bot, db := types.NewEntityUID("Agent", "bot"), types.NewEntityUID("Server", "db")
	const (
		scopes    = `Agent::"bot" in [Group::"bots"]`
		atServer  = `Server::"db" in []`
		atAction  = `Action::"delete" in []`
		permit    = "permit (principal, action, resource)"
		forbid    = "forbid (principal, action, resource)"
		undecided = "undecided"
	)
	for _, tt := range []struct {
		name, policies string
		unknown        [][]types.String
		entities       []types.EntityUID // unknown
		want           string            // a code, or undecided
		reads          []string          // besides what the request is in
		noScopes       []string          // of which not even that is read
	}{
		{name: "nothing is unknown", policies: permit + ` when { context.input.amount < 5 };`, want: authz.ReasonPolicyAllow,
			reads: []string{"context.input.amount = 3"}},
		{name: "nothing is unknown, nothing permits", want: authz.ReasonNoPermit},
		{name: "what is not looked at", policies: permit + ` when { context.input.amount < 5 };`, unknown: paths("now", "input.to"), want: authz.ReasonPolicyAllow,
			reads: []string{"context.input.amount = 3"}},
		{name: "what is looked at", policies: permit + ` when { context.input.amount < 5 };`, unknown: paths("input.amount"), want: undecided},
		{name: "what is beneath", policies: permit + ` when { context.input.amount < 5 };`, unknown: paths("input"), want: undecided},
		{name: "the whole context", policies: permit + ` when { context.input.amount < 5 };`, unknown: [][]types.String{{}}, want: undecided},
		{name: "the whole context does not matter", policies: permit + `; ` + forbid + ` when { principal.a == 2 && context.x };`, unknown: [][]types.String{{}},
			want: authz.ReasonPolicyAllow, reads: []string{`Agent::"bot".a = 1`}},
		{name: "the whole context as a value", policies: permit + ` when { context != {x: 1} };`, unknown: [][]types.String{{}}, want: undecided},
		{name: "a record with something unknown in it", policies: permit + ` when { context.input == {amount: 3} };`, unknown: paths("input.more"), want: undecided},
		{name: "a whole record", policies: permit + ` when { context.input == {amount: 3} };`, want: authz.ReasonPolicyAllow,
			reads: []string{`context.input = {"amount":3}`}},
		{name: "false && unknown", policies: permit + ` when { context.input.amount > 5 && context.now };`, unknown: paths("now"), want: authz.ReasonNoPermit,
			reads: []string{"context.input.amount = 3"}},
		{name: "unknown && false may fail", policies: permit + ` when { context.now && context.input.amount > 5 };`, unknown: paths("now"), want: undecided},
		{name: "what cannot fail && false", policies: permit + ` when { context has now && context.input.amount > 5 };`, unknown: paths("now"), want: authz.ReasonNoPermit,
			reads: []string{"context.input.amount = 3"}},
		{name: "true || unknown", policies: permit + ` when { context.input.amount < 5 || context.now };`, unknown: paths("now"), want: authz.ReasonPolicyAllow,
			reads: []string{"context.input.amount = 3"}},
		{name: "unknown || true may fail", policies: permit + ` when { context.now || context.input.amount < 5 };`, unknown: paths("now"), want: undecided},
		{name: "what cannot fail || true", policies: permit + ` when { context has now || context.input.amount < 5 };`, unknown: paths("now"), want: authz.ReasonPolicyAllow,
			reads: []string{"context.input.amount = 3"}},
		{name: "unknown == unknown", policies: permit + ` when { context.now == context.now };`, unknown: paths("now"), want: undecided},
		{name: "if unknown then the same", policies: permit + ` when { if context has now then context.input.amount < 5 else true };`, unknown: paths("now"), want: authz.ReasonPolicyAllow,
			reads: []string{"context.input.amount = 3"}},
		{name: "if it fails", policies: permit + ` when { if context.now then true else true };`, unknown: paths("now"), want: undecided},
		{name: "an unknown number that is no truth value", policies: permit + ` when { if context has now then 1 else 2 };`, unknown: paths("now"), want: undecided},
		{name: "only one branch", policies: permit + ` when { if context has x then context.now else true };`, unknown: paths("now"), want: authz.ReasonPolicyAllow,
			reads: []string{"context has x = false"}},
		{name: "has, in what has something unknown", policies: permit + ` when { context has input && context.input has amount };`, unknown: paths("input.to"), want: authz.ReasonPolicyAllow,
			reads: []string{"context has input = true", "context has input.amount = true"}},
		{name: "there may be a record after all", policies: permit + ` unless { context has session };`, unknown: paths("session.risk"), want: undecided},
		{name: "no attribute", policies: permit + ` when { context.nothing };`, want: authz.ReasonPolicyError,
			reads: []string{"context.nothing = <no nothing>"}},
		{name: "no attribute, denied", policies: permit + ` when { !context.nothing };`, want: authz.ReasonPolicyError,
			reads: []string{"context.nothing = <no nothing>"}},
		{name: "no truth value", policies: permit + ` when { context.input.amount };`, want: authz.ReasonPolicyError,
			reads: []string{"context.input.amount = 3"}},
		{name: "no attribute in a record with something unknown", policies: permit + ` when { context.input.nothing };`, unknown: paths("input.x"), want: authz.ReasonPolicyError,
			reads: []string{"context.input.nothing = <no nothing>"}},
		{name: "an error whose message is open", policies: permit + ` when { context has later && {a: context.x, b: context.y} == {} };`, want: authz.ReasonNoPermit,
			reads: []string{"context has later = false"}},
		{name: "an error, either of two", policies: permit + ` when { {a: context.x, b: context.y} == {} };`, want: undecided},
		{name: "an error, one of one", policies: permit + ` when { {a: context.x, b: 1} == {} };`, want: authz.ReasonPolicyError,
			reads: []string{"context.x = <no x>"}},
		{name: "an error, one of one that is known", policies: permit + ` when { {a: context.x, b: context.now} == {} };`, unknown: paths("now"), want: undecided},
		{name: "beside an error nothing may be open", policies: permit + ` when { context.nothing }; ` + permit + ` when { context has now };`, unknown: paths("now"), want: undecided},
		{name: "beside a forbid a permit may be open", policies: permit + ` when { context has now }; ` + forbid + ` when { context.input.amount == 3 };`, unknown: paths("now"), want: authz.ReasonForbidden,
			reads: []string{"context.input.amount = 3"}},
		{name: "but not whether it fails", policies: permit + ` when { context.now }; ` + forbid + `;`, unknown: paths("now"), want: undecided},
		{name: "nor another forbid", policies: forbid + ` when { context has now }; ` + forbid + `;`, unknown: paths("now"), want: undecided},
		{name: "nor one that comes after", policies: forbid + `; ` + forbid + ` when { context has later };`, unknown: paths("later"), want: undecided},
		{name: "beside a permit another may not be open", policies: permit + ` when { context has now }; ` + permit + `;`, unknown: paths("now"), want: undecided},
		{name: "an entity that is not looked at", policies: permit + ` when { resource.owner == "acme" };`, entities: []types.EntityUID{bot}, want: authz.ReasonPolicyAllow,
			reads: []string{`Server::"db".owner = "acme"`}, noScopes: []string{atAction, atServer, scopes}},
		{name: "an entity that is", policies: permit + ` when { principal.a == 1 };`, entities: []types.EntityUID{bot}, want: undecided},
		{name: "an entity whose attribute is asked after", policies: permit + ` when { principal has a };`, entities: []types.EntityUID{bot}, want: undecided},
		{name: "a tag", policies: permit + ` when { resource.getTag("t") == "v" && !resource.hasTag("u") };`, want: authz.ReasonPolicyAllow,
			reads: []string{`Server::"db" tag t = "v"`, `Server::"db" hasTag u = false`}},
		{name: "an unknown entity's tag", policies: permit + ` when { resource.getTag("t") == "v" };`, entities: []types.EntityUID{db}, want: undecided},
		{name: "whether an unknown entity has a tag", policies: permit + ` when { resource.hasTag("t") };`, entities: []types.EntityUID{db}, want: undecided},
		{name: "nothing fits, whatever the principal is in", policies: `permit (principal in Group::"x", action == Action::"read", resource);`, entities: []types.EntityUID{bot},
			want: authz.ReasonNoPermit, noScopes: []string{atAction, atServer, scopes}},
		{name: "what the principal is in", policies: `permit (principal in Group::"bots", action, resource);`, entities: []types.EntityUID{bot}, want: undecided},
		{name: "what the principal is known to be in", policies: `permit (principal in Group::"bots", action, resource);`, entities: []types.EntityUID{group("bots")},
			want: authz.ReasonPolicyAllow, noScopes: []string{atAction, atServer}},
		{name: "what the principal's group is in", policies: `permit (principal in Group::"x", action, resource);`, entities: []types.EntityUID{group("bots")}, want: undecided},
		{name: "of another type than asked for", policies: `permit (principal is Person in Group::"x", action, resource);`, entities: []types.EntityUID{bot},
			want: authz.ReasonNoPermit, noScopes: []string{atAction, atServer, scopes}},
		{name: "the entity itself", policies: permit + ` when { principal in [Agent::"bot", Group::"x"] };`, entities: []types.EntityUID{bot},
			want: authz.ReasonPolicyAllow, noScopes: []string{atAction, atServer, scopes}},
		{name: "in a condition", policies: permit + ` when { principal in [Group::"x", Group::"bots"] && !(resource in Group::"x") };`, want: authz.ReasonPolicyAllow,
			reads: []string{`Agent::"bot" in Group::"bots" = true`, `Server::"db" in Group::"x" = false`}},
		{name: "of a type, and in", policies: permit + ` when { principal is Agent in Group::"bots" };`, want: authz.ReasonPolicyAllow,
			reads: []string{`Agent::"bot" in Group::"bots" = true`}},
		{name: "of another type, and in", policies: permit + ` when { principal is Person in Group::"bots" };`, want: authz.ReasonNoPermit},
		{name: "in none", policies: permit + ` when { principal in [Group::"x", Group::"y"] };`, want: authz.ReasonNoPermit,
			reads: []string{`Agent::"bot" in Group::"x" = false`, `Agent::"bot" in Group::"y" = false`}},
		{name: "in what is no entity", policies: permit + ` when { principal in [Group::"x", context.input.amount] };`, want: authz.ReasonPolicyError,
			reads: []string{"context.input.amount = 3"}},
		{name: "in two that are no entities", policies: permit + ` when { principal in [1, "a"] };`, want: undecided},
		{name: "an entity that does not exist", policies: permit + ` when { Agent::"nobody".a == 1 };`, want: authz.ReasonPolicyError,
			reads: []string{`Agent::"nobody".a = <none>`}},
		{name: "through an attribute", policies: permit + ` when { resource.agent.a == 1 };`, want: authz.ReasonPolicyAllow,
			reads: []string{`Agent::"bot".a = 1`, `Server::"db".agent = Agent::"bot"`}},
		{name: "a tag of nobody, whose message is no two times the same", policies: permit + ` when { context.nobody.getTag("a") == 1 };`, want: undecided},
		{name: "an attribute of nobody", policies: permit + ` when { context.nobody.a == 1 };`, want: authz.ReasonPolicyError,
			reads: []string{`context.nobody = ::""`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := unchecked(t, tt.policies)
			// What is unknown is there, and true, which must not be noticed.
			req := deletion(types.RecordMap{"input": types.NewRecord(types.RecordMap{"amount": types.Long(3)}), "now": types.True, "nobody": types.EntityUID{}})
			e := req.Entities[bot]
			e.Attributes = types.NewRecord(types.RecordMap{"a": types.Long(1)})
			req.Entities[bot] = e
			e = req.Entities[db]
			e.Attributes = types.NewRecord(types.RecordMap{"owner": types.String("acme"), "agent": bot})
			e.Tags = types.NewRecord(types.RecordMap{"t": types.String("v")})
			req.Entities[db] = e
			got := p.Partial(req, Unknown{Context: tt.unknown, Entities: func(e types.EntityUID) bool { return slices.Contains(tt.entities, e) }})
			if tt.want == undecided {
				if got.Decided || got.Answer.Code != "" || got.Answer.Allow || got.Reads != nil {
					t.Errorf("decided: %+v", got)
				}
				return
			}
			if !got.Decided || got.Answer.Code != tt.want {
				t.Errorf("decided %v: %+v", got.Decided, got.Answer)
			}
			want := append([]string{scopes, atServer, atAction}, tt.reads...)
			want = slices.DeleteFunc(want, func(r string) bool { return slices.Contains(tt.noScopes, r) })
			reads := []string{}
			for _, r := range got.Reads {
				reads = append(reads, show(r))
			}
			slices.Sort(want)
			slices.Sort(reads)
			if d := gocmp.Diff(want, reads); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// The schema's actions are the same for all requests, so nothing of them is read.
func TestPartialReadsNothingOfTheSchema(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, `@id("a") permit (principal, action in Action::"write", resource) when { action in [Action::"write"] };`)
	all := func(types.EntityUID) bool { return true }
	got := p.Partial(bankRequest(1), Unknown{Context: [][]types.String{{}}, Entities: all})
	if !got.Decided || !got.Answer.Allow || len(got.Reads) != 0 {
		t.Errorf("got %+v", got)
	}
}

// If the walk and the program disagree, one of them is wrong, and neither is
// believed.
func TestPartialNeedsBothEvaluators(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(*Program){
		"another answer":     func(p *Program) { p.code.instructions[p.addresses[0]].order = greater },
		"another policy":     func(p *Program) { p.policies[0], p.policies[1] = p.policies[1], p.policies[0] },
		"an unknown failure": func(p *Program) { p.code.instructions[p.addresses[1]].op = 255 },
	} {
		p := unchecked(t, `permit (principal, action, resource) when { context.x <= 1 }; forbid (principal, action, resource) when { context.x == 2 };`)
		req := deletion(types.RecordMap{"x": types.Long(1)})
		if got := p.Partial(req, Unknown{}); !got.Decided {
			t.Fatalf("%s: undecided without the fault", name)
		}
		plant(p)
		if got := p.Partial(req, Unknown{}); got.Decided || got.Answer.Allow {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// What a later Cedar brings must not be taken for known.
func TestPartialOfWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	var s scope
	if can := s.fits(nil); can != canAll {
		t.Errorf("an unknown scope comes to %d", can)
	}
	var w walker
	if r := w.eval(nil); r.open != canAll {
		t.Errorf("an unknown expression comes to %+v", r)
	}
}

// Two attributes of one record are two places.
func TestPlacesDoNotShareTheirEnds(t *testing.T) {
	t.Parallel()
	p := place{path: make([]types.String, 1, 2)}
	a := p.child("a")
	p.child("b")
	if a.path[1] != "a" {
		t.Errorf("got %v", a.path)
	}
}

// A partialWorld is a random world with a random request of which some is
// unknown.
type partialWorld struct {
	*world
	p        *Program
	req      *Request
	unknown  Unknown
	entities []types.EntityUID // unknown
	pool     []types.Entity    // to make others of
}

// partial makes a request of a world, and keeps a few of its policies. Making a
// world is slow, so several are made of one.
func (base *world) partial() *partialWorld {
	of := *base
	of.oracle = maps.Clone(base.oracle)
	w := &partialWorld{world: &of}
	w.req = flat(w.request())
	w.choose(1 + w.IntN(5))
	w.p = compile(w.policies, w.schema)
	for range pick(w.world, 0, 1, 1, 2, 3) {
		w.unknown.Context = append(w.unknown.Context, w.path())
	}
	someUnknown := w.one(2)
	for i := range 6 {
		for _, t := range []types.EntityType{"Agent", "Doc", "Server", "Group", "Action"} {
			uid := w.uid(t, i)
			for _, k := range w.world.known {
				if e, ok := k.own[uid]; ok {
					w.pool = append(w.pool, e)
				}
				if k.world == nil {
					continue
				}
				if e, ok := k.world.Entity(uid); ok {
					w.pool = append(w.pool, e)
				}
			}
			if someUnknown && w.one(6) {
				w.entities = append(w.entities, uid)
			}
		}
	}
	w.unknown.Entities = w.isUnknown
	return w
}

// flat is a request with all entities its own, so that what is unknown of it can
// be taken away.
func flat(req *Request) *Request {
	f := *req
	f.Entities, f.World = types.EntityMap{}, nil
	if req.World != nil {
		for uid, e := range req.World.All() {
			f.Entities[uid] = e
		}
	}
	maps.Copy(f.Entities, req.Entities)
	return &f
}

// withMore makes some policies ask what others seldom do in a way that matters.
func (w *partialWorld) withMore(pol *policy.Policy) *policy.Policy {
	if !w.one(4) {
		return pol
	}
	of, name := pick(w.world, ast.Principal(), ast.Resource()), pick(w.world, attributeNames...)
	test := pick(w.world,
		of.HasTag(ast.Value(name)),
		of.HasTag(ast.Value(name)).And(of.GetTag(ast.Value(name)).Equal(w.constant("n"))),
		of.In(ast.Value(w.group())),
		pick(w.world, of, ast.Context()).Access("e").In(w.constant("ents")),
		ast.Context().Has(name).Or(of.Access("b")),
		ast.Context().Access("b").And(of.Has(name)),
		ast.Context().Access("b").Or(of.Has(name)),
		ast.IfThenElse(ast.Context().Access("b"), of.Has(name), of.Has(name)))
	if w.one(2) {
		test = ast.Not(test)
	}
	tree := *pol.AST
	tree.Conditions = append([]ast.ConditionType{{Condition: ast.ConditionWhen, Body: test.AsIsNode()}}, tree.Conditions...)
	w.oracle[types.PolicyID(pol.ID)] = cedar.NewPolicyFromAST((*cedarast.Policy)(&tree))
	return &policy.Policy{ID: pol.ID, Effect: pol.Effect, AST: &tree}
}

func (w *partialWorld) isUnknown(uid types.EntityUID) bool { return slices.Contains(w.entities, uid) }

// choose keeps a few policies, most of them such that their scope fits.
func (w *partialWorld) choose(n int) {
	p := compile(w.policies, w.schema)
	s := p.begin(w.req)
	defer p.end(s)
	s.candidates()
	fits := map[*policy.Policy]bool{}
	for _, r := range s.found {
		fits[p.policies[p.index.rules[r].policy]] = true
	}
	var chosen []*policy.Policy
	for _, pol := range w.policies {
		if len(chosen) < n && (fits[pol] || w.one(10)) {
			chosen = append(chosen, w.withMore(pol))
		}
	}
	w.policies = chosen
}

// path is a path in the context.
func (w *partialWorld) path() []types.String {
	var path []types.String
	for w.one(3) {
		path = append(path, "rec")
	}
	if w.one(20) {
		return path
	}
	return append(path, pick(w.world, attributeNames...))
}

// completion is the request with anything for what is unknown.
func (w *partialWorld) completion() *Request {
	req := w.copy()
	for _, path := range w.unknown.Context {
		w.change(&req.Context, path)
	}
	for _, uid := range w.entities {
		w.changeEntity(req.Entities, uid)
	}
	return req
}

func (w *partialWorld) copy() *Request {
	req := *w.req
	req.Entities = maps.Clone(req.Entities)
	return &req
}

// change puts anything at a path, or nothing.
func (w *partialWorld) change(r *types.Record, path []types.String) {
	if len(path) == 0 {
		*r = w.context()
		return
	}
	m := r.Map()
	if m == nil {
		m = types.RecordMap{}
	}
	of, isRecord := m[path[0]].(types.Record)
	switch {
	case len(path) > 1 && (isRecord || w.one(2)):
		w.change(&of, path[1:])
		m[path[0]] = of
	case len(path) > 1:
	case w.one(3):
		delete(m, path[0])
	default:
		m[path[0]] = w.literal(pick(w.world, path[0], path[0], pick(w.world, attributeNames...)), 2)
	}
	*r = types.NewRecord(m)
}

// changeEntity makes anything of an entity, or nothing.
func (w *partialWorld) changeEntity(entities types.EntityMap, uid types.EntityUID) {
	if w.one(4) {
		delete(entities, uid)
		return
	}
	var parents []types.EntityUID
	for range w.IntN(3) {
		parents = append(parents, w.anyUID())
	}
	entities[uid] = types.Entity{UID: uid, Attributes: pick(w.world, w.pool...).Attributes, Tags: pick(w.world, w.pool...).Tags, Parents: types.NewEntityUIDSet(parents...)}
}

// other is another request of the same principal, action and resource: one
// that differs in a few things, known or not.
func (w *partialWorld) other() *Request {
	req := w.completion()
	for range 1 + w.IntN(3) {
		if w.one(2) {
			w.change(&req.Context, w.path())
			continue
		}
		uid := w.someEntity()
		e, ok := req.Entities[uid]
		switch {
		case !ok || w.one(6):
			w.changeEntity(req.Entities, uid)
			continue
		case w.one(3):
			e.Parents = types.NewEntityUIDSet(slices.AppendSeq([]types.EntityUID{w.anyUID()}, e.Parents.All())...)
		case w.one(3):
			w.change(&e.Tags, w.path())
		default:
			w.change(&e.Attributes, w.path())
		}
		req.Entities[uid] = e
	}
	return req
}

// someEntity is often one that the request is about.
func (w *partialWorld) someEntity() types.EntityUID {
	return pick(w.world, w.req.Principal, w.req.Resource, w.req.Action, w.anyUID(), w.anyUID(), w.uid("Agent", w.IntN(5)))
}

func (w *partialWorld) describe() string {
	return fmt.Sprintf("%v\nunknown: %v %v\n%s", w.req, w.unknown.Context, w.entities, w.text())
}

// differ returns how two answers differ, messages included.
func differ(a, b Answer) string {
	show := func(a Answer) []string {
		lines := append([]string{fmt.Sprint(a.Allow), a.Code}, ids(a.Determining)...)
		for _, e := range a.Errors {
			lines = append(lines, e.Policy.ID+": "+e.Message)
		}
		return lines
	}
	return gocmp.Diff(show(a), show(b))
}

// unsound tries to find a completion with another answer.
func (w *partialWorld) unsound(a PartialAnswer) string {
	for range 50 {
		c := w.completion()
		if d := differ(a.Answer, w.p.Authorize(c)); d != "" {
			return fmt.Sprintf("%v\n%s", c, d)
		}
	}
	return ""
}

// misread tries to find another request with the same answers to what was
// read, but another answer. It counts those with the same.
func (w *partialWorld) misread(a PartialAnswer, same *int) string {
	key := string(a.Reads.AppendKey(nil))
	paths := a.Reads.Paths()
	for range 50 {
		o := w.other()
		k, ok := w.p.Key(o, Unknown{}, paths, nil)
		if !ok {
			return "no key"
		}
		if string(k) != key {
			continue
		}
		*same++
		if d := differ(a.Answer, w.p.Authorize(o)); d != "" {
			return fmt.Sprintf("%v\n%s", o, d)
		}
	}
	return ""
}

// perWorld is how many requests are made of one world.
const perWorld = 10

var partialRequests = flag.Int("partial.requests", 2000, "random requests of which some is unknown, each completed in 50 ways")

func TestPartialAnswersAreEveryCompletions(t *testing.T) {
	t.Parallel()
	n := *partialRequests
	if testing.Short() {
		n = min(n, 500)
	}
	tally := map[string]int{}
	same := 0
	for tally["requests"] < n {
		rapid.Check(t, func(t *rapid.T) {
			base := newWorld(rapid.Uint64().Draw(t, "seed"))
			for range perWorld {
				base.partial().check(t, tally, &same)
			}
		})
		if t.Failed() {
			return
		}
	}
	tally["others with the same reads"] = same
	for _, want := range []string{authz.ReasonPolicyAllow, authz.ReasonForbidden, authz.ReasonNoPermit, authz.ReasonPolicyError, "with something unknown"} {
		if tally[want] < tally["requests"]/100 {
			t.Errorf("only %d of %d requests: %s", tally[want], tally["requests"], want)
		}
	}
	if same < 10*tally["requests"] {
		t.Errorf("only %d others had the same reads", same)
	}
	t.Log(tally)
}

// check asks for a partial answer, and tries to show it wrong.
func (w *partialWorld) check(t *rapid.T, tally map[string]int, same *int) {
	got := w.p.Partial(w.req, w.unknown)
	tally["requests"]++
	if !got.Decided {
		return
	}
	tally[got.Answer.Code]++
	if len(w.unknown.Context) > 0 {
		tally["with something unknown"]++
	}
	if d := w.unsound(got); d != "" {
		t.Fatalf("a completion has another answer\n%s\n%s", d, w.describe())
	}
	if d := w.misread(got, same); d != "" {
		t.Fatalf("a request with the same reads has another answer\n%s\n%v\n%s", d, got.Reads, w.describe())
	}
	w.checkKey(t, got)
	if again := w.p.Partial(w.req, w.unknown); string(again.Reads.AppendKey(nil)) != string(got.Reads.AppendKey(nil)) {
		t.Fatalf("two times asked, two reads\n%v\n%v\n%s", got.Reads, again.Reads, w.describe())
	}
}

// checkKey compares the two ways to a key.
func (w *partialWorld) checkKey(t *rapid.T, a PartialAnswer) {
	req := w.copy()
	maps.DeleteFunc(req.Entities, func(uid types.EntityUID, _ types.Entity) bool { return w.isUnknown(uid) })
	key, ok := w.p.Key(req, w.unknown, a.Reads.Paths(), []byte("x"))
	if want := a.Reads.AppendKey([]byte("x")); !ok || string(key) != string(want) {
		t.Fatalf("the key of the same request is another\n%q\n%q\n%v\n%s", want, key, a.Reads, w.describe())
	}
}

// TestPartialTestsSeePlantedFaults forgets reads, as a wrong extractor would, or
// takes something unknown for known, and expects the tests above to notice.
func TestPartialTestsSeePlantedFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("tries thousands of requests for each fault")
	}
	kinds := func(forget ...ReadKind) func(*partialWorld, Reads) Reads {
		return func(_ *partialWorld, r Reads) Reads {
			return slices.DeleteFunc(r, func(r Read) bool { return slices.Contains(forget, r.Kind) })
		}
	}
	only := func(forget func(Read) bool) func(*partialWorld, Reads) Reads {
		return func(_ *partialWorld, r Reads) Reads { return slices.DeleteFunc(r, forget) }
	}
	for name, forget := range map[string]func(*partialWorld, Reads) Reads{
		"has":                       kinds(ReadHas),
		"in":                        kinds(ReadIn),
		"what the request is in":    kinds(ReadAncestors),
		"tags":                      kinds(ReadTag),
		"hasTag":                    kinds(ReadHasTag),
		"the context":               only(func(r Read) bool { return r.Context }),
		"entities":                  only(func(r Read) bool { return !r.Context && r.Kind == ReadAttribute }),
		"what was not found":        only(func(r Read) bool { return r.End != Found }),
		"what is deep":              only(func(r Read) bool { return len(r.Path) > 1 }),
		"records":                   only(func(r Read) bool { _, is := r.Value.(types.Record); return is }),
		"the right of &&":           without(func(n ast.IsNode) bool { _, is := n.(ast.NodeTypeAnd); return is }),
		"the right of ||":           without(func(n ast.IsNode) bool { _, is := n.(ast.NodeTypeOr); return is }),
		"the branches of if":        without(func(n ast.IsNode) bool { _, is := n.(ast.NodeTypeIfThenElse); return is }),
		"conditions after a first":  without(func(n ast.IsNode) bool { return n == nil }),
		"what follows the operator": without(func(n ast.IsNode) bool { _, is := n.(ast.NodeTypeEquals); return is }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noticed(t, func(w *partialWorld) bool {
				got := w.p.Partial(w.req, w.unknown)
				got.Reads = forget(w, got.Reads)
				var same int
				return got.Decided && w.misread(got, &same) != ""
			})
		})
	}
	for name, lie := range map[string]func(*partialWorld) Unknown{
		"a path is known":    func(w *partialWorld) Unknown { return Unknown{Entities: w.unknown.Entities} },
		"an entity is known": func(w *partialWorld) Unknown { return Unknown{Context: w.unknown.Context} },
		"a deep path is known": func(w *partialWorld) Unknown {
			return Unknown{Context: short(w.unknown.Context), Entities: w.unknown.Entities}
		},
		"the principal is known": func(w *partialWorld) Unknown {
			return Unknown{Context: w.unknown.Context, Entities: func(e types.EntityUID) bool { return e != w.req.Principal && w.isUnknown(e) }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noticed(t, func(w *partialWorld) bool {
				got := w.p.Partial(w.req, lie(w))
				return got.Decided && w.unsound(got) != ""
			})
		})
	}
}

// noticed tries a fault on many requests until one shows it.
func noticed(t *testing.T, shows func(*partialWorld) bool) {
	t.Helper()
	for seed := range uint64(1000) {
		base := newWorld(seed)
		for range 5 * perWorld {
			if shows(base.partial()) {
				return
			}
		}
	}
	t.Error("the fault was not noticed")
}

func short(paths [][]types.String) [][]types.String {
	return slices.DeleteFunc(slices.Clone(paths), func(p []types.String) bool { return len(p) > 1 })
}

// without keeps the reads of the same policies with true in the place of what
// comes last in certain expressions, or of all conditions but the first.
func without(last func(ast.IsNode) bool) func(*partialWorld, Reads) Reads {
	return func(w *partialWorld, reads Reads) Reads {
		var policies []*policy.Policy
		for _, p := range w.policies {
			tree := *p.AST
			tree.Conditions = slices.Clone(tree.Conditions)
			for i := range tree.Conditions {
				tree.Conditions[i].Body = prune(tree.Conditions[i].Body, last)
			}
			if last(nil) && len(tree.Conditions) > 1 {
				tree.Conditions = tree.Conditions[:1]
			}
			policies = append(policies, &policy.Policy{ID: p.ID, Effect: p.Effect, AST: &tree})
		}
		p := compile(policies, w.schema)
		s := p.begin(w.req)
		defer p.end(s)
		pruned := walker{s: s, unknown: w.unknown, reads: map[string]Read{}}
		pruned.decide()
		return slices.DeleteFunc(reads, func(r Read) bool {
			_, kept := pruned.reads[string(r.ReadPath.appendKey(nil))]
			return !kept
		})
	}
}

func prune(n ast.IsNode, last func(ast.IsNode) bool) ast.IsNode {
	yes := ast.NodeValue{Value: types.True}
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		n.Left, n.Right = prune(n.Left, last), prune(n.Right, last)
		if last(n) {
			n.Right = yes
		}
		return n
	case ast.NodeTypeOr:
		n.Left, n.Right = prune(n.Left, last), prune(n.Right, last)
		if last(n) {
			n.Right = yes
		}
		return n
	case ast.NodeTypeNot:
		n.Arg = prune(n.Arg, last)
		return n
	case ast.NodeTypeIfThenElse:
		n.If, n.Then, n.Else = prune(n.If, last), prune(n.Then, last), prune(n.Else, last)
		if last(n) {
			n.Then, n.Else = yes, yes
		}
		return n
	case ast.NodeTypeEquals:
		if last(n) {
			n.Right = yes
		}
		return n
	default:
		return n
	}
}
