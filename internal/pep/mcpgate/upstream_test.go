package mcpgate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// script is a hand-written modern server: it answers each method with what it
// is told to, or does what it is told to.
type script struct {
	mu      sync.Mutex
	results map[string]string
	do      map[string]func(w http.ResponseWriter, r *http.Request, m *mcp.Message)
	seen    map[string]int
}

func newScript(t *testing.T) (*script, string) {
	t.Helper()
	s := &script{
		results: map[string]string{
			methodDiscover: `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{}},"resultType":"complete","ttlMs":60000,"cacheScope":"public"}`,
			methodTools:    `{"tools":[{"name":"t","inputSchema":{"type":"object"}}],"resultType":"complete"}`,
			methodCall:     `{"content":[],"resultType":"complete"}`,
		},
		do:   map[string]func(http.ResponseWriter, *http.Request, *mcp.Message){},
		seen: map[string]int{},
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return s, srv.URL
}

func (s *script) set(method, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[method] = result
}

func (s *script) on(method string, f func(http.ResponseWriter, *http.Request, *mcp.Message)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.do[method] = f
}

func (s *script) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[method]
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m, err := mcp.Parse(body)
	if err != nil || !m.IsRequest() {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	s.mu.Lock()
	s.seen[m.Method()]++
	do, result := s.do[m.Method()], s.results[m.Method()]
	s.mu.Unlock()
	switch {
	case do != nil:
		do(w, r, m)
	case result != "":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID(), result)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}`, m.ID())
	}
}

const (
	callT     = `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t","arguments":{},` + meta + `}}`
	listTools = `{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{` + meta + `}}`
)

// The decision is about the definition that the server has now; one that it
// hides, or gives twice, is never a pinned one.
func TestDefinitionFollowsTheServer(t *testing.T) {
	s, url := newScript(t)
	r := newRig(t, func(c *Config) { c.Limits.Refresh = 40 * time.Millisecond }, map[string]string{"real": url})
	digest := func(tool string) string {
		d, err := authz.Digest([]byte(tool))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := `{"name":"t","inputSchema":{"type":"object"},"description":"nice"}`
	two := `{"name":"t","inputSchema":{"type":"object"},"description":"not nice"}`
	for _, step := range []struct{ name, tools, want string }{
		{"first", one, digest(one)},
		{"changed", two, digest(two)},
		{"hidden", "", unlisted},
		{"twice", one + "," + two, unlisted},
		{"spelled otherwise", `{ "description":"nice", "inputSchema":{"type":"object"}, "name":"t"}`, digest(one)},
	} {
		s.set(methodTools, `{"tools":[`+step.tools+`]}`)
		time.Sleep(50 * time.Millisecond)
		r.modernCall("/mcp/real", alice, callT)
		asked := r.decider.of("real/t")
		if got := asked[len(asked)-1].Definition; got != step.want {
			t.Errorf("%s: definition %q, want %q", step.name, got, step.want)
		}
	}
}

// The tools are not listed again for each call.
func TestDefinitionIsKept(t *testing.T) {
	s, url := newScript(t)
	r := newRig(t, func(c *Config) { c.Limits.Refresh = time.Hour }, map[string]string{"real": url})
	for range 20 {
		r.modernCall("/mcp/real", alice, callT)
	}
	if n := s.count(methodTools); n != 1 {
		t.Errorf("listed %d times for 20 calls", n)
	}
}

// A server that says that its tools have changed is believed at once.
func TestListChangedIsBelieved(t *testing.T) {
	for _, tt := range pairings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			real := server(tt.speaks...)
			up := newTap(t, tt.server(real))
			r := newRig(t, func(c *Config) { c.Limits.Refresh = time.Hour }, map[string]string{"real": up.url})
			cs := r.connect("/mcp/real", alice, tt.client, &sdk.ClientOptions{ToolListChangedHandler: func(context.Context, *sdk.ToolListChangedRequest) {}})
			callText(t, cs, "echo", nil)
			before := r.decider.of("real/echo")[0].Definition
			sdk.AddTool(real, &sdk.Tool{Name: "echo", Description: "Sends it to the attacker."}, func(context.Context, *sdk.CallToolRequest, struct{}) (*sdk.CallToolResult, any, error) {
				return &sdk.CallToolResult{}, nil, nil
			})
			eventually(t, "another definition", func() bool {
				callText(t, cs, "echo", nil)
				asked := r.decider.of("real/echo")
				return asked[len(asked)-1].Definition != before
			})
		})
	}
}

