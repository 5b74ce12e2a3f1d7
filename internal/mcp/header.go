package mcp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// Headers of the streamable HTTP transport.
const (
	HeaderProtocolVersion = "MCP-Protocol-Version"
	HeaderSession         = "Mcp-Session-Id"
	HeaderMethod          = "Mcp-Method"
	HeaderName            = "Mcp-Name"
	HeaderParamPrefix     = "Mcp-Param-"
	HeaderLastEventID     = "Last-Event-ID"
)

// A HeaderError says which header is missing, malformed, or disagrees with
// the body. It is answered with status 400 and [CodeHeaderMismatch]
// (MCP 2026-07-28, Streamable HTTP, Server Validation).
type HeaderError struct {
	// Header is the name of the header.
	Header string
	// Message is one sentence, fit for the peer.
	Message string
}

func (e *HeaderError) Error() string { return e.Message }

// StandardHeaders returns the headers that a modern message mirrors from its
// body: the protocol version, the method, and the name of the tool, the prompt
// or the resource. A message whose body says no version is one of
// [ModernVersion].
func StandardHeaders(m *Message) http.Header {
	h := make(http.Header)
	version := GetString(m.Params(), "_meta", MetaProtocolVersion)
	if version == "" {
		version = ModernVersion
	}
	h.Set(HeaderProtocolVersion, version)
	if m.IsResponse() {
		return h
	}
	h.Set(HeaderMethod, m.Method())
	if key := nameKey(m.Method()); key != "" {
		if name := GetString(m.Params(), key); name != "" {
			h.Set(HeaderName, EncodeHeaderValue(name))
		}
	}
	return h
}

// nameKey returns the member of params that Mcp-Name mirrors, or "".
func nameKey(method string) string {
	switch method {
	case "tools/call", "prompts/get":
		return "name"
	case "resources/read":
		return "uri"
	default:
		return ""
	}
}

// ParamHeaders returns the Mcp-Param headers of a tools/call, as the
// x-mcp-header annotations of the tool's input schema ask for them. It fails
// when the annotations are invalid, or when an argument is not of the type
// that its header needs: the call must then not be sent.
func ParamHeaders(m *Message, inputSchema json.RawMessage) (http.Header, error) {
	bindings, err := paramBindings(inputSchema)
	if err != nil {
		return nil, err
	}
	args, _ := Get(m.Params(), "arguments")
	h := make(http.Header)
	for _, b := range bindings {
		arg, ok := b.argument(args)
		if !ok {
			continue
		}
		text, err := b.text(arg)
		if err != nil {
			return nil, err
		}
		h.Set(HeaderParamPrefix+b.header, EncodeHeaderValue(text))
	}
	return h, nil
}

// CheckHeaders compares the headers of a modern message with its body, which
// alone is to be decided on. For a tools/call it also checks the Mcp-Param
// headers that the tool's input schema asks for; others are none of its
// business. Disagreement is a [*HeaderError]. Only requests must have the
// headers; on a notification, those that are there must agree.
func CheckHeaders(h http.Header, m *Message, inputSchema json.RawMessage) error {
	version := GetString(m.Params(), "_meta", MetaProtocolVersion)
	// A notification need not say its version in the body.
	if m.IsRequest() || version != "" {
		if err := checkHeader(h, HeaderProtocolVersion, version, m.IsRequest()); err != nil {
			return err
		}
	}
	if err := checkHeader(h, HeaderMethod, m.Method(), m.IsRequest()); err != nil {
		return err
	}
	if key := nameKey(m.Method()); key != "" {
		name := GetString(m.Params(), key)
		if err := checkEncodedHeader(h, HeaderName, name, m.IsRequest()); err != nil {
			return err
		}
	}
	if m.Method() != "tools/call" {
		return nil
	}
	return checkParamHeaders(h, m, inputSchema)
}

