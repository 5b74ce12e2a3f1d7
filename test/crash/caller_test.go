package crash

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// A caller calls a tool of the counter. It says whether the tool's result
// came, and the reason if the call was denied; neither when the answer was
// lost.
type caller interface {
	call(ctx context.Context, tool, id string) (done bool, reason string)
}

// stateless is a client of 2026-07-28.
type stateless struct{ *rig.Raw }

func (c stateless) call(ctx context.Context, tool, id string) (bool, string) {
	reply, err := c.Call(ctx, tool, fmt.Sprintf(`{"id":%q}`, id))
	if err != nil {
		return false, ""
	}
	return reply.Done(), reply.Reason()
}

// session is a client of 2025-11-25, which opens a new session whenever the
// gateway has lost the old one.
type session struct {
	endpoint rig.Endpoint
	sdk      *rig.SDK
}

func (c *session) call(ctx context.Context, tool, id string) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if c.sdk == nil {
		client := mcp.NewClient(&mcp.Implementation{Name: "crash", Version: "1"}, nil)
		transport := &mcp.StreamableClientTransport{
			Endpoint: c.endpoint.URL, MaxRetries: -1, DisableStandaloneSSE: true,
			HTTPClient: &http.Client{Transport: rig.Bearer(c.endpoint.Token)},
		}
		s, err := client.Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
		if err != nil {
			return false, ""
		}
		c.sdk = &rig.SDK{Session: s}
	}
	a, err := c.sdk.Call(ctx, tool, map[string]any{"id": id})
	if err != nil {
		// The session went down with the gateway; it need not be said goodbye to.
		_ = c.sdk.Session.Close()
		c.sdk = nil
		return false, ""
	}
	return !a.Error, a.Reason
}
