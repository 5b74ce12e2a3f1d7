package engine

import (
	"math"
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

	// keys are the keys that the principal and the resource have, by dimension.
	keys  [byResource + 1][]key
	roots []int32 // nodes of the action's keys
	// anyResource is set when the resource is not known.
	anyResource bool

	found                    []int32 // rules
	permits, forbids, failed []int32 // policies

	stack []val
	queue []types.EntityUID
	seen  map[types.EntityUID]bool
}

// A subject is what is known of the principal, the action or the resource.
type subject struct {
	uid types.EntityUID
	// self and typ are its numbers, or -1 when no policy names them.
	self, typ int32
	// marks hold the generation under the number of each entity it is in.
	marks []uint32
	// record is its attributes, once they have been looked at.
	record types.Record
	state  state
}

// A slotValue is the value of a slot in this request, once it has been looked
// at.
type slotValue struct {
	generation uint32
	missing    bool // evaluating it is an error
	value      val
}

// A state says whether something has been looked up, and with what result.
type state uint8

const (
	unread state = iota
	present
	missing
)

func newScratch(p *Program) *scratch {
	s := &scratch{
		p:      p,
		slots:  make([]slotValue, len(p.code.slots)),
		shared: make([]uint32, p.index.shared+1),
		stack:  make([]val, p.code.depth),
		seen:   map[types.EntityUID]bool{},
	}
	for i := range s.subjects {
		s.subjects[i].marks = make([]uint32, len(p.index.names.entities))
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
	s.prepare(principalVar, req.Principal, &s.keys[byPrincipal])
	s.prepare(resourceVar, req.Resource, &s.keys[byResource])
	s.prepareAction()
}

func (p *Program) end(s *scratch) {
	// The pool must not keep the request alive.
	s.req = nil
	p.pool.Put(s)
}

// prepare works out the keys of the principal or the resource.
func (s *scratch) prepare(v int, uid types.EntityUID, keys *[]key) {
	sub := s.reset(v, uid)
	n := s.p.index.names
	ks := append((*keys)[:0], anyEntity)
	if sub.typ >= 0 {
		ks = append(ks, makeKey(isType, sub.typ))
	}
	if sub.self >= 0 {
		ks = append(ks, makeKey(isEntity, sub.self))
	}
	for _, e := range s.closure(uid) {
		if id, ok := n.entities[e]; ok {
			sub.marks[id] = s.generation
			ks = append(ks, makeKey(inEntity, id))
		}
	}
	*keys = ks
}

func (s *scratch) reset(v int, uid types.EntityUID) *subject {
	n := s.p.index.names
	sub := &s.subjects[v]
	sub.uid, sub.self, sub.typ = uid, -1, -1
	sub.state, sub.record = unread, types.Record{}
	if id, ok := n.entities[uid]; ok {
		sub.self = id
	}
	if id, ok := n.types[uid.Type]; ok {
		sub.typ = id
	}
	return sub
}

// prepareAction finds the nodes of the action's keys. The schema's actions are
// worked out when the program is compiled; others are looked up here.
func (s *scratch) prepareAction() {
	x := &s.p.index
	s.roots = s.roots[:0]
	if a, ok := x.actions[s.req.Action]; ok {
		sub := &s.subjects[actionVar]
		sub.uid, sub.self, sub.typ = s.req.Action, a.self, a.typ
		sub.state, sub.record = unread, types.Record{}
		for _, id := range a.marks {
			sub.marks[id] = s.generation
		}
		s.roots = append(s.roots, a.roots...)
		return
	}
	sub := s.reset(actionVar, s.req.Action)
	s.root(anyEntity)
	if sub.self >= 0 {
		s.root(makeKey(isEntity, sub.self))
	}
	for _, e := range s.closure(s.req.Action) {
		if id, ok := x.names.entities[e]; ok {
			sub.marks[id] = s.generation
			s.root(makeKey(inEntity, id))
		}
	}
}

func (s *scratch) root(k key) {
	if n, ok := s.p.index.roots[k]; ok {
		s.roots = append(s.roots, n)
	}
}

// fewEntities is up to how many a search through a slice beats a map.
const fewEntities = 16

// closure returns uid and everything it is in. The result is valid until the
// next call.
func (s *scratch) closure(uid types.EntityUID) []types.EntityUID {
	q := append(s.queue[:0], uid)
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

// queued reports whether q has e.
func (s *scratch) queued(q []types.EntityUID, e types.EntityUID) bool {
	if len(q) <= fewEntities {
		for i := range q {
			if q[i] == e {
				return true
			}
		}
		return false
	}
	if len(q) == fewEntities+1 {
		clear(s.seen)
		for _, old := range q {
			s.seen[old] = true
		}
	}
	if s.seen[e] {
		return true
	}
	s.seen[e] = true
	return false
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
		for _, k := range s.keys[n.by] {
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
