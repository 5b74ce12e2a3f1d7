package mcp

// An Era is one of the two shapes that the protocol has had.
type Era int

// The eras.
const (
	// Legacy is 2025-11-25 and earlier: initialize, sessions.
	Legacy Era = iota
	// Modern is 2026-07-28 and later: stateless, every request carries its
	// version in _meta.
	Modern
)

// Protocol versions.
const (
	ModernVersion = "2026-07-28"
	LegacyVersion = "2025-11-25"
)

// Keys of _meta that the protocol defines.
const (
	MetaProtocolVersion    = "io.modelcontextprotocol/protocolVersion"
	MetaClientInfo         = "io.modelcontextprotocol/clientInfo"
	MetaClientCapabilities = "io.modelcontextprotocol/clientCapabilities"
	MetaServerInfo         = "io.modelcontextprotocol/serverInfo"
	MetaSubscriptionID     = "io.modelcontextprotocol/subscriptionId"
	MetaLogLevel           = "io.modelcontextprotocol/logLevel"
)
