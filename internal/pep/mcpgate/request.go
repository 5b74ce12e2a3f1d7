package mcpgate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// A client is who asks, and the agent run that it asks in.
type client struct {
	credential authz.Credential
	// session names the agent run in decisions: labels that a session has learnt
	// stick to it. A legacy session is a run. A modern client has no session; its
	// run is what it calls it in _meta, or else everything that the agent does,
	// which forgets no label too early. The PDP keeps the runs of agents apart,
	// so that neither a new token gets an agent out of its run, nor naming
	// somebody else's gets it into that.
	session, named string
	// run is the run as the gate itself tells runs apart: what it holds for one
	// credential is nobody else's.
	run   string
	gate  string
	era   mcp.Era
	links links
}

// links finds the conversations of a client.
type links interface {
	// link returns the conversation with an upstream. It may have to be opened
	// before use ([link.ready]).
	link(ctx context.Context, up *upstream, r *request) (link, error)
}

// A request is one request of a client.
type request struct {
	client *client
	end    *endpoint
	msg    *mcp.Message // as the client sent it
	header http.Header  // of the HTTP request; nil elsewhere
	// tell passes on what is said about the request before its answer.
	tell func(*mcp.Message)
	// ask passes on a question of the server to a legacy client. The answer
	// goes to reply, on another goroutine. forget takes the question back.
	ask func(q *mcp.Message, reply func(*mcp.Message)) (forget func() bool, err error)
	// relay passes on what a legacy server says during the request to a legacy
	// client, questions included.
	relay func(*wire, *mcp.Message)
}

// A target is one upstream and what it is to be sent.
type target struct {
	up  *upstream
	msg *mcp.Message
}

// answer is what happens to a client's request, as seen by the client.
func (g *Gate) answer(ctx context.Context, r *request) answer {
	// Can it be judged at all?
	if f := check(r.msg, r.client.era); f != nil {
		return f.answer(r.msg, r.client.era, false)
	}
	if r.msg.Method() == methodListen {
		return g.listen(ctx, r)
	}
	// Whom does it concern?
	if r.end.merged {
		return g.answerMerged(ctx, r)
	}
	res := g.pass(ctx, r, target{r.end.upstreams[0], r.msg})
	return res.answer(r)
}

// A passed request has an answer of its server, or a refusal of the gate.
type passed struct {
	target  target
	reply   *reply
	refusal *refusal
	// structured says that a denial may be structured content: the tool has
	// promised no schema for it.
	structured bool
}

func (p passed) answer(r *request) answer {
	if p.refusal != nil {
		return p.refusal.answer(r.msg, r.client.era, p.structured)
	}
	a := answer{msg: p.reply.msg.WithID(r.msg.ID()), status: http.StatusOK, events: p.reply.events}
	if r.client.era == mcp.Modern && p.reply.msg.Error() != nil {
		a.status = errorStatus(p.reply)
	}
	return a
}

