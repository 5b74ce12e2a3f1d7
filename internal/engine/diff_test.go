package engine

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

var diffRequests = flag.Int("diff.requests", 50_000, "random requests that TestDiff compares with cedar.Authorize")

// TestDiff compares the engine with cedar.Authorize on random requests to
// random policies, most of them well typed, some not.
func TestDiff(t *testing.T) {
	t.Parallel()
	n := *diffRequests
	if testing.Short() {
		n = min(n, 10_000)
	}
	tally := map[string]int{}
	for seed := uint64(1); tally["requests"] < n; seed++ {
		w := newWorld(seed)
		p := compile(w.policies, w.schema)
		tally["policies"] += len(w.policies)
		tally["policies left to cedar-go"] += len(p.code.slow)
		for _, in := range p.code.instructions {
			tally[fmt.Sprintf("op %d", in.op)]++
		}
		for range 100 {
			tally["requests"]++
			req := w.request()
			if d := w.compare(p, req, tally); d != "" {
				t.Fatalf("seed %d: %v\n%s", seed, req, d)
			}
		}
	}
	for o := range opConstContains + 1 {
		if tally[fmt.Sprintf("op %d", o)] == 0 {
			t.Errorf("no policy used instruction %d: the generator does not reach it", o)
		}
	}
	for _, want := range []string{"allowed", "forbidden", "no_permit", "policy_error", "policy errors", "several determining"} {
		if tally[want] < n/200 {
			t.Errorf("only %d of %d requests: %s", tally[want], n, want)
		}
	}
	maps.DeleteFunc(tally, func(k string, _ int) bool { return strings.HasPrefix(k, "op ") })
	t.Log(tally)
}

