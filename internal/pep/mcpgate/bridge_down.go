package mcpgate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// farewell is how long the last words to a server may take.
const farewell = 2 * time.Second

// downward is a modern client's conversation with a legacy server: the gate
// keeps the session that the client does not have, and turns the questions of
// the server into results that ask for input. The call goes on meanwhile, and
// the client's next request takes it up again.
type downward struct {
	wire         *wire
	capabilities json.RawMessage // of the client

	mu        sync.Mutex
	runs      []*running              // the latest last
	questions map[string]*mcp.Message // that the server waits for, by its id
	listeners map[*func(*mcp.Message)]subscription
	level     string
	uris      map[string]int // subscriptions, counted
}

// bridgeDown begins a conversation with a legacy server.
func (up *upstream) bridgeDown(ctx context.Context, l *pooledLink) (*downward, error) {
	d := &downward{capabilities: l.capabilities, questions: map[string]*mcp.Message{}, listeners: map[*func(*mcp.Message)]subscription{}, uris: map[string]int{}}
	w, err := up.dial(up.gate.life, mcp.Legacy, func(_ *wire, m *mcp.Message) { d.hear(m) })
	if err != nil {
		return nil, err
	}
	d.wire = w
	if err := d.initialize(ctx, l); err != nil {
		w.close()
		return nil, err
	}
	return d, nil
}

func (d *downward) initialize(ctx context.Context, l *pooledLink) error {
	info, caps := json.RawMessage(l.info), json.RawMessage(l.capabilities)
	if info == nil {
		info = gateInfo
	}
	if caps == nil {
		caps = json.RawMessage("{}")
	}
	rep, err := d.wire.own(ctx, mcp.NewRequest(json.RawMessage("0"), methodInitialize, raw(map[string]any{
		"protocolVersion": mcp.LegacyVersion, "clientInfo": info, "capabilities": caps,
	})))
	if err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	if rep.msg.Error() != nil {
		return fmt.Errorf("initialize: the server answered with error %d", errorCode(rep.msg))
	}
	d.wire.desc = describeInitialize(rep.msg.Result())
	if err := d.wire.conn.Send(ctx, mcp.NewNotification(noteInitialized, nil)); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	return nil
}

func (d *downward) ready() bool                          { return d.wire.alive() }
func (d *downward) open(context.Context, *request) error { return nil }
func (d *downward) closed() *refusal                     { return nil }
func (d *downward) stayClosed(*refusal)                  {}
func (d *downward) definition(ctx context.Context, name string) (definition, error) {
	return d.wire.definition(ctx, name)
}
func (d *downward) offers(ctx context.Context, uri string) (listed, fits bool) {
	return d.wire.resources.has(ctx, uri)
}
func (d *downward) about() description { return d.wire.desc }

// close leaves no question of the server without an answer: some servers wait
// for it even when the session has ended.
func (d *downward) close() {
	d.mu.Lock()
	open := slices.Collect(maps.Values(d.questions))
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	for _, q := range open {
		d.answer(ctx, q, declined(q))
	}
	d.wire.close()
}

func (d *downward) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.runs) > 0
}

func (d *downward) call(ctx context.Context, c *call) (*reply, error) {
	if c.msg.Method() == methodDiscover {
		return done(c.msg, discoverResult(d.wire.desc))
	}
	if _, known := methods[c.msg.Method()]; !known {
		// What it meant in this era nobody can say in the other.
		return nil, fmt.Errorf("%w: %w", mcp.ErrNotSent, refuse(authz.ReasonMethodUnknown, "The server speaks an older version of the protocol, without "+quote(c.msg.Method())+"."))
	}
	run, err := d.resume(c)
	if err != nil {
		return nil, err
	}
	if run == nil {
		run = d.start(c)
		if run == nil {
			return nil, mcp.ErrNotSent
		}
	}
	rep, err := d.await(ctx, c, run)
	if err != nil || rep.parked != nil {
		return rep, err
	}
	return d.modernize(c, rep), nil
}

