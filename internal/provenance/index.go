package provenance

import (
	"encoding/json"
	"hash/maphash"
	"maps"
	"math/bits"
	"slices"
)

// DefaultLimit is how many digests one session keeps at most, about 2 MB.
const DefaultLimit = 1 << 15

// An Index is what one session has seen. It is not safe for concurrent use: see
// [Book].
type Index struct {
	seed  maphash.Seed
	limit int
	marks map[uint64]mark
	tools []string // of which mark.tool is an index
	// gaps is how many released calls have returned something that has not been
	// learnt yet.
	gaps int
	// torn: something was seen that is not in the index, for good. It was full,
	// or forgotten, or an output was too large.
	torn bool

	normal, room []byte // scratch
}

// A mark is where a digest was seen.
type mark struct {
	seen        uint8 // a bit for each Trust
	flags       uint8
	best, worst place
}

// Flags of a mark.
const (
	flagNamed  uint8 = 1 << iota // the user named the record that it is in
	flagMade                     // the session itself made it
	flagChosen                   // an outsider had it looked up
)

func (m *mark) has(trusts ...Trust) bool {
	for _, t := range trusts {
		if m.seen&(1<<t) != 0 {
			return true
		}
	}
	return false
}

// A place is a step, and the tool of that step.
type place struct {
	step int32
	tool uint16
}

// New returns an empty index that keeps at most limit digests, made with a seed
// that nobody outside the process knows.
func New(seed maphash.Seed, limit int) *Index {
	return &Index{seed: seed, limit: limit, marks: map[uint64]mark{}, tools: []string{""}}
}

// Tear notes that something has been seen that is not in the index. From now on
// what only a tool's structure vouches for is unknown, since an outsider may
// have named it too.
func (x *Index) Tear() { x.torn = true }

// Torn reports whether the index has been torn.
func (x *Index) Torn() bool { return x.torn }

// Len is how many digests there are.
func (x *Index) Len() int { return len(x.marks) }

// Expect notes that a call was released whose result is not learnt yet. Until
// [Index.Settle] the index is as good as torn: whoever acts may know more.
func (x *Index) Expect() { x.gaps++ }

// Settle ends one Expect.
func (x *Index) Settle() { x.gaps = max(0, x.gaps-1) }

func (x *Index) whole() bool { return !x.torn && x.gaps == 0 }

// LearnPrompt learns what the user said.
func (x *Index) LearnPrompt(text string) {
	x.text(text, source{trust: User, place: place{step: -1}}, true)
}

// A Call is one released call, as [Index.LearnOutput] learns from it.
type Call struct {
	Tool string
	Step int64
	// Marks are the operator's word on what the tool returns.
	Marks Marks
	// Writes: the call changes something. What it is the first to return, the
	// session has made.
	Writes bool
	// Chosen: an outsider said what to look for. A tool vouches for the things
	// that it returns, not for the choice of them.
	Chosen bool
}

// A source is where a text is from.
type source struct {
	trust Trust
	flags uint8
	place
}

// LearnOutput learns what a call returned: one JSON document, or YAML where the
// marks say so. What is neither is text.
func (x *Index) LearnOutput(c Call, document string) {
	v := structured(document, c.Marks.YAML)
	at := place{step: int32(min(c.Step, 1<<31-1)), tool: x.tool(c.Tool)}
	if s, isText := v.(string); isText && len(c.Marks.Fields) > 0 {
		// Which part of a text is which field cannot be told.
		x.text(s, source{trust: c.Marks.Least(), place: at}, true)
		return
	}
	src := source{place: at}
	if c.Writes {
		src.flags |= flagMade
	}
	if c.Chosen {
		src.flags |= flagChosen
	}
	// What the tool vouches for comes first: a number in somebody's text must not
	// pass for what was there before the tool's own.
	for _, vouched := range []bool{true, false} {
		x.value(v, c.Marks, make([]string, 0, 8), src, vouched)
	}
}

// LearnArguments learns what a released call said: words that nobody has named
// are from now on known to be from nowhere, so that no tool vouches for them by
// repeating them.
func (x *Index) LearnArguments(args map[string]any, c Call) {
	at := place{step: int32(min(c.Step, 1<<31-1)), tool: x.tool(c.Tool)}
	x.arguments(args, at)
}

// madeUp learns what an agent said, as far as nobody else has.
func (x *Index) madeUp(s string, src source) {
	learn := func(digest uint64) {
		if x.marks[digest].seen == 0 {
			x.add(digest, src)
		}
	}
	x.normal = appendNormal(x.normal[:0], s)
	last := run{text: x.room[:0]}
	var all uint64
	n := 0
	words(x.normal, func(w word) {
		h := maphash.Bytes(x.seed, w.text)
		if !isWeak(w.text) {
			learn(h ^ kindWord)
		}
		last.numbers(w.text, func(number []byte) { learn(maphash.Bytes(x.seed, number) ^ kindNumber) })
		all = join(all, h)
		n++
	})
	x.room = last.text[:0]
	if n > 1 {
		learn(all ^ kindValue)
	}
}

func (x *Index) arguments(v any, at place) {
	switch v := v.(type) {
	case map[string]any:
		for _, member := range v {
			x.arguments(member, at)
		}
	case []any:
		for _, e := range v {
			x.arguments(e, at)
		}
	case string:
		x.madeUp(v, source{trust: Unknown, place: at})
	}
}

