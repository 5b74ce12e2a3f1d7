package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// A checker validates policies against a schema and says what is wrong with
// them where, and what was probably meant.
type checker struct {
	schema *resolved.Schema
	// descendants maps an action to all actions that are in it, itself first.
	descendants map[types.EntityUID][]types.EntityUID
	// suggestions is how many more times a nearest name is looked for. Each
	// takes time linear in the catalogue, and nobody reads hundreds.
	suggestions int
}

func newChecker(s *resolved.Schema) *checker {
	c := &checker{schema: s, descendants: map[types.EntityUID][]types.EntityUID{}, suggestions: 200}
	for uid := range s.Actions {
		for _, a := range actionAncestors(s, uid) {
			c.descendants[a] = append(c.descendants[a], uid)
		}
	}
	return c
}

// actionAncestors returns uid and every action group that it is in.
func actionAncestors(s *resolved.Schema, uid types.EntityUID) []types.EntityUID {
	all := []types.EntityUID{uid}
	for i := 0; i < len(all); i++ {
		for parent := range s.Actions[all[i]].Entity.Parents.All() {
			if !slices.Contains(all, parent) {
				all = append(all, parent)
			}
		}
	}
	return all
}

func (c *checker) checkAll(ps []parsedPolicy) Problems {
	var problems Problems
	for _, p := range ps {
		problems = append(problems, c.check(p)...)
	}
	return problems
}

// check validates one policy. Only when it fails are its parts validated one
// by one, because the validator does not say where a fault is.
func (c *checker) check(p parsedPolicy) Problems {
	problems := c.checkEnums(p)
	v := validate.New(c.relevant(p.policy.AST), validate.WithStrict())
	err := v.Policy("", p.policy.AST)
	if err == nil {
		return problems
	}
	clauses := p.clauses()
	scope := *p.policy.AST
	scope.Conditions = nil
	inScope := messages(v.Policy("", &scope))
	faults := faults{}
	for _, m := range inScope {
		faults.add(c.explain(m, p, clauses[0]))
	}
	if len(inScope) > 1 {
		// That nothing applies follows from the unknown name before it.
		faults.drop(noActionApplies)
	}
	for i, condition := range p.policy.AST.Conditions {
		one := *p.policy.AST
		one.Conditions = []ast.ConditionType{condition}
		for _, m := range messages(v.Policy("", &one)) {
			if !slices.Contains(inScope, m) {
				faults.add(c.explain(m, p, clauses[i+1]))
			}
		}
	}
	return append(problems, faults.problems(p)...)
}

// relevant returns the schema without the actions that the policy can neither
// apply to nor name. The validator's work grows with the actions it is given,
// and would make loading quadratic in the size of the catalogue.
func (c *checker) relevant(p *ast.Policy) *resolved.Schema {
	var targets []types.EntityUID
	switch s := p.Action.(type) {
	case ast.ScopeTypeEq:
		targets = []types.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		targets = c.descendants[s.Entity]
	case ast.ScopeTypeInSet:
		for _, e := range s.Entities {
			targets = append(targets, c.descendants[e]...)
		}
	default:
		return c.schema
	}
	targets = slices.Clone(targets)
	// Any one action makes the validator know the type of actions.
	for uid := range c.schema.Actions {
		targets = append(targets, uid)
		break
	}
	literals(p, func(uid types.EntityUID) { targets = append(targets, uid) })
	actions := map[types.EntityUID]resolved.Action{}
	for _, t := range targets {
		for _, uid := range actionAncestors(c.schema, t) {
			if a, ok := c.schema.Actions[uid]; ok {
				actions[uid] = a
			}
		}
	}
	reduced := *c.schema
	reduced.Actions = actions
	return &reduced
}

// literals calls visit with every entity that the policy names.
func literals(p *ast.Policy, visit func(types.EntityUID)) {
	for _, scope := range []ast.IsScopeNode{p.Principal, p.Action, p.Resource} {
		switch s := scope.(type) {
		case ast.ScopeTypeEq:
			visit(s.Entity)
		case ast.ScopeTypeIn:
			visit(s.Entity)
		case ast.ScopeTypeIsIn:
			visit(s.Entity)
		case ast.ScopeTypeInSet:
			for _, e := range s.Entities {
				visit(e)
			}
		}
	}
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if v, ok := n.(ast.NodeValue); ok {
				if uid, ok := v.Value.(types.EntityUID); ok {
					visit(uid)
				}
			}
			return true
		})
	}
}

