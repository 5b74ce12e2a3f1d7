package engine

import (
	"cmp"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// A scopePart is the principal, the action or the resource of a request, and
// how a policy asks for it.
type scopePart struct {
	name      string
	uid       types.EntityUID
	ancestors []types.EntityUID // uid among them
	of        func(*ast.Policy) ast.IsScopeNode
}

// scopeParts returns the parts in the order in which a miss is near: to ask
// about another resource is the smallest change, another action the largest.
func (s *scratch) scopeParts() []scopePart {
	part := func(name string, uid types.EntityUID, of func(*ast.Policy) ast.IsScopeNode) scopePart {
		return scopePart{name: name, uid: uid, ancestors: ancestors(uid, s), of: of}
	}
	return []scopePart{
		part("resource", s.req.Resource, func(p *ast.Policy) ast.IsScopeNode { return p.Resource }),
		part("principal", s.req.Principal, func(p *ast.Policy) ast.IsScopeNode { return p.Principal }),
		part("action", s.req.Action, func(p *ast.Policy) ast.IsScopeNode { return p.Action }),
	}
}

// fits reports whether the part is what the policy asks for.
func (p *scopePart) fits(pol *ast.Policy) bool {
	in := func(e types.EntityUID) bool { return slices.Contains(p.ancestors, e) }
	switch scope := p.of(pol).(type) {
	case ast.ScopeTypeAll:
		return true
	case ast.ScopeTypeEq:
		return p.uid == scope.Entity
	case ast.ScopeTypeIn:
		return in(scope.Entity)
	case ast.ScopeTypeInSet:
		return slices.ContainsFunc(scope.Entities, in)
	case ast.ScopeTypeIs:
		return p.uid.Type == scope.Type
	case ast.ScopeTypeIsIn:
		return p.uid.Type == scope.Type && in(scope.Entity)
	default:
		return false
	}
}

// near returns policies of an effect of whose scope one part does not fit, the
// nearest first.
func (s *scratch) near(effect string) []NearMiss {
	type miss struct {
		policy int32
		part   int
		// unsatisfied is 0 when the part is all that is wrong.
		unsatisfied int
	}
	parts := s.scopeParts()
	var misses []miss
	for i, pol := range s.p.policies {
		if pol.Effect != effect {
			continue
		}
		part, ok := onlyMiss(parts, pol.AST)
		if !ok {
			continue
		}
		m := miss{policy: int32(i), part: part}
		if s.outcome(m.policy) != Satisfied {
			m.unsatisfied = 1
		}
		misses = append(misses, m)
	}
	slices.SortFunc(misses, func(a, b miss) int {
		return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.unsatisfied, b.unsatisfied), cmp.Compare(a.policy, b.policy))
	})
	var near []NearMiss
	for _, m := range misses[:min(len(misses), maxNear)] {
		part, pol := &parts[m.part], s.p.policies[m.policy]
		near = append(near, NearMiss{Policy: pol, Part: part.name, Outcome: s.outcome(m.policy),
			Wants: bounded(renderScope(part.name, part.of(pol.AST))), Has: part.uid.String()})
	}
	return near
}

// onlyMiss returns the only part that a policy does not fit. It reports false
// when it fits all, or misses several.
func onlyMiss(parts []scopePart, p *ast.Policy) (int, bool) {
	missed := -1
	for i := range parts {
		if parts[i].fits(p) {
			continue
		}
		if missed >= 0 {
			return 0, false
		}
		missed = i
	}
	return missed, missed >= 0
}

// eval evaluates an expression with cedar-go.
func (s *scratch) eval(n ast.IsNode) (types.Value, error) {
	return eval.Eval(n, eval.Env{
		Entities:  s,
		Principal: s.req.Principal,
		Action:    s.req.Action,
		Resource:  s.req.Resource,
		Context:   s.context(),
	})
}
