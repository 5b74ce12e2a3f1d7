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
	ended chan struct{} // closed when nothing more comes
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

// agreed waits for the acknowledgement until the request or ctx ends, and
// reports whether it has come. A server that acknowledges and hangs up at once
// has agreed: both are true by the time somebody looks.
func (s *listener) agreed(ctx context.Context) bool {
	select {
	case <-s.acked:
	case <-s.ended:
	case <-ctx.Done():
	}
	select {
	case <-s.acked:
		return true
	default:
		return false
	}
}

// listen subscribes to what the server says outside of requests. A stream that
// breaks is opened again; what may have been missed in between is told as a
// change.
func (l *modernLink) listen(ctx context.Context, want subscription, emit func(*mcp.Message)) (subscription, error) {
	if want.empty() {
		return subscription{}, nil
	}
	s := l.listenOnce(ctx, want, emit)
	if s == nil {
		return subscription{}, mcp.ErrNotSent
	}
	soon, cancel := context.WithTimeout(ctx, l.wire.up.gate.limits.Connect)
	defer cancel()
	if !s.agreed(soon) {
		return subscription{}, nil
	}
	if !s.got.empty() {
		l.wire.up.gate.goDo(func() { l.listenOn(ctx, s, want, emit) })
	}
	return s.got, nil
}

// listenOnce sends one request. It returns nil when the gate is closing.
func (l *modernLink) listenOnce(ctx context.Context, want subscription, emit func(*mcp.Message)) *listener {
	s := &listener{emit: emit, acked: make(chan struct{}), ended: make(chan struct{})}
	params := set(ownMeta(nil, nil), want.wire(), "notifications")
	ok := l.wire.up.gate.goDo(func() {
		defer close(s.ended)
		_, err := l.wire.call(ctx, mcp.NewRequest(json.RawMessage("0"), methodListen, params), nil, s.take)
		if err != nil && ctx.Err() == nil {
			l.wire.up.gate.log.Info("subscription ended", "server", l.wire.up.name(), "error", err)
		}
	})
	if !ok {
		return nil
	}
	return s
}

// listenOn listens again whenever the stream has ended.
func (l *modernLink) listenOn(ctx context.Context, s *listener, want subscription, emit func(*mcp.Message)) {
	pause := listenPause
	for {
		select {
		case <-s.ended:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, listenPauseMax)
		case <-ctx.Done():
			return
		}
		if s = l.listenOnce(ctx, want, emit); s == nil {
			return
		}
		if !s.agreed(ctx) {
			continue
		}
		pause = listenPause
		for _, k := range listKinds {
			if want.lists[k.filter] {
				emit(mcp.NewNotification(k.note, nil))
			}
		}
	}
}
