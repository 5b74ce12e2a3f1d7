package mcpgate

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// legacyPatience is how long a legacy request waits for an answer that is told
// as JSON because of its HTTP status, before a stream is begun that the client
// can resume.
const legacyPatience = 500 * time.Millisecond

// postLegacy takes one message of a legacy client.
func (g *Gate) postLegacy(w http.ResponseWriter, r *http.Request, end *endpoint, m *mcp.Message, accept acceptance) {
	if v := r.Header.Get(mcp.HeaderProtocolVersion); v != "" && !slices.Contains(legacyVersions, v) {
		f := refuse(reasonVersion, "The gate does not speak this version of the protocol.")
		f.data = map[string]any{"supported": append([]string{mcp.ModernVersion}, legacyVersions...), "requested": v}
		a := f.answer(m, mcp.Modern, false)
		writeAnswer(w, a)
		return
	}
	if m.Method() == methodInitialize && m.IsRequest() {
		g.beginSession(w, r, end, m, accept)
		return
	}
	s := g.session(w, r, end)
	if s == nil {
		return
	}
	defer s.hold()()
	if !m.IsRequest() {
		if !s.take(r.Context(), m) {
			httpError(w, http.StatusBadRequest, "The gate passes on neither unknown notifications nor answers to questions that nobody has asked.")
			return
		}
		w.WriteHeader(http.StatusAccepted)
		return
	}
	g.tellAnswer(w, r, s, m, accept, nil)
}

// session finds the session that a request names, or answers.
func (g *Gate) session(w http.ResponseWriter, r *http.Request, end *endpoint) *session {
	ids := r.Header.Values(mcp.HeaderSession)
	if len(ids) != 1 {
		httpError(w, http.StatusBadRequest, "The request needs one Mcp-Session-Id header; a session begins with initialize.")
		return nil
	}
	s := g.sessions.find(ids[0], credential(r))
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
// server has agreed to it.
func (g *Gate) beginSession(w http.ResponseWriter, r *http.Request, end *endpoint, m *mcp.Message, accept acceptance) {
	if len(r.Header.Values(mcp.HeaderSession)) > 0 {
		httpError(w, http.StatusBadRequest, "A session cannot be initialized twice.")
		return
	}
	s := newSession(g, end, credential(r), gateHTTP)
	g.tellAnswer(w, r, s, m, accept, func(a answer) answer {
		if a.msg.Error() != nil {
			return a
		}
		s.setVersion(mcp.GetString(a.msg.Result(), "protocolVersion"))
		if !g.sessions.keep(s) {
			return refuse(reasonBusy, "The gate has no room for another session; try again later.").answer(m, mcp.Legacy, false)
		}
		w.Header().Set(mcp.HeaderSession, s.id)
		return a
	})
	if g.sessions.find(s.id, s.as.credential) == nil {
		s.close()
	}
}

// tellAnswer answers one request of a session. The call does not end with the
// connection, which a legacy client may lose and take up again.
func (g *Gate) tellAnswer(w http.ResponseWriter, r *http.Request, s *session, m *mcp.Message, accept acceptance, finish func(answer) answer) {
	st := s.newStream()
	c, f := s.begin(m, func(m *mcp.Message) {
		if !st.put(m) {
			s.aside.put(m)
		}
	})
	if f != nil {
		a := f.answer(m, mcp.Legacy, false)
		a.status = mappings[f.reason].status
		writeAnswer(w, a)
		return
	}
	work := func() {
		a := c.serve()
		if finish != nil {
			a = finish(a)
		}
		c.end(func() {
			st.end(a)
			s.finished(st)
		})
	}
	t := telling{prime: primes(s, r), patient: legacyPatience, stream: true, json: accept.json, events: accept.events}
	if finish != nil {
		// The session's id goes into the header, so initialize is answered as a
		// whole.
		work()
		st.tell(r.Context(), w, t)
		return
	}
	if !g.goDo(work) {
		c.end(func() {})
		httpError(w, http.StatusServiceUnavailable, "The gate is being stopped.")
		return
	}
	st.tell(r.Context(), w, t)
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
	s := g.session(w, r, end)
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
	if s := g.session(w, r, end); s != nil {
		g.sessions.end(s)
		w.WriteHeader(http.StatusNoContent)
	}
}
