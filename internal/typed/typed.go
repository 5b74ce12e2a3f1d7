// Package typed reads JSON as values of a Cedar schema.
//
// Every form that it takes for a value is one that means the same to every
// reader of the JSON: keys that occur twice, numbers that had to be rounded,
// null, and addresses that are of one version and look like the other are
// errors. It is pure.
package typed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds on one reading.
const (
	// maxBytes bounds the JSON.
	maxBytes = 16 << 20
	// maxElements bounds one set, and maxValues all values. Cedar sets cost more
	// than their elements when hashes are made to collide.
	maxElements = 1 << 14
	maxValues   = 1 << 16
	// maxDepth bounds how deep a type may be; jsontext bounds what is skipped.
	maxDepth = 64
)

// Options say how lenient a reading is. The zero Options refuse what a type
// requires and is not there, and ignore what it doesn't declare.
type Options struct {
	// RefuseExtra makes members that the type doesn't declare an error. Without
	// it they are ignored.
	RefuseExtra bool
	// Partial lets required members of the outermost record be missing. Records
	// within it are whole, or an error: policies read them without asking.
	Partial bool
	// IDs lets a string or an integer stand for an entity where the type says of
	// which type it is.
	IDs bool
	// Entity resolves the type of an entity as it is written in JSON ("user") to
	// the schema's ("Records::user"). Nil: types are written as in the schema.
	Entity func(name string) (types.EntityType, bool)
	// Enums are the entity types whose ids the schema lists (Schema.Enums).
	Enums map[types.EntityType]resolved.Enum
}

// An Error says what is wrong with a value. It names the member and never
// quotes a value, so it may be shown to whoever sent the JSON.
type Error struct {
	// Path is the member, with dots; elements are counted from 0. Empty: the
	// whole value.
	Path string
	// Reason is the rest of a sentence that begins with Path.
	Reason string
}

func (e *Error) Error() string {
	if e.Path == "" {
		return "the value " + e.Reason
	}
	return e.Path + " " + e.Reason
}

