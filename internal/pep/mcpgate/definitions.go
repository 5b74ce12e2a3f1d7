package mcpgate

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Bounds of what the gate lists for itself.
const (
	listPages = 100
	listBytes = 32 << 20
	// unknownPause is how long a server is not asked again for a tool that it
	// does not have.
	unknownPause = time.Second
)

// unlisted is the digest of a tool that its server does not list: no pin has
// it, so nothing that a server hides can be called.
var unlisted = mustDigest([]byte("null"))

func mustDigest(b []byte) string {
	d, err := authz.Digest(b)
	if err != nil {
		panic("mcpgate: " + err.Error()) // "null" is JSON
	}
	return d
}

// A definition is what a server says about one of its tools.
type definition struct {
	digest string
	schema json.RawMessage // inputSchema
	output bool            // it promises structured content of a certain shape
}

// definitions are the tools of one conversation as its server lists them. They
// are listed when somebody calls a tool, and again when the server says that
// they have changed, or after a while in case it does not.
type definitions struct {
	list    func(context.Context) ([]json.RawMessage, error)
	refresh time.Duration

	listing sync.Mutex // held while listing, so that one caller does it for all
	mu      sync.Mutex
	byName  map[string]definition
	listed  time.Time // zero: not listed, or changed since
}

func newDefinitions(refresh time.Duration, list func(context.Context) ([]json.RawMessage, error)) *definitions {
	return &definitions{list: list, refresh: refresh, byName: map[string]definition{}}
}

// get returns the definition of a tool. A tool that the server does not list
// gets a definition that is never pinned.
func (d *definitions) get(ctx context.Context, name string) (definition, error) {
	if def, ok := d.known(name); ok {
		return def, nil
	}
	d.listing.Lock()
	defer d.listing.Unlock()
	if def, ok := d.known(name); ok {
		return def, nil
	}
	tools, err := d.list(ctx)
	if err != nil {
		return definition{}, fmt.Errorf("list tools: %w: %w", mcp.ErrNotSent, err)
	}
	d.replace(tools)
	def, _ := d.known(name)
	return def, nil
}

// known returns what is known about a tool, if that is fresh enough. An absence
// is believed for a shorter time than a presence.
func (d *definitions) known(name string) (definition, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	age := time.Since(d.listed)
	if def, ok := d.byName[name]; ok {
		return def, age < d.refresh
	}
	return definition{digest: unlisted}, age < min(unknownPause, d.refresh)
}

// changed makes the next call list the tools again.
func (d *definitions) changed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listed = time.Time{}
}

func (d *definitions) replace(tools []json.RawMessage) {
	byName := make(map[string]definition, len(tools))
	for _, t := range tools {
		name, def, ok := define(t)
		if !ok {
			continue
		}
		if _, twice := byName[name]; twice {
			// Which of the two would be called is the server's secret.
			def = definition{digest: unlisted}
		}
		byName[name] = def
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byName, d.listed = byName, time.Now()
}

// learn takes note of tools that a client has been listed.
func (d *definitions) learn(tools []json.RawMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range tools {
		if name, def, ok := define(t); ok && d.byName[name].digest != def.digest {
			d.listed = time.Time{} // it has changed since the gate looked
			return
		}
	}
}

// define reads one tool of a list. A tool without a name, or without a
// canonical form, is none.
func define(tool json.RawMessage) (string, definition, bool) {
	name, ok := getString(tool, "name")
	if !ok {
		return "", definition{}, false
	}
	digest, err := authz.Digest(tool)
	if err != nil {
		return "", definition{}, false
	}
	schema, _ := mcp.Get(tool, "inputSchema")
	_, output := mcp.Get(tool, "outputSchema")
	return name, definition{digest: digest, schema: schema, output: output}, true
}

// listAll follows the cursors of a list to its end. A server that lists without
// end is an error.
func listAll(ctx context.Context, method, member string, call func(context.Context, *mcp.Message) (*reply, error), params json.RawMessage) ([]json.RawMessage, error) {
	var items []json.RawMessage
	bytes := 0
	for range listPages {
		rep, err := call(ctx, mcp.NewRequest(json.RawMessage("0"), method, params))
		if err != nil {
			return nil, err
		}
		if rep.msg.Error() != nil {
			if errorCode(rep.msg) == mcp.CodeMethodNotFound {
				return nil, nil // it has none
			}
			return nil, fmt.Errorf("%s: the server answered with error %d: %w", method, errorCode(rep.msg), mcp.ErrNotSent)
		}
		if bytes += len(rep.msg.Bytes()); bytes > listBytes {
			return nil, fmt.Errorf("%s: the list is longer than %d bytes: %w", method, listBytes, mcp.ErrNotSent)
		}
		page, next := listPage(rep.msg.Result(), member)
		items = append(items, page...)
		if next == "" {
			return items, nil
		}
		params = set(params, raw(next), "cursor")
	}
	return nil, fmt.Errorf("%s: the list has more than %d pages: %w", method, listPages, mcp.ErrNotSent)
}

// listPage returns the items of one page and the cursor of the next.
func listPage(result json.RawMessage, member string) ([]json.RawMessage, string) {
	var items []json.RawMessage
	if list, ok := mcp.Get(result, member); ok {
		_ = json.Unmarshal(list, &items) // a list that is none has no items
	}
	next, _ := getString(result, "nextCursor")
	return items, next
}

func errorCode(m *mcp.Message) int {
	var e struct{ Code int }
	if json.Unmarshal(m.Error(), &e) != nil {
		return mcp.CodeInternalError
	}
	return e.Code
}
