package openapi

import (
	"regexp"
	"slices"
	"strconv"
)

// A schema is a JSON Schema of 2020-12, as encoding wants it.
type schema = map[string]any

// Keywords that are carried into definitions. What is not here says nothing
// about which values fit (examples, extensions), or cannot be carried over
// ($id, $anchor and what refers to them); a schema with one of the latter says
// nothing at all.
var (
	plainKeywords = []string{
		"type", "format", "enum", "const", "title", "description", "default", "deprecated", "readOnly", "writeOnly",
		"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
		"minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties", "required",
		"dependentRequired", "contentEncoding", "contentMediaType",
	}
	schemaKeywords = []string{
		"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
		"unevaluatedProperties",
	}
	listKeywords  = []string{"anyOf", "oneOf", "allOf", "prefixItems"}
	mapKeywords   = []string{"properties", "patternProperties", "dependentSchemas"}
	scopeKeywords = []string{"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
)

// A schemaReader turns the schemas of one operation into JSON Schema. Schemas
// that are named by reference become definitions, so a schema that contains
// itself has an end.
type schemaReader struct {
	*reader
	names   map[string]string // pointer → name in $defs
	defs    schema
	todo    []place
	steps   int
	merging map[*node]bool
}

func (r *reader) schemas() *schemaReader {
	return &schemaReader{reader: r, names: map[string]string{}, defs: schema{}, merging: map[*node]bool{}}
}

// read turns one schema, and all that it refers to, into JSON Schema.
func (s *schemaReader) read(p place) (any, error) {
	out, err := s.one(p)
	if err != nil {
		return nil, err
	}
	for len(s.todo) > 0 {
		next := s.todo[0]
		s.todo = s.todo[1:]
		def, err := s.one(next)
		if err != nil {
			return nil, err
		}
		s.defs[s.names[next.at]] = def
	}
	return out, nil
}

func (s *schemaReader) one(p place) (any, error) {
	if s.steps++; s.steps > maxSchemas {
		return nil, unusable("its schemas are too large: more than %d in one operation", maxSchemas)
	}
	if p.missing() || p.kind == 't' {
		return schema{}, nil
	}
	if p.kind == 'f' {
		return false, nil
	}
	if err := p.object(); err != nil {
		return nil, err
	}
	for _, key := range scopeKeywords {
		if p.get(key) != nil {
			return schema{}, nil
		}
	}
	if ref := p.get("$ref"); ref != nil && (s.is30 || len(p.keys) == 1) {
		return s.reference(p, ref.str())
	}
	if merged, ok := s.merge(p); ok {
		return merged, nil
	}
	out := schema{}
	if ref := p.get("$ref"); ref != nil {
		// OpenAPI 3.1 lets keywords stand beside a reference; both hold. Only
		// words for people leave it a mere reference.
		to, err := s.reference(p, ref.str())
		if err != nil {
			return nil, err
		}
		if onlyWords(p.keys) {
			return to, nil
		}
		out["allOf"] = []any{to}
	}
	if err := s.keywords(out, p); err != nil {
		return nil, err
	}
	if s.is30 {
		bounds30(out, p)
		nullable30(out, p)
	}
	return out, nil
}

func onlyWords(keys []string) bool {
	return !slices.ContainsFunc(keys, func(k string) bool {
		return k != "$ref" && k != "title" && k != "description" && k != "deprecated" &&
			(slices.Contains(plainKeywords, k) || slices.Contains(schemaKeywords, k) || slices.Contains(listKeywords, k) || slices.Contains(mapKeywords, k))
	})
}

// reference makes a definition of what a reference names.
func (s *schemaReader) reference(p place, ref string) (any, error) {
	to, ok := s.find(ref)
	if !ok {
		return nil, p.member("$ref").wrong("%q leads nowhere; correct it or add what it names", ref)
	}
	name, known := s.names[to.at]
	if !known {
		name = s.name(to.at)
		s.names[to.at] = name
		s.defs[name] = schema{}
		s.todo = append(s.todo, to)
	}
	return schema{"$ref": "#/$defs/" + name}, nil
}

var (
	componentSchema = regexp.MustCompile(`^/components/schemas/([A-Za-z0-9._-]+)$`)
	notInNames      = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// name is the name that a pointer gets among the definitions.
func (s *schemaReader) name(pointer string) string {
	name := notInNames.ReplaceAllString(pointer[1:], "_")
	if m := componentSchema.FindStringSubmatch(pointer); m != nil {
		name = m[1]
	}
	for n := 2; ; n++ {
		if _, taken := s.defs[name]; !taken {
			return name
		}
		name = notInNames.ReplaceAllString(pointer[1:], "_") + "_" + strconv.Itoa(n)
	}
}

func (s *schemaReader) keywords(out schema, p place) (err error) {
	for _, key := range plainKeywords {
		if v := p.get(key); v != nil {
			out[key] = v.raw()
		}
	}
	for _, key := range schemaKeywords {
		if p.get(key) == nil {
			continue
		}
		if out[key], err = s.one(p.member(key)); err != nil {
			return err
		}
	}
	for _, key := range listKeywords {
		list := p.member(key)
		if list.missing() {
			continue
		}
		if list.kind != '[' {
			return list.wrong("it must be an array")
		}
		all, _ := out[key].([]any)
		for i := range list.items {
			v, err := s.one(list.item(i))
			if err != nil {
				return err
			}
			all = append(all, v)
		}
		out[key] = all
	}
	for _, key := range mapKeywords {
		m := p.member(key)
		if m.missing() {
			continue
		}
		if err := m.object(); err != nil {
			return err
		}
		props := schema{}
		for _, name := range m.keys {
			if props[name], err = s.one(m.member(name)); err != nil {
				return err
			}
		}
		out[key] = props
	}
	s.dropReadOnly(out, p)
	return nil
}

// dropReadOnly makes optional what a request need not hold: OpenAPI 3.0.4
// §4.7.24.2, a required property that is readOnly is required of responses.
func (s *schemaReader) dropReadOnly(out schema, p place) {
	required := p.get("required")
	if required == nil || required.kind != '[' {
		return
	}
	var left []any
	for _, n := range required.items {
		if !p.get("properties").get(n.str()).get("readOnly").isTrue() {
			left = append(left, n.raw())
		}
	}
	delete(out, "required")
	if len(left) > 0 {
		out["required"] = left
	}
}

// bounds30 turns the exclusive bounds of OpenAPI 3.0 into those of JSON Schema.
func bounds30(out schema, p place) {
	for _, bound := range []string{"Minimum", "Maximum"} {
		plain := string(bound[0]|0x20) + bound[1:]
		n := p.get("exclusive" + bound)
		if n == nil || n.kind != 't' && n.kind != 'f' {
			continue
		}
		delete(out, "exclusive"+bound)
		if v, ok := out[plain]; ok && n.kind == 't' {
			out["exclusive"+bound] = v
			delete(out, plain)
		}
	}
}

// nullable30 turns "nullable" of OpenAPI 3.0 into JSON Schema.
func nullable30(out schema, p place) {
	if !p.get("nullable").isTrue() {
		return
	}
	null := schema{"type": "null"}
	switch t := out["type"].(type) {
	case string:
		if _, ok := out["enum"]; !ok {
			out["type"] = []any{t, "null"}
			return
		}
	case nil:
		if len(out) == 0 {
			return // any value, null among them
		}
	}
	whole := schema{}
	for k, v := range out {
		whole[k] = v
		delete(out, k)
	}
	out["anyOf"] = []any{whole, null}
}

// merge turns an allOf of plain objects into one object, which the catalogue
// can type: OpenAPI's way of writing inheritance.
func (s *schemaReader) merge(p place) (schema, bool) {
	if p.get("allOf") == nil || len(p.get("allOf").items) == 0 || p.get("nullable").isTrue() {
		return nil, false
	}
	if s.merging[p.node] {
		return nil, false // it contains itself
	}
	s.merging[p.node] = true
	defer delete(s.merging, p.node)
	m := merger{schemaReader: s, properties: map[string]place{}}
	if !m.part(p, 0) {
		return nil, false
	}
	props := schema{}
	for name, prop := range m.properties {
		v, err := s.one(prop)
		if err != nil {
			return nil, false
		}
		props[name] = v
	}
	out := schema{"type": "object", "properties": props}
	if len(m.required) > 0 {
		slices.Sort(m.required)
		var list []any
		for _, n := range slices.Compact(m.required) {
			list = append(list, n)
		}
		out["required"] = list
	}
	if d := p.get("description").str(); d != "" {
		out["description"] = d
	}
	return out, true
}

// A merger collects the members of the parts of an allOf.
type merger struct {
	*schemaReader
	properties map[string]place
	required   []string
}

// mergeable are the keywords of a part that can be merged.
var mergeable = []string{"type", "properties", "required", "allOf", "description", "title", "example", "examples", "discriminator", "xml", "externalDocs", "deprecated"}

// part adds one part. It reports false if the parts make no plain object.
func (m *merger) part(p place, depth int) bool {
	if depth > 16 || p.node == nil || p.kind != '{' {
		return false
	}
	if ref := p.get("$ref"); ref != nil {
		to, ok := m.find(ref.str())
		return ok && (m.is30 || onlyWords(p.keys)) && m.part(to, depth+1)
	}
	for _, key := range p.keys {
		if !slices.Contains(mergeable, key) && (len(key) < 2 || key[:2] != "x-") {
			return false
		}
	}
	if t := p.get("type"); t != nil && t.str() != "object" {
		return false
	}
	props := p.member("properties")
	if p.get("properties") != nil {
		for _, name := range props.keys {
			if other, twice := m.properties[name]; twice && other.node != props.get(name) {
				return false
			}
			m.properties[name] = props.member(name)
		}
	}
	if list := p.get("required"); list != nil {
		for _, n := range list.items {
			if name := n.str(); !props.get(name).get("readOnly").isTrue() {
				m.required = append(m.required, name)
			}
		}
	}
	if all := p.member("allOf"); !all.missing() {
		for i := range all.items {
			if !m.part(all.item(i), depth+1) {
				return false
			}
		}
	}
	return true
}
