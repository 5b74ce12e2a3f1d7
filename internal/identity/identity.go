// Package identity turns a credential into a verified subject.
package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// ErrUnauthenticated is wrapped by an error of [Verifier.Verify] when the
// credential proves nobody. Any other error but a [*BarredError] means that it
// could not be checked. All of them deny.
var ErrUnauthenticated = errors.New("unauthenticated")

// A BarredError says that an agent was proven, and may not act whatever policy
// says.
type BarredError struct {
	// Agent is who may not act: the acting agent, or one of its chain.
	Agent string
	// State is why: suspended, retired, or empty for an agent that the registry
	// does not know where it has to.
	State State
}

func (e *BarredError) Error() string {
	if e.State == "" {
		return fmt.Sprintf("agent %q is not registered", e.Agent)
	}
	return fmt.Sprintf("agent %q is %s", e.Agent, e.State)
}

// A Subject is who a credential was proven to be.
type Subject struct {
	// Agent is the acting agent's id.
	Agent string
	// Groups are the groups it is in, sorted: those of the registry, and those
	// that its issuer names.
	Groups []string
	// For names the person the agent acts for; empty when nobody is named.
	For string
	// Chain are the agents that have handed the task on, the latest first (RFC
	// 8693 §4.1): what the acting agent may do, each of them must be permitted
	// too. Of these only Agent and what the registry says of them are set.
	Chain []Subject
	// Method says how it was proven: one of the Method constants.
	Method string
	// Level is how strongly it was authenticated: 0 not at all, [LevelProven] by
	// any credential, more by what an issuer's acr says ([Issuer.Levels]).
	Level int64
	// Authenticated is when a person last did so (auth_time). Zero: not known.
	Authenticated time.Time
	// Scopes are the scopes of the token (RFC 9068 §2.2.3), sorted.
	Scopes []string
	// ACR are the values of acr that an issuer of this kind of token stands for a
	// level with, for telling a client what to ask for. Nil for what is no token.
	ACR map[string]int64
	// Expires is when the token ends. Zero for what is no token.
	Expires time.Time
	// Bound is what the token is bound to. Zero: to nothing.
	Bound Binding
	// MayAct is the agent that may exchange this token (RFC 8693 §4.4). Empty:
	// the token does not say.
	MayAct string
	// Claims are the verified claims of the token, a JSON object. Empty for what
	// is no token.
	Claims json.RawMessage
	// SubjectClaim is the claim that names the person (For); empty: none does.
	SubjectClaim string

	// Registered, State, Owner, Purpose and Model are what the registry says.
	Registered            bool
	State                 State
	Owner, Purpose, Model string
}

// Reaching are the values of acr that stand for a level or more, the weakest
// first; nil if its issuer has none.
func (s *Subject) Reaching(level int64) []string {
	var out []string
	for acr, l := range s.ACR {
		if l >= level {
			out = append(out, acr)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(s.ACR[a], s.ACR[b]), cmp.Compare(a, b)) })
	return out
}

// The methods of proof.
const (
	MethodKey       = "key"
	MethodJWT       = "jwt"
	MethodLocal     = "local"
	MethodAnonymous = "anonymous"
	// MethodAsserted: an enforcement point says so.
	MethodAsserted = "asserted"
	// MethodDPoP: a JWT and proof of the key that it is bound to (RFC 9449).
	MethodDPoP = "dpop"
	// MethodMTLS: a JWT over TLS with the certificate that it is bound to (RFC
	// 8705 §3), or a certificate of the registry.
	MethodMTLS = "mtls"
	// MethodJWTSVID and MethodX509SVID: a SPIFFE Verifiable Identity Document.
	MethodJWTSVID  = "jwt-svid"
	MethodX509SVID = "x509-svid"
)

// LevelProven is the level of every credential that proves an agent and says
// no more.
const LevelProven = 1

// DefaultChain is how many agents a chain may have, the acting one included.
const DefaultChain = 4

