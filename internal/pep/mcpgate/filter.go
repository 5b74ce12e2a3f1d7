package mcpgate

import (
	"context"
	"encoding/json"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// A listing is what the gate knows about a list method.
type listing struct {
	member string // of the result
	// item is the decider's view of one item: the operation that it offers, and
	// the resource if the operation alone does not say it. An item without one
	// cannot be asked for and is left out.
	item func(server string, item json.RawMessage) (pep.Operation, authz.Entity, bool)
}

var listings = map[string]listing{
	methodTools:     {"tools", toolItem},
	methodPrompts:   {"prompts", promptItem},
	methodResources: {"resources", resourceItem("uri")},
	// A template names many resources. It is offered if its own text could be
	// read, which covers what policy says about a server and not what it says
	// about single resources.
	methodTemplates: {"resourceTemplates", resourceItem("uriTemplate")},
}

func toolItem(server string, item json.RawMessage) (pep.Operation, authz.Entity, bool) {
	name, def, ok := define(item)
	return pep.Operation{Action: server + "/" + name, Definition: def.digest}, authz.Entity{}, ok
}

func promptItem(server string, item json.RawMessage) (pep.Operation, authz.Entity, bool) {
	name, ok := getString(item, "name")
	return pep.Operation{Action: "mcp:" + methodPrompt}, promptEntity(server, name), ok
}

func resourceItem(member string) func(string, json.RawMessage) (pep.Operation, authz.Entity, bool) {
	return func(server string, item json.RawMessage) (pep.Operation, authz.Entity, bool) {
		uri, ok := getString(item, member)
		return pep.Operation{Action: "mcp:" + methodRead}, resourceEntity(server, uri), ok
	}
}

// show is what the client may know of a server's answer: lists without what it
// could never be allowed, and nothing that a cache might give to somebody else.
// All else is the server's, byte for byte.
func (g *Gate) show(ctx context.Context, r *request, t target, rep *reply) (*reply, *refusal) {
	result := rep.msg.Result()
	if result == nil {
		return rep, nil
	}
	if l, ok := listings[t.msg.Method()]; ok {
		var f *refusal
		if result, f = g.filter(ctx, r.client, t.up, l, result); f != nil {
			return nil, f
		}
	}
	result = private(result)
	if opens(t.msg) {
		result = declareChanges(result)
	}
	if len(result) == len(rep.msg.Result()) && string(result) == string(rep.msg.Result()) {
		return rep, nil
	}
	shown := *rep
	shown.msg = rep.msg.WithResult(result)
	return &shown, nil
}

// private makes a result that may be cached cacheable for this client only:
// what the gate lets through depends on who asks (MCP 2026-07-28, Caching).
func private(result json.RawMessage) json.RawMessage {
	if scope, ok := getString(result, "cacheScope"); ok && scope != "private" {
		return set(result, raw("private"), "cacheScope")
	}
	return result
}

// declareChanges says that the lists may change, because policy may.
func declareChanges(result json.RawMessage) json.RawMessage {
	for _, k := range listKinds {
		if c, ok := mcp.Get(result, "capabilities", k.capability); ok && len(c) > 0 && c[0] == '{' {
			result = set(result, json.RawMessage("true"), "capabilities", k.capability, "listChanged")
		}
	}
	return result
}

// filter leaves out of one page of a list what the client could not ask for
// with any input. The order stays, and so does the cursor, even if the page is
// empty.
func (g *Gate) filter(ctx context.Context, c *client, up *upstream, l listing, result json.RawMessage) (json.RawMessage, *refusal) {
	list, ok := mcp.Get(result, l.member)
	if !ok {
		return result, nil
	}
	var items []json.RawMessage
	if json.Unmarshal(list, &items) != nil {
		return nil, refuse(reasonUpstreamLost, "The server "+quote(up.name())+" answered with a list that is none.")
	}
	keep, err := g.reachable(ctx, c, up, l, items)
	if err != nil {
		g.log.Error("list could not be filtered", "server", up.name(), "list", l.member, "error", err)
		return nil, refuse(authz.ReasonPDPDown, "What you may use could not be found out; try again later.")
	}
	if len(keep) == len(items) {
		return result, nil
	}
	return set(result, joinArray(keep), l.member), nil
}

// reachable returns the items that some input could reach. An answer of the
// wrong length reaches nothing.
func (g *Gate) reachable(ctx context.Context, c *client, up *upstream, l listing, items []json.RawMessage) ([]json.RawMessage, error) {
	type group struct {
		ops []pep.Operation
		at  []int
	}
	// One question for all items that the operation alone tells apart.
	groups := map[authz.Entity]*group{}
	var order []authz.Entity
	for i, item := range items {
		op, res, ok := l.item(up.name(), item)
		if !ok {
			continue
		}
		if groups[res] == nil {
			groups[res] = &group{}
			order = append(order, res)
		}
		groups[res].ops = append(groups[res].ops, op)
		groups[res].at = append(groups[res].at, i)
	}
	reach := make([]bool, len(items))
	for _, res := range order {
		gr := groups[res]
		can, err := g.guard.Reachable(ctx, authz.Request{Credential: c.credential, Server: up.name(), Resource: res, Session: c.session, Run: c.named, Gate: c.gate}, gr.ops)
		if err != nil {
			return nil, err
		}
		for i, at := range gr.at {
			reach[at] = i < len(can) && len(can) == len(gr.ops) && can[i]
		}
	}
	kept := make([]json.RawMessage, 0, len(items))
	for i, item := range items {
		if reach[i] {
			kept = append(kept, item)
		}
	}
	return kept, nil
}

func joinArray(items []json.RawMessage) json.RawMessage {
	out := []byte{'['}
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	return append(out, ']')
}
