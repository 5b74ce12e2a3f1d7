package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// listToolsTimeout bounds listing the tools of one server: npx may have to
// install it first.
const listToolsTimeout = 60 * time.Second

// A CatalogEntry is an operation as an operator sees it.
type CatalogEntry struct {
	Action    string   `json:"action"`
	Effects   []string `json:"effects"`
	Groups    []string `json:"groups,omitempty"`
	Labels    []string `json:"labels,omitempty"`
	Authority []string `json:"authority,omitempty"`
	// Resource is the type of what is touched.
	Resource string `json:"resource,omitempty"`
	// Digest is the digest of the pinned definition; empty for a method of the
	// protocol.
	Digest string `json:"digest,omitempty"`
	// Classified says that the operator stated the effects.
	Classified bool `json:"classified"`
	// Conflicts are annotations by which the server contradicts the operator.
	Conflicts []string `json:"conflicts,omitempty"`
}

// A CatalogList is the catalogue as an operator sees it.
type CatalogList struct {
	Operations []CatalogEntry `json:"operations"`
	// Unpinned are upstreams of which no tool is pinned: all their tools are
	// denied.
	Unpinned []string `json:"unpinned,omitempty"`
	// Orphaned are servers with pinned tools that are no upstream.
	Orphaned []string `json:"orphaned,omitempty"`
}

// ListCatalog reads the catalogue. It asks no server.
func ListCatalog(c *Config) (*CatalogList, error) {
	cat, err := LoadCatalog(c)
	if err != nil {
		return nil, err
	}
	conflicts := map[string][]string{}
	for _, x := range cat.Conflicts() {
		conflicts[x.Action] = append(conflicts[x.Action], x.Message)
	}
	l := &CatalogList{}
	pinned := map[string]bool{}
	for _, o := range cat.Operations() {
		resource, _ := o.ResourceType()
		l.Operations = append(l.Operations, CatalogEntry{
			Action: o.Action, Effects: o.Effects, Groups: o.Groups, Labels: o.Labels, Authority: o.Authority,
			Resource: resource, Digest: o.Digest, Classified: o.Classified, Conflicts: conflicts[o.Action],
		})
		if o.Server != "" {
			pinned[o.Server] = true
		}
	}
	for _, name := range c.Servers() {
		if !pinned[name] {
			l.Unpinned = append(l.Unpinned, name)
		}
		delete(pinned, name)
	}
	for name := range pinned {
		l.Orphaned = append(l.Orphaned, name)
	}
	slices.Sort(l.Orphaned)
	return l, nil
}

// A ServerDiff is what a server lists now, compared with its pins.
type ServerDiff struct {
	Server string `json:"server"`
	// Tools are all tools, those that are as pinned too.
	Tools []catalog.Difference `json:"tools"`
	// Error says why the server could not be asked.
	Error string `json:"error,omitempty"`
}

// Differs reports whether anything is not as pinned.
func (d ServerDiff) Differs() bool {
	return d.Error != "" || slices.ContainsFunc(d.Tools, func(t catalog.Difference) bool { return t.State != catalog.StatePinned })
}

// DiffCatalog asks servers for their tools and compares these with the pins.
// No names mean all upstreams.
func DiffCatalog(ctx context.Context, c *Config, servers []string) ([]ServerDiff, error) {
	lock, err := LoadLock(c)
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		servers = c.Servers()
	}
	list := make([]func(context.Context) ([]json.RawMessage, error), len(servers))
	for i, name := range servers {
		if list[i], err = c.lister(name); err != nil {
			return nil, err
		}
	}
	diffs := make([]ServerDiff, len(servers))
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, name := range servers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			diffs[i] = diffServer(ctx, lock, name, list[i])
		})
	}
	wg.Wait()
	return diffs, ctx.Err()
}

// lister is how the definitions of a server's operations are found out: a
// server is asked, and of an API the document is read.
func (c *Config) lister(name string) (func(context.Context) ([]json.RawMessage, error), error) {
	if a, ok := c.APIs[name]; ok {
		return func(context.Context) ([]json.RawMessage, error) {
			doc, err := a.document()
			if err != nil {
				return nil, err
			}
			return doc.Definitions(), nil
		}, nil
	}
	up, err := c.Server(name)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]json.RawMessage, error) { return mcp.ListTools(ctx, up) }, nil
}

func diffServer(ctx context.Context, lock *catalog.Lock, name string, list func(context.Context) ([]json.RawMessage, error)) ServerDiff {
	ctx, cancel := context.WithTimeout(ctx, listToolsTimeout)
	defer cancel()
	d := ServerDiff{Server: name}
	defs, err := list(ctx)
	if err == nil {
		d.Tools, err = lock.Seen(name, defs)
	}
	if err != nil {
		d.Error = err.Error()
	}
	return d
}

// A PinTarget is a server, or one tool of it, whose differences are to be
// pinned.
type PinTarget struct {
	Server string
	Tool   string // empty: all of them
}

// ParsePinTarget reads "SERVER" or "SERVER/TOOL".
func ParsePinTarget(s string) PinTarget {
	server, tool, _ := strings.Cut(s, "/")
	return PinTarget{server, tool}
}

// SelectPins picks the differences that targets name. A target that names
// nothing which the server lists or which is pinned is an error.
func SelectPins(diffs []ServerDiff, targets []PinTarget) ([]catalog.Difference, error) {
	var out []catalog.Difference
	seen := map[[2]string]bool{}
	for _, t := range targets {
		found := false
		for _, d := range diffs {
			if d.Server != t.Server {
				continue
			}
			if d.Error != "" {
				return nil, errors.New(d.Error)
			}
			found = found || t.Tool == ""
			for _, tool := range d.Tools {
				if t.Tool != "" && t.Tool != tool.Tool {
					continue
				}
				found = true
				if key := [2]string{tool.Server, tool.Tool}; tool.State != catalog.StatePinned && !seen[key] {
					seen[key] = true
					out = append(out, tool)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("%s has no tool %q: 'bailiwick catalog diff %s' lists what differs", t.Server, t.Tool, t.Server)
		}
	}
	return out, nil
}

// PinCatalog writes to the lock exactly the differences that somebody has
// looked at: what a server has changed since is not among them.
func PinCatalog(c *Config, looked []catalog.Difference) error {
	lock, err := LoadLock(c)
	if err != nil {
		return err
	}
	for _, d := range looked {
		if d.State == catalog.StateGone {
			lock.Unpin(d.Server, d.Tool)
			continue
		}
		pin, err := lock.Pin(d.Server, d.Definition)
		if err != nil {
			return fmt.Errorf("pin %s/%s: %w", d.Server, d.Tool, err)
		}
		if pin.Digest != d.Seen {
			return fmt.Errorf("pin %s/%s: the definition is not the one that was shown", d.Server, d.Tool)
		}
	}
	text, err := lock.Marshal()
	if err != nil {
		return err
	}
	return WriteFile(c.Lock, text, 0o644)
}
