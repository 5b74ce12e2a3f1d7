package sts

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// The grants and token types (RFC 8693 §2.1, §3; RFC 6749 §4.4).
const (
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantClient     = "client_credentials"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
)

// A request is what a client asks for.
type request struct {
	credential  authz.Credential
	leaf        []byte // of the client's certificate, DER
	name        string
	audience    Audience
	scopes      []string // sorted
	mayAct      string
	correlation string
}

// known are the parameters; each may be there once (RFC 6749 §3.2).
var known = []string{
	"grant_type", "subject_token", "subject_token_type", "requested_token_type", "audience", "resource", "scope", "may_act",
}

// read reads the form (RFC 8693 §2.1). An actor token is not taken: the actor is
// who asks, and proves it like any client of ours.
func (i *Issuer) read(w http.ResponseWriter, r *http.Request) (*request, *fault) {
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/x-www-form-urlencoded" {
		return nil, invalid("The body must be a form.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, invalid("The body is larger than this server reads, or could not be read.")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, invalid("The body is not a form.")
	}
	for name, values := range form {
		if !slices.Contains(known, name) || len(values) != 1 {
			return nil, invalid("The parameters are " + strings.Join(known, ", ") + ", each of them once.")
		}
	}
	q := &request{mayAct: form.Get("may_act"), correlation: correlation(r)}
	q.scopes = slices.Compact(slices.Sorted(slices.Values(strings.Fields(form.Get("scope")))))
	onBehalf := form.Get("subject_token")
	switch form.Get("grant_type") {
	case grantExchange:
		if t := form.Get("subject_token_type"); onBehalf == "" || t != typeAccessToken && t != typeJWT {
			return nil, invalid("A subject_token is needed, of the type " + typeAccessToken + ".")
		}
	case grantClient:
		if onBehalf != "" {
			return nil, invalid("Nothing is exchanged with client_credentials.")
		}
	default:
		return nil, refuse(http.StatusBadRequest, "unsupported_grant_type", "The grants are "+grantExchange+" and "+grantClient+".")
	}
	if t := form.Get("requested_token_type"); t != "" && t != typeAccessToken && t != typeJWT {
		return nil, invalid("Access tokens are all that is issued.")
	}
	var f *fault
	if q.name, q.audience, f = i.find(form.Get("audience"), form.Get("resource")); f != nil {
		return nil, f
	}
	q.credential = i.shown(r)
	q.credential.OnBehalf = onBehalf
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		q.leaf = r.TLS.PeerCertificates[0].Raw
	}
	return q, nil
}

// find finds the audience by its name or its URI.
func (i *Issuer) find(audience, resource string) (string, Audience, *fault) {
	if (audience == "") != (resource == "") {
		for name, a := range i.Audiences {
			if name == audience || a.URI == audience+resource {
				return name, a, nil
			}
		}
	}
	return "", Audience{}, refuse(http.StatusBadRequest, "invalid_target", "A token is for one service that this issuer knows: audience or resource.")
}

// shown is how the client proves itself: as to any gate, or with its key as a
// client secret (RFC 6749 §2.3.1).
func (i *Issuer) shown(r *http.Request) authz.Credential {
	c := pep.Shown(r, i.Issuer)
	if values := r.Header["Authorization"]; len(values) == 1 {
		if scheme, text, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "basic") {
			if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err == nil {
				_, secret, _ := strings.Cut(string(raw), ":")
				if key, err := url.QueryUnescape(secret); err == nil && key != "" {
					c = authz.Credential{Kind: authz.CredentialBearer, Value: key}
				}
			}
		}
	}
	// The proof of the key that the token is to be bound to comes with any way of
	// showing who asks (RFC 9449 §5).
	if proofs := r.Header["Dpop"]; c.Kind != authz.CredentialNone && c.Kind != authz.CredentialDPoP && len(proofs) > 0 {
		c.Proof = strings.Join(proofs, ",") // more than one is none that can be read
		c.Method, c.URL, c.Exchange = r.Method, i.Issuer+r.URL.EscapedPath(), rand.Text()
	}
	return c
}

// correlation is the client's own id of the request, if it is fit to be kept.
func correlation(r *http.Request) string {
	ids := r.Header["X-Request-Id"]
	if len(ids) != 1 || len(ids[0]) > 128 || strings.ContainsFunc(ids[0], func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return ""
	}
	return ids[0]
}

// A fault is why no token is issued (RFC 6749 §5.2).
type fault struct {
	status    int
	challenge []string

	Error       string `json:"error"`
	Description string `json:"error_description"`
	// Code, Decision and Remedies are ours: the denial, as other gates tell it.
	Code     string         `json:"code,omitempty"`
	Decision string         `json:"decision,omitempty"`
	Remedies []authz.Remedy `json:"remedies,omitempty"`
}

func refuse(status int, code, description string) *fault {
	return &fault{status: status, Error: code, Description: description}
}

func invalid(description string) *fault {
	return refuse(http.StatusBadRequest, "invalid_request", description)
}

// denied turns a decision that denies into what the client is told of it.
func denied(q *request, d authz.Decision) *fault {
	f := refuse(http.StatusForbidden, "access_denied", d.Message())
	switch d.Code() {
	case authz.ReasonUnauthenticated: // RFC 6749 §5.2
		f.Error = "invalid_client"
	case authz.ReasonInputInvalid:
		f.status, f.Error = http.StatusBadRequest, "invalid_request"
	case authz.ReasonIdentityDown, authz.ReasonPolicyUnavailable, authz.ReasonSessionDown, authz.ReasonEntitiesDown, authz.ReasonAuditDown,
		authz.ReasonDeadline, authz.ReasonPDPDown, authz.ReasonOverloaded:
		f.status, f.Error = http.StatusServiceUnavailable, "temporarily_unavailable"
	}
	f.Code, f.Decision, f.Remedies = d.Code(), d.ID, d.Remedies
	if status, lines := (pep.Door{}).Challenge(q.credential.Kind, d.Code(), d.Challenge); status != 0 {
		f.status, f.challenge = status, lines
		if d.Challenge != nil {
			f.Error = "insufficient_user_authentication"
		}
	}
	return f
}

func (f *fault) write(w http.ResponseWriter) {
	if len(f.challenge) > 0 {
		w.Header()["Www-Authenticate"] = f.challenge
	}
	write(w, f.status, f)
}

func write(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // RFC 6749 §5.1
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// Nothing here fails to be JSON, and a client that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(v)
}

// sentence makes an error fit to be read.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:min(len(s), 400)] + "."
}

func newID() string { return rand.Text() }
