package mcpgate

import (
	"context"
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

// mailbox is a server that shares a resource and a template with the real one.
func mailbox(versions ...string) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "mailbox", Version: "1"}, &sdk.ServerOptions{SupportedProtocolVersions: versions})
	sdk.AddTool(s, &sdk.Tool{Name: "echo"}, func(context.Context, *sdk.CallToolRequest, struct{}) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "from the mailbox"}}}, nil, nil
	})
	read := func(_ context.Context, r *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
		return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: r.Params.URI, Text: "mail"}}}, nil
	}
	s.AddResource(&sdk.Resource{Name: "inbox", URI: "mail://inbox"}, read)
	s.AddResource(&sdk.Resource{Name: "one", URI: "test://one"}, read)
	s.AddResourceTemplate(&sdk.ResourceTemplate{Name: "by id", URITemplate: "mail://{id}"}, read)
	return s
}

// All servers look like one: names say whose they are, and what is named goes
// to the server that has it. A server that is down is missing, and no more.
func TestServersAreMerged(t *testing.T) {
	for _, version := range []string{old, now} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			down := newTap(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
			r := newRig(t, nil, map[string]string{
				"mail":   newTap(t, legacyHTTP(mailbox(old))).url,
				"real":   newTap(t, modernHTTP(server(now))).url,
				"absent": down.url,
				"secret": newTap(t, legacyHTTP(server(old))).url,
			})
			r.decider.onDecide = func(q authz.Request) {
				if q.Server == "secret" {
					r.decider.deny["mcp:initialize"] = authz.ReasonForbidden
				} else {
					delete(r.decider.deny, "mcp:initialize")
				}
			}
			r.decider.hidden["real/fail"] = true
			cs := r.connect("/mcp", alice, version, &sdk.ClientOptions{
				ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
					return &sdk.ElicitResult{Action: "decline"}, nil
				},
			})
			ctx := t.Context()
			init := cs.InitializeResult()
			if init.ServerInfo.Name != "bailiwick" || init.Capabilities.Prompts == nil || init.Capabilities.Completions == nil || !strings.Contains(init.Instructions, "# real\n\nBe careful.") {
				t.Errorf("about: %+v", init)
			}
			var names []string
			for tool, err := range cs.Tools(ctx, nil) {
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, tool.Name)
			}
			if want := []string{"mail__echo", "real__ask", "real__delete", "real__echo", "real__progress", "real__wait"}; !slices.Equal(names, want) {
				t.Errorf("tools: %q, want %q\n%s", names, want, r.log)
			}
			if got := callText(t, cs, "mail__echo", nil); got != "from the mailbox" {
				t.Errorf("mail__echo said %q", got)
			}
			if got := callText(t, cs, "real__echo", map[string]any{"text": "hi"}); got != "hi" {
				t.Errorf("real__echo said %q", got)
			}
			if got := callText(t, cs, "real__ask", map[string]any{"text": "it"}); got != "decline" {
				t.Errorf("real__ask said %q", got)
			}
			if q := r.decider.of("real/echo"); len(q) != 1 || q[0].Definition == unlisted {
				t.Errorf("decision: %+v", q)
			}
			for uri, want := range map[string]string{"mail://inbox": "mail", "mail://17": "mail", "test://two": "contents of test://two", "test://any/1": "contents of test://any/1", "test://one": "mail"} {
				res, err := cs.ReadResource(ctx, &sdk.ReadResourceParams{URI: uri})
				if err != nil || res.Contents[0].Text != want {
					t.Errorf("read %s: %+v %v", uri, res, err)
				}
			}
			if _, err := cs.ReadResource(ctx, &sdk.ReadResourceParams{URI: "test://nowhere"}); err == nil || !strings.Contains(err.Error(), "No server") {
				t.Errorf("read nowhere: %v", err)
			}
			if version == old {
				if err := cs.SetLoggingLevel(ctx, &sdk.SetLoggingLevelParams{Level: "info"}); err != nil {
					t.Error(err)
				}
				if err := cs.Ping(ctx, nil); err != nil {
					t.Error(err)
				}
			}
			if prompts, err := cs.ListPrompts(ctx, nil); err != nil || len(prompts.Prompts) != 1 || prompts.Prompts[0].Name != "real__greet" {
				t.Errorf("prompts: %+v %v", prompts, err)
			}
			if p, err := cs.GetPrompt(ctx, &sdk.GetPromptParams{Name: "real__greet"}); err != nil || len(p.Messages) != 1 {
				t.Errorf("prompt: %+v %v", p, err)
			}
			if c, err := cs.Complete(ctx, &sdk.CompleteParams{Ref: &sdk.CompleteReference{Type: "ref/prompt", Name: "real__greet"}, Argument: sdk.CompleteParamsArgument{Name: "a", Value: "x"}}); err != nil || len(c.Completion.Values) != 1 {
				t.Errorf("complete: %+v %v", c, err)
			}
			for name, says := range map[string]string{"absent__echo": "could not be reached", "nobody__echo": "There is no", "echo": "There is no", "real__nothing": ""} {
				_, err := cs.CallTool(ctx, &sdk.CallToolParams{Name: name})
				if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if res, err := cs.CallTool(ctx, &sdk.CallToolParams{Name: "secret__echo"}); err != nil || !res.IsError {
				t.Errorf("secret: %+v %v", res, err)
			}
			if !strings.Contains(r.log.String(), `"server":"absent"`) {
				t.Error("nobody is told that a server is down")
			}
		})
	}
}

