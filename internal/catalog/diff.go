package catalog

import "encoding/json"

// A Change is one difference between two definitions of a tool.
type Change struct {
	// Path says where: "description", "inputSchema.properties.to.type".
	Path string `json:"path"`
	// Message is one line for people.
	Message string `json:"message"`
}

// Diff says how the definition that a server gives now differs from the
// pinned one. Nil pinned is a new tool, nil seen one that is gone. No changes
// mean that the digests are equal.
func Diff(pinned, seen json.RawMessage) []Change { return nil }
