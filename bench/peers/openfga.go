package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// openfga has a tuple for each policy, whose condition holds the policy's
// limits, and for each membership. The agent's clearance comes with the
// question, because a relation for it would be one more thing to look up.
func openfga() *server {
	var store, model string
	return &server{
		name: "openfga", version: "v1.22.1",
		layout: "one conditional tuple per policy, memory store, caches off (the default); groups and sensitivity stored, clearance in the request",
		binary: func(ctx context.Context) (string, error) {
			return install(ctx, "github.com/openfga/openfga", "v1.22.1", "./cmd/openfga")
		},
		write: func(_, addr string, _ *workload) ([]string, error) {
			grpc, err := freeAddr()
			return []string{"run", "--datastore-engine", "memory", "--http-addr", addr, "--grpc-addr", grpc,
				"--playground-enabled=false", "--metrics-enabled=false", "--log-level", "none"}, err
		},
		load: func(ctx context.Context, addr string, w *workload) error {
			created := func(path string, v any) (id string, err error) {
				var answer struct {
					ID    string `json:"id"`
					Model string `json:"authorization_model_id"`
				}
				text, err := post(ctx, "http://"+addr+path, "", v)
				if err == nil {
					err = json.Unmarshal(text, &answer)
				}
				return answer.ID + answer.Model, err
			}
			var err error
			if store, err = created("/stores", object{"name": "bench"}); err != nil {
				return err
			}
			if model, err = created("/stores/"+store+"/authorization-models", json.RawMessage(openfgaModel())); err != nil {
				return err
			}
			tuples := openfgaTuples(w)
			for len(tuples) > 0 {
				n := min(100, len(tuples))
				if _, err := created("/stores/"+store+"/write", object{"authorization_model_id": model, "writes": object{"tuple_keys": tuples[:n]}}); err != nil {
					return err
				}
				tuples = tuples[n:]
			}
			return nil
		},
		ask: func(w *workload, q question) (string, any) {
			facts := q.context()
			facts["clearance"] = w.agents[q.agent].clearance
			return "/stores/" + store + "/check", object{
				"authorization_model_id": model,
				"tuple_key":              tuple(fmt.Sprintf("agent:a%d", q.agent), "can_call", q.tool),
				"context":                facts,
			}
		},
		yes: `"allowed":true`, no: `"allowed":false`,
	}
}

func openfgaModel() string {
	return fmt.Sprintf(`{"schema_version": "1.1",
"type_definitions": [
 {"type": "agent"},
 {"type": "group", "relations": {"member": {"this": {}}},
  "metadata": {"relations": {"member": {"directly_related_user_types": [{"type": "agent"}]}}}},
 {"type": "tool", "relations": {"permit": {"this": {}}, "forbid": {"this": {}},
   "can_call": {"difference": {"base": {"computedUserset": {"relation": "permit"}}, "subtract": {"computedUserset": {"relation": "forbid"}}}}},
  "metadata": {"relations": {
   "permit": {"directly_related_user_types": [{"type": "group", "relation": "member", "condition": "rule"}]},
   "forbid": {"directly_related_user_types": [{"type": "group", "relation": "member", "condition": "rule"}]}}}}],
"conditions": {"rule": {"name": "rule",
  "expression": "risk <= %d && risk <= max_risk && amount <= max_amount && hour >= from && hour < to && clearance >= sensitivity",
  "parameters": {"risk": {"type_name": "TYPE_NAME_INT"}, "amount": {"type_name": "TYPE_NAME_INT"}, "hour": {"type_name": "TYPE_NAME_INT"},
   "clearance": {"type_name": "TYPE_NAME_INT"}, "sensitivity": {"type_name": "TYPE_NAME_INT"},
   "max_risk": {"type_name": "TYPE_NAME_INT"}, "max_amount": {"type_name": "TYPE_NAME_INT"},
   "from": {"type_name": "TYPE_NAME_INT"}, "to": {"type_name": "TYPE_NAME_INT"}}}}}`, forbiddenRisk)
}

func tuple(user, relation string, tool int) object {
	return object{"user": user, "relation": relation, "object": fmt.Sprintf("tool:t%d", tool)}
}

func openfgaTuples(w *workload) []object {
	var tuples []object
	for _, u := range w.rules {
		t := tuple(fmt.Sprintf("group:g%d#member", u.group), effect(u), u.tool)
		t["condition"] = object{"name": "rule", "context": object{
			"max_risk": u.risk, "max_amount": u.amount, "from": u.from, "to": u.to, "sensitivity": w.sensitivity[u.tool],
		}}
		tuples = append(tuples, t)
	}
	for i := range w.agents {
		for _, g := range w.groupNames(i) {
			tuples = append(tuples, object{"user": fmt.Sprintf("agent:a%d", i), "relation": "member", "object": "group:" + g})
		}
	}
	return tuples
}
