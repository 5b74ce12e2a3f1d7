package mcpgate

import (
	"context"
	"net/http"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// modernPatience is how long a modern request waits for an answer that can be
// told as JSON. An error has its own HTTP status only there.
const modernPatience = 5 * time.Second

// metaSession is the member of _meta in which a modern client may name its
// agent run. Without it, all that the agent does is one run.
const metaSession = "dev.bailiwick/session"

// postModern takes one message of a modern client.
func (g *Gate) postModern(p *posted) {
	if !p.msg.IsRequest() {
		// This version defines no client notifications over HTTP, and no responses.
		if p.msg.Method() == noteCancelled {
			p.w.WriteHeader(http.StatusAccepted)
			return
		}
		httpError(p.w, http.StatusBadRequest, "This version of the protocol takes requests only.")
		return
	}
	if f := checkModern(p.r.Header, p.msg); f != nil {
		writeAnswer(p.w, f.answer(p.msg, mcp.Modern, false))
		return
	}
	c := g.modernClient(p.credential, gateHTTP, p.msg)
	release, f := g.pool.admit(c)
	if f != nil {
		writeAnswer(p.w, f.answer(p.msg, mcp.Modern, false))
		return
	}
	// Closing the stream is how a client cancels.
	ctx, cancel := g.within(p.r.Context())
	st := newStream("")
	finished := make(chan struct{})
	ok := g.goDo(func() {
		defer close(finished)
		defer release()
		a := g.asking(p, g.answer(ctx, &request{
			client: c, end: p.end, msg: p.msg, header: p.r.Header,
			tell: func(m *mcp.Message) { st.put(m) },
		}))
		cancel(nil)
		st.end(a)
	})
	if !ok {
		cancel(nil)
		release()
		httpError(p.w, http.StatusServiceUnavailable, "The gate is being stopped.")
		return
	}
	t := telling{patient: modernPatience, json: p.accept.json, events: p.accept.events}
	if p.msg.Method() == methodListen && p.accept.events {
		t.patient = 0 // there is no answer before the end
	}
	st.tell(p.r.Context(), p.w, t)
	cancel(errCancelled)
	<-finished
}

// checkModern refuses a modern request whose version, _meta or headers are not
// as MCP 2026-07-28 has them. It comes before any decision: what is decided is
// the body, and nobody on the way may have believed something else.
func checkModern(h http.Header, m *mcp.Message) *refusal {
	meta, _ := mcp.Get(m.Params(), "_meta")
	version, ok := getString(meta, mcp.MetaProtocolVersion)
	if !ok {
		return refuse(reasonParams, "The request's _meta needs "+quote(mcp.MetaProtocolVersion)+".")
	}
	if h != nil {
		if err := mcp.CheckHeaders(h, m, nil); err != nil {
			return refuse(authz.ReasonHeaderMismatch, err.Error())
		}
	}
	if version != mcp.ModernVersion {
		f := refuse(reasonVersion, "The gate does not speak this version of the protocol.")
		f.data = map[string]any{"supported": []string{mcp.ModernVersion}, "requested": version}
		return f
	}
	if caps, ok := mcp.Get(meta, mcp.MetaClientCapabilities); !ok || caps[0] != '{' {
		return refuse(reasonParams, "The request's _meta needs "+quote(mcp.MetaClientCapabilities)+".")
	}
	return nil
}

// modernClient is who sends a modern request.
func (g *Gate) modernClient(c authz.Credential, gate string, m *mcp.Message) *client {
	name := mcp.GetString(m.Params(), "_meta", metaSession)
	cl := &client{credential: c, gate: gate, era: mcp.Modern, named: name}
	cl.run = "m-" + fingerprint("run", owner(c), name)
	cl.links = &modernLinks{gate: g, client: cl}
	return cl
}

// modernLinks are the conversations of a modern client.
type modernLinks struct {
	gate   *Gate
	client *client
}

func (ls *modernLinks) link(ctx context.Context, up *upstream, r *request) (link, error) {
	if !up.stdio() {
		l, err := up.modern(ctx)
		if err != nil {
			return nil, err
		}
		if l != nil {
			return l, nil
		}
	}
	return ls.gate.pool.link(ls.client, up, r), nil
}
