package mcp

import (
	"encoding/json"
	"net/http"
)

// Headers of streamable HTTP.
const (
	HeaderProtocolVersion = "MCP-Protocol-Version"
	HeaderSession         = "Mcp-Session-Id"
	HeaderMethod          = "Mcp-Method"
	HeaderName            = "Mcp-Name"
	HeaderParamPrefix     = "Mcp-Param-"
	HeaderLastEventID     = "Last-Event-Id"
)

// A HeaderError says which header is missing or disagrees with the body. Its
// JSON-RPC code is [CodeHeaderMismatch].
type HeaderError struct {
	Header  string
	Message string // fit for the peer
}

func (e *HeaderError) Error() string { return e.Message }

// StandardHeaders returns the headers that a modern request mirrors from its
// body: version, method and name.
func StandardHeaders(m *Message) http.Header { return nil }

// ParamHeaders returns the Mcp-Param-* headers of a tools/call, which the
// tool's input schema asks for with x-mcp-header.
func ParamHeaders(m *Message, inputSchema json.RawMessage) (http.Header, error) { return nil, errTODO }

// CheckHeaders compares the headers of a modern request with its body. The
// input schema may be nil when the message is no tools/call.
func CheckHeaders(h http.Header, m *Message, inputSchema json.RawMessage) error { return errTODO }

func EncodeHeaderValue(s string) string          { return s }
func DecodeHeaderValue(s string) (string, error) { return "", errTODO }