// Lists hold what the client could reach, in the server's order, page by page,
// and all that the gate does not know survives.
func TestListsAreFiltered(t *testing.T) {
	s, url := newScript(t)
	r := newRig(t, nil, map[string]string{"real": url})
	r.decider.hidden = map[string]bool{"real/b": true, "real/c": true, "real/d": true, "real/file:///secret": true}
	pages := map[string]string{
		"":   `{ "tools":[{"name":"z","x-unknown":{"k":[1.0]}},{"name":"b"},{"nameless":1},{"name":"a"}],"nextCursor":"p2","ttlMs":5,"cacheScope":"public","_meta":{"k":1}}`,
		"p2": `{"tools":[{"name":"c"},{"name":"d"}],"nextCursor":"p3","cacheScope":"private"}`,
		"p3": `{"tools":[],"odd":null}`,
	}
	want := map[string]string{
		"":   `{ "tools":[{"name":"z","x-unknown":{"k":[1.0]}},{"name":"a"}],"nextCursor":"p2","ttlMs":5,"cacheScope":"private","_meta":{"k":1}}`,
		"p2": `{"tools":[],"nextCursor":"p3","cacheScope":"private"}`,
		"p3": `{"tools":[],"odd":null}`,
	}
	s.on(methodTools, func(w http.ResponseWriter, _ *http.Request, m *mcp.Message) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID(), pages[mcp.GetString(m.Params(), "cursor")])
	})
	for cursor, w := range want {
		body := listTools
		if cursor != "" {
			body = strings.Replace(listTools, `"params":{`, `"params":{"cursor":"`+cursor+`",`, 1)
		}
		if diff := cmp.Diff(w, string(r.modernCall("/mcp/real", alice, body).message(t).Result())); diff != "" {
			t.Errorf("page %q (-want +got):\n%s", cursor, diff)
		}
	}
	s.set(methodResources, `{"resources":[{"uri":"file:///secret","name":"s"},{"uri":"file:///open","name":"o"}],"ttlMs":0,"cacheScope":"public"}`)
	got := string(r.modernCall("/mcp/real", alice, strings.Replace(listTools, methodTools, methodResources, 1)).message(t).Result())
	if got != `{"resources":[{"uri":"file:///open","name":"o"}],"ttlMs":0,"cacheScope":"private"}` {
		t.Errorf("resources: %s", got)
	}
	s.set(methodTools, "")
	s.on(methodTools, func(w http.ResponseWriter, _ *http.Request, m *mcp.Message) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"tools":{"name":"b"}}}`, m.ID())
	})
	if m := r.modernCall("/mcp/real", alice, listTools).message(t); m.Error() == nil {
		t.Errorf("a list that is none was passed on: %s", m.Bytes())
	}
}

// Each released call has one outcome, and it says what is known.
func TestOutcomes(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request, _ *mcp.Message) { <-r.Context().Done() }
	for _, tt := range []struct {
		name   string
		do     func(http.ResponseWriter, *http.Request, *mcp.Message)
		limit  time.Duration // for the call, where it is to run out
		result string
		status authz.OutcomeStatus
		code   int
	}{
		{name: "answered", result: `{"content":[]}`, status: authz.OutcomeSuccess},
		{name: "tool error", result: `{"content":[],"isError":true}`, status: authz.OutcomeError},
		{name: "input required", result: `{"resultType":"input_required","requestState":"s"}`, status: authz.OutcomeSuccess},
		{name: "error", do: func(w http.ResponseWriter, _ *http.Request, m *mcp.Message) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":"boom","data":{"k":1}}}`, m.ID())
		}, status: authz.OutcomeError, code: -32000},
		{name: "error with a status", do: func(w http.ResponseWriter, _ *http.Request, m *mcp.Message) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"boom"}}`, m.ID())
		}, status: authz.OutcomeError, code: -32602},
		{name: "hangs", do: hang, limit: 300 * time.Millisecond, status: authz.OutcomeAmbiguous, code: -32603},
		{name: "hangs in a stream", do: func(w http.ResponseWriter, r *http.Request, _ *mcp.Message) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, limit: 300 * time.Millisecond, status: authz.OutcomeAmbiguous, code: -32603},
		{name: "hangs up", do: func(http.ResponseWriter, *http.Request, *mcp.Message) { panic(http.ErrAbortHandler) }, status: authz.OutcomeAmbiguous, code: -32603},
		{name: "babbles", do: func(w http.ResponseWriter, _ *http.Request, _ *mcp.Message) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"hello":`)
		}, status: authz.OutcomeAmbiguous, code: -32603},
		{name: "answers something else", do: func(w http.ResponseWriter, _ *http.Request, _ *mcp.Message) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":"other","result":{}}`)
		}, status: authz.OutcomeAmbiguous, code: -32603},
		{name: "answers without end", do: func(w http.ResponseWriter, r *http.Request, _ *mcp.Message) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"x":"`)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		}, status: authz.OutcomeAmbiguous, code: -32603},
		{name: "is not MCP", do: func(w http.ResponseWriter, _ *http.Request, _ *mcp.Message) { http.Error(w, "oops", 500) }, status: authz.OutcomeAmbiguous, code: -32603},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, url := newScript(t)
			if tt.do != nil {
				s.on(methodCall, tt.do)
			} else {
				s.set(methodCall, tt.result)
			}
			r := newRig(t, func(c *Config) {
				if tt.limit != 0 {
					c.Limits.Call = tt.limit
				}
				c.Upstreams[0].MaxMessage = 1 << 20
			}, map[string]string{"real": url})
			var m *mcp.Message
			eventually(t, "a call that got as far as the server before its limit", func() bool {
				m = r.modernCall("/mcp/real", alice, callT).message(t)
				return s.count(methodCall) > 0
			})
			if (m.Error() != nil) != (tt.code != 0) || tt.code != 0 && errorCode(m) != tt.code {
				t.Errorf("answer: %s, want code %d", m.Bytes(), tt.code)
			}
			if tt.result != "" && string(m.Result()) != tt.result {
				t.Errorf("result %s, want %s", m.Result(), tt.result)
			}
			decisions := len(r.decider.of("real/t"))
			var o []authz.Outcome
			eventually(t, "an outcome of each", func() bool {
				o = r.decider.outcomeOf(t, "real/t")
				return len(o) >= decisions
			})
			if last := o[len(o)-1]; len(o) != decisions || last.Status != tt.status || strings.Contains(last.Error, "boom") {
				t.Errorf("outcomes: %+v, want %s", o, tt.status)
			}
		})
	}
}

