// Package pdp is the policy decision point: one pipeline that verifies,
// decides and records each request.
package pdp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// A PolicySource says which version decides for a session. Reloads and
// rollouts live behind it, so the pipeline does not know that they exist.
type PolicySource interface {
	// Version returns the version, or nil when none can be used.
	Version(session string) *Version
}

// A Version is everything that decides: the policies, and the catalogue that
// types their requests. It is immutable.
type Version struct {
	Catalog *catalog.Catalog
	Program *engine.Program
}

// Digest is the content address of the version.
func (v *Version) Digest() string { return v.Program.Set().Digest() }

// Config configures a [PDP]. All but Observe, Deadline and Now are required.
type Config struct {
	Identity *identity.Verifier
	Sessions *session.Tracker
	Policies PolicySource
	Log      *audit.Log
	// Observe lets through what policy denies, on the record. It never lets
	// through an unverified caller or an unrecorded action.
	Observe bool
	// Deadline bounds one decision. Default 5 s.
	Deadline time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A PDP decides requests. It is safe for concurrent use.
type PDP struct {
	Config
}

var _ pep.Decider = (*PDP)(nil)

// New returns a PDP.
func New(c Config) (*PDP, error) {
	if c.Identity == nil || c.Sessions == nil || c.Policies == nil || c.Log == nil {
		return nil, errors.New("pdp: identity, sessions, policies and log are all required")
	}
	if c.Deadline <= 0 {
		c.Deadline = 5 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &PDP{Config: c}, nil
}

// Decide decides one request. The decision is durably recorded when it
// returns. An error is a fault of the plane, never of the request, and comes
// with a denial.
func (p *PDP) Decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Deadline)
	defer cancel()
	c := p.open(req)
	defer c.close()

	// Who is asking?
	who, err := p.Identity.Verify(ctx, req.Credential)
	if errors.Is(err, identity.ErrUnauthenticated) {
		return c.deny(ctx, authz.ReasonUnauthenticated, "The credential does not prove who is asking.", nil)
	}
	if err != nil {
		return c.deny(ctx, authz.ReasonIdentityDown, "Who is asking could not be checked; try again later.", err)
	}
	c.identified(who)

	// In what session?
	c.visit, err = p.Sessions.Enter(ctx, c.session, who.Agent, c.now)
	if errors.Is(err, session.ErrOwner) {
		return c.deny(ctx, authz.ReasonSessionMismatch, "The session belongs to another agent.", nil)
	}
	if err != nil {
		return c.deny(ctx, authz.ReasonSessionDown, "The state of the session could not be read; try again later.", err)
	}
	c.entered()

	// What would it do?
	v := p.Policies.Version(c.session)
	if v == nil {
		return c.deny(ctx, authz.ReasonPolicyUnavailable, "No policies are in force.", nil)
	}
	op, ok := v.Catalog.Operation(req.Action)
	c.resolved(v, op)
	if !ok {
		return c.withhold(ctx, authz.ReasonToolUnknown, quoted(req.Action)+" is not in the catalogue; an operator has to pin it.")
	}
	if req.Definition != "" && req.Definition != op.Digest {
		return c.withhold(ctx, authz.ReasonToolChanged, quoted(req.Action)+" has changed since it was pinned; an operator has to review it.")
	}
	q, err := v.Request(who, c.visit.Snapshot, op, c.req, c.now)
	if err != nil {
		return c.withhold(ctx, authz.ReasonInputInvalid, sentence(err))
	}
	c.typed(q)

	// What does policy say?
	answer := v.Program.Authorize(q)
	c.judged(answer)

	// Write it down, then answer.
	if !answer.Allow {
		return c.withhold(ctx, answer.Code, denialMessage(answer.Code, req.Action))
	}
	return c.release(ctx)
}

// Reachable implements [pep.Decider].
func (p *PDP) Reachable(ctx context.Context, req authz.Request, ops []pep.Operation) ([]bool, error) {
	reach := make([]bool, len(ops))
	who, err := p.Identity.Verify(ctx, req.Credential)
	if err != nil {
		return reach, fmt.Errorf("verify credential: %w", err)
	}
	v := p.Policies.Version(sessionID(req, who.Agent))
	if v == nil {
		return reach, errors.New("no policies are in force")
	}
	for i, o := range ops {
		reach[i] = p.Observe || v.reachable(who, req, o)
	}
	return reach, nil
}

// Report implements [pep.Decider].
func (p *PDP) Report(_ context.Context, out authz.Outcome) error {
	switch out.Status {
	case authz.OutcomeSuccess, authz.OutcomeError, authz.OutcomeAmbiguous, authz.OutcomeNotRun:
	default:
		return fmt.Errorf("report outcome of %s: unknown status %q", out.Decision, out.Status)
	}
	err := p.Log.Post(audit.Record{
		Kind: audit.KindOutcome, Time: p.Now(), Decision: out.Decision, Effect: string(out.Status),
		Outcome: &audit.Outcome{Status: out.Status, Bytes: out.Bytes, Error: clip(out.Error, 512)},
	})
	if err != nil {
		return fmt.Errorf("report outcome of %s: %w", out.Decision, err)
	}
	return nil
}

// newID returns an identifier with 130 random bits, lower case.
func newID() string { return strings.ToLower(rand.Text()) }

func denialMessage(code, action string) string {
	switch code {
	case authz.ReasonForbidden:
		return "A policy forbids " + quoted(action) + " here."
	case authz.ReasonPolicyError:
		return "A policy for " + quoted(action) + " could not be evaluated."
	default:
		return "No policy permits " + quoted(action) + " here."
	}
}

// quoted makes a caller's string safe to repeat in a message: short, and
// without control characters.
func quoted(s string) string { return fmt.Sprintf("%q", clip(s, 128)) }

// sentence makes an error fit to be read by an agent.
func sentence(err error) string {
	s := clip(err.Error(), 400)
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// clip cuts s to at most n bytes, at a rune's boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