// TestDiffSeesPlantedFaults breaks the compiled program in ways that a wrong
// index or a wrong instruction would, and expects the comparison to notice.
func TestDiffSeesPlantedFaults(t *testing.T) {
	t.Parallel()
	noWorld := func(plant func(*Program)) func(*Program, *world) {
		return func(p *Program, _ *world) { plant(p) }
	}
	ofWorld := func(plant func(*World)) func(*Program, *world) {
		return func(_ *Program, w *world) {
			for _, k := range w.known {
				if k.world != nil {
					plant(k.world)
				}
			}
		}
	}
	ofFields := func(plant func(*Field)) func(*Program, *world) {
		return func(_ *Program, w *world) {
			w.spoil = func(fs Fields) {
				for i := range fs {
					plant(&fs[i])
				}
			}
		}
	}
	for name, plant := range map[string]func(*Program, *world){
		"a number is another":                     ofFields(func(f *Field) { f.value.n++ }),
		"a string is lost from a set":             ofFields(func(f *Field) { f.strings = f.strings[:len(f.strings)/4] }),
		"an attribute is lost in a record":        ofFields(func(f *Field) { f.fields = f.fields[:len(f.fields)/2] }),
		"what a request overrides is not noticed": ofWorld(func(w *World) { clear(w.above) }),
		"an ancestor in the World is lost": ofWorld(func(w *World) {
			for i, a := range w.ancestors {
				w.ancestors[i] = a[:max(0, len(a)-1)]
			}
		}),
		"a rule is lost from a leaf": noWorld(func(p *Program) {
			for i := range p.index.nodes {
				if n := &p.index.nodes[i]; n.by == leaf && n.end > n.start {
					n.end--
					return
				}
			}
		}),
		"a cell is lost from a table": noWorld(func(p *Program) {
			for i := range p.index.cells {
				if p.index.cells[i].node >= 0 {
					p.index.cells[i].node = -1
					return
				}
			}
		}),
		"an action's group is lost": noWorld(func(p *Program) {
			for i := range p.index.actions {
				if a := &p.index.actions[i]; len(a.roots) > 1 {
					a.roots = a.roots[:len(a.roots)-1]
				}
			}
		}),
		"the scope is not tested": noWorld(func(p *Program) {
			for i := range p.index.rules {
				p.index.rules[i].principal = anyEntity
			}
		}),
		"a policy listed under two actions counts twice": noWorld(func(p *Program) {
			for i := range p.index.rules {
				p.index.rules[i].shared = 0
			}
		}),
		">= became >": noWorld(func(p *Program) {
			for i := range p.code.instructions {
				if in := &p.code.instructions[i]; in.order == greaterEqual {
					in.order = greater
				}
			}
		}),
		"a forbid became a permit": noWorld(func(p *Program) {
			for i := range p.index.rules {
				p.index.rules[i].forbid = false
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed < 2000; seed++ {
				w := newWorld(seed)
				p := compile(w.policies, w.schema)
				plant(p, w)
				for range 100 {
					if w.compare(p, w.request(), map[string]int{}) != "" {
						return
					}
				}
			}
			t.Error("the fault was not noticed")
		})
	}
}

// TestReachableWheneverSomeContextAllows holds Reachable to its promise on
// random policies: it may say yes too often, never no when an allow exists.
func TestReachableWheneverSomeContextAllows(t *testing.T) {
	t.Parallel()
	allowed, unreachable := 0, 0
	for seed := uint64(1); seed < 120; seed++ {
		w := newWorld(seed)
		p := compile(w.policies, w.schema)
		for range 20 {
			req := w.request()
			for _, resource := range []types.EntityUID{req.Resource, {}} {
				known := *req
				known.Context, known.Resource = types.Record{}, resource
				reachable := p.Reachable(&known)
				if !reachable {
					unreachable++
				}
				for range 10 {
					some := *req
					some.Context = w.context()
					if resource.IsZero() {
						some.Resource = w.resource()
					}
					if p.Authorize(w.asked(&some)).Allow {
						allowed++
						if !reachable {
							t.Fatalf("seed %d: not reachable, but allowed: %v\n%s", seed, some, w.text())
						}
					}
				}
			}
		}
	}
	if allowed < 500 || unreachable < 500 {
		t.Errorf("the property was tried on %d allows and %d unreachable requests only", allowed, unreachable)
	}
}

// asked is the request with its context as fields, every other time. What is
// in Context must then not matter.
func (w *world) asked(req *Request) *Request {
	if w.one(2) {
		return req
	}
	q := *req
	q.Fields, q.Context = w.fields(req.Context), w.context()
	w.spoil(q.Fields)
	return &q
}

// fields returns a record as fields, some values boxed and some not.
func (w *world) fields(r types.Record) Fields {
	fs := Fields{}
	for _, name := range slices.Sorted(r.Keys()) {
		v, _ := r.Get(name)
		f := Boxed(name, v)
		switch v := v.(type) {
		case types.Boolean:
			f = Bool(name, bool(v))
		case types.Long:
			f = Long(name, int64(v))
		case types.String:
			f = String(name, string(v))
		case types.Datetime:
			f = Datetime(name, v)
		case types.Record:
			f = Nested(name, w.fields(v))
		case types.Set:
			if list, ok := stringsOf(v); ok {
				f = Strings(name, append(list, list...))
			}
		}
		if w.one(5) {
			f = Boxed(name, v)
		}
		fs = append(fs, f)
	}
	if len(fs) > 0 && w.one(5) {
		fs = append(fs, Long(fs[0].Name, 99)) // the first of a name counts
	}
	return fs
}

func stringsOf(set types.Set) ([]string, bool) {
	var list []string
	for e := range set.All() {
		s, ok := e.(types.String)
		if !ok {
			return nil, false
		}
		list = append(list, string(s))
	}
	return list, true
}

// compare returns how the engine's answer differs from cedar.Authorize's.
func (w *world) compare(p *Program, req *Request, tally map[string]int) string {
	got := p.Authorize(w.asked(req))
	merged := types.EntityMap{}
	if req.World != nil {
		maps.Insert(merged, req.World.All())
	}
	maps.Copy(merged, req.Entities)
	maps.Copy(merged, p.actions)
	decision, d := cedar.Authorize(w.oracle, merged,
		cedar.Request{Principal: req.Principal, Action: req.Action, Resource: req.Resource, Context: req.Context})
	var reasons, failed []string
	for _, r := range d.Reasons {
		reasons = append(reasons, string(r.PolicyID))
	}
	for _, e := range d.Errors {
		failed = append(failed, string(e.PolicyID))
	}
	tally[got.Code]++
	if len(failed) > 0 {
		tally["policy errors"]++
	}
	if len(reasons) > 1 {
		tally["several determining"]++
	}
	want := map[string]any{
		"cedar": bool(decision), "allow": bool(decision) && len(failed) == 0,
		"determining": sortedIDs(reasons), "errors": sortedIDs(failed),
	}
	have := map[string]any{
		"cedar": got.CedarAllow(), "allow": got.Allow,
		"determining": ids(got.Determining), "errors": errorIDs(got.Errors),
	}
	diff := gocmp.Diff(want, have)
	if diff == "" && got.Code != code4(decision, failed, reasons) {
		diff = "code " + got.Code
	}
	for _, e := range got.Errors {
		if e.Message == "" || strings.Contains(e.Message, "could not be evaluated") {
			diff += "no message from cedar-go for " + e.Policy.ID
		}
	}
	if diff == "" {
		return ""
	}
	return "(-cedar.Authorize +engine)\n" + diff + "\n" + w.text()
}

func code4(d types.Decision, failed, reasons []string) string {
	switch {
	case d == types.Deny && len(reasons) > 0:
		return authz.ReasonForbidden
	case len(failed) > 0:
		return authz.ReasonPolicyError
	case d == types.Allow:
		return authz.ReasonPolicyAllow
	default:
		return authz.ReasonNoPermit
	}
}

func ids(ps []*policy.Policy) []string {
	names := []string{}
	for _, p := range ps {
		names = append(names, p.ID)
	}
	return names
}

func errorIDs(es []PolicyError) []string {
	names := []string{}
	for _, e := range es {
		names = append(names, e.Policy.ID)
	}
	return names
}

func sortedIDs(names []string) []string {
	sorted := append([]string{}, names...)
	slices.Sort(sorted)
	return sorted
}

func sortPolicies(ps []*policy.Policy) []*policy.Policy {
	slices.SortFunc(ps, func(a, b *policy.Policy) int { return cmp.Compare(a.ID, b.ID) })
	return ps
}

// A world is random policies, entities and requests.
type world struct {
	*rand.Rand
	policies []*policy.Policy
	oracle   cedar.PolicyMap
	schema   *resolved.Schema // nil: the hierarchy of actions is in the entities
	actions  types.EntityMap
	known    []known // a few, because they take the most time to make
	// spoil plants a fault in the fields of a request.
	spoil func(Fields)
}

// A known is the entities of a request: its own, and those of a World.
type known struct {
	own   types.EntityMap
	world *World
}

func newWorld(seed uint64) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 7)), oracle: cedar.PolicyMap{}, actions: types.EntityMap{},
		spoil: func(Fields) {}}
	for i := range 8 {
		uid := w.uid("Action", i)
		var parents []types.EntityUID
		for range w.IntN(3) {
			parents = append(parents, w.uid("Action", 8+w.IntN(4)))
		}
		w.actions[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...)}
	}
	for i := 8; i < 12; i++ {
		uid := w.uid("Action", i)
		e := types.Entity{UID: uid}
		if i < 11 && w.one(2) {
			e.Parents = types.NewEntityUIDSet(w.uid("Action", i+1))
		}
		w.actions[uid] = e
	}
	if !w.one(4) {
		w.schema = &resolved.Schema{Actions: map[types.EntityUID]resolved.Action{}}
		for uid, e := range w.actions {
			w.schema.Actions[uid] = resolved.Action{Entity: e}
		}
	}
	other := types.EntityMap{}
	for range 3 {
		all := w.makeEntities()
		w.known = append(w.known, known{own: all}, w.split(all, other))
		other = all
	}
	n := 1 + w.IntN(40)
	if w.one(10) {
		n = 200
	}
	for i := range n {
		tree := w.policy()
		id := fmt.Sprintf("p%03d", i)
		effect := policy.Permit
		if tree.Effect == ast.EffectForbid {
			effect = policy.Forbid
		}
		w.policies = append(w.policies, &policy.Policy{ID: id, Effect: effect, AST: tree})
		w.oracle[types.PolicyID(id)] = cedar.NewPolicyFromAST((*cedarast.Policy)(tree))
	}
	return w
}

