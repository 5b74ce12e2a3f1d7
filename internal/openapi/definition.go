package openapi

import (
	"fmt"
	"net/http"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// metaHTTP is the member of a definition's _meta that says which request calls
// the tool.
const metaHTTP = "dev.bailiwick/http"

// define writes the tool definition of an operation.
func (o *operation) define(op place, defs schema) ([]byte, error) {
	props, where := schema{}, schema{}
	required := []any{}
	for _, a := range o.arguments {
		props[a.property], where[a.property] = a.schema, a.place()
		if a.required {
			required = append(required, a.property)
		}
	}
	meta := schema{"method": o.method, "path": o.template.path, "parameters": where}
	if b := o.body; b != nil {
		required = append(required, b.declare(props)...)
		content := schema{"kind": string(b.kind), "types": b.types, "required": b.required}
		if b.property != "body" {
			content["argument"] = b.property
		}
		meta["body"] = content
	}
	input := schema{"type": "object", "properties": props, "additionalProperties": false}
	if len(required) > 0 {
		input["required"] = required
	}
	if len(defs) > 0 {
		input["$defs"] = defs
	}
	def := schema{"name": o.name, "inputSchema": input, "_meta": schema{metaHTTP: meta}}
	if d := description(op); d != "" {
		def["description"] = d
	}
	if h := hints(o.method); len(h) > 0 {
		def["annotations"] = h
	}
	b, err := jsonv2.Marshal(def, jsonv2.Deterministic(true), jsontext.PreserveRawStrings(true))
	if err != nil {
		return nil, fmt.Errorf("its definition cannot be written: %w", err)
	}
	return b, nil
}

// place says where an argument stands in a request.
func (a *argument) place() schema {
	out := schema{"in": a.in}
	if a.property != a.name {
		out["name"] = a.name
	}
	if a.list {
		out["list"] = "commas"
		if a.explode {
			out["list"] = "repeated"
		}
	}
	if a.scalar == scalarJSON {
		out["json"] = true
	}
	return out
}

// declare adds the properties of a body and returns those that are required.
func (b *body) declare(props schema) []any {
	names := []any{b.property}
	if b.kind == bodyOpaque {
		props[b.property] = schema{"type": "string", "description": `Digest of the body: "sha256:" and 64 hexadecimal digits.`}
		props[b.size] = schema{"type": "integer", "description": "Size of the body in bytes."}
		names = append(names, b.size)
	} else {
		props[b.property] = b.schema
	}
	if !b.required {
		return nil
	}
	return names
}

func description(op place) string {
	var parts []string
	for _, key := range []string{"summary", "description"} {
		if s := strings.TrimSpace(op.get(key).str()); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "\n\n")
}

// hints are what a method promises (RFC 9110 §9.2). They only tighten what the
// operator says; a POST promises nothing, because searches are written so too.
func hints(method string) schema {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return schema{"readOnlyHint": true}
	case http.MethodDelete:
		return schema{"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true}
	case http.MethodPut:
		return schema{"readOnlyHint": false, "idempotentHint": true}
	case http.MethodPatch:
		return schema{"readOnlyHint": false}
	default:
		return schema{}
	}
}