// discoverResult says in a modern server's words what a legacy one has said
// about itself.
func discoverResult(desc description) json.RawMessage {
	result := desc.whole
	for _, key := range []string{"protocolVersion", "serverInfo"} {
		result = del(result, key)
	}
	result = set(result, raw([]string{mcp.ModernVersion}), "supportedVersions")
	result = set(result, raw("complete"), "resultType")
	result = set(result, raw(0), "ttlMs")
	result = set(result, raw("private"), "cacheScope")
	if desc.info != nil {
		result = set(result, desc.info, "_meta", mcp.MetaServerInfo)
	}
	return result
}

// modernize adds to a legacy server's answer what a modern client may expect.
func (d *downward) modernize(c *call, rep *reply) *reply {
	if rep.msg.Error() != nil {
		if errorCode(rep.msg) == codeNoResource {
			// The modern era has no code of its own for this (SEP-2164).
			e := set(rep.msg.Error(), raw(mcp.CodeInvalidParams), "code")
			if m, err := mcp.Parse(set(rep.msg.Bytes(), e, "error")); err == nil {
				return &reply{msg: m, status: rep.status}
			}
		}
		return rep
	}
	result := rep.msg.Result()
	if _, ok := mcp.Get(result, "resultType"); !ok {
		result = set(result, raw("complete"), "resultType")
	}
	if _, cacheable := listings[c.msg.Method()]; cacheable || c.msg.Method() == methodRead {
		if _, ok := mcp.Get(result, "ttlMs"); !ok {
			result = set(result, raw(0), "ttlMs")
		}
		if _, ok := mcp.Get(result, "cacheScope"); !ok {
			result = set(result, raw("private"), "cacheScope")
		}
	}
	if _, ok := mcp.Get(result, "_meta", mcp.MetaServerInfo); !ok && d.wire.desc.info != nil {
		result = set(result, d.wire.desc.info, "_meta", mcp.MetaServerInfo)
	}
	return &reply{msg: rep.msg.WithResult(result), status: rep.status}
}

// start sends a request to the server. The call belongs to the gate, not to
// the request, because it may outlive that.
func (d *downward) start(c *call) *running {
	params := c.msg.Params()
	for _, key := range []string{mcp.MetaProtocolVersion, mcp.MetaClientInfo, mcp.MetaClientCapabilities, mcp.MetaLogLevel} {
		params = del(params, "_meta", key)
	}
	for _, key := range []string{"inputResponses", "requestState"} {
		params = del(params, key)
	}
	ctx, cancel := d.wire.up.gate.within(d.wire.up.gate.life)
	run := &running{bridge: d, cancel: cancel, digest: requestDigest(c.msg), questions: map[string]*mcp.Message{}, changed: make(chan struct{}, 1), done: make(chan struct{})}
	if t, ok := mcp.Get(params, "_meta", "progressToken"); ok {
		run.token = string(t)
	}
	run.follow(c)
	d.setLevel(ctx, run.level)
	d.mu.Lock()
	d.runs = append(d.runs, run)
	d.mu.Unlock()
	msg := c.msg.WithParams(params)
	ok := d.wire.up.gate.goDo(func() {
		rep, err := d.wire.call(ctx, msg, nil, run.heard)
		d.mu.Lock()
		d.runs = slices.DeleteFunc(d.runs, func(r *running) bool { return r == run })
		d.mu.Unlock()
		cancel(nil)
		run.finish(rep, err)
	})
	if !ok {
		cancel(errGateCut)
		return nil
	}
	return run
}

// setLevel asks the server for the log messages that a request wants. Without
// that wish none are passed on.
func (d *downward) setLevel(ctx context.Context, level string) {
	d.mu.Lock()
	same := level == "" || level == d.level || !d.wire.desc.has("logging")
	if !same {
		d.level = level
	}
	d.mu.Unlock()
	if same {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.wire.up.gate.limits.Connect)
	defer cancel()
	_, err := d.wire.own(ctx, mcp.NewRequest(json.RawMessage("0"), methodSetLevel, raw(map[string]string{"level": level})))
	if err != nil {
		d.wire.up.gate.log.Debug("log level not set", "server", d.wire.up.name(), "error", err)
	}
}