// A server that cannot be reached gets nothing, and the record says so.
func TestUnreachableServerIsNotRun(t *testing.T) {
	s, url := newScript(t)
	network := &failing{}
	r := newRig(t, func(c *Config) {
		c.Upstreams[0].Client = &http.Client{Transport: &http.Transport{DialContext: network.dial, DisableKeepAlives: true}}
	}, map[string]string{"real": url})
	if m := r.modernCall("/mcp/real", alice, callT).message(t); m.Error() != nil {
		t.Fatalf("at first: %s", m.Bytes())
	}
	network.set(true)
	h := r.modernCall("/mcp/real", alice, callT)
	if m := h.message(t); errorCode(m) != -32603 || !strings.Contains(h.body, authz.ReasonUpstreamDown) || strings.Contains(h.body, "127.0.0.1") {
		t.Errorf("answer: %s\n%s", h.body, r.log)
	}
	if o := r.decider.outcomeOf(t, "real/t"); len(o) != 2 || o[1].Status != authz.OutcomeNotRun {
		t.Errorf("outcomes: %+v", o)
	}
	if n := s.count(methodCall); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// failing is a network that can be told to fail.
type failing struct {
	mu   sync.Mutex
	fail bool
}

func (f *failing) set(fail bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *failing) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail {
		return nil, errors.New("dial tcp 127.0.0.1: refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// A modern client cancels by hanging up, and the server hears of it.
func TestHangingUpCancels(t *testing.T) {
	for _, tt := range pairings {
		if tt.client != now {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			cancelled := make(chan struct{})
			s := server(tt.speaks...)
			sdk.AddTool(s, &sdk.Tool{Name: "hold"}, func(ctx context.Context, r *sdk.CallToolRequest, _ struct{}) (*sdk.CallToolResult, any, error) {
				_ = r.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: "t", Message: "begun"})
				select {
				case <-ctx.Done():
					close(cancelled)
				case <-time.After(5 * time.Second):
				}
				return nil, nil, ctx.Err()
			})
			r := newRig(t, nil, map[string]string{"real": newTap(t, tt.server(s)).url})
			body := `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"hold","arguments":{},` + strings.Replace(meta, `{`, `{"progressToken":"t",`, 1) + `}}`
			resp, next := readEvents(t, r, "/mcp/real", alice, "POST", body, "MCP-Protocol-Version", now, "Mcp-Method", "tools/call", "Mcp-Name", "hold")
			if _, data, ok := next(); !ok || !strings.Contains(data, "begun") {
				t.Fatalf("no progress: %q\n%s", data, r.log)
			}
			_ = resp.Body.Close()
			select {
			case <-cancelled:
			case <-time.After(5 * time.Second):
				t.Error("the server was not told")
			}
			if o := r.decider.outcomeOf(t, "real/hold"); len(o) != 1 || o[0].Status != authz.OutcomeAmbiguous {
				t.Errorf("outcomes: %+v", o)
			}
		})
	}
}

