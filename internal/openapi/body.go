package openapi

import (
	"mime"
	"slices"
	"strconv"
	"strings"
)

// A bodyKind says how the body of a request is told to policies.
type bodyKind string

// The kinds of body.
const (
	bodyJSON   bodyKind = "json"   // as the argument "body"
	bodyForm   bodyKind = "form"   // as the argument "body", an object
	bodyOpaque bodyKind = "opaque" // by its digest and size
)

// A body is what an operation takes as its body.
type body struct {
	kind     bodyKind
	required bool
	types    []string // content types, or ranges of them ("image/*"), sorted
	property string   // of an opaque one, its digest
	size     string   // of an opaque one
	fields   map[string]*argument
	schema   any // of the property
}

// readBody reads what body an operation takes. A body of several content types
// is JSON if it can be, else a form, else opaque; the other types are refused
// in requests.
func (b *builder) readBody(o *operation, s *schemaReader, op place, taken map[string]bool) (*body, error) {
	p := op.member("requestBody")
	if p.missing() {
		return nil, nil
	}
	p, err := b.resolve(p)
	if err != nil {
		return nil, err
	}
	if o.method == "GET" || o.method == "HEAD" || o.method == "OPTIONS" {
		return nil, unusable("a body of %s means nothing (RFC 9110 §9.3.1), and servers differ in what they make of it", o.method)
	}
	content := p.member("content")
	if err := content.object(); err != nil {
		return nil, err
	}
	if content.missing() || len(content.keys) == 0 {
		return nil, unusable("the document does not say of what content type its body is")
	}
	out := &body{required: p.get("required").isTrue()}
	why := ""
	for _, read := range []func(*body, *schemaReader, place, map[string]bool) (string, error){b.jsonBody, b.formBody, b.opaqueBody} {
		reason, err := read(out, s, content, taken)
		if err != nil {
			return nil, err
		}
		if why == "" {
			why = reason
		}
		if out.types != nil {
			b.otherTypes(o, content, out)
			return out, nil
		}
	}
	return nil, unusable("%s", why)
}

// otherTypes reports the content types that requests may not have.
func (b *builder) otherTypes(o *operation, content place, body *body) {
	var left []string
	for _, t := range content.keys {
		if name, ok := mediaType(t); !ok || !slices.Contains(body.types, name) {
			left = append(left, quote(t))
		}
	}
	if len(left) > 0 {
		b.problem(content, o, "a body of the content type "+strings.Join(left, ", ")+" is refused in requests; "+
			strings.Join(body.types, ", ")+" is taken")
	}
}

// mediaType is a content type or range in lower case, without parameters.
func mediaType(s string) (string, bool) {
	name, _, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(name, "/") {
		return "", false
	}
	return name, true
}

func isJSON(t string) bool {
	return t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json")
}

// jsonBody takes all content types of JSON that have one schema.
func (b *builder) jsonBody(out *body, s *schemaReader, content place, taken map[string]bool) (string, error) {
	var first place
	var types []string
	for _, key := range content.keys {
		t, ok := mediaType(key)
		if !ok || !isJSON(t) {
			continue
		}
		sch := content.member(key).member("schema")
		if types == nil {
			first = sch
		} else if !equalNodes(first.node, sch.node) {
			continue
		}
		types = append(types, t)
	}
	if types == nil {
		return "", nil
	}
	v, err := s.read(first)
	if err != nil {
		return "", err
	}
	out.kind, out.schema = bodyJSON, v
	slices.Sort(types)
	out.types = slices.Compact(types)
	out.property, err = property("body", "content", taken)
	return "", err
}

const formType = "application/x-www-form-urlencoded"

// formBody takes a form of plain fields.
func (b *builder) formBody(out *body, s *schemaReader, content place, taken map[string]bool) (string, error) {
	form := content.member(formType)
	if form.missing() {
		return "", nil
	}
	p, err := s.resolve(form.member("schema"))
	if err != nil {
		return "", err
	}
	if p.get("properties") == nil || p.get("allOf") != nil || p.get("anyOf") != nil || p.get("oneOf") != nil || form.get("encoding") != nil {
		return "its body is a form whose fields are not plain", nil
	}
	fields, props := map[string]*argument{}, schema{}
	var required []any
	for _, name := range p.get("properties").keys {
		must := p.get("required") != nil && slices.ContainsFunc(p.get("required").items, func(n *node) bool { return n.str() == name })
		a := &argument{property: name, name: name, in: "form", required: must, explode: true}
		ok, err := s.wire(a, p.member("properties").member(name))
		if err != nil {
			return "", err
		}
		if !ok || !cleanText(name) {
			if must {
				return "its body is a form whose field " + quote(name) + " is neither a string, number, boolean nor a list of these", nil
			}
			continue // refused when it is sent
		}
		fields[name], props[name] = a, a.schema
		if must {
			required = append(required, name)
		}
	}
	sch := schema{"type": "object", "properties": props, "additionalProperties": false}
	if required != nil {
		sch["required"] = required
	}
	out.kind, out.types, out.fields, out.schema = bodyForm, []string{formType}, fields, sch
	out.property, err = property("body", "content", taken)
	return "", err
}

// opaqueBody takes bytes that the document itself does not describe.
func (b *builder) opaqueBody(out *body, s *schemaReader, content place, taken map[string]bool) (string, error) {
	var types []string
	why := "its body has a content type that cannot be judged"
	for _, key := range content.keys {
		t, ok := mediaType(key)
		if !ok || strings.HasPrefix(t, "multipart/") || t == formType || isJSON(t) {
			why = "its body of the content type " + quote(key) + " cannot be judged; JSON can"
			continue
		}
		p, kind, err := s.plain(content.member(key).member("schema"))
		if err != nil {
			return "", err
		}
		if kind != string(scalarString) || p.get("enum") != nil {
			why = "its body of the content type " + quote(key) + " has parts that cannot be judged; JSON can"
			continue
		}
		types = append(types, t)
	}
	if types == nil {
		return why, nil
	}
	slices.Sort(types)
	out.kind, out.types = bodyOpaque, slices.Compact(types)
	var err error
	if out.property, err = property("body_digest", "content", taken); err != nil {
		return "", err
	}
	out.size, err = property("body_size", "content", taken)
	return "", err
}

func equalNodes(a, b *node) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.kind != b.kind || a.text != b.text || !slices.Equal(a.keys, b.keys) {
		return false
	}
	for _, k := range a.keys {
		if !equalNodes(a.members[k], b.members[k]) {
			return false
		}
	}
	return slices.EqualFunc(a.items, b.items, equalNodes)
}

// takes reports whether a content type is one of those that the body may have.
func (b *body) takes(contentType string) bool {
	major, _, _ := strings.Cut(contentType, "/")
	return slices.Contains(b.types, contentType) ||
		b.kind == bodyOpaque && (slices.Contains(b.types, major+"/*") || slices.Contains(b.types, "*/*"))
}

func quote(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return strconv.Quote(s)
}
