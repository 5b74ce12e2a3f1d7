package catalog

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/cedar-policy/cedar-go/types"
)

// A kind is what a JSON Schema says about a value, as far as Cedar can say it
// too.
type kind uint8

const (
	// kindUnknown is what cannot be typed. Policy sees that it is there and
	// its digest, and nothing of what is inside.
	kindUnknown kind = iota
	kindNull
	kindBool
	kindLong
	kindNumber
	kindFloat
	kindString
	kindDecimal
	kindDatetime
	kindDuration
	kindIPv4
	kindIPv6
	kindEnum
	kindSet
	kindTuple
	kindUnion
	kindObject
	kindRef
)

// Bounds on what one tool may make of a schema. What goes beyond is unknown.
const (
	maxShapeDepth = 32
	maxShapeNodes = 4096
)

// A shape is the type of a JSON value. The generator writes into it which
// Cedar type it has become, and from then on it is immutable.
type shape struct {
	kind   kind
	values []string // of an enum; of a string, the only values allowed
	elem   *shape   // of a set; of an object, the type of undeclared members
	items  []*shape // of a tuple and a union
	fields []field  // of an object, sorted by name
	open   bool     // of an object: undeclared members are let through
	ref    string   // of a ref: the name of the definition
	target *shape   // of a ref, once linked
	nodes  int      // size when every ref is replaced by its target

	// entity is the Cedar entity type of an enum, of an opaque value, and of
	// an object that is not a record.
	entity types.EntityType
}

// A field is a declared member of an object.
type field struct {
	name     string
	required bool
	shape    *shape
}

// find returns the field of a name.
func (s *shape) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.fields, name, func(f field, n string) int { return strings.Compare(f.name, n) })
}

// A schemaDoc is the input or output schema of a tool.
type schemaDoc struct {
	root *shape            // an object
	defs map[string]*shape // its definitions
}

// parseSchema reads the JSON Schema of a tool's arguments or results. It
// never fails: what it does not understand is unknown.
func parseSchema(raw json.RawMessage) schemaDoc {
	var v any
	if len(raw) > 0 {
		if err := jsonv2.Unmarshal(raw, &v); err != nil {
			v = nil
		}
	}
	m, _ := v.(map[string]any)
	// Amazon Bedrock's converse API wraps the schema.
	if inner, ok := m["json"].(map[string]any); ok && m["type"] == nil && m["properties"] == nil {
		m = inner
	}
	defs := map[string]any{}
	for _, key := range []string{"definitions", "$defs"} {
		group, _ := m[key].(map[string]any)
		maps.Copy(defs, group)
	}
	doc := schemaDoc{root: parseObject(rootObject(m, defs), 0), defs: map[string]*shape{}}
	for name, def := range defs {
		doc.defs[name] = parseShape(def, 1)
	}
	return doc
}

// rootObject is the schema of the arguments themselves, which may be given by
// reference.
func rootObject(m, defs map[string]any) map[string]any {
	ref, ok := m["$ref"].(string)
	if !ok || m["properties"] != nil {
		return m
	}
	if name, ok := definitionName(ref); ok {
		if target, ok := defs[name].(map[string]any); ok {
			return target
		}
	}
	return m
}

// definitionName is the name in a local reference. Nothing else is followed,
// and nothing is ever fetched.
func definitionName(ref string) (string, bool) {
	for _, prefix := range []string{"#/$defs/", "#/definitions/"} {
		if name, ok := strings.CutPrefix(ref, prefix); ok {
			return name, true
		}
	}
	return "", false
}

func newUnknown() *shape { return &shape{kind: kindUnknown, nodes: 1} }

