package mcpgate

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// A session goes on with another token of the same agent: the one before may
// have expired, or not been strong enough.
func TestSessionOutlivesItsToken(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	if h := r.legacyCall("/mcp/legacy", alice+"+2", id, echoLegacy); h.message(t).Result() == nil {
		t.Fatalf("another token: %+v", h)
	}
	asked := r.decider.of("legacy/echo")
	if last := asked[len(asked)-1]; last.Credential.Value != alice+"+2" {
		t.Errorf("decided about %q", last.Credential.Value)
	}
	// What is not decided about is let through for it, too.
	if h := r.legacyCall("/mcp/legacy", alice+"+3", id, `{"jsonrpc":"2.0","id":7,"method":"ping"}`); h.status != 200 {
		t.Errorf("ping: %+v", h)
	}
	// Many tokens do not make the session hold ever more.
	for i := range 3 * maxOwners {
		r.legacyCall("/mcp/legacy", alice+"+"+strings.Repeat("x", i), id, `{"jsonrpc":"2.0","id":7,"method":"ping"}`)
	}
	s := r.gate.sessions.find(id)
	if n := len(s.owners); n > maxOwners {
		t.Errorf("%d credentials are remembered", n)
	}
	if h := r.legacyCall("/mcp/legacy", bob, id, echoLegacy); h.status != 404 {
		t.Errorf("another agent: %+v", h)
	}
	// A PDP that cannot say does not end the session.
	r.decider.mu.Lock()
	r.decider.reachErr = http.ErrServerClosed
	r.decider.mu.Unlock()
	if h := r.legacyCall("/mcp/legacy", alice+"+new", id, echoLegacy); h.status != 503 {
		t.Errorf("while nobody can be asked: %+v", h)
	}
	if h := r.legacyCall("/mcp/legacy", alice+"+"+strings.Repeat("x", 3*maxOwners-1), id, echoLegacy); h.message(t).Result() == nil {
		t.Errorf("the session is gone: %+v", h)
	}
}

// A token that is bound to a key is proven with each request, those too that are
// not decided about.
func TestBoundTokenIsProvenWithEachRequest(t *testing.T) {
	r := newPlainRig(t, nil)
	show := func(method, session, body string) httpReply {
		h := []string{"Authorization", "DPoP " + alice, "DPoP", "proof", "MCP-Protocol-Version", "2025-11-25"}
		if session != "" {
			h = append(h, "Mcp-Session-Id", session)
		}
		return r.do(method, "/mcp/legacy", "", body, h...)
	}
	h := show("POST", "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	id := h.header.Get("Mcp-Session-Id")
	if id == "" {
		t.Fatalf("%+v", h)
	}
	q := r.decider.of("mcp:initialize")[0].Credential
	if q.Kind != authz.CredentialDPoP || q.Proof != "proof" || q.Method != "POST" || q.URL != r.url+"/mcp/legacy" || q.Exchange == "" {
		t.Errorf("asked with %#v %q %q", q, q.Method, q.URL)
	}
	r.decider.mu.Lock()
	r.decider.reachErr = pep.ErrRefused // the proof is none
	r.decider.mu.Unlock()
	for name, h := range map[string]httpReply{
		"stream": show("GET", id, ""), "end": show("DELETE", id, ""),
		"ping":         show("POST", id, `{"jsonrpc":"2.0","id":7,"method":"ping"}`),
		"notification": show("POST", id, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}`),
	} {
		if h.status != 404 {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if h := show("POST", id, echoLegacy); h.message(t).Result() == nil {
		t.Errorf("what is decided about is proven there: %+v", h)
	}
}

// A client of either era is told over HTTP what another token would have to
// show, and the model is told too.
func TestBetterTokenIsAskedFor(t *testing.T) {
	r := newPlainRig(t, func(c *Config) {
		c.Door = func(r *http.Request) pep.Door { return pep.Door{Metadata: "https://gate.example/meta" + r.URL.Path} }
	})
	id := r.begin("/mcp/legacy", alice)
	r.decider.deny = map[string]string{"legacy/echo": authz.ReasonForbidden, "modern/echo": authz.ReasonForbidden}
	for _, tt := range []struct {
		better *authz.Challenge
		status int
		says   string
	}{
		{&authz.Challenge{ACR: []string{"phr"}, MaxAge: 60}, 401, `error="insufficient_user_authentication"`},
		{&authz.Challenge{Scopes: []string{"s"}}, 403, `error="insufficient_scope"`},
		{nil, 200, ""},
	} {
		r.decider.better = tt.better
		for name, h := range map[string]httpReply{
			"legacy": r.legacyCall("/mcp/legacy", alice, id, echoLegacy), "modern": r.modernCall("/mcp/modern", alice, echoModern),
		} {
			c := h.header.Get("WWW-Authenticate")
			if h.status != tt.status || !strings.Contains(c, tt.says) || (c != "") != (tt.better != nil) || tt.better != nil && !strings.Contains(c, `"https://gate.example/meta/mcp/`+name+`"`) {
				t.Errorf("%s: %d %s", name, h.status, c)
			}
			if m := h.message(t); m.Result() == nil || !strings.Contains(string(m.Result()), "Denied by the table.") {
				t.Errorf("%s: the model reads %s", name, h.body)
			}
		}
	}
}
