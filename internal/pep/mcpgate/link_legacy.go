package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A sessionLink is a legacy session's conversation with one server. It begins
// with initialize, and speaks whatever era the server does.
type sessionLink struct {
	session *session
	up      *upstream

	opening sync.Mutex // held during initialize
	mu      sync.Mutex
	back    backend
}

// A backend is the conversation behind a [sessionLink].
type backend interface {
	definition(ctx context.Context, name string) (definition, error)
	call(ctx context.Context, c *call) (*reply, error)
	send(ctx context.Context, m *mcp.Message) error
	about() description
	alive() bool
	close()
}

func (l *sessionLink) backend() backend {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back
}

func (l *sessionLink) ready() bool {
	b := l.backend()
	return b != nil && b.alive()
}

func (l *sessionLink) open(context.Context, *request) error { return mcp.ErrNotSent }

func (l *sessionLink) about() description {
	if b := l.backend(); b != nil {
		return b.about()
	}
	return description{}
}

func (l *sessionLink) definition(ctx context.Context, name string) (definition, error) {
	b := l.backend()
	if b == nil {
		return definition{}, refuse(reasonUninitalized, "The session has to be initialized first.")
	}
	return b.definition(ctx, name)
}

// listen is for modern clients.
func (l *sessionLink) listen(context.Context, subscription, func(*mcp.Message)) (subscription, error) {
	return subscription{}, mcp.ErrNotSent
}

func (l *sessionLink) call(ctx context.Context, c *call) (*reply, error) {
	if c.msg.Method() == methodInitialize {
		return l.initialize(ctx, c)
	}
	b := l.backend()
	if b == nil {
		return nil, refuse(reasonUninitalized, "The session has to be initialized first.")
	}
	rep, err := b.call(ctx, c)
	if errors.Is(err, mcp.ErrSessionLost) || !b.alive() {
		l.up.forget()
	}
	return rep, err
}

// initialize begins the conversation: in the client's own era if the server
// speaks it, translated if it does not.
func (l *sessionLink) initialize(ctx context.Context, c *call) (*reply, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.ready() {
		return nil, refuse(reasonMalformed, "The session has been initialized already.")
	}
	ctx, cancel := context.WithTimeout(ctx, l.up.gate.limits.Connect)
	defer cancel()
	rep, first := l.initializeLegacy(ctx, c)
	if first == nil && rep.msg.Error() == nil {
		return rep, nil
	}
	up, err := l.initializeModern(ctx, c)
	if err == nil {
		return up, nil
	}
	return rep, first // what a server of the client's own era would have said
}

func (l *sessionLink) initializeLegacy(ctx context.Context, c *call) (*reply, error) {
	w, err := l.up.dial(l.session.life, mcp.Legacy, l.session.hear)
	if err != nil {
		return nil, err
	}
	b := &direct{wire: w, session: l.session}
	rep, err := b.call(ctx, c)
	if err != nil || rep.msg.Error() != nil {
		w.close()
		return rep, err
	}
	w.desc = describeInitialize(rep.msg.Result())
	l.keep(b)
	return rep, nil
}

func (l *sessionLink) keep(b backend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.back != nil {
		l.back.close()
	}
	l.back = b
}

func (l *sessionLink) close() {
	l.mu.Lock()
	b := l.back
	l.back = nil
	l.mu.Unlock()
	if b != nil {
		b.close()
	}
}

// direct is a legacy client's conversation with a legacy server: everything
// goes through as it is.
type direct struct {
	wire    *wire
	session *session
}

func (d *direct) definition(ctx context.Context, name string) (definition, error) {
	return d.wire.definition(ctx, name)
}

func (d *direct) call(ctx context.Context, c *call) (*reply, error) {
	return d.wire.call(ctx, c.msg, nil, func(m *mcp.Message) { c.request.relay(d.wire, m) })
}

func (d *direct) send(ctx context.Context, m *mcp.Message) error {
	if err := d.wire.conn.Send(ctx, m); err != nil {
		return fmt.Errorf("send %s: %w", m.Method(), err)
	}
	return nil
}

func (d *direct) about() description { return d.wire.desc }
func (d *direct) alive() bool        { return d.wire.alive() }
func (d *direct) close()             { d.wire.close() }
