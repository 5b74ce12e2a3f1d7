package mcpgate

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// Bounds of the streams of a session that can be resumed after they have ended.
const (
	keptStreams = 16
	keptBytes   = 8 << 20
)

// sessions are the legacy sessions over HTTP.
type sessions struct {
	gate *Gate
	mu   sync.Mutex
	byID map[string]*session
	done bool
}

func newSessions(g *Gate) *sessions { return &sessions{gate: g, byID: map[string]*session{}} }

// A session is what a legacy client has begun with initialize: over HTTP, or
// over stdio for as long as the process lives.
type session struct {
	gate *Gate
	end  *endpoint
	id   string // the secret that the client shows over HTTP
	as   *client

	life context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup // calls

	asks  asks
	aside *stream            // what is said outside of requests
	write func(*mcp.Message) // stdio: everything goes one way

	mu       sync.Mutex
	owners   []string // fingerprints of the credentials that are its owner's, the latest last
	links    map[string]*sessionLink
	calls    map[string]*inFlight // by the client's id, raw
	streams  map[string]*stream
	ended    []*stream // streams that have ended, the oldest first
	used     time.Time
	holders  int // requests being served
	closed   bool
	version  string
	hello    *mcp.Message // initialize
	unlisten func()
	held     []*revoke.Hold // what ends it, or one of its conversations
}

// An inFlight is a request of a session's client that is being answered.
type inFlight struct {
	session *session
	msg     *mcp.Message
	ctx     context.Context
	cancel  context.CancelCauseFunc
	token   string // progress token, raw
	tell    func(*mcp.Message)
	as      *client
	forget  []func() // questions that go with it; guarded by the session's lock
}

// newSession begins a session. It is not known to anybody before it is kept.
func newSession(g *Gate, end *endpoint, credential authz.Credential, gate string) *session {
	life, stop := context.WithCancelCause(g.life)
	id := rand.Text() + rand.Text()
	s := &session{
		gate: g, end: end, owners: []string{owner(credential)}, id: id,
		life: life, stop: stop,
		aside: newStream("0"),
		links: map[string]*sessionLink{}, calls: map[string]*inFlight{}, streams: map[string]*stream{},
		used: time.Now(),
	}
	// The record names the run without giving its reader the session.
	run := "s-" + fingerprint("session", id)
	s.as = &client{credential: credential, session: run, run: run, gate: gate, era: mcp.Legacy, links: s}
	for _, up := range end.upstreams {
		s.links[up.name()] = &sessionLink{session: s, up: up}
	}
	return s
}

// owner is the fingerprint of a credential, without what is new in each
// request.
func owner(c authz.Credential) string { return fingerprint(string(c.Kind), c.Value, c.Certificates) }

// maxOwners bounds the credentials of its owner that a session remembers.
const maxOwners = 8

// admits reports whether the session may be used with a credential: one that it
// was used with before, or another of the same subject, as the PDP knows. A
// client whose token has expired, or was not strong enough, comes with another
// one and keeps its session. A token that is bound to a key is proven with each
// request, unless a decision is going to do that.
func (s *session) admits(ctx context.Context, c authz.Credential, decided bool) (bool, error) {
	s.mu.Lock()
	seen := slices.Contains(s.owners, owner(c))
	s.mu.Unlock()
	if seen && (decided || c.Kind != authz.CredentialDPoP) {
		return true, nil
	}
	_, err := s.gate.guard.Reachable(ctx, authz.Request{Credential: c, Session: s.as.session, Gate: s.as.gate}, nil)
	if errors.Is(err, pep.ErrRefused) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.owners, owner(c)) {
		s.owners = append(s.owners[max(0, len(s.owners)-maxOwners+1):], owner(c))
	}
	return true, nil
}

// dependOn makes the session end when what the decision that opened it concerns
// is suspended. Of a merged session only the conversation with the server ends
// when it is the server.
func (s *session) dependOn(release *pep.Release, up *upstream) {
	scope := release.Decision.Scope
	of := func(want func(kind string) bool, end func(*revoke.Cut)) {
		var some []authz.Entity
		for _, e := range scope {
			if want(e.Type) {
				some = append(some, e)
			}
		}
		h := s.gate.guard.Watch.Hold(some)
		h.OnCut(end)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			h.Release()
			return
		}
		s.held = append(s.held, h)
	}
	isServer := func(kind string) bool { return kind == revoke.KindServer }
	of(func(kind string) bool { return kind != revoke.KindTool && (!isServer(kind) || !s.end.merged) }, func(why *revoke.Cut) {
		s.stop(why)
		s.gate.goDo(func() { s.gate.sessions.end(s) })
	})
	if s.end.merged {
		of(isServer, func(*revoke.Cut) { s.gate.goDo(s.links[up.name()].close) })
	}
}

// keep makes the session known by its id, if there is room.
func (ss *sessions) keep(s *session) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.done || len(ss.byID) >= ss.gate.limits.Sessions {
		return false
	}
	ss.byID[s.id] = s
	return true
}