func parseShape(v any, depth int) *shape {
	m, ok := v.(map[string]any)
	if !ok || depth > maxShapeDepth {
		return newUnknown()
	}
	switch t := m["type"].(type) {
	case string:
		return parseTyped(t, m, depth)
	case []any:
		s := &shape{kind: kindUnion}
		for _, alt := range t {
			s.items = append(s.items, parseAlternative(alt, m, depth+1))
		}
		return orUnknown(s)
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		if alts, ok := m[key].([]any); ok {
			s := &shape{kind: kindUnion}
			for _, alt := range alts {
				s.items = append(s.items, parseShape(alt, depth+1))
			}
			return orUnknown(s)
		}
	}
	if all, ok := m["allOf"].([]any); ok && len(all) == 1 {
		return parseShape(all[0], depth+1)
	}
	if ref, ok := m["$ref"].(string); ok {
		if name, ok := definitionName(ref); ok {
			return &shape{kind: kindRef, ref: name}
		}
	}
	return newUnknown()
}

// orUnknown refuses a union without alternatives: no value would fit it.
func orUnknown(union *shape) *shape {
	if len(union.items) == 0 {
		return newUnknown()
	}
	return union
}

// parseAlternative reads one entry of a list of types. The other keywords of
// the schema apply to the entry that they suit.
func parseAlternative(v any, m map[string]any, depth int) *shape {
	t, ok := v.(string)
	if !ok {
		return parseShape(v, depth)
	}
	if t == "string" {
		return &shape{kind: kindString, values: allowedStrings(m)}
	}
	if t == "array" {
		return &shape{kind: kindSet, elem: parseShape(m["items"], depth+1)}
	}
	return parseTyped(t, m, depth)
}

func parseTyped(t string, m map[string]any, depth int) *shape {
	switch t {
	case "boolean":
		return &shape{kind: kindBool}
	case "integer":
		return &shape{kind: kindLong}
	case "number":
		return &shape{kind: kindNumber}
	case "float":
		return &shape{kind: kindFloat}
	case "null":
		return &shape{kind: kindNull}
	case "string":
		return parseString(m)
	case "array":
		return parseArray(m, depth)
	case "object":
		return parseObject(m, depth)
	default:
		return newUnknown()
	}
}

func parseString(m map[string]any) *shape {
	if _, ok := m["enum"]; ok {
		values := allowedStrings(m)
		if len(values) == 0 {
			return newUnknown()
		}
		return &shape{kind: kindEnum, values: values}
	}
	s := &shape{kind: kindString, values: allowedStrings(m)}
	switch m["format"] {
	case "date", "date-time":
		s.kind = kindDatetime
	case "duration":
		s.kind = kindDuration
	case "ipv4":
		s.kind = kindIPv4
	case "ipv6":
		s.kind = kindIPv6
	case "decimal":
		s.kind = kindDecimal
	}
	return s
}

