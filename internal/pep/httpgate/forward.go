package httpgate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// maxAnswerHeader bounds the header of an answer.
const maxAnswerHeader = 256 << 10

func newAPI(g *Gate, a API) *api {
	out := &api{API: a, gate: g, router: a.Document.Router()}
	out.transport = &http.Transport{
		// No proxy: the environment must not lead requests elsewhere.
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: a.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  g.limits.Answer,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		ForceAttemptHTTP2:      true,
		// What the upstream encodes is for the agent, as it is.
		DisableCompression: true,
	}
	out.proxy = &httputil.ReverseProxy{
		Rewrite:        func(p *httputil.ProxyRequest) { exchangeOf(p.In).rewrite(p) },
		Transport:      roundTripper{out.transport},
		FlushInterval:  -1,
		ModifyResponse: func(res *http.Response) error { return exchangeOf(res.Request).answered(res) },
		ErrorHandler:   func(w http.ResponseWriter, r *http.Request, err error) { exchangeOf(r).failed(w, err) },
		// What goes wrong is reported by the exchange, once.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return out
}

// An exchange is one released request and its answer.
type exchange struct {
	api     *api
	release *pep.Release
	url     *url.URL // below the base of the API
	body    []byte
	headers []string // arguments among the headers

	connected atomic.Bool // bytes may have reached the upstream
	answer    *answerBody // nil until the upstream has answered
	refused   string      // why the answer is not passed on
}

type exchangeKey struct{}

// exchangeOf is the exchange of a request that [api.forward] has made.
func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// forward makes the request and settles what became of it, whatever happens.
func (a *api) forward(w http.ResponseWriter, r *http.Request, x *exchange) {
	ctx, cancel := a.deadline(context.WithValue(r.Context(), exchangeKey{}, x))
	defer cancel()
	ctx, unbind := x.release.Bind(ctx)
	defer unbind()
	// A client that does not read its answer is cut with the call.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.gate.limits.Call))
	w.Header().Set(decisionHeader, x.release.Decision.ID)
	// Unless the upstream says what its answer is, nobody does: net/http would
	// guess it of a body that comes soon enough.
	w.Header()["Content-Type"] = nil
	defer x.settle()
	a.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// rewrite makes the request to the upstream from nothing but what was decided.
// What the proxy has prepared is not used: it removes headers that the agent
// names as those of its connection, and these may be arguments.
func (x *exchange) rewrite(p *httputil.ProxyRequest) {
	out := p.Out
	out.URL = x.target()
	out.Host = ""
	out.Header = requestHeader(p.In.Header, x.headers, len(x.body) > 0, x.api.Credential)
	out.TransferEncoding, out.Trailer = nil, nil
	out.Body, out.ContentLength = http.NoBody, int64(len(x.body))
	if len(x.body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(x.body))
	}
}

// target is the URL of the request to the upstream: the base of the API, and
// the very bytes of the path and query that were decided.
func (x *exchange) target() *url.URL {
	base := x.api.URL
	return &url.URL{
		Scheme:   base.Scheme,
		Host:     base.Host,
		Path:     strings.TrimSuffix(base.Path, "/") + x.url.Path,
		RawPath:  strings.TrimSuffix(base.EscapedPath(), "/") + x.url.RawPath,
		RawQuery: x.url.RawQuery,
	}
}

// A roundTripper makes one request. It passes on one final answer, and neither
// interim ones, nor trailers, nor another protocol: none of these goes through
// [exchange.answered].
type roundTripper struct{ *http.Transport }

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeOf(r)
	// The context's values are left behind, the proxy's trace of interim
	// answers among them.
	ctx := httptrace.WithClientTrace(bare{r.Context()}, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { x.connected.Store(true) },
	})
	res, err := t.Transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 200 {
		// Closing is all that is left to do with it.
		_ = res.Body.Close()
		return nil, fmt.Errorf("answer with the status %d, which nobody asked for", res.StatusCode)
	}
	// A copy: the transport writes the trailers into its own.
	out := *res
	out.Request, out.Trailer = r, nil
	return &out, nil
}

// bare is a context without values.
type bare struct{ context.Context }

func (bare) Value(any) any { return nil }

// errRefused is why an answer is not passed on.
var errRefused = errors.New("the answer is not passed on")

