package engine

import (
	"math"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// The variables, in the order of their slots.
const (
	principalVar = iota
	actionVar
	resourceVar
	contextVar
	variables
)

// A scratch is the working memory of one request. It comes from a pool and
// nothing in it outlives the request.
type scratch struct {
	p   *Program
	req *Request
	// bound is the request's World, when its hierarchy is the request's.
	bound *binding

	// generation marks what belongs to this request, so that nothing need be
	// cleared between requests.
	generation uint32
	slots      []slotValue
	subjects   [contextVar]subject // principal, action, resource
	shared     []uint32            // generation, by rule.shared

	roots []int32 // nodes of the action's keys
	// anyResource is set when the resource is not known.
	anyResource bool

	found                    []int32 // rules
	permits, forbids, failed []int32 // policies

	stack []val
	// built, and record if whole is set, are what was built of the context.
	built  []built
	record types.Record
	whole  bool
	// queue is of a walk up a hierarchy; seen holds its first seenTo entities.
	queue  []types.EntityUID
	seen   map[types.EntityUID]bool
	seenTo int
}

// A subject is what is known of the principal, the action or the resource.
type subject struct {
	uid types.EntityUID
	// self and typ are its numbers, or -1 when no policy names them.
	self, typ int32
	// marks hold the generation under the number of each entity it is in.
	marks []uint32
	// keys are the keys that it has: own, or the World's.
	keys, own []key
	// record is its attributes.
	record types.Record
}

// A slotValue is the value of a slot in this request, once it has been looked
// at.
type slotValue struct {
	generation uint32
	missing    bool // evaluating it is an error
	value      val
}

func newScratch(p *Program) *scratch {
	s := &scratch{
		p:      p,
		slots:  make([]slotValue, len(p.code.slots)),
		shared: make([]uint32, p.index.shared+1),
		stack:  make([]val, p.code.depth),
		seen:   map[types.EntityUID]bool{},
	}
	for i := range contextVar {
		s.slots[i].value = val{kind: kindVariable, n: int64(i)}
	}
	s.slots[contextVar].value = val{kind: kindContext}
	for i := range s.subjects {
		s.subjects[i].marks = make([]uint32, len(p.index.names.list))
	}
	return s
}

// begin takes a scratch for a request. end gives it back.
func (p *Program) begin(req *Request) *scratch {
	s := p.pool.Get().(*scratch)
	s.start(req)
	return s
}

func (s *scratch) start(req *Request) {
	if s.generation == math.MaxUint32 { // then old marks would look new
		*s = *newScratch(s.p)
	}
	s.req = req
	s.generation++
	s.found = s.found[:0]
	s.permits, s.forbids, s.failed = s.permits[:0], s.forbids[:0], s.failed[:0]
	s.anyResource = false
	s.built, s.whole = s.built[:0], false
	s.bound = s.worldBinding()
	s.prepare(principalVar, req.Principal)
	s.prepare(resourceVar, req.Resource)
	s.prepareAction()
}

func (p *Program) end(s *scratch) {
	// The pool must not keep a request alive. Single values and fields may stay
	// in the slots until they are overwritten.
	s.req, s.bound = nil, nil
	clear(s.built)
	s.record = types.Record{}
	p.pool.Put(s)
}

// prepare looks a subject up and works out its keys.
func (s *scratch) prepare(v int, uid types.EntityUID) {
	sub := &s.subjects[v]
	if i, ok := s.node(uid); ok {
		s.adopt(sub, i)
		return
	}
	e, _ := s.entity(uid) // a missing entity has no attributes and no parents
	n := s.p.index.names
	sub.uid, sub.self, sub.typ, sub.record = uid, -1, -1, e.Attributes
	if t, ok := n.types[uid.Type]; ok {
		sub.typ = t
		if id, ok := n.find(uid); ok {
			sub.self = id
			sub.marks[id] = s.generation
		}
	}
	sub.own = appendOwnKeys(sub.own[:0], sub.self, sub.typ)
	s.climb(sub, e.Parents)
	sub.keys = sub.own
}

// adopt makes a subject of an entity of the World.
func (s *scratch) adopt(sub *subject, i int32) {
	w, n := s.req.World, &s.bound.nodes[i]
	sub.uid, sub.self, sub.typ, sub.record = w.uids.list[i], n.self, n.typ, types.Record{}
	if int(i) < len(w.entities) {
		sub.record = w.entities[i].Attributes
	}
	sub.keys = s.bound.keysOf(n)
	for _, k := range sub.keys {
		if k.kind() == inEntity {
			sub.marks[k.id()] = s.generation
		}
	}
}

// climb adds what a subject is in to its keys, as far as policies name it.
//
// This is most of the time of a decision, spent on hashing entities. So an
// entity's number, which is looked up anyway, also tells whether the entity
// has been met before.
func (s *scratch) climb(sub *subject, parents types.EntityUIDSet) {
	q := append(s.queue[:0], sub.uid)
	s.seenTo = 0
	add := func(parents types.EntityUIDSet) {
		for parent := range parents.All() {
			if i, ok := s.node(parent); ok {
				s.join(sub, i)
			} else if id, ok := s.p.index.names.find(parent); ok {
				if s.mark(sub, id) {
					q = append(q, parent)
				}
			} else if !s.queued(q, parent) {
				q = append(q, parent)
			}
		}
	}
	add(parents)
	for i := 1; i < len(q); i++ {
		e, _ := s.entity(q[i]) // a missing entity has no parents
		if e.Parents.Len() > 0 {
			add(e.Parents)
		}
	}
	s.queue = q
}

// join puts a subject into an entity of the World and all that it is in.
func (s *scratch) join(sub *subject, i int32) {
	for _, k := range s.bound.keysOf(&s.bound.nodes[i]) {
		if k.kind() == inEntity {
			s.mark(sub, k.id())
		}
	}
}

// mark puts a subject into one entity. It reports false if it was there.
func (s *scratch) mark(sub *subject, id int32) bool {
	if sub.marks[id] == s.generation {
		return false
	}
	sub.marks[id] = s.generation
	sub.own = append(sub.own, makeKey(inEntity, id))
	return true
}

// prepareAction finds the nodes of the action's keys. The schema's actions are
// worked out when the program is compiled; others are looked up here.
func (s *scratch) prepareAction() {
	x := &s.p.index
	sub := &s.subjects[actionVar]
	s.roots = s.roots[:0]
	if i, ok := x.actionUIDs.find(s.req.Action); ok {
		a := &x.actions[i]
		sub.uid, sub.self, sub.typ, sub.record = s.req.Action, a.self, a.typ, a.record
		for _, id := range a.marks {
			sub.marks[id] = s.generation
		}
		s.roots = append(s.roots, a.roots...)
		return
	}
	s.prepare(actionVar, s.req.Action)
	for _, k := range sub.keys {
		if n, ok := x.roots[k]; ok {
			s.roots = append(s.roots, n)
		}
	}
}

// closure returns uid and everything it is in. The result is valid until the
// next call.
func (s *scratch) closure(uid types.EntityUID) []types.EntityUID {
	q := append(s.queue[:0], uid)
	s.seenTo = 0
	for i := 0; i < len(q); i++ {
		e, _ := s.entity(q[i]) // a missing entity has no parents
		if e.Parents.Len() == 0 {
			continue
		}
		for parent := range e.Parents.All() {
			if !s.queued(q, parent) {
				q = append(q, parent)
			}
		}
	}
	s.queue = q
	return q
}

// fewEntities is up to how many a search through a slice beats a map.
const fewEntities = 16

// queued reports whether q has e. A walk that asks sets seenTo to 0 before,
// and only appends to q.
func (s *scratch) queued(q []types.EntityUID, e types.EntityUID) bool {
	if len(q) <= fewEntities {
		return slices.Contains(q, e)
	}
	if s.seenTo == 0 {
		clear(s.seen)
	}
	for ; s.seenTo < len(q); s.seenTo++ {
		s.seen[q[s.seenTo]] = true
	}
	return s.seen[e]
}

// entity looks an entity up: an action in the schema first, then what the
// request brings, then in its World.
func (s *scratch) entity(uid types.EntityUID) (types.Entity, bool) {
	if isAction(uid.Type) {
		if e, ok := s.p.actions[uid]; ok {
			return e, true
		}
	}
	if len(s.req.Entities) > 0 {
		if e, ok := s.req.Entities[uid]; ok {
			return e, true
		}
	}
	if s.req.World == nil {
		return types.Entity{}, false
	}
	return s.req.World.Entity(uid)
}

func isAction(t types.EntityType) bool {
	return t == "Action" || strings.HasSuffix(string(t), "::Action")
}

// Get makes a scratch the entities of a request, for cedar-go.
func (s *scratch) Get(uid types.EntityUID) (types.Entity, bool) { return s.entity(uid) }

// candidates finds the rules whose scope fits the request, each policy once.
func (s *scratch) candidates() {
	for _, n := range s.roots {
		s.visit(n)
	}
}

func (s *scratch) visit(at int32) {
	x := &s.p.index
	n := &x.nodes[at]
	switch {
	case n.by == leaf:
		for i := n.start; i < n.end; i++ {
			if s.fits(&x.rules[i]) {
				s.found = append(s.found, i)
			}
		}
	case n.by == byResource && s.anyResource:
		for i := n.start; i < n.end; i++ {
			if c := x.cells[i].node; c >= 0 {
				s.visit(c)
			}
		}
	default:
		sub := &s.subjects[principalVar]
		if n.by == byResource {
			sub = &s.subjects[resourceVar]
		}
		for _, k := range sub.keys {
			if c := x.child(n, k); c >= 0 {
				s.visit(c)
			}
		}
	}
}

// fits tests the scope of a rule but for its action, and that the policy has
// not been found before.
func (s *scratch) fits(r *rule) bool {
	if !s.picks(&s.subjects[principalVar], r.principal, r.principalType) {
		return false
	}
	if !s.anyResource && !s.picks(&s.subjects[resourceVar], r.resource, r.resourceType) {
		return false
	}
	if r.shared > 0 {
		if s.shared[r.shared] == s.generation {
			return false
		}
		s.shared[r.shared] = s.generation
	}
	return true
}

// picks reports whether a subject has a key and, unless it is noType, a type.
func (s *scratch) picks(sub *subject, k key, typ int32) bool {
	if typ != noType && typ != sub.typ {
		return false
	}
	switch k.kind() {
	case isEntity:
		return k.id() == sub.self
	case inEntity:
		return sub.marks[k.id()] == s.generation
	case isType:
		return k.id() == sub.typ
	default:
		return true
	}
}

// errorOf returns cedar-go's message for a policy that could not be evaluated.
// The code only notices that; errors deny, and are rare enough to evaluate
// again for their wording.
func (s *scratch) errorOf(p *policy.Policy) string {
	if _, message := s.cedar(cedarPolicy(p.AST)); message != "" {
		return message
	}
	return "the policy could not be evaluated"
}

// cedar evaluates one policy with cedar-go.
func (s *scratch) cedar(p *cedar.PolicySet) (outcome, string) {
	r := s.req
	_, d := cedar.Authorize(p, s, cedar.Request{Principal: r.Principal, Action: r.Action, Resource: r.Resource, Context: s.context()})
	switch {
	case len(d.Errors) > 0:
		return failed, d.Errors[0].Message
	case len(d.Reasons) > 0:
		return yes, ""
	default:
		return no, ""
	}
}

func cedarPolicy(p *ast.Policy) *cedar.PolicySet {
	set := cedar.NewPolicySet()
	set.Add("", cedar.NewPolicyFromAST((*cedarast.Policy)(p)))
	return set
}
