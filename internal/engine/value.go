package engine

import (
	"github.com/cedar-policy/cedar-go/types"
)

// A kind is the type of a [val].
type kind uint8

const (
	kindNone kind = iota
	kindBool
	kindLong
	kindString
	kindEntity
	kindVariable // principal, action or resource itself
	kindContext  // the context itself
	kindRecord
	kindSet
	kindDecimal
	kindDatetime
	kindDuration
	kindOther
)

// A val is a value while a condition is evaluated. Numbers and truth values
// are held unboxed, and the variables by name, because to put them into an
// interface would allocate.
type val struct {
	kind kind
	// n is the truth value, number, milliseconds or variable.
	n int64
	// v is the value of the other kinds.
	v types.Value
}

func boolVal(b bool) val {
	if b {
		return val{kind: kindBool, n: 1}
	}
	return val{kind: kindBool}
}

func longVal(n int64) val { return val{kind: kindLong, n: n} }

func valueOf(v types.Value) val {
	switch t := v.(type) {
	case types.Boolean:
		return boolVal(bool(t))
	case types.Long:
		return longVal(int64(t))
	case types.String:
		return val{kind: kindString, v: v}
	case types.EntityUID:
		return val{kind: kindEntity, v: v}
	case types.Record:
		return val{kind: kindRecord, v: v}
	case types.Set:
		return val{kind: kindSet, v: v}
	case types.Decimal:
		return val{kind: kindDecimal, v: v}
	case types.Datetime:
		return val{kind: kindDatetime, n: t.Milliseconds()}
	case types.Duration:
		return val{kind: kindDuration, n: t.ToMilliseconds()}
	default:
		return val{kind: kindOther, v: v}
	}
}

// boxed returns v as cedar-go holds it.
func (s *scratch) boxed(v *val) types.Value {
	switch v.kind {
	case kindBool:
		return types.Boolean(v.n != 0)
	case kindLong:
		return types.Long(v.n)
	case kindVariable:
		return s.subjects[v.n].uid
	case kindContext:
		return s.req.Context
	case kindDatetime:
		return types.NewDatetimeFromMillis(v.n)
	case kindDuration:
		return types.NewDurationFromMillis(v.n)
	default:
		return v.v
	}
}

// entityOf returns the entity that v is.
func (s *scratch) entityOf(v *val) (types.EntityUID, bool) {
	switch v.kind {
	case kindVariable:
		return s.subjects[v.n].uid, true
	case kindEntity:
		return v.v.(types.EntityUID), true
	default:
		return types.EntityUID{}, false
	}
}

// setOf returns the set that v is.
func setOf(v *val) (types.Set, bool) {
	if v.kind != kindSet {
		return types.Set{}, false
	}
	return v.v.(types.Set), true
}

// equal is Cedar's ==, which values of different types never are.
func (s *scratch) equal(a, b *val) bool {
	if e, ok := s.entityOf(a); ok {
		f, ok := s.entityOf(b)
		return ok && e == f
	}
	switch {
	case a.kind == kindContext || b.kind == kindContext:
		return s.boxed(a).Equal(s.boxed(b))
	case a.kind != b.kind:
		return false
	}
	switch a.kind {
	case kindBool, kindLong, kindDatetime, kindDuration:
		return a.n == b.n
	case kindString:
		return a.v.(types.String) == b.v.(types.String)
	default:
		return a.v.Equal(b.v)
	}
}

// smallSet is up to how many elements a set is searched one by one: Contains
// hashes what it looks for, which allocates.
const smallSet = 12

// contains reports whether set has v.
func (s *scratch) contains(set types.Set, v *val) bool {
	if set.Len() > smallSet {
		return set.Contains(s.boxed(v))
	}
	for e := range set.All() {
		element := valueOf(e)
		if s.equal(&element, v) {
			return true
		}
	}
	return false
}

// attribute returns an attribute of a record or an entity. A missing entity
// has none. The last result is false when v is neither.
func (s *scratch) attribute(v *val, name types.String) (types.Value, bool, bool) {
	switch v.kind {
	case kindRecord:
		a, ok := v.v.(types.Record).Get(name)
		return a, ok, true
	case kindContext:
		a, ok := s.req.Context.Get(name)
		return a, ok, true
	case kindVariable:
		a, ok := s.subjects[v.n].record.Get(name)
		return a, ok, true
	case kindEntity:
		e, _ := s.entity(v.v.(types.EntityUID)) // a missing entity has no attributes
		a, ok := e.Attributes.Get(name)
		return a, ok, true
	default:
		return nil, false, false
	}
}

// slot returns the value of a slot, or nil when evaluating it is an error. It
// is found out once for each request.
func (s *scratch) slot(i int32) *val {
	c := &s.slots[i]
	if c.generation != s.generation {
		c.generation = s.generation
		c.missing = !s.load(i, &c.value)
	}
	if c.missing {
		return nil
	}
	return &c.value
}

func (s *scratch) load(i int32, to *val) bool {
	def := &s.p.code.slots[i]
	switch {
	case i == contextVar:
		*to = val{kind: kindContext}
		return true
	case i < variables:
		*to = val{kind: kindVariable, n: int64(i)}
		return true
	}
	parent := s.slot(def.parent)
	if parent == nil {
		return false
	}
	v, ok, _ := s.attribute(parent, def.name)
	if !ok || s.unspecified(parent) {
		return false
	}
	*to = valueOf(v)
	return true
}

// unspecified reports whether v is the entity without type and id, whose
// attributes cedar-go refuses to read even if there is such an entity.
func (s *scratch) unspecified(v *val) bool {
	e, ok := s.entityOf(v)
	return ok && e.IsZero()
}

// in reports whether e is the entity or in it.
func (s *scratch) in(e, entity types.EntityUID) bool {
	if e == entity {
		return true
	}
	for _, a := range s.closure(e)[1:] {
		if a == entity {
			return true
		}
	}
	return false
}

// inSet reports whether e is one of the entities of a set or in one. The last
// result is false when the set holds anything but entities.
func (s *scratch) inSet(e types.EntityUID, set types.Set) (result, ok bool) {
	for v := range set.All() {
		if _, ok := v.(types.EntityUID); !ok {
			return false, false
		}
	}
	for _, a := range s.closure(e) {
		v := val{kind: kindEntity, v: a}
		if s.contains(set, &v) {
			return true, true
		}
	}
	return false, true
}
