package app

// A Summary counts what a configuration holds.
type Summary struct {
	Servers    int    `json:"servers"`
	Operations int    `json:"operations"`
	Policies   int    `json:"policies"`
	Agents     int    `json:"agents"`
	Version    string `json:"policy_version"`
}

// CheckConfig reads everything that [Start] would read, and starts nothing.
func CheckConfig(c *Config) (Summary, error) {
	v, err := LoadVersion(c)
	if err != nil {
		return Summary{}, err
	}
	agents, err := LoadAgents(c)
	if err != nil {
		return Summary{}, err
	}
	return Summary{
		Servers: len(c.Upstreams), Operations: len(v.Catalog.Operations()),
		Policies: len(v.Program.Set().Policies()), Agents: len(agents.Agents()), Version: v.Digest(),
	}, nil
}
