// Package openapi reads the operations of an OpenAPI 3 document as tools, and
// finds the tool that an HTTP request calls.
//
// An operation becomes a tool definition of the kind that an MCP server lists,
// so that everything which is known of tools (pins, types, effects, digests)
// holds for it. The definition says the method, the path and where each
// argument stands: who changes one of these changes the digest.
//
// The package is pure: bytes in, nothing fetched. What a document says that
// cannot be judged is left out and listed ([Document.Problems]), and a request
// that uses it is no call of any tool.
package openapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// Bounds on one document.
const (
	maxDocument   = 32 << 20 // bytes
	maxYAML       = 8 << 20  // bytes; reading YAML takes ten times as long
	maxDepth      = 128      // nesting of values
	maxOperations = 4096
	maxParameters = 128     // of one operation
	maxDefinition = 1 << 20 // bytes of a generated definition; the catalogue's bound
	maxRefs       = 32      // references in a row
	maxSchemas    = 20_000  // schemas, the small ones within large ones included, of one operation
	maxSegments   = 64      // of a path
)

// A Document is a parsed OpenAPI document. It is immutable and safe for
// concurrent use.
type Document struct {
	title      string
	templates  []*template
	operations []*operation // sorted by name
	refused    []*refused
	problems   []Problem
}

// A Problem is a part of a document that cannot be used. What it says is
// denied; the rest of the document is not affected.
type Problem struct {
	// Line counts from 1.
	Line int `json:"line"`
	// Operation is "METHOD /path".
	Operation string `json:"operation"`
	// Message says what is left out, why, and what to do.
	Message string `json:"message"`
}

func (p Problem) String() string {
	return fmt.Sprintf("line %d: %s: %s", p.Line, p.Operation, p.Message)
}

// A ParseError says where a document is wrong and what to do.
type ParseError struct {
	// Line counts from 1; 0 is unknown.
	Line int
	// Pointer is a JSON Pointer (RFC 6901) to the place.
	Pointer string
	Message string
}

func (e *ParseError) Error() string {
	at := e.Pointer
	if at == "" {
		at = "the document"
	}
	if e.Line == 0 {
		return fmt.Sprintf("OpenAPI: %s: %s", at, e.Message)
	}
	return fmt.Sprintf("OpenAPI: line %d: %s: %s", e.Line, at, e.Message)
}

// Parse reads an OpenAPI 3.0 or 3.1 document in JSON or YAML. The error is a
// [*ParseError].
func Parse(doc []byte) (*Document, error) {
	root, err := parseTree(doc)
	if err != nil {
		return nil, err
	}
	r := reader{root: root}
	return r.document()
}

// Title is the document's own name for the API: untrusted text.
func (d *Document) Title() string { return d.title }

// Problems are the parts of the document that cannot be used, by line.
func (d *Document) Problems() []Problem { return slices.Clone(d.problems) }

// Definitions are the tool definitions of all operations that can be used,
// sorted by name. The same document always gives the same bytes. They are what
// catalog.Lock.Seen compares with pins and catalog.Lock.Pin pins.
func (d *Document) Definitions() []json.RawMessage {
	out := make([]json.RawMessage, len(d.operations))
	for i, o := range d.operations {
		out[i] = slices.Clone(o.definition)
	}
	return out
}

// Router returns what finds the operation of a request. It is safe for
// concurrent use.
func (d *Document) Router() *Router { return newRouter(d) }

// A reader goes through a document.
type reader struct {
	root     *node
	is30     bool // schemas are those of OpenAPI 3.0
	problems []Problem
}

// A place is a node and the JSON Pointer to it.
type place struct {
	*node
	at string
}

// wrong is an error about a place.
func (p place) wrong(format string, args ...any) error {
	e := &ParseError{Pointer: p.at, Message: fmt.Sprintf(format, args...)}
	if p.node != nil {
		e.Line = p.line
	}
	return e
}

// member is a member of an object, or a place without a node.
func (p place) member(key string) place {
	return place{p.get(key), p.at + "/" + escapePointer(key)}
}

func (p place) item(i int) place { return place{p.items[i], fmt.Sprintf("%s/%d", p.at, i)} }

// missing reports whether there is nothing at a place.
func (p place) missing() bool { return p.node == nil }

// object checks that a place holds an object, or nothing.
func (p place) object() error {
	if p.node != nil && p.kind != '{' {
		return p.wrong("it must be an object")
	}
	return nil
}

var (
	version30 = regexp.MustCompile(`^3\.0\.\d+$`)
	version31 = regexp.MustCompile(`^3\.1\.\d+$`)
)

func (r *reader) document() (*Document, error) {
	root := place{node: r.root}
	if err := root.object(); err != nil {
		return nil, err
	}
	version := root.member("openapi")
	switch v := version.str(); {
	case version30.MatchString(v):
		r.is30 = true
	case version31.MatchString(v):
	case !root.member("swagger").missing():
		return nil, root.member("swagger").wrong("this is Swagger; convert it to OpenAPI 3")
	default:
		return nil, version.wrong(`"openapi" must be "3.0.x" or "3.1.x", the versions that this program reads`)
	}
	if err := r.onlyLocal(root); err != nil {
		return nil, err
	}
	b := builder{reader: r, doc: &Document{title: root.member("info").member("title").str()}, names: map[string]place{}}
	if err := b.paths(root.member("paths")); err != nil {
		return nil, err
	}
	d := b.doc
	d.problems = r.problems
	slices.SortFunc(d.operations, func(x, y *operation) int { return cmp.Compare(x.name, y.name) })
	slices.SortStableFunc(d.problems, func(x, y Problem) int { return cmp.Compare(x.Line, y.Line) })
	return d, nil
}

// digestOf is the digest of a generated definition.
func digestOf(definition []byte) (string, error) {
	digest, err := authz.Digest(definition)
	if err != nil {
		return "", fmt.Errorf("digest of the definition: %w", err)
	}
	return digest, nil
}
