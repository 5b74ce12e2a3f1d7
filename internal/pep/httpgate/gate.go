// Package httpgate is the enforcement point for HTTP APIs: a reverse proxy that
// makes a request only once it has been decided, as the very request that was
// decided.
//
// An API is an OpenAPI document and an upstream. A request is an operation of
// the document, its arguments are what policy sees, and whatever the document
// gives no meaning to does not reach the upstream.
package httpgate

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// gateName is the name under which decisions know this gate.
const gateName = "http"

// Prefix is where the APIs are: /api/<name>/ and below it the paths of the
// document.
const Prefix = "/api/"

// A Config says what a [Gate] needs.
type Config struct {
	// Decider answers the gate's questions. Required.
	Decider pep.Decider
	// Watch knows what is suspended: calls of that are cut. Nil: nothing ever is.
	Watch *revoke.Watch
	// APIs are the APIs behind the gate. Required; names are unique.
	APIs []API
	// Public is where clients reach the gate, "https://gate.example". Empty: as
	// their requests say.
	Public string
	// Door is what clients are told that have to prove who they are.
	Door pep.Door
	// Logger is told what operators should know. Required.
	Logger *slog.Logger
	// Limits bound what clients and upstreams can make the gate hold.
	Limits Limits
}

// An API is one API behind the gate.
type API struct {
	// Name is the server of the catalogue: letters, digits, '-' and '_', at most
	// 64. Required.
	Name string
	// URL is where the paths of the document begin, http or https. Required.
	URL *url.URL
	// Document says what the API can do. Required.
	Document *openapi.Document
	// Credential is what the gate shows the upstream. Zero shows nothing.
	Credential Credential
	// Roots are the authorities that the upstream's certificate may come from.
	// Nil is the system's.
	Roots *x509.CertPool
}

// A Credential is a header by which the gate proves itself to an upstream. No
// agent sees it.
type Credential struct {
	// Header is its name, for example "Authorization".
	Header string
	// Value is all of its value, for example "Bearer …".
	Value string
}

// String hides the value.
func (c Credential) String() string { return "credential(" + c.Header + ")" }

// GoString hides the value.
func (c Credential) GoString() string { return c.String() }

// LogValue hides the value.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText hides the value, in JSON too.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// secrets are the parts of the value that nothing may repeat: a scheme before
// it is none.
func (c Credential) secrets() []string {
	if c.Value == "" {
		return nil
	}
	out := []string{c.Value}
	if _, token, ok := strings.Cut(c.Value, " "); ok && token != "" {
		out = append(out, token)
	}
	return out
}

// Limits bound memory, time and work. Zero fields take their default.
type Limits struct {
	Body   int64         // bytes of one request body; 8 MiB
	Calls  int           // requests in flight, whole gate; 1024
	Read   time.Duration // until a request body is given up; 30 s
	Answer time.Duration // until an upstream that does not begin to answer is given up; 60 s
	Call   time.Duration // until an answer is cut; 10 min
}

func (l Limits) withDefaults() Limits {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Body <= 0 {
		l.Body = 8 << 20
	}
	if l.Calls <= 0 {
		l.Calls = 1024
	}
	def(&l.Read, 30*time.Second)
	def(&l.Answer, time.Minute)
	def(&l.Call, 10*time.Minute)
	return l
}

// A Gate enforces decisions on HTTP APIs. It is safe for concurrent use.
type Gate struct {
	guard  *pep.Guard
	log    *slog.Logger
	limits Limits
	public string
	door   pep.Door
	apis   map[string]*api

	life context.Context // ends when calls in flight are cut
	cut  context.CancelFunc

	mu     sync.Mutex
	calls  int
	closed bool
	idle   chan struct{} // closed once the gate is closed and no call is in flight
}

