package engine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// A factUse is what the conditions of a policy have to do with facts.
type factUse struct {
	// depends is set when they look at approvals, the authentication, or the
	// context as a whole: only then can a fact in the context change them.
	depends bool
	// walks is set when they ask what an entity is in: only then can an
	// elevation change them.
	walks bool
	// What approvals, level, age and scopes are tested against.
	roles, levels, ages, scopes []operand
}

// An operand is what a policy tests a fact against.
type operand struct {
	value types.Value // nil: it depends on the request
	node  ast.IsNode
	// at and after are set when the test may turn out differently at the number
	// than just below it, and just after it than at it.
	at, after bool
}

// uses of facts by policy, each found out when it is first needed.
type factUses []atomic.Pointer[factUse]

// factTables are the uses of the programs that have been asked for remedies. A
// table goes when its program does.
//
// It is a cache of what follows from an immutable program.
var factTables sync.Map // weak.Pointer[Program] to factUses

func (p *Program) factUses() factUses {
	key := weak.Make(p)
	if t, ok := factTables.Load(key); ok {
		return t.(factUses)
	}
	t, loaded := factTables.LoadOrStore(key, make(factUses, len(p.policies)))
	if !loaded {
		runtime.AddCleanup(p, func(key weak.Pointer[Program]) { factTables.Delete(key) }, key)
	}
	return t.(factUses)
}

// of returns the use that a policy of the table's program makes of facts.
func (t factUses) of(p *Program, i int32) *factUse {
	u := t[i].Load()
	if u == nil {
		u = &factUse{} // two requests that find out at once find the same
		for _, c := range p.policies[i].AST.Conditions {
			ast.Inspect(ast.NewNode(c.Body), u.inspect)
		}
		t[i].Store(u)
	}
	return u
}

// inspect notes what one node does. It returns whether to look into the node.
func (u *factUse) inspect(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		u.depends = u.depends || isContext(n)
	case ast.NodeTypeAccess:
		return u.inspectAttribute(n.StrOpNode)
	case ast.NodeTypeHas:
		return u.inspectAttribute(n.StrOpNode)
	case ast.NodeTypeIn, ast.NodeTypeIsIn:
		u.walks = true
	case ast.NodeTypeEquals:
		u.tests(n.BinaryNode, true, true)
	case ast.NodeTypeNotEquals:
		u.tests(n.BinaryNode, true, true)
	case ast.NodeTypeContains:
		u.tests(n.BinaryNode, true, true)
	case ast.NodeTypeContainsAll:
		u.tests(n.BinaryNode, true, true)
	case ast.NodeTypeContainsAny:
		u.tests(n.BinaryNode, true, true)
	case ast.NodeTypeLessThan:
		u.tests(n.BinaryNode, true, false)
	case ast.NodeTypeGreaterThanOrEqual:
		u.tests(n.BinaryNode, true, false)
	case ast.NodeTypeLessThanOrEqual:
		u.tests(n.BinaryNode, false, true)
	case ast.NodeTypeGreaterThan:
		u.tests(n.BinaryNode, false, true)
	}
	return true
}

// inspectAttribute notes an attribute that is looked at. Attributes of the
// context that no fact changes are none of our business.
func (u *factUse) inspectAttribute(n ast.StrOpNode) bool {
	if !isContext(n.Arg) {
		return true
	}
	u.depends = u.depends || n.Value == approvalsName || n.Value == authName
	return false
}

// tests notes a test of its left operand against its right. With the operands
// the other way round, what is at one side of the number is at the other.
func (u *factUse) tests(n ast.BinaryNode, at, after bool) {
	u.test(n.Left, operand{node: n.Right, at: at, after: after})
	u.test(n.Right, operand{node: n.Left, at: after, after: at})
}

// test notes what a fact is tested against: each element of a set and each
// branch of an if by itself, because a fact may be what makes the others exist,
// or the branch be taken.
func (u *factUse) test(fact ast.IsNode, o operand) {
	var parts []ast.IsNode
	switch n := o.node.(type) {
	case ast.NodeTypeSet:
		parts = n.Elements
	case ast.NodeTypeIfThenElse:
		parts = []ast.IsNode{n.Then, n.Else}
	}
	for _, part := range parts {
		u.test(fact, operand{node: part, at: o.at, after: o.after})
	}
	if len(parts) > 0 {
		return
	}
	o.value, _ = constant(o.node)
	switch {
	case isAttribute(fact, approvalsName):
		u.roles = append(u.roles, o)
	case isAttribute(fact, authName, levelName):
		u.levels = append(u.levels, o)
	case isAttribute(fact, authName, ageName):
		u.ages = append(u.ages, o)
	case isAttribute(fact, authName, scopesName):
		u.scopes = append(u.scopes, o)
	}
}

func isContext(n ast.IsNode) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

// isAttribute reports whether n is context.a.b…
func isAttribute(n ast.IsNode, path ...types.String) bool {
	for i := len(path) - 1; i >= 0; i-- {
		a, ok := n.(ast.NodeTypeAccess)
		if !ok || a.Value != path[i] {
			return false
		}
		n = a.Arg
	}
	return isContext(n)
}

// bounds are the numbers at which tests of a level or an age may change: they
// may turn out differently at one of them than just below it.
type bounds map[int64]bool

// add adds the bounds of a test against v, and those of the elements of a set.
func (b bounds) add(v types.Value, o operand) {
	switch v := v.(type) {
	case types.Long:
		if o.at {
			b[int64(v)] = true
		}
		if next := int64(v) + 1; o.after && next > int64(v) {
			b[next] = true
		}
	case types.Set:
		for e := range v.All() {
			b.add(e, o)
		}
	}
}

// strings adds the strings in v.
func addStrings(to map[string]bool, v types.Value) {
	switch v := v.(type) {
	case types.String:
		to[string(v)] = true
	case types.Set:
		for e := range v.All() {
			addStrings(to, e)
		}
	}
}
