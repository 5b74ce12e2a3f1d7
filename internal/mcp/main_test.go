package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"
)

// serverVariable makes the test binary a stdio server instead.
const serverVariable = "MCP_TEST_SERVER"

func TestMain(m *testing.M) {
	if name := os.Getenv(serverVariable); name != "" {
		os.Exit(runStdioServer(name))
	}
	goleak.VerifyTestMain(m)
}

// selfServer is this binary, as a stdio server of a kind.
func selfServer(t *testing.T, kind string) Server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Should the variable get lost, the child must not run the tests again.
	return Server{Name: kind, Command: exe, Args: []string{"-test.run=^$"}, Env: []string{serverVariable + "=" + kind}}
}

// An sdkServer is a genuine server, with tools for what the tests look at.
type sdkServer struct {
	*sdk.Server
	cancelled atomic.Int32 // calls of "wait" that were cancelled
	waiting   chan struct{}
}

func newSDKServer(o *sdk.ServerOptions) *sdkServer {
	s := &sdkServer{
		Server:  sdk.NewServer(&sdk.Implementation{Name: "genuine", Version: "1"}, o),
		waiting: make(chan struct{}, 100),
	}
	object := json.RawMessage(`{"type":"object"}`)
	s.AddTool(&sdk.Tool{Name: "echo", InputSchema: object}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return text(string(r.Params.Arguments)), nil
	})
	s.AddTool(&sdk.Tool{Name: "progress", InputSchema: object}, func(ctx context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		for i := range 3 {
			p := &sdk.ProgressNotificationParams{ProgressToken: r.Params.GetProgressToken(), Progress: float64(i + 1), Total: 3}
			if err := r.Session.NotifyProgress(ctx, p); err != nil {
				return nil, err
			}
		}
		return text("done"), nil
	})
	s.AddTool(&sdk.Tool{Name: "wait", InputSchema: object}, func(ctx context.Context, _ *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		s.waiting <- struct{}{}
		select {
		case <-ctx.Done():
			s.cancelled.Add(1)
		case <-time.After(20 * time.Second):
		}
		return text("waited"), nil
	})
	s.AddTool(&sdk.Tool{Name: "ask", InputSchema: object}, func(ctx context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		roots, err := r.Session.ListRoots(ctx, nil)
		if err != nil {
			return nil, err
		}
		return text(fmt.Sprint(len(roots.Roots))), nil
	})
	region := json.RawMessage(`{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}`)
	s.AddTool(&sdk.Tool{Name: "region", InputSchema: region}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return text(r.Extra.Header.Get("Mcp-Param-Region")), nil
	})
	return s
}

func text(s string) *sdk.CallToolResult {
	return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: s}}}
}

// resultText returns the text of a tool's result.
func resultText(t *testing.T, m *Message) string {
	t.Helper()
	if m.Error() != nil {
		t.Fatalf("the call failed: %s", m.Bytes())
	}
	content, _ := Get(m.Result(), "content")
	var all string
	if err := elements(content, func(c []byte) error { all += GetString(c, "text"); return nil }); err != nil {
		t.Fatalf("no content in %s: %v", m.Bytes(), err)
	}
	return all
}

func mustParse(t *testing.T, s string) *Message {
	t.Helper()
	m, err := Parse([]byte(s))
	if err != nil {
		t.Fatalf("parse %s: %v", s, err)
	}
	return m
}

// toolCall is a legacy call of a tool.
func toolCall(tool, args string) *Message {
	return NewRequest(json.RawMessage(`"caller-1"`), "tools/call",
		json.RawMessage(`{"name":"`+tool+`","arguments":`+args+`,"_meta":{"progressToken":"p"}}`))
}

// modernCall is a call of a tool with what a modern request needs.
func modernCall(t *testing.T, tool, args string) *Message {
	t.Helper()
	m := toolCall(tool, args)
	meta, _ := Get(json.RawMessage(modernParams("")), "_meta")
	meta, err := Set(meta, json.RawMessage(`"p"`), "progressToken")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Set(m.Params(), meta, "_meta")
	if err != nil {
		t.Fatal(err)
	}
	return m.WithParams(p)
}

// handshake initializes a legacy connection.
func handshake(t *testing.T, c *Conn) {
	t.Helper()
	r, err := c.Call(t.Context(), NewRequest(json.RawMessage(`0`), "initialize", json.RawMessage(
		`{"protocolVersion":"2025-11-25","capabilities":{"roots":{}},"clientInfo":{"name":"test","version":"1"}}`)), CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Message.Result() == nil {
		t.Fatalf("initialize: %s", r.Message.Bytes())
	}
	if err := c.Send(t.Context(), NewNotification("notifications/initialized", nil)); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, s Server, era Era, on func(*Message)) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), s, era, on)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// eventually waits for something that another process or goroutine does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func ping(id string) *Message { return NewRequest(json.RawMessage(id), "ping", nil) }
