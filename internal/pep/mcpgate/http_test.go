package mcpgate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

const echoLegacy = `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}`
const echoModern = `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"},` + meta + `}}`

// newPlainRig is a gate in front of one server of each era.
func newPlainRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	return newRig(t, change, map[string]string{
		"legacy": newTap(t, legacyHTTP(server(old))).url,
		"modern": newTap(t, modernHTTP(server(now))).url,
	})
}

// Only names that the gate goes by, and pages that it serves, get anything.
func TestHostAndOriginAreChecked(t *testing.T) {
	r := newPlainRig(t, func(c *Config) {
		c.Hosts = []string{"gate.example.com"}
		c.Origins = []string{"https://app.example.com"}
	})
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"as it is", nil, 200},
		{"configured host", []string{"Host", "gate.example.com"}, 200},
		{"configured host with a port", []string{"Host", "gate.example.com:8443"}, 200},
		{"localhost", []string{"Host", "localhost:1"}, 200},
		{"IPv6 loopback", []string{"Host", "[::1]:1"}, 200},
		{"rebound host", []string{"Host", "evil.example.com"}, 403},
		{"host that only begins like ours", []string{"Host", "gate.example.com.evil.com"}, 403},
		{"loopback in disguise", []string{"Host", "127.0.0.1.evil.com"}, 403},
		{"configured origin", []string{"Origin", "https://app.example.com"}, 200},
		{"local origin", []string{"Origin", "http://localhost:3000"}, 200},
		{"other scheme", []string{"Origin", "http://app.example.com"}, 403},
		{"foreign origin", []string{"Origin", "https://evil.example.com"}, 403},
		{"opaque origin", []string{"Origin", "null"}, 403},
		{"local name as userinfo", []string{"Origin", "http://localhost@evil.example.com"}, 403},
		{"two origins", []string{"Origin", "http://localhost", "Origin", "https://evil.example.com"}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if h := r.modernCall("/mcp/modern", alice, echoModern, tt.headers...); h.status != tt.status {
				t.Errorf("status %d, want %d: %s", h.status, tt.status, h.body)
			}
		})
	}
	if h := r.do("OPTIONS", "/mcp", "", "", "Origin", "https://app.example.com", "Access-Control-Request-Headers", "mcp-param-region"); h.status != 204 || h.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || !strings.Contains(h.header.Get("Access-Control-Allow-Headers"), "mcp-param-region") {
		t.Errorf("preflight: %+v", h)
	}
}

// Whoever shows nothing, or the wrong thing, is asked for credentials and
// reaches nothing.
func TestUnauthenticatedIsAskedForCredentials(t *testing.T) {
	r := newPlainRig(t, nil)
	for _, key := range []string{"", "wrong"} {
		for name, h := range map[string]httpReply{
			"initialize": r.do("POST", "/mcp/legacy", key, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`),
			"discover":   r.modernCall("/mcp/modern", key, `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+meta+`}}`),
			"call":       r.modernCall("/mcp/modern", key, echoModern),
			"bridge":     r.modernCall("/mcp/legacy", key, echoModern),
			"merged":     r.modernCall("/mcp", key, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+meta+`}}`),
		} {
			if h.status != 401 || !strings.HasPrefix(h.header.Get("WWW-Authenticate"), "Bearer ") || h.message(t).Error() == nil {
				t.Errorf("%s with key %q: %+v", name, key, h)
			}
		}
	}
	if h := r.do("POST", "/mcp/modern", "", echoModern, "Authorization", "Bearer "+alice, "Authorization", "Bearer "+bob,
		"MCP-Protocol-Version", now, "Mcp-Method", "tools/call", "Mcp-Name", "echo"); h.status != 401 {
		t.Errorf("two credentials: %+v", h)
	}
}