func checkParamHeaders(h http.Header, m *Message, inputSchema json.RawMessage) error {
	bindings, err := paramBindings(inputSchema)
	if err != nil {
		return err
	}
	args, _ := Get(m.Params(), "arguments")
	for _, b := range bindings {
		name := HeaderParamPrefix + b.header
		arg, ok := b.argument(args)
		if !ok {
			if len(h.Values(name)) > 0 {
				return headerError(name, "is there, but the body has no such argument")
			}
			continue
		}
		value, err := headerValue(h, name)
		if err != nil {
			return err
		}
		got, err := DecodeHeaderValue(value)
		if err != nil {
			return headerError(name, err.Error())
		}
		want, err := b.text(arg)
		if err != nil {
			return headerError(name, "mirrors an argument that is not a "+b.kind)
		}
		if got != want && !(b.kind == "integer" && sameInteger(got, want)) {
			return headerError(name, "does not match the body")
		}
	}
	return nil
}

// checkHeader compares a header that has no encoded form.
func checkHeader(h http.Header, name, want string, required bool) error {
	if !required && len(h.Values(name)) == 0 {
		return nil
	}
	got, err := headerValue(h, name)
	if err != nil {
		return err
	}
	if got != want {
		return headerError(name, "does not match the body")
	}
	return nil
}

// checkEncodedHeader compares a header that may be in Base64.
func checkEncodedHeader(h http.Header, name, want string, required bool) error {
	if !required && len(h.Values(name)) == 0 {
		return nil
	}
	value, err := headerValue(h, name)
	if err != nil {
		return err
	}
	got, err := DecodeHeaderValue(value)
	if err != nil {
		return headerError(name, err.Error())
	}
	if got != want {
		return headerError(name, "does not match the body")
	}
	return nil
}

// headerValue returns the one value of a header. Two values are refused:
// another reader of the same request may take the other one.
func headerValue(h http.Header, name string) (string, error) {
	switch v := h.Values(name); len(v) {
	case 0:
		return "", headerError(name, "is missing")
	case 1:
		return v[0], nil
	default:
		return "", headerError(name, "is there more than once")
	}
}

func headerError(name, problem string) error {
	return &HeaderError{Header: name, Message: "Header mismatch: " + name + " " + problem}
}

// The marks of a header value in Base64. They are case-sensitive.
const (
	base64Prefix = "=?base64?"
	base64Suffix = "?="
)

// EncodeHeaderValue returns a text as a header value: as it is when that is
// safe, otherwise in Base64 between marks.
func EncodeHeaderValue(s string) string {
	if isPlain(s) && !isMarked(s) {
		return s
	}
	return base64Prefix + base64.StdEncoding.EncodeToString([]byte(s)) + base64Suffix
}

// DecodeHeaderValue undoes [EncodeHeaderValue]. It is an error when the value
// has characters that no header may have, or the Base64 is not canonical.
func DecodeHeaderValue(s string) (string, error) {
	if !isMarked(s) {
		if !isPlain(s) {
			return "", errors.New("has characters that a header must not have")
		}
		return s, nil
	}
	text := s[len(base64Prefix) : len(s)-len(base64Suffix)]
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return "", errors.New("is not valid Base64")
	}
	return string(b), nil
}

func isMarked(s string) bool {
	return len(s) >= len(base64Prefix)+len(base64Suffix) &&
		strings.HasPrefix(s, base64Prefix) && strings.HasSuffix(s, base64Suffix)
}

// isPlain reports whether a text survives as a header value: visible ASCII,
// with spaces and tabs only inside.
func isPlain(s string) bool {
	if strings.Trim(s, " \t") != s {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 0x20 && c != '\t') || c > 0x7e {
			return false
		}
	}
	return true
}

// A paramBinding says which header mirrors which argument.
type paramBinding struct {
	path   []string
	header string
	kind   string // "string", "integer" or "boolean"
}

// argument returns the argument at the binding's path. Null counts as none.
func (b paramBinding) argument(args json.RawMessage) (json.RawMessage, bool) {
	v, ok := Get(args, b.path...)
	return v, ok && kind(v) != 'n'
}

// text returns an argument as the text that its header carries.
func (b paramBinding) text(arg json.RawMessage) (string, error) {
	switch k := kind(arg); {
	case b.kind == "string" && k == '"':
		if s, ok := unquote(arg); ok {
			return s, nil
		}
	case b.kind == "boolean" && (k == 't' || k == 'f'):
		return string(arg), nil
	case b.kind == "integer" && k == '0':
		if n, ok := integer(string(arg)); ok {
			return strconv.FormatInt(n, 10), nil
		}
	}
	return "", fmt.Errorf("argument %q is not a %s that a header can carry", strings.Join(b.path, "."), b.kind)
}

