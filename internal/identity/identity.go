// Package identity turns a credential into a verified subject.
package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// ErrUnauthenticated is wrapped by an error of [Verifier.Verify] when the
// credential proves nobody. Any other error means that it could not be
// checked. Both deny.
var ErrUnauthenticated = errors.New("unauthenticated")

// A Subject is who a credential was proven to be.
type Subject struct {
	// Agent is the acting agent's id.
	Agent string
	// Groups are the groups it is in, sorted.
	Groups []string
	// For names the person the agent acts for; empty when nobody is named.
	For string
	// Method says how it was proven: "key", "jwt", "local", "anonymous" or
	// "asserted".
	Method string
	// Level is how strongly it was authenticated: 0 not at all, [LevelProven] by
	// any credential, more by what an issuer's acr says ([Issuer.Levels]).
	Level int64
	// Authenticated is when a person last did so (auth_time). Zero: not known.
	Authenticated time.Time
	// Claims are the verified claims of the token, a JSON object. Empty for what
	// is no token.
	Claims json.RawMessage
	// SubjectClaim is the claim that names the person (For); empty: none does.
	SubjectClaim string
}

// The methods of proof.
const (
	MethodKey       = "key"
	MethodJWT       = "jwt"
	MethodLocal     = "local"
	MethodAnonymous = "anonymous"
	// MethodAsserted: an enforcement point says so.
	MethodAsserted = "asserted"
)

// LevelProven is the level of every credential that proves an agent and says
// no more.
const LevelProven = 1

// Config configures a [Verifier].
type Config struct {
	// Agents is the registry of agents. Required.
	Agents *Registry
	// Issuers are the OIDC issuers whose JWTs are accepted.
	Issuers []Issuer
	// Anonymous is the agent that a caller without any credential acts as.
	// Empty: such a caller is refused.
	Anonymous string
	// Client fetches the issuers' keys. Default: a client with a 5 s timeout.
	Client *http.Client
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Verifier verifies credentials. It is safe for concurrent use.
type Verifier struct {
	agents    atomic.Pointer[Registry]
	issuers   map[string]*issuer
	anonymous string
}

// New returns a Verifier. It contacts no issuer: discovery happens at the
// first token, so that an issuer that is down delays nothing but its own
// tokens.
func New(c Config) (*Verifier, error) {
	if c.Agents == nil {
		return nil, errors.New("identity: no agent registry")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	v := &Verifier{issuers: map[string]*issuer{}, anonymous: c.Anonymous}
	v.agents.Store(c.Agents)
	for _, i := range c.Issuers {
		if i.Issuer == "" || i.Audience == "" || i.AgentClaim == "" {
			return nil, fmt.Errorf("identity: issuer %q needs an issuer, an audience and an agent claim", i.Issuer)
		}
		if v.issuers[i.Issuer] != nil {
			return nil, fmt.Errorf("identity: issuer %s is configured twice", i.Issuer)
		}
		v.issuers[i.Issuer] = newIssuer(i, c.Client, c.Now)
	}
	return v, nil
}

// Publish replaces the registry of agents for all later verifications.
func (v *Verifier) Publish(r *Registry) { v.agents.Store(r) }

// PEP proves which enforcement point showed the credential. An error that wraps
// [ErrUnauthenticated] says that it proves none. The result must not be
// modified.
func (v *Verifier) PEP(cred authz.Credential) (*PEP, error) {
	if cred.Kind != authz.CredentialBearer || !isKey(cred.Value) {
		return nil, fmt.Errorf("an enforcement point shows its key as a bearer token: %w", ErrUnauthenticated)
	}
	return v.agents.Load().pepByKey(cred.Value)
}

// Asserted is the agent that an enforcement point names.
func (v *Verifier) Asserted(agent string) (Subject, error) {
	if !agentID.MatchString(agent) {
		return Subject{}, fmt.Errorf("the subject's id cannot be an agent's: %w", ErrUnauthenticated)
	}
	return v.agents.Load().asserted(agent), nil
}

// Verify proves who showed the credential. An error that wraps
// [ErrUnauthenticated] says that it proves nobody.
func (v *Verifier) Verify(ctx context.Context, cred authz.Credential) (Subject, error) {
	agents := v.agents.Load()
	switch cred.Kind {
	case authz.CredentialNone:
		if v.anonymous == "" {
			return Subject{}, fmt.Errorf("no credential was given: %w", ErrUnauthenticated)
		}
		return agents.named(v.anonymous, MethodAnonymous), nil
	case authz.CredentialLocal:
		if cred.Value == "" {
			return Subject{}, fmt.Errorf("no agent was named: %w", ErrUnauthenticated)
		}
		return agents.named(cred.Value, MethodLocal), nil
	case authz.CredentialBearer:
		if isKey(cred.Value) {
			return agents.byKey(cred.Value)
		}
		return v.byToken(ctx, cred.Value)
	default:
		return Subject{}, fmt.Errorf("credentials of kind %q are not accepted: %w", cred.Kind, ErrUnauthenticated)
	}
}
