package engine

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
)

// A World is an immutable snapshot of entities that many requests share, such
// as the agents and groups of a directory and the servers and tools of a
// catalogue. It is safe for concurrent use.
//
// Its hierarchy has no cycle and is worked out once, so that a request need not
// walk it.
type World struct {
	id *worldID
	// uids are the entities sorted by type and id, then the parents that are
	// not themselves entities here. An entity's place is its number.
	uids     uids
	entities []types.Entity
	types    []worldType
	// ancestors are the numbers of all that an entity is in but itself, sorted.
	ancestors [][]int32
	// above is set for what some entity has for a parent. A request that brings
	// its own version of one changes what others are in.
	above []bool
}

// A worldID tells a World from others without keeping it alive. It must not be
// of size zero, or all would have the same address.
type worldID struct{ _ byte }

// A worldType is where the entities of one type are among all.
type worldType struct {
	name       types.EntityType
	start, end int
}

// maxAncestors is how many entities one may be in. It bounds what a hierarchy
// costs in memory, which grows with the square of its depth.
const maxAncestors = 4096

// NewWorld makes a World of entities. Parents that are not among them are kept
// as such: they have no attributes and no parents of their own, unless a
// request brings them.
//
// It refuses what would leave open which entity is meant or what it is in, and
// the error says of which entity: a key that is not the entity's own UID, an
// entity without a type, an action (they are the schema's), a cycle, and more
// ancestors than 4096.
func NewWorld(entities types.EntityMap) (*World, error) {
	w := &World{id: &worldID{}, uids: newUIDs(inOrder(entities)...), entities: make([]types.Entity, len(entities))}
	for i, uid := range w.uids.list {
		if err := acceptable(uid); err != nil {
			return nil, fmt.Errorf("make world: %s %w", uid, err)
		}
		if i >= len(entities) {
			continue // a parent only
		}
		w.entities[i] = entities[uid]
		if own := w.entities[i].UID; own != uid {
			return nil, fmt.Errorf("make world: %s is given as %s", own, uid)
		}
		if n := len(w.types); n == 0 || w.types[n-1].name != uid.Type {
			w.types = append(w.types, worldType{name: uid.Type, start: i})
		}
		w.types[len(w.types)-1].end = i + 1
	}
	if err := w.close(); err != nil {
		return nil, fmt.Errorf("make world: %w", err)
	}
	return w, nil
}

// inOrder returns the entities sorted by type and id, then the parents that
// are not among them.
func inOrder(entities types.EntityMap) []types.EntityUID {
	all := slices.SortedFunc(maps.Keys(entities), compareUIDs)
	var parents []types.EntityUID
	for _, e := range entities {
		for parent := range e.Parents.All() {
			if _, ok := entities[parent]; !ok {
				parents = append(parents, parent)
			}
		}
	}
	slices.SortFunc(parents, compareUIDs)
	return append(all, parents...)
}

func compareUIDs(a, b types.EntityUID) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
}

// acceptable says what is wrong with an entity of that name in a World.
func acceptable(uid types.EntityUID) error {
	switch {
	case uid.Type == "":
		return errors.New("has no type")
	case isAction(uid.Type):
		return errors.New("is an action, and actions are the schema's")
	default:
		return nil
	}
}

// close works out the ancestors, parents before their children.
func (w *World) close() error {
	c := closer{World: w, state: make([]closing, len(w.uids.list)), added: make([]int32, len(w.uids.list))}
	w.ancestors = make([][]int32, len(w.uids.list))
	w.above = make([]bool, len(w.uids.list))
	for i := range w.entities {
		if err := c.close(int32(i), 0); err != nil {
			return err
		}
	}
	return nil
}

// A closer works out ancestors.
type closer struct {
	*World
	state []closing
	// added is 1 + the number of the entity to whose ancestors each was added
	// last.
	added []int32
}

// A closing is how far an entity's ancestors are known.
type closing uint8

const (
	untouched closing = iota
	begun
	closed
)

func (c *closer) close(i int32, depth int) error {
	switch {
	case int(i) >= len(c.entities) || c.state[i] == closed:
		return nil
	case c.state[i] == begun:
		return fmt.Errorf("%s is in itself", c.uids.list[i])
	case depth > maxAncestors:
		return fmt.Errorf("%s is in a hierarchy of more than %d entities", c.uids.list[i], maxAncestors)
	}
	c.state[i] = begun
	parents := c.parents(i)
	for _, p := range parents {
		c.above[p] = true
		if err := c.close(p, depth+1); err != nil {
			return err
		}
	}
	var all []int32
	add := func(a int32) {
		if c.added[a] != i+1 {
			c.added[a] = i + 1
			all = append(all, a)
		}
	}
	for _, p := range parents {
		add(p)
		for _, a := range c.ancestors[p] {
			add(a)
		}
	}
	if len(all) > maxAncestors {
		return fmt.Errorf("%s is in more than %d entities", c.uids.list[i], maxAncestors)
	}
	slices.Sort(all)
	c.ancestors[i] = slices.Clip(all)
	c.state[i] = closed
	return nil
}

// parents returns the numbers of an entity's parents, sorted so that the same
// fault is always found first.
func (c *closer) parents(i int32) []int32 {
	var ps []int32
	for parent := range c.entities[i].Parents.All() {
		p, _ := c.uids.find(parent) // NewWorld has numbered all parents
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}

// Entity returns an entity.
func (w *World) Entity(uid types.EntityUID) (types.Entity, bool) {
	i, ok := w.uids.find(uid)
	if !ok || int(i) >= len(w.entities) {
		return types.Entity{}, false
	}
	return w.entities[i], true
}

// Len returns how many entities there are.
func (w *World) Len() int { return len(w.entities) }

// All returns the entities sorted by type, then id.
func (w *World) All() iter.Seq2[types.EntityUID, types.Entity] {
	return func(yield func(types.EntityUID, types.Entity) bool) {
		for i := range w.entities {
			if !yield(w.uids.list[i], w.entities[i]) {
				return
			}
		}
	}
}

// OfType returns the entities of a type sorted by id. They must not be
// modified.
func (w *World) OfType(t types.EntityType) []types.EntityUID {
	for i := range w.types {
		if of := &w.types[i]; of.name == t {
			return w.uids.list[of.start:of.end:of.end]
		}
	}
	return nil
}
