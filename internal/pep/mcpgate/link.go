package mcpgate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A link is a client's conversation with one upstream, in the client's era.
type link interface {
	// ready reports whether the conversation is open.
	ready() bool
	// open opens it.
	open(ctx context.Context, r *request) error
	// closed says why it should not be opened now, and stayClosed makes it say
	// so for a while: because of a denial, or of a failure if there was none.
	closed() *refusal
	stayClosed(*refusal)
	// definition returns what the server says about a tool.
	definition(ctx context.Context, name string) (definition, error)
	// call sends a request that may go, and returns the answer. Without an
	// answer the error wraps [mcp.ErrNotSent] if the server certainly never saw
	// the request; any other error leaves that open.
	call(ctx context.Context, c *call) (*reply, error)
	// listen passes on what the server says outside of requests, as far as it
	// is wanted, until ctx ends. It returns what the server is going to say.
	listen(ctx context.Context, want subscription, emit func(*mcp.Message)) (subscription, error)
	// offers reports whether the server lists a resource, or a template that it
	// fits.
	offers(ctx context.Context, uri string) (listed, fits bool)
	// about returns the server's capabilities, once the link is ready.
	about() description
}

// A call is a released request on its way to a server.
type call struct {
	request *request
	msg     *mcp.Message
	schema  json.RawMessage // of the tool that is called
}

// tell passes a message of the server about this call on to the client.
func (c *call) tell(m *mcp.Message) {
	if c.request != nil && c.request.tell != nil {
		c.request.tell(m)
	}
}

// A reply is a server's answer.
type reply struct {
	msg    *mcp.Message
	status int
	events bool // it came on a stream
	// parked is set when the answer only asks for input: the call goes on, and
	// its outcome is not known yet.
	parked *running
}

// A description is what a server says about itself.
type description struct {
	version      string
	versions     []string // modern: supported versions
	capabilities json.RawMessage
	info         json.RawMessage
	instructions string
	whole        json.RawMessage // the result it was said in
}

func (d description) has(capability ...string) bool {
	v, ok := mcp.Get(d.capabilities, capability...)
	return ok && string(v) != "false" && string(v) != "null"
}

func describeInitialize(result json.RawMessage) description {
	d := description{whole: result, version: mcp.GetString(result, "protocolVersion"), instructions: mcp.GetString(result, "instructions")}
	d.capabilities, _ = mcp.Get(result, "capabilities")
	d.info, _ = mcp.Get(result, "serverInfo")
	return d
}

func describeDiscover(result json.RawMessage) description {
	d := description{whole: result, version: mcp.ModernVersion, instructions: mcp.GetString(result, "instructions")}
	d.capabilities, _ = mcp.Get(result, "capabilities")
	d.info, _ = mcp.Get(result, "_meta", mcp.MetaServerInfo)
	if v, ok := mcp.Get(result, "supportedVersions"); ok {
		_ = json.Unmarshal(v, &d.versions) // none is what an odd list supports
	}
	return d
}

// A wire is a conversation with a server in the server's own era, and what the
// gate knows about its tools.
type wire struct {
	up   *upstream
	era  mcp.Era
	conn *mcp.Conn
	desc description
	defs *definitions

	resources *offered
	// waiting holds one for each answer to a question of the server that waits
	// to be sent.
	waiting chan struct{}
	flooded sync.Once
}

// maxWaiting is how many answers may wait for a server that asks and does not
// read. One that goes on asking is cut off.
const maxWaiting = 256

// dial begins a conversation. What the server says outside of calls goes to
// hear, which must not wait for the conversation itself.
func (up *upstream) dial(ctx context.Context, era mcp.Era, hear func(*wire, *mcp.Message)) (*wire, error) {
	w := &wire{up: up, era: era, waiting: make(chan struct{}, maxWaiting)}
	set := make(chan struct{}) // closed when w is complete
	conn, err := mcp.Dial(ctx, up.server, era, func(m *mcp.Message) {
		<-set
		w.notice(m)
		hear(w, m)
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mcp.ErrNotSent, err)
	}
	w.conn = conn
	w.defs = newDefinitions(up.gate.limits.Refresh, func(ctx context.Context) ([]json.RawMessage, error) {
		ctx, cancel := context.WithTimeout(ctx, up.gate.limits.Connect)
		defer cancel()
		return listAll(ctx, methodTools, "tools", w.own, w.ownParams())
	})
	w.resources = &offered{refresh: up.gate.limits.Refresh, list: func(ctx context.Context, method, member string) ([]json.RawMessage, error) {
		ctx, cancel := context.WithTimeout(ctx, up.gate.limits.Connect)
		defer cancel()
		return listAll(ctx, method, member, w.own, w.ownParams())
	}}
	close(set)
	return w, nil
}

