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
	requests []*engine.Request
}

// The sizes of a company with n policies: as the set grows, so do the tools,
// the teams and the agents, and what concerns one request stays the same.
func tools(n int) int  { return max(2, n/40) }
func groups(n int) int { return departments + max(10, n/20) }
func agents(n int) int { return min(20_000, max(20, 2*n)) }

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
	w := &workload{set: set, program: program}
	for range requests {
		w.requests = append(w.requests, newRequest(r, n))
	}
	return w
}

func newRequest(r *rand.Rand, n int) *engine.Request {
	entity := func(t types.EntityType, format string, i int) types.EntityUID {
		return types.NewEntityUID(t, types.String(fmt.Sprintf(format, i)))
	}
	tool := r.IntN(tools(n))
	server := entity("Server", "server%d", tool/toolsPerServer)
	agent := entity("Agent", "a%d", r.IntN(agents(n)))
	entities := types.EntityMap{
		server: {UID: server, Attributes: types.NewRecord(types.RecordMap{"sensitivity": types.Long(r.IntN(3))})},
	}
	// As the PDP makes them: an agent in its groups, which are in nothing.
	var of []types.EntityUID
	for range 3 {
		team := departments + r.IntN(groups(n)-departments)
		of = append(of, entity("Group", "g%d", team), entity("Group", "g%d", team%departments))
	}
	for _, g := range of {
		entities[g] = types.Entity{UID: g}
	}
	entities[agent] = types.Entity{UID: agent, Parents: types.NewEntityUIDSet(of...),
		Attributes: types.NewRecord(types.RecordMap{"clearance": types.Long(2 + r.IntN(3))})}
	now := types.NewDatetime(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	return &engine.Request{
		Principal: agent,
		Action:    types.NewEntityUID("Action", types.String(action(tool))),
		Resource:  server,
		Entities:  entities,
		Context: types.NewRecord(types.RecordMap{
			"input": types.NewRecord(types.RecordMap{
				"amount":    types.Long(r.IntN(1000)),
				"recipient": types.String([]string{"a@one.example", "b@two.example"}[r.IntN(2)]),
				"tags":      types.NewSet(types.String("x")),
			}),
			"session": types.NewRecord(types.RecordMap{
				"id": types.String("s"), "labels": types.NewSet(types.String("untrusted"), types.String("label3")),
				"calls": types.Long(r.IntN(100)), "denials": types.Long(r.IntN(3)), "started": now,
			}),
			"auth": types.NewRecord(types.RecordMap{"method": types.String("key")}),
			"now":  now, "gate": types.String("mcp-http"),
		}),
	}
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

// authorize asks plain Cedar.
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
