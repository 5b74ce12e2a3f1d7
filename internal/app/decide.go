package app

import (
	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
)

// An Answer is what policy says to a [Question].
type Answer struct {
	Allow    bool              `json:"allow"`
	Code     string            `json:"code"`
	Policies []authz.PolicyRef `json:"policies,omitempty"`
	Version  string            `json:"policy_version"`
}

// Decide asks the policies in the files.
func Decide(c *Config, q Question) (Answer, error) {
	v, err := LoadVersion(c)
	if err != nil {
		return Answer{}, err
	}
	req, err := q.Ask(v)
	if err != nil {
		return Answer{}, err
	}
	return answer(v.Program.Authorize(req), v.Digest()), nil
}

func answer(a engine.Answer, version string) Answer {
	out := Answer{Allow: a.Allow, Code: a.Code, Version: version}
	for _, p := range a.Determining {
		out.Policies = append(out.Policies, p.Ref())
	}
	for _, e := range a.Errors {
		ref := e.Policy.Ref()
		ref.Error = e.Message
		out.Policies = append(out.Policies, ref)
	}
	return out
}
