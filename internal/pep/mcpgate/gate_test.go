package mcpgate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// TestMain also plays a stdio server, as a child of the test.
func TestMain(m *testing.M) {
	if kind := os.Getenv("MCPGATE_TEST_SERVER"); kind != "" {
		playServer(kind)
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	alice = "alice-key"
	bob   = "bob-key"
)

// patience is how long a test waits for the gate at most: longer than anything
// takes here, so that a test that fails ends.
const patience = 30 * time.Second

// bounded are limits within which nothing waits for longer than that.
var bounded = Limits{Connect: 5 * time.Second, Call: patience, Answer: patience}

// table is a decider that denies by table and remembers what it has seen.
type table struct {
	mu       sync.Mutex
	deny     map[string]string // action → reason code
	hidden   map[string]bool   // action, or resource id, that nothing reaches
	short    bool              // answer about fewer operations than were asked
	noTools  bool              // deny every tool
	fail     error
	reachErr error
	asked    []authz.Request
	outcomes []authz.Outcome
	onDecide func(authz.Request)
	scoped   bool              // an allow says what may be suspended of it; the key names the agent
	better   *authz.Challenge  // what another token would have to show for what is denied
	owners   map[string]string // session → who came with it first
}

// subject is whom a key proves: a key with "+" and more is another of the same
// agent's.
func subject(q authz.Request) string {
	who, _, _ := strings.Cut(q.Credential.Value, "+")
	return who
}

func (d *table) Decide(_ context.Context, q authz.Request) (authz.Decision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, q)
	if d.onDecide != nil {
		d.onDecide(q)
	}
	if d.fail != nil {
		return authz.Decision{}, d.fail
	}
	id := fmt.Sprintf("d%d", len(d.asked))
	if who := subject(q); who != alice && who != bob {
		den := authz.Deny(authz.ReasonUnauthenticated, "Show a valid key.")
		den.ID = id
		return den, nil
	}
	if q.Session != "" && d.owners[q.Session] == "" {
		if d.owners == nil {
			d.owners = map[string]string{}
		}
		d.owners[q.Session] = subject(q)
	}
	code, ok := d.deny[q.Action]
	if d.noTools && !strings.HasPrefix(q.Action, "mcp:") {
		code, ok = authz.ReasonForbidden, true
	}
	if ok {
		den := authz.Deny(code, "Denied by the table.")
		den.ID, den.Challenge = id, d.better
		return den, nil
	}
	allow := authz.Decision{ID: id, Allow: true}
	if d.scoped {
		allow.Scope = []authz.Entity{
			{Type: "agent", ID: q.Credential.Value}, {Type: "session", ID: q.Session}, {Type: "tool", ID: q.Action}, {Type: "server", ID: q.Server},
		}
	}
	return allow, nil
}

func (d *table) Reachable(_ context.Context, q authz.Request, ops []pep.Operation) ([]bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reachErr != nil {
		return nil, d.reachErr
	}
	if who := subject(q); who != alice && who != bob || d.owners[q.Session] != "" && d.owners[q.Session] != who {
		return nil, pep.ErrRefused
	}
	out := make([]bool, len(ops))
	for i, op := range ops {
		out[i] = d.deny[op.Action] == "" && !d.hidden[op.Action] && !d.hidden[q.Resource.ID]
	}
	if d.short {
		out = out[1:]
	}
	return out, nil
}

func (d *table) Report(_ context.Context, o authz.Outcome) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outcomes = append(d.outcomes, o)
	return nil
}

// of returns the requests for an action.
func (d *table) of(action string) []authz.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []authz.Request
	for _, q := range d.asked {
		if q.Action == action {
			out = append(out, q)
		}
	}
	return out
}

// outcomeOf returns the outcomes of the decisions about an action, waiting for
// the first.
func (d *table) outcomeOf(t *testing.T, action string) []authz.Outcome {
	t.Helper()
	var out []authz.Outcome
	eventually(t, "an outcome of "+action, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		out = nil
		for i, q := range d.asked {
			for _, o := range d.outcomes {
				if q.Action == action && o.Decision == fmt.Sprintf("d%d", i+1) {
					out = append(out, o)
				}
			}
		}
		return len(out) > 0
	})
	return out
}

// eventually waits for something that happens on another goroutine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// tap records what reaches a server.
type tap struct {
	next http.Handler
	url  string

	mu      sync.Mutex
	bodies  [][]byte
	headers []http.Header
}

func newTap(t *testing.T, next http.Handler) *tap {
	t.Helper()
	p := &tap{next: next}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.CloseClientConnections)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	p.url = srv.URL
	return p
}