var apiName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// New returns a gate in front of the given APIs. It connects to none of them
// until a request is let through.
func New(c Config) (*Gate, error) {
	switch {
	case c.Decider == nil:
		return nil, errors.New("httpgate: a gate needs a decider")
	case c.Logger == nil:
		return nil, errors.New("httpgate: a gate needs a logger")
	case len(c.APIs) == 0:
		return nil, errors.New("httpgate: a gate needs at least one API")
	}
	g := &Gate{
		guard:  &pep.Guard{Decider: c.Decider, Watch: c.Watch, Logger: c.Logger},
		log:    c.Logger,
		limits: c.Limits.withDefaults(),
		public: c.Public,
		door:   c.Door,
		apis:   map[string]*api{},
		idle:   make(chan struct{}),
	}
	g.life, g.cut = context.WithCancel(context.Background())
	for _, a := range c.APIs {
		if g.apis[a.Name] != nil {
			return nil, fmt.Errorf("httpgate: two APIs have the name %q", a.Name)
		}
		if err := a.check(); err != nil {
			return nil, fmt.Errorf("httpgate: API %q: %w", a.Name, err)
		}
		g.apis[a.Name] = newAPI(g, a)
	}
	return g, nil
}

// check finds what would make an API unsafe or useless. No error holds the
// credential.
func (a API) check() error {
	switch {
	case !apiName.MatchString(a.Name):
		return errors.New("a name is letters, digits, '-' and '_', at most 64")
	case a.Document == nil:
		return errors.New("it needs a document")
	case a.URL == nil || a.URL.Scheme != "http" && a.URL.Scheme != "https" || a.URL.Host == "":
		return errors.New("its URL must begin with http:// or https:// and name a host")
	case a.URL.User != nil || a.URL.RawQuery != "" || a.URL.Fragment != "" || a.URL.Opaque != "":
		return errors.New("its URL holds no user, query or fragment; a credential has its own place")
	case strings.Contains(a.URL.Path+"/", "/../") || strings.Contains(a.URL.Path+"/", "/./") || strings.Contains(a.URL.Path, "//"):
		return errors.New("the path of its URL reads differently to different programs; write it without dots and double slashes")
	case (a.Credential.Header == "") != (a.Credential.Value == ""):
		return errors.New("its credential needs a header and a value")
	case a.Credential.Header != "" && (!token(a.Credential.Header) || ownHeader(a.Credential.Header)):
		return errors.New("the header of its credential cannot carry one")
	case !visible(a.Credential.Value) || strings.TrimSpace(a.Credential.Value) != a.Credential.Value:
		return errors.New("the value of its credential has characters that no header can hold; a line feed at its end, perhaps")
	default:
		return nil
	}
}

// Close takes no new work, lets calls in flight finish until ctx ends, and then
// cuts what is left. When it returns no call is in flight and no connection to
// an upstream is open.
func (g *Gate) Close(ctx context.Context) error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		if g.calls == 0 {
			close(g.idle)
		}
	}
	g.mu.Unlock()
	var err error
	select {
	case <-g.idle:
	case <-ctx.Done():
		err = fmt.Errorf("close HTTP gate: calls were cut: %w", ctx.Err())
		g.cut()
		<-g.idle
	}
	g.cut()
	for _, a := range g.apis {
		a.transport.CloseIdleConnections()
	}
	return err
}

// admit counts a call in, or reports that there is no room for it.
func (g *Gate) admit() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.calls >= g.limits.Calls {
		return false
	}
	g.calls++
	return true
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.closed && g.calls == 0 {
		close(g.idle)
	}
}

// find finds the API of a request, and the rest of its path, escaped as it was
// sent.
func (g *Gate) find(u *url.URL) (*api, string) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), Prefix)
	if !ok {
		return nil, ""
	}
	name, path, found := strings.Cut(rest, "/")
	if !found {
		return nil, ""
	}
	return g.apis[name], "/" + path
}

// ServeHTTP serves the APIs below [Prefix].
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.admit() {
		refuse(reasonBusy, "There is no room for another request; try again after a pause.").write(w)
		return
	}
	defer g.leave()
	a, path := g.find(r.URL)
	if a == nil {
		refuse(reasonNotFound, "There is no such API; the path is /api/<name>/ and what its document says.").write(w)
		return
	}
	a.serve(w, r, path)
}
