package coaz

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A target is what a method's default mapping says beside what all of them
// say.
type target struct {
	kind, id string
	context  string // members beside agent
}

// templates are the default mappings of the binding (COAZ-MCP, Default
// Mappings).
func templates() map[string]target {
	var (
		server   = target{kind: "mcp_server", id: "$token.aud"}
		resource = target{kind: "resource", id: "$params.uri"}
		task     = target{kind: "task", id: "$params.taskId"}
	)
	return map[string]target{
		"initialize":            {kind: server.kind, id: server.id, context: `"protocol_version": "$params.protocolVersion"`},
		"tools/list":            server,
		"tools/call":            {kind: "tool", id: "$params.name"},
		"resources/list":        server,
		"resources/read":        resource,
		"resources/subscribe":   resource,
		"resources/unsubscribe": resource,
		"prompts/list":          server,
		"prompts/get":           {kind: "prompt", id: "$params.name"},
		// The draft has "$params" inside of its second expression, which is not
		// CEL; the $ belongs in front of an expression only.
		"completion/complete": {
			kind: "$params.ref.type == 'ref/prompt' ? 'prompt' : 'resource'",
			id:   "$params.ref.type == 'ref/prompt' ? params.ref.name : params.ref.uri",
		},
		"logging/setLevel": {kind: server.kind, id: server.id, context: `"level": "$params.level"`},
		"tasks/get":        task,
		"tasks/result":     task,
		"tasks/cancel":     task,
		"tasks/list":       server,
	}
}

// extension are our mappings of methods that the binding does not have. It is
// written for MCP 2025-11-25; these are of 2026-07-28, and the list of
// templates is older than both.
func extension() map[string]target {
	return map[string]target{
		"server/discover": {
			kind: "mcp_server", id: "$token.aud",
			context: `"protocol_version": "$params.?_meta[?'io.modelcontextprotocol/protocolVersion']"`,
		},
		"resources/templates/list": {kind: "mcp_server", id: "$token.aud"},
		"subscriptions/listen": {
			kind: "mcp_server", id: "$token.aud",
			context: `"resources": "$params.?notifications.?resourceSubscriptions"`,
		},
		"tasks/update": {kind: "task", id: "$params.taskId"},
	}
}

// source is the mapping as a server would declare it.
func (t target) source(method string) json.RawMessage {
	context := `"agent": "$token.?client_id"`
	if t.context != "" {
		context += ", " + t.context
	}
	return json.RawMessage(strings.NewReplacer("CONTEXT", context, "ACTION", method, "TYPE", t.kind, "ID", t.id).Replace(
		`{ "evaluation": {
			"subject": { "type": "identity", "id": "$token.sub" },
			"context": { CONTEXT },
			"action": { "name": "ACTION" },
			"resource": { "type": "TYPE", "id": "ID" } } }`))
}

// defaults are compiled once. That they compile is a property of this file.
var defaults = sync.OnceValue(func() map[string]*Mapping {
	all := templates()
	maps.Copy(all, extension())
	compiled := make(map[string]*Mapping, len(all))
	for method, t := range all {
		m, err := Compile(t.source(method))
		if err != nil {
			panic("coaz: default mapping of " + method + ": " + err.Error())
		}
		compiled[method] = m
	}
	return compiled
})

// Default is the mapping of a method, which applies unless a tool declares its
// own: those of the binding, and our extension for server/discover,
// resources/templates/list, subscriptions/listen and tasks/update. A method
// without one, which does not pass through, must be denied.
func Default(method string) (*Mapping, bool) {
	m, ok := defaults()[method]
	return m, ok
}

// Methods are the methods that have a default mapping, sorted.
func Methods() []string { return slices.Sorted(maps.Keys(defaults())) }

// Extension are those of the methods that the binding does not have, sorted.
func Extension() []string { return slices.Sorted(maps.Keys(extension())) }
