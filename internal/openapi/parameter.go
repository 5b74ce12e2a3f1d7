package openapi

import (
	"cmp"
	"net/textproto"
	"slices"
	"strings"
)

// An argument is a parameter of an operation, or a member of a form.
type argument struct {
	property string // its name in the input
	name     string // its name on the wire
	in       string // "path", "query", "header"; "form" for a member of a form
	required bool
	scalar   scalar // of a list, that of its elements
	list     bool
	explode  bool // a list is repeated, not written with commas
	schema   schema
}

// places orders arguments: who comes first keeps its name.
var places = map[string]int{"path": 0, "query": 1, "header": 2}

// parameters are those of an operation and of its path, the former replacing
// the latter (OpenAPI 3.0.4 §4.7.9).
func (b *builder) parameters(item, op place) ([]place, error) {
	type key struct{ in, name string }
	found := map[key]place{}
	for _, list := range []place{item.member("parameters"), op.member("parameters")} {
		if list.missing() {
			continue
		}
		if list.kind != '[' {
			return nil, list.wrong("it must be an array")
		}
		here := map[key]bool{}
		for i := range list.items {
			p, err := b.resolve(list.item(i))
			if err != nil {
				return nil, err
			}
			k := key{p.get("in").str(), p.get("name").str()}
			if k.in == "header" {
				k.name = textproto.CanonicalMIMEHeaderKey(k.name)
			}
			if k.in == "" || k.name == "" {
				return nil, p.wrong(`a parameter needs "name" and "in"`)
			}
			if here[k] {
				return nil, p.wrong("the parameter %q in %s stands there twice; remove one", k.name, k.in)
			}
			here[k] = true
			found[k] = p
		}
	}
	out := make([]place, 0, len(found))
	for _, p := range found {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y place) int {
		return cmp.Or(cmp.Compare(places[x.get("in").str()], places[y.get("in").str()]),
			cmp.Compare(x.get("in").str(), y.get("in").str()), cmp.Compare(x.get("name").str(), y.get("name").str()))
	})
	if len(out) > maxParameters {
		return nil, unusable("it has %d parameters; at most %d can be judged", len(out), maxParameters)
	}
	return out, nil
}

// arguments reads the parameters of an operation. One that cannot be read the
// same way by everybody is left out if it is optional: a request that has it is
// then refused. If it is required, nothing can call the operation.
func (b *builder) arguments(o *operation, s *schemaReader, parameters []place, taken map[string]bool) error {
	o.query, o.path = map[string]*argument{}, map[string]*argument{}
	for _, p := range parameters {
		in, name := p.get("in").str(), p.get("name").str()
		if in == "header" && ignoredHeader(name) {
			continue
		}
		a := &argument{name: name, in: in, required: p.get("required").isTrue() || in == "path"}
		why, err := b.parameter(a, s, p)
		if err != nil {
			return err
		}
		if why != "" && a.required {
			return unusable("its parameter %q in %s %s", name, in, why)
		}
		if why != "" {
			b.problem(p, o, "its parameter "+quote(name)+" in "+in+" is refused in requests: it "+why)
			continue
		}
		if a.property, err = property(name, in, taken); err != nil {
			return err
		}
		o.add(a)
	}
	for _, seg := range o.template.segments {
		if seg.param != "" && o.path[seg.param] == nil {
			return unusable("the document does not say what {%s} in its path is", seg.param)
		}
	}
	for name := range o.path {
		if !slices.ContainsFunc(o.template.segments, func(seg segment) bool { return seg.param == name }) {
			return unusable("its parameter %q in path does not stand in the path", name)
		}
	}
	return nil
}

func (o *operation) add(a *argument) {
	o.arguments = append(o.arguments, a)
	switch a.in {
	case "path":
		o.path[a.name] = a
	case "query":
		o.query[a.name] = a
	case "header":
		o.headers = append(o.headers, a)
	}
}

// parameter reads how a parameter is written. It returns why it cannot be
// judged, or nothing.
func (b *builder) parameter(a *argument, s *schemaReader, p place) (why string, err error) {
	style, explode := p.get("style").str(), p.get("explode")
	def := map[string]string{"path": "simple", "query": "form", "header": "simple"}[a.in]
	switch {
	case a.in == "cookie":
		return "is a cookie, and no cookie reaches the upstream", nil
	case def == "":
		return "stands where this program does not look", nil
	case a.in == "header" && reservedHeader(a.name):
		return "is a header that the gate itself writes or removes", nil
	case a.in == "header" && !headerName(a.name):
		return "cannot be the name of a header", nil
	case !cleanText(a.name):
		return "has a name that cannot be told to policies", nil
	case style != "" && style != def:
		return "has the style " + quote(style) + "; only " + quote(def) + " can be judged", nil
	}
	if content := p.member("content"); !content.missing() {
		return b.jsonParameter(a, s, content)
	}
	a.explode = a.in == "query" && (explode == nil || explode.isTrue())
	ok, err := s.wire(a, p.member("schema"))
	if err == nil && !ok {
		why = "is neither a string, number, boolean nor a list of these"
	}
	if d := p.get("description").str(); d != "" && a.schema != nil && a.schema["description"] == nil {
		a.schema["description"] = d
	}
	return why, err
}

