package catalog

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
)

// GenerateSchema adds one action for each tool to a schema stub, as
// cedar-policy-mcp-schema-generator does. The stub is one namespace in Cedar
// syntax; its annotations say which entity types call tools (mcp_principal),
// receive calls (mcp_resource) and describe them (mcp_context), and which
// actions are the parents (mcp_action).
//
// Where upstream refuses a server because a name in it is no Cedar identifier,
// the name is escaped ([Escape]).
func GenerateSchema(stub []byte, tools []json.RawMessage, o GenerateOptions) (*ast.Schema, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar(stub); err != nil {
		return nil, fmt.Errorf("schema stub: %w", err)
	}
	if len(s.AST().Namespaces) != 1 {
		return nil, errors.New("schema stub: it needs exactly one namespace")
	}
	defs := make([]definition, len(tools))
	for i, raw := range tools {
		d, err := parseDefinition(raw)
		if err != nil {
			return nil, fmt.Errorf("tool %d: %w", i+1, err)
		}
		defs[i] = d
	}
	g := &generator{opts: o, out: map[types.Path]*ast.Namespace{}}
	if o.FlattenNamespaces {
		g.join = "_"
	}
	for path, ns := range s.AST().Namespaces {
		g.root = path
		g.out[path] = fillNamespace(ns)
	}
	roles := readRoles(*g.out[g.root])
	if len(roles.principals) == 0 || len(roles.resources) == 0 {
		return nil, errors.New("schema stub: it needs an entity type with @mcp_principal and one with @mcp_resource")
	}
	if !o.KeepAnnotations {
		eraseAnnotations(*g.out[g.root])
	}
	if o.DeduplicateEntityTypes {
		g.shareAmong(defs)
	}
	for _, d := range defs {
		g.stubAction(d, roles)
	}
	return g.finish(), nil
}

func (g *generator) stubAction(d definition, r stubRoles) {
	context := ast.RecordType{}
	for name, t := range r.contexts {
		context[types.String(name)] = ast.Attribute{Type: t}
	}
	attr := func(name types.String, kind string, doc schemaDoc, optional bool) {
		s := &slot{ns: g.root, ident: ast.Ident(Escape(d.name) + kind)}
		g.declareType(s, g.schema([]string{d.name, kind}, doc))
		context[name] = ast.Attribute{Type: ast.TypeRef(s.ident), Optional: optional}
	}
	attr("input", "Input", d.input, false)
	if g.opts.IncludeOutputs {
		attr("output", "Output", d.output, true)
	}
	g.namespace(g.root).Actions[types.String(d.name)] = ast.Action{
		Parents:   r.parents,
		AppliesTo: &ast.AppliesTo{Principals: r.principals, Resources: r.resources, Context: context},
	}
}

func (g *generator) shareAmong(defs []definition) {
	s := &sharer{seen: map[string][][]string{}, name: map[string]string{}}
	for _, d := range defs {
		for _, f := range d.input.root.fields {
			s.visit([]string{d.name, "Input", f.name}, f.shape)
		}
		if g.opts.IncludeOutputs {
			for _, f := range d.output.root.fields {
				s.visit([]string{d.name, "Output", f.name}, f.shape)
			}
		}
	}
	g.share(s)
}

// finish returns what has been generated.
func (g *generator) finish() *ast.Schema {
	s := &ast.Schema{Namespaces: ast.Namespaces{}}
	for path, ns := range g.out {
		if path == "" {
			s.Entities, s.Enums, s.Actions, s.CommonTypes = ns.Entities, ns.Enums, ns.Actions, ns.CommonTypes
			continue
		}
		s.Namespaces[path] = *ns
	}
	return s
}

// stubRoles is what the annotations of a stub say.
type stubRoles struct {
	principals, resources []ast.EntityTypeRef
	contexts              map[string]ast.TypeRef
	parents               []ast.ParentRef
}

func readRoles(ns ast.Namespace) stubRoles {
	r := stubRoles{contexts: map[string]ast.TypeRef{}}
	for _, name := range sortedNames(ns.Entities) {
		a := ns.Entities[name].Annotations
		if _, ok := a["mcp_principal"]; ok {
			r.principals = append(r.principals, ast.EntityTypeRef(name))
		}
		if _, ok := a["mcp_resource"]; ok {
			r.resources = append(r.resources, ast.EntityTypeRef(name))
		}
		if attr, ok := a["mcp_context"]; ok {
			r.contexts[string(attr)] = ast.TypeRef(name)
		}
	}
	for name, t := range ns.CommonTypes {
		if attr, ok := t.Annotations["mcp_context"]; ok {
			r.contexts[string(attr)] = ast.TypeRef(name)
		}
	}
	for _, name := range sortedNames(ns.Actions) {
		if _, ok := ns.Actions[name].Annotations["mcp_action"]; ok {
			r.parents = append(r.parents, ast.ParentRefFromID(name))
		}
	}
	return r
}

func eraseAnnotations(ns ast.Namespace) {
	erase := func(a ast.Annotations) {
		for _, key := range []types.AnnotationKey{"mcp_principal", "mcp_resource", "mcp_context", "mcp_action"} {
			delete(a, key)
		}
	}
	for _, e := range ns.Entities {
		erase(e.Annotations)
	}
	for _, t := range ns.CommonTypes {
		erase(t.Annotations)
	}
	for _, a := range ns.Actions {
		erase(a.Annotations)
	}
}

// fillNamespace makes the maps of a namespace that has none.
func fillNamespace(ns ast.Namespace) *ast.Namespace {
	if ns.Entities == nil {
		ns.Entities = ast.Entities{}
	}
	if ns.Enums == nil {
		ns.Enums = ast.Enums{}
	}
	if ns.Actions == nil {
		ns.Actions = ast.Actions{}
	}
	if ns.CommonTypes == nil {
		ns.CommonTypes = ast.CommonTypes{}
	}
	return &ns
}
