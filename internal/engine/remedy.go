package engine

import (
	"cmp"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// RemedyOptions say what may be offered, and how far to search.
type RemedyOptions struct {
	// Elevations are the groups that the principal may be made a member of.
	// Without any, none is offered.
	Elevations []types.EntityUID
	// MaxFacts is how many facts a remedy may have. 0 means 6.
	MaxFacts int
	// Budget is how many requests may be evaluated. 0 means 4096.
	Budget int
}

const (
	defaultMaxFacts = 6
	defaultBudget   = 4096
)

// Remedies are what would turn a denial into an allow.
type Remedies struct {
	// Sets are all the least remedies: each allows the request, and with a fact
	// less, or a weaker one, it does not. Those with the fewest facts come first.
	Sets []Remedy
	// Complete is false when the budget ended the search: there may be more.
	Complete bool
	// Evaluations is how many requests were evaluated.
	Evaluations int
}

// Remedies finds the facts under which a request that is denied would be
// allowed. An allow has none.
//
// The facts come from the policies whose scope fits the request: what they test
// context.approvals, context.auth.level, .age and .scopes against. A fact
// changes the context, or what the principal is in, and the same policies decide
// again. So nothing overrules a policy, and where a fact makes things worse that
// is seen. A remedy is a forecast: what decides in the end is the request with
// the facts as they have come out.
func (p *Program) Remedies(req *Request, o RemedyOptions) Remedies {
	s := p.begin(req)
	q := remedySearch{p: p, req: req, max: o.MaxFacts, budget: o.Budget}
	q.principal, _ = s.entity(req.Principal) // a missing entity has no parents
	q.chains = q.offer(s, o.Elevations)
	p.end(s)
	if q.max <= 0 {
		q.max = defaultMaxFacts
	}
	if q.budget <= 0 {
		q.budget = defaultBudget
	}
	q.steps = make([]int, len(q.chains))
	q.run()
	return q.result
}

// A chain is facts of which each implies those before it. A request has the
// first few of them, its step, at one time.
type chain struct {
	facts []Fact
	group types.EntityUID // of an elevation
}

// A remedySearch goes through the combinations of steps, the least first.
type remedySearch struct {
	p           *Program
	req         *Request
	principal   types.Entity
	chains      []chain
	max, budget int

	steps  []int   // the combination at hand, by chain
	found  [][]int // those that allow
	result Remedies
}

// offer returns the facts that could make a difference, sorted. There are none
// if the request is allowed, or denied whatever the facts.
func (q *remedySearch) offer(s *scratch, elevations []types.EntityUID) []chain {
	s.candidates()
	uses := q.p.factUses()
	groups := q.newGroups(s, elevations)
	denied, permitted := false, false
	for _, r := range s.found {
		i := q.p.index.rules[r].policy
		outcome := s.outcome(i)
		switch {
		case outcome == Unsatisfied:
			continue
		case outcome == Satisfied && q.p.policies[i].Effect == policy.Permit:
			permitted = true
			continue
		}
		denied = true
		if u := uses.of(q.p, i); !u.depends && !(u.walks && len(groups) > 0) {
			return nil // it is so whatever the facts
		}
	}
	if permitted && !denied {
		return nil
	}
	rules := s.found
	if len(groups) > 0 {
		// A scope that fits without an elevation fits with it.
		rules = q.rules(groups)
	}
	return q.gather(s, uses, rules, groups)
}

// newGroups returns the groups that the principal is not in yet, sorted.
func (q *remedySearch) newGroups(s *scratch, elevations []types.EntityUID) []types.EntityUID {
	if len(elevations) == 0 {
		return nil
	}
	in := ancestors(q.req.Principal, s)
	groups := slices.DeleteFunc(slices.Clone(elevations), func(g types.EntityUID) bool { return slices.Contains(in, g) })
	slices.SortFunc(groups, func(a, b types.EntityUID) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(groups)
}

// rules returns the rules whose scope fits when the principal is in the groups
// too.
func (q *remedySearch) rules(groups []types.EntityUID) []int32 {
	s := q.p.begin(elevated(q.req, q.principal, groups))
	defer q.p.end(s)
	s.candidates()
	return slices.Clone(s.found)
}

// gather collects the facts that the policies of rules ask for.
func (q *remedySearch) gather(s *scratch, uses factUses, rules []int32, groups []types.EntityUID) []chain {
	walks, tests := false, 0
	for _, r := range rules {
		u := uses.of(q.p, q.p.index.rules[r].policy)
		walks = walks || u.walks
		tests += len(u.roles) + len(u.levels) + len(u.ages) + len(u.scopes)
	}
	if tests == 0 && len(groups) == 0 {
		return nil
	}
	roles, scopes, levels, ages := map[string]bool{}, map[string]bool{}, bounds{}, bounds{}
	for _, r := range rules {
		u := uses.of(q.p, q.p.index.rules[r].policy)
		for _, o := range u.roles {
			addStrings(roles, s.operand(o))
		}
		for _, o := range u.scopes {
			addStrings(scopes, s.operand(o))
		}
		for _, o := range u.levels {
			levels.add(s.operand(o), o)
		}
		for _, o := range u.ages {
			ages.add(s.operand(o), o)
		}
	}
	chains := q.approvals(roles)
	if !walks && len(rules) == len(s.found) {
		groups = nil
	}
	for _, g := range groups {
		if walks || len(q.rules([]types.EntityUID{g})) > len(s.found) {
			chains = append(chains, chain{facts: []Fact{{Kind: Elevation, Name: g.String()}}, group: g})
		}
	}
	chains = append(chains, q.authentication(levels, ages)...)
	chains = append(chains, q.scopes(scopes)...)
	// Facts come in the order of a [Remedy].
	slices.SortStableFunc(chains, func(a, b chain) int { return cmp.Compare(a.facts[0].Kind, b.facts[0].Kind) })
	return chains
}

// operand returns what a fact is tested against in this request, or nil.
func (s *scratch) operand(o operand) types.Value {
	if o.value != nil {
		return o.value
	}
	v, err := s.eval(o.node)
	if err != nil {
		return nil
	}
	return v
}

// approvals returns the approvals that are not there yet.
func (q *remedySearch) approvals(roles map[string]bool) []chain {
	have, present := q.req.Record().Get(approvalsName)
	set, ok := have.(types.Set)
	if present && !ok {
		return nil // there is no way to add one
	}
	var chains []chain
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		if !set.Contains(types.String(role)) {
			chains = append(chains, chain{facts: []Fact{{Kind: Approval, Name: role}}})
		}
	}
	return chains
}

// scopes returns the scopes that the token does not have yet.
func (q *remedySearch) scopes(names map[string]bool) []chain {
	have, present := q.req.Record().Get(authName)
	auth, ok := have.(types.Record)
	if present && !ok {
		return nil
	}
	shown, present := auth.Get(scopesName)
	set, ok := shown.(types.Set)
	if present && !ok {
		return nil // there is no way to add one
	}
	var chains []chain
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !set.Contains(types.String(name)) {
			chains = append(chains, chain{facts: []Fact{{Kind: Scope, Name: name}}})
		}
	}
	return chains
}

