// Package catalog is what agents can do: the pinned tools of every server as
// typed Cedar actions, with the operator's word on what each of them does.
//
// A catalogue is made from two files and nothing else. The lock
// (catalog.lock.json) holds the tool definitions that an operator has looked
// at, verbatim. The overlay (catalog.yaml) says what the operator knows about
// them. What a live server says never changes a catalogue.
package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/internal/provenance"
)

// A Config is what a catalogue is made from.
type Config struct {
	// Lock holds the pinned tools. Required.
	Lock *Lock
	// Overlay is the operator's word. Nil says nothing: every tool is then
	// taken to write, to destroy and to reach outside.
	Overlay *Overlay
	// Schema holds the operator's applications in Cedar syntax: namespaces with
	// their entity types and actions. Empty: there are none.
	Schema []byte
}

// A Catalog is a checked, immutable set of operations. It is safe for
// concurrent use.
type Catalog struct {
	operations []*Operation
	byAction   map[string]*Operation
	conflicts  []Conflict
	bound      map[string]string // server → application
	schema     []byte
	ast        *ast.Schema
	types      *resolved.Schema
}

// A Conflict is an annotation by which a server contradicts the operator.
type Conflict struct {
	Action string `json:"action"`
	// Message says who said what, and what holds.
	Message string `json:"message"`
}

// New checks the overlay against the lock and makes the catalogue. The error
// joins one [Problem] for each mistake.
func New(cfg Config) (*Catalog, error) {
	if cfg.Lock == nil {
		return nil, errors.New("catalog: Config.Lock is required")
	}
	overlay := cfg.Overlay
	if overlay == nil {
		overlay = &Overlay{}
	}
	g, err := newGenerator()
	if err != nil {
		return nil, err
	}
	b := builder{generator: g, overlay: overlay, lock: cfg.Lock, catalog: &Catalog{byAction: map[string]*Operation{}}}
	b.problems = overlay.names(cfg.Lock)
	for _, p := range cfg.Lock.Pins() {
		b.tool(p)
	}
	for _, m := range protocolMethods() {
		b.method(m)
	}
	b.applications(cfg.Schema)
	b.bind()
	if err := joinProblems(b.problems); err != nil {
		return nil, err
	}
	c := b.finish()
	b.resolve()
	if err := joinProblems(b.problems); err != nil {
		return nil, err
	}
	return c, nil
}

// Schema is the Cedar schema of the catalogue in Cedar syntax: the entities,
// the effect groups, one action for each pinned tool and one for each method
// of the protocol. The same catalogue always gives the same bytes.
func (c *Catalog) Schema() []byte { return slices.Clone(c.schema) }

// SchemaJSON is the schema in Cedar's JSON syntax, for tools that read it.
func (c *Catalog) SchemaJSON() ([]byte, error) {
	return schema.NewSchemaFromAST(c.ast).MarshalJSON()
}

// Operation finds an operation by its action, "<server>/<tool>",
// "mcp:<method>" or "<application>::<name>".
func (c *Catalog) Operation(action string) (*Operation, bool) {
	o, ok := c.byAction[action]
	return o, ok
}

// Bound is the application in which what is asked of a server must be allowed
// too; empty if the operator has bound it to none.
func (c *Catalog) Bound(server string) string {
	if a, ok := c.bound[server]; ok {
		return a
	}
	return c.bound[anyServer]
}

// Operations are all operations, sorted by action.
func (c *Catalog) Operations() []*Operation { return slices.Clone(c.operations) }

// Conflicts are the tools whose server contradicts the operator, sorted by
// action. The stricter word holds.
func (c *Catalog) Conflicts() []Conflict { return slices.Clone(c.conflicts) }

// Actions are the action entities of the catalogue, the groups among them,
// each with all its ancestors as parents.
func (c *Catalog) Actions() types.EntityMap {
	m := types.EntityMap{}
	for id, a := range c.ast.Actions {
		uid := types.NewEntityUID("Action", id)
		var parents []types.EntityUID
		for _, p := range a.Parents {
			parents = append(parents, types.NewEntityUID("Action", p.ID))
		}
		m[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...)}
	}
	return m
}

