package pdp

import (
	"context"
	"slices"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// A chain of agents, of which the last acts and each of the others has handed
// the task on, may do what every one of them may do: handing on a task hands on
// no right that the agent does not have itself (docs/design/013-identity.md).

// earlier are the agents that have handed the task on, the latest first.
func (c *Caller) earlier() []string {
	if len(c.Chain) == 0 {
		return nil
	}
	ids := make([]string, len(c.Chain))
	for i, a := range c.Chain {
		ids[i] = a.Agent
	}
	return ids
}

// as is the caller as one who acts for an earlier agent would be: everything
// but who acts is the same, the strength of the authentication too.
func (c *Caller) as(earlier identity.Subject) Caller {
	by := Caller{Subject: c.Subject}
	by.Agent, by.Groups = earlier.Agent, earlier.Groups
	by.Owner, by.Purpose, by.Model = earlier.Owner, earlier.Purpose, earlier.Model
	return by
}

// handedOn asks policy about each agent that has handed the task on. The answer
// is the first denial, the acting agent's before others', with the question that
// was denied.
func (c *inquiry) handedOn(ctx context.Context, v *Version, view EntityView, who Caller, op *catalog.Operation, acting engine.Answer, q *engine.Request) (engine.Answer, *engine.Request, error) {
	c.asked = append(c.asked, q)
	answer, question := acting, q
	req := c.req
	req.Asserted = nil // what a PEP says of the subject is said of who acts
	for _, earlier := range who.Chain {
		by := who.as(earlier)
		m := new(memory)
		q, named, err := v.question(by, c.visit.Snapshot, &c.origins, op, req, view.World(), c.now, m)
		if err == nil {
			q.Fields = append(q.Fields, m.riskOf(c.risk.assessment.Score))
			err = inform(ctx, q, view, named)
		}
		if err == nil {
			err = v.fill(q, by, req)
		}
		if err != nil {
			return engine.Answer{}, nil, err
		}
		c.asked = append(c.asked, q)
		a := v.Program.Authorize(q)
		switch {
		case answer.Allow && !a.Allow:
			answer, question, c.refusedBy = a, q, earlier.Agent
		case answer.Allow:
			answer.Determining = slices.Concat(answer.Determining, a.Determining)
		}
	}
	return answer, question, nil
}

// mostForChain bounds the remedies that are worked out for a chain.
const mostForChain = 8

// remediesOf finds what would change a denial. For a chain it must be enough
// for every agent in it; whether nothing less would do is not looked into.
func (c *inquiry) remediesOf(v *Version, q *engine.Request) engine.Remedies {
	if len(c.asked) == 0 {
		return v.Program.Remedies(q, engine.RemedyOptions{Elevations: c.p.elevations})
	}
	enough := []engine.Remedy{nil}
	for _, q := range c.asked {
		var next []engine.Remedy
		for _, facts := range enough {
			with := q.With(facts)
			if v.Program.Authorize(with).Allow {
				next = append(next, facts)
				continue
			}
			for _, more := range v.Program.Remedies(with, engine.RemedyOptions{}).Sets {
				next = append(next, joined(facts, more))
			}
		}
		enough = next[:min(len(next), mostForChain)]
	}
	// What helps one may make another's question come out otherwise.
	enough = slices.DeleteFunc(enough, func(facts engine.Remedy) bool {
		return slices.ContainsFunc(c.asked, func(q *engine.Request) bool { return !v.Program.Authorize(q.With(facts)).Allow })
	})
	return engine.Remedies{Sets: enough}
}

// joined is both remedies together: of two levels the higher, of two ages the
// younger.
func joined(a, b engine.Remedy) engine.Remedy {
	out := slices.Clone(a)
	for _, f := range b {
		i := slices.IndexFunc(out, func(g engine.Fact) bool {
			return f.Kind == g.Kind && (f.Name == g.Name || f.Kind == engine.StepUp || f.Kind == engine.FreshAuth)
		})
		switch {
		case i < 0:
			out = append(out, f)
		case f.Kind == engine.StepUp:
			out[i].Level = max(out[i].Level, f.Level)
		case f.Kind == engine.FreshAuth:
			out[i].Level = min(out[i].Level, f.Level)
		}
	}
	return out
}

// reachableByAll says whether any input could lead to an allow for every agent
// of the chain.
func (v *Version) reachableByAll(who Caller, req authz.Request, o pep.Operation, w *engine.World) bool {
	if !v.reachable(who, req, o, w) {
		return false
	}
	for _, earlier := range who.Chain {
		if !v.reachable(who.as(earlier), req, o, w) {
			return false
		}
	}
	return true
}

// challenge is what another token would have to show, if one of the remedies is
// nothing else. Only who came with a token can come with another.
func challenge(who identity.Subject, remedies []authz.Remedy) *authz.Challenge {
	if who.ACR == nil {
		return nil
	}
	for _, r := range remedies {
		if c, ok := ofToken(who, r); ok {
			return c
		}
	}
	return nil
}

func ofToken(who identity.Subject, r authz.Remedy) (*authz.Challenge, bool) {
	c := &authz.Challenge{}
	for _, f := range r {
		switch f.Kind {
		case authz.FactFresh:
			c.MaxAge = f.MaxAge
		case authz.FactScope:
			c.Scopes = append(c.Scopes, f.Name)
		case authz.FactLevel:
			if c.ACR = who.Reaching(f.Level); c.ACR == nil {
				return nil, false // its issuer has nothing that strong
			}
		default:
			return nil, false
		}
	}
	if len(c.Scopes) > 0 { // what the token has it keeps, or the client would lose it for this
		c.Scopes = slices.Compact(slices.Sorted(slices.Values(slices.Concat(who.Scopes, c.Scopes))))
	}
	return c, len(r) > 0
}
