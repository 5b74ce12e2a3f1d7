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

	once  sync.Once
	acked chan struct{} // closed when got is set
	got   subscription
}

// take handles one message of the subscription.
func (s *listener) take(m *mcp.Message) {
	if m.Method() != noteAcknowledged {
		select {
		case <-s.acked:
			s.emit(m)
		default: // nothing has been agreed to yet
		}
		return
	}
	s.once.Do(func() {
		s.got, _ = parseSubscription(m.Params()) // no filter: nothing was agreed to
		close(s.acked)
	})
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
		if !s.got.empty() {
			l.wire.up.gate.goDo(func() { l.listenOn(ctx, ended, want, emit) })
		}
		return s.got, nil
	case <-ended:
	case <-time.After(l.wire.up.gate.limits.Connect):
	case <-ctx.Done():
	}
	return subscription{}, nil
}

// listenOnce sends one request. The returned channel is closed when it has
// ended.
func (l *modernLink) listenOnce(ctx context.Context, want subscription, emit func(*mcp.Message)) (*listener, <-chan struct{}) {
	s := &listener{emit: emit, acked: make(chan struct{})}
	ended := make(chan struct{})
	params := set(ownMeta(nil, nil), want.wire(), "notifications")
	ok := l.wire.up.gate.goDo(func() {
		defer close(ended)
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
