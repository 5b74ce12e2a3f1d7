package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
)

// GenerateOptions vary how tools become Cedar types. They are those of
// cedar-policy-mcp-schema-generator, under its names.
type GenerateOptions struct {
	// IncludeOutputs types the results of tools too.
	IncludeOutputs bool
	// ObjectsAsRecords makes records of objects that have no undeclared
	// members, instead of entities.
	ObjectsAsRecords bool
	// KeepAnnotations leaves the mcp_ annotations of the stub in place
	// (upstream's erase_annotations, negated).
	KeepAnnotations bool
	// FlattenNamespaces puts everything into the namespace of the stub.
	FlattenNamespaces bool
	// NumbersAsDecimal types numbers as decimals, instead of opaque entities.
	NumbersAsDecimal bool
	// DeduplicateEntityTypes declares equal enums and flat objects once.
	DeduplicateEntityTypes bool
}

// A generator makes Cedar types of shapes.
type generator struct {
	opts GenerateOptions
	// root is the namespace of the stub, or nothing.
	root types.Path
	// join joins the parts of a flat name. Empty: namespaces nest.
	join string
	out  map[types.Path]*ast.Namespace
	// shared are the types that are declared once for many uses, by
	// fingerprint.
	shared map[string]*slot
}

// A slot is the place of a type that may come to be declared: its path below
// the root, and its name once it has one.
type slot struct {
	path  []string
	ns    types.Path
	ident ast.Ident
}

func (s *slot) child(name string) *slot {
	return &slot{path: append(slices.Clip(s.path), name)}
}

func (s *slot) name() string { return s.path[len(s.path)-1] }

// ref is the qualified name.
func (s *slot) ref() types.Path {
	if s.ns == "" {
		return types.Path(s.ident)
	}
	return s.ns + "::" + types.Path(s.ident)
}

func (g *generator) namespace(ns types.Path) *ast.Namespace {
	n, ok := g.out[ns]
	if !ok {
		n = &ast.Namespace{Entities: ast.Entities{}, Enums: ast.Enums{}, Actions: ast.Actions{}, CommonTypes: ast.CommonTypes{}}
		g.out[ns] = n
	}
	return n
}

// claim gives a slot its name, once.
func (g *generator) claim(s *slot) {
	if s.ident != "" {
		return
	}
	parts := make([]string, len(s.path))
	for i, p := range s.path {
		parts[i] = Escape(p)
	}
	last := len(parts) - 1
	s.ns = g.root
	if g.join == "" {
		for _, p := range parts[:last] {
			s.ns = joinPath(s.ns, p)
		}
		parts = parts[last:]
	}
	name := strings.Join(parts, g.join)
	s.ident = ast.Ident(name)
	// A definition may have the name of an argument, and parts may join to the
	// same name in upstream's flat form.
	for n := 2; g.taken(s); n++ {
		s.ident = ast.Ident(name + "_" + strconv.Itoa(n))
	}
	g.namespace(s.ns).CommonTypes[s.ident] = ast.CommonType{} // holds the name until it is declared
}

func joinPath(ns types.Path, name string) types.Path {
	if ns == "" {
		return types.Path(name)
	}
	return ns + "::" + types.Path(name)
}

func (g *generator) taken(s *slot) bool {
	ns := g.namespace(s.ns)
	_, isType := ns.CommonTypes[s.ident]
	_, isEntity := ns.Entities[s.ident]
	_, isEnum := ns.Enums[s.ident]
	return isType || isEntity || isEnum
}

func (g *generator) declareType(s *slot, t ast.IsType) {
	g.claim(s)
	g.namespace(s.ns).CommonTypes[s.ident] = ast.CommonType{Type: g.within(s.ns, t)}
}

func (g *generator) declareEntity(s *slot, e ast.Entity) {
	g.claim(s)
	if e.Shape != nil {
		e.Shape = g.within(s.ns, e.Shape).(ast.RecordType)
	}
	ns := g.namespace(s.ns)
	delete(ns.CommonTypes, s.ident)
	ns.Entities[s.ident] = e
}

func (g *generator) declareEnum(s *slot, values []string) {
	g.claim(s)
	e := ast.Enum{}
	for _, v := range values {
		e.Values = append(e.Values, types.String(v))
	}
	ns := g.namespace(s.ns)
	delete(ns.CommonTypes, s.ident)
	ns.Enums[s.ident] = e
}

// within drops the namespace from names in the same one, as upstream does in
// nested namespaces.
func (g *generator) within(ns types.Path, t ast.IsType) ast.IsType {
	if ns == g.root {
		return t
	}
	local := func(p types.Path) types.Path {
		if name, ok := strings.CutPrefix(string(p), string(ns)+"::"); ok && !strings.Contains(name, "::") {
			return types.Path(name)
		}
		return p
	}
	switch t := t.(type) {
	case ast.TypeRef:
		return ast.TypeRef(local(types.Path(t)))
	case ast.EntityTypeRef:
		return ast.EntityTypeRef(local(types.Path(t)))
	case ast.SetType:
		return ast.Set(g.within(ns, t.Element))
	case ast.RecordType:
		out := make(ast.RecordType, len(t))
		for name, a := range t {
			a.Type = g.within(ns, a.Type)
			out[name] = a
		}
		return out
	default:
		return t
	}
}

