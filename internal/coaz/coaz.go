// Package coaz maps MCP messages to AuthZEN requests.
//
// It is the COAZ-MCP binding of the COAZ framework (OpenID AuthZEN, draft 1):
// a mapping is a template of an AuthZEN request in which any value may be an
// expression (CEL) over the params of the message and the claims of the token.
// Every MCP method has a default mapping; a tool may declare its own. It is
// pure.
package coaz

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// SubjectClaim is the subject-identity claim of a deployment that designates
// none (COAZ-MCP, The Subject-Identity Claim).
const SubjectClaim = "sub"

// maxParams and maxToken bound the bytes of an [Input].
const (
	maxParams = 1 << 20
	maxToken  = 64 << 10
)

// An Input is what a mapping is resolved against.
type Input struct {
	// Params is the params object of the message; empty for none.
	Params json.RawMessage
	// Token is the object of the verified claims of the access token. Required:
	// without a subject nothing can be mapped. Nothing here verifies it.
	Token json.RawMessage
	// Server is the identifier by which tokens name this server (RFC 8707). It
	// is needed where aud is a list.
	Server string
	// SubjectClaim is the claim that identifies the subject. Default
	// [SubjectClaim]: a mapping's $token.sub then means this claim.
	SubjectClaim string
}

// Requests is what a mapping asks of the PDP. The message may proceed only if
// the answer to every one is an allow.
type Requests struct {
	// Evaluations are the decisions to ask for, in the mapping's order; there is
	// at least one. Defaults have been applied to each.
	Evaluations []Evaluation
	// Single says that the mapping names the Access Evaluation API, not the
	// Access Evaluations API.
	Single bool
	// Unanchored says that the subject's id is not the token's subject-identity
	// claim but whatever the mapping's author makes of the message. It is no
	// authenticated identity, and whoever runs the PEP should be warned.
	Unanchored bool
}

// An Evaluation is one AuthZEN Access Evaluation request. What is optional and
// absent is nil; all else is there and not empty.
type Evaluation struct {
	Subject            authz.Entity
	SubjectProperties  json.RawMessage
	Action             string
	ActionProperties   json.RawMessage
	Resource           authz.Entity
	ResourceProperties json.RawMessage
	Context            json.RawMessage
}

// Request is the evaluation as a request to the PDP: everything in it is
// asserted. Who asks, and in what session, is the caller's to add.
func (e Evaluation) Request() authz.Request {
	return authz.Request{
		Asserted: &authz.Assertion{
			Subject: e.Subject, SubjectProperties: e.SubjectProperties,
			ActionProperties:   e.ActionProperties,
			ResourceProperties: e.ResourceProperties,
			Context:            e.Context,
		},
		Action:   e.Action,
		Resource: e.Resource,
	}
}

// MarshalJSON is the body of the Access Evaluation request (AuthZEN 1.0 §6).
func (e Evaluation) MarshalJSON() ([]byte, error) {
	type entity struct {
		authz.Entity
		Properties json.RawMessage `json:"properties,omitempty"`
	}
	type action struct {
		Name       string          `json:"name"`
		Properties json.RawMessage `json:"properties,omitempty"`
	}
	return json.Marshal(struct {
		Subject  entity          `json:"subject"`
		Action   action          `json:"action"`
		Resource entity          `json:"resource"`
		Context  json.RawMessage `json:"context,omitempty"`
	}{
		entity{e.Subject, e.SubjectProperties}, action{e.Action, e.ActionProperties},
		entity{e.Resource, e.ResourceProperties}, e.Context,
	})
}

// A Mapping is a checked mapping. It is immutable and safe for concurrent use.
type Mapping struct {
	single     bool
	base       parts
	entries    []parts // of the envelope "evaluations"
	unanchored bool
	claim      string // the one that subject.id is, where it is one
}

// parts are the templates of one request. A part that is not said is nil.
type parts struct {
	subject, action, resource, context *node
}

// anchored reports whether the mapping takes subject.id from the claim that
// identifies the subject, in a deployment that designates this one (empty:
// [SubjectClaim]).
func (m *Mapping) anchored(claim string) bool {
	return !m.unanchored && (m.claim == SubjectClaim || m.claim == claim)
}

