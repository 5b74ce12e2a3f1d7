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
	links map[string]*pooledLink
	calls map[string]int // in flight, by run
	done  bool
}

func newPool(g *Gate) *pool {
	return &pool{gate: g, links: map[string]*pooledLink{}, calls: map[string]int{}}
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
func (p *pool) link(c *client, up *upstream, r *request) (link, error) {
	caps, _ := mcp.Get(r.msg.Params(), "_meta", mcp.MetaClientCapabilities)
	key := fingerprint(c.run, up.name(), string(caps))
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.links[key]
	if l == nil {
		if p.done || len(p.links) >= p.gate.limits.Links {
			return nil, refuse(reasonBusy, "The gate has no room for another conversation; try again later.")
		}
		l = &pooledLink{pool: p, up: up, key: key, run: c.run, capabilities: caps}
		l.info, _ = mcp.Get(r.msg.Params(), "_meta", mcp.MetaClientInfo)
		p.links[key] = l
	}
	l.touch()
	return l, nil
}

func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	var idle []*pooledLink
	for key, l := range p.links {
		if l.idle(now) {
			delete(p.links, key)
			idle = append(idle, l)
		}
	}
	p.mu.Unlock()
	for _, l := range idle {
		l.close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.done = true
	links := p.links
	p.links = map[string]*pooledLink{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range links {
		wg.Go(l.close)
	}
	wg.Wait()
}

// A pooledLink is one conversation of a [pool]. Until it is open it is cheap
// and does not last.
type pooledLink struct {
	pool         *pool
	up           *upstream
	key, run     string
	capabilities []byte
	info         []byte

	opening sync.Mutex // held while opening
	mu      sync.Mutex
	back    pooledBackend
	used    time.Time
	holders int
}

// A pooledBackend is what is behind a [pooledLink]: a modern process, or a
// bridge to a legacy server.
type pooledBackend interface {
	link
	busy() bool
	close()
}

// unopenedFor is how long a conversation that was never opened is kept.
const unopenedFor = 10 * time.Second

func (l *pooledLink) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = time.Now()
}

func (l *pooledLink) idle(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.pool.gate.limits.Idle
	if l.back == nil {
		limit = min(limit, unopenedFor)
	}
	if l.holders > 0 || l.back != nil && l.back.busy() {
		return false
	}
	return now.Sub(l.used) > limit
}

func (l *pooledLink) backend() pooledBackend {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back
}

func (l *pooledLink) ready() bool {
	b := l.backend()
	return b != nil && b.ready()
}

// closed never minds: each attempt of a modern client is a request of its own,
// and goes on the record as one.
func (l *pooledLink) closed() *refusal    { return nil }
func (l *pooledLink) stayClosed(*refusal) {}

// open connects to the server in the era that it speaks.
func (l *pooledLink) open(ctx context.Context, r *request) error {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.ready() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.pool.gate.limits.Connect)
	defer cancel()
	b, err := l.connect(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", mcp.ErrNotSent, err)
	}
	l.mu.Lock()
	old := l.back
	l.back = b
	l.mu.Unlock()
	if old != nil {
		old.close()
	}
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
	b := l.backend()
	if b == nil {
		return definition{}, mcp.ErrNotSent
	}
	return b.definition(ctx, name)
}

func (l *pooledLink) call(ctx context.Context, c *call) (*reply, error) {
	defer l.hold()()
	if !l.ready() && opens(c.msg) {
		if err := l.open(ctx, c.request); err != nil {
			return nil, err
		}
	}
	b := l.backend()
	if b == nil {
		return nil, mcp.ErrNotSent
	}
	return b.call(ctx, c)
}

func (l *pooledLink) listen(ctx context.Context, want subscription, emit func(*mcp.Message)) (subscription, error) {
	b := l.backend()
	if b == nil {
		return subscription{}, mcp.ErrNotSent
	}
	release := l.hold()
	context.AfterFunc(ctx, release)
	return b.listen(ctx, want, emit)
}

func (l *pooledLink) hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders++
	l.used = time.Now()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.holders--
		l.used = time.Now()
	}
}

func (l *pooledLink) close() {
	l.mu.Lock()
	b := l.back
	l.back = nil
	l.mu.Unlock()
	if b != nil {
		b.close()
	}
}