// authentication returns the ages below the request's, falling, and the levels
// above the request's, rising. Any will do when the request has none.
func (q *remedySearch) authentication(levels, ages bounds) []chain {
	have, present := q.req.Record().Get(authName)
	auth, ok := have.(types.Record)
	if present && !ok {
		return nil
	}
	var fresh, up chain
	age, hasAge := long(auth, ageName)
	for _, b := range slices.Backward(slices.Sorted(maps.Keys(ages))) {
		// Going down, a test changes just below its bound. No age is negative.
		if a := b - 1; b > 0 && (!hasAge || a < age) {
			fresh.facts = append(fresh.facts, Fact{Kind: FreshAuth, Level: a})
		}
	}
	level, hasLevel := long(auth, levelName)
	for _, b := range slices.Sorted(maps.Keys(levels)) {
		if !hasLevel || b > level {
			up.facts = append(up.facts, Fact{Kind: StepUp, Level: b})
		}
	}
	return slices.DeleteFunc([]chain{fresh, up}, func(c chain) bool { return len(c.facts) == 0 })
}

func long(r types.Record, name types.String) (int64, bool) {
	v, _ := r.Get(name)
	n, ok := v.(types.Long)
	return int64(n), ok
}

// run tries the combinations with one fact, then those with two, and so on.
// What comes later is never less than what came before, so a combination that
// allows is a least one unless it contains one that was found.
func (q *remedySearch) run() {
	for size := 1; size <= min(q.max, len(q.chains)); size++ {
		if !q.extend(0, size) {
			return
		}
	}
	q.result.Complete = true
}

// extend adds facts from that many of the chains from the i-th on, and tries
// each result. It reports false when the budget is spent.
func (q *remedySearch) extend(i, size int) bool {
	if size == 0 {
		return q.try()
	}
	for ; i <= len(q.chains)-size; i++ {
		for step := range q.chains[i].facts {
			q.steps[i] = step + 1
			if q.contains() {
				break // and so do the higher steps
			}
			if !q.extend(i+1, size-1) {
				return false
			}
		}
		q.steps[i] = 0
	}
	return true
}

// contains reports whether the combination at hand contains a remedy.
func (q *remedySearch) contains() bool {
	return slices.ContainsFunc(q.found, func(f []int) bool {
		for i, step := range f {
			if q.steps[i] < step {
				return false
			}
		}
		return true
	})
}

func (q *remedySearch) try() bool {
	if q.result.Evaluations == q.budget {
		return false
	}
	q.result.Evaluations++
	remedy, groups := q.remedy()
	req := withFacts(q.req, remedy)
	if len(groups) > 0 {
		req = elevated(req, q.principal, groups)
	}
	if q.p.Authorize(req).Allow {
		q.found = append(q.found, slices.Clone(q.steps))
		q.result.Sets = append(q.result.Sets, remedy)
	}
	return true
}

// remedy returns the facts of the combination at hand, and the groups among
// them.
func (q *remedySearch) remedy() (Remedy, []types.EntityUID) {
	var remedy Remedy
	var groups []types.EntityUID
	for i, step := range q.steps {
		if step == 0 {
			continue
		}
		f := q.chains[i].facts[step-1]
		remedy = append(remedy, f)
		if f.Kind == Elevation {
			groups = append(groups, q.chains[i].group)
		}
	}
	return remedy, groups
}
