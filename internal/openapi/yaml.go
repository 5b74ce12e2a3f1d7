package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// parseYAML reads YAML. Anchors, aliases, merge keys and tags are refused: a
// few lines of them unfold to gigabytes, and generators do not write them.
func parseYAML(doc []byte) (*node, error) {
	if len(doc) > maxYAML {
		return nil, &ParseError{Message: fmt.Sprintf("it has %d bytes of YAML; at most %d are read, so convert it to JSON", len(doc), maxYAML)}
	}
	if err := boundYAML(doc); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(doc, 0)
	if err != nil {
		return nil, yamlFault(err)
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			return nil, &ParseError{Line: lineOf(d.Body), Message: "there is a second YAML document; one is read"}
		}
		body = d.Body
	}
	if body == nil {
		return nil, &ParseError{Message: "it is empty"}
	}
	return yamlNode(body, 0)
}

// boundYAML bounds the nesting before the parser, which recurses without a
// limit, sees it. A line that is indented deeper than any document needs, or
// opens more brackets than that, is refused, whether they stand in a text or
// not.
func boundYAML(doc []byte) error {
	open := 0
	for i, line := range bytes.Split(doc, []byte("\n")) {
		open = max(0, open+bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{"))-
			bytes.Count(line, []byte("]"))-bytes.Count(line, []byte("}")))
		dashes := bytes.Count(line[:len(line)-len(bytes.TrimLeft(line, "- \t?:"))], []byte("-"))
		if open > 8*maxDepth || dashes > maxDepth || bytes.Count(line, []byte("[")) > 8*maxDepth || bytes.Count(line, []byte("{")) > 8*maxDepth {
			return &ParseError{Line: i + 1, Message: "values are nested too deeply"}
		}
	}
	return nil
}

func yamlFault(err error) error {
	e := &ParseError{Message: err.Error()}
	var y yaml.Error
	if errors.As(err, &y) {
		e.Message = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			e.Line = t.Position.Line
		}
	}
	e.Message = "it is not YAML: " + e.Message
	return e
}

func lineOf(n ast.Node) int {
	if n == nil {
		return 0
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func yamlNode(n ast.Node, depth int) (*node, error) {
	fault := func(format string, args ...any) (*node, error) {
		return nil, &ParseError{Line: lineOf(n), Message: fmt.Sprintf(format, args...)}
	}
	if depth > maxDepth {
		return fault("values are nested more than %d deep", maxDepth)
	}
	out := &node{line: lineOf(n)}
	switch n := n.(type) {
	case *ast.MappingNode:
		out.kind = '{'
		return out, yamlMembers(out, n.Values, depth)
	case *ast.MappingValueNode:
		out.kind = '{'
		return out, yamlMembers(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind = '['
		for _, v := range n.Values {
			item, err := yamlNode(v, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, item)
		}
	case *ast.StringNode:
		out.kind, out.text = '"', n.Value
	case *ast.LiteralNode:
		out.kind, out.text = '"', n.Value.Value
	case *ast.NullNode:
		out.kind, out.text = 'n', "null"
	case *ast.BoolNode:
		out.kind, out.text = 'f', "false"
		if n.Value {
			out.kind, out.text = 't', "true"
		}
	case *ast.IntegerNode:
		out.kind, out.text = '0', fmt.Sprint(n.Value)
		if !json.Valid([]byte(out.text)) {
			return fault("this number cannot be read")
		}
	case *ast.FloatNode:
		return yamlFloat(out, n)
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return fault("anchors, aliases and merge keys are not read; write the value out, or use $ref")
	case nil:
		out.kind, out.text = 'n', "null"
	default:
		return fault("%s is not read here; write a plain value", n.Type())
	}
	return out, nil
}

// yamlFloat keeps the digits as they are written where JSON can have them.
func yamlFloat(out *node, n *ast.FloatNode) (*node, error) {
	out.kind, out.text = '0', n.Token.Value
	if json.Valid([]byte(out.text)) {
		return out, nil
	}
	if math.IsInf(n.Value, 0) || math.IsNaN(n.Value) {
		return nil, &ParseError{Line: out.line, Message: "this number cannot be read"}
	}
	out.text = strconv.FormatFloat(n.Value, 'g', -1, 64)
	return out, nil
}

func yamlMembers(out *node, values []*ast.MappingValueNode, depth int) error {
	for _, mv := range values {
		key, err := yamlKey(mv.Key)
		if err != nil {
			return err
		}
		v, err := yamlNode(mv.Value, depth+1)
		if err != nil {
			return err
		}
		if !out.add(key, v) {
			return &ParseError{Line: lineOf(mv.Key), Message: fmt.Sprintf("the key %q stands there twice; remove one", key)}
		}
		// The place of a member is its key, as it is in JSON for most values.
		if v.line = lineOf(mv.Key); v.line == 0 {
			v.line = out.line
		}
	}
	slices.Sort(out.keys)
	return nil
}

// yamlKey is a key as a JSON key. Status codes are often written as numbers.
func yamlKey(k ast.MapKeyNode) (string, error) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, nil
	default:
		return "", &ParseError{Line: lineOf(k), Message: "this key is not a plain value; anchors, aliases and merge keys are not read"}
	}
}
