package mcp

import (
	"bytes"
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// This file walks JSON that jsontext has found valid, again and again and
// without allocating: a gate looks into each message many times. On other
// text the walks end, in bounds, with an error or with nonsense.

var (
	errNotObject = errors.New("not a JSON object")
	errNotArray  = errors.New("not a JSON array")
	// errStop ends a walk that has found what it looked for.
	errStop = errors.New("found")
)

// members calls visit for each member of an object, in order, with the name
// unescaped. It returns the offset behind the object.
func members(obj []byte, visit func(name []byte, value span) error) (int, error) {
	i := skipSpace(obj, 0)
	if at(obj, i) != '{' {
		return 0, errNotObject
	}
	if i = skipSpace(obj, i+1); at(obj, i) == '}' {
		return i + 1, nil
	}
	for {
		quoted := i
		if i = skipString(obj, i); i < 0 {
			return 0, errNotObject
		}
		name := obj[quoted+1 : i-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			var err error
			if name, err = jsontext.AppendUnquote(nil, obj[quoted:i]); err != nil {
				return 0, err
			}
		}
		if i = skipSpace(obj, i); at(obj, i) != ':' {
			return 0, errNotObject
		}
		value := span{start: skipSpace(obj, i+1)}
		if value.end = skipValue(obj, value.start); value.end < 0 {
			return 0, errNotObject
		}
		if err := visit(name, value); err != nil {
			return 0, err
		}
		switch i = skipSpace(obj, value.end); at(obj, i) {
		case ',':
			i = skipSpace(obj, i+1)
		case '}':
			return i + 1, nil
		default:
			return 0, errNotObject
		}
	}
}

// elements calls visit for each element of an array, in order. The values are
// parts of the array, capped.
func elements(array []byte, visit func(value []byte) error) error {
	i := skipSpace(array, 0)
	if at(array, i) != '[' {
		return errNotArray
	}
	if i = skipSpace(array, i+1); at(array, i) == ']' {
		return nil
	}
	for {
		end := skipValue(array, i)
		if end < 0 {
			return errNotArray
		}
		if err := visit(array[i:end:end]); err != nil {
			return err
		}
		switch i = skipSpace(array, end); at(array, i) {
		case ',':
			i = skipSpace(array, i+1)
		case ']':
			return nil
		default:
			return errNotArray
		}
	}
}

// at returns the byte at i, or 0 behind the end. No JSON has that byte.
func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

func skipSpace(b []byte, i int) int {
	for ; i < len(b); i++ {
		if c := b[i]; c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			break
		}
	}
	return i
}

// skipString returns the offset behind the string at i, or -1.
func skipString(b []byte, i int) int {
	if at(b, i) != '"' {
		return -1
	}
	for i++; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// skipValue returns the offset behind the value at i, or -1.
func skipValue(b []byte, i int) int {
	switch at(b, i) {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	begun := i
	for i < len(b) && strings.IndexByte(" \t\r\n,:]}", b[i]) < 0 {
		i++
	}
	if i == begun {
		return -1
	}
	return i
}

// skipNested returns the offset behind the object or array at i, or -1. It
// counts brackets without telling them apart, since valid JSON pairs them.
func skipNested(b []byte, i int) int {
	level := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			i-- // the loop steps on
		case '{', '[':
			level++
		case '}', ']':
			if level--; level == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// depth returns how deep the brackets of a text are nested. It is a plain
// loop, so that hostile nesting meets no recursion at all; on text that is not
// JSON its answer means nothing, and such text is refused anyway.
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
