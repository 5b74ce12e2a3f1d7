package mcpgate

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A modernLink is a modern client's conversation with a modern server: every
// request goes through as it is.
type modernLink struct {
	wire *wire

	// On stdio what a server says about a request comes on no stream of its
	// own; it is told apart by these.
	mu       sync.Mutex
	inFlight []*flight
}

// A flight is a request that is being answered over stdio.
type flight struct {
	token string // progress token, as raw JSON
	on    func(*mcp.Message)
}

// dialModern begins a conversation in the modern era.
func (up *upstream) dialModern(ctx context.Context) (*modernLink, error) {
	l := &modernLink{}
	w, err := up.dial(ctx, mcp.Modern, func(_ *wire, m *mcp.Message) { l.hear(m) })
	if err != nil {
		return nil, err
	}
	l.wire = w
	return l, nil
}

func (l *modernLink) ready() bool                          { return l.wire.alive() }
func (l *modernLink) open(context.Context, *request) error { return mcp.ErrNotSent }
func (l *modernLink) closed() *refusal                     { return nil }
func (l *modernLink) stayClosed(*refusal)                  {}
func (l *modernLink) about() description                   { return l.wire.desc }
func (l *modernLink) definition(ctx context.Context, name string) (definition, error) {
	return l.wire.definition(ctx, name)
}

func (l *modernLink) offers(ctx context.Context, uri string) (listed, fits bool) {
	return l.wire.resources.has(ctx, uri)
}

func (l *modernLink) call(ctx context.Context, c *call) (*reply, error) {
	var h http.Header
	if c.request.header != nil {
		h = paramHeaders(c.request.header)
	}
	done := l.watch(c.msg.Params(), c.tell)
	defer done()
	return l.wire.call(ctx, c.msg, h, func(m *mcp.Message) { l.pass(m, c.tell) })
}

// pass passes on what a server may say during a request. A modern server makes
// no requests of its own (MCP 2026-07-28, Streamable HTTP, Receiving Messages);
// one that does gets no answer, and the client is not bothered with it.
func (l *modernLink) pass(m *mcp.Message, tell func(*mcp.Message)) {
	if m.IsNotification() {
		tell(m)
		return
	}
	l.wire.up.gate.log.Warn("a modern server made a request; it was dropped", "server", l.wire.up.name(), "method", quote(m.Method()))
}

// watch registers a request on a connection that all requests share.
func (l *modernLink) watch(params json.RawMessage, on func(*mcp.Message)) func() {
	f := &flight{on: on}
	if token, ok := mcp.Get(params, "_meta", "progressToken"); ok {
		f.token = string(token)
	}
	l.mu.Lock()
	l.inFlight = append(l.inFlight, f)
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, g := range l.inFlight {
			if g == f {
				l.inFlight = append(l.inFlight[:i], l.inFlight[i+1:]...)
				return
			}
		}
	}
}

// hear takes what came on no stream of its own: to the request whose progress
// it reports, or else to the latest.
func (l *modernLink) hear(m *mcp.Message) {
	if !m.IsNotification() {
		l.pass(m, nil)
		return
	}
	l.mu.Lock()
	var to func(*mcp.Message)
	if token, ok := mcp.Get(m.Params(), "progressToken"); ok && m.Method() == noteProgress {
		for _, f := range l.inFlight {
			if f.token == string(token) {
				to = f.on
			}
		}
	} else if n := len(l.inFlight); n > 0 {
		to = l.inFlight[n-1].on
	}
	l.mu.Unlock()
	if to != nil {
		to(m)
	}
}

func (l *modernLink) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inFlight) > 0
}

func (l *modernLink) close() { l.wire.close() }
