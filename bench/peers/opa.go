package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// opa has one rego rule for each policy, which its rule index finds by tool:
// the fastest of its layouts. Groups and attributes come with the question.
func opa() *server {
	return &server{
		name: "opa", version: "v1.22.2",
		layout: "one rego rule per policy, indexed by tool; decision logs off; groups and attributes in the request",
		binary: func(ctx context.Context) (string, error) {
			return install(ctx, "github.com/open-policy-agent/opa", "v1.22.2", ".")
		},
		write: func(dir, addr string, w *workload) ([]string, error) {
			var b strings.Builder
			fmt.Fprintf(&b, `package bench

default allow := false

allow if {
	permit
	not forbid
}

forbid if input.context.risk > %d
`, forbiddenRisk)
			for _, u := range w.rules {
				fmt.Fprintf(&b, `
%s if {
	input.action == "call_tool"
	input.resource.id == "t%d"
	input.subject.groups.g%d
	input.context.risk <= %d
	input.context.amount <= %d
	input.context.hour >= %d
	input.context.hour < %d
	input.subject.clearance >= input.resource.sensitivity
}
`, effect(u), u.tool, u.group, u.risk, u.amount, u.from, u.to)
			}
			return []string{"run", "--server", "--addr", addr, "--log-level", "error", "--skip-version-check", "policy.rego"},
				os.WriteFile(filepath.Join(dir, "policy.rego"), []byte(b.String()), 0o644)
		},
		ask: func(w *workload, q question) (string, any) {
			groups := object{}
			for _, g := range w.groupNames(q.agent) {
				groups[g] = true
			}
			return "/v1/data/bench/allow", object{"input": object{
				"subject":  object{"id": fmt.Sprintf("a%d", q.agent), "groups": groups, "clearance": w.agents[q.agent].clearance},
				"action":   "call_tool",
				"resource": object{"id": fmt.Sprintf("t%d", q.tool), "sensitivity": w.sensitivity[q.tool]},
				"context":  q.context(),
			}}
		},
		yes: `"result":true`, no: `"result":false`,
	}
}
