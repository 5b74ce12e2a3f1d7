package identity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// exchanged is who an agent is that has been handed a task with a token, and
// shows that token beside its own credential (RFC 8693 §2.1): the acting agent,
// for the person of the token, after the agents that had the task before.
//
// The token is shown without proof of what it is bound to, since its holder is
// not the one who asks. So one that is bound is taken from another agent only if
// it says which agent that may be.
func (v *Verifier) exchanged(ctx context.Context, client Subject, cred authz.Credential) (Subject, error) {
	if cred.OnBehalf == cred.Value {
		return client, nil // its own token, which it has just proven
	}
	claimed, err := peek(cred.OnBehalf)
	if err != nil {
		return Subject{}, fmt.Errorf("the subject token: %w", err)
	}
	s, i, err := v.token(ctx, cred.OnBehalf, claimed)
	if err != nil {
		return Subject{}, fmt.Errorf("the subject token: %w", err)
	}
	switch {
	case len(client.Chain) > 0:
		return Subject{}, fmt.Errorf("who asks is not the agent itself but acts for others already: %w", ErrUnauthenticated)
	case s.MayAct != "" && s.MayAct != client.Agent:
		return Subject{}, fmt.Errorf("the subject token is for another agent to act on: %w", ErrUnauthenticated)
	case s.MayAct == "" && !s.Bound.IsZero() && !v.holds(cred, client, s.Bound):
		return Subject{}, fmt.Errorf("the subject token is bound to somebody else: %w", ErrUnauthenticated)
	}
	out := s
	out.Groups, out.Method, out.Bound, out.MayAct = nil, client.Method, client.Bound, ""
	if s.Agent == client.Agent {
		out.Groups = s.Groups
	} else {
		out.Agent = client.Agent
		out.Chain = append([]Subject{{Agent: s.Agent}}, s.Chain...)
	}
	if len(out.Chain) >= i.maxChain {
		return Subject{}, fmt.Errorf("the task was handed on by more than %d agents: %w", i.maxChain, ErrUnauthenticated)
	}
	if !client.Expires.IsZero() && client.Expires.Before(out.Expires) {
		out.Expires = client.Expires
	}
	return out, nil
}

// holds reports whether who asks has proven what a token is bound to.
func (v *Verifier) holds(cred authz.Credential, client Subject, b Binding) bool {
	if b.Certificate != "" {
		leaf, _, err := certificates(cred.Certificates)
		if err != nil || !same(Thumbprint(leaf.Raw), b.Certificate) {
			return false
		}
	}
	if b.Key == "" || client.Bound.Key == b.Key {
		return true
	}
	key, err := v.ProvenKey(cred)
	return err == nil && same(key, b.Key)
}

// ProvenKey is the thumbprint of the key that a request for a token proves (RFC
// 9449 §5); a proof is good for one exchange. Empty, without an error, if there
// is no proof.
func (v *Verifier) ProvenKey(cred authz.Credential) (string, error) {
	if cred.Proof == "" {
		return "", nil
	}
	p, err := readProof(cred.Proof)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	now := v.now()
	if err := p.fitsRequest(cred, now); err != nil {
		return "", fmt.Errorf("the DPoP proof: %w: %w", ErrUnauthenticated, err)
	}
	return p.thumbprint, v.once(p, cred.Exchange, now)
}

// once takes a proof that nobody has shown before.
func (v *Verifier) once(p *dpopProof, exchange string, now time.Time) error {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s", p.thumbprint, p.JTI)
	return v.proofs.take([sha256.Size]byte(sum.Sum(nil)), exchange, now, now.Add(proofAge+proofAhead))
}
