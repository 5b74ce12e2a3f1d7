// Package coaz_test asks the PDP what enforcement points ask that map MCP
// messages as COAZ-MCP says.
package coaz_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
	"github.com/bailiwick-dev/bailiwick/internal/session"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// ownSchema is what the operator adds for the mappings that tools declare.
const ownSchema = `
namespace Crm {
	entity identity, customer, storage_object;
	action "get_customer" appliesTo { principal: identity, resource: customer, context: { agent?: String, case: String } };
	@name("read") action "read it" in [Action::"read"] appliesTo { principal: identity, resource: storage_object, context: { agent?: String } };
	@name("write") action "write it" in [Action::"write"] appliesTo { principal: identity, resource: storage_object, context: { agent?: String } };
}
`

const policies = `
@id("alice-uses-the-search")
permit (principal == Mcp::identity::"alice", action == Mcp::Action::"tools/call", resource == Mcp::tool::"search");

@id("everybody-sees-what-there-is")
permit (principal is Mcp::identity, action in Action::"discover", resource);

@id("not-by-the-rogue-bot")
forbid (principal, action == Mcp::Action::"tools/call", resource)
when { context has agent && context.agent == "rogue" };

@id("alice-reads")
permit (principal == Crm::identity::"alice", action == Crm::Action::"read it", resource);

@id("alice-writes-to-the-archive")
permit (principal == Crm::identity::"alice", action == Crm::Action::"write it", resource == Crm::storage_object::"/archive");
`

// copyObject declares two decisions, as the example of the binding does.
const copyObject = `{"name":"copy_object","inputSchema":{"type":"object","x-authzen-mapping":{"evaluations":{
	"context":{"agent":"$token.?client_id"},
	"evaluations":[
		{"action":{"name":"read"},"resource":{"type":"storage_object","id":"$params.arguments.source"}},
		{"action":{"name":"write"},"resource":{"type":"storage_object","id":"$params.arguments.destination"}}]}}}}`

type versions struct{ v *pdp.Version }

func (v versions) Version(string) *pdp.Version { return v.v }

// A plane is a PDP and the keys of its enforcement points.
type plane struct {
	*pdp.PDP
	keys map[string]string
}

func newPlane(t *testing.T) plane {
	t.Helper()
	p := plane{keys: map[string]string{}}
	var peps []identity.PEP
	for id, application := range map[string]string{"gateway": "Mcp", "crm": "Crm", "elsewhere": ""} {
		key, hash := identity.NewKey()
		p.keys[id] = key
		peps = append(peps, identity.PEP{ID: id, Key: hash, Application: application, Subjects: []string{"identity"}})
	}
	registry, err := identity.NewRegistry(nil, peps...)
	must(t, err)
	who, err := identity.New(identity.Config{Agents: registry})
	must(t, err)
	dir := t.TempDir()
	state, err := store.OpenState(t.Context(), filepath.Join(dir, "state.db"))
	must(t, err)
	t.Cleanup(func() { state.Close() })
	sessions, err := session.New(session.Config{Store: state})
	must(t, err)
	log, err := audit.Open(t.Context(), audit.Config{
		Dir: filepath.Join(dir, "evidence"), Origin: "test/log", Reserve: -1, Logger: slog.New(slog.DiscardHandler),
		Journal: func(ctx context.Context) (audit.Journal, error) {
			return store.OpenJournal(ctx, filepath.Join(dir, "evidence", "journal.db"))
		},
	})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	p.PDP, err = pdp.New(pdp.Config{Identity: who, Sessions: sessions, Policies: versions{version(t)}, Log: log, Deadline: 20 * time.Second})
	must(t, err)
	return p
}

