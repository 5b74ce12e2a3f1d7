package catalog

import "encoding/json"

// A Suggestion is a guess at what an operator might say about a tool. It is
// made from what an untrusted server says, so somebody has to look at it.
type Suggestion struct {
	Effects   []string
	Authority []string
	// Outsiders guesses that outsiders can write what the tool returns.
	Outsiders bool
	// Why says what the guess rests on.
	Why string
}

// Suggest guesses from the name, the annotations, the description and the
// arguments of a tool.
func Suggest(definition json.RawMessage) Suggestion { return Suggestion{} }
