package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of an HTTP conversation.
const (
	dialTimeout     = 10 * time.Second
	lastWords       = 500 * time.Millisecond
	farewellTimeout = 5 * time.Second // for a cancellation, and for the end of a session
	maxFarewells    = 16              // cancellations on their way at once
	drainTimeout    = time.Second     // how long a stream may linger after its answer
	drainBytes      = 64 << 10
	maxSessionID    = 1024
)

// httpLink is the link to a streamable HTTP server.
type httpLink struct {
	ending    *ending
	server    Server
	era       Era
	client    *http.Client
	max       int64
	onMessage func(*Message)

	ctx       context.Context // ends the background work
	cancel    context.CancelFunc
	farewells chan struct{} // a slot for each cancellation on its way
	closeOnce sync.Once
	closeErr  error

	mu        sync.Mutex // guards what follows
	work      sync.WaitGroup
	closing   bool // no new background work
	sessionID string
	version   string // negotiated by initialize
	listening bool
}

func dialHTTP(s Server, era Era, e *ending, onMessage func(*Message)) (*httpLink, error) {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil:
		return nil, errors.New("the URL cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("the URL must be an http or https one, with a host")
	}
	l := &httpLink{
		ending:    e,
		server:    s,
		era:       era,
		client:    httpClient(s.Client),
		max:       maxMessage(s.MaxMessage),
		onMessage: onMessage,
		farewells: make(chan struct{}, maxFarewells),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// httpClient returns a client that follows no redirect: one would carry the
// credentials for the server, and the call, to wherever the server says.
func httpClient(given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		*c = *given
	} else {
		c.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

func (l *httpLink) call(ctx context.Context, k *call) (*Reply, error) {
	own, release, cancel := l.detach(ctx)
	defer release()
	x := &exchange{link: l, call: k, ctx: own, cancel: cancel}
	reply, err := x.run()
	if err == nil {
		return reply, nil
	}
	cancel()
	class := ErrLost
	if errors.Is(err, ErrNotSent) {
		class = ErrNotSent
	}
	switch reason := l.ending.reason(); {
	case ctx.Err() != nil:
		// In the modern era the end of the stream tells the server.
		if class == ErrLost && l.era == Legacy && k.req.Method() != methodInitialize {
			l.sayCancelled(k)
		}
		return nil, fmt.Errorf("%w: %w", class, context.Cause(ctx))
	case reason != nil && l.ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", class, reason)
	}
	return nil, err
}

// detach returns a ctx with the values of the caller's. It ends when cancel is
// called, when the connection is closed, and, until release is called, when
// the caller's ctx does.
func (l *httpLink) detach(ctx context.Context) (own context.Context, release func() bool, cancel func()) {
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	unlink := context.AfterFunc(l.ctx, end)
	return own, context.AfterFunc(ctx, end), func() { unlink(); end() }
}

// background runs f unless the connection is being closed, which waits for it.
func (l *httpLink) background(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.work.Go(f)
	return true
}

// sayCancelled tells a legacy server that nobody waits any more.
func (l *httpLink) sayCancelled(k *call) {
	select {
	case l.farewells <- struct{}{}:
	default:
		return // the server is slower than its callers leave
	}
	ok := l.background(func() {
		defer func() { <-l.farewells }()
		ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
		defer cancel()
		// Closing the link gives up what has not got through soon, and not at once:
		// whoever ends a conversation while calls are under way wants them stopped.
		defer context.AfterFunc(l.ctx, func() { time.AfterFunc(lastWords, cancel) })()
		if resp, err := l.post(ctx, cancelled(k.wire), nil); err == nil {
			discard(resp)
		}
	})
	if !ok {
		<-l.farewells
	}
}

func (l *httpLink) send(ctx context.Context, m *Message) error {
	if l.era == Modern && m.IsResponse() {
		// MCP 2026-07-28, Sending Messages: no responses from a client.
		return notSent(errors.New("a server of the modern era asks nothing that could be answered"))
	}
	own, release, cancel := l.detach(ctx)
	defer release()
	resp, err := l.post(own, m, nil)
	if err != nil {
		cancel()
		return err
	}
	l.finish(resp, cancel)
	if resp.StatusCode/100 != 2 {
		return l.refused(resp)
	}
	if l.era == Legacy && m.Method() == methodInitialized {
		l.listen()
	}
	return nil
}

// post sends one message. When it fails, it knows whether the message can
// have left.
func (l *httpLink) post(ctx context.Context, m *Message, extra http.Header) (*http.Response, error) {
	var way passage
	req, err := http.NewRequestWithContext(way.watch(ctx), http.MethodPost, l.server.URL, bytes.NewReader(m.Bytes()))
	if err != nil {
		return nil, notSent(withoutURL(err))
	}
	for name, values := range extra {
		name = http.CanonicalHeaderKey(name)
		if l.era == Modern && strings.HasPrefix(name, "Mcp-") {
			req.Header[name] = values
		}
	}
	l.setHeaders(req, m)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if name := unfit(req.Header); name != "" {
		return nil, notSent(fmt.Errorf("header %s has characters that no header may have", name))
	}
	resp, err := l.client.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case way.never():
		return nil, notSent(withoutURL(err))
	default:
		return nil, lost(withoutURL(err))
	}
}

// A passage watches whether a request got as far as a connection. Before it
// has one, nothing of it can have left; afterwards, nobody can say. (Whether
// the HTTP client has begun to write is not known in time: its goroutines may
// outlive its answer.)
type passage struct{ sought, found atomic.Bool }

func (p *passage) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { p.sought.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { p.found.Store(true) },
	})
}

