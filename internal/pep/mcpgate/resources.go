package mcpgate

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// offered are the resources of one conversation as its server lists them. They
// only say which of several servers a URI is for; nothing is allowed by them.
type offered struct {
	list    func(ctx context.Context, method, member string) ([]json.RawMessage, error)
	refresh time.Duration

	listing   sync.Mutex
	mu        sync.Mutex
	uris      map[string]bool
	templates []*regexp.Regexp
	listed    time.Time
}

// has reports whether the server lists the URI, and whether a template of its
// fits. A server that cannot be asked has nothing.
func (o *offered) has(ctx context.Context, uri string) (listed, fits bool) {
	o.listing.Lock()
	defer o.listing.Unlock()
	o.mu.Lock()
	known := o.uris[uri]
	age := time.Since(o.listed)
	o.mu.Unlock()
	if !known && age > unknownPause || age > o.refresh {
		o.load(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.templates {
		fits = fits || t.MatchString(uri)
	}
	return o.uris[uri], fits
}

func (o *offered) load(ctx context.Context) {
	items, err := o.list(ctx, methodResources, "resources")
	if err != nil {
		return
	}
	templates, err := o.list(ctx, methodTemplates, "resourceTemplates")
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uris, o.templates, o.listed = map[string]bool{}, nil, time.Now()
	for _, item := range items {
		o.uris[mcp.GetString(item, "uri")] = true
	}
	for _, t := range templates {
		text := mcp.GetString(t, "uriTemplate")
		o.uris[text] = true // completion names the template itself
		if re := templatePattern(text); re != nil {
			o.templates = append(o.templates, re)
		}
	}
}

func (o *offered) changed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.listed = time.Time{}
}

// templatePattern is a pattern for the URIs of a template (RFC 6570). It takes
// any text for an expression, which is enough to tell servers apart.
func templatePattern(template string) *regexp.Regexp {
	if len(template) > maxName {
		return nil
	}
	var b strings.Builder
	b.WriteString(`\A`)
	for rest := template; rest != ""; {
		plain, after, ok := strings.Cut(rest, "{")
		b.WriteString(regexp.QuoteMeta(plain))
		if !ok {
			break
		}
		if _, rest, ok = strings.Cut(after, "}"); !ok {
			return nil
		}
		b.WriteString(`.*`)
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil
	}
	return re
}