// find returns the session with this id, whosever it is ([session.admits]). That
// it exists is nobody else's business.
func (ss *sessions) find(id string) *session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.byID[id]
}

// end forgets a session and ends it, which may take a server's time.
func (ss *sessions) end(s *session) {
	ss.mu.Lock()
	delete(ss.byID, s.id)
	ss.mu.Unlock()
	if !ss.gate.goDo(s.close) {
		s.close()
	}
}

func (ss *sessions) sweep(now time.Time) {
	for _, s := range ss.all() {
		if s.idleSince(now) > ss.gate.limits.Idle || s.life.Err() != nil {
			ss.end(s)
		}
	}
}

func (ss *sessions) close() {
	ss.mu.Lock()
	ss.done = true
	ss.mu.Unlock()
	for _, s := range ss.all() {
		ss.end(s)
	}
}

func (ss *sessions) all() []*session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	all := make([]*session, 0, len(ss.byID))
	for _, s := range ss.byID {
		all = append(all, s)
	}
	return all
}

// hold keeps the session from being idle until release is called.
func (s *session) hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holders--
		s.used = time.Now()
	}
}

func (s *session) idleSince(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders > 0 || len(s.calls) > 0 {
		return 0
	}
	return now.Sub(s.used)
}

// close ends the session and everything that belongs to it.
func (s *session) close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	unlisten, held := s.unlisten, s.held
	s.mu.Unlock()
	for _, h := range held {
		h.Release()
	}
	if unlisten != nil {
		unlisten()
	}
	s.stop(errSessionEnded)
	s.work.Wait()
	s.asks.giveUp()
	var wg sync.WaitGroup
	for _, l := range s.links {
		wg.Go(l.close)
	}
	wg.Wait()
	s.aside.end(answer{})
}

// dead reports whether the one server of the session has hung up. A merged
// session lives on without it.
func (s *session) dead() bool {
	if s.end.merged {
		return false
	}
	for _, l := range s.links {
		if b := l.backend(); b != nil && b.alive() {
			return false
		}
	}
	return true
}

func (s *session) link(_ context.Context, up *upstream, _ *request) (link, error) {
	return s.links[up.name()], nil
}

// begin registers a request, so that it can be cancelled and found by its
// progress token. It fails if the session has too many, or one with this id.
func (s *session) begin(m *mcp.Message, shown authz.Credential, tell func(*mcp.Message)) (*inFlight, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := string(m.ID())
	switch {
	case s.closed:
		return nil, refuse(reasonNotFound, "The session has ended.")
	case s.calls[id] != nil:
		return nil, refuse(reasonDuplicate, "A request with this id is in flight.")
	case len(s.calls) >= s.gate.limits.ClientCalls || !s.gate.admit():
		return nil, refuse(reasonBusy, "Too many requests are in flight; try again later.")
	}
	as := *s.as
	as.credential = shown
	c := &inFlight{session: s, msg: m, as: &as, tell: tell}
	c.ctx, c.cancel = s.gate.within(s.life)
	if t, ok := mcp.Get(m.Params(), "_meta", "progressToken"); ok {
		c.token = string(t)
	}
	s.calls[id] = c
	s.work.Add(1)
	return c, nil
}

// end ends a request: first its id is free again, then the answer is delivered,
// because a client may use the id again as soon as it has that.
func (c *inFlight) end(deliver func()) {
	s := c.session
	c.cancel(nil)
	s.mu.Lock()
	delete(s.calls, string(c.msg.ID()))
	s.used = time.Now()
	forget := c.forget
	s.mu.Unlock()
	for _, f := range forget {
		f() // nobody is going to answer these any more
	}
	deliver()
	s.gate.leave()
	s.work.Done()
}

// take handles a notification or a response of the client. It reports false if
// the message is none that a client may send.
func (s *session) take(ctx context.Context, m *mcp.Message) bool {
	if m.IsResponse() {
		return s.asks.answered(m)
	}
	if !slices.Contains(clientNotes, m.Method()) {
		return false
	}
	switch m.Method() {
	case noteCancelled:
		// The ids on the wire are the gate's own, so this is not passed on but
		// done: the call ends, and the link tells the server.
		s.cancelCall(m)
	case noteProgress:
		if w := s.asks.progressOf(m); w != nil {
			s.sendTo(ctx, w, m)
		}
	case noteInitialized:
		s.listenToGate()
		s.sendAll(ctx, m)
	default:
		s.sendAll(ctx, m)
	}
	return true
}

func (s *session) cancelCall(m *mcp.Message) {
	id, ok := mcp.Get(m.Params(), "requestId")
	if !ok {
		return
	}
	s.mu.Lock()
	c := s.calls[string(id)]
	s.mu.Unlock()
	if c != nil {
		c.cancel(errCancelled)
	}
}

func (s *session) sendAll(ctx context.Context, m *mcp.Message) {
	for _, l := range s.links {
		if err := l.send(ctx, m); err != nil {
			s.gate.log.Warn("notification not sent", "server", l.up.name(), "method", m.Method(), "error", err)
		}
	}
}