// schema makes a record of the fields of a document, and declares what it
// needs below path.
func (g *generator) schema(path []string, doc schemaDoc) ast.RecordType {
	doc.link(!g.opts.ObjectsAsRecords)
	at := &slot{path: path}
	defs := make(map[*shape]*slot, len(doc.defs))
	for _, name := range sortedKeys(doc.defs) {
		s := at.child(name)
		g.claim(s)
		defs[doc.defs[name]] = s
	}
	t := typer{generator: g, defs: defs}
	for _, name := range sortedKeys(doc.defs) {
		def := doc.defs[name]
		s := defs[def]
		if typ := t.typeOf(s, def, false); !isRefTo(typ, s) {
			g.declareType(s, typ)
		}
	}
	return t.fields(at, doc.root)
}

func isRefTo(t ast.IsType, s *slot) bool {
	switch t := t.(type) {
	case ast.TypeRef:
		return types.Path(t) == s.ref()
	case ast.EntityTypeRef:
		return types.Path(t) == s.ref()
	default:
		return false
	}
}

// A typer makes the types of one document.
type typer struct {
	*generator
	defs map[*shape]*slot
}

func (t typer) fields(at *slot, obj *shape) ast.RecordType {
	rec := ast.RecordType{}
	for _, f := range obj.fields {
		rec[types.String(f.name)] = ast.Attribute{Type: t.typeOf(at.child(f.name), f.shape, true), Optional: !f.required}
	}
	return rec
}

// typeOf returns the Cedar type of a shape, and declares it at s if it needs a
// name. It notes in the shape which entity type its values have.
func (t typer) typeOf(s *slot, sh *shape, share bool) ast.IsType {
	switch sh.kind {
	case kindBool:
		return ast.Type("Bool")
	case kindLong:
		return ast.Type("Long")
	case kindString:
		return ast.Type("String")
	case kindDecimal:
		return ast.Type("decimal")
	case kindDatetime:
		return ast.Type("datetime")
	case kindDuration:
		return ast.Type("duration")
	case kindIPv4, kindIPv6:
		return ast.Type("ipaddr")
	case kindNumber, kindFloat:
		if t.opts.NumbersAsDecimal {
			return ast.Type("decimal")
		}
		if sh.kind == kindFloat {
			return t.opaque("Float", sh)
		}
		return t.opaque("Number", sh)
	case kindNull:
		return t.opaque("Null", sh)
	case kindEnum:
		s = t.sharedSlot(s, sh, share)
		t.declareEnum(s, sh.values)
		sh.entity = types.EntityType(s.ref())
		return ast.EntityTypeRef(s.ref())
	case kindSet:
		return ast.Set(t.typeOf(s, sh.elem, share))
	case kindTuple:
		return t.choices(s, sh, "Proj", "proj", false)
	case kindUnion:
		return t.choices(s, sh, "TypeChoice", "typeChoice", true)
	case kindObject:
		return t.object(s, sh, share)
	case kindRef:
		return ast.TypeRef(t.defs[sh.target].ref())
	case kindUnknown:
		return t.opaque("Unknown", sh)
	default:
		panic(fmt.Sprintf("shape of kind %d", sh.kind))
	}
}

func (t typer) choices(s *slot, sh *shape, typeName, attrName string, optional bool) ast.RecordType {
	rec := ast.RecordType{}
	for i, item := range sh.items {
		n := strconv.Itoa(i)
		rec[types.String(attrName+n)] = ast.Attribute{Type: t.typeOf(s.child(typeName+n), item, true), Optional: optional}
	}
	return rec
}

func (t typer) object(s *slot, sh *shape, share bool) ast.IsType {
	record := t.opts.ObjectsAsRecords && sh.elem == nil
	if record && sh.open && len(sh.fields) == 0 {
		// Upstream would call an object of which nothing is known an empty
		// record, and a policy would believe that it is empty.
		sh.kind = kindUnknown
		return t.opaque("Unknown", sh)
	}
	if !record {
		s = t.sharedSlot(s, sh, share)
	}
	t.claim(s)
	var e ast.Entity
	if sh.elem != nil {
		e.Tags = t.typeOf(s.child(s.name()+"Tag"), sh.elem, true)
	}
	e.Shape = t.fields(s, sh)
	if record {
		t.declareType(s, e.Shape)
		return ast.TypeRef(s.ref())
	}
	t.declareEntity(s, e)
	sh.entity = types.EntityType(s.ref())
	return ast.EntityTypeRef(s.ref())
}

// opaque returns an entity type of which policy knows nothing but the name.
func (t typer) opaque(name string, sh *shape) ast.IsType {
	ns := t.namespace(t.root)
	if _, ok := ns.Entities[ast.Ident(name)]; !ok {
		ns.Entities[ast.Ident(name)] = ast.Entity{}
	}
	sh.entity = types.EntityType(joinPath(t.root, name))
	return ast.EntityTypeRef(sh.entity)
}

func (t typer) sharedSlot(s *slot, sh *shape, share bool) *slot {
	if share {
		if fp := fingerprint(s.name(), sh); fp != "" && t.shared[fp] != nil {
			return t.shared[fp]
		}
	}
	return s
}
