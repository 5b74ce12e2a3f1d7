package bench

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// A workload is a set of policies and requests to it.
type workload struct {
	set      *policy.Set
	program  *engine.Program
	cedar    cedar.PolicyMap
	world    *engine.World
	requests []*engine.Request // as the PDP makes them: with the World, the context as fields
	boxed    []*engine.Request // the same, each with all its entities and a built context
}

// The sizes of a company with n policies: as the set grows, so do the tools,
// the teams and the agents, and what concerns one request stays the same.
func tools(n int) int  { return max(2, n/40) }
func groups(n int) int { return departments + max(10, n/20) }
func agents(n int) int { return min(20_000, max(20, 2*n)) }
func things(n int) int { return min(10_000, 4*tools(n)) }

const (
	departments    = 10 // the first groups; the others are teams
	toolsPerServer = 10
	// requests are few enough to stay in the processor's cache, as a request
	// does that has just been made, and enough for the policies not to.
	requests = 128
)

// group is the group that a policy is for: a department more often than a team.
func group(r *rand.Rand, n int) int {
	if r.IntN(10) < 7 {
		return r.IntN(departments)
	}
	return departments + r.IntN(groups(n)-departments)
}

func action(tool int) string {
	return fmt.Sprintf("server%d/tool%d", tool/toolsPerServer, tool)
}

// schema has one action for each tool, as the catalogue would write it.
func schema(n int) []byte {
	var b strings.Builder
	b.WriteString(`entity Group;
entity Agent in [Group] { clearance: Long };
entity Server { sensitivity: Long };
entity Thing in [Server];
action "read"; action "write"; action "external";
`)
	for t := range tools(n) {
		effect := []string{"read", "write", "external"}[t%3]
		fmt.Fprintf(&b, `action %q in [Action::%q] appliesTo {
  principal: [Agent], resource: [Server],
  context: {
    input: { amount: Long, recipient: String, tags: Set<String>, note?: String },
    session: { id: String, labels: Set<String>, calls: Long, denials: Long, started: datetime },
    auth: { method: String }, now: datetime, gate: String, subject?: String,
  },
};
`, action(t), effect)
	}
	return []byte(b.String())
}

// scoped is a set that names a group and a tool in almost every policy, which
// leaves about ten candidates for a request.
func scoped(r *rand.Rand, n, i int) string {
	if i == 0 {
		return `forbid (principal, action, resource) when { context.session.denials > 50 };`
	}
	effect := "permit"
	if i%10 == 0 {
		effect = "forbid"
	}
	tool := r.IntN(tools(n))
	return fmt.Sprintf(`%s (principal in Group::"g%d", action == Action::%q, resource == Server::"server%d")
when { context.input.amount <= %d && context.session.calls < %d && principal.clearance >= resource.sensitivity };`,
		effect, group(r, n), action(tool), tool/toolsPerServer, r.IntN(500), 10+r.IntN(90))
}

// mixed is a set of many shapes, among them twenty that no index can help,
// which leaves about thirty candidates for a request.
func mixed(r *rand.Rand, n, i int) string {
	agent, tool := r.IntN(agents(n)), r.IntN(tools(n))
	condition := fmt.Sprintf(`context.input.amount <= %d && context.input.recipient like "*@%s.example"`,
		r.IntN(500), []string{"one", "two", "three"}[r.IntN(3)])
	effect := "permit"
	if r.IntN(10) == 0 {
		effect = "forbid"
	}
	if i < 20 {
		return fmt.Sprintf(`forbid (principal, action, resource)
when { context.session.calls > %d && context.session.labels.contains("label%d") };`, 90+i, i)
	}
	scope := ""
	switch k := r.IntN(100); {
	case k < 75:
		scope = fmt.Sprintf(`principal in Group::"g%d", action == Action::%q, resource`, group(r, n), action(tool))
	case k < 85:
		scope = fmt.Sprintf(`principal == Agent::"a%d", action == Action::%q, resource`, agent, action(tool))
	case k < 90:
		scope = fmt.Sprintf(`principal in Group::"g%d", action, resource`, departments+r.IntN(groups(n)-departments))
	case k < 95:
		scope = fmt.Sprintf(`principal is Agent, action in [Action::%q, Action::%q], resource is Server`, action(tool), action(r.IntN(tools(n))))
	default:
		scope = fmt.Sprintf(`principal in Group::"g%d", action in [Action::%q, Action::"read"], resource`,
			departments+r.IntN(groups(n)-departments), action(tool))
	}
	return fmt.Sprintf("%s (%s)\nwhen { %s };", effect, scope, condition)
}

