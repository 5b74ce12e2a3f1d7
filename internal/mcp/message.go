// Package mcp carries Model Context Protocol messages without deciding
// anything.
package mcp

import (
	"encoding/json"
	"errors"
)

// MaxDepth is the deepest nesting of objects and arrays that [Parse] accepts.
const MaxDepth = 128

// JSON-RPC 2.0 error codes.
const (
	CodeParseError     = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternalError  = -32603
	// CodeHeaderMismatch: a mirrored header disagrees with the body (MCP
	// 2026-07-28).
	CodeHeaderMismatch = -32020
)

// A SyntaxError says why bytes are not a message.
type SyntaxError struct {
	Code    int    // JSON-RPC code
	Message string // fit for the peer
}

func (e *SyntaxError) Error() string { return e.Message }

// A Message is one JSON-RPC message. It is immutable.
type Message struct{ raw []byte }

var errTODO = errors.New("mcp: not built yet")

func Parse(b []byte) (*Message, error)                                              { return nil, errTODO }
func NewRequest(id json.RawMessage, method string, params json.RawMessage) *Message { return nil }
func NewNotification(method string, params json.RawMessage) *Message                { return nil }
func NewResult(id, result json.RawMessage) *Message                                 { return nil }
func NewError(id json.RawMessage, code int, message string, data any) *Message      { return nil }

func (m *Message) ID() json.RawMessage                        { return nil }
func (m *Message) Method() string                             { return "" }
func (m *Message) Params() json.RawMessage                    { return nil }
func (m *Message) Result() json.RawMessage                    { return nil }
func (m *Message) Error() json.RawMessage                     { return nil }
func (m *Message) IsRequest() bool                            { return false }
func (m *Message) IsNotification() bool                       { return false }
func (m *Message) IsResponse() bool                           { return false }
func (m *Message) WithID(id json.RawMessage) *Message         { return nil }
func (m *Message) WithParams(params json.RawMessage) *Message { return nil }
func (m *Message) WithResult(result json.RawMessage) *Message { return nil }
func (m *Message) Bytes() []byte                              { return m.raw }

func Get(obj json.RawMessage, path ...string) (json.RawMessage, bool) { return nil, false }
func GetString(obj json.RawMessage, path ...string) string            { return "" }
func Set(obj json.RawMessage, value json.RawMessage, path ...string) (json.RawMessage, error) {
	return nil, errTODO
}
func Delete(obj json.RawMessage, path ...string) (json.RawMessage, error) { return nil, errTODO }