// errorStatus is the HTTP status of a server's error in the modern era: the
// server's own if it is about the request, or what MCP 2026-07-28 demands for
// the code. Others, a 401 say, are between the server and the gate.
func errorStatus(r *reply) int {
	if r.status == http.StatusBadRequest || r.status == http.StatusNotFound {
		return r.status
	}
	var e struct{ Code int }
	if json.Unmarshal(r.msg.Error(), &e) != nil {
		return http.StatusOK
	}
	switch e.Code {
	case mcp.CodeMethodNotFound:
		return http.StatusNotFound
	case mcp.CodeInvalidParams, mcp.CodeHeaderMismatch, codeMissingCapability, codeUnsupportedVersion:
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// pass is what happens to one request that one upstream is to act on. Nothing
// of it reaches the upstream before it has been decided, and what reaches it is
// t.msg as it was decided, byte for byte but for the id.
func (g *Gate) pass(ctx context.Context, r *request, t target) passed {
	p := passed{target: t}
	// Is there a conversation, and may there be one?
	l, err := r.client.links.link(ctx, t.up, r)
	if err != nil {
		p.refusal = g.fault(t, err)
		return p
	}
	if methods[t.msg.Method()].free {
		return g.send(ctx, r, l, p, nil, definition{})
	}
	if !l.ready() && !opens(t.msg) {
		if p.refusal = g.open(ctx, r, t, l); p.refusal != nil {
			return p
		}
	}
	// What exactly would run, as the server describes it?
	var def definition
	q := question(r.client, t)
	if t.msg.Method() == methodCall {
		if def, err = l.definition(ctx, mcp.GetString(t.msg.Params(), "name")); err != nil {
			p.refusal = g.fault(t, err)
			return p
		}
		q.Definition = def.digest
		p.structured = !def.output
	}
	// Do the mirrored headers say what the body says?
	if f := checkParamHeaders(r, t, def); f != nil {
		p.refusal = f
		return p
	}
	// May it happen?
	release, d := g.guard.Ask(ctx, q)
	if release == nil {
		p.refusal = denied(d)
		return p
	}
	if s, ok := r.client.links.(*session); ok && t.msg.Method() == methodInitialize {
		s.dependOn(release, t.up)
	}
	// Let it happen, and see what of the answer the client may know.
	return g.send(ctx, r, l, p, release, def)
}

// send lets a request through that may go, records what became of it, and
// keeps from the client what it has no use for.
func (g *Gate) send(ctx context.Context, r *request, l link, p passed, release *pep.Release, def definition) passed {
	if release != nil {
		var done context.CancelFunc
		ctx, done = release.Bind(ctx)
		defer done()
	}
	c := &call{request: r, msg: p.target.msg, schema: def.schema}
	rep, err := l.call(ctx, c)
	switch {
	case rep != nil && rep.parked != nil:
		// It goes on without the request that began it.
		release.OnCut(func(why *revoke.Cut) { rep.parked.cancel(why) })
		rep.parked.whenDone(func(rep *reply, err error) { settle(release, rep, err) })
	default:
		settle(release, rep, err)
	}
	if err != nil {
		p.refusal = g.fault(p.target, err)
		return p
	}
	p.reply, p.refusal = g.show(ctx, r, p.target, rep)
	return p
}

// fault is what the client learns of a server that failed. The operator learns
// all of it.
func (g *Gate) fault(t target, err error) *refusal {
	var cut *revoke.Cut
	if errors.As(err, &cut) {
		return cutOff(cut)
	}
	f := upstreamFault(t.up.name(), err)
	if f.reason == authz.ReasonUpstreamDown || f.reason == reasonUpstreamLost {
		g.log.Warn("upstream failed", "server", t.up.name(), "method", quote(t.msg.Method()), "error", err)
	}
	return f
}

// open begins a conversation that the client has not asked for with a message
// of its own: a modern client's with a server that has conversations, or a
// merged session's with a server that was away. It is decided as what it is:
// the initialize that a legacy client would have sent.
func (g *Gate) open(ctx context.Context, r *request, t target, l link) *refusal {
	if f := l.closed(); f != nil {
		return f
	}
	q := question(r.client, target{t.up, mcp.NewRequest(r.msg.ID(), methodInitialize, nil)})
	release, d := g.guard.Ask(ctx, q)
	if release == nil {
		l.stayClosed(denied(d))
		return denied(d)
	}
	if s, ok := r.client.links.(*session); ok {
		s.dependOn(release, t.up)
	}
	bound, done := release.Bind(ctx)
	err := l.open(bound, r)
	done()
	settle(release, nil, err)
	if err != nil {
		g.log.Warn("upstream not reached", "server", t.up.name(), "error", err)
		l.stayClosed(nil)
		return upstreamFault(t.up.name(), err)
	}
	return nil
}

// opens reports whether the request itself is what opens a conversation.
func opens(m *mcp.Message) bool {
	return m.Method() == methodInitialize || m.Method() == methodDiscover
}

// settle records what became of a released request.
func settle(r *pep.Release, rep *reply, err error) {
	if r == nil {
		return
	}
	switch {
	case errors.Is(err, mcp.ErrNotSent):
		r.Settle(authz.OutcomeNotRun, 0, "the server could not be reached")
	case err != nil:
		if why, ours := lostBecause(err); ours {
			r.Abandon(authz.OutcomeAmbiguous, 0, why)
		} else {
			r.Settle(authz.OutcomeAmbiguous, 0, why)
		}
	case rep == nil:
		r.Settle(authz.OutcomeSuccess, 0, "")
	case rep.msg.Error() != nil:
		var e struct{ Code int }
		_ = json.Unmarshal(rep.msg.Error(), &e) // a server's odd error is an error all the same
		r.Settle(authz.OutcomeError, int64(len(rep.msg.Bytes())), "JSON-RPC error "+string(raw(e.Code)), string(rep.msg.Error()))
	case isToolError(rep.msg.Result()):
		r.Settle(authz.OutcomeError, int64(len(rep.msg.Bytes())), "tool error", output(rep.msg.Result())...)
	default:
		r.Settle(authz.OutcomeSuccess, int64(len(rep.msg.Bytes())), "", output(rep.msg.Result())...)
	}
}

// output is what the agent sees of a result: the texts of a tool's content, its
// structured content, and everything else as it is.
func output(result json.RawMessage) []string {
	var r struct {
		Content           []json.RawMessage `json:"content"`
		StructuredContent json.RawMessage   `json:"structuredContent"`
	}
	if json.Unmarshal(result, &r) != nil || r.Content == nil && r.StructuredContent == nil {
		return []string{string(result)} // of a prompt, of a resource
	}
	var parts []string
	for _, c := range r.Content {
		if text, ok := getString(c, "text"); ok && mcp.GetString(c, "type") == "text" {
			parts = append(parts, text)
		} else {
			parts = append(parts, string(c))
		}
	}
	if r.StructuredContent != nil {
		parts = append(parts, string(r.StructuredContent))
	}
	if len(parts) == 0 {
		return []string{""} // nothing was seen, which is not the same as nobody knows what
	}
	return parts
}

func isToolError(result json.RawMessage) bool {
	v, ok := mcp.Get(result, "isError")
	return ok && string(v) == "true"
}

// lostBecause says in a word why an answer was lost, without anything that a
// server has written, and whether it was ended from our side.
func lostBecause(err error) (why string, ours bool) {
	var cut *revoke.Cut
	switch {
	case errors.As(err, &cut):
		return cut.Code, true
	case errors.Is(err, errCancelled):
		return "cancelled by the client", true
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time", false
	case errors.Is(err, errSessionEnded):
		return "the session has ended", true
	case errors.Is(err, errUnanswered):
		return "the client did not answer the server's question", true
	case errors.Is(err, errGateCut):
		return "the gate was stopped", true
	default:
		return "the answer was lost", false
	}
}

// Causes of a call's end.
var (
	errCancelled    = errors.New("cancelled by the client")
	errGateCut      = errors.New("the gate was stopped")
	errSessionEnded = errors.New("the session has ended")
	errUnanswered   = errors.New("the client did not answer the server's question")
)

// question turns a request into what is asked of the decider.
func question(c *client, t target) authz.Request {
	name, params := t.msg.Method(), t.msg.Params()
	as := methods[name].as
	if as == "" {
		as = name
	}
	q := authz.Request{
		Credential:  c.credential,
		Action:      "mcp:" + as,
		Server:      t.up.name(),
		Resource:    authz.Entity{Type: "Server", ID: t.up.name()},
		Session:     c.session,
		Run:         c.named,
		Gate:        c.gate,
		Correlation: correlation(t.msg.ID()),
	}
	if name == methodCall {
		q.Action = t.up.name() + "/" + mcp.GetString(params, "name")
		q.Resource = authz.Entity{} // the catalogue knows what its arguments touch
		if args, ok := mcp.Get(params, "arguments"); ok && string(args) != "null" {
			q.Input = args
		}
		return q
	}
	q.Input = plainParams(params)
	switch name {
	case methodRead, methodSubscribe, methodUnsubscribe:
		q.Resource = resourceEntity(t.up.name(), mcp.GetString(params, "uri"))
	case methodPrompt:
		q.Resource = promptEntity(t.up.name(), mcp.GetString(params, "name"))
	case methodComplete:
		if uri, ok := getString(params, "ref", "uri"); ok {
			q.Resource = resourceEntity(t.up.name(), uri)
		} else if p, ok := getString(params, "ref", "name"); ok {
			q.Resource = promptEntity(t.up.name(), p)
		}
	}
	return q
}

func resourceEntity(server, uri string) authz.Entity {
	return authz.Entity{Type: "McpResource", ID: server + "/" + uri}
}

func promptEntity(server, name string) authz.Entity {
	return authz.Entity{Type: "McpPrompt", ID: server + "/" + name}
}

// plainParams is the params without what belongs to the protocol: _meta, and
// what a retried request carries.
func plainParams(params json.RawMessage) json.RawMessage {
	for _, key := range []string{"_meta", "inputResponses", "requestState"} {
		params = del(params, key)
	}
	return params
}

// correlation is the client's id of the request, bounded.
func correlation(id json.RawMessage) string {
	const most = 128
	if len(id) > most {
		return string(id[:most])
	}
	return string(id)
}

// within returns a context for one call: it ends with the gate, after the limit
// for calls, or when parent ends.
func (g *Gate) within(parent context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	timer := time.AfterFunc(g.limits.Call, func() { cancel(context.DeadlineExceeded) })
	stop := context.AfterFunc(g.life, func() { cancel(errGateCut) })
	return ctx, func(cause error) {
		timer.Stop()
		stop()
		cancel(cause)
	}
}
