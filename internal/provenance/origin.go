package provenance

import (
	"encoding/json"
	"hash/maphash"
	"maps"
	"math/bits"
	"slices"
)

// Origin returns where a value is from: the user if the user said it, and else
// the most trusted source that vouches for the whole of it. The parts of a value
// may be from different sources: then it is as little trusted as the least of
// them, named if all are and contested if one is.
func (x *Index) Origin(value string) Origin {
	o, words := x.origin(value)
	if words == 0 {
		return None
	}
	if o.Trust == Unknown && o.Tool == "" {
		decoded(value, func(plain string) {
			if d, words := x.origin(plain); words > 0 && (o.Trust == Unknown || d.Trust < o.Trust) {
				o = d
			}
		})
	}
	return o
}

// origin looks a value up as it stands, and returns how many words it has.
func (x *Index) origin(value string) (Origin, int) {
	x.normal = appendNormal(x.normal[:0], value)
	o := None
	var before, all uint64
	n, said, proper, numeric := 0, true, false, true
	x.room = x.room[:0]
	words(x.normal, func(w word) {
		h := maphash.Bytes(x.seed, w.text)
		part := x.at(h^kindWord, isWeak(w.text), true)
		o = Worse(o, part)
		proper = proper || part.Contested && isProper(w.text)
		if n > 0 && said {
			m := x.marks[join(before, h)^kindPair]
			said = m.has(Unknown, Outsiders)
		}
		before, all = h, join(all, h)
		n++
		if numeric {
			x.room, numeric = plain(x.room, w.text)
		}
	})
	if n == 0 {
		return None, 0
	}
	if n > 1 {
		// Words occur everywhere. An outsider has named the whole only if it is in
		// what outsiders wrote word for word, or a name that is a part of it.
		whole := x.at(all^kindValue, false, true)
		whole.Contested = whole.Contested || said || proper
		if o.Trust > Structure {
			o.Contested = said || proper
		}
		o = better(o, whole)
	}
	if numeric && isNumberLike(x.room) {
		o = better(o, x.at(maphash.Bytes(x.seed, x.room)^kindNumber, false, true))
	}
	return o, n
}

// better is the origin of a thing of which two ways to look at it say different
// things: what vouches for it either way vouches for it.
func better(a, b Origin) Origin {
	if b.Trust > a.Trust || b.Trust == a.Trust && a.Contested && !b.Contested {
		return b
	}
	return a
}

// at is what is known of one digest. said is whether an outsider who said the
// word named this thing.
func (x *Index) at(digest uint64, weak, said bool) Origin {
	m, ok := x.marks[digest]
	if !ok {
		return Unseen
	}
	best := Trust(bits.Len8(m.seen) - 1)
	contested := m.has(Unknown, Outsiders) && said
	named := best == User || m.flags&(flagNamed|flagMade) != 0
	if weak && (contested || !x.whole()) {
		// The user's 13 is the 13 of June, and a record's number is that of many
		// other things.
		best, named = min(best, Structure), false
	}
	switch {
	case best > Structure:
		return x.from(best, m.best, named, contested)
	case best <= Outsiders:
		return x.from(Trust(bits.TrailingZeros8(m.seen)), m.worst, false, true)
	case m.has(Unknown) && said:
		return x.from(Unknown, m.worst, false, true)
	case !x.whole():
		return Unseen
	default:
		return x.from(best, m.best, named, contested || m.flags&flagChosen != 0)
	}
}

func (x *Index) from(t Trust, at place, named, contested bool) Origin {
	return Origin{Trust: t, Tool: x.tools[at.tool], Step: int64(at.step), Named: named, Contested: contested}
}

// Pointers returns the origin of the least trusted address, host or account
// that occurs in a text, or [None]. A pointer that nobody has named was made up
// by whoever wrote the text, and is Unknown.
func (x *Index) Pointers(text string) Origin {
	o := None
	// The look-ups use the scratch space, so the text has its own.
	normal := appendNormal(nil, text)
	var last run
	words(normal, func(w word) {
		last.numbers(w.text, func(number []byte) {
			digest := maphash.Bytes(x.seed, number) ^ kindNumber
			if _, ok := x.marks[digest]; ok && isAccount(number) { // dates are numbers in groups too
				o = Worse(o, x.at(digest, false, true))
			}
		})
		if !isPointer(w) {
			return
		}
		o = Worse(o, x.at(maphash.Bytes(x.seed, w.text)^kindWord, isWeak(w.text), true))
	})
	return o
}

// OriginJSON is the worst origin of all that a JSON value holds, the names of
// members left out.
func (x *Index) OriginJSON(value []byte) Origin {
	v, ok := decode(value)
	if !ok {
		return Unseen
	}
	return x.Of(v)
}

// Of is [Index.OriginJSON] of a value that has been decoded, its numbers as
// [json.Number].
func (x *Index) Of(v any) Origin { return each(v, x.Origin) }

// PointersOf is [Index.Pointers] of all strings in a value that has been decoded.
func (x *Index) PointersOf(v any) Origin { return each(v, x.Pointers) }

// Says reports whether a value that has been decoded holds anything that can be
// from somewhere.
func Says(v any) bool {
	return each(v, func(s string) Origin {
		o := None
		words(appendNormal(nil, s), func(word) { o = Unseen })
		return o
	}) != None
}

func each(v any, origin func(string) Origin) Origin {
	o := None
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) { // the first of equals, always
			o = Worse(o, each(v[name], origin))
		}
	case []any:
		for _, e := range v {
			o = Worse(o, each(e, origin))
		}
	case string:
		o = origin(v)
	case json.Number:
		o = origin(v.String())
	}
	return o
}
