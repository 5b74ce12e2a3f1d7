package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	jsonv2 "github.com/go-json-experiment/json"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// An Issuer is an issuer of JWTs that name agents.
type Issuer struct {
	// Issuer is its identifier; discovery starts there. Required.
	Issuer string
	// Audience must be among the token's audiences. Required.
	Audience string
	// AgentClaim names the claim that holds the agent's id. Required. A token
	// with an act claim names the agent there (RFC 8693 §4.1).
	AgentClaim string
	// SubjectClaim names the claim that holds the person the agent acts for.
	SubjectClaim string
	// GroupsClaim names the claim that lists groups of the agent.
	GroupsClaim string
	// Levels maps values of the acr claim to authentication levels above
	// [LevelProven].
	Levels map[string]int64
	// AccessTokens demands access tokens as in RFC 9068: their type and all of
	// their required claims.
	AccessTokens bool
	// SenderConstrained refuses tokens that whoever holds them can use: they
	// must be bound to a key (RFC 9449) or a certificate (RFC 8705).
	SenderConstrained bool
	// Algorithms are the signature algorithms that are accepted. Default: RS256,
	// PS256, ES256, ES384 and EdDSA.
	Algorithms []string
	// Keys are the issuer's keys. Nil: they are fetched from it.
	Keys *jose.JSONWebKeySet
}

// maxToken bounds a token's size in bytes before anything parses it.
const maxToken = 16 << 10

// clockSkew is how far an issuer's clock may be ahead of ours. A token is never
// accepted beyond its expiry.
const clockSkew = 30 * time.Second

// known are the signature algorithms that can be accepted, by whether they are
// so by default. Asymmetric only: with a symmetric one, a public key could be
// used as the secret (RFC 8725 §2.1).
var known = map[string]bool{
	"RS256": true, "PS256": true, "ES256": true, "ES384": true, "EdDSA": true,
	"RS384": false, "RS512": false, "PS384": false, "PS512": false, "ES512": false,
}

func algorithms(names []string) []jose.SignatureAlgorithm {
	var out []jose.SignatureAlgorithm
	for name, usual := range known {
		if len(names) == 0 && usual || slices.Contains(names, name) {
			out = append(out, jose.SignatureAlgorithm(name))
		}
	}
	slices.Sort(out)
	return out
}

// Check says what is wrong with the configuration of the issuer.
func (i Issuer) Check() error {
	if i.Issuer == "" || i.Audience == "" || i.AgentClaim == "" {
		return fmt.Errorf("issuer %q needs an issuer, an audience and an agent claim", i.Issuer)
	}
	for _, a := range i.Algorithms {
		if _, ok := known[a]; !ok {
			return fmt.Errorf("issuer %s: %q is not an algorithm that can be accepted", i.Issuer, a)
		}
	}
	return nil
}

// An issuer verifies the tokens of one Issuer.
type issuer struct {
	Issuer
	algorithms []jose.SignatureAlgorithm
	keys       func(ctx context.Context, kid, alg string) ([]jose.JSONWebKey, error)
	maxChain   int
	memory     memory
	now        func() time.Time
}

func newIssuer(i Issuer, c Config) *issuer {
	out := &issuer{Issuer: i, algorithms: algorithms(i.Algorithms), maxChain: c.MaxChain, now: c.Now}
	if i.Keys == nil {
		client := *c.Client
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		out.keys = (&keySet{issuer: i.Issuer, client: &client, now: c.Now}).find
		return out
	}
	fixed := &heldKeys{keys: i.Keys.Keys}
	out.keys = func(_ context.Context, kid, alg string) ([]jose.JSONWebKey, error) {
		keys := fixed.match(kid, alg)
		if len(keys) == 0 {
			return nil, fmt.Errorf("issuer %s has no key for this token: %w", i.Issuer, ErrUnauthenticated)
		}
		return keys, nil
	}
	return out
}

