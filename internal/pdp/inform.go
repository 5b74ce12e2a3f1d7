package pdp

import (
	"context"
	"fmt"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/engine"
)

// nothing is the PIP that knows of no entity.
type nothing struct{}

func (nothing) View() EntityView             { return nothing{} }
func (nothing) World() *engine.World         { return nil }
func (nothing) Lookup(types.EntityType) bool { return false }

func (nothing) Fetch(context.Context, ...types.EntityUID) (types.EntityMap, error) { return nil, nil }

func (nothing) List(context.Context, types.EntityType, string, int) ([]types.EntityUID, error) {
	return nil, nil
}

func (p *PDP) view() EntityView { return p.Entities.View() }

// inform looks up what is known of the entities that a request names.
func inform(ctx context.Context, q *engine.Request, v EntityView) error {
	q.World = v.World()
	found, err := v.Fetch(ctx, named(q)...)
	if err != nil {
		return fmt.Errorf("look up entities: %w", err)
	}
	add(q, found)
	return nil
}

// named are the entities that a request names itself.
func named(q *engine.Request) []types.EntityUID {
	uids := []types.EntityUID{q.Principal, q.Resource}
	var visit func(types.Value)
	visit = func(v types.Value) {
		switch v := v.(type) {
		case types.EntityUID:
			uids = append(uids, v)
		case types.Record:
			for e := range v.Values() {
				visit(e)
			}
		case types.Set:
			for e := range v.All() {
				visit(e)
			}
		}
	}
	visit(q.Context)
	return uids
}
