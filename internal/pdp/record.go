package pdp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// discover is the effect of lists and handshakes, which count as no call.
const discover = "discover"

// An inquiry is one decision on its way: what is known so far, which is what the
// record will say.
type inquiry struct {
	p        *PDP
	req      authz.Request
	now      time.Time
	session  string
	visit    *session.Visit
	op       *catalog.Operation
	scope    []authz.Entity // what may be suspended of it
	reserved *budget.Reservation
	call     *breaker.Call
	remedies []authz.Remedy
	// challenge is what another token would have to show.
	challenge *authz.Challenge
	// asked are the questions of a chain, of which refusedBy's was denied.
	asked     []*engine.Request
	refusedBy string
	origins   Origins
	record    audit.Record
	lap       time.Time
	steps     []Step

	// The parts of the record and the question live here, since each decision
	// needs all of them.
	who    audit.Who
	what   audit.What
	why    audit.Why
	room   [8]Step
	named  [8]authz.Entity
	micros map[string]int64
	risk   appraisal
	state  audit.Session
	memory *memory
}

// inquiries are those that have ended. Nobody keeps anything of one that is in
// here: answers are made of what is their own.
var inquiries = sync.Pool{New: func() any {
	return &inquiry{micros: map[string]int64{}, memory: new(memory), risk: appraisal{points: map[string]int64{}}}
}}

func (p *PDP) open(req authz.Request) *inquiry {
	now := p.Now()
	mode := "enforce"
	if p.Observe {
		mode = "observe"
	}
	c := inquiries.Get().(*inquiry)
	*c = inquiry{
		p: p, req: req, now: now, lap: now, session: req.Session, micros: c.micros, memory: c.memory, risk: appraisal{points: c.risk.points, destinations: c.risk.destinations},
		who: audit.Who{Session: req.Session, Gate: req.Gate, Correlation: clip(req.Correlation, 128)},
		// What an unverified caller sends is not kept: it could be anything,
		// and any amount of it.
		what: audit.What{Action: clip(req.Action, 512), Server: req.Server, Definition: req.Definition},
		why:  audit.Why{Mode: mode, Advised: req.Advisory},
	}
	c.steps = c.room[:0]
	c.record = audit.Record{
		Kind: audit.KindDecision, Time: now, Decision: newID(), Effect: "deny", Who: &c.who, What: &c.what, Why: &c.why,
	}
	return c
}

func (c *inquiry) close() {
	if c.visit != nil {
		c.visit.Leave()
	}
	inquiries.Put(c)
}

// timed ends a step.
func (c *inquiry) timed(step string) {
	t := c.p.Now()
	c.steps = append(c.steps, Step{Name: step, Took: t.Sub(c.lap)})
	c.lap = t
}

func (c *inquiry) identified(who Caller) {
	c.timed(StepIdentity)
	w := c.record.Who
	w.Subject = who.entity()
	c.session = sessionID(c.req, w.Subject)
	if who.PEP != nil {
		w.PEP = who.PEP.ID
	}
	w.For, w.Groups, w.Auth, w.Session = who.For, who.Groups, who.Method, c.session
	w.Owner, w.Purpose, w.Model, w.Level, w.Scopes = who.Owner, who.Purpose, who.Model, who.Level, who.Scopes
	if !who.Authenticated.IsZero() {
		w.Authenticated = who.Authenticated.Unix()
	}
	for _, a := range who.Chain {
		w.Chain = append(w.Chain, audit.Actor{ID: a.Agent, Groups: a.Groups, Owner: a.Owner, Purpose: a.Purpose, Model: a.Model})
	}
	c.scope = concerns(c.named[:0], &who, c.session)
	c.record.Input = input(c.req)
	c.record.What.Resource = c.req.Resource
}

// input is what the record keeps of what was asked: the arguments of a tool, or
// all that a PEP said.
func input(req authz.Request) json.RawMessage {
	a := req.Asserted
	if a == nil {
		return req.Input
	}
	parts := [...]struct {
		name string
		raw  json.RawMessage
	}{{"action", a.ActionProperties}, {"context", a.Context}, {"input", req.Input}, {"resource", a.ResourceProperties}, {"subject", a.SubjectProperties}}
	size := 2
	for _, part := range parts {
		size += len(part.raw) + len(`"":,`) + len(part.name)
	}
	b := append(make([]byte, 0, size), '{')
	for _, part := range parts {
		if len(part.raw) == 0 || part.name == "input" && len(a.Context) > 0 {
			continue // the input is a part of the context
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), part.name...), '"', ':')
		b = append(b, part.raw...)
	}
	if len(b) == 1 {
		return nil
	}
	return append(b, '}')
}