// text returns the policies as Cedar.
func (w *world) text() string {
	var b strings.Builder
	for _, p := range w.policies {
		fmt.Fprintf(&b, "// %s\n%s\n", p.ID, w.oracle[types.PolicyID(p.ID)].MarshalCedar())
	}
	return b.String()
}

// one is true once in n times.
func (w *world) one(n int) bool { return w.IntN(n) == 0 }

func pick[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

func (w *world) uid(t types.EntityType, i int) types.EntityUID {
	return types.NewEntityUID(t, types.String(fmt.Sprintf("%s%d", strings.ToLower(string(t[:1])), i)))
}

func (w *world) agent() types.EntityUID { return w.uid("Agent", w.IntN(5)) }
func (w *world) group() types.EntityUID { return w.uid("Group", w.IntN(6)) }
func (w *world) resource() types.EntityUID {
	return w.uid(pick[types.EntityType](w, "Doc", "Doc", "Server"), w.IntN(4))
}
func (w *world) action() types.EntityUID { return w.uid("Action", w.IntN(9)) }

func (w *world) anyUID() types.EntityUID {
	switch w.IntN(5) {
	case 0:
		return w.agent()
	case 1:
		return w.group()
	case 2:
		return w.resource()
	case 3:
		return w.uid("Action", w.IntN(12))
	default:
		return types.EntityUID{}
	}
}

func (w *world) policy() *ast.Policy {
	p := ast.Permit()
	if w.one(4) {
		p = ast.Forbid()
	}
	switch w.IntN(7) {
	case 0, 1:
		p.PrincipalEq(w.agent())
	case 2, 3:
		p.PrincipalIn(w.group())
	case 4:
		p.PrincipalIs(pick[types.EntityType](w, "Agent", "Group"))
	case 5:
		p.PrincipalIsIn(pick[types.EntityType](w, "Agent", "Agent", "Group"), w.group())
	}
	switch w.IntN(7) {
	case 0, 1:
		p.ActionEq(w.action())
	case 2, 3:
		p.ActionIn(w.uid("Action", w.IntN(12)))
	case 4, 5:
		var set []types.EntityUID
		for range w.IntN(5) {
			set = append(set, w.uid("Action", w.IntN(12)))
		}
		p.ActionInSet(set...)
	}
	switch w.IntN(8) {
	case 0, 1:
		p.ResourceEq(w.resource())
	case 2, 3:
		p.ResourceIn(w.uid("Server", w.IntN(4)))
	case 4:
		p.ResourceIs(pick[types.EntityType](w, "Doc", "Server"))
	case 5:
		p.ResourceIsIn("Doc", w.uid("Server", w.IntN(4)))
	}
	for range w.IntN(3) {
		n := w.truth(1 + w.IntN(4))
		if w.one(3) {
			p.Unless(n)
		} else {
			p.When(n)
		}
	}
	return p
}

func (w *world) makeEntities() types.EntityMap {
	entities := types.EntityMap{}
	add := func(uid types.EntityUID, parents ...types.EntityUID) {
		if w.one(12) {
			return // unknown to the decision point
		}
		entities[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...), Attributes: w.record(2), Tags: w.record(1)}
	}
	for i := range 5 {
		var groups []types.EntityUID
		for range w.IntN(4) {
			groups = append(groups, w.group())
		}
		add(w.uid("Agent", i), groups...)
		add(w.uid("Doc", i), w.uid("Server", w.IntN(4)))
		add(w.uid("Server", i))
	}
	for i := range 6 {
		var parents []types.EntityUID
		if w.one(2) {
			parents = append(parents, w.group()) // cycles are possible
		}
		add(w.uid("Group", i), parents...)
	}
	if w.one(10) {
		// A chain that is longer than a short search goes.
		for i := range 40 {
			add(w.uid("Link", i), w.uid("Link", i+1), w.uid("Link", i/2))
		}
		add(w.uid("Link", 40), w.group())
		add(w.uid("Agent", 0), w.uid("Link", 0))
	}
	if w.one(20) {
		add(types.EntityUID{})
	}
	for uid, e := range w.actions {
		if w.schema == nil {
			entities[uid] = e
		} else if w.one(3) {
			// The schema is right, whatever a caller says.
			entities[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(w.uid("Action", 8+w.IntN(4)))}
		}
	}
	return entities
}