// A session is for the credential that began it, at the endpoint where it began.
func TestSessionIsForItsOwner(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	if h := r.legacyCall("/mcp/legacy", alice, id, echoLegacy); h.message(t).Result() == nil {
		t.Fatalf("owner: %+v", h)
	}
	before := len(r.decider.asked)
	for name, h := range map[string]httpReply{
		"other key":      r.legacyCall("/mcp/legacy", bob, id, echoLegacy),
		"no key":         r.legacyCall("/mcp/legacy", "", id, echoLegacy),
		"other endpoint": r.legacyCall("/mcp/modern", alice, id, echoLegacy),
		"stream":         r.do("GET", "/mcp/legacy", bob, "", "Mcp-Session-Id", id),
		"end":            r.do("DELETE", "/mcp/legacy", bob, "", "Mcp-Session-Id", id),
		"notification":   r.legacyCall("/mcp/legacy", bob, id, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}`),
		"invented":       r.legacyCall("/mcp/legacy", alice, "invented", echoLegacy),
	} {
		if h.status != 404 {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if len(r.decider.asked) != before {
		t.Error("a stranger's request was decided in the owner's session")
	}
	if h := r.legacyCall("/mcp/legacy", alice, id, echoLegacy); h.message(t).Result() == nil {
		t.Errorf("owner afterwards: %+v", h)
	}
	if h := r.do("DELETE", "/mcp/legacy", alice, "", "Mcp-Session-Id", id); h.status != 204 {
		t.Errorf("end: %+v", h)
	}
	if h := r.legacyCall("/mcp/legacy", alice, id, echoLegacy); h.status != 404 {
		t.Errorf("after the end: %+v", h)
	}
}

// The record names a run without giving away the session, and two runs are two.
func TestRunsAreToldApart(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	r.legacyCall("/mcp/legacy", alice, id, echoLegacy)
	q := r.decider.of("legacy/echo")[0]
	if strings.Contains(q.Session, id) || q.Session == "" {
		t.Errorf("session %q shown as %q", id, q.Session)
	}
	named := strings.Replace(echoModern, `"_meta":{`, `"_meta":{"dev.bailiwick/session":"run-1",`, 1)
	for _, call := range []struct{ key, body string }{{alice, echoModern}, {alice, echoModern}, {bob, echoModern}, {alice, named}, {bob, named}} {
		r.modernCall("/mcp/modern", call.key, call.body)
	}
	var runs []string
	for _, q := range r.decider.of("modern/echo") {
		if q.Session != "" {
			t.Errorf("a modern client's session is %q", q.Session)
		}
		runs = append(runs, subject(q)+"/"+q.Run) // the PDP keeps agents apart
	}
	if runs[0] != runs[1] {
		t.Error("one agent has two runs")
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(runs)))
	if len(distinct) != 4 {
		t.Errorf("runs: %q", runs)
	}
}

// What is no message of the protocol gets a clear error and goes no further.
func TestMalformedInput(t *testing.T) {
	up := newTap(t, modernHTTP(server()))
	r := newRig(t, func(c *Config) { c.Limits.Body = 1 << 16 }, map[string]string{"real": up.url})
	id := r.begin("/mcp/real", alice)
	arrived := up.sent()
	for _, tt := range []struct {
		name, body string
		headers    []string
		status     int
		code       int
	}{
		{name: "empty", body: "", status: 400, code: -32700},
		{name: "not JSON", body: "hello", status: 400, code: -32700},
		{name: "cut off", body: `{"jsonrpc":"2.0","id":1,`, status: 400, code: -32700},
		{name: "two messages", body: echoLegacy + echoLegacy, status: 400, code: -32700},
		{name: "batch", body: "[" + echoLegacy + "]", status: 400, code: -32600},
		{name: "duplicate key", body: `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, status: 400},
		{name: "duplicate argument", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a","text":"b"}}}`, status: 400},
		{name: "look-alike", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"delete"}}`, status: 400},
		{name: "wrong version", body: `{"jsonrpc":"1.0","id":1,"method":"ping"}`, status: 400, code: -32600},
		{name: "null id", body: `{"jsonrpc":"2.0","id":null,"method":"ping"}`, status: 400, code: -32600},
		{name: "object id", body: `{"jsonrpc":"2.0","id":{},"method":"ping"}`, status: 400, code: -32600},
		{name: "number as method", body: `{"jsonrpc":"2.0","id":1,"method":1}`, status: 400, code: -32600},
		{name: "deep", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":` + strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500) + `}`, status: 400, code: -32600},
		{name: "invalid UTF-8", body: "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"p\xff\"}", status: 400, code: -32700},
		{name: "huge", body: `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"` + strings.Repeat("x", 1<<17) + `"}}`, status: 413, code: -32600},
		{name: "form", body: echoLegacy, headers: []string{"Content-Type", "", "Content-Type", "application/x-www-form-urlencoded"}, status: 415, code: -32600},
		{name: "no type", body: echoLegacy, headers: []string{"Content-Type", ""}, status: 415, code: -32600},
		{name: "compressed", body: echoLegacy, headers: []string{"Content-Encoding", "gzip"}, status: 415, code: -32600},
		{name: "wants HTML", body: echoLegacy, headers: []string{"Accept", "", "Accept", "text/html"}, status: 406, code: -32600},
		{name: "unknown version", body: echoLegacy, headers: []string{"MCP-Protocol-Version", "1999-01-01"}, status: 400, code: -32022},
		{name: "array params", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}`, status: 400, code: -32600},
		{name: "no params", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, status: 200, code: -32602},
		{name: "no name", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}`, status: 200, code: -32602},
		{name: "number as name", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}`, status: 200, code: -32602},
		{name: "list of arguments", body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":["x"]}}`, status: 200, code: -32602},
		{name: "modern method", body: `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}`, status: 200, code: -32601},
		{name: "unknown notification", body: `{"jsonrpc":"2.0","method":"notifications/evil"}`, status: 400, code: -32600},
		{name: "answer to nothing", body: `{"jsonrpc":"2.0","id":"gate-1","result":{}}`, status: 400, code: -32600},
		{name: "second initialize", body: `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`, status: 400, code: -32600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := r.do("POST", "/mcp/real", alice, tt.body, append([]string{"Mcp-Session-Id", id}, tt.headers...)...)
			if h.status != tt.status {
				t.Errorf("status %d, want %d: %s", h.status, tt.status, h.body)
			}
			if got := errorCode(h.message(t)); tt.code != 0 && got != tt.code || h.message(t).Error() == nil {
				t.Errorf("code %d, want %d: %s", got, tt.code, h.body)
			}
		})
	}
	if up.sent() != arrived {
		t.Error("something has reached the server")
	}
	if h := r.legacyCall("/mcp/real", alice, id, echoLegacy); h.message(t).Result() == nil {
		t.Errorf("the session has not survived: %+v", h)
	}
}