// owner is the name under which a subject owns its sessions. No agent's id has
// a slash in it, so an application's subject is never taken for an agent.
func owner(subject authz.Entity) string {
	if subject.Type == agentType {
		return subject.ID
	}
	return subject.Type + "/" + subject.ID
}

// sessionID is the session that the gate named. A request without one belongs
// to a session that all such requests of the agent share, so that what one of
// them has touched binds the others.
func sessionID(req authz.Request, subject authz.Entity) string {
	switch {
	case req.Session != "":
		return req.Session
	case req.Run != "":
		// The name has a length of its own, so that no name and owner are taken
		// for another name and owner.
		sum := sha256.Sum256([]byte(req.Run))
		return "run/" + hex.EncodeToString(sum[:16]) + "/" + owner(subject)
	default:
		return "agent/" + owner(subject)
	}
}

func (c *inquiry) entered() {
	c.timed(StepSession)
	s := c.visit.Snapshot
	c.state = audit.Session{ID: s.ID, Labels: s.Labels, Calls: s.Calls, Denials: s.Denials, Started: s.Started}
	c.record.Why.Session = &c.state
}

func (c *inquiry) resolved(v *Version, op *catalog.Operation) {
	c.op = op
	c.record.Version = v.Digest()
	if op != nil {
		c.record.What.Action = op.Action // by its full name, whatever the PEP calls it
		c.record.What.Definition = op.Digest
		c.record.What.Effects = op.Effects
		if c.req.Server == "" { // a PEP that knows the action need not know the server
			c.req.Server = op.Server
		}
		c.record.What.Server = c.req.Server
	}
	c.scope = touches(c.scope, c.record.What.Action, c.req.Server)
}

func (c *inquiry) typed(q *engine.Request) {
	c.record.What.Resource = authz.Entity{Type: string(q.Resource.Type), ID: string(q.Resource.ID)}
	c.timed(StepCatalog)
}

func (c *inquiry) judged(a engine.Answer) {
	refs := make([]authz.PolicyRef, 0, len(a.Determining)+len(a.Errors))
	for _, d := range a.Determining {
		refs = append(refs, d.Ref())
	}
	for _, e := range a.Errors {
		ref := e.Policy.Ref()
		ref.Error = e.Message
		refs = append(refs, ref)
	}
	c.record.Why.Policies = refs
	c.timed(StepPolicy)
}

// remedied keeps what would turn the denial into an allow.
func (c *inquiry) remedied(r engine.Remedies, who identity.Subject) {
	for _, set := range r.Sets {
		remedy := make(authz.Remedy, len(set))
		for i, f := range set {
			remedy[i] = c.p.fact(f)
		}
		c.remedies = append(c.remedies, remedy)
	}
	c.challenge = challenge(who, c.remedies)
	c.timed(StepRemedies)
}

// refuseToBelieve denies what a PEP says of the entities.
func (c *inquiry) refuseToBelieve(ctx context.Context, err error) (authz.Decision, error) {
	if errors.Is(err, errAssertion) {
		return c.deny(ctx, authz.ReasonAssertion, sentence(err), nil)
	}
	return c.withhold(ctx, authz.ReasonInputInvalid, sentence(err))
}

// unmapped denies what could not be asked as a server's mapping says.
func (c *inquiry) unmapped(ctx context.Context, err error) (authz.Decision, error) {
	var input *catalog.InputError
	var mapping *coaz.Error
	switch {
	case errors.As(err, &input), errors.As(err, &mapping):
		return c.withhold(ctx, authz.ReasonInputInvalid, sentence(err))
	case errors.Is(err, errAssertion):
		return c.deny(ctx, authz.ReasonAssertion, sentence(err), nil)
	default:
		return c.deny(ctx, authz.ReasonEntitiesDown, "What the server's mapping asks could not be decided; try again later.", err)
	}
}