// Map resolves the mapping. The error is an [*Error] if the message or the
// token cannot be mapped, and otherwise wraps that of ctx.
func (m *Mapping) Map(ctx context.Context, in Input) (Requests, error) {
	if in.SubjectClaim == "" {
		in.SubjectClaim = SubjectClaim
	}
	r := resolution{ctx: ctx, in: in, anchored: m.anchored(in.SubjectClaim)}
	var err error
	if r.params, err = readObject("params", in.Params, maxParams); err != nil {
		return Requests{}, err
	}
	if r.token, err = readObject("token", in.Token, maxToken); err != nil {
		return Requests{}, err
	}
	base, err := r.parts(m.base)
	if err != nil {
		return Requests{}, err
	}
	out := Requests{Single: m.single, Unanchored: !r.anchored}
	if m.single {
		out.Evaluations = []Evaluation{base.evaluation()}
		return out, nil
	}
	for _, e := range m.entries {
		own, err := r.parts(e)
		if err != nil {
			return Requests{}, err
		}
		out.Evaluations = append(out.Evaluations, own.over(base).evaluation())
	}
	return out, nil
}

// PassThrough reports whether a message proceeds without a decision: a ping,
// and what is called a notification. A message that is called so and has an id
// is a request all the same; whoever asks knows whether it has one.
func PassThrough(method string) bool {
	return method == "ping" || strings.HasPrefix(method, "notifications/")
}

// declaration is the member of a tool's inputSchema that declares a mapping.
const declaration = "x-authzen-mapping"

// Declared finds the mapping that a tool definition declares. ok is false when
// it declares none. An error, which is an [*Error], says that the definition
// cannot be read, so that nobody knows whether it does.
func Declared(definition json.RawMessage) (raw json.RawMessage, ok bool, err error) {
	schema, ok, err := member(definition, "inputSchema", "definition")
	if err != nil || !ok {
		return nil, false, err
	}
	if !isObject(schema) { // a schema that is true or false declares nothing
		return nil, false, nil
	}
	return member(schema, declaration, "definition.inputSchema")
}

// ToolCall is the params of a tools/call as far as a PDP knows them: the
// tool's name, and its arguments, one JSON object or empty for none. The error
// is an [*Error].
func ToolCall(name string, arguments json.RawMessage) (json.RawMessage, error) {
	b, err := appendString([]byte(`{"name":`), name)
	if err != nil {
		return nil, &Error{Path: "params.name", Reason: "is not UTF-8"}
	}
	if len(arguments) > 0 {
		var r ijson.Reader
		r.Reset(arguments)
		if v := r.Value(); r.End() != nil || !isObject(v) {
			return nil, &Error{Path: "params.arguments", Reason: "is not a JSON object (I-JSON)"}
		}
		b = append(append(b, `,"arguments":`...), arguments...)
	}
	return append(b, '}'), nil
}

// member finds a member of an object.
func member(text json.RawMessage, name, path string) (value json.RawMessage, ok bool, err error) {
	var r ijson.Reader
	r.Reset(text)
	if !r.Object() {
		return nil, false, &Error{Path: path, Reason: "is not a JSON object"}
	}
	for key, more := r.Next(); more; key, more = r.Next() {
		v := r.Value()
		if string(key) == name {
			value, ok = v, true
		}
	}
	if err := r.End(); err != nil {
		return nil, false, &Error{Path: path, Reason: "is not I-JSON: " + err.Error()}
	}
	return value, ok, nil
}

func isObject(text json.RawMessage) bool { return len(text) > 0 && text[0] == '{' }

// The codes by which a PEP refuses a message (COAZ-MCP, Error Handling). In no
// case does the message proceed.
const (
	// CodeMapping: an AuthZEN request could not be made of the message. It is an
	// [*Error].
	CodeMapping = -32602
	// CodeDenied: at least one decision is a denial. It is an [ErrDenied], and no
	// fault. For a tools/call the PEP may answer with a tool result that has
	// isError instead.
	CodeDenied = -32001
	// CodeUnavailable: the PDP could not be asked, or did not answer. It is any
	// other error.
	CodeUnavailable = -32603
)

// ErrDenied is a denial by policy, and the refusal of a method that has no
// mapping (COAZ-MCP, Unknown Methods).
var ErrDenied = errors.New("denied")

// Code is the code by which an error refuses a message.
func Code(err error) int {
	var mapping *Error
	switch {
	case errors.As(err, &mapping):
		return CodeMapping
	case errors.Is(err, ErrDenied):
		return CodeDenied
	default:
		return CodeUnavailable
	}
}

// An Error is a mapping error: what is wrong with a mapping, or why a message
// does not fit it. It quotes the mapping, never a value of the message or the
// token.
type Error struct {
	// Path is where in the mapping, with dots; or "params", "token" or
	// "definition".
	Path string
	// Expression is the expression that failed, with its $. Empty: it is not
	// about one.
	Expression string
	// Reason is the rest of a sentence.
	Reason string
}

func (e *Error) Error() string {
	s := e.Path
	if e.Expression != "" {
		s += ": expression '" + printable(e.Expression) + "' failed:"
	}
	return s + " " + e.Reason
}
