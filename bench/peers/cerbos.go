package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// cerbos has one resource policy for each tool, and groups are roles.
// Attributes come with the question.
func cerbos() *server {
	return &server{
		name: "cerbos", version: "v0.55.0",
		layout: "one resource policy per tool, groups as roles, disk store; audit off; roles and attributes in the request",
		binary: func(ctx context.Context) (string, error) {
			return installReplaced(ctx, "github.com/cerbos/cerbos", "v0.55.0", "./cmd/cerbos")
		},
		write: func(dir, addr string, w *workload) ([]string, error) {
			grpc, err := freeAddr()
			if err != nil {
				return nil, err
			}
			policies := filepath.Join(dir, "policies")
			if err := os.MkdirAll(policies, 0o755); err != nil {
				return nil, err
			}
			byTool := make([][]rule, len(w.sensitivity))
			for _, u := range w.rules {
				byTool[u.tool] = append(byTool[u.tool], u)
			}
			for t, rules := range byTool {
				var b strings.Builder
				fmt.Fprintf(&b, `apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: t%d
  version: default
  rules:
    - actions: ["*"]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: "R.attr.risk > %d"}}
`, t, forbiddenRisk)
				for _, u := range rules {
					effect, role, group := "EFFECT_ALLOW", fmt.Sprintf("g%d", u.group), ""
					if u.forbid {
						// Between the roles of one principal an allow outweighs a
						// deny, so a rule that forbids is for everybody.
						effect, role, group = "EFFECT_DENY", "*", fmt.Sprintf("'%s' in P.roles && ", role)
					}
					fmt.Fprintf(&b, `    - actions: [call_tool]
      effect: %s
      roles: [%q]
      condition: {match: {expr: "%sR.attr.risk <= %d && R.attr.amount <= %d && R.attr.hour >= %d && R.attr.hour < %d && P.attr.clearance >= R.attr.sensitivity"}}
`, effect, role, group, u.risk, u.amount, u.from, u.to)
				}
				if err := os.WriteFile(filepath.Join(policies, fmt.Sprintf("t%d.yaml", t)), []byte(b.String()), 0o644); err != nil {
					return nil, err
				}
			}
			config := fmt.Sprintf(`server: {httpListenAddr: %q, grpcListenAddr: %q}
storage: {driver: disk, disk: {directory: %q, watchForChanges: false}}
audit: {enabled: false}
telemetry: {disabled: true}
`, addr, grpc, policies)
			return []string{"server", "--config", "cerbos.yaml", "--log-level", "error"},
				os.WriteFile(filepath.Join(dir, "cerbos.yaml"), []byte(config), 0o644)
		},
		ask: func(w *workload, q question) (string, any) {
			attr := q.context()
			attr["sensitivity"] = w.sensitivity[q.tool]
			tool := fmt.Sprintf("t%d", q.tool)
			return "/api/check/resources", object{
				"requestId": "1",
				"principal": object{
					"id": fmt.Sprintf("a%d", q.agent), "roles": w.groupNames(q.agent),
					"attr": object{"clearance": w.agents[q.agent].clearance},
				},
				"resources": []object{{"actions": []string{"call_tool"}, "resource": object{"kind": tool, "id": tool, "attr": attr}}},
			}
		},
		yes: "EFFECT_ALLOW", no: "EFFECT_DENY",
	}
}