// release records that the action may run, and says so.
func (c *inquiry) release(ctx context.Context) (authz.Decision, error) {
	c.record.Effect = "allow"
	c.record.Why.Released = true
	c.record.Why.Reasons = []authz.Reason{{Code: authz.ReasonPolicyAllow, Message: "A policy permits it."}}
	return c.conclude(ctx, nil)
}

// withhold records what policy or catalogue deny. In observe mode the action
// runs all the same.
func (c *inquiry) withhold(ctx context.Context, code, message string) (authz.Decision, error) {
	c.record.Why.Released = c.p.Observe
	c.record.Why.Reasons = []authz.Reason{{Code: code, Message: message}}
	return c.conclude(ctx, nil)
}

// deny records a denial that no mode turns into anything else. fault is why
// the plane could not do better, if so.
func (c *inquiry) deny(ctx context.Context, code, message string, fault error) (authz.Decision, error) {
	if fault != nil && errors.Is(fault, context.DeadlineExceeded) {
		code, message = authz.ReasonDeadline, "The decision took too long; try again later."
	}
	c.record.Why.Reasons = []authz.Reason{{Code: code, Message: message}}
	return c.conclude(ctx, fault)
}

// conclude makes the record durable, lets the session learn from it, and only
// then answers.
func (c *inquiry) conclude(ctx context.Context, fault error) (authz.Decision, error) {
	why := c.record.Why
	if why.Released && c.op != nil {
		why.Labels = c.op.OutputLabels(c.req.Server)
	}
	why.Micros = micros(c.micros, c.steps)
	ctx, cancel := durable(ctx)
	defer cancel()
	receipt, err := c.p.Log.Append(ctx, c.record)
	c.timed(StepRecord)
	if errors.Is(err, audit.ErrLowDisk) && why.Released {
		// There is room for denials still: say on the record why this is one.
		c.reserved.Cancel()
		c.record.Effect, why.Released, why.Labels, why.Spends = "deny", false, nil, nil
		return c.deny(ctx, authz.ReasonAuditDown, "The disk of the evidence is nearly full; nothing is released.", err)
	}
	if err != nil {
		c.reserved.Cancel()
		c.call.Abandoned(c.now)
		d := authz.Deny(authz.ReasonAuditDown, "The decision could not be recorded, so nothing was released.")
		d.ID, d.Time = c.record.Decision, c.now
		c.observe(ctx, d)
		return d, fmt.Errorf("record decision: %w", errors.Join(err, fault))
	}
	c.tripped(why.Released, fault)
	c.reserved.Recorded(c.record.Decision, receipt.Index, c.req.Advisory) // before the session: see budget.Ledger.Advance
	if c.visit != nil {
		c.visit.Apply(receipt.Index, effect(c.record))
		if why.Released && c.op != nil {
			c.await()
		}
	}
	c.concluded(why.Released)
	if cut := c.suspended(); cut != nil && why.Released {
		return c.recall(ctx, cut)
	}
	d := authz.Decision{
		ID: c.record.Decision, Allow: why.Released, Observed: why.Released && c.record.Effect != "allow",
		Reasons: why.Reasons, Policies: why.Policies, Version: c.record.Version, Remedies: c.remedies, Challenge: c.challenge, Time: c.now,
	}
	c.observe(ctx, d)
	if d.Allow && c.p.Suspensions != nil { // observers are told of no subject
		d.Scope = slices.Clone(c.scope) // it may outlive the inquiry by hours
	}
	return d, fault
}

// durable is the context for recording. A denial for want of time still has to
// be written, so it gets a little more.
func durable(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), time.Second)
}

// effect is what a decision record does to its session.
func effect(r audit.Record) session.Effect {
	return session.Effect{
		Released:  r.Why.Released,
		Uncounted: slices.Contains(r.What.Effects, discover),
		Labels:    r.Why.Labels,
	}
}

// Replay lets the sessions catch up with one record of the evidence. Records
// of other kinds, and those without a verified subject, change nothing.
func Replay(ctx context.Context, t *session.Tracker, index uint64, r audit.Record) error {
	if r.Kind != audit.KindDecision || r.Who == nil || r.Who.Subject.IsZero() || r.Who.Session == "" || r.Why == nil || r.What == nil {
		return nil
	}
	return t.Replay(ctx, r.Who.Session, owner(r.Who.Subject), index, r.Time, effect(r))
}
