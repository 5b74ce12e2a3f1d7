package telemetry

import "go.opentelemetry.io/otel/attribute"

// Keys of our own: OpenTelemetry has no conventions for authorization.
const (
	keyDecision = attribute.Key("authz.decision") // "allow" or "deny", as answered
	keyObserved = attribute.Key("authz.observed") // true: policy denied, and observe mode let it through
	keyID       = attribute.Key("authz.decision.id")
	keyReason   = attribute.Key("authz.reason")
	keyVersion  = attribute.Key("authz.policy.version")
	keyGate     = attribute.Key("authz.gate")
)

// Keys of the GenAI conventions (open-telemetry/semantic-conventions-genai,
// status Development: they may change, and then they change here).
const (
	keyOperation = attribute.Key("gen_ai.operation.name")
	keyTool      = attribute.Key("gen_ai.tool.name")

	executeTool = "execute_tool"
)
