package extauthz

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// Headers of our own.
const (
	sessionHeader  = "Bailiwick-Session"
	gatewayHeader  = "Bailiwick-Pep" // the gateway's key
	decisionHeader = "Bailiwick-Decision"
)

// A message is a request as a gateway says it got it.
type message struct {
	method string
	target string // path and query, as they were sent
	host   string
	header http.Header
	// joined: headers given more than once are one, and what is not UTF-8 in
	// them has been replaced.
	joined bool
	body   []byte
	whole  bool   // body is all of the body
	peer   string // who the gateway says that the client's certificate is of
	scheme string // by which the client reached the gateway; empty: not said
	// certificates is the client's chain in DER, as the gateway says it was shown.
	certificates string
	gate         string
}

// overrides are headers that make some servers take a request for another one
// than it says.
var overrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// odd says why a request is not one that can be decided, or nil.
func (m *message) odd() error {
	switch session := m.header[sessionHeader]; {
	case len(m.header["Upgrade"]) > 0:
		return errors.New("an upgrade of the connection, WebSocket among them, is never let through")
	case len(session) > 1 || len(session) == 1 && (len(session[0]) > 128 || !visible(session[0]) || m.joined && strings.Contains(session[0], ",")):
		return errors.New("the header Bailiwick-Session must be given once, in at most 128 visible characters")
	}
	for _, h := range overrides {
		if len(m.header[h]) > 0 {
			return fmt.Errorf("the header %s makes some servers read another request", h)
		}
	}
	return nil
}

// errTarget is for a target that two programs could read differently.
var errTarget = errors.New("the target of the request is not a path and a query as they should be written")

// url is the target below the prefix of an API.
func (m *message) url(prefix string) (*url.URL, error) {
	if !visible(m.target) || strings.ContainsAny(m.target, " #\\") {
		return nil, errTarget
	}
	path, query, _ := strings.Cut(m.target, "?")
	path, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return nil, fmt.Errorf("%w: the path is not below the API's", openapi.ErrUnknown)
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, errTarget
	}
	return &url.URL{Path: plain, RawPath: path, RawQuery: query}, nil
}

// route finds the operation that a request is.
func (m *message) route(a *API) (openapi.Call, error) {
	u, err := m.url(a.Prefix)
	if err != nil {
		return openapi.Call{}, err
	}
	call, err := a.Router.Route(m.method, u, m.header, m.body, m.whole)
	if err == nil && !m.whole && len(m.body) > 0 {
		err = &openapi.InputError{Reason: "the operation takes no body"}
	}
	if err == nil && m.joined {
		err = m.certain(call.Headers)
	}
	return call, err
}

// certain holds headers that were joined to those that mean the same apart: a
// server that takes the first of two would not see what was decided, nor one
// that gets other bytes than '!'.
func (m *message) certain(arguments []string) error {
	for _, h := range append([]string{"Content-Type"}, arguments...) {
		if slices.ContainsFunc(m.header[h], func(v string) bool { return strings.ContainsAny(v, ",!") }) {
			return &openapi.InputError{Argument: h, Reason: "is given twice, or with ',' or '!', and the gateway does not send its headers raw"}
		}
	}
	return nil
}

// credential is what the agent shows, over a connection that the gateway has
// ended: that the client holds the key of its certificate is the gateway's word,
// which an enforcement point that relays is trusted with.
func (m *message) credential() authz.Credential {
	path, _, _ := strings.Cut(m.target, "?")
	c := pep.WithHeaders(authz.Credential{Method: m.method, URL: m.scheme + "://" + m.host + path, Certificates: m.certificates}, m.header)
	if c.Kind == authz.CredentialBearer && !tokenSyntax(c.Value) {
		return authz.Credential{}
	}
	return c
}

// correlation is the client's own id of the request, if it is fit to be kept.
func (m *message) correlation() string {
	ids := m.header["X-Request-Id"]
	if len(ids) != 1 || len(ids[0]) > 128 || !visible(ids[0]) {
		return ""
	}
	return ids[0]
}

// bearer is the token of the one value of an Authorization header (RFC 6750
// §2.1). Two values are none, joined or not: two readers might believe
// different ones.
func bearer(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", false
	}
	return token, tokenSyntax(token)
}

// tokenSyntax reports whether it is a b64token (RFC 6750 §2.1).
func tokenSyntax(token string) bool {
	body := strings.TrimRight(token, "=")
	return body != "" && !strings.ContainsFunc(body, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~+/", r))
	})
}

// claims reports headers, in lower case, that an upstream may take for who the
// caller is. They are for a gateway to set, never for a client.
func claims(name string) bool {
	switch name {
	case "authorization", "dpop", "remote-user", "remote-group", "remote-groups", "remote-name", "remote-email", "x-user", "x-user-id", "x-user-email",
		"x-remote-user", "x-remote-group", "x-remote-groups", "x-webauth-user", "x-authenticated-user", "x-authenticated-userid",
		"x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username", "x-forwarded-access-token":
		return true
	}
	return strings.HasPrefix(name, "bailiwick-") || strings.HasPrefix(name, "x-auth-request-") || strings.HasPrefix(name, "x-remote-extra-")
}

// visible reports whether a text can stand in a header.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// clip cuts s to at most n bytes, at a rune's boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