// never reports whether the request certainly never left. A transport that
// does not tell what it does gets no such credit.
func (p *passage) never() bool { return p.sought.Load() && !p.found.Load() }

// unfit returns the name of a header whose value cannot be sent, or "".
func unfit(h http.Header) string {
	for name, values := range h {
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return name
			}
		}
	}
	return ""
}

// setHeaders sets our credentials and the headers of the era. It comes last,
// so that nothing replaces them.
func (l *httpLink) setHeaders(req *http.Request, m *Message) {
	for name, values := range l.server.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if l.era == Modern {
		req.Header.Del(HeaderSession)
		for name, values := range StandardHeaders(m) {
			req.Header[name] = values
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	setOrDelete(req.Header, HeaderSession, l.sessionID)
	setOrDelete(req.Header, HeaderProtocolVersion, l.version)
}

func setOrDelete(h http.Header, name, value string) {
	h.Del(name)
	if value != "" {
		h.Set(name, value)
	}
}

// get opens a stream of the legacy era: the standing one, or one that is
// resumed behind an event.
func (l *httpLink) get(ctx context.Context, lastEventID string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.server.URL, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	l.setHeaders(req, nil)
	req.Header.Set("Accept", "text/event-stream")
	setOrDelete(req.Header, HeaderLastEventID, lastEventID)
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	return resp, nil
}

// refused returns the error for an HTTP status that is no success. A 404 ends
// a session (MCP 2025-11-25, Session Management).
func (l *httpLink) refused(resp *http.Response) error {
	status := &StatusError{Status: resp.StatusCode, Header: resp.Header}
	if l.era == Legacy && resp.StatusCode == http.StatusNotFound && l.session() != "" {
		l.ending.end(ErrSessionLost)
		return fmt.Errorf("%w: %w: %w", ErrLost, ErrSessionLost, status)
	}
	return lost(status)
}

// remember keeps what initialize has negotiated.
func (l *httpLink) remember(resp *http.Response, m *Message) error {
	session := resp.Header.Get(HeaderSession)
	version := GetString(m.Result(), "protocolVersion")
	for _, s := range []string{session, version} {
		// The values come back to us as headers.
		if len(s) > maxSessionID || !isPlain(s) || strings.ContainsAny(s, " \t") {
			return lost(errors.New("the server gave a session or a version that no header can carry"))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessionID, l.version = session, version
	return nil
}

func (l *httpLink) session() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessionID
}

// close ends the background work and then the session.
func (l *httpLink) close() error {
	l.closeOnce.Do(func() {
		l.mu.Lock()
		l.closing = true
		l.mu.Unlock()
		l.cancel()
		l.work.Wait()
		if l.session() != "" && !errors.Is(l.ending.reason(), ErrSessionLost) {
			l.closeErr = l.deleteSession()
		}
		if l.server.Client == nil {
			l.client.CloseIdleConnections()
		}
	})
	return l.closeErr
}

// deleteSession ends the session. That a server does not let a client do so
// is no error.
func (l *httpLink) deleteSession() error {
	ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, l.server.URL, nil)
	if err != nil {
		return withoutURL(err)
	}
	l.setHeaders(req, nil)
	resp, err := l.client.Do(req)
	if err != nil {
		return fmt.Errorf("end the session: %w", withoutURL(err))
	}
	discard(resp)
	return nil
}

// withoutURL takes the URL out of an error of the HTTP client: its query may
// hold a key.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// finish lets a stream end by itself for a moment, so that the connection can
// be used again, and then cancels the request.
func (l *httpLink) finish(resp *http.Response, cancel func()) {
	ok := l.background(func() {
		t := time.AfterFunc(drainTimeout, cancel)
		defer t.Stop()
		discard(resp)
		cancel()
	})
	if !ok {
		cancel()
		_ = resp.Body.Close() // nothing more is wanted of it
	}
}

// discard reads a short rest of a body, so that the connection can be used
// again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, drainBytes) // a failure costs a connection
	_ = resp.Body.Close()                              // nothing is lost with it
}

func mediaType(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}