// answered takes the header of an answer.
func (x *exchange) answered(res *http.Response) error {
	x.answer = &answerBody{ReadCloser: res.Body, status: res.StatusCode, length: res.ContentLength, end: x.settle}
	res.Body = x.answer
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusProxyAuthRequired {
		// It is the gate that is not let in. The agent must not take it for a
		// word on its own credential, and show it to others.
		x.refused = fmt.Sprintf("status %d", res.StatusCode)
		return errRefused
	}
	x.relocate(res.Header)
	if n := withhold(res.Header, x.api.Credential.secrets()); n > 0 {
		x.api.gate.log.Error("an upstream returned the gate's credential; the headers were removed",
			"api", x.api.Name, "decision_id", x.release.Decision.ID, "headers", n)
	}
	return nil
}

// relocate turns a redirection within the API into one within the gate. Another
// leads past the gate, and is not passed on.
func (x *exchange) relocate(h http.Header) {
	for _, name := range []string{"Location", "Content-Location"} {
		values := h.Values(name)
		h.Del(name)
		if len(values) != 1 {
			continue
		}
		to, err := x.target().Parse(values[0])
		if err != nil || to.User != nil || to.Scheme != x.api.URL.Scheme || !strings.EqualFold(to.Host, x.api.URL.Host) {
			continue
		}
		path, ok := strings.CutPrefix(to.EscapedPath(), strings.TrimSuffix(x.api.URL.EscapedPath(), "/")+"/")
		if !ok {
			continue
		}
		value := Prefix + x.api.Name + "/" + path
		if to.RawQuery != "" {
			value += "?" + to.RawQuery
		}
		h.Set(name, value)
	}
}

// failed answers for an upstream that did not.
func (x *exchange) failed(w http.ResponseWriter, err error) {
	f := x.failure(err)
	f.Decision = x.release.Decision.ID
	x.api.gate.log.Warn("upstream failed", "api", x.api.Name, "decision_id", f.Decision, "code", f.Code, "error", err)
	f.write(w)
}

func (x *exchange) failure(err error) *refusal {
	var slow net.Error
	switch {
	case x.release.Cut() != nil:
		cut := x.release.Cut()
		return refuse(cut.Code, cut.Message+" The call was cut off; what it asked may or may not have been done.")
	case errors.Is(err, errRefused):
		return refuse(reasonUpstreamDenies, "The upstream does not accept the gate's own credential; an operator has to look.")
	case !x.connected.Load():
		return refuse(authz.ReasonUpstreamDown, "The upstream could not be reached; nothing was done.")
	case errors.As(err, &slow) && slow.Timeout():
		return refuse(reasonUpstreamSlow, "The upstream did not answer in time; what it was asked may or may not have been done.")
	default:
		return refuse(reasonUpstreamLost, "The upstream's answer was lost; what it was asked may or may not have been done.")
	}
}

// settle reports what became of the action.
func (x *exchange) settle() {
	b := x.answer
	cut := x.release.Cut()
	switch {
	case cut != nil && x.connected.Load() && (b == nil || !b.whole):
		x.release.Abandon(authz.OutcomeAmbiguous, x.bytes(), cut.Code)
	case b == nil && !x.connected.Load():
		x.release.Settle(authz.OutcomeNotRun, 0, "the upstream could not be reached")
	case b == nil:
		x.release.Settle(authz.OutcomeAmbiguous, 0, "the upstream did not answer")
	case x.refused != "":
		x.release.Settle(authz.OutcomeError, b.n, x.refused)
	case !b.whole:
		x.release.Settle(authz.OutcomeAmbiguous, b.n, "the answer was cut off", b.parts()...)
	case b.status >= 400:
		x.release.Settle(authz.OutcomeError, b.n, fmt.Sprintf("status %d", b.status), b.parts()...)
	default:
		x.release.Settle(authz.OutcomeSuccess, b.n, "", b.parts()...)
	}
}

// bytes is how much of an answer has come.
func (x *exchange) bytes() int64 {
	if x.answer == nil {
		return 0
	}
	return x.answer.n
}

// An answerBody counts an answer and notes whether all of it was read.
type answerBody struct {
	io.ReadCloser
	status int
	length int64 // as the upstream says; -1 if it does not
	n      int64
	whole  bool
	// seen is the beginning of the answer, one byte more than an outcome takes.
	seen []byte
	// end is called when all has been read, before the last of it is passed on.
	end func()
}

// parts is what the agent has seen of the answer.
func (b *answerBody) parts() []string {
	if len(b.seen) == 0 {
		return nil
	}
	return []string{string(b.seen)}
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	b.seen = append(b.seen, p[:min(n, authz.MaxOutput+1-len(b.seen))]...)
	if err == io.EOF || b.n == b.length && b.length > 0 {
		b.whole = true
		b.end()
	}
	return n, err
}
