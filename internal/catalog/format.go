package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
)

// FormatSchema writes a schema in Cedar syntax, laid out as
// cedar-policy-mcp-schema-generator does.
func FormatSchema(s *ast.Schema) []byte {
	var p printer
	bare := ast.Namespace{Entities: s.Entities, Enums: s.Enums, Actions: s.Actions, CommonTypes: s.CommonTypes}
	p.namespace("", bare)
	paths := make([]types.Path, 0, len(s.Namespaces))
	for ns := range s.Namespaces {
		paths = append(paths, ns)
	}
	// By the last part first: that is how upstream's names compare.
	slices.SortFunc(paths, func(a, b types.Path) int {
		x, y := strings.Split(string(a), "::"), strings.Split(string(b), "::")
		return cmp.Or(cmp.Compare(x[len(x)-1], y[len(y)-1]), slices.Compare(x[:len(x)-1], y[:len(y)-1]))
	})
	for _, ns := range paths {
		if n := s.Namespaces[ns]; len(n.Entities)+len(n.Enums)+len(n.Actions)+len(n.CommonTypes) > 0 {
			p.namespace(ns, n)
		}
	}
	return []byte(p.String())
}

type printer struct {
	strings.Builder
	started bool
}

// gap leaves an empty line between declarations.
func (p *printer) gap() {
	if p.started {
		p.WriteByte('\n')
	}
	p.started = true
}

func (p *printer) namespace(path types.Path, ns ast.Namespace) {
	indent := ""
	if path != "" {
		p.gap()
		fmt.Fprintf(p, "namespace %s {\n", path)
		p.started = false
		indent = "  "
	}
	for _, name := range sortedNames(ns.CommonTypes) {
		t := ns.CommonTypes[name]
		p.gap()
		p.annotations(indent, t.Annotations)
		fmt.Fprintf(p, "%stype %s = %s;\n", indent, name, typeText(t.Type, indent))
	}
	entities := append(sortedNames(ns.Entities), sortedNames(ns.Enums)...)
	slices.Sort(entities)
	for _, name := range entities {
		p.gap()
		if e, ok := ns.Enums[name]; ok {
			p.annotations(indent, e.Annotations)
			fmt.Fprintf(p, "%sentity %s enum [%s];\n", indent, name, quoteAll(e.Values))
			continue
		}
		p.entity(indent, name, ns.Entities[name])
	}
	for _, name := range sortedNames(ns.Actions) {
		p.gap()
		p.action(indent, name, ns.Actions[name])
	}
	if path != "" {
		p.WriteString("}\n")
	}
}

func (p *printer) entity(indent string, name ast.Ident, e ast.Entity) {
	p.annotations(indent, e.Annotations)
	fmt.Fprintf(p, "%sentity %s", indent, name)
	if len(e.ParentTypes) > 0 {
		fmt.Fprintf(p, " in [%s]", refList(e.ParentTypes))
	}
	if len(e.Shape) > 0 {
		p.WriteString(" = " + typeText(e.Shape, indent))
	}
	if e.Tags != nil {
		p.WriteString(" tags " + typeText(e.Tags, "")) // upstream does not indent here
	}
	p.WriteString(";\n")
}

func (p *printer) action(indent string, name types.String, a ast.Action) {
	p.annotations(indent, a.Annotations)
	fmt.Fprintf(p, "%saction %s", indent, quote(string(name)))
	if len(a.Parents) > 0 {
		refs := make([]string, len(a.Parents))
		for i, r := range a.Parents {
			refs[i] = "Action::" + quote(string(r.ID))
		}
		fmt.Fprintf(p, " in [%s]", strings.Join(refs, ", "))
	}
	if at := a.AppliesTo; at != nil {
		in := indent + "  "
		fmt.Fprintf(p, " appliesTo {\n%sprincipal: [%s],\n%sresource: [%s],\n%scontext: %s\n%s}",
			in, refList(at.Principals), in, refList(at.Resources), in, typeText(at.Context, in), indent)
	}
	p.WriteString(";\n")
}

func (p *printer) annotations(indent string, all ast.Annotations) {
	for _, key := range sortedNames(all) {
		fmt.Fprintf(p, "%s@%s(%s)\n", indent, key, quote(string(all[key])))
	}
}

func typeText(t ast.IsType, indent string) string {
	switch t := t.(type) {
	case ast.StringType:
		return "String"
	case ast.LongType:
		return "Long"
	case ast.BoolType:
		return "Bool"
	case ast.ExtensionType:
		return string(t)
	case ast.TypeRef:
		return string(t)
	case ast.EntityTypeRef:
		return string(t)
	case ast.SetType:
		return "Set<" + typeText(t.Element, indent) + ">"
	case ast.RecordType:
		return recordText(t, indent)
	default:
		panic(fmt.Sprintf("unknown schema type %T", t))
	}
}

func recordText(t ast.RecordType, indent string) string {
	if len(t) == 0 {
		return "{  }"
	}
	in := indent + "  "
	lines := make([]string, 0, len(t))
	for _, name := range sortedNames(t) {
		a := t[name]
		opt := ""
		if a.Optional {
			opt = "?"
		}
		lines = append(lines, in+attrName(string(name))+opt+": "+typeText(a.Type, in))
	}
	return "{\n" + strings.Join(lines, ",\n") + "\n" + indent + "}"
}

func attrName(s string) string {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && c != '_' && (i == 0 || !isDigit(c)) {
			return quote(s)
		}
	}
	switch s {
	case "", "true", "false", "if", "then", "else", "in", "like", "has", "is", "__cedar":
		return quote(s)
	}
	return s
}

// quote writes a Cedar string literal in ASCII.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= 0x20 && r < 0x7f:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteAll(values []types.String) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = quote(string(v))
	}
	return strings.Join(out, ", ")
}

func refList(refs []ast.EntityTypeRef) string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = string(r)
	}
	return strings.Join(out, ", ")
}

func sortedNames[K cmp.Ordered, V any, M ~map[K]V](m M) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
