package pdp

import (
	"fmt"
	"math"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// unknownAge is what policy sees as the age of an authentication that nobody
// has dated, in seconds: ten years. What is not known must not pass for fresh.
const unknownAge = 10 * 365 * 24 * 60 * 60

// Request makes the typed question that policy answers, as far as the world
// knows about it. An error says what is wrong with the request, in words fit for
// the caller; one that wraps errAssertion says that the PEP may not say this.
func (v *Version) Request(who Caller, s session.Snapshot, score risk.Score, from Origins, op *catalog.Operation, req authz.Request, w *engine.World, now time.Time) (*engine.Request, error) {
	m := new(memory)
	q, _, err := v.question(who, s, &from, op, req, w, now, m)
	if err != nil {
		return nil, err
	}
	q.Fields = append(q.Fields, m.riskOf(score))
	return q, v.fill(q, who, req)
}

// A memory is where a question is put together. Fields are large, and to make
// them anew for each decision was a quarter of the memory that it took.
type memory struct {
	request                engine.Request
	context, session, auth [12]engine.Field
	risk                   [2]engine.Field
	reasons                []string
	authority, content     [6]engine.Field
	named                  [4]types.EntityUID
}

// question types a request in m: who, what, on what, and in what circumstances.
// It also returns the entities that the request names.
func (v *Version) question(who Caller, s session.Snapshot, from *Origins, op *catalog.Operation, req authz.Request, w *engine.World, now time.Time, m *memory) (*engine.Request, []types.EntityUID, error) {
	q := &m.request
	*q = engine.Request{Action: op.UID(), Fields: m.context[:0], World: w}
	named := m.named[:0]
	var err error
	if op.Application != "" {
		named, err = v.ofApplication(q, named, op, req)
	} else {
		err = v.ofCatalog(q, op, req)
	}
	if err == nil {
		q.Principal, err = v.principal(who)
	}
	if err != nil {
		return nil, nil, err
	}
	if !v.Catalog.Applies(op, q.Principal.Type, q.Resource.Type) {
		return nil, nil, &catalog.InputError{Reason: fmt.Sprintf("%s is not what a %s does to a %s", quoted(req.Action), q.Principal.Type, q.Resource.Type)}
	}
	q.Fields = from.append(circumstances(q.Fields, m, who, s, req, now), m, op)
	if who.Asserted.IsZero() {
		groups(q, who.Groups)
		profile(q, who.Subject)
	}
	return q, append(named, q.Principal, q.Resource), nil
}

// fill adds to what is known of the subject and the resource what the PEP says.
func (v *Version) fill(q *engine.Request, who Caller, req authz.Request) error {
	if who.Asserted.IsZero() {
		profile(q, who.Subject) // again: what was looked up has come since
	}
	if req.Asserted == nil {
		return nil
	}
	subject := req.Asserted.Subject.Type
	if subject == "" {
		subject = agentType
	}
	if err := v.assert(q, who, q.Principal, subject, req.Asserted.SubjectProperties); err != nil {
		return err
	}
	return v.assert(q, who, q.Resource, req.Resource.Type, req.Asserted.ResourceProperties)
}

// ofCatalog types the arguments of a tool or method, and finds what it touches.
func (v *Version) ofCatalog(q *engine.Request, op *catalog.Operation, req authz.Request) error {
	input, entities, err := op.Input(req.Server, req.Input)
	if err != nil {
		return err
	}
	resource, ancestors, err := op.Resource(req.Server, req.Resource, req.Input)
	if err != nil {
		return err
	}
	q.Resource = resource
	q.Fields = append(q.Fields, engine.Boxed("input", input))
	add(q, ancestors)
	for uid, e := range entities { // they are the input itself: nobody else knows them
		set(q, e, uid)
	}
	return nil
}

// ofApplication types what a PEP says of an application's action. It appends
// the entities that the context names.
func (v *Version) ofApplication(q *engine.Request, named []types.EntityUID, op *catalog.Operation, req authz.Request) ([]types.EntityUID, error) {
	a := req.Asserted
	if a == nil {
		return nil, &catalog.InputError{Reason: fmt.Sprintf("%s is asked about by the enforcement points of its application only", quoted(req.Action))}
	}
	t, ok := v.Catalog.EntityType(op.Application, req.Resource.Type)
	if !ok {
		return nil, &catalog.InputError{Path: "resource.type", Reason: "is not a type of the application"}
	}
	q.Resource = types.NewEntityUID(t, types.String(req.Resource.ID))
	attrs, err := op.Context(v.Catalog, a.ActionProperties, a.Context)
	for name, value := range attrs {
		q.Fields = append(q.Fields, engine.Boxed(name, value))
		named = appendNamed(named, value)
	}
	return named, err
}

// appendNamed appends the entities that a value names.
func appendNamed(to []types.EntityUID, v types.Value) []types.EntityUID {
	switch v := v.(type) {
	case types.EntityUID:
		to = append(to, v)
	case types.Record:
		for e := range v.Values() {
			to = appendNamed(to, e)
		}
	case types.Set:
		for e := range v.All() {
			to = appendNamed(to, e)
		}
	}
	return to
}

// principal is who acts: an agent, or what a PEP names.
func (v *Version) principal(who Caller) (types.EntityUID, error) {
	if who.Asserted.IsZero() {
		return types.NewEntityUID(agentType, types.String(who.Agent)), nil
	}
	t, ok := v.Catalog.EntityType(who.application(), who.Asserted.Type)
	if !ok {
		return types.EntityUID{}, &catalog.InputError{Path: "subject.type", Reason: "is not a type of the application"}
	}
	return types.NewEntityUID(t, types.String(who.Asserted.ID)), nil
}

// groups puts the agent into the groups that its credential or the registry
// says it is in, beside those that the directory knows.
func groups(q *engine.Request, names []string) {
	e, known := entity(q, q.Principal)
	parents := make([]types.EntityUID, 0, len(names)+e.Parents.Len())
	for g := range e.Parents.All() {
		parents = append(parents, g)
	}
	added := false
	for _, name := range names {
		g := types.NewEntityUID("Group", types.String(name))
		if !e.Parents.Contains(g) {
			parents, added = append(parents, g), true
		}
		if _, ok := entity(q, g); !ok {
			set(q, types.Entity{}, g)
		}
	}
	if added || !known {
		e.Parents = types.NewEntityUIDSet(parents...)
		set(q, e, q.Principal)
	}
}

// profile gives the agent what the registry says of it, which wins over what
// anybody else says.
func profile(q *engine.Request, who identity.Subject) {
	if who.Owner == "" && who.Purpose == "" && who.Model == "" {
		return
	}
	e, _ := entity(q, q.Principal)
	attrs := e.Attributes.Map()
	if attrs == nil {
		attrs = types.RecordMap{}
	}
	for name, value := range map[types.String]string{"owner": who.Owner, "purpose": who.Purpose, "model": who.Model} {
		if value != "" {
			attrs[name] = types.String(value)
		}
	}
	e.Attributes = types.NewRecord(attrs)
	set(q, e, q.Principal)
}

// assert lets what a PEP says of an entity fill what is not known of it.
// Properties that the schema does not declare cannot be seen by any policy and
// are left out. One that the PEP may not supply denies rather than being left
// out, since a forbid may hang on it.
func (v *Version) assert(q *engine.Request, who Caller, uid types.EntityUID, named string, properties []byte) error {
	if len(properties) == 0 {
		return nil
	}
	said, err := v.Catalog.Attributes(who.application(), uid.Type, properties)
	if err != nil {
		return err
	}
	e, _ := entity(q, uid) // of an unknown one nothing is known
	attrs := e.Attributes.Map()
	filled := false
	for name, value := range said {
		if _, known := attrs[name]; known {
			continue
		}
		if who.PEP == nil || !who.PEP.MayAssert(named, string(name)) {
			return fmt.Errorf("the enforcement point may not supply %s.%s: %w", named, name, errAssertion)
		}
		if attrs == nil {
			attrs = types.RecordMap{}
		}
		attrs[name], filled = value, true
	}
	if filled {
		e.Attributes = types.NewRecord(attrs)
		set(q, e, uid)
	}
	return nil
}

// circumstances appends what the plane itself says to policy.
func circumstances(f engine.Fields, m *memory, who Caller, s session.Snapshot, req authz.Request, now time.Time) engine.Fields {
	f = append(f,
		engine.Nested("session", append(m.session[:0],
			engine.String("id", s.ID), engine.Strings("labels", s.Labels), engine.Long("calls", s.Calls),
			engine.Long("integrity", s.Integrity()), engine.Long("confidentiality", s.Confidentiality()),
			engine.Long("denials", s.Denials), engine.Datetime("started", types.NewDatetime(s.Started)),
		)),
		engine.Nested("auth", append(m.auth[:0],
			engine.String("method", who.Method), engine.Long("level", who.Level), engine.Long("age", age(who.Authenticated, now)),
			engine.Strings("scopes", who.Scopes),
		)),
		engine.Strings("approvals", nil),
		engine.Strings("chain", who.earlier()),
		engine.Datetime("now", types.NewDatetime(now)),
		engine.String("gate", req.Gate),
	)
	if who.For != "" {
		f = append(f, engine.String("subject", who.For))
	}
	return f
}

// age is how long ago somebody authenticated, in seconds, rounded up.
func age(at, now time.Time) int64 {
	if at.IsZero() {
		return unknownAge
	}
	return int64(math.Ceil(max(0, now.Sub(at).Seconds())))
}

// set gives the request an entity of its own.
func set(q *engine.Request, e types.Entity, uid types.EntityUID) {
	if q.Entities == nil {
		q.Entities = types.EntityMap{}
	}
	e.UID = uid
	q.Entities[uid] = e
}

// entity looks an entity up, the request's own first.
func entity(q *engine.Request, uid types.EntityUID) (types.Entity, bool) {
	if e, ok := q.Entities[uid]; ok {
		return e, true
	}
	if q.World == nil {
		return types.Entity{}, false
	}
	return q.World.Entity(uid)
}

// reachable says whether any input could lead to an allow.
func (v *Version) reachable(who Caller, req authz.Request, o pep.Operation, w *engine.World) bool {
	op, ok := v.Catalog.Operation(o.Action)
	if !ok || op.Application != "" || (o.Definition != "" && o.Definition != op.Digest) {
		return false
	}
	q := &engine.Request{Action: op.UID(), World: w}
	q.Principal = types.NewEntityUID(agentType, types.String(who.Agent))
	groups(q, who.Groups)
	profile(q, who.Subject)
	if req.Resource.IsZero() {
		return v.Program.Reachable(q) // any resource
	}
	// An item of a list: the gate says which it is, and only the list depends on
	// it. A call of the item is judged by its arguments.
	server := types.NewEntityUID("Server", types.String(req.Server))
	q.Resource = types.NewEntityUID(types.EntityType(req.Resource.Type), types.String(req.Resource.ID))
	items := types.EntityMap{server: {UID: server}}
	if q.Resource != server {
		items[q.Resource] = types.Entity{UID: q.Resource, Parents: types.NewEntityUIDSet(server)}
	}
	add(q, items)
	return v.Program.Reachable(q)
}

// add adds entities that the request brings or that were looked up for it. What
// is known of one from elsewhere stays, and it is in all that either says.
func add(q *engine.Request, from types.EntityMap) {
	for uid, e := range from {
		known, ok := entity(q, uid)
		if !ok {
			set(q, e, uid)
			continue
		}
		if e.Attributes.Len() > 0 || e.Tags.Len() > 0 {
			known.Attributes, known.Tags = e.Attributes, e.Tags
		} else if subset(e.Parents, known.Parents) {
			continue // nothing new
		}
		known.Parents = types.NewEntityUIDSet(append(members(known.Parents), members(e.Parents)...)...)
		set(q, known, uid)
	}
}

func subset(a, b types.EntityUIDSet) bool {
	for uid := range a.All() {
		if !b.Contains(uid) {
			return false
		}
	}
	return true
}

func members(s types.EntityUIDSet) []types.EntityUID {
	list := make([]types.EntityUID, 0, s.Len())
	for uid := range s.All() {
		list = append(list, uid)
	}
	return list
}
