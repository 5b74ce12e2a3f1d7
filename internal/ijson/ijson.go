// Package ijson reads I-JSON (RFC 7493) in one pass, without reflection and
// without copying.
package ijson

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep objects and arrays may be nested.
const MaxDepth = 64

// linear is the number of names up to which an object's names are compared one
// by one, which is what a small object costs least with.
const linear = 16

// A Reader walks one JSON text from its beginning to its end. The caller says
// what it expects and gets parts of the text; everything that it passes is
// held to RFC 7493 §2: UTF-8, no unpaired surrogates, no duplicate names.
//
// The first violation ends the walk: every loop over members or elements then
// ends, and [Reader.End] returns it. What was read before it means nothing.
// The zero Reader reads the empty text. It is for one goroutine.
type Reader struct {
	text  []byte
	pos   int
	err   error
	open  []frame
	names [][]byte // of the open objects, the outer ones first
}

// A frame is an open object or array.
type frame struct {
	begun bool                // something has been read of it
	first int                 // where its names begin
	seen  map[string]struct{} // its names, once there are many
}

// Reset begins to read text, which must not change while what was read of it
// is in use. The text read before may stay in memory until then.
func (r *Reader) Reset(text []byte) {
	r.text, r.pos, r.err = text, 0, nil
	r.open, r.names = r.open[:0], r.names[:0]
}

// Kind returns the first byte of the next value: '{', '[', '"', 't', 'f' or
// 'n', and '0' for every number. It is 0 where no value can begin.
func (r *Reader) Kind() byte {
	if r.err != nil {
		return 0
	}
	switch c := r.space(); c {
	case '{', '[', '"', 't', 'f', 'n':
		return c
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0'
	default:
		return 0
	}
}

// Object opens the next value if it is an object. Otherwise it reads nothing
// and returns false. The members are read with [Reader.Next], to the end.
func (r *Reader) Object() bool { return r.Kind() == '{' && r.enter() }

// Array opens the next value if it is an array. Otherwise it reads nothing and
// returns false. The elements are read after [Reader.Element], to the end.
func (r *Reader) Array() bool { return r.Kind() == '[' && r.enter() }

func (r *Reader) enter() bool {
	if len(r.open) == MaxDepth {
		return r.fail("nesting that is too deep")
	}
	r.pos++
	r.open = append(r.open, frame{first: len(r.names)})
	return true
}

// Next reads the name of the next member of the open object. Its value must be
// read next. At the object's end it closes it and returns false.
func (r *Reader) Next() (name []byte, ok bool) {
	if !r.more('}') {
		return nil, false
	}
	if r.space() != '"' {
		return nil, r.fail("no member name")
	}
	name = r.quoted()
	if r.err != nil || !r.unique(name) {
		return nil, false
	}
	if r.space() != ':' {
		return nil, r.fail("no colon after a name")
	}
	r.pos++
	return name, true
}

// Element reports whether the open array has another element, which must be
// read next. At the array's end it closes it.
func (r *Reader) Element() bool { return r.more(']') }

// more steps to the next member or element, or over the end.
func (r *Reader) more(end byte) bool {
	if r.err != nil {
		return false
	}
	f := &r.open[len(r.open)-1]
	c := r.space()
	switch {
	case c == end:
		r.pos++
		r.names = r.names[:f.first]
		r.open = r.open[:len(r.open)-1]
		return false
	case !f.begun:
		f.begun = true
		return true
	case c == ',':
		r.pos++ // what must follow is seen by whoever reads it
		return true
	default:
		return r.fail("no comma and no end")
	}
}

// unique notes a name of the open object, unless it has it already.
func (r *Reader) unique(name []byte) bool {
	f := &r.open[len(r.open)-1]
	if f.seen != nil {
		if _, ok := f.seen[string(name)]; ok {
			return r.fail("a duplicate name")
		}
		f.seen[string(name)] = struct{}{}
		return true
	}
	for _, n := range r.names[f.first:] {
		if bytes.Equal(n, name) {
			return r.fail("a duplicate name")
		}
	}
	r.names = append(r.names, name)
	if len(r.names)-f.first > linear {
		f.seen = make(map[string]struct{}, 4*linear)
		for _, n := range r.names[f.first:] {
			f.seen[string(n)] = struct{}{}
		}
	}
	return true
}

