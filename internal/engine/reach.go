package engine

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Reachable reports whether some context could make the answer an allow: false
// only when none can. The context of the request is not looked at. A zero
// resource is one that is not known either, of any type.
//
// It is for filtering lists, where offering something that will then be denied
// is a nuisance and hiding something that would be allowed is a fault.
func (p *Program) Reachable(req *Request) bool {
	s := p.begin(req)
	defer p.end(s)
	s.anyResource = req.Resource.IsZero()
	s.candidates()
	reachable := false
	for _, i := range s.found {
		r := &p.index.rules[i]
		can := s.possible(p.policies[r.policy].AST)
		if s.anyResource && r.resource != anyEntity {
			can |= canNo // the resource may turn out not to fit
		}
		switch {
		case can == canFail:
			return false // an error denies, whatever the effect
		case r.forbid && can&canNo == 0:
			return false
		case !r.forbid && can&canYes != 0:
			reachable = true
		}
	}
	return reachable
}

// possibilities are what a truth value may come to in some context.
type possibilities uint8

const (
	canNo possibilities = 1 << iota
	canYes
	canFail
	canAll = canNo | canYes | canFail
)

// possible returns what the conditions of a policy may come to.
func (s *scratch) possible(p *ast.Policy) possibilities {
	can := canYes
	for _, c := range p.Conditions {
		one := s.possibleTruth(c.Body)
		if c.Condition == ast.ConditionUnless {
			one = one.not()
		}
		can = can.and(one)
	}
	return can
}

// and returns what a && b may come to: b counts when a is true.
func (a possibilities) and(b possibilities) possibilities {
	if a&canYes == 0 {
		return a
	}
	return a&^canYes | b
}

func (a possibilities) not() possibilities {
	b := a & canFail
	if a&canNo != 0 {
		b |= canYes
	}
	if a&canYes != 0 {
		b |= canNo
	}
	return b
}

// possibleTruth returns what an expression in the place of a truth value may
// come to. Only connectives are looked into: anything else that depends on
// the unknown may come to anything.
func (s *scratch) possibleTruth(n ast.IsNode) possibilities {
	if !s.unknown(n) {
		return s.known(n)
	}
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return s.possibleTruth(n.Left).and(s.possibleTruth(n.Right))
	case ast.NodeTypeOr:
		// a || b is !(!a && !b), failures included.
		return s.possibleTruth(n.Left).not().and(s.possibleTruth(n.Right).not()).not()
	case ast.NodeTypeNot:
		return s.possibleTruth(n.Arg).not()
	case ast.NodeTypeIfThenElse:
		c := s.possibleTruth(n.If)
		can := c & canFail
		if c&canYes != 0 {
			can |= s.possibleTruth(n.Then)
		}
		if c&canNo != 0 {
			can |= s.possibleTruth(n.Else)
		}
		return can
	default:
		return canAll
	}
}

// unknown reports whether an expression depends on what is not known.
func (s *scratch) unknown(n ast.IsNode) bool {
	found := false
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if v, ok := n.(ast.NodeTypeVariable); ok {
			found = found || v.Name == "context" || s.anyResource && v.Name == "resource"
		}
		return !found
	})
	return found
}

// known evaluates an expression that depends on nothing unknown.
func (s *scratch) known(n ast.IsNode) possibilities {
	v, err := s.eval(n)
	truth, ok := v.(types.Boolean)
	switch {
	case err != nil || !ok:
		return canFail
	case bool(truth):
		return canYes
	default:
		return canNo
	}
}