// split moves some of the entities to a World, which may have others besides,
// and other versions of those that stay.
func (w *world) split(all, other types.EntityMap) known {
	k := known{own: types.EntityMap{}}
	shared := types.EntityMap{}
	stay := w.IntN(4) // of 4
	for _, uid := range slices.SortedFunc(maps.Keys(all), compareUIDs) {
		if uid.IsZero() || isAction(uid.Type) {
			k.own[uid] = all[uid]
			continue
		}
		if w.IntN(4) >= stay {
			shared[uid] = all[uid]
			continue
		}
		k.own[uid] = all[uid]
		if e, ok := other[uid]; ok && w.one(3) {
			shared[uid] = e
		}
	}
	world, err := NewWorld(shared)
	if err != nil { // these may be in cycles
		maps.DeleteFunc(shared, func(uid types.EntityUID, _ types.Entity) bool { return uid.Type == "Group" || uid.Type == "Link" })
		for uid, e := range all {
			if _, ok := shared[uid]; !ok {
				k.own[uid] = e
			}
		}
		world, err = NewWorld(shared)
	}
	if err != nil {
		panic(err)
	}
	k.world = world
	return k
}

func (w *world) request() *Request {
	k := pick(w, w.known...)
	req := &Request{Principal: w.agent(), Action: w.action(), Resource: w.resource(), Context: w.context(), Entities: k.own, World: k.world}
	if w.one(30) {
		req.Action = w.uid("Action", 90)
	}
	if w.one(30) {
		req.Principal, req.Resource = w.anyUID(), w.anyUID()
	}
	return req
}