// notice is what the gate itself learns from a message of the server.
func (w *wire) notice(m *mcp.Message) {
	kind, _ := listKindOf(m.Method())
	switch kind.capability {
	case "tools":
		w.defs.changed()
	case "resources":
		w.resources.changed()
	}
}

func (w *wire) definition(ctx context.Context, name string) (definition, error) {
	return w.defs.get(ctx, name)
}

// own makes a request of the gate's own.
func (w *wire) own(ctx context.Context, m *mcp.Message) (*reply, error) {
	return w.roundTrip(ctx, m, nil, func(m *mcp.Message) {
		if m.IsRequest() && w.era == mcp.Legacy {
			w.decline(m)
		}
	})
}

// decline answers a question that nobody can be asked. It does not wait: it may
// be called where the server's messages are read.
func (w *wire) decline(q *mcp.Message) {
	w.answerLater(func() {
		ctx, cancel := context.WithTimeout(w.up.gate.life, farewell)
		defer cancel()
		if err := w.conn.Send(ctx, declined(q)); err != nil {
			w.up.gate.log.Warn("answer not sent", "server", w.up.name(), "error", err)
		}
	})
}

// answerLater does what answers a question of the server, where its messages must be
// read on meanwhile.
func (w *wire) answerLater(do func()) {
	select {
	case w.waiting <- struct{}{}:
	default:
		w.flooded.Do(func() {
			w.up.gate.log.Warn("upstream cut off: it asks without reading the answers", "server", w.up.name())
			w.up.gate.goDo(w.close)
		})
		return
	}
	ok := w.up.gate.goDo(func() {
		defer func() { <-w.waiting }()
		do()
	})
	if !ok {
		<-w.waiting
	}
}

// ownParams are the params of the gate's own requests.
func (w *wire) ownParams() json.RawMessage {
	if w.era == mcp.Legacy {
		return json.RawMessage("{}")
	}
	return ownMeta(nil, nil)
}

// ownMeta are params with the _meta that every modern request needs.
func ownMeta(info, capabilities json.RawMessage) json.RawMessage {
	if info == nil {
		info = gateInfo
	}
	if capabilities == nil {
		capabilities = json.RawMessage("{}")
	}
	return raw(map[string]any{"_meta": map[string]any{
		mcp.MetaProtocolVersion:    mcp.ModernVersion,
		mcp.MetaClientInfo:         info,
		mcp.MetaClientCapabilities: capabilities,
	}})
}

// gateInfo names the gate where the protocol asks for an implementation.
var gateInfo = json.RawMessage(`{"name":"bailiwick","version":"1"}`)

// call sends a request of a client and waits for its answer.
func (w *wire) call(ctx context.Context, m *mcp.Message, h http.Header, on func(*mcp.Message)) (*reply, error) {
	rep, err := w.roundTrip(ctx, m, h, on)
	if err == nil && m.Method() == methodTools {
		tools, _ := listPage(rep.msg.Result(), "tools")
		w.defs.learn(tools)
	}
	return rep, err
}

func (w *wire) roundTrip(ctx context.Context, m *mcp.Message, h http.Header, on func(*mcp.Message)) (*reply, error) {
	rep, err := w.conn.Call(ctx, m, mcp.CallOptions{Header: h, On: func(m *mcp.Message) {
		w.notice(m)
		on(m)
	}})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return nil, err
	}
	return &reply{msg: rep.Message, status: rep.Status, events: strings.HasPrefix(rep.Header.Get("Content-Type"), "text/event-stream")}, nil
}

func (w *wire) alive() bool {
	select {
	case <-w.conn.Done():
		return false
	default:
		return true
	}
}

func (w *wire) close() {
	if err := w.conn.Close(); err != nil {
		w.up.gate.log.Debug("upstream closed with an error", "server", w.up.name(), "error", err)
	}
}

// paramHeaders are the client's Mcp-Param-* headers, which go on to a modern
// server whether the gate knows them or not (MCP 2026-07-28, Streamable HTTP).
func paramHeaders(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if len(name) > len(mcp.HeaderParamPrefix) && strings.EqualFold(name[:len(mcp.HeaderParamPrefix)], mcp.HeaderParamPrefix) {
			out[name] = values
		}
	}
	return out
}

// checkParamHeaders compares the headers that mirror a tool's arguments with
// the arguments. A legacy client has no such headers.
func checkParamHeaders(r *request, t target, def definition) *refusal {
	if r.header == nil || r.client.era == mcp.Legacy || t.msg.Method() != methodCall || def.schema == nil {
		return nil
	}
	if err := mcp.CheckHeaders(r.header, r.msg, def.schema); err != nil {
		return refuse(authz.ReasonHeaderMismatch, err.Error())
	}
	return nil
}
