package pdp

import (
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// Request makes the typed question that policy answers. An error says what is
// wrong with the input, in words fit for the caller.
func (v *Version) Request(who identity.Subject, s session.Snapshot, op *catalog.Operation, req authz.Request, now time.Time) (*engine.Request, error) {
	input, entities, err := op.Input(req.Server, req.Input)
	if err != nil {
		return nil, err
	}
	resource, ancestors, err := op.Resource(req.Server, req.Resource, req.Input)
	if err != nil {
		return nil, err
	}
	context := types.RecordMap{
		"input": input,
		"session": types.NewRecord(types.RecordMap{
			"id":      types.String(s.ID),
			"labels":  stringSet(s.Labels),
			"calls":   types.Long(s.Calls),
			"denials": types.Long(s.Denials),
			"started": types.NewDatetime(s.Started),
		}),
		"auth": types.NewRecord(types.RecordMap{"method": types.String(who.Method)}),
		"now":  types.NewDatetime(now),
		"gate": types.String(req.Gate),
	}
	if who.For != "" {
		context["subject"] = types.String(who.For)
	}
	q := v.question(who, op, resource)
	q.Context = types.NewRecord(context)
	merge(q.Entities, ancestors)
	merge(q.Entities, entities)
	return q, nil
}

// question is the part of a request that does not depend on the input.
func (v *Version) question(who identity.Subject, op *catalog.Operation, resource types.EntityUID) *engine.Request {
	principal := types.NewEntityUID("Agent", types.String(who.Agent))
	groups := make([]types.EntityUID, len(who.Groups))
	entities := types.EntityMap{}
	for i, g := range who.Groups {
		groups[i] = types.NewEntityUID("Group", types.String(g))
		entities[groups[i]] = types.Entity{UID: groups[i]}
	}
	entities[principal] = types.Entity{UID: principal, Parents: types.NewEntityUIDSet(groups...)}
	return &engine.Request{
		Principal: principal,
		Action:    types.NewEntityUID("Action", types.String(op.Action)),
		Resource:  resource,
		Entities:  entities,
	}
}

// reachable says whether any input could lead to an allow.
func (v *Version) reachable(who identity.Subject, req authz.Request, o pep.Operation) bool {
	op, ok := v.Catalog.Operation(o.Action)
	if !ok || (o.Definition != "" && o.Definition != op.Digest) {
		return false
	}
	if req.Resource.IsZero() {
		return v.Program.Reachable(v.question(who, op, types.EntityUID{})) // any resource
	}
	// An item of a list: the gate says which it is, and only the list depends on
	// it. A call of the item is judged by its arguments.
	server := types.NewEntityUID("Server", types.String(req.Server))
	resource := types.NewEntityUID(types.EntityType(req.Resource.Type), types.String(req.Resource.ID))
	q := v.question(who, op, resource)
	q.Entities[server] = types.Entity{UID: server}
	if resource != server {
		q.Entities[resource] = types.Entity{UID: resource, Parents: types.NewEntityUIDSet(server)}
	}
	return v.Program.Reachable(q)
}

func merge(into, from types.EntityMap) {
	for uid, e := range from {
		into[uid] = e
	}
}

func stringSet(list []string) types.Set {
	values := make([]types.Value, len(list))
	for i, s := range list {
		values[i] = types.String(s)
	}
	return types.NewSet(values...)
}
