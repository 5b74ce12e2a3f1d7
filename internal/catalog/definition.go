package catalog

import (
	"encoding/json"
	"errors"
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"
)

// A definition is what a server says about one tool, as far as it is
// understood.
type definition struct {
	name        string
	title       string
	description string
	hints       hints
	input       schemaDoc
	output      schemaDoc
}

// hints are the annotations of a tool. The server made them up, so they may
// only tighten.
type hints struct {
	ReadOnly    *bool `json:"readOnlyHint"`
	Destructive *bool `json:"destructiveHint"`
	Idempotent  *bool `json:"idempotentHint"`
	OpenWorld   *bool `json:"openWorldHint"`
}

// parseDefinition reads a tool object. What is malformed beside the name is
// as good as absent: a tool without a usable schema is a tool about whose
// arguments policy knows nothing.
func parseDefinition(raw json.RawMessage) (definition, error) {
	var m map[string]json.RawMessage
	if err := jsonv2.Unmarshal(raw, &m); err != nil {
		return definition{}, fmt.Errorf("the definition is not a JSON object: %w", err)
	}
	var d definition
	if err := jsonv2.Unmarshal(m["name"], &d.name); err != nil || d.name == "" {
		return definition{}, errors.New("the definition has no name")
	}
	for key, field := range map[string]any{"title": &d.title, "description": &d.description, "annotations": &d.hints} {
		if v, ok := m[key]; ok {
			// A field of the wrong type stays empty. Annotations that cannot
			// be read tighten nothing, and loosen nothing either.
			_ = jsonv2.Unmarshal(v, field)
		}
	}
	d.input = parseSchema(m["inputSchema"])
	d.output = parseSchema(m["outputSchema"])
	return d, nil
}
