package openapi

import (
	"strings"
	"unicode"
)

// An index finds the paths of a document that a path could be. Letters match
// in either case, because some servers match them so; [template.values] then
// insists on the right one.
type index struct {
	literals map[string]*index // by folded text
	params   []paramIndex
	end      []*endpoint
}

// A paramIndex is the rest of the paths that go on with one form of parameter.
type paramIndex struct {
	before, after string // folded
	rest          *index
}

// add puts an endpoint where its path leads.
func (x *index) add(e *endpoint) {
	for _, s := range e.template.segments {
		x = x.step(s)
	}
	x.end = append(x.end, e)
}

func (x *index) step(s segment) *index {
	if s.param == "" {
		key := fold(s.literal)
		if x.literals[key] == nil {
			if x.literals == nil {
				x.literals = map[string]*index{}
			}
			x.literals[key] = &index{}
		}
		return x.literals[key]
	}
	before, after := fold(s.before), fold(s.after)
	for _, p := range x.params {
		if p.before == before && p.after == after {
			return p.rest
		}
	}
	x.params = append(x.params, paramIndex{before, after, &index{}})
	return x.params[len(x.params)-1].rest
}

// find appends to found what the rest of a path could be.
func (x *index) find(path []pathSegment, found []*endpoint) []*endpoint {
	if len(path) == 0 {
		return append(found, x.end...)
	}
	value := fold(path[0].value)
	if next := x.literals[value]; next != nil {
		found = next.find(path[1:], found)
	}
	for _, p := range x.params {
		if len(value) > len(p.before)+len(p.after) && strings.HasPrefix(value, p.before) && strings.HasSuffix(value, p.after) {
			found = p.rest.find(path[1:], found)
		}
	}
	return found
}

// fold maps all strings that differ only in case (Unicode's simple folding) to
// one.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}