// A modern request says in its headers what it says in its body, or is refused
// before it is decided.
func TestModernRequestsAreHeldToTheirHeaders(t *testing.T) {
	up := newTap(t, modernHTTP(server()))
	r := newRig(t, nil, map[string]string{"real": up.url})
	noCaps := strings.Replace(echoModern, `"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},`, "", 1)
	noMeta := echoLegacy
	future := strings.ReplaceAll(echoModern, now, "2099-01-01")
	std := func(change ...string) []string {
		h := map[string]string{"MCP-Protocol-Version": now, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
		for i := 0; i < len(change); i += 2 {
			h[change[i]] = change[i+1]
		}
		var out []string
		for k, v := range h {
			if v != "" {
				out = append(out, k, v)
			}
		}
		return out
	}
	for _, tt := range []struct {
		name, body string
		headers    []string
		status     int
		code       int
	}{
		{"as it should be", echoModern, std(), 200, 0},
		{"name in Base64", echoModern, std("Mcp-Name", "=?base64?ZWNobw==?="), 200, 0},
		{"no version header", echoModern, std("MCP-Protocol-Version", ""), 400, -32020},
		{"older version header", echoModern, std("MCP-Protocol-Version", old), 400, -32020},
		{"other method", echoModern, std("Mcp-Method", "tools/list"), 400, -32020},
		{"no method", echoModern, std("Mcp-Method", ""), 400, -32020},
		{"other name", echoModern, std("Mcp-Name", "delete"), 400, -32020},
		{"no name", echoModern, std("Mcp-Name", ""), 400, -32020},
		{"no meta", noMeta, std(), 400, -32602},
		{"no capabilities", noCaps, std(), 400, -32602},
		{"version of the future", future, std("MCP-Protocol-Version", "2099-01-01"), 400, -32022},
		{"legacy method", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{` + meta + `}}`, std("Mcp-Method", "ping", "Mcp-Name", ""), 404, -32601},
		{"notification", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, std("Mcp-Method", "notifications/initialized", "Mcp-Name", ""), 400, -32600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := r.do("POST", "/mcp/real", alice, tt.body, tt.headers...)
			m := h.message(t)
			if h.status != tt.status || tt.code != 0 && errorCode(m) != tt.code || (m.Error() != nil) != (tt.code != 0) {
				t.Errorf("status %d, want %d, code %d: %s", h.status, tt.status, tt.code, h.body)
			}
		})
	}
	if n := len(r.decider.of("real/echo")); n != 2 {
		t.Errorf("%d decisions, want 2", n)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if h := r.do(method, "/mcp/real", alice, "", "MCP-Protocol-Version", now); h.status != 405 {
			t.Errorf("%s: %+v", method, h)
		}
	}
	if h := r.do("PUT", "/mcp/real", alice, ""); h.status != 405 {
		t.Errorf("PUT: %+v", h)
	}
	if h := r.do("POST", "/mcp/other", alice, echoModern); h.status != 404 {
		t.Errorf("unknown server: %+v", h)
	}
}

// Arguments that a tool mirrors into headers have to agree with them, and
// headers that the gate does not know go on.
func TestParamHeaders(t *testing.T) {
	s := server()
	s.AddTool(&sdk.Tool{Name: "region", InputSchema: json.RawMessage(`{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}`)},
		func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			return &sdk.CallToolResult{}, nil
		})
	up := newTap(t, modernHTTP(s))
	r := newRig(t, nil, map[string]string{"real": up.url})
	body := `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"region","arguments":{"region":"eu"},` + meta + `}}`
	if h := r.modernCall("/mcp/real", alice, body, "Mcp-Param-Region", "us"); h.status != 400 || errorCode(h.message(t)) != -32020 {
		t.Errorf("mismatch: %+v", h)
	}
	if h := r.modernCall("/mcp/real", alice, body); h.status != 400 || errorCode(h.message(t)) != -32020 {
		t.Errorf("missing: %+v", h)
	}
	if n := len(r.decider.of("real/region")); n != 0 {
		t.Errorf("%d decisions", n)
	}
	if h := r.modernCall("/mcp/real", alice, body, "Mcp-Param-Region", "eu", "Mcp-Param-Other", "x"); h.status != 200 || h.message(t).Result() == nil {
		t.Errorf("match: %+v", h)
	}
	if sent := up.all(); !strings.Contains(sent, "Mcp-Param-Other:[x]") || !strings.Contains(sent, "Mcp-Param-Region:[eu]") {
		t.Errorf("sent: %s", sent)
	}
	// A legacy client has no such headers; the gate makes them.
	modernOnly := newTap(t, modernHTTP(func() *sdk.Server {
		s := server(now)
		s.AddTool(&sdk.Tool{Name: "region", InputSchema: json.RawMessage(`{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}`)},
			func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
				return &sdk.CallToolResult{}, nil
			})
		return s
	}()))
	r = newRig(t, nil, map[string]string{"real": modernOnly.url})
	id := r.begin("/mcp/real", alice)
	if h := r.legacyCall("/mcp/real", alice, id, `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"region","arguments":{"region":"eu"}}}`); h.message(t).Result() == nil {
		t.Errorf("legacy client: %+v", h)
	}
}

// readEvents reads server-sent events off a connection.
func readEvents(t *testing.T, r *rig, path, key string, headers ...string) (*http.Response, func() (id, data string, ok bool)) {
	t.Helper()
	method, body := "GET", ""
	if len(headers) > 0 && headers[0] == "POST" {
		method, body, headers = "POST", headers[1], headers[2:]
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Accept", "text/event-stream, application/json")
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return resp, func() (id, data string, ok bool) {
		for lines.Scan() {
			text := lines.Text()
			switch {
			case strings.HasPrefix(text, "id: "):
				id = text[4:]
			case strings.HasPrefix(text, "data: "):
				data = text[6:]
			case text == "" && id+data != "":
				return id, data, true
			}
		}
		return "", "", false
	}
}

// A legacy client that loses its connection takes the stream up again where it
// was, and misses nothing.
func TestStreamIsTakenUpAgain(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	body := `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"progress","arguments":{},"_meta":{"progressToken":"t"}}}`
	resp, next := readEvents(t, r, "/mcp/legacy", alice, "POST", body, "Mcp-Session-Id", id, "MCP-Protocol-Version", old)
	if resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Error("a proxy may hold the stream back")
	}
	var ids, all []string
	for {
		id, data, ok := next()
		if !ok {
			break
		}
		ids, all = append(ids, id), append(all, data)
	}
	if len(all) != 5 || all[0] != "" {
		t.Fatalf("events: %q", all)
	}
	for from := range ids {
		resp, next := readEvents(t, r, "/mcp/legacy", alice, "Mcp-Session-Id", id, "Last-Event-ID", ids[from])
		if resp.StatusCode != 200 {
			t.Fatalf("resume: %d", resp.StatusCode)
		}
		var got []string
		for {
			_, data, ok := next()
			if !ok {
				break
			}
			got = append(got, data)
		}
		if !slices.Equal(got, all[from+1:]) {
			t.Errorf("resumed after %d: %q", from, got)
		}
	}
	for _, bad := range []string{"x", "x_1", ids[0][:len(ids[0])-1] + "99", "_", "0_999"} {
		if resp, _ := readEvents(t, r, "/mcp/legacy", alice, "Mcp-Session-Id", id, "Last-Event-ID", bad); resp.StatusCode != 400 {
			t.Errorf("Last-Event-ID %q: status %d", bad, resp.StatusCode)
		}
	}
	if resp, _ := readEvents(t, r, "/mcp/legacy", bob, "Mcp-Session-Id", id, "Last-Event-ID", ids[0]); resp.StatusCode != 404 {
		t.Errorf("a stranger reads the stream: %d", resp.StatusCode)
	}
}

// Clients hear that their lists may have changed when policy has.
func TestPolicyChangeIsAnnounced(t *testing.T) {
	r := newPlainRig(t, nil)
	for _, tt := range []struct{ path, version string }{{"/mcp/legacy", old}, {"/mcp/modern", now}, {"/mcp/legacy", now}, {"/mcp", old}, {"/mcp", now}} {
		heard := make(chan string, 10)
		hear := func(what string) {
			select {
			case heard <- what:
			default:
			}
		}
		r.connect(tt.path, alice, tt.version, &sdk.ClientOptions{
			ToolListChangedHandler:     func(context.Context, *sdk.ToolListChangedRequest) { hear("tools") },
			PromptListChangedHandler:   func(context.Context, *sdk.PromptListChangedRequest) { hear("prompts") },
			ResourceListChangedHandler: func(context.Context, *sdk.ResourceListChangedRequest) { hear("resources") },
		})
		got := map[string]bool{}
		deadline := time.After(10 * time.Second)
		for len(got) < 3 {
			r.gate.PoliciesChanged()
			select {
			case k := <-heard:
				got[k] = true
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				t.Fatalf("%+v: heard %v\n%s", tt, got, r.log)
			}
		}
	}
}

// Errors of the decider deny, and say so without saying more.
func TestDeciderThatFailsDenies(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	r.decider.fail = errors.New("the database at db.internal is gone")
	for _, h := range []httpReply{r.legacyCall("/mcp/legacy", alice, id, echoLegacy), r.modernCall("/mcp/modern", alice, echoModern)} {
		if m := h.message(t); errorCode(m) != mcp.CodeInternalError || !strings.Contains(h.body, authz.ReasonPDPDown) || strings.Contains(h.body, "db.internal") {
			t.Errorf("answer: %s", h.body)
		}
	}
	r.decider.fail = nil
	r.decider.reachErr = errors.New("gone")
	if h := r.legacyCall("/mcp/legacy", alice, id, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`); h.message(t).Error() == nil {
		t.Errorf("a list that could not be filtered: %s", h.body)
	}
}

