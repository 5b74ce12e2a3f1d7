package provenance

import (
	"bytes"
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decode reads one JSON document, its numbers as they are written.
func decode(text []byte) (any, bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil || dec.InputOffset() != int64(len(bytes.TrimRight(text, " \t\r\n"))) {
		return nil, false
	}
	return v, true
}

// structured reads the fields of a text, or returns the text itself if it has
// none: a text that is not what it should be is nobody's structure.
func structured(text string, isYAML bool) any {
	trimmed := strings.TrimLeft(text, " \t\r\n")
	if strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if v, ok := decode([]byte(text)); ok {
			return v
		}
	}
	if !isYAML {
		return text
	}
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) != 1 {
		return text
	}
	if v, ok := plainYAML(doc.Content[0]); ok {
		return v
	}
	return text
}

// plainYAML is the value of a node, its scalars as they are written. No program
// that writes plain data needs aliases, so there are none.
func plainYAML(n *yaml.Node) (any, bool) {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i]
			v, ok := plainYAML(n.Content[i+1])
			if _, twice := m[name.Value]; !ok || twice || name.Kind != yaml.ScalarNode {
				return nil, false
			}
			m[name.Value] = v
		}
		return m, true
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			var ok bool
			if list[i], ok = plainYAML(e); !ok {
				return nil, false
			}
		}
		return list, true
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return nil, true
		}
		return n.Value, true
	default:
		return nil, false
	}
}
