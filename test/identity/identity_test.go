package identity

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	own "github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// A token that is bound to a key or a certificate opens nothing without it, and
// a proof opens one request.
func TestStolenTokensAreWorthless(t *testing.T) {
	w := newWorld(t, nil)
	key, cert, other := newKey(t), w.ca.workload(t, "spiffe://example.org/x"), w.ca.workload(t, "spiffe://example.org/x")
	bound := w.issuer.token(t, w.base, "planner", map[string]any{"cnf": map[string]string{"jkt": thumbprint(t, key)}})
	mtls := w.issuer.token(t, w.base, "planner", map[string]any{"cnf": map[string]string{"x5t#S256": own.Thumbprint(cert.Certificate[0])}})
	at := w.base + "/api/shop/orders/1"
	used := prove(t, key, "GET", at, bound)
	for _, tt := range []struct {
		name   string
		show   shown
		status int
	}{
		{"with its key", shown{auth: "DPoP " + bound, proof: used}, 200},
		{"with the same proof again", shown{auth: "DPoP " + bound, proof: used}, 401},
		{"without a proof", shown{auth: "DPoP " + bound}, 401},
		{"as a bearer token", shown{auth: "Bearer " + bound}, 401},
		{"with another's key", shown{auth: "DPoP " + bound, proof: prove(t, newKey(t), "GET", at, bound)}, 401},
		{"with a proof for another place", shown{auth: "DPoP " + bound, proof: prove(t, key, "GET", at+"1", bound)}, 401},
		{"with its certificate", shown{auth: "Bearer " + mtls, cert: cert}, 200},
		{"with another certificate", shown{auth: "Bearer " + mtls, cert: other}, 401},
		{"without a certificate", shown{auth: "Bearer " + mtls}, 401},
		{"key of an agent", shown{auth: "Bearer " + w.keys["planner"]}, 200},
		{"suspended", shown{auth: "Bearer " + w.keys["sleeper"]}, 403},
		{"suspended, by token", shown{auth: "Bearer " + w.issuer.token(t, w.base, "sleeper", nil)}, 403},
		{"for another service", shown{auth: "Bearer " + w.issuer.token(t, "https://other.example", "planner", nil)}, 401},
		{"nothing", shown{}, 401},
	} {
		r := w.order(tt.show)
		if r.status != tt.status || (r.status == 401) != (r.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %d %s %q", tt.name, r.status, r.body, r.header["Www-Authenticate"])
		}
		if strings.HasPrefix(tt.name, "suspended") && !strings.Contains(r.body, "agent_suspended") {
			t.Errorf("%s: %s", tt.name, r.body)
		}
	}
	methods := map[string]int{}
	for _, r := range w.Records(t) {
		if r.Kind == audit.KindDecision && r.Effect == "allow" {
			methods[r.Who.Auth]++
		}
	}
	if d := cmp.Diff(map[string]int{"dpop": 1, "mtls": 1, "key": 1}, methods); d != "" {
		t.Errorf("proven by (-want +got):\n%s", d)
	}
}