func (p *tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.bodies = append(p.bodies, body)
	p.headers = append(p.headers, r.Header.Clone())
	p.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.next.ServeHTTP(w, r)
}

// bodiesOf returns the messages with a method that have arrived.
func (p *tap) bodiesOf(method string) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out [][]byte
	for _, b := range p.bodies {
		if m, err := mcp.Parse(b); err == nil && m.Method() == method {
			out = append(out, b)
		}
	}
	return out
}

// sent returns how many messages have arrived.
func (p *tap) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, b := range p.bodies {
		if len(b) > 0 {
			n++
		}
	}
	return n
}

// all is everything that has arrived, headers included.
func (p *tap) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(bytes.Join(p.bodies, []byte("\n"))) + fmt.Sprint(p.headers)
}

// server builds a real server with one of everything.
func server(versions ...string) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "real", Version: "7"}, &sdk.ServerOptions{
		Instructions:              "Be careful.",
		SupportedProtocolVersions: versions,
		SubscribeHandler:          func(context.Context, *sdk.SubscribeRequest) error { return nil },
		UnsubscribeHandler:        func(context.Context, *sdk.UnsubscribeRequest) error { return nil },
		CompletionHandler: func(_ context.Context, r *sdk.CompleteRequest) (*sdk.CompleteResult, error) {
			return &sdk.CompleteResult{Completion: sdk.CompletionResultDetails{Values: []string{r.Params.Argument.Value + "!"}}}, nil
		},
	})
	type in struct {
		Text string `json:"text,omitempty"`
	}
	text := func(s string) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: s}}}
	}
	sdk.AddTool(s, &sdk.Tool{Name: "echo", Description: "Says it again."}, func(_ context.Context, _ *sdk.CallToolRequest, a in) (*sdk.CallToolResult, any, error) {
		return text(a.Text), nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "fail"}, func(context.Context, *sdk.CallToolRequest, in) (*sdk.CallToolResult, any, error) {
		r := text("it went wrong")
		r.IsError = true
		return r, nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "delete"}, func(context.Context, *sdk.CallToolRequest, in) (*sdk.CallToolResult, any, error) {
		return text("gone"), nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "wait"}, func(ctx context.Context, r *sdk.CallToolRequest, _ in) (*sdk.CallToolResult, any, error) {
		if r.Params.GetProgressToken() != nil {
			_ = r.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: r.Params.GetProgressToken(), Progress: 1, Message: "begun"})
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(3 * time.Second): // so that a test that fails ends
			return nil, nil, errors.New("nobody has cancelled")
		}
	})
	sdk.AddTool(s, &sdk.Tool{Name: "progress"}, func(ctx context.Context, r *sdk.CallToolRequest, _ in) (*sdk.CallToolResult, any, error) {
		for i := range 3 {
			_ = r.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: r.Params.GetProgressToken(), Progress: float64(i)})
		}
		return text("done"), nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "ask"}, func(ctx context.Context, r *sdk.CallToolRequest, a in) (*sdk.CallToolResult, any, error) {
		question := &sdk.ElicitParams{Message: "Sure about " + a.Text + "?", Mode: "form", RequestedSchema: json.RawMessage(`{"type":"object","properties":{"ok":{"type":"boolean"}}}`)}
		if len(r.Params.InputResponses) == 0 {
			return &sdk.CallToolResult{InputRequests: sdk.InputRequestMap{"sure": question}, RequestState: "state of " + a.Text}, nil, nil
		}
		answer, ok := r.Params.InputResponses["sure"].(*sdk.ElicitResult)
		if !ok || r.Params.RequestState != "state of "+a.Text {
			return nil, nil, fmt.Errorf("lost the thread: %q", r.Params.RequestState)
		}
		return text(answer.Action), nil, nil
	})
	s.AddPrompt(&sdk.Prompt{Name: "greet"}, func(context.Context, *sdk.GetPromptRequest) (*sdk.GetPromptResult, error) {
		return &sdk.GetPromptResult{Messages: []*sdk.PromptMessage{{Role: "user", Content: &sdk.TextContent{Text: "hello"}}}}, nil
	})
	read := func(_ context.Context, r *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
		return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: r.Params.URI, Text: "contents of " + r.Params.URI}}}, nil
	}
	s.AddResource(&sdk.Resource{Name: "one", URI: "test://one"}, read)
	s.AddResource(&sdk.Resource{Name: "two", URI: "test://two"}, read)
	s.AddResourceTemplate(&sdk.ResourceTemplate{Name: "any", URITemplate: "test://any/{id}"}, read)
	return s
}

// Server builders by era.
func legacyHTTP(s *sdk.Server) http.Handler {
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil)
}

