package entity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/internal/typed"
)

// A row is an entity as a source has it, before a schema gives it types. It
// stays in memory, so that another schema can be tried without reading the
// source again.
type row struct {
	// where it stands, for people: "users.yaml:12".
	where string
	uid   types.EntityUID
	// attrs and tags are JSON objects and parents is a JSON array; nil: none.
	attrs, tags, parents jsontext.Value
	// table says that it comes from a table, which has fewer types than JSON.
	table bool
}

// maxProblems is how many mistakes are reported at a time.
const maxProblems = 10

// typeRows makes entities of rows. The error lists the mistakes.
func typeRows(rows []row, s *resolved.Schema) (types.EntityMap, error) {
	out := make(types.EntityMap, len(rows))
	first := make(map[types.EntityUID]string, len(rows))
	var problems []error
	for i := range rows {
		r := &rows[i]
		e, err := r.entity(s)
		if other, twice := first[r.uid]; err == nil && twice {
			err = fmt.Errorf("is already at %s", other)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s: %w", r.where, r.uid, err))
		}
		if len(problems) > maxProblems {
			return nil, errors.Join(append(problems[:maxProblems], errors.New("there are more"))...)
		}
		first[r.uid], out[r.uid] = r.where, e
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return out, nil
}

// entity gives a row the types of a schema.
func (r *row) entity(s *resolved.Schema) (types.Entity, error) {
	e := types.Entity{UID: r.uid}
	decl, ok := s.Entities[r.uid.Type]
	if !ok {
		return e, unknownType(s, r.uid.Type)
	}
	o := typed.Options{RefuseExtra: true, IDs: r.table, Enums: s.Enums}
	attrs, err := r.attributes(decl.Shape)
	if err != nil {
		return e, err
	}
	m, err := typed.Record(decl.Shape, attrs, o)
	if err != nil {
		return e, err
	}
	e.Attributes = types.NewRecord(m)
	if e.Tags, err = r.entityTags(decl, o); err != nil {
		return e, err
	}
	e.Parents, err = r.entityParents(decl, s)
	return e, err
}

// unknownType says why a type has no entities here.
func unknownType(s *resolved.Schema, t types.EntityType) error {
	if _, ok := s.Enums[t]; ok {
		return errors.New("the schema itself lists the entities of this type")
	}
	if t == "Action" || strings.HasSuffix(string(t), "::Action") {
		return errors.New("is an action, and actions are the schema's")
	}
	known := make([]string, 0, len(s.Entities))
	for k := range s.Entities {
		known = append(known, string(k))
	}
	return fmt.Errorf("the schema has no entity type %s%s", t, typed.DidYouMean(string(t), known))
}

func (r *row) entityTags(decl resolved.Entity, o typed.Options) (types.Record, error) {
	if r.tags == nil {
		return types.Record{}, nil
	}
	m, err := types.RecordMap{}, error(nil)
	if decl.Tags != nil {
		m, err = typed.Map(decl.Tags, r.tags, o)
	} else {
		// An empty object is how Cedar's own tools write that there are none.
		_, err = typed.Record(resolved.RecordType{}, r.tags, o)
	}
	if err != nil {
		return types.Record{}, fmt.Errorf("tags: %w", err)
	}
	return types.NewRecord(m), nil
}

func (r *row) entityParents(decl resolved.Entity, s *resolved.Schema) (types.EntityUIDSet, error) {
	var out []types.EntityUID
	err := elements(r.parents, func(n int, raw jsontext.Value) error {
		uid, err := r.parent(decl, raw)
		if err == nil {
			err = listed(s, uid)
		}
		if err != nil {
			return fmt.Errorf("parents.%d: %w", n, err)
		}
		out = append(out, uid)
		return nil
	})
	if err != nil {
		return types.EntityUIDSet{}, err
	}
	return types.NewEntityUIDSet(out...), nil
}

// listed refuses an entity that its enumerated type does not list.
func listed(s *resolved.Schema, uid types.EntityUID) error {
	if e, ok := s.Enums[uid.Type]; ok && !slices.Contains(e.Values, uid) {
		return fmt.Errorf("%s lists no such entity", uid.Type)
	}
	return nil
}

// parent reads {"type","id"}; in a table, where an entity can be in entities of
// one type only, also the id alone.
func (r *row) parent(decl resolved.Entity, raw jsontext.Value) (types.EntityUID, error) {
	if kind := raw.Kind(); r.table && (kind == '"' || kind == '0') {
		if len(decl.ParentTypes) != 1 {
			return types.EntityUID{}, fmt.Errorf("an id alone does not say of which of %d types: write {\"type\", \"id\"}", len(decl.ParentTypes))
		}
		v, err := typed.Value(resolved.EntityType(decl.ParentTypes[0]), raw, typed.Options{IDs: true})
		uid, _ := v.(types.EntityUID)
		return uid, err
	}
	uid, err := readUID(raw)
	if err == nil && !slices.Contains(decl.ParentTypes, uid.Type) {
		err = fmt.Errorf("an entity of type %s cannot be in one of type %s%s", r.uid.Type, uid.Type, allowed(decl.ParentTypes))
	}
	return uid, err
}

func allowed(ts []types.EntityType) string {
	if len(ts) == 0 {
		return "; the schema lets it be in none"
	}
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = string(t)
	}
	slices.Sort(names)
	return "; the schema lets it be in " + strings.Join(names, ", ")
}

// attributes are the row's attributes in the forms that package typed reads.
func (r *row) attributes(shape resolved.RecordType) (jsontext.Value, error) {
	switch {
	case r.attrs == nil:
		return jsontext.Value("{}"), nil
	case r.table:
		return fromTable(shape, r.attrs)
	default:
		return r.attrs, nil
	}
}

// fromTable widens what tables cannot say: NULL is an attribute that is absent,
// 0 and 1 are truth values, and text holds sets and records as JSON, each only
// where the schema wants it.
func fromTable(shape resolved.RecordType, attrs jsontext.Value) (jsontext.Value, error) {
	out := jsontext.Value("{")
	err := members(attrs, func(name string, raw jsontext.Value) (err error) {
		attr, declared := shape[types.String(name)]
		if declared && raw.Kind() == 'n' || !declared && name == "id" {
			return nil
		}
		switch attr.Type.(type) {
		case resolved.BoolType:
			if known, ok := map[string]string{"0": "false", "1": "true"}[string(raw)]; ok {
				raw = jsontext.Value(known)
			}
		case resolved.SetType, resolved.RecordType:
			if raw.Kind() == '"' {
				if raw, err = unquoted(raw); err != nil {
					return fmt.Errorf("%s is text that is not JSON", name)
				}
			}
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		if out, err = jsontext.AppendQuote(out, name); err != nil {
			return fmt.Errorf("read a name: %w", err)
		}
		out = append(append(out, ':'), raw...)
		return nil
	})
	return append(out, '}'), err
}

// unquoted returns the JSON that a JSON string holds.
func unquoted(raw jsontext.Value) (jsontext.Value, error) {
	text, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return nil, err
	}
	// Valid as a whole, or it could close the object that it is put in.
	if v := jsontext.Value(text); v.IsValid() {
		return v, nil
	}
	return nil, errors.New("not JSON")
}

// sortedTypes are the entity types of a map, sorted.
func sortedTypes[V any](m map[types.EntityType]V) []types.EntityType {
	return slices.Sorted(maps.Keys(m))
}
