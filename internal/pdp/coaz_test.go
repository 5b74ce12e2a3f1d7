package pdp_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
)

// getCustomer declares its mapping; listCustomers has the default one.
const (
	getCustomer = `{"name":"get_customer","inputSchema":{"type":"object","properties":{"id":{"type":"string"},"case":{"type":"string"}},"required":["id"],
		"x-authzen-mapping":{"evaluation":{"subject":{"type":"identity","id":"$token.sub"},"action":{"name":"get_customer"},
		"resource":{"type":"customer","id":"$params.arguments.id"},"context":{"agent":"$token.?client_id","case":"$params.arguments.?case"}}}}}`
	listCustomers = `{"name":"list_customers","inputSchema":{"type":"object"}}`
)

const crmSchema = `namespace Crm {
	entity identity, tool, customer, mcp_server;
	action get_customer appliesTo { principal: identity, resource: customer, context: { agent?: String, case?: String } };
	action "tools/call" appliesTo { principal: identity, resource: tool, context: { agent?: String } };
};
`

func coazVersion(t *testing.T, bound, cedar string) (*pdp.Version, error) {
	t.Helper()
	lock := &catalog.Lock{}
	for _, def := range []string{getCustomer, listCustomers} {
		if _, err := lock.Pin("crm", json.RawMessage(def)); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := catalog.ParseOverlay([]byte(bound))
	if err != nil {
		t.Fatal(err)
	}
	cat, err := catalog.New(catalog.Config{Lock: lock, Overlay: overlay, Schema: []byte(strings.TrimSuffix(strings.TrimSpace(crmSchema), ";"))})
	if err != nil {
		return nil, err
	}
	set, err := policy.New(policy.Config{Policies: []policy.Source{{File: "p.cedar", Text: []byte(cedar)}}, Schema: cat.Schema()})
	if err != nil {
		t.Fatal(err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return pdp.NewVersion(cat, program, risk.DefaultScorecard())
}

// What a bound server's mapping asks must be allowed beside what the plane asks
// itself, and can allow nothing alone.
func TestMappingOfABoundServerOnlyTightens(t *testing.T) {
	const (
		bound = "servers: {crm: {coaz: Crm, tools: {get_customer: {effects: [read]}, list_customers: {effects: [read]}}}}\n"
		loose = "servers: {crm: {tools: {get_customer: {effects: [read]}, list_customers: {effects: [read]}}}}\n"
		own   = `@id("own") permit (principal == Agent::"clerk", action in Action::"read", resource);` + "\n"
		asked = `@id("asked") permit (principal == Crm::identity::"clerk", action == Crm::Action::"get_customer", resource == Crm::customer::"c-1")
			when { context has agent && context.agent == "clerk" };` + "\n" +
			`@id("any-tool") permit (principal, action == Crm::Action::"tools/call", resource == Crm::tool::"list_customers");` + "\n"
	)
	for _, tt := range []struct {
		name, overlay, cedar, action, input string
		code                                string
		policies                            string
	}{
		{name: "both allow", overlay: bound, cedar: own + asked, action: "crm/get_customer", input: `{"id":"c-1"}`, code: authz.ReasonPolicyAllow, policies: "own asked"},
		{name: "the mapping denies", overlay: bound, cedar: own + asked, action: "crm/get_customer", input: `{"id":"c-2"}`, code: authz.ReasonNoPermit},
		{name: "the plane denies", overlay: bound, cedar: asked, action: "crm/get_customer", input: `{"id":"c-1"}`, code: authz.ReasonNoPermit},
		{name: "default mapping", overlay: bound, cedar: own + asked, action: "crm/list_customers", input: `{}`, code: authz.ReasonPolicyAllow, policies: "own any-tool"},
		{name: "default mapping denies", overlay: bound, cedar: own, action: "crm/list_customers", input: `{}`, code: authz.ReasonNoPermit},
		{name: "not bound", overlay: loose, cedar: own, action: "crm/get_customer", input: `{"id":"c-2"}`, code: authz.ReasonPolicyAllow, policies: "own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := coazVersion(t, tt.overlay, tt.cedar)
			if err != nil {
				t.Fatal(err)
			}
			p := withPEPs(t, nil, v, nil)
			d, err := p.Decide(t.Context(), p.request("clerk", tt.action, tt.input))
			if err != nil || d.Code() != tt.code || d.Allow != (tt.code == authz.ReasonPolicyAllow) {
				t.Errorf("%+v, %v", d, err)
			}
			if got := strings.Join(ids(d.Policies), " "); got != tt.policies {
				t.Errorf("determined by %q, want %q", got, tt.policies)
			}
		})
	}
}

// A server is bound to an application that exists, and a mapping that cannot be
// understood is found before it decides anything.
func TestBindingsAreChecked(t *testing.T) {
	if _, err := coazVersion(t, "servers: {crm: {coaz: Nowhere}}\n", ""); err == nil || !strings.Contains(err.Error(), "Nowhere") {
		t.Errorf("an unknown application: %v", err)
	}
	if _, err := coaz.Compile([]byte(`{"evaluation":{"action":{"name":"$1 +"}}}`)); err == nil {
		t.Error("half an expression was accepted")
	}
}
