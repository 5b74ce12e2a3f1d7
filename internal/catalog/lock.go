package catalog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// lockVersion is the version of the format of catalog.lock.json.
const lockVersion = 1

// maxDefinition bounds one tool definition in bytes.
const maxDefinition = 1 << 20

var serverName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// A Lock holds the tool definitions that an operator has pinned, verbatim.
// Its zero value is empty and ready for use. It is not safe for concurrent
// use while it is edited.
type Lock struct {
	servers map[string]map[string]Pin
}

// A Pin is one pinned tool.
type Pin struct {
	Server string `json:"server"`
	Tool   string `json:"tool"`
	// Digest is [authz.Digest] of Definition.
	Digest string `json:"digest"`
	// Definition is the tool object as the server gave it.
	Definition json.RawMessage `json:"definition"`
}

// lockFile is the form of the file. Members are sorted by encoding, so equal
// locks are equal bytes.
type lockFile struct {
	Version int                           `json:"version"`
	Servers map[string]map[string]lockPin `json:"servers"`
}

type lockPin struct {
	Digest     string         `json:"digest"`
	Definition jsontext.Value `json:"definition"`
}

// ParseLock reads catalog.lock.json. It is strict: an unknown key, a digest
// that does not match, a definition under another name are errors.
func ParseLock(text []byte) (*Lock, error) {
	var f lockFile
	if err := jsonv2.Unmarshal(text, &f, jsonv2.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("catalog lock: %w", err)
	}
	if f.Version != lockVersion {
		return nil, fmt.Errorf("catalog lock: version %d is not %d, the one that this program reads", f.Version, lockVersion)
	}
	l := &Lock{}
	for _, server := range sortedKeys(f.Servers) {
		for _, tool := range sortedKeys(f.Servers[server]) {
			p := f.Servers[server][tool]
			pin, err := l.Pin(server, json.RawMessage(p.Definition))
			if err != nil {
				return nil, fmt.Errorf("catalog lock: %s/%s: %w", server, tool, err)
			}
			if pin.Tool != tool {
				return nil, fmt.Errorf("catalog lock: %s/%s holds the definition of %q", server, tool, pin.Tool)
			}
			if pin.Digest != p.Digest {
				return nil, fmt.Errorf("catalog lock: %s/%s: the definition has the digest %s, not %s: "+
					"somebody edited the file; look at the change and pin the tool again", server, tool, pin.Digest, p.Digest)
			}
		}
	}
	return l, nil
}

// Marshal writes the lock: servers and tools sorted, every definition as it
// was given but for white space.
func (l *Lock) Marshal() ([]byte, error) {
	f := lockFile{Version: lockVersion, Servers: map[string]map[string]lockPin{}}
	for server, tools := range l.servers {
		f.Servers[server] = map[string]lockPin{}
		for tool, p := range tools {
			f.Servers[server][tool] = lockPin{Digest: p.Digest, Definition: jsontext.Value(p.Definition)}
		}
	}
	var b bytes.Buffer
	err := jsonv2.MarshalWrite(&b, f, jsonv2.Deterministic(true), jsontext.WithIndent("  "), jsontext.PreserveRawStrings(true))
	if err != nil {
		return nil, fmt.Errorf("write catalog lock: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Pin adds a tool, or replaces its definition. The definition names the tool.
func (l *Lock) Pin(server string, def json.RawMessage) (Pin, error) {
	if !serverName.MatchString(server) {
		return Pin{}, fmt.Errorf("%q is not a server name: letters, digits, '-' and '_', at most 64", server)
	}
	p, err := newPin(server, def)
	if err != nil {
		return Pin{}, err
	}
	if l.servers == nil {
		l.servers = map[string]map[string]Pin{}
	}
	if l.servers[server] == nil {
		l.servers[server] = map[string]Pin{}
	}
	l.servers[server][p.Tool] = p
	return p, nil
}

// newPin is the pin of a definition, whether it is in a lock or not.
func newPin(server string, def json.RawMessage) (Pin, error) {
	if len(def) > maxDefinition {
		return Pin{}, fmt.Errorf("the definition has %d bytes; at most %d are allowed", len(def), maxDefinition)
	}
	digest, err := authz.Digest(def)
	if err != nil {
		return Pin{}, err
	}
	d, err := parseDefinition(def)
	if err != nil {
		return Pin{}, err
	}
	return Pin{Server: server, Tool: d.name, Digest: digest, Definition: slices.Clone(def)}, nil
}

// Unpin removes a tool and reports whether it was there.
func (l *Lock) Unpin(server, tool string) bool {
	_, ok := l.servers[server][tool]
	if ok {
		delete(l.servers[server], tool)
	}
	if len(l.servers[server]) == 0 {
		delete(l.servers, server)
	}
	return ok
}

// Find returns the pin of a tool.
func (l *Lock) Find(server, tool string) (Pin, bool) {
	p, ok := l.servers[server][tool]
	return p, ok
}

// Pins are all pins, sorted by server and tool.
func (l *Lock) Pins() []Pin {
	var out []Pin
	for _, tools := range l.servers {
		for _, p := range tools {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Pin) int {
		return cmp.Or(cmp.Compare(a.Server, b.Server), cmp.Compare(a.Tool, b.Tool))
	})
	return out
}

// Servers are the servers with pinned tools, sorted.
func (l *Lock) Servers() []string { return sortedKeys(l.servers) }

// Seen are the tools that a server lists now, compared with its pins: one
// entry for every tool on either side, sorted by name.
func (l *Lock) Seen(server string, definitions []json.RawMessage) ([]Difference, error) {
	seen := map[string]Pin{}
	for i, def := range definitions {
		p, err := newPin(server, def)
		if err != nil {
			return nil, fmt.Errorf("tool %d of %s: %w", i+1, server, err)
		}
		if _, twice := seen[p.Tool]; twice {
			return nil, fmt.Errorf("%s lists the tool %q twice: no pin can tell them apart", server, p.Tool)
		}
		seen[p.Tool] = p
	}
	names := map[string]bool{}
	for tool := range seen {
		names[tool] = true
	}
	for tool := range l.servers[server] {
		names[tool] = true
	}
	out := make([]Difference, 0, len(names))
	for _, tool := range sortedKeys(names) {
		out = append(out, compare(l.servers[server][tool], seen[tool]))
	}
	return out, nil
}