func version(t *testing.T) *pdp.Version {
	t.Helper()
	c, err := catalog.New(catalog.Config{Lock: &catalog.Lock{}, Schema: []byte(coaz.Schema("Mcp") + ownSchema)})
	must(t, err)
	set, err := policy.New(policy.Config{Policies: []policy.Source{{File: "policies/mcp.cedar", Text: []byte(policies)}}, Schema: c.Schema()})
	must(t, err)
	program, err := engine.Compile(set)
	must(t, err)
	return &pdp.Version{Catalog: c, Program: program}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allows asks for everything that a mapping makes of a message, and wants an
// allow to all of it.
func (p plane) allows(t *testing.T, pep string, m *coaz.Mapping, params, token string) (allow bool, code string) {
	t.Helper()
	r, err := m.Map(t.Context(), coaz.Input{Params: json.RawMessage(params), Token: json.RawMessage(token), Server: "https://mcp.example.com"})
	must(t, err)
	for _, e := range r.Evaluations {
		req := e.Request()
		req.PEP = authz.Credential{Kind: authz.CredentialBearer, Value: p.keys[pep]}
		req.Gate = "authzen"
		d, err := p.Decide(t.Context(), req)
		must(t, err)
		if !d.Allow {
			return false, d.Code()
		}
		code = d.Code()
	}
	return true, code
}

// The operator's policies decide what enforcement points with the default
// mappings ask, by the tool, by the subject, and by the agent.
func TestForeignGatesAskByDefaultMappings(t *testing.T) {
	p := newPlane(t)
	for _, tt := range []struct {
		name, pep, method, params, token string
		allow                            bool
		code                             string
	}{
		{name: "a tool", method: "tools/call", params: `{"name":"search","arguments":{"q":"x"}}`, token: `{"sub":"alice","client_id":"bot"}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "no agent", method: "tools/call", params: `{"name":"search"}`, token: `{"sub":"alice"}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "another tool", method: "tools/call", params: `{"name":"delete"}`, token: `{"sub":"alice","client_id":"bot"}`, code: authz.ReasonNoPermit},
		{name: "another subject", method: "tools/call", params: `{"name":"search"}`, token: `{"sub":"bob","client_id":"bot"}`, code: authz.ReasonNoPermit},
		{name: "a forbidden agent", method: "tools/call", params: `{"name":"search"}`, token: `{"sub":"alice","client_id":"rogue"}`, code: authz.ReasonForbidden},
		{name: "an agent of another form", method: "tools/call", params: `{"name":"search"}`, token: `{"sub":"alice","client_id":["rogue"]}`, code: authz.ReasonInputInvalid},
		{name: "a list", method: "tools/list", token: `{"sub":"bob","aud":["https://mcp.example.com","https://other"]}`, allow: true, code: authz.ReasonPolicyAllow},
		{name: "a resource", method: "resources/read", params: `{"uri":"file:///a"}`, token: `{"sub":"alice"}`, code: authz.ReasonNoPermit},
		{name: "not an enforcement point", pep: "stranger", method: "tools/list", token: `{"sub":"bob","aud":"https://mcp.example.com"}`, code: authz.ReasonUnauthenticated},
		{name: "one of another application", pep: "elsewhere", method: "tools/list", token: `{"sub":"bob","aud":"https://mcp.example.com"}`, code: authz.ReasonToolUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := coaz.Default(tt.method)
			if !ok {
				t.Fatalf("%s has no mapping", tt.method)
			}
			if tt.pep == "" {
				tt.pep = "gateway"
			}
			if allow, code := p.allows(t, tt.pep, m, tt.params, tt.token); allow != tt.allow || code != tt.code {
				t.Errorf("allow %t, %s", allow, code)
			}
		})
	}
}

// Every decision that a declared mapping asks for must be an allow.
func TestDeclaredMappingsNeedEveryAllow(t *testing.T) {
	p := newPlane(t)
	declared, ok, err := coaz.Declared(json.RawMessage(copyObject))
	if !ok {
		t.Fatal("no mapping", err)
	}
	m, err := coaz.Compile(declared)
	must(t, err)
	for _, tt := range []struct {
		name, arguments, sub string
		allow                bool
	}{
		{"both", `{"source":"/a","destination":"/archive"}`, "alice", true},
		{"only the first", `{"source":"/a","destination":"/b"}`, "alice", false},
		{"neither", `{"source":"/a","destination":"/archive"}`, "bob", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			params, err := coaz.ToolCall("copy_object", json.RawMessage(tt.arguments))
			must(t, err)
			if allow, code := p.allows(t, "crm", m, string(params), `{"sub":"`+tt.sub+`","client_id":"bot"}`); allow != tt.allow {
				t.Errorf("allow %t, %s", allow, code)
			}
		})
	}
}