func (w *world) context() types.Record { return w.record(2) }

// Attributes are named by the type that they mostly have.
var attributeNames = []types.String{"b", "n", "s", "e", "set", "ents", "rec", "dec", "dt", "dur", "ip"}

func (w *world) record(depth int) types.Record {
	m := types.RecordMap{}
	for _, name := range attributeNames {
		if w.one(8) || name == "rec" && depth == 0 {
			continue
		}
		of := name
		if w.one(15) {
			of = pick(w, attributeNames...)
		}
		m[name] = w.literal(of, depth)
	}
	return types.NewRecord(m)
}

func (w *world) literal(name types.String, depth int) types.Value {
	switch name {
	case "b":
		return types.Boolean(w.one(2))
	case "n":
		if w.one(10) {
			return pick(w, types.Long(1<<63-1), types.Long(-1<<63), types.Long(1<<40))
		}
		return types.Long(w.IntN(7) - 2)
	case "s":
		return pick[types.String](w, "", "a", "ab", "abc", "b*c", "x")
	case "e":
		return w.anyUID()
	case "set":
		vs := []types.Value{}
		of := []types.String{"s", "s", "n", "e"}
		if w.one(2) {
			of = of[:1]
		}
		for range pick(w, 0, 1, 2, 3, 20) {
			vs = append(vs, w.literal(pick(w, of...), 0))
		}
		if len(of) > 1 && w.one(6) {
			for i := range 15 {
				vs = append(vs, types.Long(i))
			}
		}
		return types.NewSet(vs...)
	case "ents":
		vs := []types.Value{}
		for range w.IntN(4) {
			vs = append(vs, w.anyUID())
		}
		return types.NewSet(vs...)
	case "rec":
		if depth == 0 {
			return types.Record{}
		}
		return w.record(depth - 1)
	case "dec":
		d, _ := types.ParseDecimal(pick(w, "0.5", "1.0", "-1.25", "922337203685477.5807"))
		return d
	case "dt":
		return types.NewDatetimeFromMillis(pick[int64](w, 0, 1, -1, 86_400_000, 100_000_000, 1<<63-1))
	case "dur":
		return types.NewDurationFromMillis(pick[int64](w, 0, 1, -1, 86_400_000, 3_600_001, 1<<62))
	default:
		ip, _ := types.ParseIPAddr(pick(w, "127.0.0.1", "10.0.0.0/8", "::1"))
		return ip
	}
}

