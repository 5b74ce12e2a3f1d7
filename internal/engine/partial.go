package engine

import (
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// An Unknown says what is not known of a request. A completion of the request
// has anything there, of any type, or nothing.
type Unknown struct {
	// Context are paths in the context, such as {"auth", "age"}. All that is
	// beneath is unknown too; the empty path is the whole context.
	Context [][]types.String
	// Entities reports the entities of which attributes, tags and parents are
	// not known, nor whether they exist. nil means that all are known. Of an
	// action of the schema all is known whatever it reports.
	Entities func(types.EntityUID) bool
}

// A PartialAnswer is what can be said of a request of which some is unknown.
type PartialAnswer struct {
	// Decided is set when every completion of the request has the same answer.
	// There may be requests of which that is true and this is not set.
	Decided bool
	// Answer is that answer. When nothing is decided it is the zero Answer,
	// which denies.
	Answer Answer
	// Reads are all that the answer depends on besides the principal, the
	// action and the resource: another request of the same with the same answers
	// to these questions has the same Answer, whatever else is in it.
	Reads Reads
}

// Partial answers a request as far as the unknown allows: see
// docs/design/006-fast-path.md. It walks syntax trees, and may look at every
// policy when it is not known what the principal, action or resource is in, so
// it is slower than Authorize by far.
func (p *Program) Partial(req *Request, u Unknown) PartialAnswer {
	s := p.begin(req)
	w := walker{s: s, unknown: u, reads: map[string]Read{}}
	decided := w.decide()
	p.end(s)
	if !decided {
		return PartialAnswer{}
	}
	// The request as it is, is one of its completions.
	a := p.Authorize(req)
	if !w.agrees(a) {
		return PartialAnswer{}
	}
	return PartialAnswer{Decided: true, Answer: a, Reads: w.sorted()}
}

// decide finds out what every policy comes to, and reports whether that settles
// the answer.
func (w *walker) decide() bool {
	scopes := w.scopes()
	candidates := w.candidates(scopes)
	// Forbids first: if one matches, permits that do or do not match make no
	// difference.
	for _, effect := range []string{policy.Forbid, policy.Permit} {
		for _, i := range candidates {
			pol := w.s.p.policies[i]
			if pol.Effect == effect && !w.settle(i, w.policy(pol.AST, scopes)) {
				return false
			}
		}
	}
	for i := range scopes {
		w.noteAncestors(&scopes[i])
	}
	return true
}

// settle notes what a policy comes to. It reports false if that leaves the
// answer open.
func (w *walker) settle(i int32, r result) bool {
	forbid := w.s.p.policies[i].Effect == policy.Forbid
	switch {
	case r.failed:
		w.failed = append(w.failed, i)
	case r.can() == canNo:
	case r.can() == canYes && forbid:
		w.forbids = append(w.forbids, i)
	case r.can() == canYes:
		w.permits = append(w.permits, i)
	default:
		// Errors are part of the answer, permits beside a forbid are not.
		return !forbid && len(w.forbids) > 0 && r.can()&canFail == 0
	}
	return true
}

// agrees reports whether the answer is the one that the walk has come to. It
// always is, unless one of the two evaluators is wrong: then nothing is decided.
func (w *walker) agrees(a Answer) bool {
	determining := w.permits
	if len(w.forbids) > 0 {
		determining = w.forbids
	}
	failed := make([]*policy.Policy, len(a.Errors))
	for i, e := range a.Errors {
		failed[i] = e.Policy
	}
	return w.same(a.Determining, determining) && w.same(failed, w.failed)
}

func (w *walker) same(ps []*policy.Policy, is []int32) bool {
	slices.Sort(is)
	return slices.EqualFunc(ps, is, func(p *policy.Policy, i int32) bool { return p == w.s.p.policies[i] })
}

// sorted returns the reads sorted by their paths.
func (w *walker) sorted() Reads {
	reads := make(Reads, 0, len(w.reads))
	for _, path := range slices.Sorted(maps.Keys(w.reads)) {
		reads = append(reads, w.reads[path])
	}
	return reads
}

// A scope is what is known of the principal, the action or the resource.
type scope struct {
	uid types.EntityUID
	in  []types.EntityUID // itself and what it is known to be in
	all bool              // it is in nothing else
	// asked is set when an answer has depended on it.
	asked bool
}

func (w *walker) scopes() []scope {
	scopes := make([]scope, contextVar)
	for v, uid := range [contextVar]types.EntityUID{principalVar: w.s.req.Principal, actionVar: w.s.req.Action, resourceVar: w.s.req.Resource} {
		in, all := w.closure(uid)
		scopes[v] = scope{uid: uid, in: in, all: all}
	}
	return scopes
}

// candidates returns the policies whose scope may fit.
func (w *walker) candidates(scopes []scope) []int32 {
	var is []int32
	if !slices.ContainsFunc(scopes, func(s scope) bool { return !s.all }) {
		for i := range scopes {
			scopes[i].asked = true
		}
		w.s.candidates()
		for _, r := range w.s.found {
			is = append(is, w.s.p.index.rules[r].policy)
		}
		return is
	}
	for i := range w.s.p.policies {
		is = append(is, int32(i))
	}
	return is
}

// policy evaluates a policy.
func (w *walker) policy(p *ast.Policy, scopes []scope) result {
	r := exactly(types.True)
	for v, of := range [contextVar]ast.IsScopeNode{principalVar: p.Principal, actionVar: p.Action, resourceVar: p.Resource} {
		// A scope test cannot fail, so their order makes no difference.
		r = r.and(func() result { return perhaps(scopes[v].fits(of)) })
	}
	for _, c := range p.Conditions {
		r = r.and(func() result {
			one := w.truth(c.Body)
			if c.Condition == ast.ConditionUnless {
				one = one.not()
			}
			return one
		})
	}
	return r
}

// fits returns whether a part of a scope can fit, can fail to, or both.
func (s *scope) fits(of ast.IsScopeNode) possibilities {
	switch of := of.(type) {
	case ast.ScopeTypeAll:
		return canYes
	case ast.ScopeTypeEq:
		return certain(s.uid == of.Entity)
	case ast.ScopeTypeIs:
		return certain(s.uid.Type == of.Type)
	case ast.ScopeTypeIn:
		return s.isIn(of.Entity)
	case ast.ScopeTypeInSet:
		return s.isIn(of.Entities...)
	case ast.ScopeTypeIsIn:
		if s.uid.Type != of.Type {
			return canNo
		}
		return s.isIn(of.Entity)
	default:
		return canAll
	}
}

func (s *scope) isIn(of ...types.EntityUID) possibilities {
	in := slices.ContainsFunc(of, func(e types.EntityUID) bool { return slices.Contains(s.in, e) })
	if !in && !s.all {
		return canNo | canYes
	}
	s.asked = true
	return certain(in)
}

func certain(b bool) possibilities {
	if b {
		return canYes
	}
	return canNo
}

// note notes what has been looked at.
func (w *walker) note(path ReadPath) Read {
	key := string(path.appendKey(nil))
	r, ok := w.reads[key]
	if !ok {
		r, _ = w.s.read(path, &w.unknown) // the walk asks nothing that read does not know
		w.reads[key] = r
	}
	return r
}

// noteAncestors notes what is known of what an entity is in, and no more. What
// the schema knows of actions is the same for all requests.
func (w *walker) noteAncestors(s *scope) {
	if _, fixed := w.s.p.actions[s.uid]; fixed || !s.asked {
		return
	}
	var all []types.Value
	for _, e := range s.in[1:] {
		all = append(all, e)
	}
	path := ReadPath{Kind: ReadAncestors, Entity: s.uid}
	w.reads[string(path.appendKey(nil))] = Read{ReadPath: path, Value: types.NewSet(all...), End: Found}
}

// closure returns uid and what it is known to be in, and whether that is all.
func (w *walker) closure(uid types.EntityUID) (in []types.EntityUID, all bool) {
	in, all = []types.EntityUID{uid}, true
	seen := map[types.EntityUID]bool{uid: true}
	for i := 0; i < len(in); i++ {
		if w.isUnknown(in[i]) {
			all = false
			continue
		}
		e, _ := w.s.entity(in[i]) // a missing entity has no parents
		for parent := range e.Parents.All() {
			if !seen[parent] {
				seen[parent] = true
				in = append(in, parent)
			}
		}
	}
	return in, all
}

func (w *walker) isUnknown(uid types.EntityUID) bool { return w.s.isUnknown(&w.unknown, uid) }

func (s *scratch) isUnknown(u *Unknown, uid types.EntityUID) bool {
	if _, fixed := s.p.actions[uid]; fixed || u.Entities == nil {
		return false
	}
	return u.Entities(uid)
}

// at reports whether a path in the context is unknown, or something beneath it.
func (u *Unknown) at(path []types.String) (unknown, beneath bool) {
	for _, p := range u.Context {
		switch {
		case len(p) <= len(path):
			unknown = unknown || slices.Equal(p, path[:len(p)])
		default:
			beneath = beneath || slices.Equal(p[:len(path)], path)
		}
	}
	return unknown, beneath
}
