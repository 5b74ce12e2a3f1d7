package coaz

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// Bounds on a mapping.
const (
	maxMapping     = 64 << 10
	maxEntries     = 32
	maxExpressions = 128
	maxNodes       = 1024
)

// The members of a mapping.
const (
	envelopeOne  = "evaluation"
	envelopeMany = "evaluations"
	subjectPart  = "subject"
	actionPart   = "action"
	resourcePart = "resource"
	contextPart  = "context"
)

// defaultType is the type of a subject of which the mapping does not say it.
const defaultType = "identity"

// Compile checks a declared mapping. The error is an [*Error] and says where
// the mapping is malformed, to whoever is to trust it.
func Compile(raw json.RawMessage) (*Mapping, error) {
	c := compiler{}
	m, err := c.mapping(raw)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// A compiler compiles one mapping.
type compiler struct {
	expressions, nodes int
}

func (c *compiler) mapping(raw json.RawMessage) (*Mapping, error) {
	if len(raw) > maxMapping {
		return nil, &Error{Path: "mapping", Reason: fmt.Sprintf("has more than %d bytes", maxMapping)}
	}
	var r ijson.Reader // also checks all that is read of it later
	r.Reset(raw)
	if v := r.Value(); r.End() != nil || !isObject(v) {
		return nil, &Error{Path: "mapping", Reason: "is not a JSON object (I-JSON)"}
	}
	envelope := members(raw)
	if len(envelope) != 1 {
		return nil, &Error{Path: "mapping", Reason: fmt.Sprintf("has %d members instead of one, the envelope", len(envelope))}
	}
	m, err := &Mapping{}, error(nil)
	switch key := envelope[0].name; key {
	case envelopeOne:
		m.single = true
		m.base, err = c.one(key, envelope[0].value)
	case envelopeMany:
		m.base, m.entries, err = c.many(key, envelope[0].value)
	default:
		err = &Error{Path: "mapping", Reason: fmt.Sprintf("has the envelope %q, which is neither %q nor %q", printable(key), envelopeOne, envelopeMany)}
	}
	if err != nil {
		return nil, err
	}
	m.claim, m.unanchored = m.base.anchor()
	return m, nil
}

// one compiles the template of an Access Evaluation request.
func (c *compiler) one(path string, text json.RawMessage) (parts, error) {
	body, err := object(path, text, subjectPart, actionPart, resourcePart, contextPart)
	if err != nil {
		return parts{}, err
	}
	p, err := c.parts(path, body)
	if err != nil {
		return parts{}, err
	}
	p.subject, err = c.subject(path, p.subject)
	if err != nil {
		return parts{}, err
	}
	return p, p.complete(path, parts{})
}

// many compiles the template of an Access Evaluations request.
func (c *compiler) many(path string, text json.RawMessage) (base parts, entries []parts, err error) {
	body, err := object(path, text, subjectPart, actionPart, resourcePart, contextPart, envelopeMany)
	if err != nil {
		return parts{}, nil, err
	}
	if base, err = c.parts(path, body); err != nil {
		return parts{}, nil, err
	}
	if base.subject, err = c.subject(path, base.subject); err != nil {
		return parts{}, nil, err
	}
	path += "." + envelopeMany
	// An expression there would make the number of decisions depend on the
	// message (COAZ, The Expression Contract).
	list, ok := elements(find(body, envelopeMany))
	if !ok || len(list) == 0 || len(list) > maxEntries {
		return parts{}, nil, &Error{Path: path, Reason: fmt.Sprintf("is not a list of 1 to %d entries", maxEntries)}
	}
	for i, e := range list {
		path := fmt.Sprintf("%s[%d]", path, i)
		own, err := object(path, e, actionPart, resourcePart, contextPart, subjectPart)
		if err != nil {
			return parts{}, nil, err
		}
		if find(own, subjectPart) != nil {
			// COAZ-MCP, Declared Mappings: to close off identity smuggling.
			return parts{}, nil, &Error{Path: path + "." + subjectPart, Reason: "is not allowed: the subject stands above the entries and applies to all"}
		}
		p, err := c.parts(path, own)
		if err == nil {
			err = p.complete(path, base)
		}
		if err != nil {
			return parts{}, nil, err
		}
		entries = append(entries, p)
	}
	return base, entries, nil
}

// parts compiles the parts that are there.
func (c *compiler) parts(path string, body []memberOf) (p parts, err error) {
	for _, part := range []struct {
		name  string
		to    **node
		allow []string
	}{
		{subjectPart, &p.subject, []string{"type", "id", "properties"}},
		{actionPart, &p.action, []string{"name", "properties"}},
		{resourcePart, &p.resource, []string{"type", "id", "properties"}},
		{contextPart, &p.context, nil},
	} {
		text := find(body, part.name)
		if text == nil {
			continue
		}
		path := path + "." + part.name
		n, err := c.node(path, text, 0)
		if err != nil {
			return parts{}, err
		}
		if err := n.fits(part.allow); err != nil {
			return parts{}, err
		}
		*part.to = n
	}
	if id := p.resource.child("id"); id != nil {
		id.role = resourceID
	}
	return p, nil
}

// subject fills in what the mapping leaves out of the subject.
func (c *compiler) subject(path string, n *node) (*node, error) {
	path += "." + subjectPart
	if n == nil {
		n = &node{path: path, kind: objectNode}
	}
	if n.kind != objectNode {
		return n, nil
	}
	filled := *n
	for _, m := range []struct{ name, text string }{{"type", `"` + defaultType + `"`}, {"id", `"$token.` + SubjectClaim + `"`}} {
		if filled.child(m.name) != nil {
			continue
		}
		child, err := c.node(path+"."+m.name, json.RawMessage(m.text), 0)
		if err != nil {
			return nil, err
		}
		filled.names, filled.children = append(filled.names, m.name), append(filled.children, child)
	}
	filled.child("id").role = subjectID
	return &filled, nil
}

// complete reports what a request is missing even with the defaults.
func (p parts) complete(path string, base parts) error {
	switch {
	case p.action == nil && base.action == nil:
		return &Error{Path: path + "." + actionPart, Reason: "is missing"}
	case p.resource == nil && base.resource == nil:
		return &Error{Path: path + "." + resourcePart, Reason: "is missing"}
	default:
		return nil
	}
}

// anchor is the claim that subject.id is, if it is one.
func (p parts) anchor() (claim string, unanchored bool) {
	id := p.subject.child("id")
	if id == nil || id.kind != expressionNode || id.expression.claim == "" {
		return "", true
	}
	return id.expression.claim, false
}

// A node is a value of a template.
type node struct {
	path string
	kind nodeKind
	role role
	// literal is the JSON of a literal.
	literal json.RawMessage
	// expression is what an expression node evaluates.
	expression *expression
	// names and children are the members of an object, children the elements of
	// a list.
	names    []string
	children []*node
}

// A role says for which field of a request an expression has a rule of its
// own.
type role int

const (
	noRole role = iota
	subjectID
	resourceID
)

type nodeKind int

const (
	literalNode nodeKind = iota
	expressionNode
	objectNode
	listNode
)

// child is the member of an object, or nil.
func (n *node) child(name string) *node {
	if n == nil || n.kind != objectNode {
		return nil
	}
	if i := slices.Index(n.names, name); i >= 0 {
		return n.children[i]
	}
	return nil
}

// fits reports whether a part of a request can become of the node: an object,
// with these members if they are listed.
func (n *node) fits(allow []string) error {
	switch n.kind {
	case expressionNode:
		return nil
	case objectNode:
	default:
		return &Error{Path: n.path, Reason: "is neither an object nor an expression"}
	}
	if allow == nil {
		return nil
	}
	for _, name := range n.names {
		if !slices.Contains(allow, name) {
			return &Error{Path: n.path, Reason: fmt.Sprintf("has the member %q: attributes of one's own belong into properties", printable(name))}
		}
	}
	return nil
}

// node compiles one value.
func (c *compiler) node(path string, text json.RawMessage, depth int) (*node, error) {
	if c.nodes++; c.nodes > maxNodes || depth > maxDepth {
		return nil, &Error{Path: path, Reason: fmt.Sprintf("is more than %d values or %d levels of a mapping", maxNodes, maxDepth)}
	}
	n := &node{path: path}
	switch text[0] {
	case '{':
		n.kind = objectNode
		for _, m := range members(text) {
			child, err := c.node(path+"."+printable(m.name), m.value, depth+1)
			if err != nil {
				return nil, err
			}
			n.names, n.children = append(n.names, m.name), append(n.children, child)
		}
		return n, nil
	case '[':
		n.kind = listNode
		list, _ := elements(text)
		for i, e := range list {
			child, err := c.node(fmt.Sprintf("%s[%d]", path, i), e, depth+1)
			if err != nil {
				return nil, err
			}
			n.children = append(n.children, child)
		}
		return n, nil
	case '"':
		return c.text(n, text)
	default:
		n.literal = text
		return n, nil
	}
}

// text compiles a string: an expression if it begins with $, unless it begins
// with $$, which stands for $ (COAZ, Literals and Expressions).
func (c *compiler) text(n *node, text json.RawMessage) (*node, error) {
	s := stringOf(text)
	source, dollar := strings.CutPrefix(s, "$")
	switch {
	case !dollar:
		n.literal = text
		return n, nil
	case strings.HasPrefix(source, "$"):
		literal, err := appendString(nil, source)
		n.literal = literal
		return n, err // never: what was read from I-JSON is UTF-8
	}
	if c.expressions++; c.expressions > maxExpressions {
		return nil, &Error{Path: n.path, Reason: fmt.Sprintf("is more than the %d expressions that a mapping may have", maxExpressions)}
	}
	var err error
	n.kind = expressionNode
	n.expression, err = compileExpression(source)
	if err != nil {
		return nil, &Error{Path: n.path, Expression: s, Reason: err.Error()}
	}
	return n, nil
}

// A memberOf is a member of a JSON object.
type memberOf struct {
	name  string
	value json.RawMessage
}

// members reads an object that is known to be I-JSON.
func members(text json.RawMessage) []memberOf {
	var list []memberOf
	var r ijson.Reader
	r.Reset(text)
	if !r.Object() {
		return nil
	}
	for name, ok := r.Next(); ok; name, ok = r.Next() {
		list = append(list, memberOf{string(name), r.Value()})
	}
	return list
}

// elements reads a list that is known to be I-JSON. It is false for anything
// else.
func elements(text json.RawMessage) (list []json.RawMessage, ok bool) {
	var r ijson.Reader
	r.Reset(text)
	if !r.Array() {
		return nil, false
	}
	for r.Element() {
		list = append(list, r.Value())
	}
	return list, true
}

// stringOf reads a string that is known to be I-JSON.
func stringOf(text json.RawMessage) string {
	var r ijson.Reader
	r.Reset(text)
	s, _ := r.String()
	return s
}

// object reads an object with these members at most.
func object(path string, text json.RawMessage, allow ...string) ([]memberOf, error) {
	if !isObject(text) {
		return nil, &Error{Path: path, Reason: "is not an object"}
	}
	list := members(text)
	for _, m := range list {
		if !slices.Contains(allow, m.name) {
			return nil, &Error{Path: path, Reason: fmt.Sprintf("has the member %q, which is not one of %s", printable(m.name), strings.Join(allow, ", "))}
		}
	}
	return list, nil
}

func find(list []memberOf, name string) json.RawMessage {
	for _, m := range list {
		if m.name == name {
			return m.value
		}
	}
	return nil
}
