package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// cedarSchema is the schema of [cedarPolicies].
const cedarSchema = `entity Group;
entity Agent in [Group] { clearance: Long };
entity Tool { sensitivity: Long };
action "call_tool" appliesTo {
  principal: [Agent], resource: [Tool],
  context: { risk: Long, amount: Long, hour: Long },
};
`

// cedarPolicies are the rules in Cedar.
func cedarPolicies(w *workload) string {
	var b strings.Builder
	fmt.Fprintf(&b, "@id(\"p0\")\nforbid (principal, action, resource)\nwhen { context.risk > %d };\n", forbiddenRisk)
	for i, u := range w.rules {
		fmt.Fprintf(&b, `@id("p%d")
%s (principal in Group::"g%d", action == Action::"call_tool", resource == Tool::"t%d")
when { context.risk <= %d && context.amount <= %d && context.hour >= %d && context.hour < %d && principal.clearance >= resource.sensitivity };
`, i+1, effect(u), u.group, u.tool, u.risk, u.amount, u.from, u.to)
	}
	return b.String()
}

// cedarEntities are the agents in their groups, and the tools.
func cedarEntities(w *workload) types.EntityMap {
	entities := types.EntityMap{}
	add := func(uid types.EntityUID, attribute types.String, value int, parents ...types.EntityUID) {
		entities[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...),
			Attributes: types.NewRecord(types.RecordMap{attribute: types.Long(value)})}
	}
	for t, sensitivity := range w.sensitivity {
		add(uid("Tool", "t", t), "sensitivity", sensitivity)
	}
	for i, a := range w.agents {
		var in []types.EntityUID
		for _, g := range a.groups {
			group := uid("Group", "g", g)
			entities[group] = types.Entity{UID: group}
			in = append(in, group)
		}
		add(uid("Agent", "a", i), "clearance", a.clearance, in...)
	}
	return entities
}

func uid(typ types.EntityType, letter string, i int) types.EntityUID {
	return types.NewEntityUID(typ, types.String(letter+strconv.Itoa(i)))
}

// plainCedar is cedar.Authorize of cedar-go, which looks at every policy,
// behind net/http and encoding/json.
func plainCedar() *server {
	return &server{
		name: "cedar", version: module("github.com/cedar-policy/cedar-go"),
		layout: "`cedar.Authorize` behind net/http and encoding/json, no index; groups and attributes in the server",
		binary: self,
		write: func(_, addr string, w *workload) ([]string, error) {
			return []string{"-serve", "cedar", "-addr", addr, "-n", strconv.Itoa(w.n)}, nil
		},
		ask: askAuthZEN, yes: `"decision":true`, no: `"decision":false`,
	}
}

// echo is the floor: net/http reads the question and answers with constant
// JSON. Whatever speaks HTTP in Go costs this much.
func echo() *server {
	return &server{
		name: "echo", version: "net/http",
		layout: "the floor: reads the body, writes constant JSON, decides nothing",
		binary: self,
		write: func(_, addr string, _ *workload) ([]string, error) {
			return []string{"-serve", "echo", "-addr", addr}, nil
		},
		ask: askAuthZEN, yes: `"decision":`, no: `"decision":`,
	}
}

func askAuthZEN(_ *workload, q question) (string, any) { return "/access/v1/evaluation", q.authzen() }

func self(context.Context) (string, error) { return os.Executable() }

// serve is the process of echo or of plain Cedar.
func serve(what, addr string, n int) error {
	decide := func([]byte) (bool, error) { return true, nil }
	if what == "cedar" {
		var err error
		if decide, err = cedarDecider(newWorkload(n)); err != nil {
			return err
		}
	}
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		allow, err := decide(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"decision":%t}`, allow)
	}))
}

// cedarDecider decides AuthZEN questions by plain Cedar.
func cedarDecider(w *workload) (func(body []byte) (bool, error), error) {
	policies, err := cedar.NewPolicySetFromBytes("policies.cedar", []byte(cedarPolicies(w)))
	if err != nil {
		return nil, err
	}
	entities := cedarEntities(w)
	return func(body []byte) (bool, error) {
		var q struct {
			Subject  struct{ Type, ID string }
			Action   struct{ Name string }
			Resource struct{ Type, ID string }
			Context  struct{ Risk, Amount, Hour types.Long }
		}
		if err := json.Unmarshal(body, &q); err != nil {
			return false, err
		}
		decision, _ := cedar.Authorize(policies, entities, cedar.Request{
			Principal: types.NewEntityUID("Agent", types.String(q.Subject.ID)),
			Action:    types.NewEntityUID("Action", types.String(q.Action.Name)),
			Resource:  types.NewEntityUID("Tool", types.String(q.Resource.ID)),
			Context: types.NewRecord(types.RecordMap{
				"risk": q.Context.Risk, "amount": q.Context.Amount, "hour": q.Context.Hour,
			}),
		})
		return bool(decision), nil
	}, nil
}