// byToken verifies a JWT, and that whoever shows it may.
func (v *Verifier) byToken(ctx context.Context, agents *Registry, cred authz.Credential) (Subject, error) {
	claimed, err := peek(cred.Value)
	if err != nil {
		return Subject{}, err
	}
	if v.spiffe != nil && strings.HasPrefix(claimed.Subject, "spiffe://") {
		return v.byJWTSVID(agents, cred, claimed.Subject)
	}
	s, i, err := v.token(ctx, cred.Value, claimed)
	if err != nil {
		return Subject{}, err
	}
	if i.SenderConstrained && s.Bound.IsZero() {
		return Subject{}, fmt.Errorf("issuer %s has to bind its tokens to who shows them, and this one is not: %w", i.Issuer.Issuer, ErrUnauthenticated)
	}
	return v.held(cred, s)
}

// token verifies a JWT (RFC 7519; issuer, audience, expiry, signature), whoever
// shows it.
func (v *Verifier) token(ctx context.Context, token string, claimed peeked) (Subject, *issuer, error) {
	i, ok := v.issuers[claimed.Issuer]
	if !ok {
		return Subject{}, nil, fmt.Errorf("the token's issuer is not configured: %w", ErrUnauthenticated)
	}
	now := i.now()
	if s, ok := i.memory.get(token, now); ok {
		return s, i, nil
	}
	s, err := i.verify(ctx, token)
	if err != nil {
		return Subject{}, nil, err
	}
	i.memory.put(token, s, now, s.Expires)
	return s, i, nil
}

// peeked is what a token claims before it is verified.
type peeked struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
}

// peek reads what a token claims, only to choose whose keys must then prove the
// claim.
func peek(token string) (peeked, error) {
	if len(token) > maxToken {
		return peeked{}, fmt.Errorf("the token has more than %d bytes: %w", maxToken, ErrUnauthenticated)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return peeked{}, fmt.Errorf("the bearer credential is neither an agent key nor a JWT: %w", ErrUnauthenticated)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return peeked{}, fmt.Errorf("the token's payload is not base64url: %w", ErrUnauthenticated)
	}
	var p peeked
	// A claim that is there twice is an error: two readers might believe
	// different ones.
	if err := jsonv2.Unmarshal(payload, &p); err != nil {
		return peeked{}, fmt.Errorf("the token's payload is not an object of claims: %w", ErrUnauthenticated)
	}
	return p, nil
}

