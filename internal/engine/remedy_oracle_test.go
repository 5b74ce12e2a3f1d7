package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"pgregory.net/rapid"
)

// A remedyWorld is random policies about facts.
type remedyWorld struct {
	policies []*remedyPolicy
	set      *cedar.PolicySet
	owner    types.Value // of the resource, or nil
}

// A remedyPolicy is a random policy, and what the generator knows of it.
type remedyPolicy struct {
	effect, scope, conditions string
	// roles are those it names, owners is whether it also names the resource's.
	roles  []string
	owners bool
	fits   *cedar.PolicySet // a permit of the same scope without conditions
}

const (
	topLevel  = 3
	topAge    = 4
	remedyTop = 3 // groups
)

// percents are from 0 to 99, each as likely as the others: rapid's numbers are
// mostly small ones.
var percents = rapid.Custom(func(t *rapid.T) int {
	n := 0
	for range 7 {
		n *= 2
		if rapid.Bool().Draw(t, "") {
			n++
		}
	}
	return n * 100 / 128
})

func percent(t *rapid.T) int { return percents.Draw(t, "") }

func chance(t *rapid.T, p int) bool { return percent(t) < p }

func upTo(t *rapid.T, n int) int { return percent(t) * (n + 1) / 100 }

func draw[T any](t *rapid.T, of ...T) T { return of[upTo(t, len(of)-1)] }

func drawRemedyWorld(t *rapid.T) *remedyWorld {
	w := &remedyWorld{owner: draw[types.Value](t, types.String("a"), types.String("d"), types.Long(1), nil)}
	for range draw(t, 2, 1, 3, 4, 5) {
		w.policies = append(w.policies, drawRemedyPolicy(t))
	}
	set, err := cedar.NewPolicySetFromBytes("p.cedar", []byte(w.text()))
	if err != nil {
		t.Fatalf("%v\n%s", err, w.text())
	}
	w.set = set
	return w
}

func (w *remedyWorld) text() string {
	var b strings.Builder
	for _, p := range w.policies {
		fmt.Fprintf(&b, "%s (%s)%s;\n", p.effect, p.scope, p.conditions)
	}
	return b.String()
}

