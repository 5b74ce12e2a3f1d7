package entity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds on one file.
const (
	maxFile     = 256 << 20
	maxEntities = 1 << 20
)

// invalid explains JSON that is broken.
func invalid(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errors.New("has a key twice")
	}
	return errors.New("is not valid JSON (RFC 8259, UTF-8)")
}

// members calls each with the members of a JSON object.
func members(raw jsontext.Value, each func(name string, raw jsontext.Value) error) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw))
	if dec.PeekKind() != '{' {
		return errors.New("is not an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return invalid(err)
	}
	for dec.PeekKind() != '}' {
		tok, err := dec.ReadToken()
		if err != nil {
			return invalid(err)
		}
		name := tok.String()
		v, err := dec.ReadValue()
		if err != nil {
			return invalid(err)
		}
		if err := each(name, v); err != nil {
			return err
		}
	}
	return endOf(dec)
}

// elements calls each with the elements of a JSON array; nil has none.
func elements(raw jsontext.Value, each func(n int, raw jsontext.Value) error) error {
	if raw == nil {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw))
	if dec.PeekKind() != '[' {
		return errors.New("parents is not an array")
	}
	if _, err := dec.ReadToken(); err != nil {
		return invalid(err)
	}
	for n := 0; dec.PeekKind() != ']'; n++ {
		v, err := dec.ReadValue()
		if err != nil {
			return invalid(err)
		}
		if err := each(n, v); err != nil {
			return err
		}
	}
	return endOf(dec)
}

// endOf reads the end of an object or array, and that nothing follows.
func endOf(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return invalid(err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("is followed by something else")
	}
	return nil
}

// readUID reads {"type":…,"id":…} or Cedar's {"__entity":{"type":…,"id":…}}.
func readUID(raw jsontext.Value) (types.EntityUID, error) {
	wrong := errors.New(`is not an entity: {"type": "…", "id": "…"}`)
	parts := map[string]jsontext.Value{}
	err := members(raw, func(name string, v jsontext.Value) error { parts[name] = v.Clone(); return nil })
	if inner, ok := parts["__entity"]; ok && len(parts) == 1 {
		clear(parts)
		err = members(inner, func(name string, v jsontext.Value) error { parts[name] = v.Clone(); return nil })
	}
	if err != nil || len(parts) != 2 {
		return types.EntityUID{}, wrong
	}
	typ, okType := stringOf(parts["type"])
	id, okID := stringOf(parts["id"])
	if !okType || !okID {
		return types.EntityUID{}, wrong
	}
	return types.NewEntityUID(types.EntityType(typ), types.String(id)), nil
}

func stringOf(raw jsontext.Value) (string, bool) {
	if len(raw) == 0 || raw.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	return string(b), err == nil
}

// readRow reads one entity: in our form (type, id, attributes, parents, tags)
// or in Cedar's (uid, attrs, parents, tags).
func readRow(raw jsontext.Value, where string) (row, error) {
	r := row{where: where}
	has := map[string]bool{}
	var typ string
	err := members(raw, func(name string, v jsontext.Value) error {
		has[name] = true
		ok := true
		switch name {
		case "type":
			typ, ok = stringOf(v)
		case "id":
			var id string
			id, ok = stringOf(v)
			r.uid.ID = types.String(id)
		case "uid":
			uid, err := readUID(v)
			if err != nil {
				return fmt.Errorf("uid %w", err)
			}
			typ, r.uid.ID = string(uid.Type), uid.ID
		case "attributes", "attrs":
			r.attrs = v.Clone()
		case "parents":
			r.parents = v.Clone()
		case "tags":
			r.tags = v.Clone()
		default:
			return fmt.Errorf("%s is not known: an entity has type, id, attributes, parents and tags", strconv.Quote(name))
		}
		if !ok {
			return fmt.Errorf("%s is not a string: put it in quotes", name)
		}
		return nil
	})
	if err == nil {
		err = oneForm(has)
	}
	if err == nil && r.uid.ID == "" {
		err = errors.New("id is empty")
	}
	if err == nil {
		r.uid.Type, err = types.NewEntityType(typ)
	}
	if err != nil {
		return row{}, fmt.Errorf("%s: the entity: %w", where, err)
	}
	return r, nil
}

// oneForm reports whether an entity has what names it, in one of the forms.
func oneForm(has map[string]bool) error {
	switch {
	case has["uid"] && (has["type"] || has["id"] || has["attributes"]), !has["uid"] && has["attrs"]:
		return errors.New("mixes two forms: either type, id and attributes, or uid and attrs")
	case !has["uid"] && !has["type"]:
		return errors.New("type is missing")
	case !has["uid"] && !has["id"]:
		return errors.New("id is missing")
	default:
		return nil
	}
}

// parseJSON reads a list of entities, or an object whose only member, entities,
// is one.
func parseJSON(file string, text []byte) ([]row, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	lines := lineCounter{text: text, line: 1}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s:%d: %s", file, lines.at(dec.InputOffset()), fmt.Sprintf(format, args...))
	}
	object := dec.PeekKind() == '{'
	if object {
		for _, want := range []string{"{", "entities"} {
			if tok, err := dec.ReadToken(); err != nil || tok.String() != want {
				return nil, fail("the file is not a list of entities, or an object with only that: entities")
			}
		}
	}
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '[' {
		return nil, fail("the entities are not a list")
	}
	var rows []row
	for dec.PeekKind() != ']' {
		at := lines.at(dec.InputOffset() + int64(skipped(text[dec.InputOffset():])))
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the entity that begins here %w", file, at, invalid(err))
		}
		r, err := readRow(raw, fmt.Sprintf("%s:%d", file, at))
		if err != nil {
			return nil, err
		}
		if rows = append(rows, r); len(rows) > maxEntities {
			return nil, fail("there are more than %d entities", maxEntities)
		}
	}
	closing := []jsontext.Kind{']'}
	if object {
		closing = append(closing, '}')
	}
	for _, want := range closing {
		if tok, err := dec.ReadToken(); err != nil || tok.Kind() != want {
			return nil, fail("there is something else beside the entities")
		}
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, fail("there is something after the entities")
	}
	return rows, nil
}

// skipped counts what stands before the next value.
func skipped(text []byte) int {
	return len(text) - len(bytes.TrimLeft(text, " \t\r\n,"))
}

// A lineCounter counts lines, going forward.
type lineCounter struct {
	text []byte
	line int
	done int64
}

func (c *lineCounter) at(offset int64) int {
	if offset > c.done {
		c.line += bytes.Count(c.text[c.done:offset], []byte("\n"))
		c.done = offset
	}
	return c.line
}
