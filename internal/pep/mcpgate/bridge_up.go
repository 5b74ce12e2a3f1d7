package mcpgate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Bounds of the rounds that a modern server may ask for input in one request.
const (
	inputRounds = 16
	busyRounds  = 3 // rounds in which it asks for nothing but to be asked again
	busyPause   = 500 * time.Millisecond
)

// upward is a legacy client's conversation with a modern server: the gate
// remembers what the server does not, and turns a result that asks for input
// into the questions that a legacy server would have asked.
type upward struct {
	link    *modernLink
	session *session
	// What the client has said in initialize, which every request carries.
	info, capabilities json.RawMessage

	mu      sync.Mutex
	level   string   // of logging/setLevel
	uris    []string // of resources/subscribe
	hearing context.CancelFunc
	asked   bool // the client has said that it is ready
}

// initializeModern begins a conversation with a modern server for a legacy
// client, and answers initialize in its place.
func (l *sessionLink) initializeModern(ctx context.Context, c *call) (*reply, error) {
	m, err := l.up.dialModern(l.session.life)
	if err != nil {
		return nil, err
	}
	params := c.msg.Params()
	u := &upward{link: m, session: l.session}
	u.info, _ = mcp.Get(params, "clientInfo")
	u.capabilities, _ = mcp.Get(params, "capabilities")
	if err := m.discover(ctx, ownMeta(u.info, u.capabilities)); err != nil {
		m.close()
		return nil, err
	}
	l.keep(u)
	version := mcp.GetString(params, "protocolVersion")
	if !slices.Contains(legacyVersions, version) {
		version = mcp.LegacyVersion
	}
	return &reply{msg: mcp.NewResult(c.msg.ID(), initializeResult(m.about(), version)), status: http.StatusOK}, nil
}

// initializeResult says in a legacy server's words what a modern one has said
// about itself.
func initializeResult(d description, version string) json.RawMessage {
	result := del(d.whole, "resultType")
	for _, key := range []string{"supportedVersions", "ttlMs", "cacheScope"} {
		result = del(result, key)
	}
	info := d.info
	if info == nil {
		info = json.RawMessage(`{"name":"unknown","version":"0"}`)
	}
	result = set(result, info, "serverInfo")
	return set(result, raw(version), "protocolVersion")
}

func (u *upward) definition(ctx context.Context, name string) (definition, error) {
	return u.link.definition(ctx, name)
}
func (u *upward) offers(ctx context.Context, uri string) (listed, fits bool) {
	return u.link.offers(ctx, uri)
}
func (u *upward) about() description { return u.link.about() }
func (u *upward) alive() bool        { return u.link.ready() }

func (u *upward) close() {
	u.mu.Lock()
	if u.hearing != nil {
		u.hearing()
	}
	u.mu.Unlock()
	u.link.close()
}

// send takes a notification of the client. A modern server has no use for any.
func (u *upward) send(_ context.Context, m *mcp.Message) error {
	if m.Method() == noteInitialized {
		u.mu.Lock()
		u.asked = true
		u.mu.Unlock()
		u.hear()
	}
	return nil
}

// hear opens the stream of what the server says outside of requests.
func (u *upward) hear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.hearing != nil {
		u.hearing()
	}
	if !u.asked {
		return
	}
	want := subscription{lists: map[string]bool{}, uris: slices.Clone(u.uris)}
	for _, k := range listKinds {
		if u.link.about().has(k.capability, "listChanged") {
			want.lists[k.filter] = true
		}
	}
	if want.empty() {
		return
	}
	ctx, cancel := context.WithCancel(u.session.life)
	u.hearing = cancel
	u.session.gate.goDo(func() {
		_, err := u.link.listen(ctx, want, func(m *mcp.Message) {
			u.session.sayAside(m.WithParams(del(m.Params(), "_meta", mcp.MetaSubscriptionID)))
		})
		if err != nil {
			u.session.gate.log.Info("no subscription", "server", u.link.wire.up.name(), "error", err)
		}
	})
}

func (u *upward) call(ctx context.Context, c *call) (*reply, error) {
	switch c.msg.Method() {
	case methodPing:
		return done(c.msg, nil)
	case methodSetLevel:
		u.mu.Lock()
		u.level = mcp.GetString(c.msg.Params(), "level")
		u.mu.Unlock()
		return done(c.msg, nil)
	case methodSubscribe, methodUnsubscribe:
		return u.subscribe(c)
	}
	return u.rounds(ctx, c)
}

func done(req *mcp.Message, result json.RawMessage) (*reply, error) {
	if result == nil {
		result = json.RawMessage("{}")
	}
	return &reply{msg: mcp.NewResult(req.ID(), result), status: http.StatusOK}, nil
}

