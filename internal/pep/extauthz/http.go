package extauthz

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// Where gateways ask over HTTP; the name of an API follows.
const (
	// EnvoyPrefix precedes the original path of a request: Envoy's path_prefix.
	EnvoyPrefix = "/ext_authz/"
	// NginxPrefix is for subrequests of nginx's auth_request.
	NginxPrefix = "/auth/nginx/"
	// ForwardPrefix is for Caddy's forward_auth and Traefik's ForwardAuth.
	ForwardPrefix = "/auth/forward/"
)

// ServeHTTP answers gateways that ask over HTTP, below the prefixes above: 200
// lets a request through and nothing else does. It must not be behind a
// multiplexer that rewrites paths.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nginx := strings.HasPrefix(r.RequestURI, NginxPrefix)
	a := g.contained(func() answer {
		gateway, ok := bearer(r.Header[gatewayHeader])
		if !ok {
			g.Logger.Warn("gateway shows no key", "gate", "http")
			return noGateway()
		}
		m, name, err := g.message(w, r)
		if err != nil {
			return refuse(reasonMalformed, sentence(err))
		}
		return g.judge(r.Context(), gateway, g.named(name, m), m)
	})
	if a.allow {
		w.Header().Set(decisionHeader, a.id)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		return
	}
	f := a.known()
	if nginx && f.Status != http.StatusUnauthorized {
		f.Status = http.StatusForbidden // nginx makes a 500 of others
	}
	for name, value := range f.headers() {
		w.Header().Set(name, value)
	}
	w.WriteHeader(f.Status)
	// A gateway that is gone needs no answer, and lets nothing through.
	_, _ = w.Write(f.body())
}

// message reads what a gateway says of a request, and of which API.
func (g *Gate) message(w http.ResponseWriter, r *http.Request) (*message, string, error) {
	if rest, ok := strings.CutPrefix(r.RequestURI, EnvoyPrefix); ok {
		return g.envoyMessage(w, r, rest)
	}
	if name, ok := strings.CutPrefix(r.RequestURI, NginxPrefix); ok {
		return forwarded(r, name, "X-Original-Method", "X-Original-Uri", "X-Original-Host")
	}
	if name, ok := strings.CutPrefix(r.RequestURI, ForwardPrefix); ok {
		return forwarded(r, name, "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host")
	}
	return nil, "", errors.New("gateways ask at /ext_authz/<api>/…, /auth/nginx/<api> and /auth/forward/<api>")
}

// envoyMessage is the request itself, below a prefix.
func (g *Gate) envoyMessage(w http.ResponseWriter, r *http.Request, rest string) (*message, string, error) {
	name, path, ok := strings.Cut(rest, "/")
	if !ok {
		return nil, "", errors.New("the path_prefix must be /ext_authz/ and the name of an API")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.Body))
	if err != nil {
		return nil, "", errors.New("the body could not be read, or is larger than this server reads")
	}
	m := &message{method: r.Method, target: "/" + path, host: r.Host, header: r.Header, body: body, gate: gateEnvoy, scheme: forwardedProto(r)}
	// The length is that of the question: Envoy sends none of the body unless it
	// is told to, and then says whether it is all.
	partial := r.Header[partialHeader]
	m.whole = len(body) > 0 && len(partial) == 1 && partial[0] == "false"
	return m, name, nil
}

// forwardedProto is the scheme that the gateway says, if it says one.
func forwardedProto(r *http.Request) string {
	if values := r.Header["X-Forwarded-Proto"]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// forwarded is a request that a gateway describes in headers. Each must be there
// once: a second one could be the client's.
func forwarded(r *http.Request, name, method, target, host string) (*message, string, error) {
	// Caddy appends the query of the request to its own path; the target has it.
	name, _, _ = strings.Cut(name, "?")
	if r.Method != http.MethodGet || r.ContentLength != 0 {
		return nil, "", errors.New("the gateway must ask by GET, without a body")
	}
	m := &message{header: r.Header, gate: gateForward, scheme: forwardedProto(r)}
	for header, to := range map[string]*string{method: &m.method, target: &m.target, host: &m.host} {
		values := r.Header[header]
		if len(values) != 1 || values[0] == "" || !visible(values[0]) {
			return nil, "", errors.New("the gateway must say method, path and host of the request, each once")
		}
		*to = values[0]
	}
	return m, name, nil
}
