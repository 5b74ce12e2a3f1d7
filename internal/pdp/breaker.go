package pdp

import (
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
)

// admitted asks the breakers of the agent and the tool, and of the server. What
// belongs to the protocol itself has none, nor has what a PEP asks about its
// application: its users are no agents that run away, and nobody reports what
// became of it.
func (c *inquiry) admitted() (message string, ok bool) {
	if c.p.Breakers == nil || c.op == nil || c.op.Application != "" || strings.HasPrefix(c.op.Action, "mcp:") {
		return "", true
	}
	call, stopped := c.p.Breakers.Admit(owner(c.who.Subject), c.op.Action, c.req.Server, c.now)
	if stopped == nil {
		c.call = call
		return "", true
	}
	what := quoted(c.op.Action) + " has failed too often for this agent"
	if stopped.Server != "" {
		what = "The server " + quoted(stopped.Server) + " has failed too often"
	}
	return what + "; it is tried again from " + stopped.Until.UTC().Format(time.RFC3339) + " on.", false
}

// tripped says what the breakers learn of a decision that is on the record.
func (c *inquiry) tripped(released bool, fault error) {
	switch {
	case fault != nil: // ours
		c.call.Abandoned(c.now)
	case !released:
		c.call.Denied(c.now)
	case c.req.Advisory: // nobody is going to report on it
		c.call.Abandoned(c.now)
	default:
		c.call.Released(c.record.Decision)
	}
}

// result is what an outcome says of the tool and the server.
func result(out authz.Outcome) breaker.Result {
	switch {
	case out.Status == authz.OutcomeSuccess:
		return breaker.Good
	case out.Status == authz.OutcomeError:
		return breaker.Bad
	case out.Ours:
		return breaker.Neutral
	default:
		return breaker.Broken
	}
}