// Config configures a [Verifier].
type Config struct {
	// Agents is the registry of agents. Required.
	Agents *Registry
	// Issuers are the issuers whose JWTs are accepted.
	Issuers []Issuer
	// SPIFFE accepts the workloads of a trust domain. Nil: none.
	SPIFFE *SPIFFE
	// Anonymous is the agent that a caller without any credential acts as.
	// Empty: such a caller is refused.
	Anonymous string
	// RegisteredOnly refuses agents that the registry does not know, whoever
	// has proven them.
	RegisteredOnly bool
	// MaxChain is how many agents a chain of delegation may have. Default
	// [DefaultChain].
	MaxChain int
	// Client fetches the issuers' keys. Default: a client with a 5 s timeout.
	Client *http.Client
	// Replays is how many proofs of possession are remembered. Default 200,000,
	// about 40 MB.
	Replays int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Verifier verifies credentials. It is safe for concurrent use.
type Verifier struct {
	agents         atomic.Pointer[Registry]
	issuers        map[string]*issuer
	spiffe         *SPIFFE
	proofs         *replays
	anonymous      string
	registeredOnly bool
	now            func() time.Time
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
	if c.MaxChain <= 0 {
		c.MaxChain = DefaultChain
	}
	if c.Client == nil {
		c.Client = &http.Client{Timeout: 5 * time.Second}
	}
	if c.SPIFFE != nil {
		if err := c.SPIFFE.check(); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
	}
	v := &Verifier{
		issuers: map[string]*issuer{}, spiffe: c.SPIFFE, proofs: newReplays(c.Replays),
		anonymous: c.Anonymous, registeredOnly: c.RegisteredOnly, now: c.Now,
	}
	v.agents.Store(c.Agents)
	for _, i := range c.Issuers {
		if err := i.Check(); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		if v.issuers[i.Issuer] != nil {
			return nil, fmt.Errorf("identity: issuer %s is configured twice", i.Issuer)
		}
		v.issuers[i.Issuer] = newIssuer(i, c)
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

// Asserted is the agent that an enforcement point names. It has shown nothing
// itself, so its level is 0. A [*BarredError] comes with the subject.
func (v *Verifier) Asserted(agent string) (Subject, error) {
	if !agentID.MatchString(agent) {
		return Subject{}, fmt.Errorf("the subject's id cannot be an agent's: %w", ErrUnauthenticated)
	}
	return v.admit(v.agents.Load(), Subject{Agent: agent, Method: MethodAsserted})
}

// Verify proves who showed the credential. An error that wraps
// [ErrUnauthenticated] says that it proves nobody; a [*BarredError] comes with
// the subject that was proven and may not act.
func (v *Verifier) Verify(ctx context.Context, cred authz.Credential) (Subject, error) {
	agents := v.agents.Load()
	s, err := v.prove(ctx, agents, cred)
	if err == nil && cred.OnBehalf != "" {
		s, err = v.exchanged(ctx, s, cred)
	}
	if err != nil {
		return Subject{}, err
	}
	return v.admit(agents, s)
}

// prove finds out who it is, without what the registry says of it.
func (v *Verifier) prove(ctx context.Context, agents *Registry, cred authz.Credential) (Subject, error) {
	switch cred.Kind {
	case authz.CredentialNone:
		if v.anonymous == "" {
			return Subject{}, fmt.Errorf("no credential was given: %w", ErrUnauthenticated)
		}
		return Subject{Agent: v.anonymous, Method: MethodAnonymous}, nil
	case authz.CredentialLocal:
		if cred.Value == "" {
			return Subject{}, fmt.Errorf("no agent was named: %w", ErrUnauthenticated)
		}
		return Subject{Agent: cred.Value, Method: MethodLocal, Level: LevelProven}, nil
	case authz.CredentialBearer:
		if isKey(cred.Value) {
			return agents.byKey(cred.Value, v.now())
		}
		return v.byToken(ctx, agents, cred)
	case authz.CredentialDPoP:
		return v.byToken(ctx, agents, cred)
	case authz.CredentialCertificate:
		return v.byCertificate(agents, cred.Certificates)
	default:
		return Subject{}, fmt.Errorf("credentials of kind %q are not accepted: %w", cred.Kind, ErrUnauthenticated)
	}
}

// admit adds what the registry says, and refuses agents that may not act.
func (v *Verifier) admit(agents *Registry, s Subject) (Subject, error) {
	// For whom the agent acts may be an agent too, of whom its issuer does not say
	// so. It is one that has handed the task on, and must be permitted.
	if _, agent := agents.byID[s.For]; agent && !slices.ContainsFunc(s.Chain, func(a Subject) bool { return a.Agent == s.For }) && s.For != s.Agent {
		s.Chain = append(slices.Clip(s.Chain), Subject{Agent: s.For})
	}
	agents.describe(&s)
	if err := v.barred(&s); err != nil {
		return s, err
	}
	for i := range s.Chain {
		if err := v.barred(&s.Chain[i]); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (v *Verifier) barred(s *Subject) error {
	switch {
	case s.State == StateSuspended || s.State == StateRetired:
		return &BarredError{Agent: s.Agent, State: s.State}
	case v.registeredOnly && !s.Registered:
		return &BarredError{Agent: s.Agent}
	default:
		return nil
	}
}
