// Package pdp is the policy decision point: one pipeline that verifies,
// decides and records each request.
package pdp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/provenance"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
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
	// Scorecard weighs the signals of risk. Nil: the default one does.
	Scorecard *risk.Scorecard

	mappings map[string]*coaz.Mapping // that tools of bound servers declare
}

// Digest is the content address of the version.
func (v *Version) Digest() string { return v.Program.Set().Digest() }

// An EntitySource (PIP) supplies what is known of agents, groups, users and
// resources. A decision looks at one view from beginning to end.
type EntitySource interface {
	View() EntityView
}

// An EntityView is what is known at one moment.
type EntityView interface {
	// World is what is held in memory; never nil.
	World() *engine.World
	// Lookup reports whether entities of a type are looked up for each request.
	Lookup(t types.EntityType) bool
	// Fetch looks up what policies may look at from these entities and the World
	// does not hold. One that nobody knows is not in the result; an error means
	// that a source could not say.
	Fetch(ctx context.Context, uids ...types.EntityUID) (types.EntityMap, error)
	// List returns the entities of a type whose ids come after one, in their
	// order, at most limit.
	List(ctx context.Context, t types.EntityType, after string, limit int) ([]types.EntityUID, error)
}

// A Recorder makes records durable: the log of this node, or a store that
// several nodes share. It keeps nothing of a record when it has returned.
type Recorder interface {
	// Append makes one record durable before it returns.
	Append(ctx context.Context, r audit.Record) (audit.Receipt, error)
	// Post queues a record that nobody waits for.
	Post(r audit.Record) error
}

// Config configures a [PDP]. Identity, Sessions, Policies and Log are required.
type Config struct {
	Identity *identity.Verifier
	Sessions *session.Tracker
	Policies PolicySource
	Log      Recorder
	// Entities is the PIP. Nil: nothing is known but what the credential proves
	// and the request says.
	Entities EntitySource
	// Breakers stop what keeps failing. Nil: there are none.
	Breakers *breaker.Book
	// Budgets count what is used up. Nil: there are none.
	Budgets *budget.Ledger
	// Suspensions say what is suspended. Nil: nothing ever is.
	Suspensions *revoke.Authority
	// Risk knows the habits of the agents. Nil: it begins with none.
	Risk *risk.Tracker
	// Elevations are the groups that a remedy may offer membership of.
	Elevations []string
	// MaxInFlight bounds how many decisions may be under way. More are refused
	// at once, and counted on the record. Default 4096.
	MaxInFlight int
	// Observe lets through what policy denies, on the record. It never lets
	// through an unverified caller or an unrecorded action.
	Observe bool
	// Logger is told of what must not happen. Default: nobody is.
	Logger *slog.Logger
	// Observer is told of every decision. May be nil.
	Observer Observer
	// Provenance is what the sessions have seen. Default: a book of its own, of
	// the default size.
	Provenance *provenance.Book
	// Deadline bounds one decision. Default 5 s.
	Deadline time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A PDP decides requests. It is safe for concurrent use.
type PDP struct {
	Config
	elevations []types.EntityUID
	inFlight   atomic.Int64
	refused    refusals
	shortcuts  shortcuts
	awaited    *awaited
}

var (
	_ pep.Decider  = (*PDP)(nil)
	_ pep.Searcher = (*PDP)(nil)
)

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
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 4096
	}
	if c.Risk == nil {
		c.Risk = risk.New()
	}
	if c.Entities == nil {
		c.Entities = nothing{}
	}
	if c.Provenance == nil {
		c.Provenance = provenance.NewBook(provenance.BookConfig{Seed: maphash.MakeSeed()})
	}
	p := &PDP{Config: c, awaited: newAwaited()}
	for _, g := range c.Elevations {
		p.elevations = append(p.elevations, types.NewEntityUID("Group", types.String(g)))
	}
	return p, nil
}

