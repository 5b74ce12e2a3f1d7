// Package mcpgate is the enforcement point for the Model Context Protocol: it
// stands between agents and MCP servers, and nothing that an agent asks for
// reaches a server before it has been decided and recorded.
//
// A client may speak either era of the protocol, and so may a server. The gate
// gives each client a [link] to a server in the client's own era; where the two
// differ the link translates (bridge_up.go, bridge_down.go). What happens to
// one request is the same everywhere and can be read in [Gate.pass].
package mcpgate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// Names under which decisions know the two shapes of the gate.
const (
	gateHTTP  = "mcp-http"
	gateStdio = "mcp-stdio"
)

// A Config says what a [Gate] needs.
type Config struct {
	// Decider answers the gate's questions. Required.
	Decider pep.Decider
	// Watch knows what is suspended: calls and streams of that are cut. Nil:
	// nothing ever is.
	Watch *revoke.Watch
	// Upstreams are the servers behind the gate. Required; names are unique.
	Upstreams []mcp.Server
	// Hosts are the host names under which clients may reach the gate, besides
	// localhost. A name without a port matches every port.
	Hosts []string
	// Origins are the web origins that may call the gate from a browser,
	// besides those of localhost.
	Origins []string
	// Public is where clients reach the gate, "https://gate.example". Empty: as
	// their requests say.
	Public string
	// Door is what clients are told that have to prove who they are, by the path
	// that they ask at. Nil: that they have to.
	Door func(r *http.Request) pep.Door
	// Logger is told what operators should know. Required.
	Logger *slog.Logger
	// Limits bound what clients and servers can make the gate hold.
	Limits Limits
}

// Limits bound memory, time and work. Zero fields take their default.
type Limits struct {
	Body        int64         // bytes of one request; 4 MiB
	Calls       int           // requests in flight, whole gate; 1024
	ClientCalls int           // requests in flight, one session or agent run; 64
	Sessions    int           // legacy sessions, whole gate; 1024
	Links       int           // conversations kept for modern clients; 256
	Idle        time.Duration // until an unused session or conversation ends; 30 min
	Call        time.Duration // until a call is given up; 10 min
	Connect     time.Duration // until connecting to a server is given up; 20 s
	Answer      time.Duration // until a client's answer to a question is given up; 10 min
	Refresh     time.Duration // until tool definitions are listed again; 1 min
}

func (l Limits) withDefaults() Limits {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	num := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Body <= 0 {
		l.Body = 4 << 20
	}
	num(&l.Calls, 1024)
	num(&l.ClientCalls, 64)
	num(&l.Sessions, 1024)
	num(&l.Links, 256)
	def(&l.Idle, 30*time.Minute)
	def(&l.Call, 10*time.Minute)
	def(&l.Connect, 20*time.Second)
	def(&l.Answer, 10*time.Minute)
	def(&l.Refresh, time.Minute)
	return l
}

// A Gate enforces decisions on MCP. It is safe for concurrent use.
type Gate struct {
	guard     *pep.Guard
	log       *slog.Logger
	limits    Limits
	hosts     []string
	origins   []string
	public    string
	door      func(*http.Request) pep.Door
	upstreams []*upstream // sorted by name
	whole     *endpoint   // all upstreams as one server
	endpoints map[string]*endpoint

	sessions *sessions
	pool     *pool
	parked   *parkingLot
	ears     *ears

	life   context.Context // ends when the gate is cut
	cut    context.CancelFunc
	taking context.Context // ends when no new work is taken
	drain  context.CancelFunc
	work   sync.WaitGroup
	mu     sync.Mutex // guards closed against work.Add
	closed bool
	calls  atomic.Int64
}

