package policy

import (
	"fmt"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// What grows as things get worse: the score and the reasons of risk, and the
// labels and denials of a session. Whatever grows must only ever tighten: a
// permit may ask that it is small, a forbid that it is large, and nothing the
// other way round. So whoever raises a risk, or taints a session, never turns a
// denial into an allow.
//
// The check is of the form of the conditions, and sound but for one thing: an
// operand that cannot be evaluated (which denies, whatever else) may be hidden
// by one that becomes false as things get worse.
var worsening = map[string]map[string]bool{
	"risk":    {"score": true, "reasons": true},
	"session": {"labels": true, "denials": true},
}

// A trend is what a value does as things get worse.
type trend int

const (
	steady trend = iota
	rising       // or the same: false becomes true, numbers and sets grow
	falling
	unclear
)

// both is the trend of what depends on two values in the same sense.
func both(a, b trend) trend {
	switch {
	case a == steady:
		return b
	case b == steady || a == b:
		return a
	default:
		return unclear
	}
}

func (t trend) reversed() trend {
	switch t {
	case rising:
		return falling
	case falling:
		return rising
	default:
		return t
	}
}

// any is the trend of what depends on a value in a way that has no sense.
func (t trend) any() trend {
	if t == steady {
		return steady
	}
	return unclear
}

// trendOf is what an expression does. What is not known by name may do anything
// with what it is made of.
func trendOf(n ast.IsNode) trend {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return both(trendOf(n.Left), trendOf(n.Right))
	case ast.NodeTypeOr:
		return both(trendOf(n.Left), trendOf(n.Right))
	case ast.NodeTypeNot:
		return trendOf(n.Arg).reversed()
	case ast.NodeTypeIfThenElse:
		return trendOfIf(n)
	case ast.NodeTypeLessThan:
		return both(trendOf(n.Left).reversed(), trendOf(n.Right))
	case ast.NodeTypeLessThanOrEqual:
		return both(trendOf(n.Left).reversed(), trendOf(n.Right))
	case ast.NodeTypeGreaterThan:
		return both(trendOf(n.Left), trendOf(n.Right).reversed())
	case ast.NodeTypeGreaterThanOrEqual:
		return both(trendOf(n.Left), trendOf(n.Right).reversed())
	case ast.NodeTypeContains:
		return both(trendOf(n.Left), trendOf(n.Right).any())
	case ast.NodeTypeContainsAll:
		return both(trendOf(n.Left), trendOf(n.Right).reversed())
	case ast.NodeTypeContainsAny:
		return both(trendOf(n.Left), trendOf(n.Right))
	case ast.NodeTypeIsEmpty:
		return trendOf(n.Arg).reversed()
	}
	if record, name, ok := contextAttribute(n); ok && worsening[record][name] {
		return rising
	}
	if touches(n) {
		return unclear
	}
	return steady
}

func trendOfIf(n ast.NodeTypeIfThenElse) trend {
	branches := both(trendOf(n.Then), trendOf(n.Else))
	c := trendOf(n.If)
	if c == steady {
		return branches
	}
	yes, no := literal(n.Then), literal(n.Else)
	switch {
	case yes == types.Boolean(true) && no == types.Boolean(false):
		return c
	case yes == types.Boolean(false) && no == types.Boolean(true):
		return c.reversed()
	default:
		return unclear
	}
}

func literal(n ast.IsNode) types.Value {
	if v, ok := n.(ast.NodeValue); ok {
		return v.Value
	}
	return nil
}

// contextAttribute is the attribute of a record of the context that an expression is,
// context.risk.score and its like.
func contextAttribute(n ast.IsNode) (record, name string, ok bool) {
	a, ok := n.(ast.NodeTypeAccess)
	if !ok {
		return "", "", false
	}
	r, ok := a.Arg.(ast.NodeTypeAccess)
	return string(r.Value), string(a.Value), ok && isContext(r.Arg)
}

func isContext(n ast.IsNode) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

// touches reports whether anything that grows is in an expression: by itself,
// in its record, or in the context as a whole.
func touches(n ast.IsNode) bool {
	found := false
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if record, name, ok := contextAttribute(n); ok {
			found = found || worsening[record][name]
			return false
		}
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			if isContext(n.Arg) {
				found = found || worsening[string(n.Value)] != nil
				return false
			}
		case ast.NodeTypeHas:
			return !isContext(n.Arg) // which attributes there are does not change
		default:
			found = found || isContext(n)
		}
		return true
	})
	return found
}

// checkTightens refuses a condition that loosens as things get worse.
func checkTightens(ps []parsedPolicy) Problems {
	var problems Problems
	for _, p := range ps {
		wrong, role := rising, "permit"
		if p.policy.Effect == "forbid" {
			wrong, role = falling, "forbid"
		}
		for i, c := range p.policy.AST.Conditions {
			t := trendOf(c.Body)
			if !c.Condition { // unless
				t = t.reversed()
			}
			var why string
			switch t {
			case wrong:
				why = fmt.Sprintf("this %s loosens as risk, labels or denials grow; they may only ever tighten", role)
			case unclear:
				why = "whether this tightens or loosens as risk, labels or denials grow cannot be told; compare them with < or >, or by contains"
			default:
				continue
			}
			problems = append(problems, p.problemAt(p.clauses()[i+1][0], why))
		}
	}
	return problems
}