// A builder makes one catalogue.
type builder struct {
	*generator
	overlay  *Overlay
	lock     *Lock
	catalog  *Catalog
	problems []*Problem
}

func (b *builder) add(o *Operation) {
	b.catalog.operations = append(b.catalog.operations, o)
	b.catalog.byAction[o.Action] = o
}

func (b *builder) tool(p Pin) {
	d, err := parseDefinition(p.Definition)
	if err != nil {
		b.problems = append(b.problems, &Problem{File: "catalog.lock.json", Message: fmt.Sprintf("%s/%s: %v", p.Server, p.Tool, err)})
		return
	}
	word, problems := b.overlay.word(b.lock, p.Server, p.Tool)
	b.problems = append(b.problems, problems...)
	o := &Operation{
		Action: p.Server + "/" + p.Tool, Server: p.Server, Tool: p.Tool, Digest: p.Digest, Definition: p.Definition,
		Title: d.title, Description: d.description,
		Effects: unclassified(), Groups: word.groups, Labels: word.labels,
		Undecided: word.undecided,
		input:     d.input.root, round: word.numbers == "round",
	}
	if word.effects != nil {
		var conflicts []string
		o.Classified = true
		o.Effects, conflicts = tighten(word.effects, d.hints)
		for _, m := range conflicts {
			b.catalog.conflicts = append(b.catalog.conflicts, Conflict{o.Action, m})
		}
	}
	o.marks = marksOf(word.outputs, unsaid(o.Classified))
	o.Labels = labelled(o.Labels, o.marks)
	d.input.setUndeclared(word.undeclared)
	rec := b.schema([]string{p.Server, p.Tool, "Input"}, d.input)
	s := &slot{path: []string{p.Server, p.Tool, "Input"}}
	b.declareType(s, rec)
	b.authority(o, word)
	resources := []string{"Server"}
	if r := word.resource; r != nil {
		resources = []string{r.Type}
		b.mapResource(o, r, word.resourceAt)
	}
	for _, group := range o.Groups {
		b.namespace("").Actions[types.String(group)] = ast.Action{}
	}
	b.action(o, ast.TypeRef(s.ident), resources)
	b.add(o)
}

// unsaid is what an operation's output counts as when the operator has said
// nothing of it.
func unsaid(classified bool) provenance.Trust {
	if classified {
		return provenance.Structure
	}
	return provenance.Unknown
}

// bind checks the applications that servers are bound to.
func (b *builder) bind() {
	b.catalog.bound = map[string]string{}
	for _, server := range sortedNames(b.overlay.file.Servers) {
		application := b.overlay.coaz(server)
		if application == "" {
			continue
		}
		if b.out[types.Path(application)] == nil {
			b.problems = append(b.problems, b.overlay.problem([]string{"servers", server, "coaz"},
				"servers.%s.coaz: the schema has no namespace %q", server, application))
		}
		b.catalog.bound[server] = application
	}
}

// authority checks the arguments that the operator says carry authority.
func (b *builder) authority(o *Operation, w toolWord) {
	for _, a := range w.authority {
		if _, ok := o.argument(a.path); ok {
			o.Authority = append(o.Authority, a.path)
			continue
		}
		// What is said of many tools need not fit every one of them.
		if a.from.server == anyServer || isPattern(a.from.pattern) {
			continue
		}
		b.problems = append(b.problems, b.overlay.problem(a.from.path("authority"),
			"servers.%s.tools.%s.authority: the tool has no argument %q%s", o.Server, o.Tool, a.path, didYouMean(a.path, o.arguments())))
	}
	o.Authority = sortedSet(o.Authority)
}

func (b *builder) mapResource(o *Operation, r *resourceRule, from match) {
	bad := func(format string, args ...any) {
		b.problems = append(b.problems, b.overlay.problem(from.path("resource"),
			"servers.%s.tools.%s.resource: %s: %s", from.server, from.pattern, o.Action, fmt.Sprintf(format, args...)))
	}
	s, ok := o.argument(r.ID)
	if !ok {
		bad("the tool has no argument %q%s", r.ID, didYouMean(r.ID, o.arguments()))
		return
	}
	if !namesResource(s) {
		bad("the argument %q is neither a string nor an integer, so it cannot be an id", r.ID)
		return
	}
	o.resourceType, o.resourcePath = types.EntityType(r.Type), o.argumentPath(r.ID)
	b.namespace("").Entities[ast.Ident(r.Type)] = ast.Entity{ParentTypes: []ast.EntityTypeRef{"Server"}}
}