// newWorkload makes n policies of a kind and requests to them, the same ones
// each time.
func newWorkload(tb testing.TB, n int, kind func(r *rand.Rand, n, i int) string) *workload {
	tb.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 1))
	c := policy.Config{Schema: schema(n)}
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			c.Policies = append(c.Policies, policy.Source{File: fmt.Sprintf("%d.cedar", len(c.Policies)), Text: []byte(text.String())})
			text.Reset()
		}
	}
	for i := range n {
		fmt.Fprintf(&text, "@id(\"p%06d\")\n%s\n", i, kind(r, n, i))
		if text.Len() > 500_000 {
			flush()
		}
	}
	flush()
	set, err := policy.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		tb.Fatal(err)
	}
	known := entities(r, n)
	world, err := engine.NewWorld(known)
	if err != nil {
		tb.Fatal(err)
	}
	w := &workload{set: set, program: program, world: world}
	for range requests {
		w.add(r, n)
	}
	return w
}

func entity(t types.EntityType, format string, i int) types.EntityUID {
	return types.NewEntityUID(t, types.String(fmt.Sprintf(format, i)))
}

// entities are the agents in their teams and departments, and the things of
// the servers, of which a company has more than it has rules about.
func entities(r *rand.Rand, n int) types.EntityMap {
	all := types.EntityMap{}
	add := func(uid types.EntityUID, attributes types.RecordMap, parents ...types.EntityUID) {
		all[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...), Attributes: types.NewRecord(attributes)}
	}
	for g := range groups(n) {
		if g < departments {
			add(entity("Group", "g%d", g), nil)
		} else {
			add(entity("Group", "g%d", g), nil, entity("Group", "g%d", g%departments))
		}
	}
	for a := range agents(n) {
		var of []types.EntityUID
		for range 3 {
			of = append(of, entity("Group", "g%d", departments+r.IntN(groups(n)-departments)))
		}
		add(entity("Agent", "a%d", a), types.RecordMap{"clearance": types.Long(2 + r.IntN(3))}, of...)
	}
	for s := range (tools(n)-1)/toolsPerServer + 1 {
		add(entity("Server", "server%d", s), types.RecordMap{"sensitivity": types.Long(r.IntN(3))})
	}
	for t := range things(n) {
		add(entity("Thing", "thing%d", t), nil, entity("Server", "server%d", t%tools(n)/toolsPerServer))
	}
	return all
}

// add adds a request, in both forms.
func (w *workload) add(r *rand.Rand, n int) {
	tool := r.IntN(tools(n))
	now := types.NewDatetime(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	req := &engine.Request{
		Principal: entity("Agent", "a%d", r.IntN(agents(n))),
		Action:    types.NewEntityUID("Action", types.String(action(tool))),
		Resource:  entity("Server", "server%d", tool/toolsPerServer),
		World:     w.world,
		Fields: engine.Fields{
			engine.Nested("input", engine.Fields{
				engine.Long("amount", r.Int64N(1000)),
				engine.String("recipient", []string{"a@one.example", "b@two.example"}[r.IntN(2)]),
				engine.Strings("tags", []string{"x"}),
			}),
			engine.Nested("session", engine.Fields{
				engine.String("id", "s"), engine.Strings("labels", []string{"untrusted", "label3"}),
				engine.Long("calls", r.Int64N(100)), engine.Long("denials", r.Int64N(3)), engine.Datetime("started", now),
			}),
			engine.Nested("auth", engine.Fields{engine.String("method", "key")}),
			engine.Datetime("now", now), engine.String("gate", "mcp-http"),
		},
	}
	boxed := *req
	boxed.World, boxed.Entities = nil, w.around(req.Principal, req.Resource)
	boxed.Fields, boxed.Context = nil, req.Record()
	w.requests, w.boxed = append(w.requests, req), append(w.boxed, &boxed)
}

// around returns entities and all that they are in.
func (w *workload) around(uids ...types.EntityUID) types.EntityMap {
	m := types.EntityMap{}
	for i := 0; i < len(uids); i++ {
		e, _ := w.world.Entity(uids[i]) // all are there
		m[uids[i]] = e
		uids = append(uids, e.Parents.Slice()...)
	}
	return m
}

// candidates returns how many policies have a scope that fits a request, on
// average over some requests.
func (w *workload) candidates() float64 {
	const some = 16
	n := 0
	for _, req := range w.requests[:some] {
		e := w.program.Explain(req)
		n += len(e.Considered) + e.Omitted
	}
	return float64(n) / some
}

// authorize asks plain Cedar, a request of w.boxed.
func (w *workload) authorize(req *engine.Request) (types.Decision, types.Diagnostic) {
	if w.cedar == nil {
		w.cedar = cedar.PolicyMap{}
		for _, p := range w.set.Policies() {
			w.cedar[types.PolicyID(p.ID)] = cedar.NewPolicyFromAST((*cedarast.Policy)(p.AST))
		}
	}
	return cedar.Authorize(w.cedar, withActions{req.Entities, w.set},
		cedar.Request{Principal: req.Principal, Action: req.Action, Resource: req.Resource, Context: req.Context})
}

// withActions adds the schema's actions to a request's entities.
type withActions struct {
	types.EntityMap
	set *policy.Set
}

func (e withActions) Get(uid types.EntityUID) (types.Entity, bool) {
	if a, ok := e.set.Schema().Actions[uid]; ok {
		return a.Entity, true
	}
	return e.EntityMap.Get(uid)
}
