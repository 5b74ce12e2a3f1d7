package mcp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// How a broken stream is resumed.
const (
	maxResumes    = 5 // attempts in a row that reach no stream, for one call
	firstDelay    = time.Second
	shortestDelay = 50 * time.Millisecond
	longestDelay  = 30 * time.Second
)

// An exchange is one call over HTTP, from its POST to its answer.
type exchange struct {
	link   *httpLink
	call   *call
	ctx    context.Context
	cancel func()
}

func (x *exchange) run() (*Reply, error) {
	resp, err := x.link.post(x.ctx, x.call.req, x.call.header)
	if err != nil {
		return nil, err
	}
	m, err := x.answer(resp)
	if err != nil {
		return nil, err
	}
	if x.call.req.Method() == methodInitialize && x.link.era == Legacy && m.Result() != nil {
		if err := x.link.remember(resp, m); err != nil {
			return nil, err
		}
	}
	return &Reply{Message: m, Status: resp.StatusCode, Header: resp.Header}, nil
}

// answer reads the answer in whichever of its forms it comes.
func (x *exchange) answer(resp *http.Response) (*Message, error) {
	ok := resp.StatusCode/100 == 2
	switch t := mediaType(resp); {
	case ok && t == "text/event-stream":
		return x.follow(resp)
	case t == "application/json":
		m, err := x.whole(resp)
		if !ok && (err != nil || x.sessionGone(resp, m)) {
			return nil, x.link.refused(resp)
		}
		return m, err
	default:
		x.link.finish(resp, x.cancel)
		if !ok {
			return nil, x.link.refused(resp)
		}
		return nil, lost(errors.New("the server answered a call with neither JSON nor a stream"))
	}
}

// sessionGone reports whether a 404 is about the session. One that answers
// "method not found" is about the method.
func (x *exchange) sessionGone(resp *http.Response, m *Message) bool {
	if x.link.era != Legacy || resp.StatusCode != http.StatusNotFound || x.link.session() == "" {
		return false
	}
	code, _ := Get(m.Error(), "code")
	return string(code) != "-32601"
}

// whole reads a body that is one message.
func (x *exchange) whole(resp *http.Response) (*Message, error) {
	defer x.cancel()
	defer func() { _ = resp.Body.Close() }() // it has been read, or is given up
	b, err := io.ReadAll(io.LimitReader(resp.Body, x.link.max+1))
	if err != nil {
		return nil, lost(err)
	}
	if int64(len(b)) > x.link.max {
		return nil, lost(errTooLong(x.link.max))
	}
	m, err := Parse(b)
	if err != nil {
		return nil, lost(err)
	}
	if !x.call.answers(m, true) {
		return nil, lost(errors.New("the server answered another call"))
	}
	return m, nil
}

// follow reads an event stream to the answer. In the legacy era a stream that
// breaks is resumed, if the server has said where.
func (x *exchange) follow(resp *http.Response) (*Message, error) {
	var at cursor
	for {
		m, err := x.link.read(resp, x.call, &at)
		if m != nil {
			x.link.finish(resp, x.cancel)
			return m, nil
		}
		_ = resp.Body.Close() // the stream has ended or is useless
		var bad *SyntaxError
		if errors.As(err, &bad) || x.link.era == Modern || at.last == "" {
			return nil, lost(streamError(err))
		}
		if resp, err = x.resume(&at); err != nil {
			return nil, err
		}
	}
}

// resume opens the stream again behind the last event.
func (x *exchange) resume(at *cursor) (*http.Response, error) {
	for {
		if err := sleep(x.ctx, at.delay()); err != nil {
			return nil, lost(err)
		}
		resp, err := x.link.get(x.ctx, at.last)
		if err == nil && resp.StatusCode < 500 {
			return x.resumed(resp)
		}
		if err == nil {
			discard(resp)
			err = &StatusError{Status: resp.StatusCode, Header: resp.Header}
		}
		if at.failures++; at.failures > maxResumes {
			return nil, lost(err)
		}
	}
}

func (x *exchange) resumed(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode == http.StatusOK && mediaType(resp) == "text/event-stream" {
		return resp, nil
	}
	discard(resp)
	if resp.StatusCode/100 != 2 {
		return nil, x.link.refused(resp)
	}
	return nil, lost(errors.New("the server did not resume the stream"))
}

// A cursor is how far a stream has been read, and how it is to be resumed.
type cursor struct {
	last     string        // id of the last event
	retry    time.Duration // what the server asked for, or 0
	idle     int           // streams in a row that brought nothing
	failures int           // attempts in a row that reached no stream
}

func (at *cursor) note(e Event) {
	if e.ID != "" {
		at.last = e.ID
	}
	if e.Retry != 0 {
		at.retry = e.Retry
	}
	at.idle, at.failures = 0, 0
}

// delay returns how long to wait before the next attempt: what the server
// asked for, but longer each time that nothing comes of it.
func (at *cursor) delay() time.Duration {
	d := at.retry
	if d == 0 {
		d = firstDelay
	}
	d = max(d, shortestDelay)
	for range at.idle + at.failures {
		if d >= longestDelay {
			break
		}
		d = min(2*d, longestDelay)
	}
	return d
}

// read hands over what comes on a stream, until the answer of k or the end of
// the stream. With a nil k there is no answer to wait for, and a response is
// dropped.
func (l *httpLink) read(resp *http.Response, k *call, at *cursor) (*Message, error) {
	at.idle++ // until something comes
	events := NewEventReader(resp.Body, l.max)
	for {
		e, err := events.Next()
		if err != nil {
			return nil, err
		}
		at.note(e)
		if !e.isMessage() {
			continue
		}
		m, err := Parse(e.Data)
		var bad *SyntaxError
		switch {
		case errors.As(err, &bad) && k != nil && string(bad.ID) == string(k.wire):
			return nil, err
		case err != nil: // nobody waits for it
		case k == nil && !m.IsResponse():
			l.onMessage(m)
		case k == nil:
		case k.answers(m, true):
			return m, nil
		case !m.IsResponse():
			k.deliver(m)
		}
	}
}

// listen opens the standing stream of the legacy era, once.
func (l *httpLink) listen() {
	l.mu.Lock()
	again := l.listening
	l.listening = true
	l.mu.Unlock()
	if !again {
		l.background(l.stand)
	}
}

// stand keeps the standing stream open until the connection is done. A server
// need not offer one.
func (l *httpLink) stand() {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	var at cursor
	for opened := false; l.ending.reason() == nil; {
		resp, err := l.get(ctx, at.last)
		switch {
		case err != nil:
			at.failures++
		case resp.StatusCode == http.StatusOK && mediaType(resp) == "text/event-stream":
			opened, at.failures = true, 0
			// The stream is opened again, whyever it ended.
			_, _ = l.read(resp, nil, &at)
		case opened && resp.StatusCode >= 500:
			at.failures++
		case opened && resp.StatusCode == http.StatusNotFound:
			// It ends the connection, which is what counts here.
			_ = l.refused(resp)
		default:
			discard(resp)
			return
		}
		if resp != nil {
			_ = resp.Body.Close() // it has been read as far as it will be
		}
		if sleep(ctx, at.delay()) != nil {
			return
		}
	}
}

func streamError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the stream ended without the answer")
	}
	return err
}

// sleep waits, or returns ctx's cause when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
