package identity

import (
	"fmt"
)

// actors reads who acts, for whom, and who has handed the task on (RFC 8693
// §4.1): sub is the party for whom, act who acts now, and each act within it
// who acted before.
//
// A chain that ends in the subject itself, as the tokens of our own exchange
// do when no person is involved, names no person. A subject that the registry
// knows as an agent is one of the chain ([Verifier.admit]).
func (i *issuer) actors(c claims) (agent, person string, earlier []Subject, err error) {
	if _, delegated := c["act"]; !delegated {
		if agent = c.text(i.AgentClaim); !agentID.MatchString(agent) {
			return "", "", nil, fmt.Errorf("claim %q does not name an agent: %w", i.AgentClaim, ErrUnauthenticated)
		}
		if i.SubjectClaim != "" {
			person = c.text(i.SubjectClaim)
		}
		return agent, person, nil, nil
	}
	person = c.text("sub")
	if person == "" {
		return "", "", nil, fmt.Errorf("the token names who acts and not for whom: %w", ErrUnauthenticated)
	}
	var chain []string
	for act, more := c["act"], true; more; {
		if len(chain) == i.maxChain {
			return "", "", nil, fmt.Errorf("the task was handed on by more than %d agents: %w", i.maxChain, ErrUnauthenticated)
		}
		a, ok := act.(map[string]any)
		if !ok {
			return "", "", nil, fmt.Errorf("an act claim is not an object: %w", ErrUnauthenticated)
		}
		id, err := i.actor(a)
		if err != nil {
			return "", "", nil, err
		}
		chain = append(chain, id)
		act, more = a["act"]
	}
	if person == chain[len(chain)-1] {
		person = ""
	}
	for _, id := range chain[1:] {
		earlier = append(earlier, Subject{Agent: id})
	}
	return chain[0], person, earlier, nil
}

// actor is the id of one act claim.
func (i *issuer) actor(a map[string]any) (string, error) {
	id, _ := a["sub"].(string)
	if !agentID.MatchString(id) {
		return "", fmt.Errorf("an act claim does not name an agent: %w", ErrUnauthenticated)
	}
	// RFC 8693 §4.1: sub and iss together may be what identifies the actor. The
	// agents of another issuer are not ours.
	if iss, ok := a["iss"]; ok && iss != i.Issuer.Issuer {
		return "", fmt.Errorf("an act claim names an agent of another issuer: %w", ErrUnauthenticated)
	}
	return id, nil
}

// mayAct reads the may_act claim (RFC 8693 §4.4).
func mayAct(claim any) (string, error) {
	if claim == nil {
		return "", nil
	}
	a, _ := claim.(map[string]any)
	id, _ := a["sub"].(string)
	if !agentID.MatchString(id) {
		return "", fmt.Errorf("the may_act claim does not name an agent: %w", ErrUnauthenticated)
	}
	return id, nil
}
