package mcpgate

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Whatever a client sends gets an answer of the protocol, and a denied action
// never reaches the server.
func FuzzPost(f *testing.F) {
	for _, seed := range []string{echoLegacy, echoModern, listTools, callT, "", "[]", "{", `{"jsonrpc":"2.0","id":"x","method":"initialize","params":{}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`, `{"jsonrpc":"2.0","id":1,"result":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"uri":1},` + meta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"eyJyZWFsIjoiMSJ9",` + meta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"real__t","arguments":null,"requestState":"s","inputResponses":[],` + meta + `}}`,
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	reached := false
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &script{results: map[string]string{
			methodDiscover: `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}`,
			methodTools:    `{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}`,
		}, seen: map[string]int{}}
		reached = reached || r.Header.Get(mcp.HeaderMethod) == methodCall
		s.ServeHTTP(w, r)
	}))
	defer upstream.Close()
	d := &table{noTools: true}
	g, err := New(Config{Decider: d, Logger: slog.New(slog.DiscardHandler), Upstreams: []mcp.Server{{Name: "real", URL: upstream.URL}}})
	if err != nil {
		f.Fatal(err)
	}
	defer g.Close(f.Context())
	f.Fuzz(func(t *testing.T, body string, merged bool) {
		path := "/mcp/real"
		if merged {
			path = "/mcp"
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Authorization", "Bearer "+alice)
		if m, err := mcp.Parse([]byte(body)); err == nil && m.IsRequest() {
			if m.Method() == methodListen {
				return // a stream that lasts
			}
			for name, v := range mcp.StandardHeaders(m) {
				r.Header[name] = v
			}
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Body.Len() > 0 {
			if _, err := mcp.Parse(w.Body.Bytes()); err != nil {
				t.Errorf("%d %q: %v", w.Code, w.Body, err)
			}
		} else if w.Code != http.StatusAccepted {
			t.Errorf("status %d without a body", w.Code)
		}
		if reached {
			t.Error("a denied call has reached the server")
		}
	})
}
