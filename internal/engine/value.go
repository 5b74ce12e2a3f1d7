package engine

import (
	"slices"

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
	kindFields // a record that is not built, of a [Field]
	kindSet
	kindStrings // a set that is not built, of a [Field]
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
	// s is the string.
	s types.String
	// v is the value of the other kinds, and of a string that came as one.
	v types.Value
	// of is the field that holds what is not built.
	of *Field
}

func boolVal(b bool) val {
	if b {
		return val{kind: kindBool, n: 1}
	}
	return val{kind: kindBool}
}

func longVal(n int64) val { return val{kind: kindLong, n: n} }

func valueOf(v types.Value) val {
	var to val
	to.set(v)
	return to
}

// set makes a val of a value, in place: a val is large, and to copy one for
// each attribute that policies read is a tenth of a decision.
func (to *val) set(v types.Value) {
	switch t := v.(type) {
	case types.Boolean:
		to.kind, to.n = kindBool, 0
		if t {
			to.n = 1
		}
	case types.Long:
		to.kind, to.n = kindLong, int64(t)
	case types.String:
		to.kind, to.s, to.v = kindString, t, v
	case types.EntityUID:
		to.kind, to.v = kindEntity, v
	case types.Record:
		to.kind, to.v = kindRecord, v
	case types.Set:
		to.kind, to.v = kindSet, v
	case types.Decimal:
		to.kind, to.v = kindDecimal, v
	case types.Datetime:
		to.kind, to.n = kindDatetime, t.Milliseconds()
	case types.Duration:
		to.kind, to.n = kindDuration, t.ToMilliseconds()
	default:
		to.kind, to.v = kindOther, v
	}
}

// boxed returns v as cedar-go holds it.
func (s *scratch) boxed(v *val) types.Value {
	switch v.kind {
	case kindVariable:
		return s.subjects[v.n].uid
	case kindContext:
		return s.context()
	case kindFields, kindStrings:
		return s.build(v.of)
	default:
		return v.boxed()
	}
}

// boxed returns a value that does not depend on the request.
func (v *val) boxed() types.Value {
	switch v.kind {
	case kindBool:
		return types.Boolean(v.n != 0)
	case kindLong:
		return types.Long(v.n)
	case kindDatetime:
		return types.NewDatetimeFromMillis(v.n)
	case kindDuration:
		return types.NewDurationFromMillis(v.n)
	case kindString:
		if v.v == nil {
			return v.s
		}
	}
	return v.v
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
func (s *scratch) setOf(v *val) (types.Set, bool) {
	switch v.kind {
	case kindSet:
		return v.v.(types.Set), true
	case kindStrings:
		return s.build(v.of).(types.Set), true
	default:
		return types.Set{}, false
	}
}

// typ is the kind of a value as policies see it, which do not know how it is
// held.
func (k kind) typ() kind {
	switch k {
	case kindVariable:
		return kindEntity
	case kindContext, kindFields:
		return kindRecord
	case kindStrings:
		return kindSet
	default:
		return k
	}
}

// equal is Cedar's ==, which values of different types never are.
func (s *scratch) equal(a, b *val) bool {
	if a.kind.typ() != b.kind.typ() {
		return false
	}
	switch a.kind {
	case kindBool, kindLong, kindDatetime, kindDuration:
		return a.n == b.n
	case kindString:
		return a.s == b.s
	case kindEntity, kindVariable:
		e, _ := s.entityOf(a)
		f, _ := s.entityOf(b)
		return e == f
	default:
		return s.boxed(a).Equal(s.boxed(b))
	}
}

// smallSet is up to how many elements a set is searched one by one: Contains
// hashes what it looks for, which allocates.
const smallSet = 12

// contains reports whether a set has v. The last result is false when it is
// not a set.
func (s *scratch) contains(in, v *val) (has, ok bool) {
	switch in.kind {
	case kindStrings:
		return v.kind == kindString && slices.Contains(in.of.strings, string(v.s)), true
	case kindSet:
		return s.setHas(in.v.(types.Set), v), true
	default:
		return false, false
	}
}

func (s *scratch) setHas(set types.Set, v *val) bool {
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

// containsMany reports whether a set has all, or any, of the elements of
// another. The last result is false when one is not a set.
func (s *scratch) containsMany(all bool, in, of *val) (truth, ok bool) {
	if in.kind.typ() != kindSet || of.kind.typ() != kindSet {
		return false, false
	}
	if of.kind == kindStrings {
		for _, e := range of.of.strings {
			v := val{kind: kindString, s: types.String(e)}
			if has, _ := s.contains(in, &v); has != all {
				return !all, true
			}
		}
		return all, true
	}
	for e := range of.v.(types.Set).All() {
		v := valueOf(e)
		if has, _ := s.contains(in, &v); has != all {
			return !all, true
		}
	}
	return all, true
}

// isEmpty reports whether a set is empty. The last result is false when it is
// not a set.
func isEmpty(v *val) (empty, ok bool) {
	switch v.kind {
	case kindStrings:
		return len(v.of.strings) == 0, true
	case kindSet:
		return v.v.(types.Set).Len() == 0, true
	default:
		return false, false
	}
}

// attribute puts an attribute of a record or an entity into to, unless it has
// none of that name. A missing entity has none. The last result is false when
// v is neither.
func (s *scratch) attribute(v *val, name types.String, to *val) (found, ok bool) {
	var r types.Record
	switch v.kind {
	case kindFields:
		return v.of.fields.get(name, to), true
	case kindContext:
		if s.req.Fields != nil {
			return s.req.Fields.get(name, to), true
		}
		r = s.req.Context
	case kindRecord:
		r = v.v.(types.Record)
	case kindVariable:
		r = s.subjects[v.n].record
	case kindEntity:
		e, _ := s.entity(v.v.(types.EntityUID)) // a missing entity has no attributes
		r = e.Attributes
	default:
		return false, false
	}
	a, found := r.Get(name)
	if found {
		to.set(a)
	}
	return found, true
}

// slot returns the value of a slot, or nil when evaluating it is an error. It
// is found out once for each request.
func (s *scratch) slot(i int32) *val {
	c := &s.slots[i]
	if c.generation != s.generation {
		s.load(i, c)
	}
	if c.missing {
		return nil
	}
	return &c.value
}

func (s *scratch) load(i int32, c *slotValue) {
	c.generation = s.generation
	if i < variables {
		return // it names the variable, whatever the request
	}
	def := &s.p.code.slots[i]
	parent := s.slot(def.parent)
	if parent == nil {
		c.missing = true
		return
	}
	found, _ := s.attribute(parent, def.name, &c.value)
	c.missing = !found || s.unspecified(parent)
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
		if s.setHas(set, &v) {
			return true, true
		}
	}
	return false, true
}