// namesResource reports whether values of a shape can be ids.
func namesResource(s *shape) bool {
	switch s.kind {
	case kindString, kindEnum, kindLong, kindIPv4, kindIPv6:
		return true
	case kindUnion:
		return slices.ContainsFunc(s.items, func(i *shape) bool { return namesResource(i.resolve()) })
	default:
		return false
	}
}

func (b *builder) method(m method) {
	action, path := "mcp:"+m.name, []string{"mcp", m.name, "Input"}
	if m.ours {
		action, path = m.name, []string{m.name, "Input"}
	}
	o := &Operation{
		Action: action, Method: m.name, Effects: []string{m.effect}, Classified: true,
		Description: m.doc, method: &m, serverLabels: map[string][]string{}, serverMarks: map[string]provenance.Marks{},
	}
	if m.outputs {
		for server := range b.overlay.file.Servers {
			said := b.overlay.serverOutputs(server)
			o.serverMarks[server] = marksOf(said, provenance.Unknown)
			o.serverLabels[server] = labelled(labelsOf(said), o.serverMarks[server])
		}
		o.Labels = labelled(nil, o.marks)
		if marks, ok := o.serverMarks[anyServer]; ok {
			o.Labels, o.marks = o.serverLabels[anyServer], marks
		}
	}
	rec := ast.RecordType{"server": {Type: ast.Type("String")}}
	for _, p := range m.picks {
		rec[types.String(p.attr)] = ast.Attribute{Type: ast.Type("String"), Optional: !p.required}
	}
	s := &slot{path: path}
	b.declareType(s, rec)
	b.action(o, ast.TypeRef(s.ident), m.resources)
	b.add(o)
}

func (b *builder) finish() *Catalog {
	c := b.catalog
	slices.SortFunc(c.operations, func(x, y *Operation) int { return cmp.Compare(x.Action, y.Action) })
	slices.SortFunc(c.conflicts, func(x, y Conflict) int {
		return cmp.Or(cmp.Compare(x.Action, y.Action), cmp.Compare(x.Message, y.Message))
	})
	c.ast = b.generator.finish()
	c.schema = FormatSchema(c.ast)
	return c
}

// setUndeclared opens or closes the objects that declare members, as the
// operator says. Empty leaves them as the schema has them.
func (d schemaDoc) setUndeclared(word string) {
	if word == "" {
		return
	}
	seen := map[*shape]bool{}
	var visit func(*shape)
	visit = func(s *shape) {
		if seen[s] {
			return
		}
		seen[s] = true
		if s.kind == kindObject && len(s.fields) > 0 {
			s.open = word == "allow"
		}
		for _, c := range s.children() {
			visit(*c)
		}
	}
	visit(d.root)
	d.root.open = word == "allow"
	for _, def := range d.defs {
		visit(def)
	}
}

// argument finds the shape of an argument by its path.
func (o *Operation) argument(path string) (*shape, bool) {
	s := o.input
	for _, name := range o.argumentPath(path) {
		s = s.resolve()
		if s.kind == kindSet {
			s = s.elem.resolve()
		}
		i, ok := s.find(name)
		if !ok {
			return nil, false
		}
		s = s.fields[i].shape
	}
	return s.resolve(), true
}

// argumentPath splits a path at its dots, unless an argument has that very
// name.
func (o *Operation) argumentPath(path string) []string {
	if _, ok := o.input.find(path); ok {
		return []string{path}
	}
	return strings.Split(path, ".")
}

// arguments are the names of the arguments.
func (o *Operation) arguments() []string {
	names := make([]string, len(o.input.fields))
	for i, f := range o.input.fields {
		names[i] = f.name
	}
	return names
}
