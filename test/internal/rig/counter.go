package rig

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A Counter is an MCP server with two tools, "act" and "forbidden", that does
// nothing but remember which calls it has received. It is in the process of
// the test, so it remembers whatever happens to the gateway.
type Counter struct {
	URL string

	mu   sync.Mutex
	seen map[string]int
}

// A Call is the arguments of both tools.
type Call struct {
	// ID tells calls apart.
	ID string `json:"id"`
}

// Count starts a Counter. Stateless it speaks both eras; otherwise only the
// one with sessions.
func Count(t testing.TB, stateless bool) *Counter {
	t.Helper()
	c := &Counter{seen: map[string]int{}}
	server := mcp.NewServer(&mcp.Implementation{Name: "counter", Version: "1"}, nil)
	for _, tool := range []string{"act", "forbidden"} {
		mcp.AddTool(server, &mcp.Tool{Name: tool, Description: "Remembers that it was called."}, c.call)
	}
	handler := mcp.NewStreamableHTTPHandler(
		func(*http.Request) *mcp.Server { return server },
		&mcp.StreamableHTTPOptions{Stateless: stateless},
	)
	h := httptest.NewServer(handler)
	t.Cleanup(func() {
		// Streams that a killed gateway left open would keep Close waiting.
		h.CloseClientConnections()
		h.Close()
	})
	c.URL = h.URL
	return c
}

func (c *Counter) call(_ context.Context, _ *mcp.CallToolRequest, in Call) (*mcp.CallToolResult, any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[in.ID]++
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "done " + in.ID}}}, nil, nil
}

// Seen says how often each call has been received.
func (c *Counter) Seen() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.seen)
}