func (x *Index) tool(name string) uint16 {
	i := slices.Index(x.tools, name)
	if i < 0 {
		if len(x.tools) >= 1<<10 {
			return 0
		}
		i = len(x.tools)
		x.tools = append(x.tools, name)
	}
	return uint16(i)
}

// value learns a value: what the tool vouches for, or else the rest.
func (x *Index) value(v any, m Marks, path []string, src source, vouched bool) {
	src.trust = m.at(path)
	switch v := v.(type) {
	case map[string]any:
		flags := src.flags
		if x.named(v) {
			flags |= flagNamed
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			inner := append(path, name)
			src.trust = m.at(inner)
			src.flags = flags
			if _, isRecord := v[name].(map[string]any); isRecord && x.telling(name) {
				src.flags |= flagNamed // {"Quarterly report": {...}}
			}
			if vouched == (src.trust >= Structure) {
				x.text(name, src, true) // a name can be a value: {"a@b.example": "read"}
			}
			x.value(v[name], m, inner, src, vouched)
		}
	case []any:
		for _, e := range v {
			x.value(e, m, path, src, vouched)
		}
	case string:
		if vouched == (src.trust >= Structure) {
			x.text(v, src, true)
		}
	case json.Number:
		if vouched == (src.trust >= Structure) {
			x.text(v.String(), src, true)
		}
	}
}

// named reports whether the user named a record: the whole of one of its own
// fields is in what the user said, and says enough to tell the record from
// others.
func (x *Index) named(record map[string]any) bool {
	for _, member := range record {
		if s, ok := member.(string); ok && x.telling(s) {
			return true
		}
	}
	return false
}

// telling reports whether the user said the whole of a field, and whether that
// is a name: several words, or one that is not of a language.
func (x *Index) telling(s string) bool {
	if len(s) > 200 {
		return false
	}
	x.normal = appendNormal(x.normal[:0], s)
	var before uint64
	n, said, proper := 0, true, false
	words(x.normal, func(w word) {
		h := maphash.Bytes(x.seed, w.text)
		m := x.marks[h^kindWord]
		said = said && m.has(User)
		if n > 0 {
			pair := x.marks[join(before, h)^kindPair]
			said = said && pair.has(User)
		}
		before = h
		n++
		proper = proper || isProper(w.text)
	})
	return said && (n > 1 || proper)
}

// Kinds of digest.
const (
	kindWord   uint64 = 0
	kindPair   uint64 = 0x9e3779b97f4a7c15
	kindValue  uint64 = 0xc2b2ae3d27d4eb4f
	kindNumber uint64 = 0x165667b19e3779f9
)

func join(a, b uint64) uint64 { return bits.RotateLeft64(a, 23)*0x9fb21c651e98df25 ^ b }

// text learns a text.
func (x *Index) text(s string, src source, decode bool) {
	x.normal = appendNormal(x.normal[:0], s)
	var before, all uint64
	n := 0
	last := run{text: x.room[:0]}
	words(x.normal, func(w word) {
		h := maphash.Bytes(x.seed, w.text)
		x.add(h^kindWord, src)
		if n > 0 && (src.trust <= Outsiders || src.trust == User) {
			x.add(join(before, h)^kindPair, src)
		}
		before, all = h, join(all, h)
		n++
		last.numbers(w.text, func(number []byte) { x.add(maphash.Bytes(x.seed, number)^kindNumber, src) })
	})
	x.room = last.text[:0]
	if n > 1 {
		x.add(all^kindValue, src)
	}
	if decode {
		decoded(s, func(plain string) { x.text(plain, src, false) })
	}
}

// longestRun is of how many words a number may consist.
const longestRun = 8

// A run are the plain forms of the last words of a text, one after the other.
type run struct {
	text []byte
	ends []int
}

// numbers calls yield with the plain forms of the numbers that end with a word:
// accounts, cards and telephones may be written in groups.
func (r *run) numbers(w []byte, yield func(number []byte)) {
	before := len(r.text)
	var ok bool
	if r.text, ok = plain(r.text, w); !ok {
		r.text, r.ends = r.text[:0], r.ends[:0]
		return
	}
	if len(w) > 5 { // a group is short
		if isNumberLike(r.text[before:]) {
			yield(r.text[before:])
		}
		r.text, r.ends = r.text[:0], r.ends[:0]
		return
	}
	r.ends = append(r.ends, len(r.text))
	if len(r.ends) > longestRun {
		first := r.ends[0]
		r.text = r.text[:copy(r.text, r.text[first:])]
		for i, end := range r.ends[1:] {
			r.ends[i] = end - first
		}
		r.ends = r.ends[:longestRun]
	}
	for i := len(r.ends) - 1; i >= 0; i-- {
		start := 0
		if i > 0 {
			start = r.ends[i-1]
		}
		if isNumberLike(r.text[start:]) {
			yield(r.text[start:])
		}
	}
}

func (x *Index) add(digest uint64, src source) {
	m, ok := x.marks[digest]
	if !ok {
		if len(x.marks) >= x.limit {
			x.torn = true
			return
		}
		m.best, m.worst = src.place, src.place
		if src.trust >= Structure {
			m.flags = src.flags & (flagMade | flagChosen) // who returns it first
		}
	} else {
		if src.trust > Trust(bits.Len8(m.seen)-1) {
			m.best = src.place
		}
		if src.trust < Trust(bits.TrailingZeros8(m.seen)) {
			m.worst = src.place
		}
	}
	if src.trust >= Structure {
		m.flags |= src.flags & flagNamed
	}
	m.seen |= 1 << src.trust
	x.marks[digest] = m
}
