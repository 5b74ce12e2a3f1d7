package mcpgate

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// legacyPatience is how long a legacy request waits for an answer that is told
// as JSON because of its HTTP status, before a stream is begun that the client
// can resume.
const legacyPatience = 500 * time.Millisecond

// postLegacy takes one message of a legacy client.
func (g *Gate) postLegacy(p *posted) {
	if v := p.r.Header.Get(mcp.HeaderProtocolVersion); v != "" && !slices.Contains(legacyVersions, v) {
		f := refuse(reasonVersion, "The gate does not speak this version of the protocol.")
		f.data = map[string]any{"supported": append([]string{mcp.ModernVersion}, legacyVersions...), "requested": v}
		writeAnswer(p.w, f.answer(p.msg, mcp.Modern, false))
		return
	}
	if p.msg.Method() == methodInitialize && p.msg.IsRequest() {
		g.beginSession(p)
		return
	}
	s := g.session(p.w, p.r, p.end, p.credential, p.msg.IsRequest() && !methods[p.msg.Method()].free)
	if s == nil {
		return
	}
	defer s.hold()()
	if p.msg.IsRequest() {
		g.inSession(p, s)
		return
	}
	if !s.take(p.r.Context(), p.msg) {
		httpError(p.w, http.StatusBadRequest, "The gate passes on neither unknown notifications nor answers to questions that nobody has asked.")
		return
	}
	p.w.WriteHeader(http.StatusAccepted)
}

// session finds the session that a request names, or answers. decided: whoever
// asks is proven by a decision before anything happens.
func (g *Gate) session(w http.ResponseWriter, r *http.Request, end *endpoint, c authz.Credential, decided bool) *session {
	ids := r.Header.Values(mcp.HeaderSession)
	if len(ids) != 1 {
		httpError(w, http.StatusBadRequest, "The request needs one Mcp-Session-Id header; a session begins with initialize.")
		return nil
	}
	s := g.sessions.find(ids[0])
	if s != nil {
		mine, err := s.admits(r.Context(), c, decided)
		if err != nil {
			g.log.Error("credential not checked", "error", err)
			httpError(w, http.StatusServiceUnavailable, "Who is asking could not be checked; try again later.")
			return nil
		}
		if !mine {
			s = nil
		}
	}
	if s == nil || s.end != end || s.dead() {
		if s != nil && s.end == end {
			g.sessions.end(s)
		}
		// 404 makes the client begin anew (MCP 2025-11-25, Session Management).
		httpError(w, http.StatusNotFound, "There is no such session.")
		return nil
	}
	return s
}

// beginSession answers initialize. A session is known from the moment that the
// server has agreed to it. Its id goes into the header of the answer, so that
// is told as a whole.
func (g *Gate) beginSession(p *posted) {
	if len(p.r.Header.Values(mcp.HeaderSession)) > 0 {
		httpError(p.w, http.StatusBadRequest, "A session cannot be initialized twice.")
		return
	}
	s := newSession(g, p.end, p.credential, gateHTTP)
	st, c, f := s.receive(p.msg, p.credential)
	if f != nil {
		s.close()
		tellBusy(p, f)
		return
	}
	a := g.asking(p, c.serve())
	kept := a.msg.Error() == nil && p.r.Context().Err() == nil
	if kept {
		s.setVersion(mcp.GetString(a.msg.Result(), "protocolVersion"))
		if kept = g.sessions.keep(s); !kept {
			a = refuse(reasonBusy, "The gate has no room for another session; try again later.").answer(p.msg, mcp.Legacy, false)
		}
	}
	if kept {
		p.w.Header().Set(mcp.HeaderSession, s.id)
		p.w.Header().Set(headerRun, s.as.run)
	}
	c.end(func() { s.ends(st, a) })
	st.tell(p.r.Context(), p.w, p.legacyTelling(s))
	if !kept {
		s.close()
	}
}

// inSession answers one request of a session. The call does not end with the
// connection, which a legacy client may lose and take up again.
func (g *Gate) inSession(p *posted, s *session) {
	st, c, f := s.receive(p.msg, p.credential)
	if f != nil {
		tellBusy(p, f)
		return
	}
	ok := g.goDo(func() {
		a := g.asking(p, c.serve())
		c.end(func() { s.ends(st, a) })
	})
	if !ok {
		c.end(func() {})
		httpError(p.w, http.StatusServiceUnavailable, "The gate is being stopped.")
		return
	}
	st.tell(p.r.Context(), p.w, p.legacyTelling(s))
}

// tellBusy tells why a request cannot even begin; the status lets a client see
// that without reading on.
func tellBusy(p *posted, f *refusal) {
	a := f.answer(p.msg, mcp.Legacy, false)
	a.status = mappings[f.reason].status
	writeAnswer(p.w, a)
}

func (p *posted) legacyTelling(s *session) telling {
	return telling{prime: primes(s, p.r), patient: legacyPatience, stream: true, json: p.accept.json, events: p.accept.events}
}

// primes reports whether the client knows about streams that begin with an
// empty event (MCP 2025-11-25, SEP-1699); to older ones its lack of data is an
// error.
func primes(s *session, r *http.Request) bool {
	v := r.Header.Get(mcp.HeaderProtocolVersion)
	if v == "" {
		v = s.getVersion()
	}
	return v >= "2025-11-25"
}

// get opens the stream of what is said outside of requests, or takes up one
// that was lost.
func (g *Gate) get(w http.ResponseWriter, r *http.Request, end *endpoint) {
	if r.Header.Get(mcp.HeaderProtocolVersion) >= mcp.ModernVersion {
		w.Header().Set("Allow", "POST")
		httpError(w, http.StatusMethodNotAllowed, "This version of the protocol has no GET; use subscriptions/listen.")
		return
	}
	if !accepts(r).events {
		httpError(w, http.StatusNotAcceptable, "Accept must list text/event-stream.")
		return
	}
	s := g.session(w, r, end, pep.Shown(r, g.public), false)
	if s == nil {
		return
	}
	st, t := s.aside, telling{events: true}
	if last := r.Header.Get(mcp.HeaderLastEventID); last != "" {
		id, n, ok := parseEventID(last)
		if ok {
			st = s.streamOf(id)
		}
		if !ok || st == nil {
			// Not 404, which would end the session.
			httpError(w, http.StatusBadRequest, "The stream of this event is not kept any more.")
			return
		}
		t.after = n
	} else {
		t.after = onward
	}
	defer s.hold()()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	defer context.AfterFunc(g.taking, cancel)()
	st.tell(ctx, w, t)
}

// delete ends a session.
func (g *Gate) delete(w http.ResponseWriter, r *http.Request, end *endpoint) {
	if r.Header.Get(mcp.HeaderProtocolVersion) >= mcp.ModernVersion {
		w.Header().Set("Allow", "POST")
		httpError(w, http.StatusMethodNotAllowed, "This version of the protocol has no sessions.")
		return
	}
	if s := g.session(w, r, end, pep.Shown(r, g.public), false); s != nil {
		g.sessions.end(s)
		w.WriteHeader(http.StatusNoContent)
	}
}