// Decide decides one request. The decision is durably recorded when it
// returns. An error is a fault of the plane, never of the request, and comes
// with a denial.
func (p *PDP) Decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Deadline)
	defer cancel()
	c := p.open(req)
	defer c.close()

	// Is there room to decide it?
	if p.inFlight.Add(1) > int64(p.MaxInFlight) {
		p.inFlight.Add(-1)
		return p.refuse(req)
	}
	defer p.inFlight.Add(-1)

	// Who is asking, and for whom?
	who, err := p.identify(ctx, req)
	switch {
	case errors.Is(err, identity.ErrUnauthenticated):
		return c.deny(ctx, authz.ReasonUnauthenticated, "The credential does not prove who is asking.", nil)
	case errors.Is(err, errAssertion):
		return c.deny(ctx, authz.ReasonAssertion, sentence(err), nil)
	case barredCode(err) != "":
		c.identified(who)
		return c.deny(ctx, barredCode(err), sentence(err), nil)
	case err != nil:
		return c.deny(ctx, authz.ReasonIdentityDown, "Who is asking could not be checked; try again later.", err)
	}
	c.identified(who)

	// In what session?
	c.visit, err = p.Sessions.Enter(ctx, c.session, owner(c.record.Who.Subject), c.now)
	if errors.Is(err, session.ErrOwner) {
		return c.deny(ctx, authz.ReasonSessionMismatch, "The session belongs to another agent.", nil)
	}
	if err != nil {
		return c.deny(ctx, authz.ReasonSessionDown, "The state of the session could not be read; try again later.", err)
	}
	c.entered()

	// What would it do, and to what?
	v := p.Policies.Version(c.session)
	if v == nil {
		return c.deny(ctx, authz.ReasonPolicyUnavailable, "No policies are in force.", nil)
	}
	op, ok := v.Catalog.Find(who.application(), req.Action)
	c.resolved(v, op)

	// Is any of it suspended?
	if why := c.suspended(); why != nil {
		return c.stop(ctx, why)
	}
	if !ok {
		return c.withhold(ctx, authz.ReasonToolUnknown, quoted(req.Action)+" is not in the catalogue; an operator has to pin it.")
	}
	if req.Definition != "" && req.Definition != op.Digest {
		return c.withhold(ctx, authz.ReasonToolChanged, quoted(req.Action)+" has changed since it was pinned; an operator has to review it.")
	}

	// Does it keep failing?
	if message, ok := c.admitted(); !ok {
		return c.withhold(ctx, authz.ReasonBreakerOpen, message)
	}
	view := p.view()
	c.trace(op)
	q, named, err := v.question(who, c.visit.Snapshot, &c.origins, op, c.req, view.World(), c.now, c.memory)
	if err != nil {
		return c.withhold(ctx, authz.ReasonInputInvalid, sentence(err))
	}
	c.typed(q)

	// How risky is it?
	c.appraise(v, q)

	// Would what has to be looked up make a difference?
	short := p.shortcut(v, view, q, named, c.req)
	answer := short.answer
	if short.taken {
		c.scope = append(c.scope, revoke.UnknownGroups())
	} else {
		// What is known of them, and what does the PEP say?
		if err := inform(ctx, q, view, named); err != nil {
			return c.deny(ctx, authz.ReasonEntitiesDown, "What is known of the subject and the resource could not be read; try again later.", err)
		}
		if err := v.fill(q, who, c.req); err != nil {
			return c.refuseToBelieve(ctx, err)
		}
		c.timed(StepEntities)
		if why := c.grouped(q); why != nil {
			return c.stop(ctx, why)
		}

		// What does policy say?
		answer = v.Program.Authorize(q)
		p.check(short, answer, c.record.Decision)
	}
	if len(who.Chain) > 0 {
		// May those who have handed the task on do it too?
		if answer, q, err = c.handedOn(ctx, v, view, who, op, answer, q); err != nil {
			return c.unmapped(ctx, err)
		}
	}
	if answer.Allow {
		// And what does the server's own mapping ask?
		var asked *engine.Request
		if answer, asked, err = c.mapped(ctx, v, view, who, op, answer); err != nil {
			return c.unmapped(ctx, err)
		}
		if asked != nil {
			q = asked
		}
	}
	c.judged(answer)
	if !answer.Allow {
		// What would change the answer?
		c.remedied(c.remediesOf(v, q), who.Subject)
		return c.withhold(ctx, answer.Code, c.denialMessage(answer.Code))
	}

	// Is there enough left of what it uses up?
	if why, fault := c.reserve(); why.Code != "" {
		return c.unaffordable(ctx, why, fault)
	}

	// Write it down, then answer.
	return c.release(ctx)
}

