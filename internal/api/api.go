// Package api answers policy enforcement points over HTTP: the AuthZEN
// Authorization API 1.0, and the same decisions for our own gates in other
// processes.
package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// slowReader is how long a request body may take to arrive.
const slowReader = 10 * time.Second

// keptBuffer is how large a buffer may be to be used again. HTTP/2 copies what
// is not larger; from a larger one it may still be sending when the stream has
// ended.
const keptBuffer = 4 << 10

// Config configures an [API]. Only Decider is required.
type Config struct {
	// Decider decides and searches. It proves the PEP that asks, says so with
	// the reason unauthenticated when it cannot, and ends when its ctx does. One
	// that has a method ReportFrom (see [Reporter]) takes outcomes too, and
	// one that has Prompt (see [PromptReader]) what users say.
	Decider interface {
		pep.Decider
		pep.Searcher
	}
	// Identifier is the policy decision point identifier: the https URL under
	// which PEPs know this server (AuthZEN 1.0 §9.1.1). Empty: there is no
	// metadata document.
	Identifier string
	// AccessRequests is the https URL of the access request endpoint. Empty:
	// no denial is requestable.
	AccessRequests string
	// Logger is told of faults. Default: nobody is.
	Logger *slog.Logger
	// MaxBody bounds a request body. Default 1 MiB.
	MaxBody int64
	// MaxEvaluations bounds the evaluations of one request. Default 100.
	MaxEvaluations int
	// Timeout bounds one request, all of its evaluations together. Default 10 s.
	Timeout time.Duration
	// Gate is the name by which records know this gate. Default "authzen".
	Gate string
	// PageKey authenticates page tokens. Nodes with the same key continue each
	// other's searches. Default: a random key of this process.
	PageKey []byte
}

// An API is the http.Handler. It is safe for concurrent use.
type API struct {
	Config

	prefix    string // the path of the identifier
	metadata  []byte // empty: not offered
	exchanges sync.Pool

	// Values of headers that are the same in every answer.
	typeJSON, noStore, cacheable []string
}

// New returns an API.
func New(c Config) (*API, error) {
	if c.Decider == nil {
		return nil, errors.New("api: a decider is required")
	}
	a := &API{Config: c, typeJSON: []string{"application/json"}, noStore: []string{"no-store"}, cacheable: []string{"max-age=300"}}
	a.exchanges.New = func() any { return &exchange{api: a} }
	if a.Logger == nil {
		a.Logger = slog.New(slog.DiscardHandler)
	}
	if a.MaxBody <= 0 {
		a.MaxBody = 1 << 20
	}
	if a.MaxEvaluations <= 0 {
		a.MaxEvaluations = 100
	}
	if a.Timeout <= 0 {
		a.Timeout = 10 * time.Second
	}
	if a.Gate == "" {
		a.Gate = "authzen"
	}
	if len(a.PageKey) == 0 {
		a.PageKey = []byte(rand.Text())
	}
	if err := a.describe(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return a, nil
}

// publicURL checks a URL that PEPs will be told (AuthZEN 1.0 §9.1.1).
func publicURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("it cannot be parsed")
	case u.Scheme != "https" || u.Host == "":
		return nil, errors.New("it must begin with https:// and a host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, errors.New("it must have no user, query or fragment")
	}
	return u, nil
}

// ServeHTTP serves /access/v1/, /bailiwick/v1/ and the metadata document.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := a.exchanges.Get().(*exchange)
	e.w, e.r = w, r
	e.serve()
	e.w, e.r = nil, nil
	if cap(e.buf) > keptBuffer {
		e.buf = nil
	}
	// An exchange that has panicked never comes back to the pool.
	a.exchanges.Put(e)
}

// An exchange is one request and its answer.
type exchange struct {
	api    *API
	w      http.ResponseWriter
	r      *http.Request
	reader ijson.Reader
	buf    []byte // the answer
}

// serve answers the request.
func (e *exchange) serve() {
	e.echo()
	serve, method := e.endpoint()
	switch {
	case serve == nil:
		e.fail(notFound())
	case e.r.Method != method && (e.r.Method != http.MethodHead || method != http.MethodGet):
		e.fail(wrongMethod(method))
	default:
		e.buf = e.buf[:0]
		if p := serve(e); p != nil {
			e.fail(p)
		}
	}
}

// endpoint says what is at the request's path, and its method.
func (e *exchange) endpoint() (serve func(*exchange) *problem, method string) {
	// A proxy in front may have taken the identifier's path away, or not.
	switch strings.TrimPrefix(e.r.URL.Path, e.api.prefix) {
	case pathEvaluation:
		return (*exchange).evaluation, http.MethodPost
	case pathEvaluations:
		return (*exchange).evaluations, http.MethodPost
	case pathSearchSubject:
		return (*exchange).searchSubject, http.MethodPost
	case pathSearchResource:
		return (*exchange).searchResource, http.MethodPost
	case pathSearchAction:
		return (*exchange).searchAction, http.MethodPost
	case wire.PathDecide:
		return (*exchange).gateDecide, http.MethodPost
	case wire.PathReachable:
		return (*exchange).gateReachable, http.MethodPost
	case wire.PathLease:
		return (*exchange).gateLease, http.MethodPost
	case wire.PathReport:
		return (*exchange).gateReport, http.MethodPost
	case wire.PathPrompt:
		return (*exchange).gatePrompt, http.MethodPost
	}
	if e.api.isMetadata(e.r.URL.Path) {
		return (*exchange).describeSelf, http.MethodGet
	}
	return nil, ""
}

// echo gives a request identifier back (AuthZEN 1.0 §10.1.3).
func (e *exchange) echo() {
	if id := e.correlation(); id != "" {
		e.w.Header()["X-Request-Id"] = e.r.Header["X-Request-Id"]
	}
}

// correlation is the X-Request-ID of the request. One that could not stand in
// a record or a header is ignored.
func (e *exchange) correlation() string {
	ids := e.r.Header["X-Request-Id"]
	if len(ids) != 1 || len(ids[0]) > 128 {
		return ""
	}
	for i := range len(ids[0]) {
		if c := ids[0][i]; c < ' ' || c > '~' {
			return ""
		}
	}
	return ids[0]
}

// credential is what the PEP shows. Its kind is set in any case, so that a PEP
// which shows nothing is not taken for a part of this process.
func (e *exchange) credential() authz.Credential {
	c := authz.Credential{Kind: authz.CredentialBearer}
	values := e.r.Header["Authorization"]
	if len(values) != 1 {
		return c
	}
	if scheme, token, ok := strings.Cut(values[0], " "); ok && strings.EqualFold(scheme, "bearer") {
		c.Value = strings.TrimSpace(token)
	}
	return c
}