// String reads the next value if it is a string. Otherwise it reads nothing
// and returns false.
func (r *Reader) String() (string, bool) {
	if r.Kind() != '"' {
		return "", false
	}
	s := string(r.quoted())
	return s, r.err == nil
}

// Value reads the next value, whatever it is, and returns its text.
func (r *Reader) Value() []byte {
	begun := r.Mark()
	r.skip()
	return r.Since(begun)
}

// Mark returns the place where the next value begins.
func (r *Reader) Mark() int {
	r.space()
	return r.pos
}

// Since returns the text that was read since a mark.
func (r *Reader) Since(mark int) []byte {
	if r.err != nil {
		return nil
	}
	return r.text[mark:r.pos:r.pos]
}

// End ends the walk. It returns the first violation; text behind the value is
// one.
func (r *Reader) End() error {
	if r.err == nil && (r.space() != 0 || r.pos < len(r.text)) {
		r.fail("more than one value")
	}
	return r.err
}

// skip reads one value. Its recursion is bounded by [MaxDepth].
func (r *Reader) skip() {
	switch r.Kind() {
	case '{':
		if !r.enter() {
			return
		}
		for {
			if _, ok := r.Next(); !ok {
				return
			}
			r.skip()
		}
	case '[':
		if !r.enter() {
			return
		}
		for r.Element() {
			r.skip()
		}
	case '"':
		r.quoted()
	case 't':
		r.literal("true")
	case 'f':
		r.literal("false")
	case 'n':
		r.literal("null")
	case '0':
		r.number()
	default:
		r.fail("no value")
	}
}

func (r *Reader) literal(want string) {
	if !bytes.HasPrefix(r.text[r.pos:], []byte(want)) {
		r.fail("no value")
		return
	}
	r.pos += len(want)
}

// number reads a number (RFC 8259 §6).
func (r *Reader) number() {
	if r.at(r.pos) == '-' {
		r.pos++
	}
	if r.at(r.pos) == '0' {
		r.pos++
	} else if !r.digits() {
		return
	}
	if r.at(r.pos) == '.' {
		if r.pos++; !r.digits() {
			return
		}
	}
	if c := r.at(r.pos); c == 'e' || c == 'E' {
		r.pos++
		if c := r.at(r.pos); c == '+' || c == '-' {
			r.pos++
		}
		r.digits()
	}
}

func (r *Reader) digits() bool {
	begun := r.pos
	for c := r.at(r.pos); c >= '0' && c <= '9'; c = r.at(r.pos) {
		r.pos++
	}
	return r.pos > begun || r.fail("a malformed number")
}

// quoted reads the string that begins here and returns it without its quotes
// and escapes.
func (r *Reader) quoted() []byte {
	begun, escaped, text := r.pos, false, r.text
	for i := begun + 1; i < len(text); {
		c := text[i]
		if plain(c) {
			i++
			continue
		}
		switch {
		case c == '"':
			r.pos = i + 1
			if escaped {
				return r.unescaped(begun)
			}
			return text[begun+1 : i : i]
		case c == '\\':
			escaped = true
			i += 2
		case c < ' ':
			r.pos = i
			r.fail("a control character in a string")
			return nil
		default:
			_, n := utf8.DecodeRune(text[i:])
			if n == 1 {
				r.pos = i
				r.fail("invalid UTF-8")
				return nil
			}
			i += n
		}
	}
	r.fail("a string without an end")
	return nil
}

// plain reports whether a byte stands for itself in a string.
func plain(c byte) bool { return c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' }

// unescaped resolves the escapes of the string between begun and here.
func (r *Reader) unescaped(begun int) []byte {
	b, err := jsontext.AppendUnquote(nil, r.text[begun:r.pos])
	if err != nil {
		r.pos = begun
		r.fail("a malformed escape in a string")
		return nil
	}
	return b
}

// space skips white space and returns the byte behind it, 0 at the end.
func (r *Reader) space() byte {
	for r.pos < len(r.text) {
		switch c := r.text[r.pos]; c {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

// at returns the byte at i, or 0 behind the end. No JSON has that byte outside
// a string.
func (r *Reader) at(i int) byte {
	if i < len(r.text) {
		return r.text[i]
	}
	return 0
}

// fail keeps the first violation. It returns false, for the caller to return.
func (r *Reader) fail(what string) bool {
	if r.err == nil {
		r.err = errors.New(what + " at byte " + strconv.Itoa(r.pos))
	}
	return false
}
