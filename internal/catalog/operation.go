package catalog

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/provenance"
)

// The effect groups. Every operation is in at least one of them.
const (
	// EffectRead only reads. An operation in it does nothing but read (and
	// perhaps reach outside), so that a permit for it lets no change through.
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

// An Operation is one thing that can be done: a pinned tool, a method of the
// protocol, or an action of an application. It is immutable and safe for
// concurrent use.
type Operation struct {
	// Action names it: "<server>/<tool>", "mcp:<method>" or
	// "<application>::<name>".
	Action string
	// Application is the namespace of an application's action, and Name what its
	// enforcement points call it. Both are empty for all others.
	Application string
	Name        string
	// Server and Tool name a tool. Both are empty for a method.
	Server string
	Tool   string
	// Method is the method of the protocol. Empty for a tool.
	Method string
	// Digest is the digest ([authz.Digest]) of the pinned definition, and
	// Definition the definition itself. Empty for a method.
	Digest     string
	Definition json.RawMessage
	// Title and Description are the tool's as its server gave them: untrusted
	// text.
	Title       string
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
	// Undecided: the operator has not said which arguments carry authority. All
	// of them may.
	Undecided bool

	input        *shape // of a tool
	round        bool   // numbers to four places
	resourceType types.EntityType
	resourcePath []string

	method       *method
	serverLabels map[string][]string
	marks        provenance.Marks
	serverMarks  map[string]provenance.Marks // of a method

	id      types.String        // of an application's action: the Cedar id
	context resolved.RecordType // of an application's action: the operator's part
}

// UID is the Cedar action.
func (o *Operation) UID() types.EntityUID {
	if o.Application != "" {
		return types.NewEntityUID(types.EntityType(o.Application+"::Action"), o.id)
	}
	return types.NewEntityUID("Action", types.String(o.Action))
}

// OutputLabels are the labels that a session gets when the operation is
// released on a server. A tool has one server; a method has many.
func (o *Operation) OutputLabels(server string) []string {
	if labels, ok := o.serverLabels[server]; ok {
		return labels
	}
	return o.Labels
}

// ResourceType is the Cedar type of what a tool touches, and the argument that
// holds its id; "Server" and nothing if the operator mapped none. It is empty
// for a method.
func (o *Operation) ResourceType() (entityType string, argument []string) {
	switch {
	case o.method != nil:
		return "", nil
	case o.resourceType == "":
		return "Server", nil
	default:
		return string(o.resourceType), o.resourcePath
	}
}

// parents are the groups that the action is in.
func (o *Operation) parents() []string {
	return sortedSet(append(append([]string(nil), o.Effects...), o.Groups...))
}

// Input converts the arguments of a call (of a method: its params) into the
// typed context.input that policies see, and the entities that it refers to.
// Empty raw means no arguments.
//
// It is strict: an argument that the tool does not have, a missing one, a
// value of the wrong type or out of range, a key given twice, and bytes that
// are not I-JSON are errors. The error is an [*InputError] and fit for the
// agent: it names the argument and never quotes its value.
func (o *Operation) Input(server string, raw json.RawMessage) (types.Record, types.EntityMap, error) {
	if o.method != nil {
		rec, err := o.method.input(server, raw)
		return rec, nil, err
	}
	if o.input == nil || server != o.Server {
		return types.Record{}, nil, fmt.Errorf("input of %s: it is not an operation of server %q", o.Action, server)
	}
	return convert(o.input, o.round, raw)
}

// Resource says what a call touches: the entity that the operator mapped from
// the arguments, or the server. The map holds it and its ancestors.
//
// What the gate says it is (given) must agree, or be zero: a gate cannot talk
// the PDP into another resource than the arguments name.
func (o *Operation) Resource(server string, given authz.Entity, raw json.RawMessage) (types.EntityUID, types.EntityMap, error) {
	uid, err := o.resource(server, raw)
	if err != nil {
		return types.EntityUID{}, nil, err
	}
	top := types.NewEntityUID("Server", types.String(server))
	if !given.IsZero() && given != entityOf(uid) && given != entityOf(top) {
		return types.EntityUID{}, nil, &InputError{Reason: fmt.Sprintf("the resource is not %s %q, which the request names", given.Type, given.ID)}
	}
	ancestors := types.EntityMap{top: {UID: top}}
	if uid != top {
		ancestors[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(top)}
	}
	return uid, ancestors, nil
}

func entityOf(uid types.EntityUID) authz.Entity {
	return authz.Entity{Type: string(uid.Type), ID: string(uid.ID)}
}

func (o *Operation) resource(server string, raw json.RawMessage) (types.EntityUID, error) {
	if o.method != nil {
		return o.method.resource(server, raw)
	}
	if server != o.Server {
		return types.EntityUID{}, fmt.Errorf("resource of %s: it is not an operation of server %q", o.Action, server)
	}
	if o.resourceType == "" {
		return types.NewEntityUID("Server", types.String(server)), nil
	}
	id, err := idAt(raw, o.resourcePath)
	if err != nil {
		return types.EntityUID{}, err
	}
	return types.NewEntityUID(o.resourceType, types.String(id)), nil
}

// input picks what policy sees of a method's params.
func (m *method) input(server string, raw json.RawMessage) (types.Record, error) {
	rec := types.RecordMap{"server": types.String(server)}
	for _, p := range m.picks {
		v, err := valueAt(raw, p.path)
		if err != nil {
			return types.Record{}, err
		}
		if v == nil {
			if p.required {
				return types.Record{}, &InputError{Path: dotted(p.path), Reason: "is missing"}
			}
			continue
		}
		s, ok := unquote(v)
		if !ok {
			return types.Record{}, &InputError{Path: dotted(p.path), Reason: "is not a string"}
		}
		rec[types.String(p.attr)] = types.String(s)
	}
	if len(m.picks) == 0 {
		// Bytes that are no JSON object are refused all the same.
		if _, err := valueAt(raw, nil); err != nil {
			return types.Record{}, err
		}
	}
	return types.NewRecord(rec), nil
}

func (m *method) resource(server string, raw json.RawMessage) (types.EntityUID, error) {
	in, err := m.input(server, raw)
	if err != nil {
		return types.EntityUID{}, err
	}
	get := func(attr types.String) (string, bool) {
		s, ok := in.Get(attr)
		str, isString := s.(types.String)
		return string(str), ok && isString
	}
	typ, attr := m.resources[0], types.String("uri")
	switch {
	case typ == "Server":
		return types.NewEntityUID("Server", types.String(server)), nil
	case m.name == "completion/complete":
		// COAZ-MCP, Completion: a prompt, or else a resource.
		ref, _ := get("ref")
		switch ref {
		case "ref/prompt":
			typ, attr = "McpPrompt", "name"
		case "ref/resource":
			typ, attr = "McpResource", "uri"
		default:
			return types.EntityUID{}, &InputError{Path: "ref.type", Reason: `is neither "ref/prompt" nor "ref/resource"`}
		}
	case typ == "McpPrompt":
		attr = "name"
	}
	id, ok := get(attr)
	if !ok {
		return types.EntityUID{}, &InputError{Path: string(attr), Reason: "is missing"}
	}
	return types.NewEntityUID(types.EntityType(typ), types.String(server+"/"+id)), nil
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
	return "argument " + strconv.Quote(Printable(e.Path)) + " " + e.Reason
}
