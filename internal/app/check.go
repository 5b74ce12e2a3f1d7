package app

import (
	"context"

	"github.com/bailiwick-dev/bailiwick/internal/entity"
)

// A Summary counts what a configuration holds.
type Summary struct {
	Servers    int    `json:"servers"`
	Operations int    `json:"operations"`
	Policies   int    `json:"policies"`
	Agents     int    `json:"agents"`
	PEPs       int    `json:"peps"`
	Entities   int    `json:"entities"`
	Version    string `json:"policy_version"`
}

// CheckConfig reads everything that [Start] would read, and starts nothing.
func CheckConfig(ctx context.Context, c *Config) (Summary, error) {
	v, err := LoadVersion(c)
	if err != nil {
		return Summary{}, err
	}
	agents, err := LoadAgents(c)
	if err != nil {
		return Summary{}, err
	}
	entities, err := entity.Open(ctx, entity.Config{Sources: c.Entities, Policies: v.Program.Set()})
	if err != nil {
		return Summary{}, err
	}
	if err := entities.Close(); err != nil {
		return Summary{}, err
	}
	return Summary{
		Servers: len(c.Upstreams), Operations: len(v.Catalog.Operations()),
		Policies: len(v.Program.Set().Policies()), Agents: len(agents.Agents()),
		PEPs: len(agents.PEPs()), Entities: entities.World().Len(), Version: v.Digest(),
	}, nil
}
