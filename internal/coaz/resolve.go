package coaz

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A resolution resolves one mapping for one message.
type resolution struct {
	ctx           context.Context
	in            Input
	params, token ref.Val
	anchored      bool
	cost          uint64 // of all expressions so far
	bytes         int    // of all parts so far
}

// resolved are the parts of one request. A part that is not said is nil.
type resolved struct {
	subject, action, resource *part
	context                   json.RawMessage
}

// A part is a subject, an action or a resource. The name of an action is its
// id.
type part struct {
	kind, id   string
	properties json.RawMessage
}

// over is an entry with the defaults: what the entry says replaces the default
// as a whole (AuthZEN 1.0 §7.1.1).
func (r resolved) over(base resolved) resolved {
	r.subject = base.subject
	if r.action == nil {
		r.action = base.action
	}
	if r.resource == nil {
		r.resource = base.resource
	}
	if r.context == nil {
		r.context = base.context
	}
	return r
}

// evaluation requires that nothing is missing, which the compiler has seen to.
func (r resolved) evaluation() Evaluation {
	return Evaluation{
		Subject: authz.Entity{Type: r.subject.kind, ID: r.subject.id}, SubjectProperties: r.subject.properties,
		Action: r.action.id, ActionProperties: r.action.properties,
		Resource: authz.Entity{Type: r.resource.kind, ID: r.resource.id}, ResourceProperties: r.resource.properties,
		Context: r.context,
	}
}

func (r *resolution) parts(p parts) (out resolved, err error) {
	if out.subject, err = r.part(p.subject, "id"); err != nil {
		return out, err
	}
	if out.action, err = r.part(p.action, "name"); err != nil {
		return out, err
	}
	if out.resource, err = r.part(p.resource, "id"); err != nil {
		return out, err
	}
	if p.context != nil {
		out.context, err = r.object(p.context)
	}
	return out, err
}

// part resolves a required part. One that turns out absent, null, or of
// another form than AuthZEN's is a mapping error.
func (r *resolution) part(n *node, id string) (*part, error) {
	if n == nil {
		return nil, nil
	}
	raw, err := r.object(n)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, &Error{Path: n.path, Reason: "is absent and required"}
	}
	p := &part{}
	names := map[string]*string{id: &p.id}
	if id == "id" {
		names["type"] = &p.kind
	}
	for _, m := range members(raw) {
		path := n.path + "." + printable(m.name)
		to, isName := names[m.name]
		switch {
		case isName && m.value[0] == '"':
			*to = stringOf(m.value)
		case isName:
			return nil, &Error{Path: path, Reason: "is not a string"}
		case m.name == "properties" && isObject(m.value):
			p.properties = m.value
		case m.name == "properties":
			return nil, &Error{Path: path, Reason: "is not an object"}
		default:
			return nil, &Error{Path: path, Reason: "is not known: attributes of one's own belong into properties"}
		}
	}
	for name, value := range names {
		if *value == "" {
			return nil, &Error{Path: n.path + "." + name, Reason: "is absent or empty, and required"}
		}
	}
	return p, nil
}

// object resolves a node that must be an object. Absent is nil.
func (r *resolution) object(n *node) (json.RawMessage, error) {
	w := valueWriter{}
	present, err := r.write(&w, n)
	if err != nil {
		return nil, err
	}
	if r.bytes += len(w.b); r.bytes > maxOutput {
		return nil, &Error{Path: n.path, Reason: fmt.Sprintf("makes a request of more than %d bytes", maxOutput)}
	}
	if !present {
		return nil, nil
	}
	if !isObject(w.b) {
		return nil, &Error{Path: n.path, Reason: "is not an object"}
	}
	return w.b, nil
}

// write writes a node's value, unless it is absent.
func (r *resolution) write(w *valueWriter, n *node) (present bool, err error) {
	switch n.kind {
	case literalNode:
		w.b = append(w.b, n.literal...)
		return true, nil
	case expressionNode:
		return r.expression(w, n)
	case objectNode:
		return true, r.children(w, n, '{', '}')
	case listNode:
		return true, r.children(w, n, '[', ']')
	default:
		return false, &Error{Path: n.path, Reason: "is of an unknown kind"}
	}
}

// children writes the members or elements that are there.
func (r *resolution) children(w *valueWriter, n *node, open, end byte) error {
	w.b = append(w.b, open)
	first := true
	for i, child := range n.children {
		begun := len(w.b)
		if !first {
			w.b = append(w.b, ',')
		}
		if n.kind == objectNode {
			if err := w.string(n.names[i]); err != nil {
				return &Error{Path: n.path, Reason: err.Error()}
			}
			w.b = append(w.b, ':')
		}
		present, err := r.write(w, child)
		if err != nil {
			return err
		}
		if !present {
			w.b = w.b[:begun]
			continue
		}
		first = false
	}
	w.b = append(w.b, end)
	return nil
}

// expression writes the value of an expression.
func (r *resolution) expression(w *valueWriter, n *node) (present bool, err error) {
	fail := func(reason string) (bool, error) {
		return false, &Error{Path: n.path, Expression: "$" + n.expression.source, Reason: reason}
	}
	v, err := r.value(n)
	switch {
	case r.ctx.Err() != nil:
		return false, fmt.Errorf("evaluate %s: %w", n.path, context.Cause(r.ctx))
	case err != nil:
		return fail(err.Error())
	case v == nil:
		return false, nil
	}
	if err := w.value(v, 0); err != nil {
		return fail(err.Error())
	}
	return true, nil
}

// value is the value of an expression, nil if it is absent.
func (r *resolution) value(n *node) (ref.Val, error) {
	claim := n.expression.claim
	switch {
	case n.role == subjectID && r.anchored:
		// $token.sub is read as the claim that identifies the subject. Reading it
		// from the token is the verification: no other value can result.
		return r.subject()
	case n.role == resourceID && claim == "aud":
		return r.audience()
	}
	v, cost, err := n.expression.eval(r.ctx, r.params, r.token)
	if r.cost += cost; err == nil && r.cost > maxTotalCost {
		err = errCost
	}
	if err != nil {
		return nil, err
	}
	if o, ok := v.(*types.Optional); ok {
		if !o.HasValue() {
			return nil, nil
		}
		return o.GetValue(), nil
	}
	return v, nil
}

// claim is a claim of the token.
func (r *resolution) claim(name string) (ref.Val, bool) {
	token, ok := r.token.(traits.Mapper)
	if !ok {
		return nil, false
	}
	return token.Find(types.String(name))
}

// subject is the subject-identity claim.
func (r *resolution) subject() (ref.Val, error) {
	v, ok := r.claim(r.in.SubjectClaim)
	s, isString := v.(types.String)
	if !ok || !isString {
		return nil, fmt.Errorf("the token has no claim %q that identifies its subject", printable(r.in.SubjectClaim))
	}
	return s, nil
}

// audience is the one audience of the token that is this server (COAZ-MCP,
// Default Mappings).
func (r *resolution) audience() (ref.Val, error) {
	v, _ := r.claim("aud")
	switch v := v.(type) {
	case types.String:
		return v, nil
	case traits.Lister:
		server := types.String(r.in.Server)
		if v.Size() == types.IntOne && server == "" {
			return v.Get(types.IntZero), nil
		}
		if server != "" && v.Contains(server) == types.True {
			return server, nil
		}
		return nil, errors.New("the token's aud does not name this server, or names several")
	default:
		return nil, errors.New("the token has no aud")
	}
}