// integer reads a number that has no fraction and that a JavaScript number
// holds exactly.
func integer(s string) (int64, bool) {
	if strings.Trim(s, "+-.eE0123456789") != "" {
		return 0, false // ParseFloat also reads hexadecimal, infinities and more
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Trunc(f) != f || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// sameInteger compares numerically, so that 42.0 matches 42.
func sameInteger(a, b string) bool {
	x, ok := integer(a)
	y, ok2 := integer(b)
	return ok && ok2 && x == y
}

// paramBindings returns what the x-mcp-header annotations of an input schema
// bind. An annotation that breaks a constraint of the protocol is an error: a
// client must then leave the tool out.
func paramBindings(schema json.RawMessage) ([]paramBinding, error) {
	if schema == nil {
		return nil, nil
	}
	var w bindingWalk
	if err := w.schema(schema, nil, true); err != nil {
		return nil, fmt.Errorf("read x-mcp-header annotations: %w", err)
	}
	return w.found, nil
}

// CheckAnnotations reports whether the x-mcp-header annotations of a tool's
// input schema hold to the protocol. A client leaves out a tool of an HTTP
// server whose annotations do not (MCP 2026-07-28, Custom Headers).
func CheckAnnotations(inputSchema json.RawMessage) error {
	_, err := paramBindings(inputSchema)
	return err
}

const annotation = "x-mcp-header"

type bindingWalk struct{ found []paramBinding }

// schema visits one schema. Reachable says that only "properties" lead to it,
// which is the only place where an annotation may stand.
func (w *bindingWalk) schema(schema []byte, path []string, reachable bool) error {
	if kind(schema) != '{' {
		return nil // true and false are schemas too
	}
	_, err := members(schema, func(name []byte, at span) error {
		v := schema[at.start:at.end]
		switch string(name) {
		case annotation:
			return w.annotation(schema, v, path, reachable)
		case "properties":
			return w.named(v, path, reachable)
		case "patternProperties", "$defs", "definitions", "dependentSchemas":
			return w.named(v, path, false)
		case "items", "prefixItems", "additionalItems", "unevaluatedItems", "contains",
			"additionalProperties", "unevaluatedProperties", "propertyNames",
			"allOf", "anyOf", "oneOf", "not", "if", "then", "else":
			return w.hidden(v, path)
		default:
			return nil
		}
	})
	return err
}

// named visits the schemas of an object of schemas.
func (w *bindingWalk) named(v []byte, path []string, reachable bool) error {
	if kind(v) != '{' {
		return nil
	}
	_, err := members(v, func(name []byte, at span) error {
		inner := append(path[:len(path):len(path)], string(name))
		return w.schema(v[at.start:at.end], inner, reachable)
	})
	return err
}

// hidden visits schemas that are not statically reachable: one, or a list.
func (w *bindingWalk) hidden(v []byte, path []string) error {
	if kind(v) != '[' {
		return w.schema(v, path, false)
	}
	return elements(v, func(e []byte) error { return w.schema(e, path, false) })
}

func (w *bindingWalk) annotation(schema, value []byte, path []string, reachable bool) error {
	at := strings.Join(path, ".")
	header, ok := unquote(value)
	b := paramBinding{path: path, header: header, kind: GetString(schema, "type")}
	switch {
	case !reachable || len(path) == 0:
		return fmt.Errorf("property %q: the annotation is not reachable by properties alone", at)
	case !ok || !isToken(header):
		return fmt.Errorf("property %q: the annotation is not the name of a header", at)
	case b.kind != "string" && b.kind != "integer" && b.kind != "boolean":
		return fmt.Errorf("property %q: a %q cannot be mirrored in a header", at, b.kind)
	}
	for _, other := range w.found {
		if strings.EqualFold(other.header, header) {
			return fmt.Errorf("property %q: header %q is already taken", at, header)
		}
	}
	w.found = append(w.found, b)
	return nil
}

// isToken reports whether s is a token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}