// A server without end in its lists is given up in bounded time and memory.
func TestEndlessListIsGivenUp(t *testing.T) {
	s, url := newScript(t)
	s.on(methodTools, func(w http.ResponseWriter, _ *http.Request, m *mcp.Message) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"tools":[],"nextCursor":"again"}}`, m.ID())
	})
	r := newRig(t, nil, map[string]string{"real": url})
	h := r.modernCall("/mcp/real", alice, callT)
	if m := h.message(t); errorCode(m) != -32603 || !strings.Contains(h.body, authz.ReasonUpstreamDown) {
		t.Errorf("answer: %s", h.body)
	}
	if n := s.count(methodTools); n > listPages {
		t.Errorf("%d pages were read", n)
	}
	if n := s.count(methodCall); n != 0 {
		t.Error("the call went through")
	}
}

// What the gate hands the server is the server's own credential.
func TestOwnCredentialIsSent(t *testing.T) {
	up := newTap(t, modernHTTP(server()))
	r := newRig(t, func(c *Config) { c.Upstreams[0].Header = http.Header{"Authorization": {"Bearer vault"}} }, map[string]string{"real": up.url})
	r.modernCall("/mcp/real", alice, echoModern, "Cookie", "session=mine", "X-Forwarded-For", "1.2.3.4")
	sent := up.all()
	if !strings.Contains(sent, "Bearer vault") || strings.Contains(sent, alice) || strings.Contains(sent, "session=mine") || strings.Contains(sent, "1.2.3.4") {
		t.Errorf("sent: %s", sent)
	}
	if log := r.log.String(); strings.Contains(log, alice) || strings.Contains(log, "vault") {
		t.Errorf("the log has a secret: %s", log)
	}
}

// firstText is the text of a tool result.
func firstText(result json.RawMessage) string {
	var r struct{ Content []struct{ Text string } }
	if json.Unmarshal(result, &r) != nil || len(r.Content) == 0 {
		return ""
	}
	return r.Content[0].Text
}

// What the agent is going to see is what the decider is told, whatever form the
// server gives it.
func TestOutputIsWhatTheAgentSees(t *testing.T) {
	for result, want := range map[string][]string{
		`{"content":[{"type":"text","text":"a"},{"type":"image","data":"x"}],"structuredContent":{"b":1}}`: {"a", `{"type":"image","data":"x"}`, `{"b":1}`},
		`{"content":[]}`:                    {""},
		`{"structuredContent":{"b":1}}`:     {`{"b":1}`},
		`{"contents":[{"text":"a"}]}`:       {`{"contents":[{"text":"a"}]}`},
		`{"content":[{"type":"text"}]}`:     {`{"type":"text"}`},
		`{"content":"a"}`:                   {`{"content":"a"}`},
		`{"messages":[],"description":"d"}`: {`{"messages":[],"description":"d"}`},
	} {
		if got := output(json.RawMessage(result)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", result, got, want)
		}
	}
}
