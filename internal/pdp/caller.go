package pdp

import (
	"context"
	"errors"
	"fmt"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// errAssertion is wrapped when an enforcement point says what it may not say.
var errAssertion = errors.New("the enforcement point may not say this")

// agentType is the type of an agent, for enforcement points and in policy.
const agentType = "Agent"

// A Caller is who asks.
type Caller struct {
	// Subject is who acts. For a subject that is no agent only Method is set.
	identity.Subject
	// PEP is the enforcement point that asks. Nil: a gate of this process.
	PEP *identity.PEP
	// Asserted is the subject as the PEP names it. Zero: the agent itself.
	Asserted authz.Entity
}

// entity is the acting subject as records name it.
func (c *Caller) entity() authz.Entity {
	if c.Asserted.IsZero() {
		return authz.Entity{Type: agentType, ID: c.Agent}
	}
	return authz.Entity{Type: c.PEP.Application + "::" + c.Asserted.Type, ID: c.Asserted.ID}
}

func (c *Caller) application() string {
	if c.PEP == nil {
		return ""
	}
	return c.PEP.Application
}

// identify proves who asks, and for whom. An error that wraps
// identity.ErrUnauthenticated or errAssertion is the caller's fault, any other
// one ours.
func (p *PDP) identify(ctx context.Context, req authz.Request) (Caller, error) {
	asserted := authz.Entity{}
	if req.Asserted != nil {
		asserted = req.Asserted.Subject
	}
	if req.PEP.Kind == authz.CredentialNone {
		if !asserted.IsZero() {
			return Caller{}, fmt.Errorf("a subject is named, and no PEP that could name it: %w", errAssertion)
		}
		who, err := p.Identity.Verify(ctx, req.Credential)
		return Caller{Subject: who}, err
	}
	pep, err := p.Identity.PEP(req.PEP)
	if err != nil {
		return Caller{}, err
	}
	if asserted.IsZero() {
		who, err := p.relayed(ctx, pep, req.Credential)
		return Caller{Subject: who, PEP: pep}, err
	}
	return p.named(pep, asserted)
}

// barredCode is the reason of an agent that is proven and may not act, or empty
// if that is not what the error says.
func barredCode(err error) string {
	var barred *identity.BarredError
	switch {
	case !errors.As(err, &barred):
		return ""
	case barred.State == identity.StateSuspended:
		return authz.ReasonAgentSuspended
	case barred.State == identity.StateRetired:
		return authz.ReasonAgentRetired
	default:
		return authz.ReasonAgentUnknown
	}
}

// named is a subject that a PEP names.
func (p *PDP) named(pep *identity.PEP, subject authz.Entity) (Caller, error) {
	c := Caller{PEP: pep}
	if !pep.SpeaksFor(subject.Type) {
		return c, fmt.Errorf("PEP %s does not speak for subjects of type %q: %w", pep.ID, clip(subject.Type, 128), errAssertion)
	}
	if subject.Type != agentType {
		c.Subject, c.Asserted = identity.Subject{Method: identity.MethodAsserted}, subject
		return c, nil
	}
	var err error
	c.Subject, err = p.Identity.Asserted(subject.ID)
	return c, err
}

// relayed verifies the credential of an agent that a PEP passes on.
func (p *PDP) relayed(ctx context.Context, pep *identity.PEP, cred authz.Credential) (identity.Subject, error) {
	switch {
	case !pep.Relays:
		return identity.Subject{}, fmt.Errorf("PEP %s may not pass credentials of agents on: %w", pep.ID, errAssertion)
	case cred.Kind == authz.CredentialLocal:
		return identity.Subject{}, fmt.Errorf("PEP %s names an agent that nobody has proven: %w", pep.ID, errAssertion)
	}
	return p.Identity.Verify(ctx, cred)
}