// await waits for the call's end, or for a question of the server.
func (d *downward) await(ctx context.Context, c *call, run *running) (*reply, error) {
	run.follow(c)
	defer run.unfollow(c)
	for {
		select {
		case <-run.done:
			return run.rep, run.err
		case <-run.changed:
			run.gather(ctx)
			if questions := run.open(); len(questions) > 0 {
				return d.park(c, run, questions)
			}
		case <-ctx.Done():
			run.cancel(context.Cause(ctx))
			<-run.done
			if run.err == nil {
				return run.rep, nil
			}
			return nil, fmt.Errorf("%w: %w", run.err, context.Cause(ctx))
		}
	}
}

// park answers with what the server asks for, and a handle to go on with.
func (d *downward) park(c *call, run *running, questions map[string]*mcp.Message) (*reply, error) {
	asks := map[string]json.RawMessage{}
	for key, q := range questions {
		ask := json.RawMessage("{}")
		ask = set(ask, raw(q.Method()), "method")
		if q.Params() != nil {
			ask = set(ask, q.Params(), "params")
		}
		asks[key] = ask
	}
	g := d.wire.up.gate
	handle, err := g.parked.put(c.request.client, run)
	if err != nil {
		run.cancel(err)
		<-run.done
		return nil, err
	}
	result := raw(map[string]any{"resultType": "input_required", "inputRequests": asks, "requestState": handle})
	return &reply{msg: mcp.NewResult(c.msg.ID(), result), status: http.StatusOK, parked: run}, nil
}

// resume takes up a call that waits for input, if the request is the next round
// of one. The handle proves nothing: the request has been decided like any
// other, and has to be the one that was parked, of the same client.
func (d *downward) resume(c *call) (*running, error) {
	state, ok := mcp.Get(c.msg.Params(), "requestState")
	if !ok {
		return nil, nil
	}
	var handle string
	if json.Unmarshal(state, &handle) != nil {
		return nil, errState()
	}
	run := d.wire.up.gate.parked.take(c.request.client, d, handle, requestDigest(c.msg))
	if run == nil {
		return nil, errState()
	}
	responses, _ := mcp.Get(c.msg.Params(), "inputResponses")
	run.answer(members(responses))
	return run, nil
}

func errState() error {
	return fmt.Errorf("%w: %w", mcp.ErrNotSent, refuse(reasonState, "The requestState is not one that goes with this request, or it has expired; begin again without it."))
}

// requestDigest names what a request asks for, apart from how it is carried.
func requestDigest(m *mcp.Message) string {
	d, err := authz.Digest(plainParamsOrEmpty(m.Params()))
	if err != nil {
		d = string(m.Params()) // not canonical: only the very same bytes go on
	}
	return m.Method() + " " + d
}

func plainParamsOrEmpty(params json.RawMessage) json.RawMessage {
	if params = plainParams(params); params != nil {
		return params
	}
	return json.RawMessage("{}")
}

// hear takes what came on no stream of its own.
func (d *downward) hear(m *mcp.Message) {
	if m.IsNotification() && d.forListeners(m) {
		return
	}
	if run := d.runOf(m); run != nil {
		run.heard(m)
		return
	}
	if m.IsRequest() {
		d.decline(m)
	}
}

// runOf returns the call that a message belongs to: the one whose progress it
// reports, or the latest. On stdio a server does not say which.
func (d *downward) runOf(m *mcp.Message) *running {
	d.mu.Lock()
	defer d.mu.Unlock()
	if token, ok := mcp.Get(m.Params(), "progressToken"); ok && m.Method() == noteProgress {
		for _, r := range d.runs {
			if r.token == string(token) {
				return r
			}
		}
		return nil
	}
	if len(d.runs) == 0 {
		return nil
	}
	return d.runs[len(d.runs)-1]
}