// chain is a chain of attributes from a variable, ending in one of a type.
func (w *world) chain(name types.String) ast.Node {
	n := pick(w, ast.Context(), ast.Context(), ast.Principal(), ast.Resource(), ast.Action())
	for w.one(3) {
		n = n.Access(pick[types.String](w, "rec", "e"))
	}
	if w.one(20) {
		n = ast.Value(w.literal("rec", 1))
	}
	return n.Access(name)
}

// expr is an expression that mostly has the type that the name stands for.
func (w *world) expr(name types.String, depth int) ast.Node {
	if w.one(25) {
		name = pick(w, attributeNames...)
	}
	if depth <= 0 || w.one(3) {
		if w.one(3) {
			return w.constant(name)
		}
		return w.chain(name)
	}
	sub := func(name types.String) ast.Node { return w.expr(name, depth-1) }
	switch name {
	case "b":
		return w.truth(depth)
	case "n":
		switch w.IntN(7) {
		case 0:
			return sub("n").Add(sub("n"))
		case 1:
			return sub("n").Subtract(sub("n"))
		case 2:
			return sub("n").Multiply(sub("n"))
		case 3:
			return ast.Negate(sub("n"))
		case 4:
			return pick(w, ast.Node.ToMilliseconds, ast.Node.ToSeconds, ast.Node.ToMinutes, ast.Node.ToHours, ast.Node.ToDays)(sub("dur"))
		}
	case "e":
		if w.one(2) {
			return pick(w, ast.Principal(), ast.Action(), ast.Resource())
		}
	case "set":
		return ast.Set(sub("s"), sub("n"))
	case "ents":
		return ast.Set(sub("e"), sub("e"))
	case "rec":
		if w.one(3) {
			return ast.Context()
		}
		if w.one(4) {
			return ast.Record(ast.Pairs{{Key: "n", Value: sub("n")}})
		}
	case "dt":
		if w.one(2) {
			return sub("dt").Offset(sub("dur"))
		}
		return sub("dt").ToDate()
	case "dur":
		if w.one(2) {
			return sub("dt").DurationSince(sub("dt"))
		}
		return sub("dt").ToTime()
	}
	if w.one(3) {
		return ast.IfThenElse(sub("b"), sub(name), sub(name))
	}
	if w.one(8) {
		return ast.Node.GetTag(sub("e"), ast.String(name))
	}
	if w.one(3) {
		return sub("rec").Access(name)
	}
	return w.chain(name)
}

