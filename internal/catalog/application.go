package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/internal/typed"
)

// An application is a namespace of the operator's own schema: the actions and
// types that other people's enforcement points ask about (AuthZEN). Its actions
// are operations beside the tools, and the plane adds its own part to the
// context of each.

// actionProperties is the attribute of an application's context that holds the
// properties of the action (AuthZEN 1.0 §5.2.1).
const actionProperties = "action"

// applications adds the operator's schema.
func (b *builder) applications(text []byte) {
	if len(text) == 0 {
		return
	}
	var s schema.Schema
	if err := s.UnmarshalCedar(text); err != nil {
		b.schemaProblem("%v", err)
		return
	}
	own := s.AST()
	b.extendBase(own)
	for _, path := range sortedNames(own.Namespaces) {
		b.hidden(path, own.Namespaces[path])
		b.application(path, own.Namespaces[path])
	}
}

// schemaFile is how problems name the operator's schema.
const schemaFile = "schema"

func (b *builder) schemaProblem(format string, args ...any) {
	b.problems = append(b.problems, &Problem{File: schemaFile, Message: fmt.Sprintf(format, args...)})
}

// extendBase lets the operator give attributes, tags and further parents to
// the plane's own entities, and nothing else outside of a namespace.
func (b *builder) extendBase(s *ast.Schema) {
	root := b.namespace("")
	for _, name := range sortedNames(s.Entities) {
		mine, known := root.Entities[name]
		if !known {
			b.schemaProblem("entity %s: declare it in a namespace, which names an application; outside of one only the plane's own entities (%s) can be given attributes",
				name, strings.Join([]string{"Agent", "Group", "Server"}, ", "))
			continue
		}
		theirs := s.Entities[name]
		shape, err := extended(mine.Shape, theirs.Shape)
		if err != nil {
			b.schemaProblem("entity %s: %v", name, err)
			continue
		}
		mine.Shape, mine.Tags, mine.Annotations = shape, theirs.Tags, theirs.Annotations
		for _, p := range theirs.ParentTypes {
			if !slices.Contains(mine.ParentTypes, p) {
				mine.ParentTypes = append(mine.ParentTypes, p)
			}
		}
		root.Entities[name] = mine
	}
	if len(s.Actions) > 0 || len(s.CommonTypes) > 0 || len(s.Enums) > 0 {
		b.schemaProblem("actions, types and enumerations belong into a namespace, which names an application")
	}
}

// extended is the plane's own shape of an entity with the operator's attributes.
func extended(ours, theirs ast.RecordType) (ast.RecordType, error) {
	if len(ours) == 0 {
		return theirs, nil
	}
	out := maps.Clone(ours)
	for attr, t := range theirs {
		if _, taken := ours[attr]; taken {
			return nil, fmt.Errorf("the attribute %q is the registry's own; give yours another name", attr)
		}
		out[attr] = t
	}
	return out, nil
}

// hidden explains what Cedar only forbids: a name in a namespace that would
// hide one outside of it, as the effect groups are.
func (b *builder) hidden(path types.Path, ns ast.Namespace) {
	for _, name := range sortedNames(ns.Actions) {
		if _, taken := b.namespace("").Actions[name]; taken {
			b.schemaProblem("namespace %[1]s, action %[2]q: Action::%[2]q is the plane's own, which Cedar lets no namespace hide; declare it as, say, @%[3]s(%[2]q) action \"%[2]s it\", and enforcement points still ask for %[2]q",
				path, name, nameAnnotation)
		}
	}
}

// nameAnnotation says under which name enforcement points know an action,
// where that is not its Cedar id.
const nameAnnotation = "name"

func (b *builder) application(path types.Path, ns ast.Namespace) {
	if b.out[path] != nil {
		b.schemaProblem("namespace %s is taken", path)
		return
	}
	n := fillNamespace(ns)
	b.out[path] = n
	for _, name := range baseTypes {
		_, isEntity := n.Entities[ast.Ident(name)]
		_, isEnum := n.Enums[ast.Ident(name)]
		if isEntity || isEnum {
			b.schemaProblem("namespace %s: %s is the plane's own; give the type another name", path, name)
		}
	}
	for _, name := range sortedNames(n.Actions) {
		a := n.Actions[name]
		if a.AppliesTo == nil { // a group of actions
			continue
		}
		context, err := ownContext(n, a.AppliesTo.Context)
		if err != nil {
			b.schemaProblem("namespace %s, action %q: %v", path, name, err)
			continue
		}
		for attr, t := range planeContext() {
			if _, taken := context[attr]; taken {
				b.schemaProblem("namespace %s, action %q: context.%s is what the plane itself says; give yours another name", path, name, attr)
			}
			context[attr] = t
		}
		known := string(name)
		if alias, ok := a.Annotations[nameAnnotation]; ok {
			known = string(alias)
		}
		action := string(path) + "::" + known
		if b.catalog.byAction[action] != nil {
			b.schemaProblem("namespace %s: two actions are known as %q", path, known)
			continue
		}
		to := *a.AppliesTo
		to.Context = context
		a.AppliesTo = &to
		n.Actions[name] = a
		b.add(&Operation{
			Action: action, Application: string(path), Name: known, id: name,
			Effects: effectsOf(a), Classified: true,
		})
	}
}

