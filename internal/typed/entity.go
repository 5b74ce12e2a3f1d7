package typed

import (
	"slices"
	"strconv"

	"github.com/cedar-policy/cedar-go/types"
)

// entityWanted is what an entity looks like.
const entityWanted = `an entity: {"type": "…", "id": "…"}`

// entity reads {"type":…,"id":…}, or Cedar's {"__entity":{"type":…,"id":…}}.
func (r *reader) entity(want types.EntityType) (types.Value, error) {
	switch kind := r.dec.PeekKind(); {
	case kind == '{':
		return r.uid(want, true)
	case r.IDs && (kind == '"' || kind == '0'):
		return r.plainID(want)
	default:
		return nil, r.wrong(entityWanted)
	}
}

// uid reads an object that names an entity. Wrap says whether it may be in an
// object of its own.
func (r *reader) uid(want types.EntityType, wrap bool) (types.Value, error) {
	var wrapped types.Value
	named := map[string]string{}
	err := r.members(func(name string) error {
		switch {
		case name == "type" || name == "id":
			return r.within(name, func() (err error) { named[name], err = r.text("a string"); return err })
		case name == "__entity" && wrap && r.dec.PeekKind() == '{':
			var err error
			wrapped, err = r.uid(want, false)
			return err
		case name == "__entity":
			return r.errorf("is not %s", entityWanted)
		default:
			return r.beside(name)
		}
	})
	typ, hasType := named["type"]
	id, hasID := named["id"]
	switch {
	case err != nil:
		return nil, err
	case wrapped != nil && len(named) == 0:
		return wrapped, nil
	case wrapped != nil || !hasType || !hasID:
		return nil, r.errorf("is not %s", entityWanted)
	default:
		return r.named(want, typ, id)
	}
}

// beside handles a member that an entity or an extension value doesn't have.
func (r *reader) beside(name string) error {
	if r.RefuseExtra {
		r.path = append(r.path, shown(name))
		return r.errorf("is not known")
	}
	return r.skip()
}

// named makes an entity of what is written, if it is of the type.
func (r *reader) named(want types.EntityType, typ, id string) (types.Value, error) {
	found, ok := types.EntityType(typ), true
	if r.Entity != nil {
		found, ok = r.Entity(typ)
	}
	if !ok || found != want {
		return nil, r.errorf("is not an entity of type %s", want)
	}
	return r.listed(types.NewEntityUID(want, types.String(id)))
}

// listed refuses an id that an enumerated type does not list.
func (r *reader) listed(uid types.EntityUID) (types.Value, error) {
	if e, ok := r.Enums[uid.Type]; ok && !slices.Contains(e.Values, uid) {
		return nil, r.errorf("is not one of the entities that %s lists", uid.Type)
	}
	return uid, nil
}

func (r *reader) plainID(want types.EntityType) (types.Value, error) {
	tok, err := r.token(entityWanted, '"', '0')
	if err != nil {
		return nil, err
	}
	text := tok.String()
	if tok.Kind() == '0' {
		// Only in the one form that every writer of the same integer chooses.
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != text {
			return nil, r.errorf("is not an integer of 64 bits")
		}
	}
	return r.listed(types.NewEntityUID(want, types.String(text)))
}
