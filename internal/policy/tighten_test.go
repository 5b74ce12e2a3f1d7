package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"pgregory.net/rapid"
)

const riskSchema = `
entity Agent;
entity Server;
action "act" appliesTo { principal: [Agent], resource: [Server], context: {
	risk: { score: Long, reasons: Set<String> }, session: { labels: Set<String>, denials: Long, calls: Long, integrity: Long, confidentiality: Long }, flag: Bool, n: Long, names: Set<String>,
	authority?: Origin, content?: Origin, args?: { to: Origin, cc?: Origin } } };
type Origin = { origin: String, trust: Long, named: Bool, contested: Bool, tool: String, step: Long };
`

func riskConfig(policies string) Config {
	return Config{Schema: []byte(riskSchema), Policies: []Source{{File: "a.cedar", Text: []byte(policies)}}}
}

func TestRiskOnlyTightens(t *testing.T) {
	t.Parallel()
	const loosens, unknown = "loosens", "cannot be told"
	for _, tt := range []struct{ policy, want string }{
		{`permit (principal, action, resource) when { context.risk.score < 50 }`, ""},
		{`permit (principal, action, resource) when { 50 >= context.risk.score && context.flag }`, ""},
		{`permit (principal, action, resource) unless { context.risk.score > 50 || context.session.denials > 3 }`, ""},
		{`forbid (principal, action, resource) when { context.session.labels.contains("secret") }`, ""},
		{`forbid (principal, action, resource) unless { context.risk.reasons.isEmpty() }`, ""},
		{`forbid (principal, action, resource) when { context.risk.reasons.containsAny(["rate", "hour"]) }`, ""},
		{`forbid (principal, action, resource) when { context.names.containsAny(context.session.labels) }`, ""},
		{`permit (principal, action, resource) when { context.names.containsAll(context.session.labels) }`, ""},
		{`forbid (principal, action, resource) when { if context.risk.score > 9 then true else false }`, ""},
		{`forbid (principal, action, resource) when { if context.flag then context.risk.score > 9 else context.risk.score > 99 }`, ""},
		{`permit (principal, action, resource) when { context.session.calls > 5 }`, ""},
		{`permit (principal, action, resource) when { context has risk && context.n == 3 }`, ""},

		{`forbid (principal, action, resource) when { context has authority && context.authority.trust < 2 && !context.authority.named }`, ""},
		{`forbid (principal, action, resource) when { context has authority && context.authority.contested } unless { context has authority && context.authority.named }`, ""},
		{`permit (principal, action, resource) when { context has args && context.args.to.trust >= 3 }`, ""},
		{`forbid (principal, action, resource) when { context has args && context.args has cc && context.args.cc.origin != "user" }`, ""},
		{`forbid (principal, action, resource) unless { context has args && "user" == context.args.to.origin }`, ""},
		{`forbid (principal, action, resource) when { context has args && context.args.to.tool == "a/b" }`, ""},
		{`forbid (principal, action, resource) when { context.session.integrity < 2 }`, ""},

		{`permit (principal, action, resource) when { context.risk.score > 50 }`, loosens},
		{`forbid (principal, action, resource) when { context has authority && context.authority.trust > 2 }`, loosens},
		{`permit (principal, action, resource) when { context has content && context.content.contested }`, loosens},
		{`permit (principal, action, resource) when { context has args && context.args.to.origin != "user" }`, loosens},
		{`forbid (principal, action, resource) when { context has args && context.args.to.named }`, loosens},
		{`permit (principal, action, resource) when { context.session.integrity < 2 }`, loosens},
		{`forbid (principal, action, resource) when { context.session.confidentiality < 2 }`, loosens},
		{`forbid (principal, action, resource) when { context has args && context.args.to.origin == "structure" }`, unknown},
		{`forbid (principal, action, resource) when { context has args && context.args.to == context.args.to }`, unknown},
		{`forbid (principal, action, resource) when { context has authority && context has content && context.authority == context.content }`, unknown},
		{`permit (principal, action, resource) when { !(context.risk.score < 50) }`, loosens},
		{`permit (principal, action, resource) unless { context.risk.score <= 50 }`, loosens},
		{`permit (principal, action, resource) when { context.flag } when { context.session.labels.contains("approved") }`, loosens},
		{`forbid (principal, action, resource) when { context.risk.score < 50 }`, loosens},
		{`forbid (principal, action, resource) unless { context.session.denials > 2 }`, loosens},
		{`forbid (principal, action, resource) when { ["a"].containsAll(context.session.labels) }`, loosens},
		{`forbid (principal, action, resource) when { if context.risk.score > 9 then false else true }`, loosens},

		{`permit (principal, action, resource) when { context.risk.score == 50 }`, unknown},
		{`permit (principal, action, resource) when { context.risk.score + 1 < 50 }`, unknown},
		{`permit (principal, action, resource) when { context.risk.score > 3 && context.session.denials < 5 }`, unknown},
		{`forbid (principal, action, resource) when { context.risk == {score: 3, reasons: ["rate"]} }`, unknown},
		{`forbid (principal, action, resource) when { {a: context.risk}.a.score < 3 }`, unknown},
		{`forbid (principal, action, resource) when { {a: context}.a.n < 3 }`, unknown},
		{`forbid (principal, action, resource) when { if context.risk.score > 9 then context.flag else true }`, unknown},
		{`forbid (principal, action, resource) when { context.session.labels == ["a"] }`, unknown},
		{`forbid (principal, action, resource) when { [context.risk.score].contains(3) }`, unknown},
	} {
		_, err := New(riskConfig(`@id("p") ` + tt.policy + `;`))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\n%v, want %q", tt.policy, err, tt.want)
		}
	}
	if _, err := New(riskConfig("@id(\"p\") permit (principal, action, resource)\nwhen { context.flag }\nwhen { context.risk.score > 3 };")); err == nil || !strings.Contains(err.Error(), "a.cedar:3:1") {
		t.Errorf("where is it? %v", err)
	}
}

