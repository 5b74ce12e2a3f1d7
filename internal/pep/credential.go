package pep

import (
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// Shown is what the client of an HTTP request shows to prove who it is. public
// is where clients reach the gate, "https://gate.example"; empty takes scheme
// and host from the request itself.
func Shown(r *http.Request, public string) authz.Credential {
	if public == "" {
		public = "http://" + r.Host
		if r.TLS != nil {
			public = "https://" + r.Host
		}
	}
	c := authz.Credential{Method: r.Method, URL: public + r.URL.EscapedPath()}
	if r.TLS != nil {
		for _, cert := range r.TLS.PeerCertificates {
			c.Certificates += string(cert.Raw)
		}
	}
	return WithHeaders(c, r.Header)
}

// WithHeaders completes what was shown with the headers of the request: a
// bearer token or a key (RFC 6750), or a token and a proof (RFC 9449). Without
// either it is the client's certificate, if there is one. More than one
// Authorization header is none: two readers might believe different ones.
func WithHeaders(c authz.Credential, h http.Header) authz.Credential {
	values := h["Authorization"]
	if len(values) == 0 && c.Certificates != "" {
		return authz.Credential{Kind: authz.CredentialCertificate, Certificates: c.Certificates}
	}
	if len(values) != 1 {
		return authz.Credential{}
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	if !ok || token == "" {
		return authz.Credential{}
	}
	switch strings.ToLower(scheme) {
	case "bearer":
		return authz.Credential{Kind: authz.CredentialBearer, Value: token, Certificates: c.Certificates}
	case "dpop":
		c.Kind, c.Value, c.Exchange = authz.CredentialDPoP, token, rand.Text()
		if proofs := h["Dpop"]; len(proofs) == 1 { // RFC 9449 §4.3: not more than one
			c.Proof = proofs[0]
		}
		return c
	default:
		return authz.Credential{}
	}
}
