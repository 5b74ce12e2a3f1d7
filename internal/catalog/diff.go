package catalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A State says how a live tool stands to its pin.
type State string

// The states.
const (
	// StatePinned: the definition is the pinned one.
	StatePinned State = "pinned"
	// StateChanged: the server changed the definition. The tool is denied.
	StateChanged State = "changed"
	// StateNew: the tool is not pinned. It is denied.
	StateNew State = "new"
	// StateGone: the tool is pinned and the server does not list it.
	StateGone State = "gone"
)

// A Difference is a tool on a server, compared with its pin.
type Difference struct {
	Server string `json:"server"`
	Tool   string `json:"tool"`
	State  State  `json:"state"`
	// Pinned and Seen are digests; empty when there is none.
	Pinned  string   `json:"pinned,omitempty"`
	Seen    string   `json:"seen,omitempty"`
	Changes []Change `json:"changes,omitempty"`
	// Definition is what the server gives now.
	Definition json.RawMessage `json:"-"`
}

// A Change is one difference between two definitions of a tool.
type Change struct {
	// Path says where: "description", "inputSchema.properties.to.type".
	Path string `json:"path"`
	// Message is one line for people. Nothing in it can steer a terminal.
	Message string `json:"message"`
}

func compare(pinned, seen Pin) Difference {
	d := Difference{
		Server: pinned.Server, Tool: pinned.Tool,
		Pinned: pinned.Digest, Seen: seen.Digest, Definition: seen.Definition,
	}
	switch {
	case pinned.Digest == "":
		d.Server, d.Tool, d.State = seen.Server, seen.Tool, StateNew
	case seen.Digest == "":
		d.State = StateGone
	case pinned.Digest == seen.Digest:
		d.State = StatePinned
		return d
	default:
		d.State = StateChanged
	}
	d.Changes = Diff(pinned.Definition, seen.Definition)
	return d
}

// Diff says how the definition that a server gives now differs from the
// pinned one. Nil pinned is a new tool, nil seen one that is gone. There are
// no changes exactly if the digests are equal.
func Diff(pinned, seen json.RawMessage) []Change {
	var d differ
	switch {
	case pinned == nil && seen == nil:
	case pinned == nil:
		d.note(nil, "new tool")
		d.summary(seen)
	case seen == nil:
		d.note(nil, "the server no longer lists the tool")
	default:
		d.definitions(pinned, seen)
	}
	return d.changes
}

type differ struct{ changes []Change }

func (d *differ) note(path []string, format string, args ...any) {
	d.changes = append(d.changes, Change{Path: Printable(strings.Join(path, ".")), Message: fmt.Sprintf(format, args...)})
}

func (d *differ) definitions(pinned, seen json.RawMessage) {
	a, errA := authz.Digest(pinned)
	b, errB := authz.Digest(seen)
	if errA == nil && errB == nil && a == b {
		return
	}
	var x, y any
	if jsonv2.Unmarshal(pinned, &x) == nil && jsonv2.Unmarshal(seen, &y) == nil {
		d.values(nil, x, y)
	}
	if len(d.changes) == 0 {
		// Numbers beyond 2^53, or bytes that are no JSON.
		d.note(nil, "the definition changed in a way that cannot be shown")
	}
}

// summary lists what is worth reading in a definition that nobody has seen.
func (d *differ) summary(def json.RawMessage) {
	var m map[string]any
	if jsonv2.Unmarshal(def, &m) != nil {
		return
	}
	for _, key := range sortedKeys(m) {
		switch key {
		case "name", "inputSchema", "outputSchema":
		default:
			d.note([]string{key}, "%s", show(m[key]))
		}
	}
	schema, _ := m["inputSchema"].(map[string]any)
	props, _ := schema["properties"].(map[string]any)
	for _, name := range sortedKeys(props) {
		d.note([]string{"inputSchema", "properties", name}, "argument: %s", typeWord(props[name]))
	}
}

func (d *differ) values(path []string, x, y any) {
	a, isA := x.(map[string]any)
	b, isB := y.(map[string]any)
	if isA && isB {
		d.objects(path, a, b)
		return
	}
	if equalJSON(x, y) {
		return
	}
	if last(path) == "required" {
		d.required(path, x, y)
		return
	}
	d.note(path, "%s: was %s, is %s", what(path), show(x), show(y))
}

func (d *differ) objects(path []string, a, b map[string]any) {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	for _, k := range sortedKeys(keys) {
		at := append(slices.Clip(path), k)
		x, inA := a[k]
		y, inB := b[k]
		switch {
		case inA && inB:
			d.values(at, x, y)
		case inA:
			d.note(at, "%s removed (was %s)", what(at), show(x))
		default:
			d.note(at, "%s added: %s", what(at), show(y))
		}
	}
}

func (d *differ) required(path []string, x, y any) {
	a, _ := x.([]any)
	b, _ := y.([]any)
	n := len(d.changes)
	for _, v := range b {
		if !slices.Contains(a, v) {
			d.note(path, "argument %s is now required", show(v))
		}
	}
	for _, v := range a {
		if !slices.Contains(b, v) {
			d.note(path, "argument %s is no longer required", show(v))
		}
	}
	if len(d.changes) == n {
		d.note(path, "%s: was %s, is %s", what(path), show(x), show(y))
	}
}

// what names the thing at a path in words.
func what(path []string) string {
	switch {
	case len(path) == 0:
		return "definition"
	case len(path) == 3 && path[0] == "inputSchema" && path[1] == "properties":
		return "argument " + strconv.Quote(Printable(path[2]))
	case len(path) >= 2 && path[0] == "annotations":
		return "annotation " + Printable(path[1])
	case len(path) > 3 && path[0] == "inputSchema" && path[1] == "properties":
		return Printable(strings.Join(path[3:], ".")) + " of argument " + strconv.Quote(Printable(path[2]))
	default:
		return Printable(strings.Join(path, "."))
	}
}

// typeWord describes a schema in a word or two.
func typeWord(v any) string {
	m, _ := v.(map[string]any)
	switch t := m["type"].(type) {
	case string:
		return Printable(t)
	case []any:
		return show(t)
	}
	if len(m) == 0 {
		return "anything"
	}
	return show(v)
}

// maxShown bounds a value that is shown, in bytes.
const maxShown = 2000

func show(v any) string {
	b, err := jsonv2.Marshal(v, jsonv2.Deterministic(true))
	if err != nil {
		return "?"
	}
	s := Printable(string(b))
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + fmt.Sprintf("… (%d bytes)", len(b))
	}
	return s
}

// Printable makes text from a server safe to print: control characters, and
// invisible ones that hide instructions or reorder text, are written as
// escapes.
func Printable(s string) string {
	safe := func(r rune) bool {
		return unicode.IsPrint(r) && !unicode.Is(unicode.Mn, r) && r != unicode.ReplacementChar
	}
	if strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if safe(r) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, `\u{%x}`, r)
	}
	return b.String()
}

func equalJSON(x, y any) bool {
	a, errA := jsonv2.Marshal(x, jsonv2.Deterministic(true))
	b, errB := jsonv2.Marshal(y, jsonv2.Deterministic(true))
	return errA == nil && errB == nil && string(a) == string(b)
}

func last(path []string) string {
	if len(path) == 0 {
		return ""
	}
	return path[len(path)-1]
}