// A list that several servers give in pages is one list, in the same order each
// time.
func TestMergedListIsPaged(t *testing.T) {
	urls := map[string]string{}
	for _, name := range []string{"a", "b"} {
		s, url := newScript(t)
		urls[name] = url
		s.on(methodTools, func(w http.ResponseWriter, _ *http.Request, m *mcp.Message) {
			at := mcp.GetString(m.Params(), "cursor")
			next := map[string]string{"": "1", "1": "2"}[at]
			if name == "b" && at == "1" {
				next = ""
			}
			result := fmt.Sprintf(`{"tools":[{"name":"t%s"}],"nextCursor":%q,"ttlMs":1,"cacheScope":"public"}`, at, next)
			if next == "" {
				result = fmt.Sprintf(`{"tools":[{"name":"t%s"}],"ttlMs":1,"cacheScope":"public"}`, at)
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID(), result)
		})
	}
	r := newRig(t, nil, urls)
	var names []string
	cursor := ""
	for range 10 {
		body := listTools
		if cursor != "" {
			body = strings.Replace(body, `"params":{`, `"params":{"cursor":"`+cursor+`",`, 1)
		}
		m := r.modernCall("/mcp", alice, body).message(t)
		items, next := listPage(m.Result(), "tools")
		for _, i := range items {
			names = append(names, mcp.GetString(i, "name"))
		}
		if scope := mcp.GetString(m.Result(), "cacheScope"); scope != "private" {
			t.Errorf("cacheScope %q", scope)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if want := []string{"a__t", "b__t", "a__t1", "b__t1", "a__t2"}; !slices.Equal(names, want) {
		t.Errorf("tools %q, want %q", names, want)
	}
	for _, bad := range []string{"x", "e30", "eyJjIjoiMSJ9", "bnVsbA", "{}"} {
		m := r.modernCall("/mcp", alice, strings.Replace(listTools, `"params":{`, `"params":{"cursor":"`+bad+`",`, 1)).message(t)
		if errorCode(m) != mcp.CodeInvalidParams || m.Error() == nil {
			t.Errorf("cursor %q: %s", bad, m.Bytes())
		}
	}
}

// A server that comes back is there again for a session that began without it.
func TestServerComesBack(t *testing.T) {
	up := newTap(t, legacyHTTP(mailbox(old)))
	network := &failing{fail: true}
	r := newRig(t, func(c *Config) {
		c.Upstreams[0].Client = &http.Client{Transport: &http.Transport{DialContext: network.dial}}
	}, map[string]string{"mail": up.url, "real": newTap(t, legacyHTTP(server(old))).url})
	id := r.begin("/mcp", alice)
	call := `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"mail__echo","arguments":{}}}`
	if h := r.legacyCall("/mcp", alice, id, call); !strings.Contains(h.body, authz.ReasonUpstreamDown) {
		t.Errorf("while it is away: %s", h.body)
	}
	network.set(false)
	l := r.gate.sessions.all()[0].links["mail"]
	l.mu.Lock()
	l.until = time.Time{}
	l.mu.Unlock()
	if h := r.legacyCall("/mcp", alice, id, call); !strings.Contains(h.body, "from the mailbox") {
		t.Errorf("when it is back: %s\n%s", h.body, r.log)
	}
}

func TestTemplatePattern(t *testing.T) {
	for _, tt := range []struct {
		template, uri string
		fits          bool
	}{
		{"file:///{path}", "file:///a/b", true},
		{"file:///{path}", "mail:///a", false},
		{"a{?q,p*}b", "a?q=1b", true},
		{"a.b/{x}", "aXb/1", false},
		{"plain", "plain", true},
		{"plain", "plainer", false},
		{"broken{x", "broken1", false},
	} {
		re := templatePattern(tt.template)
		if got := re != nil && re.MatchString(tt.uri); got != tt.fits {
			t.Errorf("%s on %s: %v", tt.template, tt.uri, got)
		}
	}
}
