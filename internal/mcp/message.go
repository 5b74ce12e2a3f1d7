// Package mcp carries Model Context Protocol messages without deciding
// anything.
//
// A [Message] is kept as the bytes it came in, so what nobody changes is
// forwarded as it was, unknown members included. A [Conn] is a conversation
// with one server over stdio or streamable HTTP, in either [Era].
package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is the deepest nesting of objects and arrays in a message.
const MaxDepth = 128

// Error codes of JSON-RPC 2.0 and of MCP 2026-07-28.
const (
	CodeParseError     = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternalError  = -32603

	CodeHeaderMismatch     = -32020 // a mirrored header disagrees with the body
	CodeMissingCapability  = -32021 // the client lacks a capability that is needed
	CodeUnsupportedVersion = -32022 // the protocol version is not spoken
)

// A SyntaxError says why bytes are not a message.
type SyntaxError struct {
	// Code is the JSON-RPC code to answer with.
	Code int
	// Message is one sentence, fit for the peer.
	Message string
	// ID is the id of the message, nil when none could be read.
	ID json.RawMessage

	long bool // the message was too long to be read
}

func (e *SyntaxError) Error() string { return e.Message }

// A span is where a value stands in the bytes of a message. A value never
// starts at 0, so the zero span is an absent one.
type span struct{ start, end int }

// A Message is one JSON-RPC message. It is immutable and safe for concurrent
// use; the slices that its methods return must not be written to.
type Message struct {
	raw    []byte
	method string
	id     span
	params span
	result span
	fault  span
}

// Parse reads one message: a JSON object of JSON-RPC 2.0 and nothing after
// it. It refuses duplicate names at any depth, invalid UTF-8, nesting beyond
// [MaxDepth], and batches, which no version since 2025-06-18 has. It also
// refuses protocol members that are spelled in another case ("Method"): many
// JSON decoders match names without regard to case, so a server behind such a
// decoder would read another message than the one that was decided on.
//
// The error is a [*SyntaxError]. Parse keeps no reference to b.
func Parse(b []byte) (*Message, error) {
	m := &Message{raw: bytes.Clone(bytes.Trim(b, " \t\r\n"))}
	if err := m.scan(); err != nil {
		err.ID = m.ID()
		return nil, err
	}
	return m, nil
}

// scan finds the members of the envelope and checks its shape.
func (m *Message) scan() *SyntaxError {
	if len(m.raw) > 0 && m.raw[0] == '[' {
		return &SyntaxError{Code: CodeInvalidRequest, Message: "batches are not supported; send one message at a time"}
	}
	if len(m.raw) == 0 || m.raw[0] != '{' {
		return &SyntaxError{Code: CodeParseError, Message: "a message is one JSON object"}
	}
	if depth(m.raw) > MaxDepth {
		return &SyntaxError{Code: CodeInvalidRequest, Message: fmt.Sprintf("the message is nested deeper than %d levels", MaxDepth)}
	}
	if !jsontext.Value(m.raw).IsValid() {
		return m.explain()
	}
	var version, method span
	_, err := members(m.raw, func(name []byte, at span) error {
		switch string(name) {
		case "jsonrpc":
			version = at
		case "id":
			if !validID(m.at(at)) {
				return errInvalid("the id must be a string, an integer, or null in an error")
			}
			m.id = at
		case "method":
			method = at
		case "params":
			m.params = at
		case "result":
			m.result = at
		case "error":
			m.fault = at
		default:
			return checkCase(name, envelopeNames[:])
		}
		return nil
	})
	if err == nil {
		err = m.checkShape(version, method)
	}
	return asSyntaxError(err)
}

// explain says what is wrong with a text that is not valid JSON. On the way it
// keeps the id, so that the error can be answered.
func (m *Message) explain() *SyntaxError {
	// The decoder reads a bytes.Buffer in place: nothing is copied.
	d := jsontext.NewDecoder(bytes.NewBuffer(m.raw))
	for d.StackDepth() < 1 || d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return asSyntaxError(err)
		}
		if name.Kind() == '{' {
			continue
		}
		isID := name.String() == "id"
		value, err := d.ReadValue()
		if err != nil {
			return asSyntaxError(err)
		}
		if end := int(d.InputOffset()); isID && validID(value) {
			m.id = span{end - len(value), end}
		}
	}
	return asSyntaxError(errSyntax("bytes after the message"))
}

