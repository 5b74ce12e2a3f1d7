package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Get returns the value at a path of member names, and whether there is one.
// What is not valid JSON, as the parts of a [Message] are, may have any values
// or none.
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
	if len(obj) > 0 && !jsontext.Value(obj).IsValid() {
		return nil, errors.New("set a member: the object is not valid JSON")
	}
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
	switch {
	case len(path) == 0:
		return nil, errors.New("delete a member: no path")
	case !jsontext.Value(obj).IsValid():
		return nil, errors.New("delete a member: the object is not valid JSON")
	}
	return remove(obj, path)
}

func remove(obj []byte, path []string) ([]byte, error) {
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
	inner, err := remove(obj[at.start:at.end], path[1:])
	if err != nil {
		return nil, err
	}
	return splice(obj, at, inner), nil
}

// cut removes a member that is there, with the comma that parted it from the
// next one, or from the one before when it was the last.
func cut(obj []byte, name string) ([]byte, error) {
	var before, gone, after span
	_, err := members(obj, func(n []byte, at span) error {
		switch {
		case string(n) == name:
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

// find returns where the value of a member stands; the zero span when the
// object has no such member.
func find(obj []byte, name string) (span, error) {
	var found span
	_, err := members(obj, func(n []byte, at span) error {
		if string(n) != name {
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
