package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Bounds of what waits for the collector.
const (
	queueSize  = 4096 // spans, about 1 KB each
	batchSize  = 512
	flushEvery = time.Second
	sendWithin = 10 * time.Second
)

// A queue delivers spans behind the decisions. It is bounded: what does not
// fit in is dropped and counted, and so is a batch that the collector does not
// take. Nothing is sent twice.
type queue struct {
	spans    chan sdktrace.ReadOnlySpan
	exporter sdktrace.SpanExporter
	logger   *slog.Logger
	failing  bool // of the goroutine that sends

	sent, dropped atomic.Uint64

	once   sync.Once
	stop   chan struct{} // closed: take nothing more
	cancel context.CancelFunc
	work   sync.WaitGroup
}

var _ sdktrace.SpanProcessor = (*queue)(nil)

func newQueue(exporter sdktrace.SpanExporter, logger *slog.Logger) *queue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &queue{
		spans: make(chan sdktrace.ReadOnlySpan, queueSize), exporter: exporter, logger: logger,
		stop: make(chan struct{}), cancel: cancel,
	}
	q.work.Go(func() { q.run(ctx) })
	return q
}

// OnStart does nothing.
func (q *queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd queues a span or drops it; it never waits.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	select {
	case <-q.stop:
		q.dropped.Add(1)
		return
	default:
	}
	select {
	case q.spans <- s:
	default:
		q.dropped.Add(1)
	}
}

// ForceFlush does nothing: what waits is sent within a second, or by Shutdown.
func (q *queue) ForceFlush(context.Context) error { return nil }

// Shutdown takes nothing more and delivers what waits until ctx ends.
func (q *queue) Shutdown(ctx context.Context) error {
	q.once.Do(func() { close(q.stop) })
	unlink := context.AfterFunc(ctx, q.cancel)
	defer unlink()
	q.work.Wait()
	q.cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	return q.exporter.Shutdown(ctx)
}

func (q *queue) run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	batch := make([]sdktrace.ReadOnlySpan, 0, batchSize)
	for {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) == batchSize {
				batch = q.send(ctx, batch)
			}
		case <-tick.C:
			batch = q.send(ctx, batch)
		case <-q.stop:
			q.drain(ctx, batch)
			return
		}
	}
}

func (q *queue) drain(ctx context.Context, batch []sdktrace.ReadOnlySpan) {
	for {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) == batchSize {
				batch = q.send(ctx, batch)
			}
		default:
			q.send(ctx, batch)
			return
		}
	}
}

// send delivers a batch and returns it emptied.
func (q *queue) send(ctx context.Context, batch []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	if len(batch) == 0 {
		return batch
	}
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	err := q.exporter.ExportSpans(ctx, batch)
	if err != nil {
		q.dropped.Add(uint64(len(batch)))
	} else {
		q.sent.Add(uint64(len(batch)))
	}
	if failing := err != nil; failing != q.failing { // tell each turn once
		q.failing = failing
		if failing {
			q.logger.Warn("traces are not delivered", "error", err)
		} else {
			q.logger.Info("traces are delivered again")
		}
	}
	clear(batch)
	return batch[:0]
}
