package catalog

import (
	"fmt"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
)

// baseSchema is what every catalogue has. Types of tools are named
// "<server>__<tool>__…", so none can meet one of these.
const baseSchema = `
type Session = {
	id: String,
	labels: Set<String>,
	integrity: Long,
	confidentiality: Long,
	calls: Long,
	denials: Long,
	started: datetime
};
type Origin = { origin: String, trust: Long, named: Bool, contested: Bool, tool: String, step: Long };
type Auth = { method: String, level: Long, age: Long, scopes: Set<String> };
type Risk = { score: Long, reasons: Set<String> };

entity Group;
entity Agent in [Group] = { owner?: String, purpose?: String, model?: String };
entity Server;
entity McpResource in [Server];
entity McpPrompt in [Server];

action "read", "write", "destructive", "external", "discover";
`

// baseTypes are the names that an operator's resource type may not have.
var baseTypes = []string{"Agent", "Auth", "Group", "McpPrompt", "McpResource", "Null", "Origin", "Risk", "Server", "Session", "Unknown"}

// newGenerator is a generator with the base schema in it.
func newGenerator() (*generator, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(baseSchema)); err != nil {
		return nil, fmt.Errorf("base schema: %w", err)
	}
	base := s.AST()
	return &generator{
		opts: GenerateOptions{ObjectsAsRecords: true, FlattenNamespaces: true, NumbersAsDecimal: true},
		join: "__",
		out: map[types.Path]*ast.Namespace{"": fillNamespace(ast.Namespace{
			Entities: base.Entities, Enums: base.Enums, Actions: base.Actions, CommonTypes: base.CommonTypes,
		})},
	}, nil
}

// action declares the action of an operation.
func (g *generator) action(o *Operation, input ast.IsType, resources []string) {
	context := planeContext()
	context["input"] = ast.Attribute{Type: input}
	args := ast.RecordType{}
	for _, path := range o.Authority {
		args[types.String(path)] = ast.Attribute{Type: ast.Type("Origin"), Optional: true}
	}
	context["args"] = ast.Attribute{Type: args}
	a := ast.Action{AppliesTo: &ast.AppliesTo{Principals: []ast.EntityTypeRef{"Agent"}, Context: context}}
	for _, r := range resources {
		a.AppliesTo.Resources = append(a.AppliesTo.Resources, ast.EntityTypeRef(r))
	}
	for _, parent := range o.parents() {
		a.Parents = append(a.Parents, ast.ParentRefFromID(types.String(parent)))
	}
	g.namespace("").Actions[types.String(o.Action)] = a
}

// planeContext is what the plane itself puts into the context of every action.
func planeContext() ast.RecordType {
	return ast.RecordType{
		"session":   {Type: ast.Type("Session")},
		"auth":      {Type: ast.Type("Auth")},
		"risk":      {Type: ast.Type("Risk")},
		"authority": {Type: ast.Type("Origin")},
		"content":   {Type: ast.Type("Origin")},
		"approvals": {Type: ast.Set(ast.Type("String"))},
		"chain":     {Type: ast.Set(ast.Type("String"))},
		"now":       {Type: ast.Type("datetime")},
		"gate":      {Type: ast.Type("String")},
		"subject":   {Type: ast.Type("String"), Optional: true},
	}
}
