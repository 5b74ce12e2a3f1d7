package entity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/engine"
)

// maxFetch is how many entities one decision may look up.
const maxFetch = 256

// ErrNoList means that entities of a type are looked up one by one and the
// operator has given no query that lists them.
var ErrNoList = errors.New("the entities of this type cannot be listed: give a query, list, in the sources")

func compareUIDs(a, b types.EntityUID) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
}

// Fetch looks up what policies may look at from the entities of a request and
// the World doesn't hold: those entities themselves, all that they are in, and
// what their attributes refer to as far as conditions follow them. An entity
// that its source doesn't know is absent. An error means that a source failed,
// or said what cannot be: the decision must be a denial.
func (v *View) Fetch(ctx context.Context, uids ...types.EntityUID) (types.EntityMap, error) {
	if len(v.d.lookups) == 0 {
		return nil, nil
	}
	f := fetch{View: v, asked: map[types.EntityUID]bool{}}
	near, err := f.attributes(ctx, append(uids[:len(uids):len(uids)], v.reach.named...))
	if err == nil {
		err = f.ancestors(ctx, near)
	}
	if err == nil {
		err = f.acyclic()
	}
	if err != nil {
		return nil, fmt.Errorf("look up entities: %w", err)
	}
	return f.found, nil
}

// A fetch is what has been looked up for one decision.
type fetch struct {
	*View
	found types.EntityMap
	asked map[types.EntityUID]bool
}

// entity returns an entity of the World, or one that is looked up.
func (f *fetch) entity(ctx context.Context, uid types.EntityUID) (types.Entity, bool, error) {
	if e, ok := f.world.Entity(uid); ok {
		return e, true, nil
	}
	db := f.d.lookups[uid.Type]
	if db == nil || f.asked[uid] {
		e, ok := f.found[uid]
		return e, ok, nil
	}
	if len(f.asked) >= maxFetch {
		return types.Entity{}, false, fmt.Errorf("there are more than %d", maxFetch)
	}
	f.asked[uid] = true
	r, ok, err := db.one(ctx, uid)
	if err != nil || !ok {
		return types.Entity{}, false, err
	}
	e, err := r.entity(f.set.Schema())
	if err != nil {
		return types.Entity{}, false, fmt.Errorf("%s: %s: %w", r.where, uid, err)
	}
	if f.found == nil {
		f.found = types.EntityMap{}
	}
	f.found[uid] = e
	return e, true, nil
}

// attributes looks up entities and what their attributes refer to, and returns
// all of these.
func (f *fetch) attributes(ctx context.Context, uids []types.EntityUID) ([]types.Entity, error) {
	var near []types.Entity
	seen := map[types.EntityUID]bool{}
	for step := 0; ; step++ {
		var next []types.EntityUID
		for _, uid := range uids {
			if seen[uid] || !f.reach.goal(uid.Type) {
				continue
			}
			seen[uid] = true
			e, ok, err := f.entity(ctx, uid)
			if err != nil {
				return nil, err
			}
			if ok {
				near = append(near, e)
				next = append(next, references(e)...)
			}
		}
		if step == f.reach.steps || len(next) == 0 {
			return near, nil
		}
		uids = next
	}
}

// ancestors looks up all that entities are in.
func (f *fetch) ancestors(ctx context.Context, of []types.Entity) error {
	seen := map[types.EntityUID]bool{}
	for len(of) > 0 {
		e := of[len(of)-1]
		of = of[:len(of)-1]
		for _, p := range parentsOf(e) {
			if seen[p] || !f.climbs(p) {
				continue
			}
			seen[p] = true
			parent, ok, err := f.entity(ctx, p)
			if err != nil {
				return err
			}
			if ok {
				of = append(of, parent)
			}
		}
	}
	return nil
}

// climbs reports whether the way to something that is looked up may go over an
// entity that another is in.
func (f *fetch) climbs(uid types.EntityUID) bool {
	if _, known := f.world.Entity(uid); known {
		return f.reach.below && f.reach.leads[uid.Type]
	}
	return f.d.lookups[uid.Type] != nil
}

// acyclic refuses entities that are in themselves.
func (f *fetch) acyclic() error {
	const begun, done = 1, 2
	state := map[types.EntityUID]int{}
	var visit func(uid types.EntityUID) error
	visit = func(uid types.EntityUID) error {
		e, ok := f.found[uid]
		if !ok && f.reach.below {
			e, ok = f.world.Entity(uid)
		}
		if !ok || state[uid] == done {
			return nil
		}
		if state[uid] == begun {
			return fmt.Errorf("%s is in itself", uid)
		}
		state[uid] = begun
		for _, p := range parentsOf(e) {
			if err := visit(p); err != nil {
				return err
			}
		}
		state[uid] = done
		return nil
	}
	for uid := range f.found {
		if err := visit(uid); err != nil {
			return err
		}
	}
	return nil
}

// List returns the ids of a type that follow one, in the order of their source,
// at most limit of them: those of the World in the order of their bytes, and
// those that are looked up in the order of the operator's query. An empty after
// begins at the first. The error is [ErrNoList] if there is no such query.
func (v *View) List(ctx context.Context, t types.EntityType, after string, limit int) ([]types.EntityUID, error) {
	if limit <= 0 {
		return nil, nil
	}
	if db := v.d.lookups[t]; db != nil && !db.types[t].full() {
		uids, err := db.list(ctx, t, after, limit)
		if err != nil {
			return nil, fmt.Errorf("list entities of type %s: %w", t, err)
		}
		return uids, nil
	}
	return page(v.world, t, after, limit), nil
}

// page returns entities of the World.
func page(w *engine.World, t types.EntityType, after string, limit int) []types.EntityUID {
	all := w.OfType(t)
	from := 0
	if after != "" {
		var found bool
		from, found = slices.BinarySearchFunc(all, types.String(after), func(e types.EntityUID, id types.String) int {
			return cmp.Compare(e.ID, id)
		})
		if found {
			from++
		}
	}
	return slices.Clone(all[from : from+min(limit, len(all)-from)])
}
