package entity

import (
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// maxSteps is how many attributes from a requested entity policies may go to
// others that are looked up. Each step can cost a query for each decision.
const maxSteps = 8

// lookups are the databases by the types that are looked up.
type lookups map[types.EntityType]*database

// A reach is what policies may look at from the entities of a request, as far
// as it has to be looked up.
type reach struct {
	// steps is how many attributes away from them.
	steps int
	// named are entities that conditions name and look at, to be looked up for
	// every request.
	named []types.EntityUID
	// leads are the types whose entities may lead to one that is looked up: by
	// an attribute, or by what they are in.
	leads map[types.EntityType]bool
	// below is set when an entity of the World is in one that is looked up.
	below   bool
	lookups lookups
}

// newReach works out the reach of policies. Without lookups there is none.
func newReach(set *policy.Set, l lookups) (reach, error) {
	r := reach{lookups: l, leads: map[types.EntityType]bool{}}
	if len(l) == 0 {
		return r, nil
	}
	w := walk{named: map[types.EntityUID]bool{}}
	for _, p := range set.Policies() {
		for _, c := range p.AST.Conditions {
			w.depth(c.Body)
		}
		if w.need > maxSteps {
			return reach{}, fmt.Errorf("policy %s goes over more than %d entities by their attributes, and each may have to be looked up", p.ID, maxSteps)
		}
	}
	r.steps = w.need
	for uid := range w.named {
		if l[uid.Type] != nil {
			r.named = append(r.named, uid)
		}
	}
	r.follow(set.Schema())
	return r, nil
}

// follow works out which types lead to what is looked up.
func (r *reach) follow(s *resolved.Schema) {
	for changed := true; changed; {
		changed = false
		for t, e := range s.Entities {
			if !r.leads[t] && (slices.ContainsFunc(e.ParentTypes, r.goal) || r.toGoal(e.Shape) || r.toGoal(e.Tags)) {
				r.leads[t], changed = true, true
			}
		}
	}
}

// goal reports whether a type is looked up, or leads there.
func (r *reach) goal(t types.EntityType) bool { return r.lookups[t] != nil || r.leads[t] }

// toGoal reports whether a value of a type can refer to a goal in a way that
// policies can follow: Cedar cannot take an element out of a set.
func (r *reach) toGoal(t resolved.IsType) bool {
	switch t := t.(type) {
	case resolved.EntityType:
		return r.goal(types.EntityType(t))
	case resolved.RecordType:
		for _, a := range t {
			if r.toGoal(a.Type) {
				return true
			}
		}
	}
	return false
}

// look notes whether a World hangs below what is looked up.
func (r *reach) look(w *engine.World) {
	if len(r.lookups) == 0 {
		return
	}
	for _, e := range w.All() {
		for p := range e.Parents.All() {
			if r.lookups[p.Type] == nil {
				continue
			}
			if _, known := w.Entity(p); !known {
				r.below = true
				return
			}
		}
	}
}

// A walk goes through conditions. It errs on the side of more.
type walk struct {
	// need is how many attributes away entities are looked at, and named which
	// entities are that a condition names.
	need  int
	named map[types.EntityUID]bool
}

// depth returns how many attributes away from the entities of a request an
// entity is that an expression could result in. Those in the context are
// entities of the request.
func (w *walk) depth(n ast.IsNode) int {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		if n.Name == "context" {
			return -1
		}
		return 0
	case ast.NodeTypeAccess:
		return w.lookAt(n.Arg) + 1
	case ast.NodeTypeGetTag:
		w.depth(n.Right)
		return w.lookAt(n.Left) + 1
	case ast.NodeTypeHas:
		w.lookAt(n.Arg)
	case ast.NodeTypeHasTag:
		w.lookAt(n.Left)
		w.depth(n.Right)
	case ast.NodeTypeIn:
		w.lookAt(n.Left)
		w.depth(n.Right)
	case ast.NodeTypeIsIn:
		w.lookAt(n.Left)
		w.depth(n.Entity)
	default:
		return w.inside(n)
	}
	return 0
}

// lookAt is depth of an expression whose result is looked at.
func (w *walk) lookAt(n ast.IsNode) int {
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if v, ok := n.(ast.NodeValue); ok {
			if uid, ok := v.Value.(types.EntityUID); ok {
				w.named[uid] = true
			}
		}
		return true
	})
	d := w.depth(n)
	w.need = max(w.need, d)
	return d
}

// inside is depth of any other expression: that of the deepest in it.
func (w *walk) inside(n ast.IsNode) int {
	deepest := 0
	first := true
	ast.Inspect(ast.NewNode(n), func(child ast.IsNode) bool {
		if first {
			first = false
			return true
		}
		deepest = max(deepest, w.depth(child))
		return false
	})
	return deepest
}

// references are the entities that an entity's attributes and tags refer to in
// a way that policies can follow.
func references(e types.Entity) []types.EntityUID {
	return appendReferences(appendReferences(nil, e.Attributes), e.Tags)
}

func appendReferences(to []types.EntityUID, v types.Value) []types.EntityUID {
	switch v := v.(type) {
	case types.EntityUID:
		to = append(to, v)
	case types.Record:
		for _, name := range slices.Sorted(v.Keys()) {
			m, _ := v.Get(name)
			to = appendReferences(to, m)
		}
	}
	return to
}

// parentsOf are an entity's parents, sorted.
func parentsOf(e types.Entity) []types.EntityUID {
	return slices.SortedFunc(e.Parents.All(), compareUIDs)
}
