package entity

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds on the YAML of one entity. The parser recurses.
const (
	maxItem  = 1 << 20
	maxNests = 1000
)

// parse reads a file of entities: YAML, or JSON by its first character.
func parse(file string, text []byte) ([]row, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: the file is larger than %d bytes", file, maxFile)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if start := bytes.TrimLeft(text, " \t\r\n"); len(start) > 0 && (start[0] == '[' || start[0] == '{') {
		return parseJSON(file, text)
	}
	items, err := splitYAML(file, text)
	if err != nil {
		return nil, err
	}
	if len(items) > maxEntities {
		return nil, fmt.Errorf("%s: there are more than %d entities", file, maxEntities)
	}
	rows := make([]row, 0, len(items))
	for _, it := range items {
		r, err := it.row(file)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// An item is the YAML of one entity.
type item struct {
	text []byte
	line int // of its beginning
}

// splitYAML splits "entities:" and a list into the items of the list.
//
// A parsed file of YAML takes a hundred times its size in memory; one entity at
// a time takes nothing. It is sound because whatever belongs to an item of a
// block list is indented deeper than its dash: what is split in the middle
// would not have been YAML as a whole either, and is none in parts.
func splitYAML(file string, text []byte) ([]item, error) {
	fail := func(line int, format string, args ...any) error {
		return fmt.Errorf("%s:%d: %s", file, line, fmt.Sprintf(format, args...))
	}
	var items []item
	indent, headed, empty := -1, false, false
	n, offset := 0, 0
	for l := range bytes.Lines(text) {
		n++
		offset += len(l)
		content := bytes.TrimRight(l, " \t\r\n")
		bare := bytes.TrimLeft(content, " ")
		depth := len(content) - len(bare)
		begins := string(bare) == "-" || bytes.HasPrefix(bare, []byte("- "))
		switch {
		case len(bare) == 0, bare[0] == '#' && depth <= indent, bare[0] == '#' && indent < 0:
			if len(items) > 0 {
				it := &items[len(items)-1]
				it.text = append(it.text, '\n')
			}
		case !headed && string(bare) == "---":
		case !headed:
			list, ok := bytes.CutPrefix(withoutComment(content), []byte("entities:"))
			list = bytes.TrimSpace(list)
			if !ok || len(list) > 0 && string(list) != "[]" {
				return nil, fail(n, "the file does not begin with \"entities:\" and a list below it")
			}
			headed, empty = true, len(list) > 0
		case empty, indent < 0 && !begins, depth < indent, depth == indent && !begins:
			return nil, fail(n, "this is not a part of the list of entities, and nothing else is known")
		case begins && (indent < 0 || depth == indent):
			indent = depth
			items = append(items, item{text: bytes.Clone(l), line: n})
		default:
			it := &items[len(items)-1]
			if it.text = append(it.text, l...); len(it.text) > maxItem {
				return nil, fail(it.line, "the entity that begins here is larger than %d bytes", maxItem)
			}
		}
	}
	return items, nil
}

// withoutComment cuts off what follows " #".
func withoutComment(l []byte) []byte {
	before, _, _ := bytes.Cut(l, []byte(" #"))
	return bytes.TrimRight(before, " \t")
}

// row reads the item. One that is JSON, as the program writes it, needs no YAML.
func (it item) row(file string) (row, error) {
	where := fmt.Sprintf("%s:%d", file, it.line)
	body := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimLeft(it.text, " "), []byte("-")))
	if raw := jsontext.Value(body); len(body) > 0 && body[0] == '{' && raw.IsValid() {
		return readRow(raw, where)
	}
	if tooNested(body) {
		return row{}, fmt.Errorf("%s: the entity is nested more than %d times", where, maxNests)
	}
	f, err := parser.ParseBytes(it.text, 0)
	if err != nil {
		return row{}, it.problem(file, err)
	}
	if len(f.Docs) != 1 {
		return row{}, fmt.Errorf("%s: the entity is not one document", where)
	}
	list, ok := f.Docs[0].Body.(*ast.SequenceNode)
	if !ok || len(list.Values) != 1 {
		return row{}, fmt.Errorf("%s: the entity is not one element of a list", where)
	}
	raw, err := appendJSON(nil, list.Values[0])
	if err != nil {
		return row{}, it.problem(file, err)
	}
	return readRow(raw, where)
}

// tooNested reports whether text could be nested too deeply for a parser that
// recurses. It takes no notice of quotes.
func tooNested(text []byte) bool {
	depth, run := 0, 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		}
		switch c {
		case '-', '?', '&', '!', ':', '*':
			run++
		case ' ', '\t':
		default:
			run = 0
		}
		if depth > maxNests || run > maxNests {
			return true
		}
	}
	return false
}

// A nodeError is a mistake at a line of an item.
type nodeError struct {
	line   int
	reason string
}

func (e *nodeError) Error() string { return e.reason }

// problem says in which line of the file the mistake is.
func (it item) problem(file string, err error) error {
	line, reason := 1, err.Error()
	var y yaml.Error
	var n *nodeError
	switch {
	case errors.As(err, &n):
		line = n.line
	case errors.As(err, &y):
		reason = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			line = t.Position.Line
		}
	}
	return fmt.Errorf("%s:%d: %s", file, it.line+max(line, 1)-1, reason)
}

// jsonNumber is a number that YAML and JSON take for the same.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// appendJSON writes YAML as the JSON that it stands for. What stands for
// something else (anchors, aliases, tags, merged keys) or for what JSON doesn't
// have is an error.
func appendJSON(b []byte, n ast.Node) ([]byte, error) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return appendMapping(b, n.Values)
	case *ast.MappingValueNode:
		return appendMapping(b, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		var err error
		b = append(b, '[')
		for i, v := range n.Values {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, v); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case *ast.StringNode:
		return appendText(b, n, n.Value)
	case *ast.LiteralNode:
		return appendText(b, n, n.Value.Value)
	case *ast.BoolNode:
		return fmt.Appendf(b, "%t", n.Value), nil
	case *ast.NullNode:
		return append(b, "null"...), nil
	case *ast.IntegerNode:
		return appendNumber(b, n, n.Token.Value)
	case *ast.FloatNode:
		return appendNumber(b, n, n.Token.Value)
	case nil:
		return nil, &nodeError{1, "the entity is empty"}
	default:
		return nil, nodeProblem(n, "anchors, aliases, tags and merged keys are not known here")
	}
}

func nodeProblem(n ast.Node, reason string) error {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return &nodeError{t.Position.Line, reason}
	}
	return &nodeError{1, reason}
}

func appendText(b []byte, n ast.Node, s string) ([]byte, error) {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		return nil, nodeProblem(n, "the text is not UTF-8")
	}
	return b, nil
}

func appendNumber(b []byte, n ast.Node, text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if !jsonNumber.MatchString(text) {
		return nil, nodeProblem(n, "write the number in plain digits, or in quotes if it is text")
	}
	return append(b, text...), nil
}

func appendMapping(b []byte, values []*ast.MappingValueNode) ([]byte, error) {
	b = append(b, '{')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return nil, nodeProblem(v, "a key is text: put it in quotes if it looks like something else")
		}
		var err error
		if b, err = appendText(b, v, key.Value); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendJSON(b, v.Value); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}
