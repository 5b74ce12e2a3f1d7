package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A pool holds the conversations that the gate has with servers on behalf of
// modern clients: with legacy servers, which remember who they talk to, and
// with processes. Two clients, or two runs of one, never share a conversation.
type pool struct {
	gate  *Gate
	mu    sync.Mutex
	links map[string]*pooled
	calls map[string]int // in flight, by run
	done  bool
}

func newPool(g *Gate) *pool {
	return &pool{gate: g, links: map[string]*pooled{}, calls: map[string]int{}}
}

// admit counts a call of a modern client in.
func (p *pool) admit(c *client) (release func(), f *refusal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[c.run] >= p.gate.limits.ClientCalls || !p.gate.admit() {
		return nil, refuse(reasonBusy, "Too many requests are in flight; try again later.")
	}
	p.calls[c.run]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.calls[c.run]--; p.calls[c.run] == 0 {
			delete(p.calls, c.run)
		}
		p.gate.leave()
	}, nil
}

// link returns the client's conversation with a server, open or not. A legacy
// server is told a client's capabilities once, so a client that declares others
// gets another conversation.
func (p *pool) link(c *client, up *upstream, r *request) *pooledLink {
	l := &pooledLink{pool: p, up: up}
	l.capabilities, _ = mcp.Get(r.msg.Params(), "_meta", mcp.MetaClientCapabilities)
	l.info, _ = mcp.Get(r.msg.Params(), "_meta", mcp.MetaClientInfo)
	l.key = fingerprint(c.run, up.name(), string(l.capabilities))
	return l
}

// find returns an open conversation.
func (p *pool) find(key string) *pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[key]
}

// claim makes room for a conversation. Only a client that may have one gets
// this far, so that others cannot use the room up.
func (p *pool) claim(key string) (*pooled, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.links[key]; e != nil {
		return e, nil
	}
	if p.done || len(p.links) >= p.gate.limits.Links {
		return nil, fmt.Errorf("%w: %w", mcp.ErrNotSent, refuse(reasonBusy, "The gate has no room for another conversation; try again later."))
	}
	e := &pooled{used: time.Now()}
	p.links[key] = e
	return e, nil
}

func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	var idle []*pooled
	for key, e := range p.links {
		if e.idle(now, p.gate.limits.Idle) {
			delete(p.links, key)
			idle = append(idle, e)
		}
	}
	p.mu.Unlock()
	for _, e := range idle {
		p.gate.goDo(e.close)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.done = true
	links := p.links
	p.links = map[string]*pooled{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range links {
		wg.Go(e.close)
	}
	wg.Wait()
}

// A pooled is one conversation of a [pool].
type pooled struct {
	opening sync.Mutex // held while opening

	mu      sync.Mutex
	back    pooledBackend // nil until it is open, and when it has failed
	used    time.Time
	holders int
	closed  bool
}

// A pooledBackend is what a conversation of a [pool] consists of: a modern
// process, or a bridge to a legacy server.
type pooledBackend interface {
	link
	busy() bool
	close()
}

// backend returns the conversation if it is open.
func (e *pooled) backend() pooledBackend {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.back == nil || !e.back.ready() {
		return nil
	}
	return e.back
}

// keep puts a conversation in the place of one that has failed.
func (e *pooled) keep(b pooledBackend) {
	e.mu.Lock()
	old, closed := e.back, e.closed
	e.back = b
	if closed {
		e.back, old = nil, b
	}
	e.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// idle reports whether nobody has used the conversation for too long. One that
// could not be opened is not worth keeping.
func (e *pooled) idle(now time.Time, limit time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holders > 0 {
		return false
	}
	return e.back == nil || !e.back.busy() && now.Sub(e.used) > limit
}

func (e *pooled) hold() (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holders++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.holders--
		e.used = time.Now()
	}
}

func (e *pooled) close() {
	e.mu.Lock()
	b := e.back
	e.back, e.closed = nil, true
	e.mu.Unlock()
	if b != nil {
		b.close()
	}
}

// A pooledLink is one request's way to a conversation of a [pool].
type pooledLink struct {
	pool         *pool
	up           *upstream
	key          string
	capabilities []byte
	info         []byte
}

func (l *pooledLink) backend() pooledBackend { return l.pool.find(l.key).backend() }

func (l *pooledLink) ready() bool { return l.backend() != nil }

// closed never minds: each attempt of a modern client is a request of its own,
// and goes on the record as one.
func (l *pooledLink) closed() *refusal    { return nil }
func (l *pooledLink) stayClosed(*refusal) {}

// open connects to the server in the era that it speaks.
func (l *pooledLink) open(ctx context.Context, _ *request) error {
	e, err := l.pool.claim(l.key)
	if err != nil {
		return err
	}
	defer e.hold()()
	e.opening.Lock()
	defer e.opening.Unlock()
	if e.backend() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.pool.gate.limits.Connect)
	defer cancel()
	b, err := l.connect(ctx)
	if err != nil {
		l.up.forget()
		return fmt.Errorf("%w: %w", mcp.ErrNotSent, err)
	}
	e.keep(b)
	return nil
}

func (l *pooledLink) connect(ctx context.Context) (pooledBackend, error) {
	g := l.pool.gate
	if l.up.stdio() && !l.up.isLegacy() {
		m, err := l.up.dialModern(g.life)
		if err != nil {
			return nil, err
		}
		half, cancel := context.WithTimeout(ctx, g.limits.Connect/2)
		err = m.discover(half, ownMeta(l.info, l.capabilities))
		cancel()
		if err == nil {
			return m, nil
		}
		m.close()
		if !errors.Is(err, errNotModern) {
			return nil, err
		}
		l.up.setLegacy()
	}
	return l.up.bridgeDown(ctx, l)
}

func (l *pooledLink) about() description {
	if b := l.backend(); b != nil {
		return b.about()
	}
	return description{}
}

func (l *pooledLink) offers(ctx context.Context, uri string) (listed, fits bool) {
	if b := l.backend(); b != nil {
		return b.offers(ctx, uri)
	}
	return false, false
}

func (l *pooledLink) definition(ctx context.Context, name string) (definition, error) {
	if b := l.backend(); b != nil {
		return b.definition(ctx, name)
	}
	return definition{}, mcp.ErrNotSent
}

func (l *pooledLink) call(ctx context.Context, c *call) (*reply, error) {
	if !l.ready() && opens(c.msg) {
		if err := l.open(ctx, c.request); err != nil {
			return nil, err
		}
	}
	e := l.pool.find(l.key)
	b := e.backend()
	if b == nil {
		return nil, mcp.ErrNotSent
	}
	defer e.hold()()
	return b.call(ctx, c)
}

func (l *pooledLink) listen(ctx context.Context, want subscription, emit func(*mcp.Message)) (subscription, error) {
	e := l.pool.find(l.key)
	b := e.backend()
	if b == nil {
		return subscription{}, mcp.ErrNotSent
	}
	context.AfterFunc(ctx, e.hold())
	return b.listen(ctx, want, emit)
}