// allowedStrings are the strings of "enum" and "const", without duplicates.
// Without one of these, all strings are allowed and it returns nil.
func allowedStrings(m map[string]any) []string {
	var out []string
	if c, ok := m["const"].(string); ok {
		out = append(out, c)
	}
	list, _ := m["enum"].([]any)
	for _, v := range list {
		if s, ok := v.(string); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func parseArray(m map[string]any, depth int) *shape {
	prefix, isPrefix := m["prefixItems"].([]any)
	if !isPrefix {
		return &shape{kind: kindSet, elem: parseShape(m["items"], depth+1)}
	}
	items := make([]*shape, len(prefix))
	for i, p := range prefix {
		items[i] = parseShape(p, depth+1)
	}
	if m["items"] == false {
		return &shape{kind: kindTuple, items: items}
	}
	elem := parseShape(m["items"], depth+1)
	for _, s := range items {
		if !sameShape(s, elem) {
			elem = newUnknown()
			break
		}
	}
	return &shape{kind: kindSet, elem: elem}
}

func parseObject(m map[string]any, depth int) *shape {
	s := &shape{kind: kindObject}
	props, declared := m["properties"].(map[string]any)
	required, _ := m["required"].([]any)
	for name, p := range props {
		s.fields = append(s.fields, field{
			name:     name,
			required: slices.Contains(required, any(name)),
			shape:    parseShape(p, depth+1),
		})
	}
	slices.SortFunc(s.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	switch more := m["additionalProperties"].(type) {
	case map[string]any:
		s.elem = parseShape(more, depth+1)
	case bool:
		s.open = more
	default:
		// JSON Schema lets undeclared members through by default. A tool that
		// declares its arguments means these; one that policy does not see
		// may not pass because nobody thought of forbidding it.
		s.open = !declared
	}
	return s
}

// sameShape compares the shapes of tuple items, before they are linked.
func sameShape(a, b *shape) bool {
	if a.kind != b.kind || a.ref != b.ref || a.open != b.open || !slices.Equal(a.values, b.values) ||
		(a.elem == nil) != (b.elem == nil) || a.elem != nil && !sameShape(a.elem, b.elem) {
		return false
	}
	return slices.EqualFunc(a.items, b.items, sameShape) &&
		slices.EqualFunc(a.fields, b.fields, func(x, y field) bool {
			return x.name == y.name && x.required == y.required && sameShape(x.shape, y.shape)
		})
}

// A linker connects refs to the definitions that they name, and makes unknown
// what has no end: Cedar records cannot be recursive, and a few definitions
// that use one another twice unfold to millions of attributes.
type linker struct {
	defs map[string]*shape
	// recursive allows a definition to contain itself, which only entity types
	// can.
	recursive bool
	busy      map[*shape]bool
	depth     map[*shape]int
}

func (d schemaDoc) link(recursive bool) {
	l := linker{defs: d.defs, recursive: recursive, busy: map[*shape]bool{}, depth: map[*shape]int{}}
	for _, name := range sortedKeys(d.defs) {
		if d.defs[name].kind != kindRef {
			l.link(d.defs[name])
		}
	}
	l.link(d.root)
	// A definition that is nothing but a ref has been followed where it is
	// used.
	maps.DeleteFunc(d.defs, func(_ string, s *shape) bool { return s.kind == kindRef })
}

// definition finds what a ref leads to, or nil if that is nowhere.
func (l *linker) definition(name string) *shape {
	for range len(l.defs) {
		s := l.defs[name]
		if s == nil || s.kind != kindRef {
			return s
		}
		name = s.ref
	}
	return nil
}

// link sets target and nodes in s and below, and returns how deep s is.
func (l *linker) link(s *shape) int {
	if d, done := l.depth[s]; done {
		return d
	}
	l.busy[s] = true
	defer delete(l.busy, s)
	depth := 0
	s.nodes = 1
	for _, child := range s.children() {
		c := *child
		d, ok := l.linkChild(c)
		if !ok || !l.recursive && (s.nodes+c.size() > maxShapeNodes || d >= maxShapeDepth) {
			*child = newUnknown()
			c, d = *child, 1
		}
		s.nodes = min(s.nodes+c.size(), 2*maxShapeNodes)
		depth = max(depth, d)
	}
	l.depth[s] = depth + 1
	return depth + 1
}

// linkChild links one part of a shape. It reports false for a ref that leads
// nowhere or back to where it came from.
func (l *linker) linkChild(c *shape) (int, bool) {
	if c.kind != kindRef {
		return l.link(c), true
	}
	target := l.definition(c.ref)
	if target == nil {
		return 0, false
	}
	c.target = target
	if l.busy[target] {
		return 1, l.recursive
	}
	return l.link(target), true
}

func (s *shape) size() int {
	if s.kind == kindRef && s.target != nil {
		return max(1, s.target.nodes)
	}
	return max(1, s.nodes)
}

// children are the places of the shapes that s is made of.
func (s *shape) children() []**shape {
	var out []**shape
	for i := range s.items {
		out = append(out, &s.items[i])
	}
	for i := range s.fields {
		out = append(out, &s.fields[i].shape)
	}
	if s.elem != nil {
		out = append(out, &s.elem)
	}
	return out
}

// resolve follows refs.
func (s *shape) resolve() *shape {
	for s.kind == kindRef {
		s = s.target
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
