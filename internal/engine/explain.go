package engine

import "github.com/bailiwick-dev/bailiwick/internal/policy"

// An Explanation says why an answer came out as it did.
type Explanation struct {
	Answer Answer
	// Considered are the policies whose scope fits the request.
	Considered []Considered
}

// A Considered is a policy whose scope fits the request.
type Considered struct {
	Policy *policy.Policy
}

// Explain answers a request and says why.
func (p *Program) Explain(req *Request) Explanation {
	return Explanation{Answer: p.Authorize(req)}
}
