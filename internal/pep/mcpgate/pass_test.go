package mcpgate

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// The versions that clients of the two eras speak.
const (
	old = "2025-11-25"
	now = "2026-07-28"
)

// pairings are a client and a server of each era.
var pairings = []struct {
	name   string
	client string
	server func(*sdk.Server) http.Handler
	speaks []string
}{
	{"legacy client, legacy server", old, legacyHTTP, []string{old}},
	{"modern client, modern server", now, modernHTTP, []string{now}},
	{"modern client, legacy server", now, legacyHTTP, []string{old}},
	{"legacy client, modern server", old, modernHTTP, []string{now}},
}

// Everything that a client may do works in every pairing of eras.
func TestEveryPairingOfErasWorks(t *testing.T) {
	for _, tt := range pairings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newTap(t, tt.server(server(tt.speaks...)))
			r := newRig(t, nil, map[string]string{"real": up.url})
			asked := ""
			progress := make(chan float64, 10)
			cs := r.connect("/mcp/real", alice, tt.client, &sdk.ClientOptions{
				ElicitationHandler: func(_ context.Context, q *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
					asked = q.Params.Message
					return &sdk.ElicitResult{Action: "accept", Content: map[string]any{"ok": true}}, nil
				},
				ProgressNotificationHandler: func(_ context.Context, n *sdk.ProgressNotificationClientRequest) {
					progress <- n.Params.Progress
				},
			})
			ctx := t.Context()
			if got := cs.InitializeResult(); got.Instructions != "Be careful." || got.ServerInfo == nil || got.ServerInfo.Name != "real" || got.Capabilities.Tools == nil {
				t.Errorf("initialize: %+v", got)
			}
			if got := callText(t, cs, "echo", map[string]any{"text": "hi"}); got != "hi" {
				t.Errorf("echo said %q", got)
			}
			if got := callText(t, cs, "ask", map[string]any{"text": "it"}); got != "accept" || asked != "Sure about it?" {
				t.Errorf("ask said %q, asked %q\n%s", got, asked, r.log)
			}
			p := &sdk.CallToolParams{Name: "progress"}
			p.SetProgressToken("tok")
			if _, err := cs.CallTool(ctx, p); err != nil {
				t.Error(err)
			}
			for i := range 3 {
				select {
				case got := <-progress:
					if got != float64(i) {
						t.Errorf("progress %v, want %d", got, i)
					}
				case <-time.After(5 * time.Second):
					t.Error("no progress")
				}
			}
			if tt.client == old {
				if err := cs.Ping(ctx, nil); err != nil {
					t.Error(err)
				}
				if err := cs.SetLoggingLevel(ctx, &sdk.SetLoggingLevelParams{Level: "info"}); err != nil {
					t.Error(err)
				}
			}
			if prompts, err := cs.ListPrompts(ctx, nil); err != nil || len(prompts.Prompts) != 1 {
				t.Errorf("prompts: %v %v", prompts, err)
			}
			if templates, err := cs.ListResourceTemplates(ctx, nil); err != nil || len(templates.ResourceTemplates) != 1 {
				t.Errorf("templates: %v %v", templates, err)
			}
			tools, err := cs.ListTools(ctx, nil)
			if err != nil || len(tools.Tools) != 6 {
				t.Errorf("tools: %v %v", tools, err)
			}
			if res, err := cs.ReadResource(ctx, &sdk.ReadResourceParams{URI: "test://one"}); err != nil || res.Contents[0].Text != "contents of test://one" {
				t.Errorf("read: %v %v", res, err)
			}
			if res, err := cs.GetPrompt(ctx, &sdk.GetPromptParams{Name: "greet"}); err != nil || len(res.Messages) != 1 {
				t.Errorf("prompt: %v %v", res, err)
			}
			if res, err := cs.Complete(ctx, &sdk.CompleteParams{Ref: &sdk.CompleteReference{Type: "ref/prompt", Name: "greet"}, Argument: sdk.CompleteParamsArgument{Name: "a", Value: "x"}}); err != nil || len(res.Completion.Values) != 1 {
				t.Errorf("complete: %v %v", res, err)
			}
			if q := r.decider.of("real/echo"); len(q) != 1 || string(q[0].Input) != `{"text":"hi"}` || q[0].Definition == "" || q[0].Definition == unlisted || q[0].Server != "real" || (q[0].Session == "") != (tt.client == now) || q[0].Gate != gateHTTP {
				t.Errorf("decision about echo: %+v", q)
			}
			if o := r.decider.outcomeOf(t, "real/echo"); len(o) != 1 || o[0].Status != authz.OutcomeSuccess {
				t.Errorf("outcome of echo: %+v", o)
			}
			for _, o := range r.decider.outcomeOf(t, "real/ask") {
				if o.Status != authz.OutcomeSuccess {
					t.Errorf("outcome of ask: %+v", o)
				}
			}
			if q := r.decider.of("mcp:resources/read"); len(q) != 1 || q[0].Resource != (authz.Entity{Type: "McpResource", ID: "real/test://one"}) {
				t.Errorf("decision about the resource: %+v", q)
			}
			if q := r.decider.of("mcp:prompts/get"); len(q) != 1 || q[0].Resource != (authz.Entity{Type: "McpPrompt", ID: "real/greet"}) {
				t.Errorf("decision about the prompt: %+v", q)
			}
			if strings.Contains(up.all(), alice) {
				t.Error("the client's key has reached the server")
			}
		})
	}
}