// verify verifies the token and reads what it says.
func (i *issuer) verify(ctx context.Context, token string) (Subject, error) {
	jws, err := jose.ParseSignedCompact(token, i.algorithms)
	if err != nil {
		return Subject{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	head := jws.Signatures[0].Protected
	if err := i.checkType(head); err != nil {
		return Subject{}, err
	}
	keys, err := i.keys(ctx, head.KeyID, head.Algorithm)
	if err != nil {
		return Subject{}, err
	}
	var payload []byte
	for _, k := range keys {
		if payload, err = jws.Verify(k.Key); err == nil {
			break
		}
	}
	if err != nil {
		return Subject{}, fmt.Errorf("the token's signature is not its issuer's: %w", ErrUnauthenticated)
	}
	return i.read(payload)
}

// read reads what a token says that its issuer has signed.
func (i *issuer) read(payload []byte) (Subject, error) {
	var c claims
	if err := jsonv2.Unmarshal(payload, (*map[string]any)(&c)); err != nil {
		return Subject{}, fmt.Errorf("read claims: %w: %w", ErrUnauthenticated, err)
	}
	expires, err := i.current(c)
	if err != nil {
		return Subject{}, err
	}
	s, err := i.subject(c)
	if err != nil {
		return Subject{}, err
	}
	s.Expires, s.Claims = expires, payload
	return s, nil
}

// checkType refuses a JWT that is meant for something else (RFC 8725 §3.11).
func (i *issuer) checkType(head jose.Header) error {
	typ, _ := head.ExtraHeaders[jose.HeaderType].(string)
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/") // RFC 7515 §4.1.9
	switch {
	case typ == "at+jwt": // RFC 9068 §2.1
		return nil
	case i.AccessTokens:
		return fmt.Errorf("the token is of type %q, not at+jwt: %w", clip(typ, 64), ErrUnauthenticated)
	case typ == "" || typ == "jwt":
		return nil
	default:
		return fmt.Errorf("a token of type %q proves no agent: %w", clip(typ, 64), ErrUnauthenticated)
	}
}

// current checks that the token is for us, and now.
func (i *issuer) current(c claims) (time.Time, error) {
	now := i.now()
	if c.text("iss") != i.Issuer.Issuer || !slices.Contains(c.audience(), i.Audience) {
		return time.Time{}, fmt.Errorf("the token is not for %s: %w", i.Audience, ErrUnauthenticated)
	}
	expires, err := c.time("exp")
	if err == nil && (expires.IsZero() || !now.Before(expires)) {
		err = errors.New("the token has expired, or does not say when it does")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	for _, name := range []string{"nbf", "iat"} {
		at, err := c.time(name)
		if err == nil && at.After(now.Add(clockSkew)) {
			err = fmt.Errorf("the token is not valid yet: %s", name)
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
		}
	}
	if i.AccessTokens { // RFC 9068 §2.2
		for _, name := range []string{"sub", "client_id", "jti"} {
			if c.text(name) == "" {
				return time.Time{}, fmt.Errorf("the access token has no claim %q: %w", name, ErrUnauthenticated)
			}
		}
		if at, _ := c.time("iat"); at.IsZero() {
			return time.Time{}, fmt.Errorf("the access token has no claim \"iat\": %w", ErrUnauthenticated)
		}
	}
	return expires, nil
}

// subject reads who the token is about.
func (i *issuer) subject(c claims) (Subject, error) {
	s := Subject{Method: MethodJWT, Level: LevelProven, SubjectClaim: i.SubjectClaim, ACR: i.Levels}
	if s.ACR == nil {
		s.ACR = map[string]int64{}
	}
	s.Level = max(s.Level, i.Levels[c.text("acr")])
	s.Authenticated, _ = c.time("auth_time")
	var err error
	if s.Agent, s.For, s.Chain, err = i.actors(c); err != nil {
		return Subject{}, err
	}
	if i.GroupsClaim != "" {
		if s.Groups, err = groups(c[i.GroupsClaim]); err != nil {
			return Subject{}, fmt.Errorf("claim %q: %w", i.GroupsClaim, err)
		}
	}
	if s.Bound, err = binding(c["cnf"]); err != nil {
		return Subject{}, err
	}
	if s.MayAct, err = mayAct(c["may_act"]); err != nil {
		return Subject{}, err
	}
	s.Scopes = slices.Compact(slices.Sorted(slices.Values(strings.Fields(c.text("scope")))))
	return s, nil
}

// claims are the claims of a token.
type claims map[string]any

// text is a claim that is a string; empty if it is not.
func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
}

// time is a claim that is a NumericDate (RFC 7519 §2). The zero time if it is
// not there; one of another shape is an error rather than not there.
func (c claims) time(name string) (time.Time, error) {
	v, ok := c[name]
	if !ok || v == nil {
		return time.Time{}, nil
	}
	n, ok := v.(float64)
	if !ok || n <= 0 || n >= 1<<40 || math.IsNaN(n) {
		return time.Time{}, fmt.Errorf("the claim %q is not a time", name)
	}
	return time.Unix(int64(n), 0), nil
}

// audience is aud, which may be one or several (RFC 7519 §4.1.3).
func (c claims) audience() []string {
	switch v := c["aud"].(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	default:
		return nil
	}
}

// groups reads a list of group names. A claim of another shape is refused
// rather than read as "no groups", since a forbid may hang on a group.
func groups(claim any) ([]string, error) {
	if claim == nil {
		return nil, nil
	}
	list, ok := claim.([]any)
	if !ok {
		return nil, fmt.Errorf("not a list: %w", ErrUnauthenticated)
	}
	names := make([]string, 0, len(list))
	for _, g := range list {
		name, ok := g.(string)
		if !ok {
			return nil, fmt.Errorf("not a list of strings: %w", ErrUnauthenticated)
		}
		names = append(names, name)
	}
	return slices.Compact(slices.Sorted(slices.Values(names))), nil
}

func clip(s string, n int) string { return s[:min(len(s), n)] }
