package policy

import (
	"fmt"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// What grows as things get worse, or falls: the score and the reasons of risk,
// the labels and denials of a session and its place in the two lattices, and how
// far the sources of the arguments can be trusted. Whatever gets worse must only
// ever tighten: a permit may ask that a risk is small, a forbid that it is large,
// and nothing the other way round. So whoever raises a risk, taints a session, or
// has a value come from a worse source never turns a denial into an allow.
//
// The check is of the form of the conditions, and sound but for one thing: an
// operand that cannot be evaluated (which denies, whatever else) may be hidden
// by one that becomes false as things get worse.
var worsening = map[string]map[string]trend{
	"risk":      {"score": rising, "reasons": rising},
	"session":   {"labels": rising, "denials": rising, "confidentiality": rising, "integrity": falling},
	"authority": ofOrigin,
	"content":   ofOrigin,
	argsRecord:  {},
}

// ofOrigin is what the attributes of an origin do. Its word is for people: only
// that it is the best one says something that can be compared.
var ofOrigin = map[string]trend{"trust": falling, "named": falling, "contested": rising, "origin": unclear}

const (
	// argsRecord holds an origin for each argument that carries authority.
	argsRecord = "args"
	bestOrigin = types.String("user")
)

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
	case ast.NodeTypeEquals:
		if isBest(n.Left, n.Right) || isBest(n.Right, n.Left) {
			return falling
		}
	case ast.NodeTypeNotEquals:
		if isBest(n.Left, n.Right) || isBest(n.Right, n.Left) {
			return rising
		}
	}
	if t, ok := worsens(n); ok {
		return t
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

// worsens is what an attribute does. ok is false for an expression that is none,
// or one of which nothing gets worse.
func worsens(n ast.IsNode) (t trend, ok bool) {
	a, isAccess := n.(ast.NodeTypeAccess)
	if !isAccess {
		return steady, false
	}
	if record, _, isArg := contextAttribute(a.Arg); isArg && record == argsRecord {
		t, ok = ofOrigin[string(a.Value)]
		return t, ok
	}
	if record, name, isAttribute := contextAttribute(n); isAttribute {
		t, ok = worsening[record][name]
		return t, ok
	}
	return steady, false
}

// isBest reports whether an expression and a literal are the word of an origin and
// the best word.
func isBest(n, best ast.IsNode) bool {
	a, ok := n.(ast.NodeTypeAccess)
	t, worsens := worsens(n)
	return ok && worsens && t == unclear && a.Value == "origin" && literal(best) == bestOrigin
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
		if _, ok := worsens(n); ok {
			found = true
			return false
		}
		if record, _, ok := contextAttribute(n); ok {
			found = found || record == argsRecord // all of an origin
			return false
		}
		if a, ok := n.(ast.NodeTypeAccess); ok {
			if record, _, ok := contextAttribute(a.Arg); ok && record == argsRecord {
				return false // the tool or the step, which get neither worse nor better
			}
		}
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			if isContext(n.Arg) {
				found = found || worsening[string(n.Value)] != nil
				return false
			}
		case ast.NodeTypeHas: // which attributes there are does not change
			args, ok := n.Arg.(ast.NodeTypeAccess)
			return !isContext(n.Arg) && !(ok && args.Value == argsRecord && isContext(args.Arg))
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
				why = fmt.Sprintf("this %s loosens as things get worse (risk, labels, denials, the sources of the arguments); they may only ever tighten", role)
			case unclear:
				why = "whether this tightens or loosens as things get worse (risk, labels, denials, the sources of the arguments) cannot be told; compare them with < or >, or by contains"
			default:
				continue
			}
			problems = append(problems, p.problemAt(p.clauses()[i+1][0], why))
		}
	}
	return problems
}
