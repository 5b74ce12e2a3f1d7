package coaz_test

import (
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
)

// The schema is accepted beside the catalogue's own, under any name, and every
// request of a default mapping is one of its operations: its subject, action,
// resource and context are of its types.
func TestDefaultRequestsAreTyped(t *testing.T) {
	for _, namespace := range []string{"Mcp", "Gateway::Tools"} {
		c, err := catalog.New(catalog.Config{Lock: &catalog.Lock{}, Schema: []byte(coaz.Schema(namespace))})
		if err != nil {
			t.Fatal(err)
		}
		for _, method := range coaz.Methods() {
			for _, params := range messages[method] {
				for _, claims := range []string{token, `{"sub":"alice","aud":"https://mcp.example.com"}`} {
					m, _ := coaz.Default(method)
					e := mapped(t, m, coaz.Input{Params: raw(params), Token: raw(claims)}).Evaluations[0]
					op, ok := c.Find(namespace, e.Action)
					if !ok || op.Application != namespace {
						t.Errorf("%s: no operation of %s", method, namespace)
						continue
					}
					subject, knowsSubject := c.EntityType(namespace, e.Subject.Type)
					resource, knowsResource := c.EntityType(namespace, e.Resource.Type)
					if !knowsSubject || !knowsResource || !c.Applies(op, subject, resource) || !strings.HasPrefix(string(resource), namespace+"::") {
						t.Errorf("%s does not apply to %s and %s", method, e.Subject.Type, e.Resource.Type)
					}
					context, err := op.Context(c, nil, e.Context)
					if err != nil {
						t.Errorf("%s: context: %v", method, err)
					}
					// All that the mapping says can be seen by a policy.
					if said := decode(t, e.Context).(map[string]any); len(said) != len(context) {
						t.Errorf("%s: policies see %v of %s", method, context, e.Context)
					}
					if agent, ok := context["agent"]; ok && agent != types.String("bot") {
						t.Errorf("%s: agent %v", method, agent)
					}
				}
			}
		}
	}
}

// No action of the schema is one that has no mapping, so that nothing in it is
// dead, and what a tool does is taken to be the worst.
func TestSchemaHasNoOtherActions(t *testing.T) {
	c, err := catalog.New(catalog.Config{Lock: &catalog.Lock{}, Schema: []byte(coaz.Schema("Mcp"))})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, op := range c.Operations() {
		if op.Application != "Mcp" {
			continue
		}
		seen++
		if _, ok := coaz.Default(op.Name); !ok {
			t.Errorf("%s has no mapping", op.Name)
		}
		if worst := "destructive external write"; (strings.Join(op.Effects, " ") == worst) != (op.Name == "tools/call") {
			t.Errorf("%s: %v", op.Name, op.Effects)
		}
	}
	if seen != len(coaz.Methods()) {
		t.Errorf("%d actions, %d methods", seen, len(coaz.Methods()))
	}
}
