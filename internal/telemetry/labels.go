package telemetry

import (
	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// other is the label of what is not in the lists below. A gate in another
// process names itself, and no caller decides how many series there are.
const other = "other"

func gates() []string {
	return []string{"authzen", "ext_authz", "forward_auth", "http", gateMCP, gateStdio, "remote", "token"}
}

// The gates whose actions are MCP tools.
const (
	gateMCP   = "mcp-http"
	gateStdio = "mcp-stdio"
)

func steps() []string {
	return []string{
		pdp.StepIdentity, pdp.StepSession, pdp.StepCatalog, pdp.StepEntities, pdp.StepPolicy, pdp.StepRemedies, pdp.StepRecord,
	}
}

func kinds() []string {
	return []string{string(authz.FactApproval), string(authz.FactLevel), string(authz.FactFresh), string(authz.FactElevation), string(authz.FactScope)}
}

func reasons() []string {
	return []string{
		authz.ReasonPolicyAllow, authz.ReasonNoPermit, authz.ReasonForbidden, authz.ReasonPolicyError, authz.ReasonPolicyUnavailable,
		authz.ReasonUnauthenticated, authz.ReasonIdentityDown, authz.ReasonSessionDown, authz.ReasonSessionMismatch,
		authz.ReasonToolUnknown, authz.ReasonToolChanged, authz.ReasonInputInvalid, authz.ReasonAuditDown, authz.ReasonDeadline,
		authz.ReasonInternal, authz.ReasonObligationUnmet, authz.ReasonMethodUnknown, authz.ReasonPDPDown, authz.ReasonUpstreamDown,
		authz.ReasonHeaderMismatch, authz.ReasonAssertion, authz.ReasonEntitiesDown, authz.ReasonOverloaded,
		authz.ReasonAgentSuspended, authz.ReasonSessionSuspended, authz.ReasonOwnerSuspended, authz.ReasonToolSuspended,
		authz.ReasonServerSuspended, authz.ReasonGroupSuspended, authz.ReasonKilled, authz.ReasonRevocationUnknown,
		authz.ReasonBudgetExhausted, authz.ReasonBreakerOpen, authz.ReasonBudgetDown,
		authz.ReasonAgentRetired, authz.ReasonAgentUnknown,
	}
}

// A closed holds what belongs to each name of a list, and to all others.
type closed[T any] struct {
	named map[string]T
	other T
}

func newClosed[T any](names []string, resolve func(label string) T) closed[T] {
	c := closed[T]{named: make(map[string]T, len(names)), other: resolve(other)}
	for _, name := range names {
		c.named[name] = resolve(name)
	}
	return c
}

func (c closed[T]) of(name string) T {
	if v, ok := c.named[name]; ok {
		return v
	}
	return c.other
}

func itself(label string) string { return label }