// Record reads a JSON object as a record. Only members that are present are in
// the result. The error is an [*Error].
func Record(t resolved.RecordType, raw []byte, o Options) (types.RecordMap, error) {
	r, err := newReader(raw, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	m, err := r.record(t, o.Partial)
	if err != nil {
		return nil, err
	}
	return m, r.end()
}

// Map reads a JSON object whose members all have one type and any names, as
// tags do. The error is an [*Error].
func Map(elem resolved.IsType, raw []byte, o Options) (types.RecordMap, error) {
	r, err := newReader(raw, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if r.dec.PeekKind() != '{' {
		return nil, r.wrong("an object")
	}
	m := types.RecordMap{}
	err = r.members(func(name string) error {
		return r.within(shown(name), func() (err error) {
			m[types.String(name)], err = r.value(elem, false)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return m, r.end()
}

// Value reads JSON as a value of a type. The error is an [*Error].
func Value(t resolved.IsType, raw []byte, o Options) (types.Value, error) {
	r, err := newReader(raw, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	v, err := r.value(t, o.Partial)
	if err != nil {
		return nil, err
	}
	return v, r.end()
}

// A reader reads one JSON text in one pass.
type reader struct {
	Options
	dec    *jsontext.Decoder
	path   []string
	values int
}

// readers are those that have been closed. Strings that a decoder returned are
// copies, and stay.
var readers = sync.Pool{New: func() any { return &reader{dec: new(jsontext.Decoder)} }}

func newReader(raw []byte, o Options) (*reader, error) {
	if len(raw) > maxBytes {
		return nil, &Error{Reason: fmt.Sprintf("is larger than %d bytes", maxBytes)}
	}
	r := readers.Get().(*reader)
	r.Options, r.path, r.values = o, r.path[:0], 0
	// Not AllowDuplicateNames and not AllowInvalidUTF8: I-JSON (RFC 7493 §2).
	r.dec.Reset(bytes.NewBuffer(raw))
	return r, nil
}

func (r *reader) close() {
	r.Options = Options{}
	readers.Put(r)
}

func (r *reader) end() error {
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return &Error{Reason: "is followed by something else"}
	}
	return nil
}

func (r *reader) errorf(format string, args ...any) error {
	return &Error{Path: strings.Join(r.path, "."), Reason: fmt.Sprintf(format, args...)}
}

// invalid explains bytes that are not JSON.
func (r *reader) invalid(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return r.errorf("has a key twice")
	}
	return &Error{Reason: "is not valid JSON (RFC 8259, UTF-8)"}
}

// wrong says that the next value is not what the type wants, unless it is not
// even JSON.
func (r *reader) wrong(want string) error {
	kind := r.dec.PeekKind()
	if _, err := r.dec.ReadValue(); err != nil {
		return r.invalid(err)
	}
	if kind == 'n' {
		return r.errorf("is null; leave out what has no value")
	}
	return r.errorf("is not %s", want)
}

// within does something under a name.
func (r *reader) within(name string, do func() error) error {
	r.path = append(r.path, name)
	if err := do(); err != nil {
		return err
	}
	r.path = r.path[:len(r.path)-1]
	return nil
}

func (r *reader) value(t resolved.IsType, partial bool) (types.Value, error) {
	if r.values++; r.values > maxValues {
		return nil, &Error{Reason: fmt.Sprintf("has more than %d values in it", maxValues)}
	}
	if len(r.path) > maxDepth {
		return nil, r.errorf("is deeper than %d levels", maxDepth)
	}
	switch t := t.(type) {
	case resolved.RecordType:
		m, err := r.record(t, partial)
		if err != nil {
			return nil, err
		}
		return types.NewRecord(m), nil
	case resolved.SetType:
		return r.set(t.Element)
	case resolved.EntityType:
		return r.entity(types.EntityType(t))
	case resolved.ExtensionType:
		return r.extension(t)
	case resolved.StringType:
		s, err := r.text("a string")
		return types.String(s), err
	case resolved.BoolType:
		return r.bool()
	case resolved.LongType:
		return r.long()
	default:
		return nil, r.errorf("has a type that is not known: %T", t)
	}
}

// members reads an object, member by member.
func (r *reader) members(each func(name string) error) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return r.invalid(err)
	}
	for r.dec.PeekKind() != '}' {
		name, err := r.dec.ReadToken()
		if err != nil {
			return r.invalid(err)
		}
		if err := each(name.String()); err != nil {
			return err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.invalid(err)
	}
	return nil
}

func (r *reader) record(t resolved.RecordType, partial bool) (types.RecordMap, error) {
	if r.dec.PeekKind() != '{' {
		return nil, r.wrong("an object")
	}
	m := make(types.RecordMap, len(t))
	err := r.members(func(name string) error {
		attr, declared := t[types.String(name)]
		if !declared {
			return r.extra(name, t)
		}
		return r.within(shown(name), func() (err error) {
			m[types.String(name)], err = r.value(attr.Type, false)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if name, missing := firstMissing(t, m); missing && !partial {
		r.path = append(r.path, name)
		return nil, r.errorf("is missing")
	}
	return m, nil
}

// firstMissing returns the first required member that is not there.
func firstMissing(t resolved.RecordType, m types.RecordMap) (string, bool) {
	var missing []string
	for name, attr := range t {
		if _, ok := m[name]; !ok && !attr.Optional {
			missing = append(missing, string(name))
		}
	}
	if len(missing) == 0 {
		return "", false
	}
	return shown(slices.Min(missing)), true
}

// extra handles a member that is not declared.
func (r *reader) extra(name string, t resolved.RecordType) error {
	if r.RefuseExtra {
		known := make([]string, 0, len(t))
		for k := range t {
			known = append(known, string(k))
		}
		r.path = append(r.path, shown(name))
		return r.errorf("is not known%s", DidYouMean(name, known))
	}
	return r.skip()
}

func (r *reader) skip() error {
	if err := r.dec.SkipValue(); err != nil {
		return r.invalid(err)
	}
	return nil
}

func (r *reader) set(elem resolved.IsType) (types.Value, error) {
	if r.dec.PeekKind() != '[' {
		return nil, r.wrong("an array")
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, r.invalid(err)
	}
	var values []types.Value
	for r.dec.PeekKind() != ']' {
		if len(values) >= maxElements {
			return nil, r.errorf("has more than %d elements", maxElements)
		}
		err := r.within(strconv.Itoa(len(values)), func() error {
			v, err := r.value(elem, false)
			values = append(values, v)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, r.invalid(err)
	}
	return types.NewSet(values...), nil
}

// token reads the next token, which must be of a kind.
func (r *reader) token(want string, kinds ...jsontext.Kind) (jsontext.Token, error) {
	if !slices.Contains(kinds, r.dec.PeekKind()) {
		return jsontext.Token{}, r.wrong(want)
	}
	tok, err := r.dec.ReadToken()
	if err != nil {
		return jsontext.Token{}, r.invalid(err)
	}
	return tok, nil
}

func (r *reader) text(want string) (string, error) {
	tok, err := r.token(want, '"')
	if err != nil {
		return "", err
	}
	return tok.String(), nil
}

func (r *reader) bool() (types.Value, error) {
	tok, err := r.token("true or false", 't', 'f')
	if err != nil {
		return nil, err
	}
	return types.Boolean(tok.Bool()), nil
}

func (r *reader) long() (types.Value, error) {
	tok, err := r.token("an integer", '0')
	if err != nil {
		return nil, err
	}
	text := tok.String()
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return nil, r.errorf("is not an integer of 64 bits")
	case err != nil || text == "-0":
		return nil, r.errorf("is not written as an integer")
	default:
		return types.Long(n), nil
	}
}

// shown is a name as part of a path: of one piece, printable and not long.
func shown(name string) string {
	const most = 64
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	plain := func(r rune) bool { return strconv.IsPrint(r) && r != '.' && r != ' ' && r != '"' && r != '\\' }
	if name != "" && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	return strconv.Quote(name)
}