// jsonParameter reads a parameter that is JSON in a text.
func (b *builder) jsonParameter(a *argument, s *schemaReader, content place) (string, error) {
	if len(content.keys) != 1 || content.keys[0] != "application/json" {
		return "has a content that is not JSON", nil
	}
	v, err := s.read(content.member("application/json").member("schema"))
	if err != nil {
		return "", err
	}
	m, ok := v.(schema)
	if !ok {
		return "can have no value", nil
	}
	a.scalar, a.schema = scalarJSON, m
	return "", nil
}

// wire finds out what the text of an argument stands for. It reports false for
// what one text cannot be in one way only.
func (s *schemaReader) wire(a *argument, p place) (bool, error) {
	p, kind, err := s.plain(p)
	if err != nil || kind == "" {
		return false, err
	}
	if kind != "array" {
		a.scalar = scalar(kind)
		a.schema, err = s.plainSchema(p, kind)
		return true, err
	}
	items, kind, err := s.plain(p.member("items"))
	if err != nil || kind == "" || kind == "array" {
		return false, err
	}
	a.list, a.scalar = true, scalar(kind)
	a.schema, err = s.plainSchema(p, "array")
	if err != nil {
		return false, err
	}
	a.schema["items"], err = s.plainSchema(items, kind)
	return true, err
}

// plain follows a schema to the one type that it has, null aside: no text is
// null. The type is empty if there is none or more than one.
func (s *schemaReader) plain(p place) (place, string, error) {
	for range maxRefs {
		var err error
		if p.node != nil && p.get("$ref") != nil {
			if p, err = s.resolve(p); err != nil {
				return p, "", err
			}
		}
		if p.node == nil {
			return place{&node{kind: '{'}, p.at}, string(scalarString), nil
		}
		if err := p.object(); err != nil {
			return p, "", err
		}
		next, ok := onlyPart(p)
		if !ok {
			return p, plainType(p), nil
		}
		p = next
	}
	return p, "", nil
}

// onlyPart is the one schema that an anyOf, oneOf or allOf comes down to.
func onlyPart(p place) (place, bool) {
	for _, key := range listKeywords[:3] {
		list := p.member(key)
		if list.missing() || list.kind != '[' {
			continue
		}
		var parts []place
		for i := range list.items {
			if item := list.item(i); key == "allOf" || item.get("type").str() != "null" {
				parts = append(parts, item)
			}
		}
		if len(parts) == 1 && p.get("type") == nil {
			return parts[0], true
		}
	}
	return place{}, false
}

func plainType(p place) string {
	for _, key := range []string{"anyOf", "oneOf", "allOf", "not", "if", "properties"} {
		if p.get(key) != nil {
			return ""
		}
	}
	t := p.get("type")
	name := t.str()
	if t != nil && t.kind == '[' {
		for _, item := range t.items {
			if item.str() == "null" {
				continue
			}
			if name != "" {
				return ""
			}
			name = item.str()
		}
	}
	switch {
	case name == "" && t == nil && p.get("items") == nil:
		return string(scalarString) // a text is what any text is
	case slices.Contains([]string{"string", "integer", "number", "boolean", "array"}, name):
		return name
	default:
		return ""
	}
}

// plainSchema is the schema of a text, or of a list of texts without its
// elements.
func (s *schemaReader) plainSchema(p place, kind string) (schema, error) {
	out := schema{}
	for _, key := range plainKeywords {
		if v := p.get(key); v != nil {
			out[key] = v.raw()
		}
	}
	if s.is30 {
		bounds30(out, p)
	}
	delete(out, "required")
	out["type"] = kind
	if list, ok := out["enum"].([]any); ok && kind == string(scalarString) {
		// No text is null, nor a number or boolean that YAML made of a word.
		list = slices.DeleteFunc(list, func(v any) bool { _, isText := v.(string); return !isText })
		if len(list) == 0 {
			return nil, unusable("a parameter allows no value: its enum has no string")
		}
		out["enum"] = list
	}
	return out, nil
}

// ignoredHeader reports headers that are no parameters (OpenAPI 3.0.4
// §4.7.12.2): what they say is said elsewhere in the document.
func ignoredHeader(name string) bool {
	switch strings.ToLower(name) {
	case "accept", "content-type", "authorization":
		return true
	default:
		return false
	}
}

// reservedHeader reports headers that an agent may not set whatever the
// document says: they frame the message, say who is asking, or make another
// request of this one.
func reservedHeader(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"proxy-", "sec-", "x-forwarded-", "bailiwick-", "x-http-method", "x-method", "access-control-request-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "connection", "content-encoding", "content-length", "cookie", "cookie2", "date", "expect", "forwarded", "host", "keep-alive",
		"set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-real-ip", "x-original-url", "x-rewrite-url", "x-original-method",
		"x-original-host", "x-host", "x-client-ip", "x-remote-user", "remote-user", "http2-settings", "true-client-ip", "cf-connecting-ip":
		return true
	default:
		return false
	}
}

// headerName reports whether a name is a token (RFC 9110 §5.6.2) that no CGI
// confuses with another: "X_A" and "X-A" are one variable to it.
func headerName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}
