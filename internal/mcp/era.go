package mcp

import "slices"

// An Era is one of the two shapes that the protocol has had.
type Era int

// The eras.
const (
	// Legacy is 2025-11-25 and before: initialize, sessions.
	Legacy Era = iota
	// Modern is 2026-07-28 and later: stateless, and every request carries its
	// version in _meta.
	Modern
)

// String returns "legacy" or "modern".
func (e Era) String() string {
	if e == Modern {
		return "modern"
	}
	return "legacy"
}

// The newest version of each era.
const (
	ModernVersion = "2026-07-28"
	LegacyVersion = "2025-11-25"
)

// legacyVersions are the versions of the legacy era that streamable HTTP and
// stdio servers speak.
var legacyVersions = [...]string{LegacyVersion, "2025-06-18", "2025-03-26", "2024-11-05"}

func isLegacyVersion(v string) bool { return slices.Contains(legacyVersions[:], v) }

// Keys of _meta that the protocol defines.
const (
	MetaProtocolVersion    = "io.modelcontextprotocol/protocolVersion"
	MetaClientInfo         = "io.modelcontextprotocol/clientInfo"
	MetaClientCapabilities = "io.modelcontextprotocol/clientCapabilities"
	MetaServerInfo         = "io.modelcontextprotocol/serverInfo"
	MetaSubscriptionID     = "io.modelcontextprotocol/subscriptionId"
	MetaLogLevel           = "io.modelcontextprotocol/logLevel"
)