// drawCondition draws an expression that is a truth value.
func drawCondition(t *rapid.T, depth int) string {
	number := func() string {
		return rapid.SampledFrom([]string{"context.risk.score", "context.session.denials", "context.session.calls", "context.n", "0", "1", "2"}).Draw(t, "number")
	}
	set := func() string {
		return rapid.SampledFrom([]string{"context.risk.reasons", "context.session.labels", "context.names", `["a"]`, `["a", "b"]`}).Draw(t, "set")
	}
	sub := func() string { return drawCondition(t, depth-1) }
	last := 5
	if depth > 0 {
		last = 9
	}
	switch rapid.IntRange(0, last).Draw(t, "kind") {
	case 0, 1:
		return fmt.Sprintf("(%s %s %s)", number(), rapid.SampledFrom([]string{"<", "<=", ">", ">=", "=="}).Draw(t, "op"), number())
	case 2:
		return fmt.Sprintf(`%s.contains("a")`, set())
	case 3:
		return fmt.Sprintf("%s.containsAll(%s)", set(), set())
	case 4:
		return fmt.Sprintf("%s.containsAny(%s)", set(), set())
	case 5:
		return rapid.SampledFrom([]string{"context.flag", "true", "context.risk.reasons.isEmpty()"}).Draw(t, "leaf")
	case 6:
		return fmt.Sprintf("(%s && %s)", sub(), sub())
	case 7:
		return fmt.Sprintf("(%s || %s)", sub(), sub())
	case 8:
		return fmt.Sprintf("!(%s)", sub())
	default:
		return fmt.Sprintf("(if %s then %s else %s)", sub(), sub(), sub())
	}
}

// What is accepted never allows more as things get worse, as cedar-go decides.
func TestAcceptedPoliciesOnlyTighten(t *testing.T) {
	t.Parallel()
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for i := range rapid.IntRange(1, 3).Draw(t, "policies") {
			fmt.Fprintf(&b, "@id(\"p%d\") %s (principal, action, resource) %s { %s };\n", i,
				rapid.SampledFrom([]string{"permit", "forbid"}).Draw(t, "effect"),
				rapid.SampledFrom([]string{"when", "unless"}).Draw(t, "word"), drawCondition(t, 2))
		}
		set, err := New(riskConfig(b.String()))
		if err != nil {
			return
		}
		accepted++
		cs := cedar.NewPolicySet()
		for _, p := range set.Policies() {
			cs.Add(cedar.PolicyID(p.ID), cedar.NewPolicyFromAST((*cedarast.Policy)(p.AST)))
		}
		long := func(name string) int64 { return rapid.Int64Range(0, 3).Draw(t, name) }
		names := func(name string) []types.Value {
			var vs []types.Value
			for _, s := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 2).Draw(t, name) {
				vs = append(vs, types.String(s))
			}
			return vs
		}
		flag, n, own := rapid.Bool().Draw(t, "flag"), long("n"), names("names")
		calls, score, denials, labels, reasons := long("calls"), long("score"), long("denials"), names("labels"), names("reasons")
		allows := func(score, denials int64, labels, reasons []types.Value) bool {
			d, diag := cedar.Authorize(cs, types.EntityMap{}, cedar.Request{
				Principal: types.NewEntityUID("Agent", "a"), Action: types.NewEntityUID("Action", "act"), Resource: types.NewEntityUID("Server", "s"),
				Context: types.NewRecord(types.RecordMap{
					"risk":    types.NewRecord(types.RecordMap{"score": types.Long(score), "reasons": types.NewSet(reasons...)}),
					"session": types.NewRecord(types.RecordMap{"labels": types.NewSet(labels...), "denials": types.Long(denials), "calls": types.Long(calls)}),
					"flag":    types.Boolean(flag), "n": types.Long(n), "names": types.NewSet(own...),
				}),
			})
			return d == cedar.Allow && len(diag.Errors) == 0
		}
		better := allows(score, denials, labels, reasons)
		worse := allows(score+long("more"), denials+long("more"), append(labels, names("more")...), append(reasons, names("more")...))
		if worse && !better {
			t.Fatalf("worse is allowed and better is not:\n%s", b.String())
		}
	})
	if accepted < 10 {
		t.Errorf("only %d sets were accepted", accepted)
	}
}
