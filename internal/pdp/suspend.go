package pdp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// concerns appends to a scope who acts, for whom, in which groups and session:
// as far as that is proven. What is touched comes with the operation.
func concerns(scope []authz.Entity, who *Caller, session string) []authz.Entity {
	scope = append(scope, authz.Entity{Type: revoke.KindAgent, ID: owner(who.entity())}, authz.Entity{Type: revoke.KindSession, ID: session})
	if who.For != "" {
		scope = append(scope, authz.Entity{Type: revoke.KindOwner, ID: who.For})
	}
	scope = concernsAgent(scope, &who.Subject)
	for i := range who.Chain { // whoever has handed the task on ends it, too
		scope = append(scope, authz.Entity{Type: revoke.KindAgent, ID: who.Chain[i].Agent})
		scope = concernsAgent(scope, &who.Chain[i])
	}
	return scope
}

// concernsAgent appends who answers for an agent, and its groups.
func concernsAgent(scope []authz.Entity, a *identity.Subject) []authz.Entity {
	if a.Owner != "" {
		scope = append(scope, authz.Entity{Type: revoke.KindOwner, ID: a.Owner})
	}
	for _, g := range a.Groups {
		scope = append(scope, authz.Entity{Type: revoke.KindGroup, ID: g})
	}
	return scope
}

// touches appends what an operation is and where it happens.
func touches(scope []authz.Entity, action, server string) []authz.Entity {
	scope = append(scope, authz.Entity{Type: revoke.KindTool, ID: action})
	if server != "" {
		scope = append(scope, authz.Entity{Type: revoke.KindServer, ID: server})
	}
	return scope
}

// within appends the groups that the directory knows the subject to be in.
func within(scope []authz.Entity, q *engine.Request) []authz.Entity {
	const most = 64 // a directory that goes round in circles ends here
	var seen []types.EntityUID
	for next := []types.EntityUID{q.Principal}; len(next) > 0 && len(seen) < most; next = next[1:] {
		e, ok := entity(q, next[0])
		if !ok {
			continue
		}
		for g := range e.Parents.All() {
			if slices.Contains(seen, g) {
				continue
			}
			seen, next = append(seen, g), append(next, g)
			name := authz.Entity{Type: revoke.KindGroup, ID: string(g.ID)}
			if g.Type != "Group" {
				name.ID = string(g.Type) + "/" + name.ID
			}
			if !slices.Contains(scope, name) {
				scope = append(scope, name)
			}
		}
	}
	return scope
}

// suspended says why nothing may be done within the scope of the inquiry now,
// or nil.
func (c *inquiry) suspended() *revoke.Cut { return c.p.Suspensions.Watch().Check(c.scope) }

// grouped adds the groups of the subject to the scope, now that they are known,
// and says whether one of them is suspended.
func (c *inquiry) grouped(q *engine.Request) *revoke.Cut {
	w := c.p.Suspensions.Watch()
	if w == nil {
		return nil
	}
	c.scope = within(c.scope, q)
	if !w.Set().Groups() {
		return nil
	}
	return c.suspended()
}

// stop denies what is suspended. No mode lets it through.
func (c *inquiry) stop(ctx context.Context, why *revoke.Cut) (authz.Decision, error) {
	return c.deny(ctx, why.Code, why.Message, nil)
}

// recall denies what was suspended between the decision and its answer. The
// record says that it was released; another says that it never ran.
func (c *inquiry) recall(ctx context.Context, why *revoke.Cut) (authz.Decision, error) {
	d := authz.Decision{ID: c.record.Decision, Reasons: []authz.Reason{why.Reason}, Version: c.record.Version, Time: c.now}
	c.p.Breakers.Settle(d.ID, breaker.Neutral, c.p.Now())
	settle(c.p.Budgets, d.ID, authz.OutcomeNotRun, 0)
	err := c.p.Log.Post(audit.Record{
		Kind: audit.KindOutcome, Time: c.p.Now(), Decision: d.ID, Effect: string(authz.OutcomeNotRun),
		Outcome: &audit.Outcome{Status: authz.OutcomeNotRun, Error: why.Code + " before it was answered"},
	})
	c.observe(ctx, d)
	if err != nil {
		return d, fmt.Errorf("record that %s never ran: %w", d.ID, err)
	}
	return d, nil
}

// Lease is a gate in another process that asks what is suspended: see
// [revoke.Authority.Lease]. Its error wraps [pep.ErrRefused] for one that relays
// nothing, and so has nothing to give up.
func (p *PDP) Lease(ctx context.Context, gate authz.Credential, holder string, epoch uint64) (*revoke.Set, time.Duration, error) {
	e, err := p.Identity.PEP(gate)
	if err == nil && !e.Relays {
		err = fmt.Errorf("PEP %s runs nothing for agents: %w", e.ID, errAssertion)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("lease on suspensions: %w", refused(err))
	}
	if p.Suspensions == nil {
		return nil, 0, errors.New("lease on suspensions: nothing is known of them here")
	}
	return p.Suspensions.Lease(ctx, e.ID+"/"+holder, epoch)
}

// unsuspended narrows a list to what is not suspended.
func (p *PDP) unsuspended(who *Caller, session, server string, ops []pep.Operation, reach []bool) {
	w := p.Suspensions.Watch()
	if w == nil {
		return
	}
	scope := concerns(make([]authz.Entity, 0, 8), who, session)
	for i, o := range ops {
		reach[i] = reach[i] && w.Check(touches(scope[:len(scope):len(scope)], o.Action, server)) == nil
	}
}
