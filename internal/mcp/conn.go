package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
)

// What became of a message that got no answer. Every error of [Conn.Call] and
// [Conn.Send] wraps exactly one of the two; when in doubt it is ErrLost.
var (
	// ErrNotSent: the message certainly never reached the server.
	ErrNotSent = errors.New("the message was not sent")
	// ErrLost: the message may have reached the server, which may have acted
	// on it.
	ErrLost = errors.New("the answer was lost")
)

// ErrSessionLost: the server no longer knows the session. The connection is
// done, and a new one must be initialized.
var ErrSessionLost = errors.New("the server no longer knows the session")

// ErrClosed is why a connection is done after [Conn.Close].
var ErrClosed = errors.New("the connection was closed")

// A StatusError is an HTTP answer that carries no message of the protocol.
type StatusError struct {
	Status int
	Header http.Header
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the server answered with HTTP status %d %s", e.Status, http.StatusText(e.Status))
}

// DefaultMaxMessage bounds one message, in bytes, where nothing else is said.
const DefaultMaxMessage = 16 << 20

// A Server says how to reach one upstream. Exactly one of Command and URL is
// set.
type Server struct {
	// Name is for error messages.
	Name string

	// Command is started with Args as a child in a process group of its own,
	// and spoken to over its standard input and output. Env is its whole
	// environment: nothing is inherited, because ours may hold secrets. Its
	// standard error goes to Stderr as it comes, or nowhere if Stderr is nil.
	Command string
	Args    []string
	Env     []string
	Dir     string
	Stderr  io.Writer

	// URL is the endpoint of a streamable HTTP server, and Header what is sent
	// with every request: our own credentials for the server. Redirects are
	// not followed, because they would carry these elsewhere. A nil Client
	// means a new one; a Timeout of the Client also ends long streams.
	URL    string
	Header http.Header
	Client *http.Client

	// MaxMessage bounds one message from the server, in bytes; 0 means
	// DefaultMaxMessage. A longer one is an error.
	MaxMessage int64
}

// CallOptions vary one [Conn.Call].
type CallOptions struct {
	// Header is sent with the call over HTTP in the modern era, beside the
	// standard headers. Only Mcp-* headers are taken from it.
	Header http.Header
	// On gets the messages that belong to this call, in order, before Call
	// returns: over HTTP what comes on the call's own stream, over stdio what
	// is tagged with its subscription. Nil means the connection's onMessage.
	On func(*Message)
}

// A Reply is the answer to a call: a result or an error of the protocol.
type Reply struct {
	Message *Message
	// Status and Header are those of the HTTP answer; over stdio, 200 and none.
	Status int
	Header http.Header
}

// A Conn is one conversation with a server. It is safe for concurrent use.
type Conn struct {
	name      string
	link      link
	ending    *ending
	onMessage func(*Message)
	lastID    atomic.Int64
}

// A link is one of the two transports.
type link interface {
	call(ctx context.Context, k *call) (*Reply, error)
	send(ctx context.Context, m *Message) error
	session() string
	close() error
}

// Dial starts the server's process, or prepares to reach it over HTTP; it
// sends nothing by itself. The ctx is for Dial alone. The era matters over
// HTTP only: the connection's headers and streams follow it.
//
// OnMessage gets, in order, what the server sends outside calls: over stdio
// everything but responses, over HTTP in the legacy era what comes on the
// stream that is opened when notifications/initialized has been sent. It runs
// on the goroutine that reads, so all messages that came before a reply have
// been handed over when Call returns; for the same reason it must return soon,
// and must not itself wait for a Call or for Close. Over HTTP it may run for
// several streams at once. Nil drops the messages.
func Dial(ctx context.Context, s Server, era Era, onMessage func(*Message)) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to %q: %w: %w", s.Name, ErrNotSent, err)
	}
	if onMessage == nil {
		onMessage = func(*Message) {}
	}
	c := &Conn{name: s.Name, ending: &ending{done: make(chan struct{})}, onMessage: onMessage}
	var err error
	switch {
	case (s.Command == "") == (s.URL == ""):
		err = errors.New("exactly one of a command and a URL is needed")
	case s.Command != "":
		c.link, err = dialStdio(s, c.ending, onMessage, closeGrace)
	default:
		c.link, err = dialHTTP(s, era, c.ending, onMessage)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w: %w", s.Name, ErrNotSent, err)
	}
	return c, nil
}

// Call sends a request and waits for its response, which has the request's own
// id; on the wire, the id is one that is unique on the connection.
//
// When ctx ends first, the server is told to cancel (except for initialize,
// which the protocol does not let a client cancel) and the error is ErrLost
// with ctx's cause. All errors wrap [ErrNotSent] or [ErrLost], and over HTTP
// maybe [ErrSessionLost] or a [*StatusError].
func (c *Conn) Call(ctx context.Context, req *Message, o CallOptions) (*Reply, error) {
	if !req.IsRequest() {
		return nil, fmt.Errorf("call %q: %w: the message is not a request", c.name, ErrNotSent)
	}
	if err := c.usable(ctx); err != nil {
		return nil, fmt.Errorf("call %q of %q: %w", req.Method(), c.name, err)
	}
	wire := strconv.AppendInt(nil, c.lastID.Add(1), 10)
	k := &call{req: req.WithID(wire), wire: wire, own: req.ID(), header: o.Header, on: o.On}
	if k.on == nil {
		k.on = c.onMessage
	}
	r, err := c.link.call(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("call %q of %q: %w", req.Method(), c.name, err)
	}
	r.Message = k.answer(r.Message)
	return r, nil
}

