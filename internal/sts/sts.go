// Package sts issues tokens for the next hop of a task (RFC 8693): short, for
// one audience, bound to who asks, and never for more than the token that they
// are made of.
//
// It is an enforcement point: that an agent may have a token is a decision like
// any other, about every agent that the task has come through.
package sts

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// Where clients find it.
const (
	TokenPath    = "/oauth/token"
	KeysPath     = "/oauth/jwks"
	MetadataPath = "/.well-known/oauth-authorization-server" // RFC 8414 §3
)

// gateName is the name under which decisions know this enforcement point.
const gateName = "token"

// maxBody bounds a request, in bytes.
const maxBody = 64 << 10

// A Config says what an [Issuer] needs. All but Lifetime is required.
type Config struct {
	// Issuer is the URL by which tokens name this issuer, without a slash at its
	// end.
	Issuer string
	// Key signs the tokens.
	Key *ecdsa.PrivateKey
	// Audiences are what tokens may be for, by the names that policies know them
	// by: Server::"<name>".
	Audiences map[string]Audience
	// Lifetime is how long a token holds at most. Default 5 min.
	Lifetime time.Duration
	// Identity proves who asks; it has to be the PDP's.
	Identity *identity.Verifier
	// Decider is the PDP.
	Decider pep.Decider
	// Action is the operation of the catalogue that is decided about.
	Action string
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// An Audience is a service that tokens may be for.
type Audience struct {
	// URI is how the service names itself: the aud of its tokens.
	URI string
	// Scopes are the scopes that a token for it may have.
	Scopes []string
	// Bearer lets tokens be issued that are bound to nobody, for a service that
	// knows nothing else.
	Bearer bool
}

// An Issuer issues tokens over HTTP. It is safe for concurrent use.
type Issuer struct {
	Config
	guard  *pep.Guard
	signer jose.Signer
	keys   *jose.JSONWebKeySet
}

// New returns an issuer.
func New(c Config) (*Issuer, error) {
	if c.Issuer == "" || c.Key == nil || len(c.Audiences) == 0 || c.Identity == nil || c.Decider == nil || c.Action == "" || c.Logger == nil {
		return nil, errors.New("sts: issuer, key, audiences, identity, decider, action and logger are all required")
	}
	if c.Lifetime <= 0 {
		c.Lifetime = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	i := &Issuer{Config: c, guard: &pep.Guard{Decider: c.Decider, Logger: c.Logger}}
	var err error
	if i.keys, err = PublicKeys(c.Key); err != nil {
		return nil, fmt.Errorf("sts: %w", err)
	}
	// RFC 9068 §2.1
	i.signer, err = jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: c.Key, KeyID: i.keys.Keys[0].KeyID}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		return nil, fmt.Errorf("sts: %w", err)
	}
	return i, nil
}

// ServeHTTP serves the three paths.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == TokenPath && r.Method == http.MethodPost:
		i.token(w, r)
	case r.URL.Path == TokenPath:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Use POST.", http.StatusMethodNotAllowed)
	case r.URL.Path == KeysPath:
		write(w, http.StatusOK, i.keys)
	case r.URL.Path == MetadataPath:
		write(w, http.StatusOK, i.metadata())
	default:
		http.NotFound(w, r)
	}
}

// metadata is what clients and services need to know of the issuer (RFC 8414
// §2).
func (i *Issuer) metadata() any {
	return map[string]any{
		"issuer": i.Issuer, "token_endpoint": i.Issuer + TokenPath, "jwks_uri": i.Issuer + KeysPath,
		"grant_types_supported":                      []string{grantExchange, grantClient},
		"response_types_supported":                   []string{},
		"token_endpoint_auth_methods_supported":      []string{"client_secret_basic", "tls_client_auth", "self_signed_tls_client_auth"},
		"dpop_signing_alg_values_supported":          identity.ProofAlgorithms(),
		"tls_client_certificate_bound_access_tokens": true,
	}
}

// token answers a request for a token.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	q, f := i.read(w, r)
	if f != nil {
		f.write(w)
		return
	}
	ctx := r.Context()
	subject, err := i.Identity.Verify(ctx, q.credential)
	var barred *identity.BarredError
	if err != nil && !errors.As(err, &barred) {
		// The PDP says the same, on the record.
		subject = identity.Subject{}
	}
	scopes, f := i.scopes(q, subject)
	if f != nil && err == nil {
		f.write(w)
		return
	}
	release, d := i.guard.Ask(ctx, i.question(q, scopes))
	if release == nil {
		denied(q, d).write(w)
		return
	}
	if err != nil {
		// The PDP knows somebody whom we do not: the registry has changed between.
		release.Settle(authz.OutcomeNotRun, 0, "who asks is not known")
		denied(q, authz.Deny(authz.ReasonUnauthenticated, "The credential does not prove who is asking.")).write(w)
		return
	}
	bound, err := i.bind(q, subject)
	if err != nil {
		release.Settle(authz.OutcomeNotRun, 0, "no proof that a token could be bound to")
		refuse(http.StatusBadRequest, "invalid_dpop_proof", sentence(err)).write(w)
		return
	}
	answer, err := i.issue(q, subject, scopes, bound)
	if err != nil {
		release.Settle(authz.OutcomeError, 0, "not signed")
		i.Logger.Error("token not issued", "decision_id", d.ID, "error", err)
		refuse(http.StatusInternalServerError, "server_error", "The token could not be made.").write(w)
		return
	}
	release.Settle(authz.OutcomeSuccess, 0, "")
	write(w, http.StatusOK, answer)
}

