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
	// keys are the keys that it has.
	keys []key
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
	for i := range s.subjects {
		s.subjects[i].marks = make([]uint32, p.index.names.count)
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
	s.prepare(principalVar, req.Principal)
	s.prepare(resourceVar, req.Resource)
	s.prepareAction()
}

func (p *Program) end(s *scratch) {
	// The pool must not keep a request alive. Single values may stay in the
	// slots until they are overwritten.
	s.req = nil
	p.pool.Put(s)
}

// prepare looks a subject up and works out its keys.
//
// This is most of the time of a decision, spent on hashing entities. So an
// entity's number, which is looked up anyway, also tells whether the entity
// has been met before.
func (s *scratch) prepare(v int, uid types.EntityUID) {
	n := s.p.index.names
	sub := &s.subjects[v]
	e, _ := s.entity(uid) // a missing entity has no attributes and no parents
	sub.uid, sub.self, sub.typ, sub.record = uid, -1, -1, e.Attributes
	keys := append(sub.keys[:0], anyEntity)
	if t, ok := n.types[uid.Type]; ok {
		sub.typ = t
		keys = append(keys, makeKey(isType, t))
		if id, ok := n.entities[t][uid.ID]; ok {
			sub.self = id
			sub.marks[id] = s.generation
			keys = append(keys, makeKey(isEntity, id), makeKey(inEntity, id))
		}
	}
	q := append(s.queue[:0], uid)
	s.seenTo = 0
	for i := 0; i < len(q); i++ {
		if i > 0 {
			e, _ = s.entity(q[i])
		}
		if e.Parents.Len() == 0 {
			continue
		}
		for parent := range e.Parents.All() {
			if id, ok := n.lookup(parent); ok {
				if sub.marks[id] == s.generation {
					continue
				}
				sub.marks[id] = s.generation
				keys = append(keys, makeKey(inEntity, id))
			} else if s.queued(q, parent) {
				continue
			}
			q = append(q, parent)
		}
	}
	s.queue, sub.keys = q, keys
}

// prepareAction finds the nodes of the action's keys. The schema's actions are
// worked out when the program is compiled; others are looked up here.
func (s *scratch) prepareAction() {
	x := &s.p.index
	sub := &s.subjects[actionVar]
	s.roots = s.roots[:0]
	if a, ok := x.actions[s.req.Action]; ok {
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

// entity looks an entity up, actions in the schema first.
func (s *scratch) entity(uid types.EntityUID) (types.Entity, bool) {
	if isAction(uid.Type) {
		if e, ok := s.p.actions[uid]; ok {
			return e, true
		}
	}
	e, ok := s.req.Entities[uid]
	return e, ok
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
	if !s.has(&s.subjects[principalVar], r.principal, r.principalType) {
		return false
	}
	if !s.anyResource && !s.has(&s.subjects[resourceVar], r.resource, r.resourceType) {
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

// has reports whether a subject has a key and, unless it is noType, a type.
func (s *scratch) has(sub *subject, k key, typ int32) bool {
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
	_, d := cedar.Authorize(p, s, cedar.Request{Principal: r.Principal, Action: r.Action, Resource: r.Resource, Context: r.Context})
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
