package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
)

// fingerprint identifies what a type that can be shared looks like: an enum,
// or an object of plain values. It is empty for anything else.
func fingerprint(name string, s *shape) string {
	switch s.kind {
	case kindEnum:
		return fmt.Sprintf("enum %q %q", name, s.values)
	case kindObject:
		if s.elem != nil || len(s.fields) == 0 {
			return ""
		}
		var b strings.Builder
		fmt.Fprintf(&b, "object %q", name)
		for _, f := range s.fields {
			if !isPlain(f.shape.kind) {
				return ""
			}
			fmt.Fprintf(&b, " %q %d %t", f.name, f.shape.kind, f.required)
		}
		return b.String()
	default:
		return ""
	}
}

// isPlain reports whether a kind becomes a type that Cedar has by itself.
func isPlain(k kind) bool {
	switch k {
	case kindBool, kindLong, kindString, kindDecimal, kindDatetime, kindDuration, kindIPv4, kindIPv6:
		return true
	default:
		return false
	}
}

// A sharer finds out which types of a set of tools are worth sharing.
type sharer struct {
	seen map[string][][]string // fingerprint: namespaces
	name map[string]string     // fingerprint: name of the type
}

func (s *sharer) visit(path []string, sh *shape) {
	last := len(path) - 1
	if fp := fingerprint(path[last], sh); fp != "" {
		s.seen[fp] = append(s.seen[fp], path[:last])
		s.name[fp] = path[last]
	}
	sub := func(name string, sh *shape) { s.visit(append(slices.Clip(path), name), sh) }
	switch sh.kind {
	case kindSet:
		s.visit(path, sh.elem)
	case kindTuple:
		for i, item := range sh.items {
			sub(fmt.Sprintf("Proj%d", i), item)
		}
	case kindUnion:
		for i, item := range sh.items {
			sub(fmt.Sprintf("TypeChoice%d", i), item)
		}
	case kindObject:
		for _, f := range sh.fields {
			sub(f.name, f.shape)
		}
		if sh.elem != nil {
			sub(path[last]+"Tag", sh.elem)
		}
	}
}

// share decides where types that occur more than once are declared: in the
// nearest namespace that holds all of them, unless the name means something
// else there.
func (g *generator) share(s *sharer) {
	claimed := map[string]int{}
	at := map[string][]string{}
	for fp, namespaces := range s.seen {
		if len(namespaces) > 1 {
			path := append(slices.Clip(commonPrefix(namespaces)), s.name[fp])
			at[fp] = path
			claimed[fmt.Sprintf("%q", path)]++
		}
	}
	g.shared = map[string]*slot{}
	for fp, path := range at {
		if claimed[fmt.Sprintf("%q", path)] > 1 || len(path) == 1 && g.hasName(ast.Ident(Escape(path[0]))) {
			continue
		}
		g.shared[fp] = &slot{path: path}
	}
}

func (g *generator) hasName(name ast.Ident) bool {
	return g.taken(&slot{ns: g.root, ident: name})
}

func commonPrefix(paths [][]string) []string {
	prefix := paths[0]
	for _, p := range paths[1:] {
		n := 0
		for n < len(prefix) && n < len(p) && prefix[n] == p[n] {
			n++
		}
		prefix = prefix[:n]
	}
	return prefix
}
