// Package engine compiles a policy set into an index and flat code, and
// decides with it: which policies are satisfied, whether any input could
// satisfy one, and why an answer came out as it did.
//
// It agrees with cedar.Authorize in the decision, the determining policies and
// the policies that fail, with one exception: a policy that cannot be evaluated
// makes the answer a denial. It is pure: no clock, file or network.
//
// # Why it is fast
//
// cedar.Authorize evaluates every policy. Here the work follows the policies
// whose scope fits the request. Skipping a policy by scope is sound because a
// scope test cannot fail; skipping one by its condition is not, so conditions
// of all candidates are evaluated, as in Cedar.
//
// With many policies memory decides the cost, not instructions: a tree of
// closures takes eight times as long at 100,000 policies as the same tests in
// one array, because each closure is a cache miss. So a rule is 32 bytes, an
// instruction 16, both in arrays in the order in which the index visits them,
// and entities in scopes are small integers. What a request touches more than
// once (attributes, ancestors) is found once and kept by slot or by mark. What
// requests have in common is worked out before any of them: a [World] is
// numbered once for a program. What few policies need is not made at all: a
// context may come as [Fields]. Together these took two thirds of a decision.
package engine

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// A Request is a question in Cedar's terms.
type Request struct {
	Principal types.EntityUID
	Action    types.EntityUID
	Resource  types.EntityUID
	Context   types.Record
	// Fields, unless nil, are used instead of Context, which is then not looked
	// at. They must not change while the request is answered.
	Fields Fields
	// Entities and World hold everything that policies may look at: the
	// principal, the resource, their ancestors, and entities that attributes
	// refer to. Entities are the request's own and may be nil, and World is what
	// it shares with others and may be nil. An entity in both is the request's;
	// parents may be in either. The hierarchy of actions comes from the schema
	// and need not be here; where both know an action, the schema is right. An
	// entity that is missing has no attributes and no ancestors, as in Cedar.
	Entities types.EntityMap
	World    *World
}

// Record returns the whole context, which it builds each time if it is given
// as Fields.
func (r *Request) Record() types.Record {
	if r.Fields == nil {
		return r.Context
	}
	return r.Fields.Record()
}

// An Answer is what a policy set says to a request. The zero Answer denies.
type Answer struct {
	Allow bool
	// Code is one of authz.ReasonPolicyAllow, ReasonForbidden,
	// ReasonPolicyError and ReasonNoPermit. A forbid that matched comes before
	// an error: the answer would be the same without the error.
	Code string
	// Determining are the policies that determine Cedar's decision, sorted by
	// id: all forbids that matched, else all permits that matched. With
	// ReasonPolicyError they are the permits that errors overruled. The slice
	// must not be modified.
	Determining []*policy.Policy
	// Errors are the policies that could not be evaluated, sorted by id. Plain
	// Cedar skips them, forbids too, which would fail open; here any makes the
	// answer a denial.
	Errors []PolicyError
}

// CedarAllow reports what plain Cedar decides, which skips policies that fail.
func (a Answer) CedarAllow() bool {
	return a.Code != authz.ReasonForbidden && len(a.Determining) > 0
}

// A PolicyError is a policy that could not be evaluated.
type PolicyError struct {
	Policy *policy.Policy
	// Message is cedar-go's. It may quote values of the request.
	Message string
}

// A Program is a compiled policy set. It is immutable and safe for concurrent
// use.
type Program struct {
	set      *policy.Set
	policies []*policy.Policy // sorted by id
	actions  types.EntityMap  // the schema's
	index    index
	code     code
	// addresses are where the conditions of the policies begin.
	addresses []int32
	pool      sync.Pool // of *scratch
	// bindings are of the Worlds used last, the latest first. binds is held by
	// the request that adds one.
	bindings atomic.Pointer[[]*binding]
	binds    sync.Mutex
}

// Compile compiles a set.
func Compile(set *policy.Set) (*Program, error) {
	if set == nil {
		return nil, errors.New("compile policies: there is no set")
	}
	p := compile(set.Policies(), set.Schema())
	p.set = set
	return p, nil
}

// compile compiles policies sorted by id, which need not be valid. The schema
// is needed for the hierarchy of actions only, and may be nil.
func compile(policies []*policy.Policy, schema *resolved.Schema) *Program {
	p := &Program{policies: policies, actions: types.EntityMap{}}
	if schema != nil {
		for uid, a := range schema.Actions {
			p.actions[uid] = a.Entity
		}
	}
	n := newNames()
	b := newBuilder(n)
	c := newCompiler(n)
	for _, pol := range policies {
		b.add(pol.AST)
	}
	// In the order of the index, so that the code of rules that are visited
	// together lies together.
	p.addresses = make([]int32, len(policies))
	for _, i := range b.order() {
		p.addresses[i] = c.policy(policies[i].AST)
	}
	p.index = b.build(p.addresses, p.actions)
	p.code = c.code
	p.pool.New = func() any { return newScratch(p) }
	return p
}

// Set returns the set that was compiled.
func (p *Program) Set() *policy.Set { return p.set }

// Authorize answers a request.
func (p *Program) Authorize(req *Request) Answer {
	s := p.begin(req)
	defer p.end(s)
	return s.authorize()
}

func (s *scratch) authorize() Answer {
	s.candidates()
	for _, r := range s.found {
		rule := &s.p.index.rules[r]
		switch s.run(rule.code) {
		case no:
		case yes:
			if rule.forbid {
				s.forbids = append(s.forbids, rule.policy)
			} else {
				s.permits = append(s.permits, rule.policy)
			}
		default:
			s.failed = append(s.failed, rule.policy)
		}
	}
	return s.answer()
}

func (s *scratch) answer() Answer {
	p := s.p
	var a Answer
	switch {
	case len(s.forbids) > 0:
		a.Code = authz.ReasonForbidden
		a.Determining = p.sorted(s.forbids)
	case len(s.failed) > 0:
		a.Code = authz.ReasonPolicyError
		a.Determining = p.sorted(s.permits)
	case len(s.permits) > 0:
		a.Allow = true
		a.Code = authz.ReasonPolicyAllow
		a.Determining = p.sorted(s.permits)
	default:
		a.Code = authz.ReasonNoPermit
	}
	if len(s.failed) > 0 {
		slices.Sort(s.failed)
		for _, i := range s.failed {
			a.Errors = append(a.Errors, PolicyError{Policy: p.policies[i], Message: s.errorOf(p.policies[i])})
		}
	}
	return a
}

// sorted returns policies by index. One policy, the usual number, is a piece
// of the list of all policies and costs no allocation.
func (p *Program) sorted(is []int32) []*policy.Policy {
	switch len(is) {
	case 0:
		return nil
	case 1:
		return p.policies[is[0] : is[0]+1 : is[0]+1]
	}
	slices.Sort(is)
	ps := make([]*policy.Policy, len(is))
	for n, i := range is {
		ps[n] = p.policies[i]
	}
	return ps
}