// checkEnums reports entities that are not among the values of their
// enumerated type, which cedar-go's validator does not look at.
func (c *checker) checkEnums(p parsedPolicy) Problems {
	var problems Problems
	literals(p.policy.AST, func(uid types.EntityUID) {
		enum, ok := c.schema.Enums[uid.Type]
		if !ok || slices.Contains(enum.Values, uid) {
			return
		}
		ids := make([]string, len(enum.Values))
		for i, v := range enum.Values {
			ids[i] = string(v.ID)
		}
		message := fmt.Sprintf("%s is not a value of its type", uid)
		if near := c.nearest(string(uid.ID), ids); near != "" {
			message += fmt.Sprintf(": did you mean %s?", types.NewEntityUID(uid.Type, types.String(near)))
		}
		problems = append(problems, p.problemAt(findEntity(p.tokens, uid), message))
	})
	return problems
}

func (c *checker) nearest(name string, known []string) string {
	if c.suggestions == 0 {
		return ""
	}
	c.suggestions--
	return nearest(name, known)
}

// messages returns the messages of an error and of all those joined in it.
func messages(err error) []string {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []string{err.Error()}
	}
	var ms []string
	for _, e := range joined.Unwrap() {
		ms = append(ms, messages(e)...)
	}
	return ms
}

// clauses returns the tokens of the scope, then of each condition.
func (p parsedPolicy) clauses() [][]token {
	var clauses [][]token
	start, open := 0, 0
	for i, t := range p.tokens {
		switch t.text {
		case "(", "[", "{":
			open++
		case ")", "]", "}":
			open--
		case "when", "unless":
			// At the top the words can only begin a condition; below they may be
			// attributes; the annotation of that name is unknown.
			if open == 0 {
				clauses = append(clauses, p.tokens[start:i])
				start = i
			}
		}
	}
	return append(clauses, p.tokens[start:])
}

// A fault is one thing that is wrong at one place, for one or more actions or
// types.
type fault struct {
	at      token
	message string
	// subjects are the actions or types for which it is wrong.
	subjects []string
	// advice is what was probably meant.
	advice string
}

// faults collects faults, those that differ only in their subject as one: a
// policy on a group would otherwise repeat each fault for each tool.
type faults struct{ list []fault }

func (fs *faults) add(f fault) {
	for i := range fs.list {
		if g := &fs.list[i]; g.at == f.at && g.message == f.message {
			g.subjects = append(g.subjects, f.subjects...)
			return
		}
	}
	fs.list = append(fs.list, f)
}

func (fs *faults) drop(message string) {
	fs.list = slices.DeleteFunc(fs.list, func(f fault) bool { return f.message == message })
}

func (fs *faults) problems(p parsedPolicy) Problems {
	var problems Problems
	for _, f := range fs.list {
		message := f.message
		subjects := slices.Compact(slices.Sorted(slices.Values(f.subjects)))
		if len(subjects) > 0 {
			message += " " + subjects[0]
		}
		if more := len(subjects) - 1; more > 0 {
			message += fmt.Sprintf(" and %d more", more)
		}
		if f.advice != "" {
			message += ": " + f.advice
		}
		problems = append(problems, p.problemAt(f.at, message))
	}
	return problems
}

const noActionApplies = "no action can apply to this principal and resource"

// The validator's messages, which are all that it tells. TestProblems holds
// each, so that a cedar-go that words them differently is noticed.
var (
	unknownAction    = regexp.MustCompile("^unrecognized action `(.*)`$")
	unknownType      = regexp.MustCompile("^unrecognized entity type `(.*)`$")
	unknownInContext = regexp.MustCompile("^attribute `(.*)` in context for (.*) not found$")
	unknownInEntity  = regexp.MustCompile("^attribute `(.*)` on entity type `(.*)` not found$")
	mayBeAbsent      = regexp.MustCompile("^unable to guarantee safety of access to optional attribute `(.*)` (in context for|on entity type) (.*)$")
	notApplicable    = "unable to find an applicable action given the policy scope constraints"
)

