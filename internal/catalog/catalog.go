// Package catalog is what agents can do: the pinned tools of every server as
// typed Cedar actions, with the operator's word on what each of them does.
//
// A catalogue is made from two files and nothing else. The lock
// (catalog.lock.json) holds the tool definitions that an operator has looked
// at, verbatim. The overlay (catalog.yaml) says what the operator knows about
// them. What a live server says never changes a catalogue.
package catalog

import (
	"errors"

	"github.com/cedar-policy/cedar-go/types"
)

// A Config is what a catalogue is made from.
type Config struct {
	// Lock holds the pinned tools. Required.
	Lock *Lock
	// Overlay is the operator's word. Nil says nothing: every tool is then
	// taken to write, to destroy and to reach outside.
	Overlay *Overlay
}

// A Catalog is a checked, immutable set of operations. It is safe for
// concurrent use.
type Catalog struct{}

// New checks the overlay against the lock and makes the catalogue. The error
// joins one [Problem] for each mistake.
func New(c Config) (*Catalog, error) { return nil, errors.New("catalog: not built yet") }

// Schema is the Cedar schema of the catalogue in Cedar syntax: the entities,
// the effect groups, one action for each pinned tool and one for each method
// of the protocol. The same catalogue always gives the same bytes.
func (c *Catalog) Schema() []byte { return nil }

// Operation finds an operation by its action, "<server>/<tool>" or
// "mcp:<method>".
func (c *Catalog) Operation(action string) (*Operation, bool) { return nil, false }

// Operations are all operations, sorted by action.
func (c *Catalog) Operations() []*Operation { return nil }

// Actions are the action entities of the catalogue, the groups among them,
// each with all its ancestors as parents.
func (c *Catalog) Actions() types.EntityMap { return nil }

// Conflicts are the tools whose server contradicts the operator, sorted by
// action. The stricter word holds.
func (c *Catalog) Conflicts() []Conflict { return nil }

// A Conflict is an annotation by which a server contradicts the operator.
type Conflict struct {
	Action string `json:"action"`
	// Message says who said what, and what holds.
	Message string `json:"message"`
}

// A Problem is a mistake in the overlay or the lock.
type Problem struct {
	// File is the base name of the kind of file: "catalog.yaml" or
	// "catalog.lock.json".
	File string
	// Line counts from 1; 0 is unknown.
	Line int
	// Message says what is wrong and what to do.
	Message string
}

func (p *Problem) Error() string { return p.Message }