func (s *session) sendTo(ctx context.Context, w *wire, m *mcp.Message) {
	if err := w.conn.Send(ctx, m); err != nil {
		s.gate.log.Warn("message not sent", "server", w.up.name(), "method", m.Method(), "error", err)
	}
}

// listenToGate tells the client from now on when its lists may have changed.
func (s *session) listenToGate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlisten != nil || s.closed {
		return
	}
	s.unlisten = s.gate.ears.add(s.end, func(k listKind) { s.sayAside(mcp.NewNotification(k.note, nil)) })
}

// hear takes what a server says outside of any stream of a request. What
// belongs to a request goes to its stream all the same: many clients read no
// other.
func (s *session) hear(w *wire, m *mcp.Message) {
	if c := s.concerns(m); c != nil {
		c.relay(w, m)
		return
	}
	s.relay(w, m, s.sayAside)
}

// relay passes on what a server says during a request.
func (c *inFlight) relay(w *wire, m *mcp.Message) {
	if forget := c.session.relay(w, m, c.tell); forget != nil {
		c.session.mu.Lock()
		defer c.session.mu.Unlock()
		c.forget = append(c.forget, forget)
	}
}

// relay passes a message of a server on to the client. A question gets an id
// of the gate's, and can be taken back with what is returned.
func (s *session) relay(w *wire, m *mcp.Message, say func(*mcp.Message)) func() {
	switch {
	case m.IsRequest():
		q, forget, err := s.asks.add(w, m, func(a *mcp.Message) {
			ctx, cancel := context.WithTimeout(context.Background(), farewell)
			defer cancel()
			s.sendTo(ctx, w, a)
		})
		if err != nil {
			// This runs where the server's messages are read, and must not wait.
			w.answerLater(func() {
				s.sendTo(s.life, w, mcp.NewError(m.ID(), mcp.CodeInternalError, err.Error(), nil))
			})
			return nil
		}
		say(q)
		return func() {
			if forget() {
				s.gate.goDo(func() { s.sendTo(s.life, w, unanswered(m.ID())) })
			}
		}
	case m.Method() == noteCancelled:
		if note, ok := s.asks.withdrawn(w, m); ok {
			say(note)
		}
	case m.IsNotification():
		say(m)
	}
	return nil
}

// concerns returns the request that a server speaks of on a connection that all
// requests share: the one whose progress it reports, or the only one in flight.
func (s *session) concerns(m *mcp.Message) *inFlight {
	if _, isList := listKindOf(m.Method()); isList || m.Method() == noteUpdated {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := mcp.Get(m.Params(), "progressToken"); ok && m.Method() == noteProgress {
		for _, c := range s.calls {
			if c.token == string(token) {
				return c
			}
		}
		return nil
	}
	if len(s.calls) != 1 {
		return nil
	}
	for _, c := range s.calls {
		return c
	}
	return nil
}

// sayAside tells the client something outside of requests.
func (s *session) sayAside(m *mcp.Message) {
	if s.write != nil {
		s.write(m)
		return
	}
	s.aside.put(m)
}

// newStream returns a stream for one request that the client can resume.
func (s *session) newStream() *stream {
	st := newStream(rand.Text()[:13])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[st.id] = st
	return st
}

// receive begins a request whose answer goes to a stream of its own. What is
// said about it when that has ended is said aside.
func (s *session) receive(m *mcp.Message, shown authz.Credential) (*stream, *inFlight, *refusal) {
	st := s.newStream()
	c, f := s.begin(m, shown, func(m *mcp.Message) {
		if !st.put(m) {
			s.aside.put(m)
		}
	})
	if f != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, st.id)
	}
	return st, c, f
}

// ends ends a stream, and keeps it for a while, in case the client has not got
// all of it.
func (s *session) ends(st *stream, a answer) {
	// Under the lock, so that a client that has its answer finds the session in
	// order.
	s.mu.Lock()
	defer s.mu.Unlock()
	st.end(a)
	s.ended = append(s.ended, st)
	bytes := 0
	for _, e := range s.ended {
		bytes += e.bytes()
	}
	for len(s.ended) > keptStreams || bytes > keptBytes {
		bytes -= s.ended[0].bytes()
		delete(s.streams, s.ended[0].id)
		s.ended = s.ended[1:]
	}
}

// streamOf returns the stream that an event belongs to.
func (s *session) streamOf(id string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == s.aside.id {
		return s.aside
	}
	return s.streams[id]
}

// greeting is the client's initialize, or nil before it.
func (s *session) greeting() *mcp.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hello
}

// setVersion keeps the version that initialize has settled on.
func (s *session) setVersion(v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = v
}

func (s *session) getVersion() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// serve answers the request.
func (c *inFlight) serve() answer {
	s := c.session
	return s.gate.answer(c.ctx, &request{
		client: c.as, end: s.end, msg: c.msg, tell: c.tell, relay: c.relay,
		ask: func(q *mcp.Message, reply func(*mcp.Message)) (func() bool, error) {
			out, forget, err := s.asks.add(nil, q, reply)
			if err != nil {
				return nil, err
			}
			c.tell(out)
			return forget, nil
		},
	})
}