// callText calls a tool and returns the text of its result.
func callText(t *testing.T, cs *sdk.ClientSession, name string, args map[string]any) string {
	t.Helper()
	res, err := cs.CallTool(t.Context(), &sdk.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		t.Errorf("call %s: %v", name, err)
		return ""
	}
	if len(res.Content) == 0 {
		return ""
	}
	tc, _ := res.Content[0].(*sdk.TextContent)
	return tc.Text
}

// What is denied never reaches the server, and the agent is told so in a way
// that it can read.
func TestNothingDeniedReachesTheServer(t *testing.T) {
	for _, tt := range pairings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newTap(t, tt.server(server(tt.speaks...)))
			r := newRig(t, nil, map[string]string{"real": up.url})
			for _, action := range []string{"real/delete", "mcp:resources/read", "mcp:prompts/get", "mcp:completion/complete", "mcp:resources/list"} {
				r.decider.deny[action] = authz.ReasonForbidden
			}
			cs := r.connect("/mcp/real", alice, tt.client, nil)
			ctx := t.Context()
			res, err := cs.CallTool(ctx, &sdk.CallToolParams{Name: "delete", Arguments: map[string]any{"text": "all-of-it"}})
			if err != nil {
				t.Fatal(err)
			}
			why, _ := res.Meta[metaDenial].(map[string]any)
			if !res.IsError || res.Content[0].(*sdk.TextContent).Text != "Denied by the table." || why["code"] != authz.ReasonForbidden || why["decision"] == "" {
				t.Errorf("denial: %+v", res)
			}
			_, err = cs.ReadResource(ctx, &sdk.ReadResourceParams{URI: "test://secret"})
			wantCode(t, "read", err, "-32001", authz.ReasonForbidden)
			_, err = cs.GetPrompt(ctx, &sdk.GetPromptParams{Name: "secret-prompt"})
			wantCode(t, "prompt", err, "-32001", authz.ReasonForbidden)
			_, err = cs.Complete(ctx, &sdk.CompleteParams{Ref: &sdk.CompleteReference{Type: "ref/prompt", Name: "secret-ref"}, Argument: sdk.CompleteParamsArgument{Name: "a", Value: "x"}})
			wantCode(t, "complete", err, "-32001", authz.ReasonForbidden)
			_, err = cs.ListResources(ctx, nil)
			wantCode(t, "list", err, "-32001", authz.ReasonForbidden)
			sent := up.all()
			for _, word := range []string{"all-of-it", "secret", "resources/list", "completion/complete"} {
				if strings.Contains(sent, word) {
					t.Errorf("%q has reached the server", word)
				}
			}
			r.decider.mu.Lock()
			defer r.decider.mu.Unlock()
			for _, o := range r.decider.outcomes {
				for i, q := range r.decider.asked {
					if o.Decision == "d"+string(raw(i+1)) && r.decider.deny[q.Action] != "" {
						t.Errorf("an outcome of what was denied: %+v", o)
					}
				}
			}
		})
	}
}

func wantCode(t *testing.T, what string, err error, code, reason string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	text := string(raw(err)) + err.Error()
	if !strings.Contains(text, "Denied by the table.") {
		t.Errorf("%s: %s, want code %s, reason %s", what, text, code, reason)
	}
}

// What was decided is what is sent, byte for byte but for the id, with all that
// the gate does not know.
func TestDecidedBytesAreSentBytes(t *testing.T) {
	args := `{ "text" : "caf\u00e9 \u2028",  "big": 12345678901234567890123, "float": 1.50e+3, "nested": {"b":1,"a":[ ]} }`
	for _, era := range []string{old, now} {
		t.Run(era, func(t *testing.T) {
			handler, id := legacyHTTP, `"x-1"`
			params := `{ "unknown":[1, 2],"name":"echo", "arguments":` + args + `, "_meta" : {"traceparent":"00-1-2-03", "other/key":{"z":1}}}`
			if era == now {
				handler = modernHTTP
				params = `{ "unknown":[1, 2],"name":"echo", "arguments":` + args + `, "_meta" : {"traceparent":"00-1-2-03", "other/key":{"z":1}, ` + strings.TrimSuffix(strings.TrimPrefix(meta, `"_meta":{`), "}") + `}}`
			}
			up := newTap(t, handler(server(era)))
			r := newRig(t, nil, map[string]string{"real": up.url})
			body := `{"jsonrpc" : "2.0", "extra":{"k":"v"}, "id":` + id + `,"method":"tools/call", "params":` + params + `}`
			var h httpReply
			if era == old {
				h = r.legacyCall("/mcp/real", alice, r.begin("/mcp/real", alice), body)
			} else {
				h = r.modernCall("/mcp/real", alice, body)
			}
			if got := string(h.message(t).ID()); got != id {
				t.Errorf("the answer's id is %s, want %s: %s", got, id, h.body)
			}
			q := r.decider.of("real/echo")
			if len(q) != 1 || string(q[0].Input) != args {
				t.Fatalf("decided %+v, want %s", q, args)
			}
			sent := up.bodiesOf("tools/call")
			if len(sent) != 1 {
				t.Fatalf("%d calls were sent", len(sent))
			}
			m, err := mcp.Parse(sent[0])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(body, string(m.WithID(json.RawMessage(id)).Bytes())); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}
