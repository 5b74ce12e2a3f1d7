package mcpgate

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// asking is a legacy server with a tool that asks before it acts.
func asking(acted chan<- string) *sdk.Server {
	s := server(old)
	type in struct {
		What string `json:"what"`
	}
	sdk.AddTool(s, &sdk.Tool{Name: "careful"}, func(ctx context.Context, r *sdk.CallToolRequest, a in) (*sdk.CallToolResult, any, error) {
		res, err := r.Session.Elicit(ctx, &sdk.ElicitParams{Message: "Really " + a.What + "?", RequestedSchema: json.RawMessage(`{"type":"object","properties":{}}`)})
		if err != nil {
			return nil, nil, err
		}
		if res.Action == "accept" {
			select {
			case acted <- a.What:
			default:
			}
		}
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: res.Action}}}, nil, nil
	})
	return s
}

func careful(what, extra string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"careful","arguments":{"what":%q},%s%s}}`, what, meta, extra)
}

// A question of a legacy server becomes a result that asks for input, and the
// client's next request takes the call up: once, for the same client and the
// same request, and after a decision of its own.
func TestParkedCallIsForOneClientAndOneRequestOnce(t *testing.T) {
	acted := make(chan string, 10)
	r := newRig(t, nil, map[string]string{"real": newTap(t, legacyHTTP(asking(acted))).url})
	first := r.modernCall("/mcp/real", alice, careful("delete", "")).message(t)
	state := mcp.GetString(first.Result(), "requestState")
	if mcp.GetString(first.Result(), "resultType") != "input_required" || state == "" || mcp.GetString(first.Result(), "inputRequests", "q1", "params", "message") != "Really delete?" {
		t.Fatalf("question: %s\n%s", first.Bytes(), r.log)
	}
	retry := fmt.Sprintf(`,"requestState":%q,"inputResponses":{"q1":{"action":"accept"}}`, state)
	for name, tt := range map[string]struct{ key, body string }{
		"other client":  {bob, careful("delete", retry)},
		"other request": {alice, careful("delete everything", retry)},
		"other run":     {alice, strings.Replace(careful("delete", retry), `"_meta":{`, `"_meta":{"dev.bailiwick/session":"x",`, 1)},
		"altered state": {alice, careful("delete", strings.Replace(retry, state, state[1:]+"A", 1))},
		"empty state":   {alice, careful("delete", strings.Replace(retry, state, "", 1))},
		"odd state":     {alice, careful("delete", strings.Replace(retry, `"`+state+`"`, "17", 1))},
	} {
		h := r.modernCall("/mcp/real", tt.key, tt.body)
		if m := h.message(t); errorCode(m) != mcp.CodeInvalidParams || h.status != 400 || m.Error() == nil {
			t.Errorf("%s: %s", name, h.body)
		}
	}
	r.decider.deny["real/careful"] = authz.ReasonForbidden
	if m := r.modernCall("/mcp/real", alice, careful("delete", retry)).message(t); !isToolError(m.Result()) {
		t.Errorf("the handle got past a denial: %s", m.Bytes())
	}
	if len(acted) != 0 {
		t.Fatal("the server has acted")
	}
	delete(r.decider.deny, "real/careful")
	again := r.modernCall("/mcp/real", alice, careful("delete", fmt.Sprintf(`,"requestState":%q`, state))).message(t)
	next := mcp.GetString(again.Result(), "requestState")
	if mcp.GetString(again.Result(), "resultType") != "input_required" || next == "" || next == state {
		t.Fatalf("without an answer: %s", again.Bytes())
	}
	retry = strings.Replace(retry, state, next, 1)
	done := r.modernCall("/mcp/real", alice, careful("delete", retry)).message(t)
	if firstText(done.Result()) != "accept" || mcp.GetString(done.Result(), "resultType") != "complete" || len(acted) != 1 {
		t.Errorf("answered: %s", done.Bytes())
	}
	if m := r.modernCall("/mcp/real", alice, careful("delete", retry)).message(t); errorCode(m) != mcp.CodeInvalidParams {
		t.Errorf("twice: %s", m.Bytes())
	}
	eventually(t, "all outcomes", func() bool {
		n := 0
		for _, o := range r.decider.outcomeOf(t, "real/careful") {
			if o.Status == authz.OutcomeSuccess {
				n++
			}
		}
		return n == 3 // the first request, the one without an answer, and the last
	})
}

// A question that nobody answers is given up, and so is the call.
func TestParkedCallExpires(t *testing.T) {
	acted := make(chan string, 10)
	r := newRig(t, func(c *Config) { c.Limits.Answer = 50 * time.Millisecond }, map[string]string{"real": newTap(t, legacyHTTP(asking(acted))).url})
	first := r.modernCall("/mcp/real", alice, careful("delete", "")).message(t)
	state := mcp.GetString(first.Result(), "requestState")
	if o := r.decider.outcomeOf(t, "real/careful"); len(o) != 1 || o[0].Status != authz.OutcomeAmbiguous {
		t.Errorf("outcomes: %+v", o)
	}
	m := r.modernCall("/mcp/real", alice, careful("delete", fmt.Sprintf(`,"requestState":%q,"inputResponses":{"q1":{"action":"accept"}}`, state))).message(t)
	if errorCode(m) != mcp.CodeInvalidParams || len(acted) != 0 {
		t.Errorf("too late: %s", m.Bytes())
	}
}

// A client is not asked for what it cannot do.
func TestClientIsNotAskedForWhatItCannotDo(t *testing.T) {
	acted := make(chan string, 10)
	r := newRig(t, nil, map[string]string{"real": newTap(t, legacyHTTP(asking(acted))).url})
	body := strings.Replace(careful("delete", ""), `{"elicitation":{}}`, `{}`, 1)
	m := r.modernCall("/mcp/real", alice, body).message(t)
	if mcp.GetString(m.Result(), "resultType") == "input_required" {
		t.Errorf("asked: %s", m.Bytes())
	}
}

// Clients, and runs of one client, have conversations of their own with a
// legacy server.
func TestConversationsAreNotShared(t *testing.T) {
	up := newTap(t, legacyHTTP(server(old)))
	r := newRig(t, nil, map[string]string{"real": up.url})
	named := strings.Replace(echoModern, `"_meta":{`, `"_meta":{"dev.bailiwick/session":"run-1",`, 1)
	for _, c := range []struct{ key, body string }{{alice, echoModern}, {alice, echoModern}, {bob, echoModern}, {alice, named}} {
		if m := r.modernCall("/mcp/real", c.key, c.body).message(t); m.Result() == nil {
			t.Fatalf("call: %s", m.Bytes())
		}
	}
	if n := len(up.bodiesOf(methodInitialize)); n != 3 {
		t.Errorf("%d conversations, want 3", n)
	}
	if n := len(r.decider.of("mcp:initialize")); n != 3 {
		t.Errorf("%d decisions about them, want 3", n)
	}
	for _, b := range up.bodiesOf(methodCall) {
		if strings.Contains(string(b), "io.modelcontextprotocol") {
			t.Errorf("a legacy server was sent modern metadata: %s", b)
		}
	}
}

// A client that may not talk to a server at all does not get a conversation
// opened for it.
func TestConversationIsDecided(t *testing.T) {
	up := newTap(t, legacyHTTP(server(old)))
	r := newRig(t, nil, map[string]string{"real": up.url})
	r.decider.deny["mcp:initialize"] = authz.ReasonNoPermit
	h := r.modernCall("/mcp/real", alice, echoModern)
	if m := h.message(t); !isToolError(m.Result()) {
		t.Errorf("answer: %s", h.body)
	}
	if n := len(up.bodiesOf(methodInitialize)) + len(up.bodiesOf(methodCall)); n != 0 {
		t.Errorf("%d messages have reached the server", n)
	}
}

// Subscriptions cross the eras both ways.
func TestSubscriptionsCrossEras(t *testing.T) {
	for _, tt := range pairings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			real := server(tt.speaks...)
			r := newRig(t, nil, map[string]string{"real": newTap(t, tt.server(real)).url})
			if tt.client == now {
				body := `{"jsonrpc":"2.0","id":"sub-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["test://one","test://hidden"]},` + meta + `}}`
				r.decider.hidden["real/test://hidden"] = true
				_, next := readEvents(t, r, "/mcp/real", alice, "POST", body, "MCP-Protocol-Version", now, "Mcp-Method", methodListen)
				_, data, _ := next()
				if !strings.Contains(data, noteAcknowledged) || !strings.Contains(data, `"test://one"`) || strings.Contains(data, "hidden") || !strings.Contains(data, `"io.modelcontextprotocol/subscriptionId":"sub-1"`) {
					t.Fatalf("acknowledged: %s\n%s", data, r.log)
				}
				heard := make(chan string, 1)
				go func() {
					_, data, _ := next()
					heard <- data
				}()
				told := false
				eventually(t, "the update", func() bool {
					_ = real.ResourceUpdated(t.Context(), &sdk.ResourceUpdatedNotificationParams{URI: "test://one"})
					select {
					case data := <-heard:
						told = strings.Contains(data, noteUpdated) && strings.Contains(data, `"sub-1"`)
						return true
					case <-time.After(20 * time.Millisecond):
						return false
					}
				})
				if !told {
					t.Error("told something else")
				}
				return
			}
			heard := make(chan string, 100)
			cs := r.connect("/mcp/real", alice, tt.client, &sdk.ClientOptions{ResourceUpdatedHandler: func(_ context.Context, n *sdk.ResourceUpdatedNotificationRequest) {
				select {
				case heard <- n.Params.URI:
				default:
				}
			}})
			if err := cs.Subscribe(t.Context(), &sdk.SubscribeParams{URI: "test://one"}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the update", func() bool {
				_ = real.ResourceUpdated(t.Context(), &sdk.ResourceUpdatedNotificationParams{URI: "test://one"})
				select {
				case uri := <-heard:
					return uri == "test://one"
				case <-time.After(20 * time.Millisecond):
					return false
				}
			})
			if err := cs.Unsubscribe(t.Context(), &sdk.UnsubscribeParams{URI: "test://one"}); err != nil {
				t.Error(err)
			}
		})
	}
}
