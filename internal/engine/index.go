package engine

import (
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// names numbers the entities and entity types that policies name.
type names struct {
	types map[types.EntityType]int32
	uids
}

func newNames() *names { return &names{types: map[types.EntityType]int32{}, uids: newUIDs()} }

// typ returns the number of a type, a new one if need be.
func (n *names) typ(t types.EntityType) int32 {
	id, ok := n.types[t]
	if !ok {
		id = int32(len(n.types))
		n.types[t] = id
	}
	return id
}

// entity returns the number of an entity, a new one if need be, and makes sure
// that its type has one.
func (n *names) entity(uid types.EntityUID) int32 {
	n.typ(uid.Type)
	return n.add(uid)
}

// A key is one way in which a scope can pick an entity: a number of [names]
// and a kind in the two lowest bits.
type key uint32

// The kinds of key.
const (
	anyEntity key = iota // the number is 0
	isEntity             // == the entity
	inEntity             // in the entity
	isType               // is the type
	kindBits  = 2
	kindMask  = 1<<kindBits - 1
)

func makeKey(kind key, id int32) key { return key(id)<<kindBits | kind }

func (k key) kind() key { return k & kindMask }
func (k key) id() int32 { return int32(k >> kindBits) }

// noType is the type of a rule that does not ask for one besides its key.
const noType = -1

// A rule is a policy under one key of its action scope. A policy whose scope
// lists several actions has several rules with the same code.
type rule struct {
	policy    int32
	code      int32 // where its condition begins
	principal key
	resource  key
	// The types that "is T in e" asks for besides the key, or noType.
	principalType int32
	resourceType  int32
	// shared numbers the policies with several rules from 1, so that one is not
	// found twice.
	shared int32
	forbid bool
}

// A dimension is what a node of the index divides rules by.
type dimension uint8

const (
	leaf dimension = iota
	byPrincipal
	byResource
)

// A node is a leaf, rules[start:end], or a table of nodes by key.
type node struct {
	by         dimension
	start, end int32 // of rules for a leaf, else of cells; a power of two
}

// A cell is a place in a hash table of nodes; empty when node is negative.
type cell struct {
	key  key
	node int32
}

// An index finds the rules whose scope fits a request: a table by action, then
// nodes by principal and resource, in whichever order divides them better.
type index struct {
	names *names
	rules []rule
	nodes []node
	cells []cell
	// roots are the nodes by key of the action.
	roots map[key]int32
	// actions are the keys of the schema's actions, worked out beforehand, in
	// the order of actionUIDs.
	actions    []action
	actionUIDs uids
	shared     int
}

// An action is what the index knows of an action of the schema.
type action struct {
	self  int32   // number of the entity, or -1 if no policy names it
	typ   int32   // number of its type, or -1
	marks []int32 // numbers of itself and its ancestors, where named
	roots []int32 // nodes of all its keys
	// record is its attributes, which Cedar's schemas give no action.
	record types.Record
}

// hash spreads keys over a table of the given size, a power of two.
func (k key) hash(size int32) int32 {
	return int32((uint64(k) * 0x9E3779B97F4A7C15 >> 32)) & (size - 1)
}

// child returns the node under a key, or -1.
func (x *index) child(n *node, k key) int32 {
	size := n.end - n.start
	for i := k.hash(size); ; i = (i + 1) & (size - 1) {
		c := &x.cells[n.start+i]
		if c.node < 0 || c.key == k {
			return c.node
		}
	}
}

// A builder collects rules and builds the index.
type builder struct {
	x        index
	byKey    map[key][]rule // by key of the action
	policies int            // added so far
}

func newBuilder(n *names) *builder {
	return &builder{x: index{names: n, roots: map[key]int32{}, actionUIDs: newUIDs()}, byKey: map[key][]rule{}}
}

// add adds the rules of the next policy. Their code is filled in by build.
func (b *builder) add(p *ast.Policy) {
	i := int32(b.policies)
	b.policies++
	r := rule{policy: i, forbid: p.Effect == ast.EffectForbid}
	r.principal, r.principalType = b.scope(p.Principal)
	r.resource, r.resourceType = b.scope(p.Resource)
	keys := b.actionKeys(p.Action)
	if len(keys) > 1 {
		b.x.shared++
		r.shared = int32(b.x.shared)
	}
	for _, k := range keys {
		b.byKey[k] = append(b.byKey[k], r)
	}
}

func (b *builder) actionKeys(s ast.IsActionScopeNode) []key {
	set, ok := s.(ast.ScopeTypeInSet)
	if !ok {
		k, _ := b.scope(s)
		return []key{k}
	}
	keys := make([]key, len(set.Entities))
	for i, e := range set.Entities {
		keys[i] = makeKey(inEntity, b.x.names.entity(e))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// scope returns the key of a scope, and the type that it asks for besides.
func (b *builder) scope(s ast.IsScopeNode) (key, int32) {
	n := b.x.names
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return makeKey(isEntity, n.entity(s.Entity)), noType
	case ast.ScopeTypeIn:
		return makeKey(inEntity, n.entity(s.Entity)), noType
	case ast.ScopeTypeIs:
		return makeKey(isType, n.typ(s.Type)), noType
	case ast.ScopeTypeIsIn:
		return makeKey(inEntity, n.entity(s.Entity)), n.typ(s.Type)
	default:
		return anyEntity, noType
	}
}

// order lays out the rules in the order in which they will be visited, and
// returns the policies in that order, each once. Those that no action can fit
// come last.
func (b *builder) order() []int32 {
	for _, k := range slices.Sorted(maps.Keys(b.byKey)) {
		b.x.roots[k] = b.node(b.byKey[k], byPrincipal, byResource)
	}
	var order []int32
	seen := make([]bool, b.policies)
	add := func(i int32) {
		if !seen[i] {
			seen[i] = true
			order = append(order, i)
		}
	}
	for i := range b.x.rules {
		add(b.x.rules[i].policy)
	}
	for i := range seen {
		add(int32(i))
	}
	return order
}

// build returns the index of rules whose conditions are at the given addresses
// by policy. It comes after everything that adds names.
func (b *builder) build(addresses []int32, actions types.EntityMap) index {
	for i := range b.x.rules {
		r := &b.x.rules[i]
		r.code = addresses[r.policy]
	}
	for uid := range actions {
		b.x.actionUIDs.add(uid)
		b.x.actions = append(b.x.actions, b.action(uid, actions))
	}
	return b.x
}

// smallLeaf is how many rules are tested one by one rather than divided. A
// test takes a nanosecond or two, a lookup in a table about five.
const smallLeaf = 8

// node adds a node for the rules, divided by the better of the dimensions.
func (b *builder) node(rules []rule, dims ...dimension) int32 {
	best, cost := leaf, 0.9*float64(len(rules))
	if len(rules) > smallLeaf {
		for _, d := range dims {
			if c := visited(rules, d); c < cost {
				best, cost = d, c
			}
		}
	}
	at := int32(len(b.x.nodes))
	b.x.nodes = append(b.x.nodes, node{})
	if best == leaf {
		start := int32(len(b.x.rules))
		b.x.rules = append(b.x.rules, rules...)
		b.x.nodes[at] = node{by: leaf, start: start, end: int32(len(b.x.rules))}
		return at
	}
	rest := slices.DeleteFunc(slices.Clone(dims), func(d dimension) bool { return d == best })
	groups := map[key][]rule{}
	for _, r := range rules {
		groups[r.key(best)] = append(groups[r.key(best)], r)
	}
	cells := make([]cell, 0, len(groups))
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		cells = append(cells, cell{key: k, node: b.node(groups[k], rest...)})
	}
	start := b.table(cells)
	b.x.nodes[at] = node{by: best, start: start, end: int32(len(b.x.cells))}
	return at
}

func (r *rule) key(d dimension) key {
	if d == byPrincipal {
		return r.principal
	}
	return r.resource
}

// visited estimates how many rules a request visits when they are divided by
// d: those under no key always, those under a key when it is the request's.
func visited(rules []rule, d dimension) float64 {
	sizes := map[key]int{}
	for i := range rules {
		sizes[rules[i].key(d)]++
	}
	sum := 0.0
	for k, n := range sizes {
		if k == anyEntity {
			sum += float64(n)
			continue
		}
		sum += 0.5 * float64(n) * float64(n) / float64(len(rules))
	}
	return sum
}

// table adds a hash table, at most half full, and returns where it starts.
func (b *builder) table(cells []cell) int32 {
	size := int32(2)
	for size < int32(2*len(cells)) {
		size *= 2
	}
	start := int32(len(b.x.cells))
	for range size {
		b.x.cells = append(b.x.cells, cell{node: -1})
	}
	for _, c := range cells {
		i := c.key.hash(size)
		for b.x.cells[start+i].node >= 0 {
			i = (i + 1) & (size - 1)
		}
		b.x.cells[start+i] = c
	}
	return start
}

// action works out the keys of an action of the schema.
func (b *builder) action(uid types.EntityUID, actions types.EntityMap) action {
	n := b.x.names
	a := action{self: -1, typ: -1, record: actions[uid].Attributes}
	if t, ok := n.types[uid.Type]; ok {
		a.typ = t
	}
	root := func(k key) {
		if at, ok := b.x.roots[k]; ok {
			a.roots = append(a.roots, at)
		}
	}
	root(anyEntity)
	if id, ok := n.find(uid); ok {
		a.self = id
		root(makeKey(isEntity, id))
	}
	for _, ancestor := range ancestors(uid, actions) {
		if id, ok := n.find(ancestor); ok {
			a.marks = append(a.marks, id)
			root(makeKey(inEntity, id))
		}
	}
	return a
}

// ancestors returns uid and everything it is in, sorted but for uid.
func ancestors(uid types.EntityUID, entities types.EntityGetter) []types.EntityUID {
	all := []types.EntityUID{uid}
	seen := map[types.EntityUID]bool{uid: true}
	for i := 0; i < len(all); i++ {
		e, _ := entities.Get(all[i]) // a missing entity has no parents
		for parent := range e.Parents.All() {
			if !seen[parent] {
				seen[parent] = true
				all = append(all, parent)
			}
		}
	}
	slices.SortFunc(all[1:], compareUIDs)
	return all
}
