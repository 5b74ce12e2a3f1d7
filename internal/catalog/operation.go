package catalog

import (
	"encoding/json"
	"errors"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// The effect groups. Every operation is in at least one of them.
const (
	// EffectRead only reads. An operation in it does nothing but read, so that
	// a permit for it never lets a change through.
	EffectRead = "read"
	// EffectWrite changes something.
	EffectWrite = "write"
	// EffectDestructive destroys something; such an operation is in
	// EffectWrite too.
	EffectDestructive = "destructive"
	// EffectExternal reaches outside the organisation.
	EffectExternal = "external"
	// EffectDiscover asks a server what it offers. Only methods of the
	// protocol are in it.
	EffectDiscover = "discover"
)

// An Operation is one thing that an agent can do: a pinned tool, or a method
// of the protocol. It is immutable and safe for concurrent use.
type Operation struct {
	// Action is the id of the Cedar action: "<server>/<tool>" or
	// "mcp:<method>".
	Action string
	// Server and Tool name a tool. Both are empty for a method.
	Server string
	Tool   string
	// Method is the method of the protocol. Empty for a tool.
	Method string
	// Digest is the digest ([authz.Digest]) of the pinned definition. Empty
	// for a method.
	Digest string
	// Description is the tool's description as its server gave it: untrusted
	// text.
	Description string
	// Effects are the effect groups that the operation is in, sorted.
	Effects []string
	// Classified says that the operator stated the effects. If not, the
	// operation is taken to be as dangerous as can be.
	Classified bool
	// Groups are the operator's own groups, sorted.
	Groups []string
	// Labels are the labels that a session gets once the operation is
	// released, sorted. For a method see [Operation.OutputLabels].
	Labels []string
	// Authority are the arguments that carry authority (a recipient, an
	// amount), as paths with dots, sorted.
	Authority []string
}

// UID is the Cedar action.
func (o *Operation) UID() types.EntityUID {
	return types.NewEntityUID("Action", types.String(o.Action))
}

// OutputLabels are the labels that a session gets when the operation is
// released on a server. A tool has one server; a method has many.
func (o *Operation) OutputLabels(server string) []string { return o.Labels }

// Input converts the arguments of a call (of a method: its params) into the
// typed context.input that policies see, and the entities that it refers to.
// Empty raw means no arguments.
//
// It is strict: an argument that the tool does not have, a missing one, a
// value of the wrong type or out of range, a key given twice, and bytes that
// are not I-JSON are errors. The error is an [*InputError] and fit for the
// agent: it names the argument and never quotes its value.
func (o *Operation) Input(server string, raw json.RawMessage) (types.Record, types.EntityMap, error) {
	return types.Record{}, nil, errors.New("catalog: not built yet")
}

// Resource says what a call touches: the entity that the operator mapped from
// the arguments, or the server. The map holds it and its ancestors.
//
// What the gate says it is (given) must agree, or be zero: a gate cannot talk
// the PDP into another resource than the arguments name.
func (o *Operation) Resource(server string, given authz.Entity, raw json.RawMessage) (types.EntityUID, types.EntityMap, error) {
	return types.EntityUID{}, nil, errors.New("catalog: not built yet")
}

// An InputError says why arguments do not fit their operation. It is one
// sentence fit for the agent.
type InputError struct {
	// Path names the argument, with dots; empty for the whole.
	Path string
	// Reason says what is wrong with it.
	Reason string
}

func (e *InputError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return "argument " + e.Path + ": " + e.Reason
}
