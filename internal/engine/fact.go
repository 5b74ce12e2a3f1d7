package engine

import (
	"cmp"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
)

// A Fact is one thing that somebody could still prove or give, as policy would
// see it.
type Fact struct {
	Kind FactKind `json:"kind"`
	// Name is the role that approves, the scope of the token, or the entity that
	// the principal becomes a member of, as Cedar writes it: Group::"oncall".
	Name string `json:"name,omitempty"`
	// Level is the level of authentication, or its age in seconds.
	Level int64 `json:"level,omitempty"`
}

// A FactKind is what a fact changes in the request.
type FactKind string

// The kinds of fact. A level and an age are tried at exactly the bound: what is
// then proved may be higher, or fresher, and policy decides about that.
const (
	// Approval: context.approvals has Name.
	Approval FactKind = "approval"
	// Elevation: the principal is in Name.
	Elevation FactKind = "elevation"
	// FreshAuth: context.auth.age is not above Level.
	FreshAuth FactKind = "fresh_auth"
	// StepUp: context.auth.level is not below Level.
	StepUp FactKind = "step_up"
	// Scope: context.auth.scopes has Name.
	Scope FactKind = "scope"
)

func compareFacts(a, b Fact) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Level, b.Level))
}

// A Remedy is facts that are needed together, sorted.
type Remedy []Fact

// Where policy finds the facts in a request's context.
const (
	approvalsName types.String = "approvals"
	authName      types.String = "auth"
	levelName     types.String = "level"
	ageName       types.String = "age"
	scopesName    types.String = "scopes"
)

// With returns the request as it would be if the facts held, but for
// elevations, whose groups are for whoever knows the principal.
func (r *Request) With(facts Remedy) *Request { return withFacts(r, facts) }

// withFacts returns the request as it would be if the facts held, but for
// elevations, which [elevated] makes.
func withFacts(req *Request, facts []Fact) *Request {
	context := req.Record().Map()
	if context == nil {
		context = types.RecordMap{}
	}
	var roles, scopes []types.Value
	auth := types.RecordMap{}
	for _, f := range facts {
		switch f.Kind {
		case Approval:
			roles = append(roles, types.String(f.Name))
		case FreshAuth:
			auth[ageName] = types.Long(f.Level)
		case StepUp:
			auth[levelName] = types.Long(f.Level)
		case Scope:
			scopes = append(scopes, types.String(f.Name))
		case Elevation:
		}
	}
	if len(roles) > 0 {
		have, _ := context[approvalsName].(types.Set) // without any, none
		context[approvalsName] = types.NewSet(append(have.Slice(), roles...)...)
	}
	if len(auth)+len(scopes) > 0 {
		have, _ := context[authName].(types.Record)
		if len(scopes) > 0 {
			shown, _ := have.Get(scopesName)
			set, _ := shown.(types.Set)
			auth[scopesName] = types.NewSet(append(set.Slice(), scopes...)...)
		}
		for name, v := range have.All() {
			if _, ok := auth[name]; !ok {
				auth[name] = v
			}
		}
		context[authName] = types.NewRecord(auth)
	}
	v := *req
	v.Context, v.Fields = types.NewRecord(context), nil
	return &v
}

// elevated returns the request as it would be if the principal, whose entity is
// given, were a member of the groups too.
func elevated(req *Request, principal types.Entity, groups []types.EntityUID) *Request {
	entities := maps.Clone(req.Entities)
	if entities == nil {
		entities = types.EntityMap{}
	}
	parents := slices.AppendSeq(slices.Clone(groups), principal.Parents.All())
	principal.UID = req.Principal
	principal.Parents = types.NewEntityUIDSet(parents...)
	entities[req.Principal] = principal
	v := *req
	v.Entities = entities
	return &v
}
