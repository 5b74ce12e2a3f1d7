package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Get returns the value at a path of member names, and whether there is one.
// Bytes that are not JSON have no values.
func Get(obj json.RawMessage, path ...string) (json.RawMessage, bool) {
	v := []byte(obj)
	for _, name := range path {
		at, err := find(v, name)
		if err != nil || at == (span{}) {
			return nil, false
		}
		v = v[at.start:at.end:at.end]
	}
	return v, len(v) > 0
}

// GetString returns the string at a path, or "" when there is none.
func GetString(obj json.RawMessage, path ...string) string {
	v, _ := Get(obj, path...)
	s, _ := unquote(v)
	return s
}

// Set returns obj with a value at a path of member names. Objects that are
// missing on the way are made, and so is obj itself when it is empty; anything
// else that is in the way is an error. The other bytes stay as they are.
func Set(obj json.RawMessage, value json.RawMessage, path ...string) (json.RawMessage, error) {
	if !jsontext.Value(value).IsValid() {
		return nil, errors.New("set a member: the value is not valid JSON")
	}
	return set(obj, value, path)
}

func set(obj, value []byte, path []string) ([]byte, error) {
	if len(path) == 0 {
		return value, nil
	}
	if len(obj) == 0 {
		obj = []byte("{}")
	}
	name := path[0]
	at, err := find(obj, name)
	if err != nil {
		return nil, fmt.Errorf("set member %q: %w", name, err)
	}
	inner, err := set(obj[at.start:at.end], value, path[1:])
	if err != nil {
		return nil, err
	}
	if at != (span{}) {
		return splice(obj, at, inner), nil
	}
	return insert(obj, name, inner), nil
}

// insert adds a member at the end of an object.
func insert(obj []byte, name string, value []byte) []byte {
	obj = bytes.TrimRight(obj, " \t\r\n")
	body := obj[:len(obj)-1]
	out := append(make([]byte, 0, len(obj)+len(name)+len(value)+8), body...)
	if last := bytes.TrimRight(body, " \t\r\n"); last[len(last)-1] != '{' {
		out = append(out, ',')
	}
	out = append(out, quote(name)...)
	out = append(append(out, ':'), value...)
	return append(out, '}')
}

// Delete returns obj without the member at a path. What is not there need not
// be deleted.
func Delete(obj json.RawMessage, path ...string) (json.RawMessage, error) {
	if len(path) == 0 {
		return nil, errors.New("delete a member: no path")
	}
	name := path[0]
	at, err := find(obj, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("delete member %q: %w", name, err)
	case at == span{}:
		return obj, nil
	case len(path) == 1:
		return cut(obj, name)
	}
	inner, err := Delete(obj[at.start:at.end:at.end], path[1:]...)
	if err != nil {
		return nil, err
	}
	return splice(obj, at, inner), nil
}

// cut removes a member that is there, with the comma that parted it from the
// next one, or from the one before when it was the last.
func cut(obj []byte, name string) ([]byte, error) {
	var before, gone, after span
	_, err := members(obj, func(n string, at span) error {
		switch {
		case n == name:
			gone = at
		case gone == span{}:
			before = at
		case after == span{}:
			after = at
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	open := bytes.IndexByte(obj, '{') + 1
	switch {
	case before != span{}:
		return splice(obj, span{before.end, gone.end}, nil), nil
	case after != span{}:
		comma := gone.end + bytes.IndexByte(obj[gone.end:], ',') + 1
		return splice(obj, span{open, comma}, nil), nil
	default:
		return splice(obj, span{open, gone.end}, nil), nil
	}
}

// splice returns b with the bytes of a span replaced.
func splice(b []byte, at span, value []byte) []byte {
	out := make([]byte, 0, len(b)-(at.end-at.start)+len(value))
	out = append(out, b[:at.start]...)
	out = append(out, value...)
	return append(out, b[at.end:]...)
}

// errStop ends a walk that has found what it looked for.
var errStop = errors.New("found")

// find returns where the value of a member stands; the zero span when the
// object has no such member.
func find(obj []byte, name string) (span, error) {
	var found span
	_, err := members(obj, func(n string, at span) error {
		if n != name {
			return nil
		}
		found = at
		return errStop
	})
	if err != nil && err != errStop {
		return span{}, err
	}
	return found, nil
}

// members calls visit for each member of a JSON object, in order, and returns
// the offset behind the object.
func members(obj []byte, visit func(name string, value span) error) (int, error) {
	// The decoder reads a bytes.Buffer in place: nothing is copied.
	d := jsontext.NewDecoder(bytes.NewBuffer(obj))
	if d.PeekKind() != '{' {
		return 0, errors.New("not a JSON object")
	}
	if _, err := d.ReadToken(); err != nil {
		return 0, err
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return 0, err
		}
		name := token.String()
		value, err := d.ReadValue()
		if err != nil {
			return 0, err
		}
		end := int(d.InputOffset())
		if err := visit(name, span{end - len(value), end}); err != nil {
			return 0, err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return 0, err
	}
	return int(d.InputOffset()), nil
}

// depth returns how deep the brackets of a text are nested. It is a plain
// loop, so that hostile nesting meets no recursion at all; on text that is not
// JSON its answer means nothing, and the scanner refuses the text anyway.
func depth(b []byte) int {
	deepest, level := 0, 0
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// elements calls visit for each element of a JSON array, in order.
func elements(array []byte, visit func(value []byte) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(array))
	if d.PeekKind() != '[' {
		return errors.New("not a JSON array")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := visit(bytes.Clone(v)); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}