// Methods that the gate does not know are decided, and denied as unknown.
func TestUnknownMethodIsDecided(t *testing.T) {
	r := newPlainRig(t, nil)
	r.decider.deny["mcp:frobnicate/all"] = authz.ReasonToolUnknown
	id := r.begin("/mcp/legacy", alice)
	h := r.legacyCall("/mcp/legacy", alice, id, `{"jsonrpc":"2.0","id":1,"method":"frobnicate/all","params":{"x":1}}`)
	if errorCode(h.message(t)) != mcp.CodeMethodNotFound {
		t.Errorf("legacy: %+v", h)
	}
	h = r.modernCall("/mcp/modern", alice, `{"jsonrpc":"2.0","id":1,"method":"frobnicate/all","params":{"x":1,`+meta+`}}`)
	if h.status != 404 || errorCode(h.message(t)) != mcp.CodeMethodNotFound || !strings.Contains(h.body, `"decision":"d`) {
		t.Errorf("modern: %+v", h)
	}
	if q := r.decider.of("mcp:frobnicate/all"); len(q) != 2 || string(q[1].Input) != `{"x":1}` {
		t.Errorf("decisions: %+v", q)
	}
}

// A gate that is closed lets calls finish, takes no new ones, and cuts what
// does not end.
func TestCloseDrains(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	_, next := readEvents(t, r, "/mcp/legacy", alice, "POST",
		`{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"wait","arguments":{},"_meta":{"progressToken":"t"}}}`,
		"Mcp-Session-Id", id, "MCP-Protocol-Version", old)
	for {
		if _, data, ok := next(); !ok || strings.Contains(data, "begun") {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.gate.Close(ctx); err == nil {
		t.Error("the gate was closed as if nothing was in flight")
	}
	if o := r.decider.outcomeOf(t, "legacy/wait"); len(o) != 1 || o[0].Status != authz.OutcomeAmbiguous {
		t.Errorf("outcome of what was cut: %+v", o)
	}
	if h := r.modernCall("/mcp/modern", alice, echoModern); h.status < 400 {
		t.Errorf("after the end: %+v", h)
	}
	if err := r.gate.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Limits hold, and what is refused because of them is told so.
func TestLimits(t *testing.T) {
	r := newPlainRig(t, func(c *Config) { c.Limits.Sessions, c.Limits.ClientCalls = 2, 1 })
	id := r.begin("/mcp/legacy", alice)
	r.begin("/mcp/legacy", alice)
	if h := r.do("POST", "/mcp/legacy", alice, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`); h.header.Get("Mcp-Session-Id") != "" || !strings.Contains(h.body, reasonBusy) {
		t.Errorf("third session: %+v", h)
	}
	wait := `{"jsonrpc":"2.0","id":%q,"method":"tools/call","params":{"name":"wait","arguments":{},"_meta":{"progressToken":"t"%s}}}`
	_, next := readEvents(t, r, "/mcp/legacy", alice, "POST", fmt.Sprintf(wait, "a", ""), "Mcp-Session-Id", id, "MCP-Protocol-Version", old)
	next()
	if h := r.legacyCall("/mcp/legacy", alice, id, echoLegacy); h.status != 503 || !strings.Contains(h.body, reasonBusy) {
		t.Errorf("second call: %+v", h)
	}
	if h := r.legacyCall("/mcp/legacy", alice, id, fmt.Sprintf(wait, "a", "")); h.status != 400 || !strings.Contains(h.body, reasonDuplicate) {
		t.Errorf("same id: %+v", h)
	}
	// The client takes the first one back, and there is room again.
	if h := r.legacyCall("/mcp/legacy", alice, id, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}`); h.status != 202 {
		t.Errorf("cancel: %+v", h)
	}
	if o := r.decider.outcomeOf(t, "legacy/wait"); o[0].Status != authz.OutcomeAmbiguous || !strings.Contains(o[0].Error, "cancelled") {
		t.Errorf("outcome of what was taken back: %+v", o)
	}
	eventually(t, "room", func() bool { return r.legacyCall("/mcp/legacy", alice, id, echoLegacy).status == 200 })
}

// A session or a conversation that nobody uses ends by itself.
func TestIdleSessionEnds(t *testing.T) {
	r := newPlainRig(t, func(c *Config) { c.Limits.Idle = 20 * time.Millisecond })
	id := r.initialize("/mcp/legacy", alice)
	eventually(t, "the end of the session", func() bool {
		return len(r.gate.sessions.all()) == 0
	})
	if h := r.legacyCall("/mcp/legacy", alice, id, echoLegacy); h.status != 404 {
		t.Errorf("afterwards: %+v", h)
	}
	r.modernCall("/mcp/legacy", alice, echoModern)
	eventually(t, "the end of the conversation", func() bool {
		r.gate.pool.mu.Lock()
		defer r.gate.pool.mu.Unlock()
		return len(r.gate.pool.links) == 0
	})
}