// New returns a gate in front of the given servers. It connects to none of
// them until a client is let through.
func New(c Config) (*Gate, error) {
	switch {
	case c.Decider == nil:
		return nil, errors.New("mcpgate: a gate needs a decider")
	case c.Logger == nil:
		return nil, errors.New("mcpgate: a gate needs a logger")
	case len(c.Upstreams) == 0:
		return nil, errors.New("mcpgate: a gate needs at least one upstream")
	}
	if c.Door == nil {
		c.Door = func(*http.Request) pep.Door { return pep.Door{} }
	}
	life, cut := context.WithCancel(context.Background())
	taking, drain := context.WithCancel(life)
	g := &Gate{
		guard:     &pep.Guard{Decider: c.Decider, Watch: c.Watch, Logger: c.Logger},
		log:       c.Logger,
		limits:    c.Limits.withDefaults(),
		hosts:     c.Hosts,
		origins:   c.Origins,
		public:    c.Public,
		door:      c.Door,
		endpoints: map[string]*endpoint{},
		life:      life,
		cut:       cut,
		taking:    taking,
		drain:     drain,
	}
	for _, s := range c.Upstreams {
		if !validName(s.Name) || g.endpoints[s.Name] != nil {
			cut()
			return nil, fmt.Errorf("mcpgate: upstream name %q is used twice, or no name: letters, digits, '-' and '_', without '__'", s.Name)
		}
		up := newUpstream(g, s)
		g.upstreams = append(g.upstreams, up)
		g.endpoints[s.Name] = &endpoint{upstreams: []*upstream{up}}
	}
	slices.SortFunc(g.upstreams, func(a, b *upstream) int { return strings.Compare(a.name(), b.name()) })
	g.whole = &endpoint{upstreams: g.upstreams, merged: true}
	g.sessions = newSessions(g)
	g.pool = newPool(g)
	g.parked = newParkingLot(g)
	g.ears = newEars()
	g.goDo(g.sweep)
	return g, nil
}

// PoliciesChanged tells every connected client that its lists may have
// changed.
func (g *Gate) PoliciesChanged() {
	for _, kind := range listKinds {
		g.ears.changed(kind)
	}
}

// Close takes no new work, lets calls in flight finish until ctx ends, and then
// cuts what is left. When it returns no goroutine, conversation or server
// process of the gate is left.
func (g *Gate) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.drain()
	err := g.idle(ctx)
	g.cut()
	g.sessions.close()
	g.pool.close()
	for _, up := range g.upstreams {
		up.close()
	}
	g.work.Wait()
	return err
}

// idle waits until no call is in flight.
func (g *Gate) idle(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for g.calls.Load() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("close gate: %d calls were cut: %w", g.calls.Load(), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// goDo runs f on a goroutine that [Gate.Close] waits for. It reports false, and
// runs nothing, once the gate is closing.
func (g *Gate) goDo(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.work.Go(f)
	return true
}

// sweep ends what nobody uses any more.
func (g *Gate) sweep() {
	every := min(g.limits.Idle, g.limits.Answer)/4 + time.Millisecond
	tick := time.NewTicker(min(every, 30*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-g.taking.Done():
			return
		case now := <-tick.C:
			g.sessions.sweep(now)
			g.pool.sweep(now)
			g.parked.sweep(now)
		}
	}
}

// admit counts a call in, or reports that there is no room for it.
func (g *Gate) admit() bool {
	if g.taking.Err() != nil {
		return false
	}
	if g.calls.Add(1) > int64(g.limits.Calls) {
		g.calls.Add(-1)
		return false
	}
	return true
}

func (g *Gate) leave() { g.calls.Add(-1) }

// validName reports whether a server's name can stand before the separators of
// actions, paths and merged names.
func validName(name string) bool {
	for _, r := range name {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return name != "" && !strings.Contains(name, separator)
}

// An endpoint is what clients see as one server: one upstream, verbatim, or
// all of them, merged.
type endpoint struct {
	upstreams []*upstream
	merged    bool
}

// fingerprint is a short name for a secret or a large value.
func fingerprint(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