// checkShape holds the envelope to JSON-RPC 2.0 and to the narrower forms
// that MCP allows.
func (m *Message) checkShape(version, method span) error {
	if s, ok := unquote(m.at(version)); !ok || s != "2.0" {
		return errInvalid(`"jsonrpc" must be "2.0"`)
	}
	if method == (span{}) {
		return m.checkResponse()
	}
	name, ok := unquote(m.at(method))
	switch {
	case !ok || name == "":
		return errInvalid("the method must be a string that is not empty")
	case m.result != span{} || m.fault != span{}:
		return errInvalid("a message is a request or a response, not both")
	case m.id != span{} && string(m.at(m.id)) == "null":
		return errInvalid("the id of a request must not be null")
	}
	m.method = name
	switch p := m.at(m.params); kind(p) {
	case 'n': // some clients write null for no params
		return nil
	case '{':
		_, err := members(p, func(name []byte, _ span) error { return checkCase(name, paramsNames[:]) })
		return err
	default:
		if p == nil {
			return nil
		}
		return errInvalid("params must be an object")
	}
}

func (m *Message) checkResponse() error {
	hasResult, hasFault := m.result != span{}, m.fault != span{}
	switch {
	case hasResult == hasFault:
		return errInvalid("a message has a method, or either a result or an error")
	case m.params != span{}:
		return errInvalid("a response has no params")
	case hasFault && kind(m.at(m.fault)) != '{':
		return errInvalid("an error must be an object")
	case hasResult && (m.id == span{} || string(m.at(m.id)) == "null"):
		// MCP 2026-07-28 lets only an error go without an id.
		return errInvalid("a result must have an id")
	}
	return nil
}

// NewRequest makes a request. The id and the params must be valid JSON; nil
// params are left out.
func NewRequest(id json.RawMessage, method string, params json.RawMessage) *Message {
	m := newMessage(id)
	m.setMethod(method)
	m.member("params", params, &m.params)
	return m.close()
}

// NewNotification makes a notification. The params must be valid JSON; nil
// params are left out.
func NewNotification(method string, params json.RawMessage) *Message {
	return NewRequest(nil, method, params)
}

// NewResult makes a successful response. The id and the result must be valid
// JSON; a nil result becomes an empty object.
func NewResult(id, result json.RawMessage) *Message {
	if result == nil {
		result = json.RawMessage("{}")
	}
	m := newMessage(id)
	m.member("result", result, &m.result)
	return m.close()
}

// NewError makes an error response. A nil id becomes null, and nil data are
// left out; so are data that do not marshal, because the error itself must
// reach the peer.
func NewError(id json.RawMessage, code int, message string, data any) *Message {
	if id == nil {
		id = json.RawMessage("null")
	}
	fault := append([]byte(`{"code":`), strconv.Itoa(code)...)
	fault = append(fault, `,"message":`...)
	fault = append(fault, quote(message)...)
	if data != nil {
		if d, err := jsonv2.Marshal(data); err == nil {
			fault = append(append(fault, `,"data":`...), d...)
		}
	}
	m := newMessage(id)
	m.member("error", append(fault, '}'), &m.fault)
	return m.close()
}

func newMessage(id json.RawMessage) *Message {
	m := &Message{raw: []byte(`{"jsonrpc":"2.0"`)}
	m.member("id", id, &m.id)
	return m
}

func (m *Message) setMethod(method string) {
	var at span
	m.member("method", quote(method), &at)
	m.method = method
}

// member appends a member to a message that is not closed yet. A nil value is
// left out.
func (m *Message) member(name string, value []byte, at *span) {
	if value == nil {
		return
	}
	m.raw = append(append(append(m.raw, `,"`...), name...), `":`...)
	at.start = len(m.raw)
	m.raw = append(m.raw, value...)
	at.end = len(m.raw)
}

func (m *Message) close() *Message {
	m.raw = append(m.raw, '}')
	return m
}

// Bytes returns the message as it came, without white space around it.
func (m *Message) Bytes() []byte { return m.at(span{0, len(m.raw)}) }

// ID returns the id, or nil when there is none.
func (m *Message) ID() json.RawMessage { return m.at(m.id) }

// Method returns the method, or "" for a response.
func (m *Message) Method() string { return m.method }

// Params returns the params, or nil when there are none or they are null.
func (m *Message) Params() json.RawMessage {
	if p := m.at(m.params); kind(p) == '{' {
		return p
	}
	return nil
}

// Result returns the result of a successful response, or nil.
func (m *Message) Result() json.RawMessage { return m.at(m.result) }