// Send sends a notification, or the response to a request of the server. It
// refuses notifications/cancelled: only the connection knows the ids on the
// wire, and a call is cancelled by ending its ctx.
func (c *Conn) Send(ctx context.Context, m *Message) error {
	var err error
	switch {
	case m.IsRequest():
		err = fmt.Errorf("%w: a request must be called", ErrNotSent)
	case m.Method() == methodCancelled:
		err = fmt.Errorf("%w: a call is cancelled by ending its context", ErrNotSent)
	default:
		err = c.usable(ctx)
	}
	if err == nil {
		err = c.link.send(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("send to %q: %w", c.name, err)
	}
	return nil
}

func (c *Conn) usable(ctx context.Context) error {
	if err := c.ending.reason(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	return nil
}

// Session returns the id of the session that a legacy HTTP server gave, or "".
func (c *Conn) Session() string { return c.link.session() }

// Done is closed when the connection can no longer be used: it was closed, the
// process ended, or the session is lost.
func (c *Conn) Done() <-chan struct{} { return c.ending.done }

// Err returns why the connection is done, or nil while it is not.
func (c *Conn) Err() error { return c.ending.reason() }

// Close ends the conversation and waits until nothing is left of it. Over
// stdio it closes the server's input and waits, then terminates and at last
// kills its process group. Over HTTP it ends the session. Calls in flight fail.
func (c *Conn) Close() error {
	c.ending.end(ErrClosed)
	if err := c.link.close(); err != nil {
		return fmt.Errorf("close connection to %q: %w", c.name, err)
	}
	return nil
}

// An ending is how a connection becomes done: once, for one reason.
type ending struct {
	once sync.Once
	done chan struct{}
	err  error // set before done is closed
}

func (e *ending) end(err error) {
	e.once.Do(func() {
		e.err = err
		close(e.done)
	})
}

// reason returns why the connection is done, or nil.
func (e *ending) reason() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

// Methods that a transport treats in a way of its own.
const (
	methodInitialize  = "initialize"
	methodInitialized = "notifications/initialized"
	methodCancelled   = "notifications/cancelled"
	methodListen      = "subscriptions/listen"
)

// A call is a request on its way.
type call struct {
	req    *Message // with the wire's id
	wire   json.RawMessage
	own    json.RawMessage
	header http.Header
	on     func(*Message)
}

// answers reports whether a message is the response to the call. Alone on a
// stream of the call's own, an error without an id is, too.
func (k *call) answers(m *Message, alone bool) bool {
	if !m.IsResponse() {
		return false
	}
	id := string(m.ID())
	return id == string(k.wire) || alone && m.Error() != nil && (id == "" || id == "null")
}

// answer returns the response as the caller is to see it.
func (k *call) answer(m *Message) *Message {
	if r, ok := k.retag(m.Result()); ok {
		m = m.WithResult(r)
	}
	return m.WithID(k.own)
}

// deliver hands over a message that belongs to the call.
func (k *call) deliver(m *Message) {
	if p, ok := k.retag(m.Params()); ok {
		m = m.WithParams(p)
	}
	if k.cancelledBy(m) {
		// Set cannot fail: requestId has just been read from these params.
		if p, err := Set(m.Params(), k.own, "requestId"); err == nil {
			m = m.WithParams(p)
		}
	}
	k.on(m)
}

// retag gives what belongs to a subscription the caller's id of it. The
// server tags it with the id that it knows (MCP 2026-07-28, Subscriptions).
func (k *call) retag(obj json.RawMessage) (json.RawMessage, bool) {
	if !k.tags(obj) {
		return nil, false
	}
	out, err := Set(obj, k.own, "_meta", MetaSubscriptionID)
	return out, err == nil
}

func (k *call) tags(obj json.RawMessage) bool {
	if k.req.Method() != methodListen {
		return false
	}
	tag, ok := Get(obj, "_meta", MetaSubscriptionID)
	return ok && string(tag) == string(k.wire)
}

// cancelledBy reports whether a message is the server's end of the
// subscription that the call is.
func (k *call) cancelledBy(m *Message) bool {
	if k.req.Method() != methodListen || m.Method() != methodCancelled {
		return false
	}
	id, ok := Get(m.Params(), "requestId")
	return ok && string(id) == string(k.wire)
}

func cancelled(wire json.RawMessage) *Message {
	params := append(append([]byte(`{"requestId":`), wire...), `,"reason":"the caller went away"}`...)
	return NewNotification(methodCancelled, params)
}

func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }

func lost(err error) error { return fmt.Errorf("%w: %w", ErrLost, err) }
