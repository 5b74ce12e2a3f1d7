package engine

import "github.com/cedar-policy/cedar-go/types"

// Fields are the attributes of a record that is only built if somebody needs
// it whole. To build one sorts and hashes it, which takes longer than a whole
// decision; policies mostly look at single attributes.
//
// Of several fields with one name the first counts.
type Fields []Field

// A Field is a named value. Its zero value is not one: the functions below
// make fields.
type Field struct {
	Name  types.String
	value val
	// fields are those of a nested record, strings the elements of a set.
	fields  Fields
	strings []string
}

// Bool is a truth value.
func Bool(name types.String, b bool) Field { return Field{Name: name, value: boolVal(b)} }

// Long is a number.
func Long(name types.String, n int64) Field { return Field{Name: name, value: longVal(n)} }

// String is a string.
func String(name types.String, s string) Field {
	return Field{Name: name, value: val{kind: kindString, s: types.String(s)}}
}

// Datetime is an instant.
func Datetime(name types.String, t types.Datetime) Field {
	return Field{Name: name, value: val{kind: kindDatetime, n: t.Milliseconds()}}
}

// Strings is the set of the strings in a list, which may repeat them. The
// list is kept, not copied.
func Strings(name types.String, list []string) Field {
	return Field{Name: name, value: val{kind: kindStrings}, strings: list}
}

// Nested is a record. The fields are kept, not copied.
func Nested(name types.String, fields Fields) Field {
	return Field{Name: name, value: val{kind: kindFields}, fields: fields}
}

// Boxed is any value, which must not be nil.
func Boxed(name types.String, v types.Value) Field { return Field{Name: name, value: valueOf(v)} }

// Record builds the record, with all that it holds.
func (fs Fields) Record() types.Record {
	m := make(types.RecordMap, len(fs))
	for i := range fs {
		if _, ok := m[fs[i].Name]; !ok {
			m[fs[i].Name] = fs[i].boxed()
		}
	}
	return types.NewRecord(m)
}

func (f *Field) boxed() types.Value {
	switch f.value.kind {
	case kindFields:
		return f.fields.Record()
	case kindStrings:
		vs := make([]types.Value, len(f.strings))
		for i, s := range f.strings {
			vs[i] = types.String(s)
		}
		return types.NewSet(vs...)
	default:
		return f.value.boxed()
	}
}

// get puts the value of a field into to, unless there is none of that name.
func (fs Fields) get(name types.String, to *val) bool {
	for i := range fs {
		if f := &fs[i]; f.Name == name {
			f.put(to)
			return true
		}
	}
	return false
}

// put makes to the value of the field, in place.
func (f *Field) put(to *val) {
	to.kind = f.value.kind
	switch to.kind {
	case kindBool, kindLong, kindDatetime, kindDuration:
		to.n = f.value.n
	case kindFields, kindStrings:
		to.of = f
	default:
		to.s, to.v = f.value.s, f.value.v
	}
}

// A built is what a field stands for, once somebody has needed it whole.
type built struct {
	of    *Field
	value types.Value
}

// build returns the record or set that a field stands for, built once for each
// request.
func (s *scratch) build(f *Field) types.Value {
	for _, b := range s.built {
		if b.of == f {
			return b.value
		}
	}
	v := f.boxed()
	s.built = append(s.built, built{of: f, value: v})
	return v
}

// context returns the whole context, built once for each request.
func (s *scratch) context() types.Record {
	if s.req.Fields == nil {
		return s.req.Context
	}
	if !s.whole {
		s.whole, s.record = true, s.req.Fields.Record()
	}
	return s.record
}
