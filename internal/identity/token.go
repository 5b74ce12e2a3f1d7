package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/sync/singleflight"
)

// An Issuer is an OIDC issuer whose JWTs name agents.
type Issuer struct {
	// Issuer is its identifier; discovery starts there. Required.
	Issuer string
	// Audience must be among the token's audiences. Required.
	Audience string
	// AgentClaim names the claim that holds the agent's id. Required.
	AgentClaim string
	// SubjectClaim names the claim that holds the person the agent acts for.
	SubjectClaim string
	// GroupsClaim names the claim that lists groups of the agent.
	GroupsClaim string
	// Levels maps values of the acr claim to authentication levels above
	// [LevelProven].
	Levels map[string]int64
}

// maxToken bounds a token's size in bytes before anything parses it.
const maxToken = 16 << 10

// discoveryRetry is how long a failed discovery is remembered, so that a dead
// issuer is not asked once per request.
const discoveryRetry = 2 * time.Second

// algorithms are the signature algorithms accepted. Asymmetric only: with a
// symmetric one, a public key could be used as the secret (RFC 8725 §2.1).
var algorithms = []string{oidc.RS256, oidc.PS256, oidc.ES256, oidc.ES384, oidc.EdDSA}

// An issuer verifies the tokens of one Issuer. Discovery is done once, at the
// first token; keys are fetched again when a token names an unknown key.
type issuer struct {
	Issuer
	client *http.Client

	flight   singleflight.Group
	verifier atomic.Pointer[oidc.IDTokenVerifier]
	failed   atomic.Pointer[failure]
	memory   memory
	now      func() time.Time
}

// A failure is the last discovery that failed.
type failure struct {
	err error
	at  time.Time
}

func newIssuer(i Issuer, client *http.Client, now func() time.Time) *issuer {
	if client == nil {
		client = &http.Client{Timeout: 5 * time.Second}
	}
	return &issuer{Issuer: i, client: client, now: now}
}

// byToken verifies a JWT (RFC 7519; issuer, audience, expiry, signature).
func (v *Verifier) byToken(ctx context.Context, token string) (Subject, error) {
	name, err := claimedIssuer(token)
	if err != nil {
		return Subject{}, err
	}
	i, ok := v.issuers[name]
	if !ok {
		return Subject{}, fmt.Errorf("the token's issuer is not configured: %w", ErrUnauthenticated)
	}
	now := i.now()
	if s, ok := i.memory.get(token, now); ok {
		return s, nil
	}
	s, expires, err := i.verify(ctx, token)
	if err != nil {
		return Subject{}, err
	}
	i.memory.put(token, s, now, expires)
	return s, nil
}

// claimedIssuer reads the issuer that a token claims, only to choose whose
// keys must then prove the claim.
func claimedIssuer(token string) (string, error) {
	if len(token) > maxToken {
		return "", fmt.Errorf("the token has more than %d bytes: %w", maxToken, ErrUnauthenticated)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("the bearer credential is neither an agent key nor a JWT: %w", ErrUnauthenticated)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", fmt.Errorf("the token's payload is not base64url: %w", ErrUnauthenticated)
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", fmt.Errorf("the token's payload is not a JSON object: %w", ErrUnauthenticated)
	}
	return claims.Issuer, nil
}

func (i *issuer) verify(ctx context.Context, token string) (Subject, time.Time, error) {
	none := time.Time{}
	verifier, err := i.discover(ctx)
	if err != nil {
		return Subject{}, none, err
	}
	t, err := verifier.Verify(oidc.ClientContext(ctx, i.client), token)
	if err != nil {
		// go-oidc does not tell a bad signature from keys that cannot be
		// fetched; both deny, and the chain says which for the operator.
		return Subject{}, none, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	var claims map[string]any
	var raw json.RawMessage
	if err := errors.Join(t.Claims(&claims), t.Claims(&raw)); err != nil {
		return Subject{}, none, fmt.Errorf("read claims: %w: %w", ErrUnauthenticated, err)
	}
	s := Subject{Method: MethodJWT, Level: LevelProven, Claims: raw, SubjectClaim: i.SubjectClaim}
	if acr, ok := claims["acr"].(string); ok {
		s.Level = max(s.Level, i.Levels[acr])
	}
	if at, ok := claims["auth_time"].(float64); ok && at > 0 && at < 1<<40 {
		s.Authenticated = time.Unix(int64(at), 0)
	}
	if s.Agent, _ = claims[i.AgentClaim].(string); !agentID.MatchString(s.Agent) {
		return Subject{}, none, fmt.Errorf("claim %q does not name an agent: %w", i.AgentClaim, ErrUnauthenticated)
	}
	if i.SubjectClaim != "" {
		s.For, _ = claims[i.SubjectClaim].(string)
	}
	if i.GroupsClaim != "" {
		if s.Groups, err = groups(claims[i.GroupsClaim]); err != nil {
			return Subject{}, none, fmt.Errorf("claim %q: %w", i.GroupsClaim, err)
		}
	}
	return s, t.Expiry, nil
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

// discover returns the verifier, asking the issuer for its metadata first if
// nobody has yet. It returns when ctx ends, whatever the issuer does.
func (i *issuer) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	if v := i.verifier.Load(); v != nil {
		return v, nil
	}
	select {
	case r := <-i.flight.DoChan("", i.ask):
		v, _ := r.Val.(*oidc.IDTokenVerifier)
		return v, r.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("discover issuer %s: %w", i.Issuer.Issuer, ctx.Err())
	}
}

// ask does the discovery. One call runs at a time.
func (i *issuer) ask() (any, error) {
	if f := i.failed.Load(); f != nil && time.Since(f.at) < discoveryRetry {
		return nil, f.err
	}
	// The provider keeps this context for later key fetches, so it must not be
	// that of one request; the client's timeout bounds each fetch.
	ctx := oidc.ClientContext(context.Background(), i.client)
	provider, err := oidc.NewProvider(ctx, i.Issuer.Issuer)
	if err != nil {
		err = fmt.Errorf("discover issuer %s: %w", i.Issuer.Issuer, err)
		i.failed.Store(&failure{err, time.Now()})
		return nil, err
	}
	v := provider.Verifier(&oidc.Config{ClientID: i.Audience, SupportedSigningAlgs: algorithms, Now: i.now})
	i.verifier.Store(v)
	return v, nil
}