// ownContext is the context that the operator declares, as a new record.
func ownContext(n *ast.Namespace, t ast.IsType) (ast.RecordType, error) {
	out := ast.RecordType{}
	for range len(n.CommonTypes) + 1 {
		switch c := t.(type) {
		case nil:
			return out, nil
		case ast.RecordType:
			for name, attr := range c {
				out[name] = attr
			}
			return out, nil
		case ast.TypeRef:
			common, ok := n.CommonTypes[ast.Ident(c)]
			if !ok {
				return nil, fmt.Errorf("its context is %s, which the namespace does not declare", c)
			}
			t = common.Type
		default:
			return nil, errors.New("its context is not a record")
		}
	}
	return nil, errors.New("its context is declared in a circle")
}

// effectsOf are the effect groups that an action says it is in. One that says
// nothing is taken to be as dangerous as can be.
func effectsOf(a ast.Action) []string {
	has := map[string]bool{}
	for _, p := range a.Parents {
		if p.Type != "Action" {
			continue
		}
		switch e := string(p.ID); e {
		case EffectRead, EffectWrite, EffectDestructive, EffectExternal, EffectDiscover:
			has[e] = true
		}
	}
	if len(has) == 0 {
		return unclassified()
	}
	return normalEffects(has)
}

// resolve works the schema out once everything is declared.
func (b *builder) resolve() {
	types, err := resolved.Resolve(b.catalog.ast)
	if err != nil {
		b.schemaProblem("%v", err)
		return
	}
	b.catalog.types = types
	plane := planeContext()
	for _, o := range b.catalog.operations {
		if o.Application == "" {
			continue
		}
		o.context = resolved.RecordType{}
		for name, attr := range types.Actions[o.UID()].AppliesTo.Context {
			if _, ours := plane[name]; !ours {
				o.context[name] = attr
			}
		}
	}
}

// Types is the schema with everything resolved. It must not be modified.
func (c *Catalog) Types() *resolved.Schema { return c.types }

// Find finds the operation that an enforcement point of an application means
// by a name: an action of the application, or else an operation of the
// catalogue.
func (c *Catalog) Find(application, name string) (*Operation, bool) {
	if application != "" {
		if o, ok := c.byAction[application+"::"+name]; ok {
			return o, true
		}
	}
	return c.Operation(name)
}

// EntityType finds the entity type that an enforcement point of an application
// means by a name: one of the application, or else one of the plane or fully
// qualified. A name that is no Cedar identifier stands for its [Escape].
func (c *Catalog) EntityType(application, name string) (types.EntityType, bool) {
	ident := name
	if !strings.Contains(name, "::") {
		ident = Escape(name)
	}
	if application != "" {
		if t := types.EntityType(application + "::" + ident); c.declares(t) {
			return t, true
		}
	}
	if t := types.EntityType(ident); c.declares(t) {
		return t, true
	}
	return "", false
}

func (c *Catalog) declares(t types.EntityType) bool {
	if _, ok := c.types.Entities[t]; ok {
		return true
	}
	_, ok := c.types.Enums[t]
	return ok
}

// Context reads what an enforcement point says of an application's action as
// the action's context: its properties, and the members of the context that
// the schema declares. Members that it does not declare are left out, since no
// policy could look at them (AuthZEN 1.0 §5.4).
func (o *Operation) Context(c *Catalog, action, context json.RawMessage) (types.RecordMap, error) {
	own := o.context
	opts := c.reading(o.Application)
	attrs := types.RecordMap{}
	props, declared := own[actionProperties]
	if declared {
		rest := make(resolved.RecordType, len(own)-1)
		for name, attr := range own {
			if name != actionProperties {
				rest[name] = attr
			}
		}
		own = rest
	}
	if len(own) > 0 {
		var err error
		if attrs, err = typed.Record(own, orEmpty(context), opts); err != nil {
			return nil, inputError("context", err)
		}
	}
	if declared && (len(action) > 0 || !props.Optional) {
		v, err := typed.Value(props.Type, orEmpty(action), opts)
		if err != nil {
			return nil, inputError("action", err)
		}
		attrs[actionProperties] = v
	}
	return attrs, nil
}

// Attributes reads what an enforcement point says of an entity: the members
// that the schema declares for its type.
func (c *Catalog) Attributes(application string, t types.EntityType, raw json.RawMessage) (types.RecordMap, error) {
	opts := c.reading(application)
	opts.Partial = true
	attrs, err := typed.Record(c.types.Entities[t].Shape, orEmpty(raw), opts)
	if err != nil {
		return nil, inputError("properties", err)
	}
	return attrs, nil
}

// reading is how what an enforcement point of an application says is read.
func (c *Catalog) reading(application string) typed.Options {
	return typed.Options{
		Enums:  c.types.Enums,
		Entity: func(name string) (types.EntityType, bool) { return c.EntityType(application, name) },
	}
}

// Applies reports whether the schema knows the operation for a subject and a
// resource of these types. No policy was checked for any others.
func (c *Catalog) Applies(o *Operation, subject, resource types.EntityType) bool {
	to := c.types.Actions[o.UID()].AppliesTo
	return to != nil && slices.Contains(to.Principals, subject) && slices.Contains(to.Resources, resource)
}

func orEmpty(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}

// inputError makes one of an error of package typed.
func inputError(part string, err error) error {
	var t *typed.Error
	if !errors.As(err, &t) {
		return &InputError{Path: part, Reason: "cannot be read"}
	}
	path := part
	if t.Path != "" {
		path += "." + t.Path
	}
	return &InputError{Path: path, Reason: t.Reason}
}
