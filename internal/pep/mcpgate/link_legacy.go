package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A sessionLink is a legacy session's conversation with one server. It begins
// with initialize, and speaks whatever era the server does.
type sessionLink struct {
	session *session
	up      *upstream

	opening  sync.Mutex // held during initialize
	mu       sync.Mutex
	back     backend
	why      *refusal // why it is not opened before until
	until    time.Time
	failures int // to open it, in a row
}

// A backend is the conversation behind a [sessionLink].
type backend interface {
	definition(ctx context.Context, name string) (definition, error)
	call(ctx context.Context, c *call) (*reply, error)
	send(ctx context.Context, m *mcp.Message) error
	offers(ctx context.Context, uri string) (listed, fits bool)
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

// closed says why a server of a merged session stays away for now. The client
// has asked for all servers at once, and not again and again for this one.
func (l *sessionLink) closed() *refusal {
	if l.session.greeting() == nil {
		return refuse(reasonUninitialized, "The session has to be initialized first.")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.session.end.merged || time.Now().Before(l.until) {
		if l.why != nil {
			return l.why
		}
		return upstreamFault(l.up.name(), mcp.ErrNotSent)
	}
	return nil
}

// How long a server that could not be reached is left alone: longer each time,
// because each attempt may hold up the client.
const (
	reopenPause    = 5 * time.Second
	reopenPauseMax = 5 * time.Minute
)

func (l *sessionLink) stayClosed(f *refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pause := l.up.gate.limits.Refresh
	if f == nil {
		pause = min(reopenPause<<min(l.failures, 8), reopenPauseMax)
		l.failures++
	}
	l.why, l.until = f, time.Now().Add(pause)
}

// open begins the conversation with a server of a merged session that was not
// there, or not allowed, when the session began.
func (l *sessionLink) open(ctx context.Context, r *request) error {
	rep, err := l.initialize(ctx, &call{request: r, msg: l.session.greeting()})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", mcp.ErrNotSent, err)
	case rep.msg.Error() != nil:
		return fmt.Errorf("%w: initialize: the server answered with error %d", mcp.ErrNotSent, errorCode(rep.msg))
	}
	return l.send(ctx, mcp.NewNotification(noteInitialized, nil))
}

func (l *sessionLink) about() description {
	if b := l.backend(); b != nil {
		return b.about()
	}
	return description{}
}

func (l *sessionLink) definition(ctx context.Context, name string) (definition, error) {
	b := l.backend()
	if b == nil {
		return definition{}, refuse(reasonUninitialized, "The session has to be initialized first.")
	}
	return b.definition(ctx, name)
}

func (l *sessionLink) offers(ctx context.Context, uri string) (listed, fits bool) {
	if b := l.backend(); b != nil {
		return b.offers(ctx, uri)
	}
	return false, false
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
		return nil, fmt.Errorf("%w: %w", mcp.ErrNotSent, refuse(reasonUninitialized, "The session has to be initialized first."))
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
		return nil, fmt.Errorf("%w: %w", mcp.ErrNotSent, refuse(reasonMalformed, "The session has been initialized already."))
	}
	l.session.mu.Lock()
	l.session.hello = c.msg
	l.session.mu.Unlock()
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
	if w.desc.version >= mcp.ModernVersion {
		// It answers initialize, but not as one of that era.
		w.close()
		return nil, fmt.Errorf("%w: the server speaks no version with sessions", mcp.ErrLost)
	}
	l.keep(b)
	return rep, nil
}

// send passes on a notification of the client.
func (l *sessionLink) send(ctx context.Context, m *mcp.Message) error {
	b := l.backend()
	if b == nil {
		return nil
	}
	err := b.send(ctx, m)
	var status *mcp.StatusError
	if m.Method() != noteInitialized || !errors.As(err, &status) {
		return err
	}
	// Some modern servers answer initialize, and then refuse all that follows
	// from it (the Go SDK, up to 1.8 at least).
	ctx, cancel := context.WithTimeout(ctx, l.up.gate.limits.Connect)
	defer cancel()
	if _, modernErr := l.initializeModern(ctx, &call{msg: l.session.greeting()}); modernErr != nil {
		return err
	}
	return l.backend().send(ctx, m)
}

func (l *sessionLink) keep(b backend) {
	l.mu.Lock()
	old := l.back
	l.back, l.failures = b, 0
	l.mu.Unlock()
	if old != nil {
		old.close()
	}
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

func (d *direct) offers(ctx context.Context, uri string) (listed, fits bool) {
	return d.wire.resources.has(ctx, uri)
}

func (d *direct) about() description { return d.wire.desc }
func (d *direct) alive() bool        { return d.wire.alive() }
func (d *direct) close()             { d.wire.close() }
