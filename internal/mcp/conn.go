package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// Errors of [Conn.Call] and [Conn.Send].
var (
	ErrNotSent     = errors.New("the message was not sent")
	ErrLost        = errors.New("the answer was lost")
	ErrSessionLost = errors.New("the server no longer knows the session")
)

// DefaultMaxMessage bounds one message when [Server].MaxMessage is zero.
const DefaultMaxMessage = 16 << 20

var errTODO = errors.New("mcp: not built yet")

// A Server says how to reach one upstream: exactly one of Command and URL.
type Server struct {
	Name       string
	Command    string
	Args       []string
	Env        []string
	Dir        string
	Stderr     io.Writer
	URL        string
	Header     http.Header
	Client     *http.Client
	MaxMessage int64
}

// CallOptions vary one [Conn.Call].
type CallOptions struct {
	Header http.Header
	On     func(*Message)
}

// A Reply is the answer to a call.
type Reply struct {
	Message *Message
	Status  int
	Header  http.Header
}

// A Conn is one conversation with a server.
type Conn struct{}

func Dial(ctx context.Context, s Server, era Era, onMessage func(*Message)) (*Conn, error) {
	return nil, errTODO
}
func (c *Conn) Call(ctx context.Context, req *Message, o CallOptions) (*Reply, error) {
	return nil, errTODO
}
func (c *Conn) Send(ctx context.Context, m *Message) error { return errTODO }
func (c *Conn) Done() <-chan struct{}                      { return nil }
func (c *Conn) Err() error                                 { return errTODO }
func (c *Conn) Close() error                               { return nil }
func (c *Conn) Session() string                            { return "" }

func ListTools(ctx context.Context, s Server) ([]json.RawMessage, error) { return nil, errTODO }

func Detect(ctx context.Context, s Server) (Era, json.RawMessage, error) {
	return Legacy, nil, errTODO
}