func drawRemedyPolicy(t *rapid.T) *remedyPolicy {
	p := &remedyPolicy{effect: draw(t, "permit", "forbid", "permit")}
	p.scope = strings.Join([]string{
		draw(t, "principal", "principal", "principal", `principal in Group::"g0"`, `principal in Group::"g1"`, `principal is Agent in Group::"g2"`, `principal == Agent::"bot"`, `principal is Group`),
		draw(t, "action", "action", "action", "action", `action == Action::"delete"`, `action in [Action::"read", Action::"delete"]`, `action == Action::"read"`),
		draw(t, "resource", "resource", "resource", "resource", `resource == Server::"db"`, `resource is Server`, `resource in Group::"g0"`),
	}, ", ")
	kinds := []string{"when", "when", "unless"}
	if p.effect == "forbid" {
		kinds = []string{"unless", "unless", "when"}
	}
	for range draw(t, 1, 0, 1, 1, 2) {
		p.conditions += fmt.Sprintf(" %s { %s }", draw(t, kinds...), p.condition(t, 2))
	}
	fits, err := cedar.NewPolicySetFromBytes("p.cedar", []byte("permit ("+p.scope+");"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	p.fits = fits
	return p
}

func (p *remedyPolicy) condition(t *rapid.T, depth int) string {
	if depth > 0 {
		sub := func() string { return "(" + p.condition(t, depth-1) + ")" }
		switch c := percent(t); {
		case c < 25:
			return sub() + " && " + sub()
		case c < 50:
			return sub() + " || " + sub()
		case c < 55:
			return "!" + sub()
		case c < 60:
			return "if " + sub() + " then " + sub() + " else " + sub()
		}
	}
	switch c := percent(t); {
	case c < 25:
		return fmt.Sprintf(`context.approvals.contains(%s)`, p.role(t))
	case c < 35:
		return fmt.Sprintf(`context.approvals.%s([%s, %s])`, draw(t, "containsAll", "containsAny"), p.role(t), p.role(t))
	case c < 45:
		// Roles are drawn only where they are written, so that none is known that
		// the policy does not name.
		switch upTo(t, 3) {
		case 0:
			return fmt.Sprintf(`context.approvals %s [%s]`, draw(t, "==", "!="), p.role(t))
		case 1:
			return fmt.Sprintf(`[[%s], [%s, %s]].contains(context.approvals)`, p.role(t), p.role(t), p.role(t))
		case 2:
			return fmt.Sprintf(`[%s, %s].containsAll(context.approvals)`, p.role(t), p.role(t))
		}
		return `context.approvals.isEmpty()`
	case c < 60:
		return p.number(t, "level", topLevel)
	case c < 75:
		return p.number(t, "age", topAge)
	case c < 85:
		return draw(t, `principal in Group::"g1"`, `resource.agent in Group::"g0"`, `principal in [Group::"g0", Group::"g2"]`, `principal is Agent in Group::"g2"`)
	case c < 90:
		return draw(t, "context.flag", "resource.flag == 1", `context.auth.method == "key"`, "context.auth.level + 9223372036854775806 > 0")
	case c < 95:
		return draw(t, "context.auth has level", "context has auth", "context.missing == 1", `context.flag || context.nothing`, "true", "false")
	default:
		return fmt.Sprintf(`context.approvals.contains(%s) && %s`, p.role(t), p.number(t, "level", topLevel))
	}
}

func (p *remedyPolicy) role(t *rapid.T) string {
	if chance(t, 10) {
		p.owners = true
		return "resource.owner"
	}
	if chance(t, 5) {
		return fmt.Sprintf("(if context.auth.level >= 2 then %s else %s)", p.role(t), p.role(t))
	}
	role := draw(t, "a", "b", "c")
	p.roles = append(p.roles, role)
	return fmt.Sprintf("%q", role)
}

func (p *remedyPolicy) number(t *rapid.T, name string, top int) string {
	path := "context.auth." + name
	n := fmt.Sprint(upTo(t, top+1) - 1)
	if chance(t, 10) {
		n = "resource.number"
	}
	op := draw(t, ">=", "<=", "<", ">", "==", "!=")
	return draw(t, path+" "+op+" "+n, n+" "+op+" "+path, fmt.Sprintf("[%s, %d].contains(%s)", n, top-1, path))
}

// request has a level and an age: without, any number could be proved, and the
// bounds that policies name are as good as others.
func (w *remedyWorld) request(t *rapid.T) *Request {
	agent, db := types.NewEntityUID("Agent", "bot"), types.NewEntityUID("Server", "db")
	auth := types.RecordMap{
		"level":  types.Long(upTo(t, topLevel)),
		"age":    types.Long(upTo(t, topAge+1)),
		"method": types.String("key"),
	}
	context := types.RecordMap{"auth": types.NewRecord(auth), "flag": draw[types.Value](t, types.True, types.False, types.True, types.False, types.Long(1))}
	var approvals []types.Value
	for _, role := range []types.String{"a", "b", "x"} {
		if chance(t, 15) {
			approvals = append(approvals, role)
		}
	}
	if len(approvals) > 0 || !chance(t, 10) {
		context["approvals"] = types.NewSet(approvals...)
	}
	resource := types.RecordMap{"agent": agent, "number": types.Long(upTo(t, topLevel))}
	if w.owner != nil {
		resource["owner"] = w.owner
	}
	entities := types.EntityMap{db: {UID: db, Attributes: types.NewRecord(resource), Parents: types.NewEntityUIDSet(group("g0"))}}
	for i := range remedyTop {
		var parents []types.EntityUID
		if chance(t, 20) {
			parents = append(parents, group(fmt.Sprintf("g%d", upTo(t, remedyTop-1))))
		}
		if chance(t, 80) {
			uid := group(fmt.Sprintf("g%d", i))
			entities[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...)}
		}
	}
	if chance(t, 80) {
		var parents []types.EntityUID
		if chance(t, 20) {
			parents = append(parents, group(draw(t, "g0", "g1", "g2")))
		}
		entities[agent] = types.Entity{UID: agent, Parents: types.NewEntityUIDSet(parents...)}
	}
	return &Request{Principal: agent, Action: types.NewEntityUID("Action", "delete"), Resource: db, Context: types.NewRecord(context), Entities: entities}
}

func (w *remedyWorld) options(t *rapid.T) RemedyOptions {
	o := RemedyOptions{Budget: 1 << 20, MaxFacts: upTo(t, 7)}
	for i := range remedyTop {
		if chance(t, 30) {
			o.Elevations = append(o.Elevations, group(fmt.Sprintf("g%d", i)))
		}
	}
	return o
}

// A trial is one combination of everything that could be proved.
type trial struct {
	approvals []string
	groups    []types.EntityUID
	level     int64 // 0: as it is
	age       int64 // -1: as it is
}

func (c trial) remedy() Remedy {
	var r Remedy
	for _, a := range c.approvals {
		r = append(r, Fact{Kind: Approval, Name: a})
	}
	for _, g := range c.groups {
		r = append(r, Fact{Kind: Elevation, Name: g.String()})
	}
	if c.age >= 0 {
		r = append(r, Fact{Kind: FreshAuth, Level: c.age})
	}
	if c.level > 0 {
		r = append(r, Fact{Kind: StepUp, Level: c.level})
	}
	return r
}

// atMost reports whether c asks for no more than d.
func (c trial) atMost(d trial) bool {
	for _, a := range c.approvals {
		if !slices.Contains(d.approvals, a) {
			return false
		}
	}
	for _, g := range c.groups {
		if !slices.Contains(d.groups, g) {
			return false
		}
	}
	return c.level <= d.level && (c.age == -1 || d.age != -1 && d.age <= c.age)
}

// bruteForce tries everything.
func (w *remedyWorld) bruteForce(req *Request, o RemedyOptions) []Remedy {
	maxFacts := o.MaxFacts
	if maxFacts == 0 {
		maxFacts = 6
	}
	if w.allows(req, trial{age: -1}) {
		return nil
	}
	auth, _ := req.Context.Get("auth")
	level, _ := auth.(types.Record).Get("level")
	age, _ := auth.(types.Record).Get("age")
	levels, ages := []int64{0}, []int64{-1}
	for n := int64(level.(types.Long)) + 1; n <= topLevel+2; n++ {
		levels = append(levels, n)
	}
	for n := range int64(age.(types.Long)) {
		ages = append(ages, n)
	}
	var allowed []trial
	for _, roles := range subsets(w.roles(req, o)) {
		for _, groups := range subsets(w.groups(req, o)) {
			for _, level := range levels {
				for _, age := range ages {
					c := trial{approvals: roles, groups: groups, level: level, age: age}
					if w.allows(req, c) {
						allowed = append(allowed, c)
					}
				}
			}
		}
	}
	var least []Remedy
	for i, c := range allowed {
		if len(c.remedy()) > maxFacts {
			continue
		}
		if !slices.ContainsFunc(allowed, func(d trial) bool { return d.atMost(c) && !c.atMost(d) }) {
			least = append(least, allowed[i].remedy())
		}
	}
	return least
}

func subsets[T any](of []T) [][]T {
	all := [][]T{nil}
	for _, e := range of {
		for _, s := range all {
			all = append(all, append(slices.Clone(s), e))
		}
	}
	return all
}

// roles returns the roles that policies name whose scope fits when the principal
// is in all groups that it can get into, but for those that have approved.
func (w *remedyWorld) roles(req *Request, o RemedyOptions) []string {
	have, _ := req.Context.Get("approvals")
	approvals, _ := have.(types.Set)
	var roles []string
	for _, p := range w.policies {
		if !authorizes(p.fits, req, trial{groups: o.Elevations, age: -1}) {
			continue
		}
		roles = append(roles, p.roles...)
		if owner, ok := w.owner.(types.String); ok && p.owners {
			roles = append(roles, string(owner))
		}
	}
	slices.Sort(roles)
	roles = slices.Compact(roles)
	return slices.DeleteFunc(roles, func(r string) bool { return approvals.Contains(types.String(r)) })
}

// groups returns the offered groups that the principal is not in.
func (w *remedyWorld) groups(req *Request, o RemedyOptions) []types.EntityUID {
	var groups []types.EntityUID
	for _, g := range o.Elevations {
		in := cedar.NewPolicySet()
		text := fmt.Sprintf("permit (principal in %s, action, resource);", g)
		set, err := cedar.NewPolicySetFromBytes("", []byte(text))
		if err == nil {
			in = set
		}
		if !authorizes(in, req, trial{age: -1}) {
			groups = append(groups, g)
		}
	}
	return groups
}

func (w *remedyWorld) allows(req *Request, c trial) bool { return authorizes(w.set, req, c) }

// authorizes asks cedar.Authorize. An error denies.
func authorizes(set *cedar.PolicySet, req *Request, c trial) bool {
	context := req.Context.Map()
	if len(c.approvals) > 0 {
		var all []types.Value
		if have, ok := context["approvals"].(types.Set); ok {
			all = have.Slice()
		}
		for _, a := range c.approvals {
			all = append(all, types.String(a))
		}
		context["approvals"] = types.NewSet(all...)
	}
	auth := context["auth"].(types.Record).Map()
	if c.level > 0 {
		auth["level"] = types.Long(c.level)
	}
	if c.age >= 0 {
		auth["age"] = types.Long(c.age)
	}
	context["auth"] = types.NewRecord(auth)
	entities := types.EntityMap{}
	for uid, e := range req.Entities {
		entities[uid] = e
	}
	if len(c.groups) > 0 {
		e := entities[req.Principal]
		parents := slices.Clone(c.groups)
		for g := range e.Parents.All() {
			parents = append(parents, g)
		}
		e.UID, e.Parents = req.Principal, types.NewEntityUIDSet(parents...)
		entities[req.Principal] = e
	}
	decision, d := cedar.Authorize(set, entities, cedar.Request{
		Principal: req.Principal, Action: req.Action, Resource: req.Resource, Context: types.NewRecord(context)})
	return decision == cedar.Allow && len(d.Errors) == 0
}