// decline answers a server's request that the client cannot be asked.
func (d *downward) decline(m *mcp.Message) {
	d.respond(m, declined(m))
}

func declined(m *mcp.Message) *mcp.Message {
	if m.Method() == methodPing {
		return mcp.NewResult(m.ID(), json.RawMessage("{}"))
	}
	return mcp.NewError(m.ID(), mcp.CodeMethodNotFound, "The client does not answer this.", nil)
}

// respond answers a question of the server. It does not wait: it may be called
// where the server's messages are read.
func (d *downward) respond(q, m *mcp.Message) {
	g := d.wire.up.gate
	d.wire.answerLater(func() {
		ctx, cancel := context.WithTimeout(g.life, g.limits.Connect)
		defer cancel()
		d.answer(ctx, q, m)
	})
}

func (d *downward) answer(ctx context.Context, q, m *mcp.Message) {
	d.mu.Lock()
	delete(d.questions, string(q.ID()))
	d.mu.Unlock()
	if err := d.wire.conn.Send(ctx, m); err != nil {
		d.wire.up.gate.log.Warn("answer not sent", "server", d.wire.up.name(), "error", err)
	}
}

// listen passes on what the legacy server says outside of requests.
func (d *downward) listen(ctx context.Context, want subscription, emit func(*mcp.Message)) (subscription, error) {
	got := subscription{lists: map[string]bool{}}
	for _, k := range listKinds {
		if want.lists[k.filter] && d.wire.desc.has(k.capability, "listChanged") {
			got.lists[k.filter] = true
		}
	}
	if d.wire.desc.has("resources", "subscribe") {
		for _, uri := range want.uris {
			if d.subscribe(ctx, uri) {
				got.uris = append(got.uris, uri)
			}
		}
	}
	key := &emit
	d.mu.Lock()
	d.listeners[key] = got
	d.mu.Unlock()
	context.AfterFunc(ctx, func() {
		d.mu.Lock()
		delete(d.listeners, key)
		d.mu.Unlock()
		d.unsubscribe(got.uris)
	})
	return got, nil
}

func (d *downward) subscribe(ctx context.Context, uri string) bool {
	d.mu.Lock()
	d.uris[uri]++
	first := d.uris[uri] == 1
	d.mu.Unlock()
	if !first {
		return true
	}
	rep, err := d.wire.own(ctx, mcp.NewRequest(json.RawMessage("0"), methodSubscribe, raw(map[string]string{"uri": uri})))
	if err == nil && rep.msg.Error() == nil {
		return true
	}
	d.mu.Lock()
	d.uris[uri]--
	d.mu.Unlock()
	return false
}

func (d *downward) unsubscribe(uris []string) {
	g := d.wire.up.gate
	for _, uri := range uris {
		d.mu.Lock()
		d.uris[uri]--
		last := d.uris[uri] == 0
		if last {
			delete(d.uris, uri)
		}
		d.mu.Unlock()
		if last && d.wire.alive() {
			g.goDo(func() {
				ctx, cancel := context.WithTimeout(g.life, g.limits.Connect)
				defer cancel()
				_, err := d.wire.own(ctx, mcp.NewRequest(json.RawMessage("0"), methodUnsubscribe, raw(map[string]string{"uri": uri})))
				if err != nil {
					g.log.Debug("not unsubscribed", "server", d.wire.up.name(), "error", err)
				}
			})
		}
	}
}

// forListeners passes a notification to those who have subscribed to it, and
// reports whether it is one that is subscribed to.
func (d *downward) forListeners(m *mcp.Message) bool {
	kind, isList := listKindOf(m.Method())
	if !isList && m.Method() != noteUpdated {
		return false
	}
	uri := mcp.GetString(m.Params(), "uri")
	d.mu.Lock()
	var to []func(*mcp.Message)
	for emit, sub := range d.listeners {
		if isList && sub.lists[kind.filter] || !isList && slices.Contains(sub.uris, uri) {
			to = append(to, *emit)
		}
	}
	d.mu.Unlock()
	for _, emit := range to {
		emit(m)
	}
	return true
}