// A client that is told how strong a token it needs comes back with one, in the
// session that it has (RFC 9470, MCP 2025-11-25).
func TestStepUpKeepsTheSession(t *testing.T) {
	w := newWorld(t, nil)
	weak := w.issuer.token(t, w.base, "planner", nil)
	strong := w.issuer.token(t, w.base, "planner", map[string]any{"acr": "phr", "auth_time": time.Now().Unix()})
	stale := w.issuer.token(t, w.base, "planner", map[string]any{"acr": "phr", "auth_time": time.Now().Add(-time.Hour).Unix()})
	post := func(token, session, body string) reply {
		headers := []string{"Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25"}
		if session != "" {
			headers = append(headers, "Mcp-Session-Id", session)
		}
		return w.do(shown{auth: "Bearer " + token}, "POST", "/mcp/counter", "application/json", body, headers...)
	}
	r := post(weak, "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	session := r.header.Get("Mcp-Session-Id")
	if r.status != 200 || session == "" {
		t.Fatalf("initialize: %d %s", r.status, r.body)
	}
	post(weak, session, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	act := func(token string) reply {
		return post(token, session, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"act","arguments":{"id":"x"}}}`)
	}
	// acr and age are both missing.
	r = act(weak)
	challenge := r.header.Get("WWW-Authenticate")
	for _, want := range []string{`Bearer realm="bailiwick"`, `error="insufficient_user_authentication"`, `acr_values="phr"`, `max_age="600"`, `resource_metadata="` + w.base + `/.well-known/oauth-protected-resource/mcp/counter"`} {
		if r.status != 401 || !strings.Contains(challenge, want) {
			t.Errorf("%d %s lacks %s", r.status, challenge, want)
		}
	}
	if !strings.Contains(r.body, `"isError":true`) || !strings.Contains(r.body, "forbidden") {
		t.Errorf("the model reads %s", r.body)
	}
	// Strong, but too long ago.
	r = act(stale)
	if challenge := r.header.Get("WWW-Authenticate"); r.status != 401 || !strings.Contains(challenge, `max_age="600"`) || strings.Contains(challenge, "acr_values") {
		t.Errorf("stale: %d %s", r.status, challenge)
	}
	// Somebody else's token gets nobody into the session.
	if r := act(w.issuer.token(t, w.base, "worker", map[string]any{"acr": "phr", "auth_time": time.Now().Unix()})); r.status != 404 {
		t.Errorf("another agent: %d %s", r.status, r.body)
	}
	if r := act(strong); r.status != 200 || !strings.Contains(r.body, "done x") {
		t.Errorf("with the token that was asked for: %d %s", r.status, r.body)
	}
	if r := post(strong, session, `{"jsonrpc":"2.0","id":3,"method":"ping"}`); r.status != 200 {
		t.Errorf("the session afterwards: %d %s", r.status, r.body)
	}
	sessions := map[string]bool{}
	for _, r := range w.Records(t) {
		if r.Kind == audit.KindDecision && r.What.Action == "counter/act" {
			sessions[r.Who.Session] = true
		}
	}
	if len(sessions) != 1 {
		t.Errorf("sessions: %v", sessions)
	}
}

// A gate in another process passes on what it was shown, and the PDP holds it to
// the same.
func TestGateInAnotherProcess(t *testing.T) {
	w := newWorld(t, nil)
	addr, err := rig.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	d := rig.Deploy(t, rig.Setup{Settings: map[string]any{
		"listen": addr, "public_url": "https://" + addr, "tls": map[string]any{"cert": w.Dir + "/server.pem", "key": w.Dir + "/server.key", "client_certificates": true},
		"pdp":     map[string]any{"url": w.base, "key_file": w.Dir + "/gate.key", "ca_file": w.Dir + "/ca.pem"},
		"apis":    map[string]any{"shop": map[string]any{"openapi": w.Dir + "/shop.yaml", "url": w.shop}},
		"issuers": []any{map[string]any{"issuer": w.issuer.URL, "audience": w.base}},
	}})
	d.Addr = addr
	d.Serve(t)
	pdp := w.base
	w.base = "https://" + addr // where the agents go
	key, cert := newKey(t), w.ca.workload(t, "spiffe://example.org/x")
	bound := w.issuer.token(t, pdp, "planner", map[string]any{"cnf": map[string]string{"jkt": thumbprint(t, key)}})
	mtls := w.issuer.token(t, pdp, "planner", map[string]any{"cnf": map[string]string{"x5t#S256": own.Thumbprint(cert.Certificate[0])}})
	used := prove(t, key, "GET", w.base+"/api/shop/orders/1", bound)
	for _, tt := range []struct {
		name   string
		show   shown
		status int
	}{
		{"with its key", shown{auth: "DPoP " + bound, proof: used}, 200},
		{"with the same proof again", shown{auth: "DPoP " + bound, proof: used}, 401},
		{"with a proof for the PDP", shown{auth: "DPoP " + bound, proof: prove(t, key, "GET", pdp+"/api/shop/orders/1", bound)}, 401},
		{"with its certificate", shown{auth: "Bearer " + mtls, cert: cert}, 200},
		{"without a certificate", shown{auth: "Bearer " + mtls}, 401},
	} {
		if r := w.order(tt.show); r.status != tt.status || (r.status == 401) != (r.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %d %s", tt.name, r.status, r.body)
		}
	}
	r := w.do(shown{auth: "Bearer " + w.issuer.token(t, pdp, "planner", nil)}, "POST", "/api/shop/orders", "", "")
	if c := r.header.Get("WWW-Authenticate"); r.status != 403 || !strings.Contains(c, `scope="orders.write"`) {
		t.Errorf("the challenge: %d %s", r.status, c)
	}
}

// A token that lacks a scope is told which (RFC 6750 §3.1), and an agent that has
// a key and no token is not sent to an authorization server.
func TestScopeChallenge(t *testing.T) {
	w := newWorld(t, nil)
	place := func(auth string) reply { return w.do(shown{auth: auth}, "POST", "/api/shop/orders", "", "") }
	r := place("Bearer " + w.issuer.token(t, w.base, "planner", map[string]any{"scope": "orders.read"}))
	if c := r.header.Get("WWW-Authenticate"); r.status != 403 || !strings.Contains(c, `error="insufficient_scope"`) || !strings.Contains(c, `scope="orders.read orders.write"`) {
		t.Errorf("%d %s", r.status, c)
	}
	if r := place("Bearer " + w.issuer.token(t, w.base, "planner", map[string]any{"scope": "orders.write"})); r.status != 200 {
		t.Errorf("with the scope: %d %s", r.status, r.body)
	}
	if r := place("Bearer " + w.keys["planner"]); r.status != 403 || r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("with a key: %d %v", r.status, r.header)
	}
}

// OAuth clients find out where tokens come from (RFC 9728, RFC 8414).
func TestMetadata(t *testing.T) {
	w := newWorld(t, nil)
	read := func(path string) map[string]any {
		r := w.do(shown{}, "GET", path, "", "")
		var out map[string]any
		if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status != 200 {
			t.Fatalf("%s: %d %s", path, r.status, r.body)
		}
		return out
	}
	for _, path := range []string{"", "/mcp", "/mcp/counter", "/api/shop"} {
		m := read("/.well-known/oauth-protected-resource" + path)
		if m["resource"] != w.base+path || fmt.Sprint(m["authorization_servers"]) != fmt.Sprint([]string{w.issuer.URL, w.base}) {
			t.Errorf("%s: %v", path, m)
		}
	}
	if r := w.do(shown{}, "GET", "/.well-known/oauth-protected-resource/elsewhere", "", ""); r.status != 404 {
		t.Errorf("elsewhere: %d", r.status)
	}
	m := read("/.well-known/oauth-authorization-server")
	if m["issuer"] != w.base || m["token_endpoint"] != w.base+"/oauth/token" || m["jwks_uri"] != w.base+"/oauth/jwks" {
		t.Errorf("%v", m)
	}
	keys := fmt.Sprint(read("/oauth/jwks")["keys"])
	if !strings.Contains(keys, "kty:EC") || strings.Contains(keys, " d:") || strings.Contains(keys, "[d:") {
		t.Errorf("keys: %s", keys)
	}
	r := w.do(shown{}, "POST", "/mcp", "application/json", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`,
		"Accept", "application/json, text/event-stream")
	if c := strings.Join(r.header["Www-Authenticate"], "|"); r.status != 401 || !strings.Contains(c, `Bearer realm="bailiwick", resource_metadata="`+w.base+`/.well-known/oauth-protected-resource/mcp"`) || !strings.Contains(c, "|DPoP ") || strings.Contains(c, "error") {
		t.Errorf("%d %s", r.status, c)
	}
}

const exchange = "urn:ietf:params:oauth:grant-type:token-exchange"

func form(pairs ...string) url.Values {
	v := url.Values{"grant_type": {exchange}, "subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// A task that is handed on can do what every agent of the chain may do, and the
// record says through whose hands it came.
func TestHandingOnATask(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey(t)
	at := w.base + "/oauth/token"
	person := map[string]any{"act": map[string]string{"sub": "planner"}, "may_act": map[string]string{"sub": "worker"}, "scope": "orders.write", "acr": "phr", "auth_time": time.Now().Unix()}
	subject := w.issuer.token(t, w.base, "alice", person)
	token, r := w.exchange(shown{auth: "Bearer " + w.keys["worker"], proof: prove(t, key, "POST", at, "")}, form("subject_token", subject, "audience", "self"))
	if r.status != 200 || token == "" || !strings.Contains(r.body, `"token_type":"DPoP"`) || !strings.Contains(r.body, `"scope":"orders.write"`) {
		t.Fatalf("%d %s", r.status, r.body)
	}
	use := func(token string) reply {
		return w.order(shown{auth: "DPoP " + token, proof: prove(t, key, "GET", w.base+"/api/shop/orders/1", token)})
	}
	if r := use(token); r.status != 200 {
		t.Errorf("both may: %d %s", r.status, r.body)
	}
	// The loner may do nothing, so nobody may anything in its place.
	person["act"] = map[string]string{"sub": "loner"}
	if _, r := w.exchange(shown{auth: "Bearer " + w.keys["worker"], proof: prove(t, key, "POST", at, "")}, form("subject_token", w.issuer.token(t, w.base, "alice", person), "audience", "self")); r.status != 403 || !strings.Contains(r.body, `has handed the task on`) {
		t.Errorf("a token on the loner's behalf: %d %s", r.status, r.body)
	}
	direct := w.issuer.token(t, w.base, "alice", map[string]any{"act": map[string]any{"sub": "worker", "act": map[string]any{"sub": "loner"}}})
	if r := w.order(shown{auth: "Bearer " + direct}); r.status != 403 || !strings.Contains(r.body, "no_permit") {
		t.Errorf("on the loner's behalf: %d %s", r.status, r.body)
	}
	if r := w.order(shown{auth: "Bearer " + w.issuer.token(t, w.base, "alice", map[string]any{"act": map[string]any{"sub": "worker", "act": map[string]any{"sub": "sleeper"}}})}); r.status != 403 || !strings.Contains(r.body, "agent_suspended") {
		t.Errorf("on a suspended agent's behalf: %d %s", r.status, r.body)
	}
	found := false
	for _, rec := range w.Records(t) {
		if rec.Kind != audit.KindDecision || rec.Effect != "allow" || rec.What.Action != "shop/getOrder" {
			continue
		}
		found = true
		if rec.Who.Subject.ID != "worker" || rec.Who.For != "alice" || len(rec.Who.Chain) != 1 || rec.Who.Chain[0].ID != "planner" || rec.Who.Chain[0].Owner != "ops@example.com" || rec.Who.Level != 2 {
			t.Errorf("%+v", rec.Who)
		}
	}
	if !found {
		t.Error("no record of what was allowed")
	}
}

// A token is for less than the one that it is made of, or there is none.
func TestExchangeOnlyNarrows(t *testing.T) {
	w := newWorld(t, nil)
	key := newKey(t)
	at := w.base + "/oauth/token"
	show := func(agent string) shown {
		return shown{auth: "Bearer " + w.keys[agent], proof: prove(t, key, "POST", at, "")}
	}
	subject := w.issuer.token(t, w.base, "planner", map[string]any{"exp": time.Now().Add(40 * time.Second).Unix()})
	for _, tt := range []struct {
		name   string
		show   shown
		form   url.Values
		status int
		says   string
	}{
		{"its own token", show("planner"), form("subject_token", subject, "audience", "self"), 200, `"expires_in":`},
		{"as client credentials", show("planner"), url.Values{"grant_type": {"client_credentials"}, "resource": {w.base}}, 200, `"token_type":"DPoP"`},
		{"with its key as a secret", shown{auth: "Basic " + basic("planner", w.keys["planner"]), proof: prove(t, key, "POST", at, "")}, url.Values{"grant_type": {"client_credentials"}, "audience": {"self"}}, 200, ""},
		{"for a service that knows bearer tokens only", shown{auth: "Bearer " + w.keys["planner"]}, form("subject_token", subject, "audience", "billing"), 200, `"token_type":"Bearer"`},
		{"bound to nobody", shown{auth: "Bearer " + w.keys["planner"]}, form("subject_token", subject, "audience", "self"), 400, "invalid_dpop_proof"},
		{"proof for another place", shown{auth: "Bearer " + w.keys["planner"], proof: prove(t, key, "POST", w.base+"/mcp", "")}, form("subject_token", subject, "audience", "self"), 400, "invalid_dpop_proof"},
		{"a scope that it has not", show("planner"), form("subject_token", subject, "audience", "self", "scope", "orders.write"), 400, "invalid_scope"},
		{"a scope that the service has not", show("planner"), url.Values{"grant_type": {"client_credentials"}, "audience": {"self"}, "scope": {"admin"}}, 400, "invalid_scope"},
		{"a scope that policy refuses", show("planner"), url.Values{"grant_type": {"client_credentials"}, "audience": {"billing"}, "scope": {"invoices.read"}}, 403, "access_denied"},
		{"an agent that may have none", show("loner"), url.Values{"grant_type": {"client_credentials"}, "audience": {"self"}}, 403, "no_permit"},
		{"a suspended agent", show("sleeper"), url.Values{"grant_type": {"client_credentials"}, "audience": {"self"}}, 403, "agent_suspended"},
		{"nobody", shown{}, form("subject_token", subject, "audience", "self"), 401, "invalid_client"},
		{"a service that is not known", show("planner"), form("subject_token", subject, "audience", "elsewhere"), 400, "invalid_target"},
		{"two services", show("planner"), form("subject_token", subject, "audience", "self", "resource", w.base), 400, "invalid_target"},
		{"a forged token", show("planner"), form("subject_token", subject[:len(subject)-6]+"AAAAAA", "audience", "self"), 401, "invalid_client"},
		{"for another agent to act on", show("planner"), form("subject_token", w.issuer.token(t, w.base, "alice", map[string]any{"act": map[string]string{"sub": "planner"}, "may_act": map[string]string{"sub": "worker"}}), "audience", "self"), 401, "invalid_client"},
		{"a token that is bound to another", show("worker"), form("subject_token", w.issuer.token(t, w.base, "planner", map[string]any{"cnf": map[string]string{"jkt": thumbprint(t, newKey(t))}}), "audience", "self"), 401, "invalid_client"},
		{"an unknown parameter", show("planner"), form("subject_token", subject, "audience", "self", "actor_token", "x"), 400, "invalid_request"},
		{"another grant", show("planner"), url.Values{"grant_type": {"password"}}, 400, "unsupported_grant_type"},
		{"another kind of token", show("planner"), form("subject_token", subject, "audience", "self", "requested_token_type", "urn:ietf:params:oauth:token-type:saml2"), 400, "invalid_request"},
	} {
		token, r := w.exchange(tt.show, tt.form)
		if r.status != tt.status || !strings.Contains(r.body, tt.says) || (token != "") != (tt.status == 200) {
			t.Errorf("%s: %d %s", tt.name, r.status, r.body)
		}
		if tt.name == "its own token" {
			var out struct {
				ExpiresIn int `json:"expires_in"`
			}
			if err := json.Unmarshal([]byte(r.body), &out); err != nil || out.ExpiresIn > 40 || out.ExpiresIn < 1 {
				t.Errorf("it holds longer than what it is made of: %s", r.body)
			}
		}
	}
}