// explain turns a message of the validator into a fault: where it is among
// the tokens, and what was probably meant.
func (c *checker) explain(message string, p parsedPolicy, tokens []token) fault {
	if m := unknownAction.FindStringSubmatch(message); m != nil {
		return c.explainAction(m[1], tokens)
	}
	if m := unknownType.FindStringSubmatch(message); m != nil {
		return c.explainType(m[1], tokens)
	}
	if m := unknownInContext.FindStringSubmatch(message); m != nil {
		return c.explainContext(m[1], m[2], tokens)
	}
	if m := unknownInEntity.FindStringSubmatch(message); m != nil {
		return c.explainEntity(m[1], types.EntityType(m[2]), tokens)
	}
	if m := mayBeAbsent.FindStringSubmatch(message); m != nil {
		return explainAbsent(m[1], m[2], m[3], tokens)
	}
	if message == notApplicable {
		return fault{at: tokens[0], message: noActionApplies, advice: c.applies(p.policy.AST)}
	}
	return fault{at: tokens[0], message: message}
}

func (c *checker) explainAction(text string, tokens []token) fault {
	uid := parseUID(text)
	var ids []string
	for a := range c.schema.Actions {
		if a.Type == uid.Type {
			ids = append(ids, string(a.ID))
		}
	}
	f := fault{at: findEntity(tokens, uid), message: "unknown action " + text,
		advice: "'bailiwick catalog list' shows the actions"}
	if c.suggestions > 0 {
		c.suggestions--
		if near := nearestAction(string(uid.ID), ids); near != "" {
			f.advice = fmt.Sprintf("did you mean %s?", types.NewEntityUID(uid.Type, types.String(near)))
		}
	}
	return f
}

func (c *checker) explainType(name string, tokens []token) fault {
	var known []string
	for t := range c.schema.Entities {
		known = append(known, string(t))
	}
	for t := range c.schema.Enums {
		known = append(known, string(t))
	}
	f := fault{at: findPath(tokens, name), message: "unknown entity type " + name}
	if near := c.nearest(name, known); near != "" {
		f.advice = fmt.Sprintf("did you mean %s?", near)
	}
	return f
}

func (c *checker) explainContext(name, action string, tokens []token) fault {
	f := fault{at: tokens[0], message: fmt.Sprintf("unknown attribute %s in the context of", name), subjects: []string{action}}
	var context resolved.RecordType
	if a := c.schema.Actions[parseUID(action)]; a.AppliesTo != nil {
		context = a.AppliesTo.Context
	}
	for _, o := range occurrences(tokens, name) {
		if len(o.path) == 0 || o.path[0] != "context" {
			continue
		}
		record, ok := recordAt(context, o.path[1:])
		if _, has := record[types.String(name)]; !ok || has {
			continue
		}
		f.at = o.token
		f.message = fmt.Sprintf("unknown attribute %s for", chain(append(o.path, name)))
		f.advice = c.adviseAttribute(name, record)
		return f
	}
	return f
}

func (c *checker) explainEntity(path string, typ types.EntityType, tokens []token) fault {
	f := fault{at: tokens[0], message: fmt.Sprintf("unknown attribute %s of", path), subjects: []string{string(typ)}}
	names := strings.Split(path, ".")
	name := names[len(names)-1]
	for _, o := range occurrences(tokens, name) {
		if len(o.path) == 0 || o.path[0] != "context" {
			f.at = o.token
			break
		}
	}
	if record, ok := recordAt(c.schema.Entities[typ].Shape, names[:len(names)-1]); ok {
		f.advice = c.adviseAttribute(name, record)
	}
	return f
}

func (c *checker) adviseAttribute(name string, record resolved.RecordType) string {
	var known []string
	for k := range record {
		known = append(known, string(k))
	}
	if near := c.nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %s?", attribute(near))
	}
	if len(known) == 0 || len(known) > 12 {
		return ""
	}
	slices.Sort(known)
	return "it has " + strings.Join(known, ", ")
}

func explainAbsent(path, where, subject string, tokens []token) fault {
	names := strings.Split(path, ".")
	name := names[len(names)-1]
	f := fault{at: tokens[0], subjects: []string{strings.Trim(subject, "`")}}
	owner := append([]string{"(entity)"}, names[:len(names)-1]...)
	if where == "in context for" {
		owner[0] = "context"
	}
	for _, o := range occurrences(tokens, name) {
		if o.access && slices.Equal(o.path[min(1, len(o.path)):], owner[1:]) {
			owner, f.at = o.path, o.token
			break
		}
	}
	holder := chain(owner)
	f.message = fmt.Sprintf("%s may be absent for", chain(append(slices.Clone(owner), name)))
	f.advice = fmt.Sprintf("write %s has %s && ... before it", holder, attribute(name))
	return f
}

