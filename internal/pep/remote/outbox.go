package remote

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// Bounds of the outbox.
const (
	outboxSize = 4096
	couriers   = 8
	attempts   = 12 // the last comes about a minute after the first
	firstPause = 100 * time.Millisecond
	longPause  = 10 * time.Second
)

var (
	errFull   = errors.New("too many outcomes wait to be reported")
	errClosed = errors.New("the gate has ended")
)

// An outcome waits to be reported.
type outcome struct {
	decision string
	text     []byte
}

// An outbox delivers outcomes while the agent goes on. It is bounded: what
// does not fit in is refused.
type outbox struct {
	queue  chan outcome
	send   func(context.Context, outcome) bool // false: lost
	stop   context.CancelFunc
	work   sync.WaitGroup
	lost   atomic.Int64
	mu     sync.RWMutex // guards what follows
	closed bool
}

func open(send func(context.Context, outcome) bool) *outbox {
	ctx, stop := context.WithCancel(context.Background())
	o := &outbox{queue: make(chan outcome, outboxSize), send: send, stop: stop}
	for range couriers {
		o.work.Go(func() { o.carry(ctx) })
	}
	return o
}

func (o *outbox) put(out outcome) error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return errClosed
	}
	select {
	case o.queue <- out:
		return nil
	default:
		return errFull
	}
}

// carry delivers outcomes until the queue is closed and empty.
func (o *outbox) carry(ctx context.Context) {
	for out := range o.queue {
		if !o.send(ctx, out) {
			o.lost.Add(1)
		}
	}
}

// close takes nothing more, delivers what is queued until ctx ends, and
// returns how many outcomes were lost in all.
func (o *outbox) close(ctx context.Context) int64 {
	o.mu.Lock()
	if !o.closed {
		o.closed = true
		close(o.queue)
	}
	o.mu.Unlock()
	unlink := context.AfterFunc(ctx, o.stop)
	defer unlink()
	o.work.Wait()
	o.stop()
	return o.lost.Load()
}

// send delivers one outcome, trying again as long as that may help.
func (d *Decider) send(ctx context.Context, out outcome) bool {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return false // whoever closes the outbox is told
		}
		_, err := d.post(ctx, wire.PathReport, out.text, http.StatusNoContent)
		if err == nil {
			return true
		}
		var status statusError
		if errors.As(err, &status) && !status.passing() || attempt == attempts || !wait(ctx, pause) {
			d.logger.Error("outcome not reported", "decision_id", out.decision, "attempts", attempt, "error", err)
			return false
		}
		pause = min(2*pause, longPause)
	}
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