// Error returns the error object of a failed response, or nil.
func (m *Message) Error() json.RawMessage { return m.at(m.fault) }

// IsRequest reports whether the message waits for a response.
func (m *Message) IsRequest() bool { return m.method != "" && m.id != span{} }

// IsNotification reports whether the message has a method and waits for
// nothing.
func (m *Message) IsNotification() bool { return m.method != "" && m.id == span{} }

// IsResponse reports whether the message answers a request.
func (m *Message) IsResponse() bool { return m.method == "" }

// WithID returns the message with another id, which must be valid. A nil id
// changes nothing.
func (m *Message) WithID(id json.RawMessage) *Message {
	if id == nil {
		return m
	}
	c := *m
	return c.replace("id", id, &c.id)
}

// WithParams returns a request or notification with other params, which must
// be valid JSON. Nil params, and a response, change nothing.
func (m *Message) WithParams(params json.RawMessage) *Message {
	if params == nil || m.IsResponse() {
		return m
	}
	c := *m
	return c.replace("params", params, &c.params)
}

// WithResult returns a response with another result, which must be valid
// JSON. A nil result, and anything but a successful response, change nothing.
func (m *Message) WithResult(result json.RawMessage) *Message {
	if result == nil || m.result == (span{}) {
		return m
	}
	c := *m
	return c.replace("result", result, &c.result)
}

// replace writes a new value where one of m's own spans is, or appends the
// member. The other bytes stay.
func (m *Message) replace(name string, value []byte, at *span) *Message {
	old := *at
	if old == (span{}) {
		m.raw = bytes.Clone(m.raw[:len(m.raw)-1])
		m.member(name, value, at)
		return m.close()
	}
	m.raw = splice(m.raw, old, value)
	shift := len(value) - (old.end - old.start)
	for _, s := range []*span{&m.id, &m.params, &m.result, &m.fault} {
		if s.start > old.start {
			s.start, s.end = s.start+shift, s.end+shift
		}
	}
	at.end += shift
	return m
}

// at returns the bytes of a span, capped so that appending to them cannot
// reach the rest of the message.
func (m *Message) at(s span) []byte {
	if s == (span{}) {
		return nil
	}
	return m.raw[s.start:s.end:s.end]
}

// envelopeNames and paramsNames are the members by which the protocol steers.
var (
	envelopeNames = [...]string{"jsonrpc", "id", "method", "params", "result", "error"}
	paramsNames   = [...]string{
		"_meta", "argument", "arguments", "cursor", "inputResponses", "level", "name",
		"notifications", "ref", "requestId", "requestState", "task", "taskId", "uri",
	}
)

// checkCase refuses a name that differs from a known one only by case.
func checkCase(name []byte, known []string) error {
	for _, k := range known {
		if string(name) != k && strings.EqualFold(string(name), k) {
			return errInvalid(fmt.Sprintf("%q must be written %q", name, k))
		}
	}
	return nil
}

// validID reports whether an id is a string, an integer or null.
func validID(id []byte) bool {
	switch k := kind(id); k {
	case '"', 'n':
		return true
	case '0':
		return !bytes.ContainsAny(id, ".eE")
	default:
		return false
	}
}

func kind(v []byte) jsontext.Kind { return jsontext.Value(v).Kind() }

func quote(s string) []byte {
	// Invalid UTF-8 becomes U+FFFD, which is all that can be done about it.
	b, _ := jsontext.AppendQuote(nil, s)
	return b
}

// unquote returns the text of a JSON string.
func unquote(v []byte) (string, bool) {
	if kind(v) != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

func errSyntax(message string) error {
	return &SyntaxError{Code: CodeParseError, Message: message}
}

func errInvalid(message string) error {
	return &SyntaxError{Code: CodeInvalidRequest, Message: message}
}

// asSyntaxError turns the errors of the JSON scanner into ours.
func asSyntaxError(err error) *SyntaxError {
	var ours *SyntaxError
	var text *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, jsontext.ErrDuplicateName):
		return &SyntaxError{Code: CodeInvalidRequest, Message: "an object has the same name twice"}
	case errors.As(err, &text):
		return &SyntaxError{Code: CodeParseError, Message: fmt.Sprintf("invalid JSON after byte %d: %v", text.ByteOffset, text.Err)}
	default:
		return &SyntaxError{Code: CodeParseError, Message: "invalid JSON: " + err.Error()}
	}
}