func modernHTTP(s *sdk.Server) http.Handler {
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, &sdk.StreamableHTTPOptions{Stateless: true, PropagateRequestCancellation: true})
}

// rig is a gate with what is behind it.
type rig struct {
	t       *testing.T
	decider *table
	gate    *Gate
	url     string
	log     *syncBuffer
}

func newRig(t *testing.T, change func(*Config), upstreams map[string]string) *rig {
	t.Helper()
	r := &rig{t: t, decider: &table{deny: map[string]string{}, hidden: map[string]bool{}}, log: &syncBuffer{}}
	c := Config{
		Decider: r.decider,
		Logger:  slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Limits:  bounded,
	}
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		c.Upstreams = append(c.Upstreams, mcp.Server{Name: name, URL: upstreams[name]})
	}
	if change != nil {
		change(&c)
	}
	var err error
	if r.gate, err = New(c); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(r.gate)
	t.Cleanup(srv.Close)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_ = r.gate.Close(ctx) // what is still in flight is cut
		srv.CloseClientConnections()
	})
	r.url = srv.URL
	return r
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// bearer adds a key to every request.
type bearer struct{ key string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b.key != "" {
		r.Header.Set("Authorization", "Bearer "+b.key)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// connect connects a real client in the given era.
func (r *rig) connect(path, key, version string, o *sdk.ClientOptions) *sdk.ClientSession {
	r.t.Helper()
	cs, err := r.tryConnect(path, key, version, o)
	if err != nil {
		r.t.Fatalf("connect to %s: %v\n%s", path, err, r.log)
	}
	return cs
}

func (r *rig) tryConnect(path, key, version string, o *sdk.ClientOptions) (*sdk.ClientSession, error) {
	c := sdk.NewClient(&sdk.Implementation{Name: "client", Version: "1"}, o)
	hc := &http.Client{Transport: bearer{key}}
	cs, err := c.Connect(r.t.Context(), &sdk.StreamableClientTransport{Endpoint: r.url + path, HTTPClient: hc, MaxRetries: -1}, &sdk.ClientSessionOptions{ProtocolVersion: version})
	if err == nil {
		r.t.Cleanup(func() { _ = cs.Close() })
	}
	return cs, err
}

// httpReply is an answer over plain HTTP.
type httpReply struct {
	status int
	header http.Header
	body   string
}

// message returns the last JSON-RPC message of the answer.
func (h httpReply) message(t *testing.T) *mcp.Message {
	t.Helper()
	text := h.body
	if strings.HasPrefix(h.header.Get("Content-Type"), "text/event-stream") {
		for _, line := range strings.Split(h.body, "\n") {
			if data, ok := strings.CutPrefix(line, "data: "); ok && data != "" {
				text = data
			}
		}
	}
	m, err := mcp.Parse([]byte(text))
	if err != nil {
		t.Fatalf("status %d, no message in %q: %v", h.status, h.body, err)
	}
	return m
}

// do sends one plain HTTP request.
func (r *rig) do(method, path, key, body string, headers ...string) httpReply {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return httpReply{resp.StatusCode, resp.Header, string(b)}
}

// begin begins a legacy session over plain HTTP and returns its id.
func (r *rig) begin(path, key string) string {
	r.t.Helper()
	id := r.initialize(path, key)
	n := r.do("POST", path, key, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, "Mcp-Session-Id", id)
	if n.status != http.StatusAccepted {
		r.t.Fatalf("initialized: %d %s", n.status, n.body)
	}
	return id
}

// initialize is the first half of begin.
func (r *rig) initialize(path, key string) string {
	r.t.Helper()
	h := r.do("POST", path, key, `{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	id := h.header.Get("Mcp-Session-Id")
	if id == "" {
		r.t.Fatalf("no session: %d %s\n%s", h.status, h.body, r.log)
	}
	return id
}

// legacyCall posts a legacy request.
func (r *rig) legacyCall(path, key, session, body string) httpReply {
	r.t.Helper()
	return r.do("POST", path, key, body, "Mcp-Session-Id", session, "MCP-Protocol-Version", "2025-11-25")
}

// meta is the _meta of a modern request.
const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}`

// modernCall posts a modern request with the headers that belong to it.
func (r *rig) modernCall(path, key, body string, headers ...string) httpReply {
	r.t.Helper()
	m, err := mcp.Parse([]byte(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for name, v := range mcp.StandardHeaders(m) {
		headers = append([]string{name, v[0]}, headers...)
	}
	return r.do("POST", path, key, body, headers...)
}

func bearerCredential(key string) authz.Credential {
	return authz.Credential{Kind: authz.CredentialBearer, Value: key}
}
