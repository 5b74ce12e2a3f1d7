package httpgate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// An api is an API in service.
type api struct {
	API
	gate      *Gate
	router    *openapi.Router
	transport *http.Transport
	proxy     *httputil.ReverseProxy
}

// maxPath bounds what the record repeats of a path that is no operation.
const maxPath = 256

// notInput is recorded as the input of a request whose arguments cannot be
// read. It is JSON, and no object, so that no PDP takes it for an input.
var notInput = json.RawMessage("null")

// serve takes one request from the agent to the end of its answer.
func (a *api) serve(w http.ResponseWriter, r *http.Request, path string) {
	// Is it a request that a proxy can pass on as one?
	if f := plain(r); f != nil {
		f.write(w)
		return
	}
	u, err := below(path, r.URL.RawQuery)
	if err != nil {
		refuse(reasonMalformed, "The path is not percent-encoded as it should be.").write(w)
		return
	}
	body, f := a.read(w, r)
	if f != nil {
		f.write(w)
		return
	}

	// What would it do?
	call, unread := a.router.Route(r.Method, u, r.Header, body, true)
	if unread == nil && a.shadows(call) {
		unread = &openapi.InputError{Argument: a.Credential.Header, Reason: "is a header that the gate itself sends"}
	}
	req, f := a.question(r, call, unread)
	if f != nil {
		f.write(w)
		return
	}

	// May it?
	release, d := a.gate.guard.Ask(r.Context(), req)
	if unread != nil {
		// Not even a release lets through what could not be read: nobody would
		// know what is sent.
		if release != nil {
			release.Abandon(authz.OutcomeNotRun, 0, "the request is no operation of the API")
		}
		f := unreadable(unread, d)
		f.door(a.gate.door, req.Credential.Kind, d)
		f.write(w)
		return
	}
	if release == nil {
		f := denied(d)
		f.door(a.gate.door, req.Credential.Kind, d)
		f.write(w)
		return
	}

	// Then make the request that was decided.
	a.forward(w, r, &exchange{api: a, release: release, url: u, body: body, headers: call.Headers})
}

// plain refuses requests that are more than one message and its answer.
func plain(r *http.Request) *refusal {
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return refuse(reasonMethod, "The gate passes on no "+r.Method+" request.")
	case r.Header.Get("Upgrade") != "" || hasToken(r.Header.Values("Connection"), "upgrade"):
		return refuse(reasonMalformed, "The gate passes on no upgrade of the connection, WebSocket among them.")
	case len(r.Header.Values("Bailiwick-Session")) > 1 || len(r.Header.Get("Bailiwick-Session")) > 128 || !visible(r.Header.Get("Bailiwick-Session")):
		return refuse(reasonMalformed, "The header Bailiwick-Session must be given once, in at most 128 visible characters.")
	default:
		return nil
	}
}

// below is the target of a request below the base of its API.
func below(path, query string) (*url.URL, error) {
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	return &url.URL{Path: plain, RawPath: path, RawQuery: query}, nil
}

// read reads the whole body, which is what will be sent.
func (a *api) read(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	if r.ContentLength > a.gate.limits.Body {
		return nil, refuse(reasonTooLarge, "The body is larger than the gate reads.")
	}
	rc := http.NewResponseController(w)
	// A writer that knows no deadlines has none to be held to.
	_ = rc.SetReadDeadline(time.Now().Add(a.gate.limits.Read))
	// The server goes on reading, to see whether the client is still there.
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, a.gate.limits.Body))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, refuse(reasonTooLarge, "The body is larger than the gate reads.")
	case err != nil:
		return nil, refuse(reasonMalformed, "The body could not be read in time.")
	case len(r.Trailer) > 0:
		return nil, refuse(reasonMalformed, "The gate passes on no trailers.")
	default:
		return body, nil
	}
}

// shadows reports whether an argument is the very header in which the gate
// shows its credential: what was decided would not be what is sent.
func (a *api) shadows(call openapi.Call) bool {
	for _, h := range call.Headers {
		if strings.EqualFold(h, a.Credential.Header) {
			return true
		}
	}
	return false
}

// question is what the PDP is asked. A request that could not be read is asked
// about too, so that the attempt is on the record.
func (a *api) question(r *http.Request, call openapi.Call, unread error) (authz.Request, *refusal) {
	req := authz.Request{
		Credential:  pep.Shown(r, a.gate.public),
		Action:      a.Name + "/" + call.Tool,
		Server:      a.Name,
		Input:       call.Input,
		Definition:  call.Definition,
		Session:     r.Header.Get("Bailiwick-Session"),
		Gate:        gateName,
		Correlation: correlation(r),
	}
	var in *openapi.InputError
	switch {
	case unread == nil:
	case errors.Is(unread, openapi.ErrUnknown):
		req.Action = a.Name + "/" + clip(r.Method, 16) + " " + clip(strings.TrimPrefix(r.URL.EscapedPath(), Prefix+a.Name), maxPath)
	case errors.As(unread, &in):
		req.Input = notInput
	default:
		a.gate.log.Error("request not routed", "api", a.Name, "error", unread)
		return req, refuse(authz.ReasonInternal, "The request could not be understood for a fault of the gate.")
	}
	return req, nil
}

// correlation is the agent's own id of the request, if it is fit to be kept.
func correlation(r *http.Request) string {
	ids := r.Header.Values("X-Request-Id")
	if len(ids) != 1 || len(ids[0]) > 128 || !visible(ids[0]) {
		return ""
	}
	return ids[0]
}

// clip cuts s to at most n bytes, at a rune's boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// deadline bounds the whole of an exchange, and ends it when the gate is cut.
func (a *api) deadline(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, a.gate.limits.Call)
	stop := context.AfterFunc(a.gate.life, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
