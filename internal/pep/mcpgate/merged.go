package mcpgate

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// separator stands between a server's name and the name of its tool or prompt
// on the merged endpoint. A server's name cannot contain it.
const separator = "__"

// answerMerged answers a request to all servers as one. What names something is
// for the server that has it; what asks for everything is for all of them, each
// decided for itself. A server that fails is missing from a list, and does not
// take the others with it.
func (g *Gate) answerMerged(ctx context.Context, r *request) answer {
	era := r.client.era
	switch r.msg.Method() {
	case methodPing:
		return answer{msg: mcp.NewResult(r.msg.ID(), json.RawMessage("{}")), status: http.StatusOK}
	case methodInitialize, methodDiscover:
		return mergeAbout(r, g.passAll(ctx, r, each(r)))
	case methodTools, methodPrompts, methodResources, methodTemplates:
		targets, f := listTargets(r)
		if f != nil {
			return f.answer(r.msg, era, false)
		}
		return mergeLists(r, g.passAll(ctx, r, targets))
	case methodSetLevel:
		return first(r, g.passAll(ctx, r, g.having(ctx, r, "logging")))
	default:
		t, f := g.route(ctx, r)
		if f != nil {
			return f.answer(r.msg, era, false)
		}
		return g.pass(ctx, r, t).answer(r)
	}
}

// each sends the request to every server as it is.
func each(r *request) []target {
	targets := make([]target, len(r.end.upstreams))
	for i, up := range r.end.upstreams {
		targets[i] = target{up, r.msg}
	}
	return targets
}

// having sends the request to the servers with a capability.
func (g *Gate) having(ctx context.Context, r *request, capability string) []target {
	var targets []target
	for _, t := range each(r) {
		l, err := r.client.links.link(ctx, t.up, r)
		if err == nil && l.ready() && l.about().has(capability) {
			targets = append(targets, t)
		}
	}
	return targets
}

// mergedPatience is how long a server may hold up what all of them are asked.
const mergedPatience = 10 * time.Second

// passAll passes requests to several servers at once. The order stays.
func (g *Gate) passAll(ctx context.Context, r *request, targets []target) []passed {
	ctx, cancel := context.WithTimeout(ctx, min(mergedPatience, g.limits.Connect))
	defer cancel()
	out := make([]passed, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { out[i] = g.pass(ctx, r, t) })
	}
	wg.Wait()
	return out
}

// first is the answer of those that have one: a success if there is any.
func first(r *request, all []passed) answer {
	for _, p := range all {
		if p.reply != nil && p.reply.msg.Error() == nil {
			return p.answer(r)
		}
	}
	if len(all) > 0 {
		return all[0].answer(r)
	}
	return refuse(authz.ReasonMethodUnknown, "No server behind the gate can do this.").answer(r.msg, r.client.era, false)
}

// succeeded are the results of those servers that have one.
func succeeded(all []passed) (ok []passed) {
	for _, p := range all {
		if p.reply != nil && p.reply.msg.Error() == nil {
			ok = append(ok, p)
		}
	}
	return ok
}

// mergeAbout merges what servers say about themselves.
func mergeAbout(r *request, all []passed) answer {
	ok := succeeded(all)
	if len(ok) == 0 {
		return all[0].answer(r)
	}
	capabilities := map[string]any{}
	var instructions []string
	for _, p := range ok {
		result := p.reply.msg.Result()
		var caps map[string]any
		if c, has := mcp.Get(result, "capabilities"); has && json.Unmarshal(c, &caps) == nil {
			mergeObjects(capabilities, caps)
		}
		if text := mcp.GetString(result, "instructions"); text != "" {
			instructions = append(instructions, "# "+p.target.up.name()+"\n\n"+text)
		}
	}
	delete(capabilities, "tasks") // a task is known to one server only, and nothing says to which
	result := map[string]any{"capabilities": capabilities}
	if len(instructions) > 0 {
		result["instructions"] = strings.Join(instructions, "\n\n")
	}
	if r.client.era == mcp.Modern {
		result["supportedVersions"] = []string{mcp.ModernVersion}
		result["resultType"] = "complete"
		result["ttlMs"] = 0
		result["cacheScope"] = "private"
		result["_meta"] = map[string]any{mcp.MetaServerInfo: gateInfo}
	} else {
		version := mcp.GetString(r.msg.Params(), "protocolVersion")
		if !slices.Contains(legacyVersions, version) {
			version = mcp.LegacyVersion
		}
		result["protocolVersion"] = version
		result["serverInfo"] = gateInfo
	}
	return answer{msg: mcp.NewResult(r.msg.ID(), raw(result)), status: http.StatusOK}
}

// mergeObjects adds b to a: a capability is there if any server has it.
func mergeObjects(a, b map[string]any) {
	for k, v := range b {
		old, both := a[k].(map[string]any)
		add, object := v.(map[string]any)
		switch {
		case both && object:
			mergeObjects(old, add)
		case object:
			a[k] = maps.Clone(add)
		case a[k] != true:
			a[k] = v
		}
	}
}

// A mergedCursor is where a merged list goes on: at these cursors of these
// servers. It is opaque to clients, and says nothing that they could misuse: a
// server is asked only what its own cursor says, and decided each time.
type mergedCursor map[string]string

func (c mergedCursor) String() string {
	return base64.RawURLEncoding.EncodeToString(raw(map[string]string(c)))
}