func (u *upward) subscribe(c *call) (*reply, error) {
	uri := mcp.GetString(c.msg.Params(), "uri")
	u.mu.Lock()
	u.uris = slices.DeleteFunc(u.uris, func(s string) bool { return s == uri })
	if c.msg.Method() == methodSubscribe {
		u.uris = append(u.uris, uri)
	}
	u.mu.Unlock()
	u.hear()
	return done(c.msg, nil)
}

// rounds sends a request, and sends it again with the client's answers for as
// long as the server asks for input. All of it is the one request that was
// decided.
func (u *upward) rounds(ctx context.Context, c *call) (*reply, error) {
	params := u.withMeta(c.msg.Params())
	busy := 0
	for range inputRounds {
		m := c.msg.WithParams(params)
		rep, err := u.once(ctx, c, m)
		if err != nil || mcp.GetString(rep.msg.Result(), "resultType") != "input_required" {
			return rep, err
		}
		asks, hasAsks := mcp.Get(rep.msg.Result(), "inputRequests")
		state, hasState := mcp.Get(rep.msg.Result(), "requestState")
		params = del(del(params, "inputResponses"), "requestState")
		if hasState {
			params = set(params, state, "requestState")
		}
		if questions := members(asks); hasAsks && len(questions) > 0 {
			answers, err := u.askAll(ctx, c, questions)
			if err != nil {
				return nil, err
			}
			params = set(params, answers, "inputResponses")
			continue
		}
		if busy++; busy > busyRounds {
			break
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", mcp.ErrLost, context.Cause(ctx))
		}
	}
	return nil, fmt.Errorf("%w: the server asks for input without end", mcp.ErrLost)
}

// once sends one round.
func (u *upward) once(ctx context.Context, c *call, m *mcp.Message) (*reply, error) {
	var h http.Header
	if m.Method() == methodCall {
		var err error
		if h, err = mcp.ParamHeaders(m, c.schema); err != nil {
			return nil, fmt.Errorf("%w: %w", mcp.ErrNotSent, refuse(reasonParams, "The arguments cannot be sent: "+err.Error()+"."))
		}
	}
	defer u.link.watch(m.Params(), c.tell)()
	return u.link.wire.call(ctx, m, h, func(m *mcp.Message) { u.link.pass(m, c.tell) })
}

// withMeta adds what every modern request carries.
func (u *upward) withMeta(params json.RawMessage) json.RawMessage {
	params = set(params, raw(mcp.ModernVersion), "_meta", mcp.MetaProtocolVersion)
	if u.info != nil {
		params = set(params, u.info, "_meta", mcp.MetaClientInfo)
	}
	caps := u.capabilities
	if caps == nil {
		caps = json.RawMessage("{}")
	}
	params = set(params, caps, "_meta", mcp.MetaClientCapabilities)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.level != "" {
		params = set(params, raw(u.level), "_meta", mcp.MetaLogLevel)
	}
	return params
}

// askAll puts the server's questions to the client, all at once, and returns
// the answers under the same keys.
func (u *upward) askAll(ctx context.Context, c *call, questions map[string]json.RawMessage) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, u.session.gate.limits.Answer)
	defer cancel()
	type answered struct {
		key string
		msg *mcp.Message
	}
	ch := make(chan answered, len(questions))
	for key, q := range questions {
		method := mcp.GetString(q, "method")
		if !mayAsk(u.capabilities, method) {
			return nil, refuse(reasonUpstreamLost, "The server asks for "+quote(method)+", which the client cannot do.")
		}
		params, _ := mcp.Get(q, "params")
		forget, err := c.request.ask(mcp.NewRequest(json.RawMessage("0"), method, params), func(m *mcp.Message) {
			ch <- answered{key, m}
		})
		if err != nil {
			return nil, err
		}
		defer forget()
	}
	answers := json.RawMessage("{}")
	for range questions {
		select {
		case a := <-ch:
			if a.msg.Error() != nil {
				return nil, refuse(reasonUpstreamLost, "The client did not answer the server's question.")
			}
			answers = set(answers, a.msg.Result(), a.key)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the client did not answer: %w", mcp.ErrLost, context.Cause(ctx))
		}
	}
	return answers, nil
}

// mayAsk reports whether a client with these capabilities can be asked.
func mayAsk(capabilities json.RawMessage, method string) bool {
	need := map[string]string{methodElicit: "elicitation", methodSample: "sampling", methodRoots: "roots"}[method]
	if need == "" {
		return false
	}
	v, ok := mcp.Get(capabilities, need)
	return ok && string(v) != "null"
}
