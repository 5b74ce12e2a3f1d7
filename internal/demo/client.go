package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// sessionVersion is the newest version of the protocol that has sessions.
const sessionVersion = "2025-11-25"

// A Client is an MCP client: the SDK's, as any agent might use it.
type Client struct {
	session *mcp.ClientSession
}

// Connect opens a conversation with the MCP endpoint at url, with an agent key
// as its bearer token unless key is empty.
func Connect(ctx context.Context, url, key string) (*Client, error) {
	transport := &mcp.StreamableClientTransport{
		Endpoint:             url,
		HTTPClient:           &http.Client{Transport: bearer(key)},
		DisableStandaloneSSE: true,
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "demo-agent", Version: "1.0.0"}, nil)
	// With a session of its own, the agent's run is one run for the gate too.
	// The stateless protocol has none.
	session, err := client.Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: sessionVersion})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	return &Client{session: session}, nil
}

// Close ends the conversation.
func (c *Client) Close() error { return c.session.Close() }

// Tools returns the names of the tools that the agent is shown.
func (c *Client) Tools(ctx context.Context) ([]string, error) {
	var names []string
	for tool, err := range c.session.Tools(ctx, nil) {
		if err != nil {
			return nil, fmt.Errorf("list tools: %w", err)
		}
		names = append(names, tool.Name)
	}
	return names, nil
}

// Call calls a tool by the name under which it is listed.
func (c *Client) Call(ctx context.Context, tool string, args json.RawMessage) (Answer, error) {
	res, err := c.session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	var refused *jsonrpc.Error
	if errors.As(err, &refused) {
		return refusal(denialOf(refused.Data, refused.Message), refused.Message), nil
	}
	if err != nil {
		return Answer{}, err
	}
	return answerOf(res)
}

// A bearer is an agent key that goes with every request.
type bearer string

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if b != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+string(b))
	}
	return http.DefaultTransport.RoundTrip(req)
}

// denialKey is the member of a tool result's _meta in which the gate says why
// it did not make the call.
const denialKey = "dev.bailiwick/denial"

func answerOf(res *mcp.CallToolResult) (Answer, error) {
	content, err := json.Marshal(res.StructuredContent)
	if err != nil {
		return Answer{}, fmt.Errorf("read the result: %w", err)
	}
	if !res.IsError {
		return Answer{Content: content}, nil
	}
	why, err := json.Marshal(res.Meta[denialKey])
	if err != nil {
		return Answer{}, fmt.Errorf("read the denial: %w", err)
	}
	var said []string
	for _, c := range res.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			said = append(said, t.Text)
		}
	}
	text := strings.Join(said, "\n")
	return refusal(denialOf(why, text), text), nil
}

// refusal is the answer for a call that was not done: denied by a gate, or
// failed in the server.
func refusal(d *Denial, text string) Answer {
	if d != nil {
		return Answer{Denial: d}
	}
	return Answer{Failure: text}
}

// denialOf reads what a gate says of a denial; nil means that it was no gate
// that spoke.
func denialOf(why json.RawMessage, message string) *Denial {
	var d Denial
	if json.Unmarshal(why, &d) != nil || d.Code == "" {
		return nil
	}
	if d.Message == "" {
		d.Message = message
	}
	return &d
}