// listTargets are the servers that a page of a merged list comes from.
func listTargets(r *request) ([]target, *refusal) {
	params := r.msg.Params()
	given, ok := mcp.Get(params, "cursor")
	if !ok {
		return each(r), nil
	}
	bad := refuse(reasonParams, "The cursor is not one that this list has given.")
	var text string
	if json.Unmarshal(given, &text) != nil {
		return nil, bad
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, bad
	}
	var c mergedCursor
	if json.Unmarshal(plain, &c) != nil || len(c) == 0 {
		return nil, bad
	}
	var targets []target
	for _, up := range r.end.upstreams {
		if at, has := c[up.name()]; has {
			targets = append(targets, target{up, r.msg.WithParams(set(params, raw(at), "cursor"))})
		}
	}
	if len(targets) != len(c) {
		return nil, bad
	}
	return targets, nil
}

// mergeLists puts the pages of several servers into one, in the order of their
// names.
func mergeLists(r *request, all []passed) answer {
	l := listings[r.msg.Method()]
	items := []json.RawMessage{}
	next := mergedCursor{}
	answered := 0
	for _, p := range all {
		if p.reply == nil {
			continue
		}
		if p.reply.msg.Error() != nil {
			if errorCode(p.reply.msg) == mcp.CodeMethodNotFound {
				answered++ // it has none
			}
			continue
		}
		answered++
		page, cursor := listPage(p.reply.msg.Result(), l.member)
		for _, item := range page {
			items = append(items, prefixItem(r.msg.Method(), p.target.up.name(), item))
		}
		if cursor != "" {
			next[p.target.up.name()] = cursor
		}
	}
	if answered == 0 && len(all) > 0 {
		return all[0].answer(r)
	}
	result := raw(map[string]any{l.member: items})
	if len(next) > 0 {
		result = set(result, raw(next.String()), "nextCursor")
	}
	if r.client.era == mcp.Modern {
		result = set(result, raw("complete"), "resultType")
		result = set(result, raw(0), "ttlMs")
		result = set(result, raw("private"), "cacheScope")
	}
	return answer{msg: mcp.NewResult(r.msg.ID(), result), status: http.StatusOK}
}

// prefixItem gives a tool or a prompt its name on the merged endpoint.
func prefixItem(method, server string, item json.RawMessage) json.RawMessage {
	if method != methodTools && method != methodPrompts {
		return item
	}
	name, ok := getString(item, "name")
	if !ok {
		return item
	}
	return set(item, raw(server+separator+name), "name")
}

// route finds the server that has what a request names, and makes the message
// that it is to be sent. The decision is about that message.
func (g *Gate) route(ctx context.Context, r *request) (target, *refusal) {
	params := r.msg.Params()
	switch r.msg.Method() {
	case methodCall, methodPrompt:
		name := mcp.GetString(params, "name")
		up, rest := r.end.byPrefix(name)
		if up == nil {
			return target{}, refuse(reasonNotFound, "There is no "+quote(name)+" here; names begin with the server's, like server__name.")
		}
		return target{up, r.msg.WithParams(set(params, raw(rest), "name"))}, nil
	case methodRead, methodSubscribe, methodUnsubscribe:
		return g.routeURI(ctx, r, mcp.GetString(params, "uri"))
	case methodComplete:
		if uri, ok := getString(params, "ref", "uri"); ok {
			return g.routeURI(ctx, r, uri)
		}
		name := mcp.GetString(params, "ref", "name")
		up, rest := r.end.byPrefix(name)
		if up == nil {
			return target{}, refuse(reasonNotFound, "There is no prompt "+quote(name)+" here.")
		}
		return target{up, r.msg.WithParams(set(params, raw(rest), "ref", "name"))}, nil
	default:
		return target{}, refuse(authz.ReasonMethodUnknown, "Several servers are behind this endpoint, and nothing says which of them "+quote(r.msg.Method())+" is for; use /mcp/<server>.")
	}
}

// byPrefix splits a merged name.
func (e *endpoint) byPrefix(name string) (*upstream, string) {
	server, rest, ok := strings.Cut(name, separator)
	if !ok || rest == "" {
		return nil, ""
	}
	for _, up := range e.upstreams {
		if up.name() == server {
			return up, rest
		}
	}
	return nil, ""
}

// routeURI finds the server that lists a resource, or a template that the URI
// fits. If several do, it is the first by name, a listed resource before a
// template: the same one each time, and the one that comes first in the lists.
func (g *Gate) routeURI(ctx context.Context, r *request, uri string) (target, *refusal) {
	type finding struct{ listed, fits bool }
	found := make([]finding, len(r.end.upstreams))
	ctx, cancel := context.WithTimeout(ctx, min(mergedPatience, g.limits.Connect))
	defer cancel()
	var wg sync.WaitGroup
	for i, up := range r.end.upstreams {
		wg.Go(func() {
			l, err := r.client.links.link(ctx, up, r)
			if err != nil {
				return
			}
			if !l.ready() {
				if r.client.era == mcp.Legacy || g.open(ctx, r, target{up, r.msg}, l) != nil {
					return
				}
			}
			found[i].listed, found[i].fits = l.offers(ctx, uri)
		})
	}
	wg.Wait()
	for i, f := range found {
		if f.listed {
			return target{r.end.upstreams[i], r.msg}, nil
		}
	}
	for i, f := range found {
		if f.fits {
			return target{r.end.upstreams[i], r.msg}, nil
		}
	}
	return target{}, refuse(reasonNotFound, "No server behind the gate offers the resource "+quote(uri)+".")
}
