package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// closeGrace is how long a process has to leave by itself, at each step of
// being asked to.
const closeGrace = 2 * time.Second

// exitPatience is how long the end of the output waits for the exit status,
// which says more.
const exitPatience = 100 * time.Millisecond

// stdio is the link to a child process.
//
// One goroutine reads and one writes. The writer exists so that a server that
// does not read holds up nobody: a caller whose ctx ends stops waiting, and no
// line is ever cut short on its account.
type stdio struct {
	ending    *ending
	proc      *process
	pipe      *Pipe
	onMessage func(*Message)
	grace     time.Duration

	writes   chan *write
	cancels  chan *Message
	finished chan struct{} // closed when process and goroutines are gone

	mu      sync.Mutex
	pending map[string]*stdioCall // by the id on the wire
}

// A write is one message on its way to the writer.
type write struct {
	m    *Message
	done chan written
}

type written struct {
	n   int
	err error
}

// A stdioCall waits for its outcome.
type stdioCall struct {
	*call
	outcome chan outcome
}

type outcome struct {
	m   *Message
	err error
}

// maxCancels bounds the cancellations that wait for a server that does not
// read. More are dropped: it would not read them either.
const maxCancels = 64

func dialStdio(s Server, e *ending, onMessage func(*Message), grace time.Duration) (*stdio, error) {
	p, err := startProcess(s)
	if err != nil {
		return nil, err
	}
	l := &stdio{
		ending:    e,
		proc:      p,
		pipe:      NewPipe(p.stdout, p.stdin, s.MaxMessage),
		onMessage: onMessage,
		grace:     grace,
		writes:    make(chan *write),
		cancels:   make(chan *Message, maxCancels),
		finished:  make(chan struct{}),
		pending:   make(map[string]*stdioCall),
	}
	go l.supervise()
	return l, nil
}

// supervise owns the process and the goroutines, and ends when they have.
func (l *stdio) supervise() {
	defer close(l.finished)
	var work sync.WaitGroup
	work.Go(l.write)
	work.Go(l.read)
	select {
	case <-l.proc.exited:
	case <-l.ending.done:
		l.proc.stop(l.grace)
	}
	// What the process wrote before it died is still read. But a descendant
	// that left the process group may hold its output open for ever.
	t := time.AfterFunc(l.grace, l.proc.closePipes)
	defer t.Stop()
	work.Go(func() { <-l.proc.drained })
	l.proc.closeInput()
	work.Wait()
	l.proc.closePipes()
}

func (l *stdio) write() {
	for {
		select {
		case w := <-l.writes:
			n, err := l.pipe.write(w.m)
			w.done <- written{n, err}
			if err != nil {
				l.ending.end(err)
			}
		case m := <-l.cancels:
			if _, err := l.pipe.write(m); err != nil {
				l.ending.end(err)
			}
		case <-l.ending.done:
			return
		}
	}
}

func (l *stdio) read() {
	for {
		m, err := l.pipe.Read()
		var bad *SyntaxError
		switch {
		case errors.As(err, &bad):
			l.unreadable(bad)
		case err != nil:
			l.ending.end(l.endOfOutput(err))
			return
		case m.IsResponse():
			l.settle(string(m.ID()), outcome{m: m})
		default:
			l.dispatch(m)
		}
	}
}

// endOfOutput explains why nothing more can be read.
func (l *stdio) endOfOutput(err error) error {
	select {
	case <-l.proc.exited:
		return l.proc.exitError()
	case <-time.After(exitPatience):
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the server closed its output")
	}
	return fmt.Errorf("read from the server: %w", err)
}

// unreadable deals with a line that is no message. Servers do print other
// things, so it is skipped, unless it may have been the answer to a call: that
// call would wait in vain.
func (l *stdio) unreadable(e *SyntaxError) {
	switch {
	case e.ID != nil:
		l.settle(string(e.ID), outcome{err: e})
	case e.long:
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, k := range l.pending {
			k.settle(outcome{err: e})
		}
	}
}

// dispatch hands over a message that is not a response.
func (l *stdio) dispatch(m *Message) {
	k := l.subscription(m)
	if k == nil {
		l.onMessage(m)
		return
	}
	k.deliver(m)
	if k.cancelledBy(m) {
		k.settle(outcome{err: errors.New("the server ended the subscription")})
	}
}

// subscription returns the call that a message is tagged with, or nil.
func (l *stdio) subscription(m *Message) *stdioCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	tag, ok := Get(m.Params(), "_meta", MetaSubscriptionID)
	if !ok && m.Method() == methodCancelled {
		tag, ok = Get(m.Params(), "requestId")
	}
	k := l.pending[string(tag)]
	if !ok || k == nil || !(k.tags(m.Params()) || k.cancelledBy(m)) {
		return nil
	}
	return k
}

// settle gives a call its outcome. An answer that nobody waits for, be it
// late, repeated or invented, is dropped.
func (l *stdio) settle(id string, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.pending[id]; k != nil {
		k.settle(o)
	}
}

// settle takes the first outcome and drops the others.
func (k *stdioCall) settle(o outcome) {
	select {
	case k.outcome <- o:
	default:
	}
}

func (l *stdio) call(ctx context.Context, c *call) (*Reply, error) {
	k := &stdioCall{call: c, outcome: make(chan outcome, 1)}
	l.expect(k)
	defer l.forget(k)
	w := &write{m: c.req, done: make(chan written, 1)}
	if err := l.submit(ctx, w); err != nil {
		return nil, err
	}
	select {
	case o := <-k.outcome:
		return o.reply()
	case <-ctx.Done():
		if c.req.Method() != methodInitialize {
			select {
			case l.cancels <- cancelled(c.wire):
			default: // see maxCancels
			}
		}
		return nil, lost(context.Cause(ctx))
	case <-l.ending.done:
	}
	// The end may have been noticed before the last answer was.
	select {
	case o := <-k.outcome:
		return o.reply()
	default:
	}
	select {
	case r := <-w.done: // the writer reports before it ends the connection
		if err := r.verdict(); err != nil {
			return nil, err
		}
	default:
	}
	return nil, lost(l.ending.err)
}

func (o outcome) reply() (*Reply, error) {
	if o.err != nil {
		return nil, lost(o.err)
	}
	return &Reply{Message: o.m, Status: 200}, nil
}

// submit hands a message to the writer.
func (l *stdio) submit(ctx context.Context, w *write) error {
	select {
	case l.writes <- w:
		return nil
	case <-ctx.Done():
		return notSent(context.Cause(ctx))
	case <-l.ending.done:
		return notSent(l.ending.err)
	}
}

func (l *stdio) send(ctx context.Context, m *Message) error {
	w := &write{m: m, done: make(chan written, 1)}
	if err := l.submit(ctx, w); err != nil {
		return err
	}
	select {
	case r := <-w.done:
		return r.verdict()
	case <-ctx.Done():
		return lost(context.Cause(ctx))
	case <-l.ending.done:
	}
	select {
	case r := <-w.done: // the writer reports before it ends the connection
		return r.verdict()
	default:
		return lost(l.ending.err)
	}
}

// verdict says what a write means for the message.
func (r written) verdict() error {
	switch {
	case r.err == nil:
		return nil
	case r.n == 0:
		return notSent(r.err)
	default:
		return lost(r.err)
	}
}

func (l *stdio) expect(k *stdioCall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[string(k.wire)] = k
}

func (l *stdio) forget(k *stdioCall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, string(k.wire))
}

func (l *stdio) session() string { return "" }

func (l *stdio) close() error {
	<-l.finished
	return l.proc.stopErr
}