// Reachable implements [pep.Decider].
func (p *PDP) Reachable(ctx context.Context, req authz.Request, ops []pep.Operation) ([]bool, error) {
	reach := make([]bool, len(ops))
	who, err := p.identify(ctx, req)
	if err != nil {
		return reach, fmt.Errorf("verify credential: %w", refused(err))
	}
	id := sessionID(req, who.entity())
	switch of, known, err := p.Sessions.Owner(ctx, id); {
	case err != nil:
		return reach, fmt.Errorf("read session: %w", err)
	case known && of != owner(who.entity()):
		return reach, fmt.Errorf("the session is another subject's: %w", pep.ErrRefused)
	}
	v := p.Policies.Version(id)
	if v == nil {
		return reach, errors.New("no policies are in force")
	}
	w := p.view().World()
	for i, o := range ops {
		reach[i] = p.Observe || v.reachableByAll(who, req, o, w)
	}
	p.unsuspended(&who, sessionID(req, who.entity()), req.Server, ops, reach)
	return reach, nil
}

// refused marks an error that is the caller's fault as such.
func refused(err error) error {
	if errors.Is(err, identity.ErrUnauthenticated) || errors.Is(err, errAssertion) || barredCode(err) != "" {
		return fmt.Errorf("%w: %w", pep.ErrRefused, err)
	}
	return err
}

// ReportFrom is Report for a gate in another process, which the credential
// proves. The error wraps [pep.ErrRefused] if it may not report.
func (p *PDP) ReportFrom(ctx context.Context, gate authz.Credential, out authz.Outcome) error {
	e, err := p.Identity.PEP(gate)
	if err == nil && !e.Relays {
		err = fmt.Errorf("PEP %s runs nothing for agents: %w", e.ID, errAssertion)
	}
	if err != nil {
		return fmt.Errorf("report outcome of %s: %w", clip(out.Decision, 128), refused(err))
	}
	return p.Report(ctx, out)
}

// Report implements [pep.Decider].
func (p *PDP) Report(_ context.Context, out authz.Outcome) error {
	switch out.Status {
	case authz.OutcomeSuccess, authz.OutcomeError, authz.OutcomeAmbiguous, authz.OutcomeNotRun:
	default:
		return fmt.Errorf("report outcome of %s: unknown status %q", out.Decision, out.Status)
	}
	p.Breakers.Settle(out.Decision, result(out), p.Now())
	settle(p.Budgets, out.Decision, out.Status, out.Bytes) // before it is on the record: see budget.Ledger
	p.learn(out)
	err := p.Log.Post(audit.Record{
		Kind: audit.KindOutcome, Time: p.Now(), Decision: out.Decision, Effect: string(out.Status),
		Outcome: &audit.Outcome{Status: out.Status, Bytes: out.Bytes, Error: clip(out.Error, 512)},
	})
	if err != nil {
		return fmt.Errorf("report outcome of %s: %w", out.Decision, err)
	}
	return nil
}

// fact is a fact in the words of those who are told of it.
func (p *PDP) fact(f engine.Fact) authz.Fact {
	switch f.Kind {
	case engine.Approval:
		return authz.Fact{Kind: authz.FactApproval, Name: f.Name}
	case engine.StepUp:
		return authz.Fact{Kind: authz.FactLevel, Level: f.Level}
	case engine.FreshAuth:
		return authz.Fact{Kind: authz.FactFresh, MaxAge: f.Level}
	case engine.Scope:
		return authz.Fact{Kind: authz.FactScope, Name: f.Name}
	case engine.Elevation:
		for _, g := range p.elevations {
			if g.String() == f.Name {
				return authz.Fact{Kind: authz.FactElevation, Name: string(g.ID)}
			}
		}
	}
	return authz.Fact{Kind: authz.FactKind(f.Kind), Name: f.Name}
}

// newID returns an identifier with 130 random bits, lower case.
func newID() string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var b [26]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	for i := range b {
		b[i] = letters[b[i]&31]
	}
	return string(b[:])
}

func (c *inquiry) denialMessage(code string) string {
	where := " here."
	if c.refusedBy != "" {
		where = " for " + quoted(c.refusedBy) + ", which has handed the task on."
	}
	switch code {
	case authz.ReasonForbidden:
		return "A policy forbids " + quoted(c.req.Action) + where
	case authz.ReasonPolicyError:
		return "A policy for " + quoted(c.req.Action) + " could not be evaluated."
	default:
		return "No policy permits " + quoted(c.req.Action) + where
	}
}

// quoted makes a caller's string safe to repeat in a message: short, and
// without control characters.
func quoted(s string) string { return strconv.Quote(clip(s, 128)) }

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