// chain writes a chain of attributes as Cedar.
func chain(names []string) string {
	var b strings.Builder
	b.WriteString(names[0])
	for _, n := range names[1:] {
		if a := attribute(n); a == n {
			b.WriteString("." + a)
		} else {
			b.WriteString("[" + a + "]")
		}
	}
	return b.String()
}

// attribute writes an attribute's name as Cedar: quoted, if it must be.
func attribute(name string) string {
	plain := strings.TrimFunc(name, func(r rune) bool { return r < 128 && (isIdent(byte(r)) || isDigit(byte(r))) })
	if name == "" || plain != "" || isDigit(name[0]) {
		return string(types.String(name).MarshalCedar())
	}
	return name
}

// applies says what the actions in the policy's scope can be done by and to.
func (c *checker) applies(p *ast.Policy) string {
	var uid types.EntityUID
	switch s := p.Action.(type) {
	case ast.ScopeTypeEq:
		uid = s.Entity
	case ast.ScopeTypeIn:
		uid = s.Entity
	}
	a := c.schema.Actions[uid]
	if a.AppliesTo == nil {
		return ""
	}
	return fmt.Sprintf("%s has principals %s and resources %s", uid, join(a.AppliesTo.Principals), join(a.AppliesTo.Resources))
}

func join(ts []types.EntityType) string {
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = string(t)
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// parseUID reads an entity as cedar-go prints it. Messages hold nothing else,
// so a failure cannot name anything and the zero entity will do.
func parseUID(text string) types.EntityUID {
	var uid types.EntityUID
	_ = uid.UnmarshalCedar([]byte(text)) // see above
	return uid
}

// recordAt follows attribute names from a record to the record at their end.
func recordAt(r resolved.RecordType, path []string) (resolved.RecordType, bool) {
	for _, name := range path {
		next, ok := r[types.String(name)].Type.(resolved.RecordType)
		if !ok {
			return nil, false
		}
		r = next
	}
	return r, true
}

// findEntity returns the token of an entity's id, or the first token.
func findEntity(tokens []token, uid types.EntityUID) token {
	for i, t := range tokens {
		if i > 0 && tokens[i-1].text == "::" && t.kind == tokenString && unquote(t) == string(uid.ID) {
			return t
		}
	}
	return tokens[0]
}

// findPath returns the first token of a::b::c, or the first token of all.
func findPath(tokens []token, path string) token {
	var words []string
	for _, w := range strings.SplitAfter(path, "::") {
		name, sep := strings.TrimSuffix(w, "::"), strings.HasSuffix(w, "::")
		words = append(words, name)
		if sep {
			words = append(words, "::")
		}
	}
	for i := range tokens {
		if len(tokens)-i < len(words) {
			break
		}
		if slices.EqualFunc(tokens[i:i+len(words)], words, func(t token, w string) bool { return t.text == w }) {
			return tokens[i]
		}
	}
	return tokens[0]
}

// An occurrence is a place where an attribute is named.
type occurrence struct {
	token token
	// path is what the attribute is taken from: "context", "input".
	path []string
	// access is set for an access and not for a has.
	access bool
}

// occurrences returns the places where the attribute name is named.
func occurrences(tokens []token, name string) []occurrence {
	var found []occurrence
	for i := 1; i < len(tokens); i++ {
		t := tokens[i]
		if t.text != name && (t.kind != tokenString || unquote(t) != name) {
			continue
		}
		switch tokens[i-1].text {
		case ".", "[", "has":
			o := occurrence{token: t, access: tokens[i-1].text != "has"}
			o.path = pathBefore(tokens[:i-1])
			found = append(found, o)
		}
	}
	return found
}

// pathBefore returns the names a.b["c"] that the tokens end with.
func pathBefore(tokens []token) []string {
	var path []string
	for n := len(tokens); n > 0; n = len(tokens) {
		last := tokens[n-1]
		switch {
		case last.text == "]" && n >= 3 && tokens[n-2].kind == tokenString && tokens[n-3].text == "[":
			path = append(path, unquote(tokens[n-2]))
			tokens = tokens[:n-3]
			continue
		case last.kind == tokenIdent:
			path = append(path, last.text)
		}
		if last.kind != tokenIdent || n < 2 || tokens[n-2].text != "." && tokens[n-2].text != "has" {
			break
		}
		tokens = tokens[:n-2]
	}
	slices.Reverse(path)
	return path
}
