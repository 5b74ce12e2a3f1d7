package mcpgate

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Pauses between attempts to listen again to a server that has hung up.
const (
	listenPause    = time.Second
	listenPauseMax = 30 * time.Second
)

// A listener is one subscriptions/listen request to a modern server.
type listener struct {
	emit func(*mcp.Message)

	mu    sync.Mutex
	id    string // the server's name for the subscription, raw
	acked chan struct{}
	got   subscription
}

// take handles one message of the subscription.
func (s *listener) take(m *mcp.Message) {
	if m.Method() != noteAcknowledged {
		s.emit(m)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != "" {
		return
	}
	s.id = subscriptionID(m)
	if s.id == "" {
		s.id = "none"
	}
	s.got, _ = parseSubscription(m.Params()) // no filter: nothing was agreed to
	close(s.acked)
}

func subscriptionID(m *mcp.Message) string {
	id, _ := mcp.Get(m.Params(), "_meta", mcp.MetaSubscriptionID)
	return string(id)
}

// listen subscribes to what the server says outside of requests. A stream that
// breaks is opened again; what may have been missed in between is told as a
// change.
func (l *modernLink) listen(ctx context.Context, want subscription, emit func(*mcp.Message)) (subscription, error) {
	if want.empty() {
		return subscription{}, nil
	}
	s, ended := l.listenOnce(ctx, want, emit)
	if s == nil {
		return subscription{}, mcp.ErrNotSent
	}
	select {
	case <-s.acked:
	case <-ended:
	case <-time.After(l.wire.up.gate.limits.Connect):
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.got.empty() {
		l.wire.up.gate.goDo(func() { l.listenOn(ctx, ended, want, emit) })
	}
	return s.got, nil
}

// listenOnce sends one request. The returned channel is closed when it has
// ended.
func (l *modernLink) listenOnce(ctx context.Context, want subscription, emit func(*mcp.Message)) (*listener, <-chan struct{}) {
	s := &listener{emit: emit, acked: make(chan struct{})}
	ended := make(chan struct{})
	params := set(ownMeta(nil, nil), want.wire(), "notifications")
	ok := l.wire.up.gate.goDo(func() {
		defer close(ended)
		defer l.addListener(s)()
		_, err := l.wire.call(ctx, mcp.NewRequest(json.RawMessage("0"), methodListen, params), nil, s.take)
		if err != nil && ctx.Err() == nil {
			l.wire.up.gate.log.Info("subscription ended", "server", l.wire.up.name(), "error", err)
		}
	})
	if !ok {
		return nil, nil
	}
	return s, ended
}

// listenOn listens again whenever the stream has ended.
func (l *modernLink) listenOn(ctx context.Context, ended <-chan struct{}, want subscription, emit func(*mcp.Message)) {
	pause := listenPause
	for {
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, listenPauseMax)
		case <-ctx.Done():
			return
		}
		var s *listener
		if s, ended = l.listenOnce(ctx, want, emit); s == nil {
			return
		}
		select {
		case <-s.acked:
			pause = listenPause
			for _, k := range listKinds {
				if want.lists[k.filter] {
					emit(mcp.NewNotification(k.note, nil))
				}
			}
		case <-ended:
		case <-ctx.Done():
			return
		}
	}
}

func (l *modernLink) addListener(s *listener) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners = append(l.listeners, s)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, o := range l.listeners {
			if o == s {
				l.listeners = append(l.listeners[:i:i], l.listeners[i+1:]...)
				return
			}
		}
	}
}

// listenerOf finds whom a message concerns that came on no stream of its own.
// Servers acknowledge in the order in which they were asked.
func (l *modernLink) listenerOf(m *mcp.Message) *listener {
	id := subscriptionID(m)
	if id == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.listeners {
		s.mu.Lock()
		match := s.id == id || s.id == "" && m.Method() == noteAcknowledged
		s.mu.Unlock()
		if match {
			return s
		}
	}
	return nil
}