func (w *world) constant(name types.String) ast.Node {
	switch name {
	case "dec":
		return ast.ExtensionCall("decimal", ast.String(pick(w, "0.5", "1.0", "no")))
	case "dt":
		return ast.ExtensionCall("datetime", ast.String(pick(w, "1970-01-01", "2024-02-30")))
	case "dur":
		return ast.ExtensionCall("duration", ast.String(pick(w, "1h", "1d", "x")))
	case "ip":
		return ast.ExtensionCall("ip", ast.String(pick(w, "127.0.0.1", "10.0.0.0/8", "x")))
	case "set":
		return ast.Set(ast.Value(w.literal("s", 0)), ast.Value(w.literal("s", 0)), ast.Value(w.literal("n", 0)))
	case "ents":
		return ast.Set(ast.Value(w.group()), ast.Value(w.resource()), ast.Value(w.uid("Action", w.IntN(12))))
	}
	return ast.Value(w.literal(name, 1))
}

func (w *world) truth(depth int) ast.Node {
	if depth <= 0 {
		if w.one(8) {
			return ast.Boolean(w.one(2))
		}
		return w.chain("b")
	}
	sub := func(name types.String) ast.Node { return w.expr(name, depth-1) }
	switch w.IntN(22) {
	case 0, 1:
		return w.truth(depth - 1).And(w.truth(depth - 1))
	case 2, 3:
		return w.truth(depth - 1).Or(w.truth(depth - 1))
	case 4:
		return ast.Not(w.truth(depth - 1))
	case 5:
		return ast.IfThenElse(w.truth(depth-1), w.truth(depth-1), w.truth(depth-1))
	case 6, 7:
		of := pick(w, attributeNames...)
		return pick(w, ast.Node.Equal, ast.Node.NotEqual)(sub(of), sub(of))
	case 8, 9:
		of := pick[types.String](w, "n", "n", "dt", "dur")
		return pick(w, ast.Node.LessThan, ast.Node.LessThanOrEqual, ast.Node.GreaterThan, ast.Node.GreaterThanOrEqual)(sub(of), sub(of))
	case 10:
		return sub("e").In(sub(pick[types.String](w, "e", "ents", "set")))
	case 11:
		return pick(w, ast.Principal(), ast.Action(), ast.Resource()).In(pick(w,
			ast.Value(w.group()), ast.Value(w.uid("Server", w.IntN(4))), ast.Value(w.uid("Action", w.IntN(12))), w.constant("ents"), w.constant("set"), ast.Long(1)))
	case 12:
		return sub("e").Is(pick[types.EntityType](w, "Agent", "Doc", "Action"))
	case 13:
		return sub("e").IsIn(pick[types.EntityType](w, "Agent", "Doc", "Action"), sub(pick[types.String](w, "e", "ents")))
	case 14:
		return sub(pick[types.String](w, "rec", "e")).Has(pick(w, attributeNames...))
	case 15:
		return sub("s").Like(types.NewPattern("a", types.Wildcard{}))
	case 16, 17:
		return sub("set").Contains(sub(pick[types.String](w, "s", "n", "e", "dt", "dur", "rec")))
	case 18:
		return pick(w, ast.Node.ContainsAll, ast.Node.ContainsAny)(sub("set"), sub("set"))
	case 19:
		return sub(pick[types.String](w, "set", "ents")).IsEmpty()
	case 20:
		return pick(w, ast.Node.DecimalLessThan, ast.Node.DecimalLessThanOrEqual, ast.Node.DecimalGreaterThan, ast.Node.DecimalGreaterThanOrEqual)(sub("dec"), sub("dec"))
	default:
		switch w.IntN(4) {
		case 0:
			return sub("ip").IsInRange(sub("ip"))
		case 1:
			return sub("e").HasTag(sub("s"))
		case 2:
			return ast.ExtensionCall("lessThan", sub("dec")) // wrong number of arguments
		}
		return w.chain("b")
	}
}
