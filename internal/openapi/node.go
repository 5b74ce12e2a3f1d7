package openapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A node is one value of a document, read from JSON or YAML alike.
type node struct {
	line int
	// kind is that of JSON: one of { [ " 0 t f n.
	kind jsontext.Kind
	text string // of a string its value, of other scalars their JSON
	keys []string
	// members are those of an object; keys are their names, sorted.
	members map[string]*node
	items   []*node
}

// get is a member of an object, or nil. It is safe on nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	return n.members[key]
}

// str is the value of a string, or empty. It is safe on nil.
func (n *node) str() string {
	if n == nil || n.kind != '"' {
		return ""
	}
	return n.text
}

// isTrue is safe on nil.
func (n *node) isTrue() bool { return n != nil && n.kind == 't' }

// add adds a member and reports whether the name is new.
func (n *node) add(key string, v *node) bool {
	if _, twice := n.members[key]; twice {
		return false
	}
	if n.members == nil {
		n.members = map[string]*node{}
	}
	n.members[key] = v
	n.keys = append(n.keys, key)
	return true
}

// parseTree reads a document: JSON when it begins with a brace, YAML otherwise.
func parseTree(doc []byte) (*node, error) {
	if len(doc) > maxDocument {
		return nil, &ParseError{Message: fmt.Sprintf("it has %d bytes; at most %d are read", len(doc), maxDocument)}
	}
	doc = bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	if first := bytes.TrimLeft(doc, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return parseYAML(doc)
	}
	t := jsonTree{dec: jsontext.NewDecoder(bytes.NewBuffer(doc)), doc: doc, line: 1}
	n, err := t.value(0)
	if err == nil {
		if _, end := t.dec.ReadToken(); !errors.Is(end, io.EOF) {
			err = errors.New("there is something after the document")
		}
	}
	if err != nil {
		at := t.dec.InputOffset()
		var syntax *jsontext.SyntacticError
		if errors.As(err, &syntax) {
			at = syntax.ByteOffset
		}
		t.seek(at)
		return nil, &ParseError{Line: t.line, Pointer: string(t.dec.StackPointer()), Message: jsonFault(err)}
	}
	return n, nil
}

func jsonFault(err error) string {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return "a key stands there twice; remove one"
	}
	return "it is not JSON: " + err.Error()
}

// A jsonTree reads JSON and counts lines.
type jsonTree struct {
	dec  *jsontext.Decoder
	doc  []byte
	line int
	seen int64 // up to where lines are counted
}

func (t *jsonTree) seek(offset int64) {
	offset = min(offset, int64(len(t.doc)))
	if offset > t.seen {
		t.line += bytes.Count(t.doc[t.seen:offset], []byte("\n"))
		t.seen = offset
	}
}

func (t *jsonTree) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	tok, err := t.dec.ReadToken()
	if err != nil {
		return nil, err
	}
	t.seek(t.dec.InputOffset())
	n := &node{line: t.line, kind: tok.Kind()}
	switch n.kind {
	case '{':
		for t.dec.PeekKind() != '}' {
			key, err := t.dec.ReadToken()
			if err != nil {
				return nil, err
			}
			name := key.String()
			v, err := t.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.add(name, v)
		}
		slices.Sort(n.keys)
	case '[':
		for t.dec.PeekKind() != ']' {
			v, err := t.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, v)
		}
	default:
		n.text = tok.String()
		return n, nil
	}
	_, err = t.dec.ReadToken()
	return n, err
}

// raw is a value as JSON, members sorted.
func (n *node) raw() any {
	switch {
	case n == nil:
		return nil
	case n.kind == '"':
		return n.text
	case n.kind == '{':
		m := make(map[string]any, len(n.members))
		for k, v := range n.members {
			m[k] = v.raw()
		}
		return m
	case n.kind == '[':
		list := make([]any, len(n.items))
		for i, v := range n.items {
			list[i] = v.raw()
		}
		return list
	default:
		return jsontext.Value(n.text)
	}
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func escapePointer(s string) string { return pointerEscapes.Replace(s) }