// scopes are the scopes of the token: what is asked for, or all, and never more
// than the token that is exchanged has. An agent that has no token has what is
// there to have; policy says whether it may.
func (i *Issuer) scopes(q *request, s identity.Subject) ([]string, *fault) {
	has := slices.Sorted(slices.Values(q.audience.Scopes))
	if len(s.Claims) > 0 {
		has = slices.DeleteFunc(has, func(name string) bool { return !slices.Contains(s.Scopes, name) })
	}
	if len(q.scopes) == 0 {
		return has, nil
	}
	for _, name := range q.scopes {
		if !slices.Contains(has, name) {
			return nil, refuse(http.StatusBadRequest, "invalid_scope", "A token has no more scopes than the one that it is made of, and than its service knows.")
		}
	}
	return q.scopes, nil
}

// question is what the PDP is asked.
func (i *Issuer) question(q *request, scopes []string) authz.Request {
	input := map[string]string{"scope": strings.Join(scopes, " ")}
	if q.mayAct != "" {
		input["may_act"] = q.mayAct
	}
	raw, _ := json.Marshal(input) // strings are always JSON
	return authz.Request{
		Credential: q.credential, Action: i.Action, Server: q.name, Resource: authz.Entity{Type: "Server", ID: q.name},
		Input: raw, Gate: gateName, Correlation: q.correlation,
	}
}

// bind says what the token is bound to.
func (i *Issuer) bind(q *request, s identity.Subject) (identity.Binding, error) {
	if q.credential.Kind == authz.CredentialDPoP {
		return identity.Binding{Key: s.Bound.Key}, nil // the proof of its own token
	}
	key, err := i.Identity.ProvenKey(q.credential)
	switch {
	case err != nil:
		return identity.Binding{}, err
	case key != "":
		return identity.Binding{Key: key}, nil
	case q.leaf != nil:
		return identity.Binding{Certificate: identity.Thumbprint(q.leaf)}, nil
	case q.audience.Bearer:
		return identity.Binding{}, nil
	default:
		return identity.Binding{}, errors.New("a token for this service is bound to who asks: show a DPoP proof or a client certificate")
	}
}

// A response is a token that was issued (RFC 8693 §2.2.1).
type response struct {
	Token     string `json:"access_token"`
	IssuedAs  string `json:"issued_token_type"`
	Type      string `json:"token_type"`
	ExpiresIn int64  `json:"expires_in"`
	Scope     string `json:"scope,omitempty"`
}

// issue makes the token (RFC 9068 §2.2, RFC 8693 §4).
func (i *Issuer) issue(q *request, s identity.Subject, scopes []string, bound identity.Binding) (*response, error) {
	now := i.Now().Truncate(time.Second)
	expires := now.Add(i.Lifetime)
	if !s.Expires.IsZero() && s.Expires.Before(expires) {
		expires = s.Expires
	}
	claims := map[string]any{
		"iss": i.Issuer, "aud": q.audience.URI, "client_id": s.Agent, "jti": newID(), "iat": now.Unix(), "exp": expires.Unix(),
		"sub": subjectOf(s), "act": chain(s),
	}
	var said struct {
		ACR      string `json:"acr"`
		AuthTime int64  `json:"auth_time"`
	}
	if len(s.Claims) > 0 {
		if err := json.Unmarshal(s.Claims, &said); err != nil {
			return nil, fmt.Errorf("read claims: %w", err)
		}
	}
	out := &response{IssuedAs: typeAccessToken, Type: "Bearer", ExpiresIn: int64(expires.Sub(now) / time.Second), Scope: strings.Join(scopes, " ")}
	for name, value := range map[string]string{"scope": out.Scope, "acr": said.ACR} {
		if value != "" {
			claims[name] = value
		}
	}
	if said.AuthTime != 0 {
		claims["auth_time"] = said.AuthTime
	}
	if q.mayAct != "" {
		claims["may_act"] = map[string]string{"sub": q.mayAct}
	}
	switch {
	case bound.Key != "":
		claims["cnf"], out.Type = map[string]string{"jkt": bound.Key}, "DPoP"
	case bound.Certificate != "":
		claims["cnf"] = map[string]string{"x5t#S256": bound.Certificate}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	jws, err := i.signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign token: %w", err)
	}
	out.Token, err = jws.CompactSerialize()
	return out, err
}

// subjectOf is for whom the agents act: the person, or the agent that the task
// began with.
func subjectOf(s identity.Subject) string {
	switch {
	case s.For != "":
		return s.For
	case len(s.Chain) > 0:
		return s.Chain[len(s.Chain)-1].Agent
	default:
		return s.Agent
	}
}

// chain is the act claim: the acting agent, and within it those before it.
func chain(s identity.Subject) any {
	var act map[string]any
	for _, a := range slices.Backward(s.Chain) {
		act = inner(a.Agent, act)
	}
	return inner(s.Agent, act)
}

func inner(agent string, before map[string]any) map[string]any {
	a := map[string]any{"sub": agent}
	if before != nil {
		a["act"] = before
	}
	return a
}
