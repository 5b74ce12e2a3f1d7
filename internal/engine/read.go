package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
)

// A ReadPath is a question that evaluating policies may ask of a request. What
// the request names itself, its principal, action and resource, is not among
// them, nor is the schema.
type ReadPath struct {
	Kind ReadKind
	// Context says that the question is about the context, else it is about
	// Entity.
	Context bool
	Entity  types.EntityUID
	// Path are the names of attributes, outermost first, or the name of a tag.
	// The empty path of the context is all of it.
	Path []types.String
	// Other is what Entity may be in, for [ReadIn].
	Other types.EntityUID
}

// A ReadKind is what a read asks for.
type ReadKind uint8

// The kinds of read.
const (
	ReadAttribute ReadKind = iota + 1 // the value at Path
	ReadHas                           // whether there is one
	ReadTag                           // the value of the tag
	ReadHasTag                        // whether there is one
	ReadIn                            // whether Entity is in Other
	ReadAncestors                     // all that Entity is in but itself, as a set
)

// A Read is a question and its answer.
type Read struct {
	ReadPath
	// Value is nil if the lookup ended early.
	Value types.Value
	// End says how the lookup ended, and At at which name of the path.
	End ReadEnd
	At  int
}

// A ReadEnd is how a lookup ended.
type ReadEnd uint8

// The ends of a lookup.
const (
	Found       ReadEnd = iota + 1
	NoAttribute         // nothing has that name
	NoEntity            // the entity is not known
	NoRecord            // what has that name has no attributes
)

// Reads are what an evaluation has looked at, each question once, in an order
// that depends on nothing else.
type Reads []Read

// Paths returns the questions.
func (r Reads) Paths() []ReadPath {
	paths := make([]ReadPath, len(r))
	for i := range r {
		paths[i] = r[i].ReadPath
	}
	return paths
}

// Key appends the key of the answers that a request gives to questions that
// another was asked: the same as [Reads.AppendKey] of the other's reads exactly
// if it gives the same answers. It reports false if there is a question that it
// does not understand, or whose answer hangs on what is unknown of the request;
// then there is no key.
func (p *Program) Key(req *Request, u Unknown, paths []ReadPath, dst []byte) ([]byte, bool) {
	s := p.begin(req)
	defer p.end(s)
	k := appendCount(dst, len(paths))
	for _, path := range paths {
		r, ok := s.read(path, &u)
		if !ok {
			return dst, false
		}
		k = r.appendKey(k)
	}
	return k, true
}

// read answers a question.
func (s *scratch) read(path ReadPath, u *Unknown) (Read, bool) {
	r := Read{ReadPath: path, End: Found}
	switch path.Kind {
	case ReadAttribute, ReadHas:
		if len(path.Path) == 0 && (!path.Context || path.Kind == ReadHas) {
			return Read{}, false
		}
		s.follow(&r)
	case ReadTag, ReadHasTag:
		if path.Context || len(path.Path) != 1 {
			return Read{}, false
		}
		s.tag(&r)
	case ReadIn:
		in := s.closure(path.Entity)
		found := slices.Contains(in, path.Other)
		if !found && slices.ContainsFunc(in, func(e types.EntityUID) bool { return s.isUnknown(u, e) }) {
			// It may be in there by way of what is unknown. The request whose answer
			// is remembered need not have been in that at all.
			return Read{}, false
		}
		r.Value = types.Boolean(found)
	case ReadAncestors:
		var all []types.Value
		for _, uid := range s.closure(path.Entity)[1:] {
			all = append(all, uid)
		}
		r.Value = types.NewSet(all...)
	default:
		return Read{}, false
	}
	return r, true
}

// follow looks an attribute up.
func (s *scratch) follow(r *Read) {
	record := s.context()
	if !r.Context {
		e, ok := s.entity(r.Entity)
		if !ok && (r.Kind == ReadAttribute || len(r.Path) > 1) {
			r.End = NoEntity
			return
		}
		record = e.Attributes // without an entity there are none to have
	}
	r.Value = record
	for i, name := range r.Path {
		record, ok := r.Value.(types.Record)
		if !ok {
			r.Value, r.End, r.At = nil, NoRecord, i
			return
		}
		v, ok := record.Get(name)
		switch {
		case r.Kind == ReadHas && i == len(r.Path)-1:
			r.Value = types.Boolean(ok)
		case !ok:
			r.Value, r.End, r.At = nil, NoAttribute, i
			return
		default:
			r.Value = v
		}
	}
}

// tag looks a tag up.
func (s *scratch) tag(r *Read) {
	e, known := s.entity(r.Entity)
	v, ok := e.Tags.Get(r.Path[0])
	switch {
	case r.Kind == ReadHasTag:
		r.Value = types.Boolean(ok)
	case !known:
		r.End = NoEntity
	case !ok:
		r.End = NoAttribute
	default:
		r.Value = v
	}
}
