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

// inform looks up what is known of entities that a request names and the world
// in memory does not hold.
func inform(ctx context.Context, q *engine.Request, v EntityView, named []types.EntityUID) error {
	found, err := v.Fetch(ctx, named...)
	if err != nil {
		return fmt.Errorf("look up entities: %w", err)
	}
	add(q, found)
	return nil
}
