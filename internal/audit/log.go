package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// A Config says where a log lives.
type Config struct {
	// Dir is the evidence directory: lock, keys, journal. Required; it is
	// created if it is missing.
	Dir string
	// Origin names the log in its checkpoints (C2SP tlog-checkpoint). Required,
	// and fixed for the life of the directory.
	Origin string
	// Journal opens the journal in Dir. Required. It is called again after a
	// failure, when the previous journal has been closed.
	Journal func(context.Context) (Journal, error)
	// Reserve is the free space in bytes below which no action is released.
	// Zero means the lesser of 256 MiB and a twentieth of the disk; negative
	// means none.
	Reserve int64
	// Logger is told of failures and recoveries. Default: slog.Default().
	Logger *slog.Logger
	// Now is the clock of the log's own records. Default: time.Now.
	Now func() time.Time
}

const (
	// maxBatch and maxBatchBytes bound one commit. A single record may be
	// larger than maxBatchBytes; it is then alone in its commit.
	maxBatch      = 4096
	maxBatchBytes = 8 << 20
	// maxQueue and maxQueueBytes bound what waits for the next commit.
	maxQueue      = 2 * maxBatch
	maxQueueBytes = 64 << 20
)

// A Log is the only writer of a directory of evidence. It may be used by many
// goroutines. One goroutine of its own writes: it takes all that has queued,
// commits it at once, and answers those that wait.
type Log struct {
	c      Config
	lock   *os.File
	signer signer

	wake chan struct{} // the queue is not empty, or the log is closing
	done chan struct{} // the writer has ended
	low  atomic.Bool   // the disk is below the reserve
	size atomic.Uint64 // entries, for Stats

	mu      sync.Mutex
	journal Journal // changed by the writer only; nil while there is none
	queue   []*item
	waited  int       // how many in the queue somebody waits for
	since   time.Time // when the first of the queue came
	// taken is how many of the last batch somebody waited for, crowd how many
	// there are, and committed when it was answered. The next is held back for
	// want of them, for patience.
	taken, crowd, want int
	committed          time.Time
	patience           time.Duration
	bytes              int
	refused            int64 // records refused while down
	down               error // why nothing can be made durable; nil in good times
	closed             bool

	// The rest belongs to the writer.
	tree tree
	mark *os.File
	// owed are outcomes that the log itself adds, and posted records of a
	// commit that failed. They go before the queue.
	owed []*item
	// doubt is the batch of a failed commit until it is known whether it is in
	// the journal.
	doubt   []*item
	lastErr error
}

// An item is a record on its way to the disk.
type item struct {
	sealed
	// done is closed when the record's fate is known. Nil for records that
	// nobody waits for.
	done    chan struct{}
	receipt Receipt
	err     error
	// once marks a record that is not written again if its commit fails.
	once bool
	// settled is set by whoever comes first: the writer, which then closes
	// done, or a caller that gives up.
	settled atomic.Bool
}

// answer tells the caller, and reports false when the caller had given up.
func (it *item) answer(r Receipt, err error) bool {
	if it.done == nil {
		return true
	}
	it.receipt, it.err = r, err
	defer close(it.done)
	return it.settled.CompareAndSwap(false, true)
}

// Open takes the directory for this process, checks the newest part of the
// evidence against its signed checkpoints, settles what an earlier process
// left open, and records that it started. A released decision without an
// outcome gets the outcome "ambiguous": nobody can know any more.
//
// It returns ErrLocked if another process has the directory and ErrDamaged if
// the evidence is not what was signed.
func Open(ctx context.Context, c Config) (*Log, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	lock, err := lockDir(filepath.Join(c.Dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("open audit log %s: %w", c.Dir, err)
	}
	l := &Log{c: c, lock: lock, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open audit log %s: %w", c.Dir, err), l.release())
	}
	go l.write()
	return l, nil
}

// Append makes one record durable. With an error the record may or may not
// have become durable, and the caller must answer its decision with a denial;
// should a released decision turn out to be durable after all, the log adds
// the outcome "not_run" by itself.
//
// It returns the error of ctx when that ends first, and ErrUnavailable,
// ErrBusy, ErrLowDisk, ErrInvalid or ErrClosed.
func (l *Log) Append(ctx context.Context, r Record) (Receipt, error) {
	s, err := seal(r)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("append %s record: %w", r.Kind, err)
	}
	it := &item{sealed: s, done: make(chan struct{})}
	if err := l.enqueue(it); err != nil {
		return Receipt{}, fmt.Errorf("append %s record: %w", r.Kind, err)
	}
	select {
	case <-it.done:
	case <-ctx.Done():
		if it.settled.CompareAndSwap(false, true) {
			return Receipt{}, fmt.Errorf("append %s record: not durable in time: %w", r.Kind, ctx.Err())
		}
		<-it.done
	}
	if it.err != nil {
		return Receipt{}, fmt.Errorf("append %s record: %w", r.Kind, it.err)
	}
	return it.receipt, nil
}

// Post queues one record in order with those of Append and does not wait for
// the disk. While the log is unavailable the record waits. It returns ErrBusy
// when the queue is full, ErrInvalid or ErrClosed.
func (l *Log) Post(r Record) error {
	s, err := seal(r)
	if err == nil {
		err = l.enqueue(&item{sealed: s})
	}
	if err != nil {
		return fmt.Errorf("post %s record: %w", r.Kind, err)
	}
	return nil
}

func (l *Log) enqueue(it *item) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case it.done != nil && l.down != nil:
		l.refused++
		return fmt.Errorf("%w: %w", ErrUnavailable, l.down)
	case it.released && l.low.Load():
		return ErrLowDisk
	case len(l.queue) >= maxQueue, len(l.queue) > 0 && l.bytes+it.size() > maxQueueBytes:
		return ErrBusy
	}
	if len(l.queue) == 0 {
		l.since = time.Now()
	}
	if it.done != nil {
		l.waited++
	}
	l.queue = append(l.queue, it)
	l.bytes += it.size()
	// The writer need not look at each of those that it waits for.
	if it.done == nil || l.waited == 1 || l.waited >= l.want {
		l.signal()
	}
	return nil
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default: // the writer has been told and has not looked yet
	}
}

// Health returns nil while actions can be released, and otherwise why not:
// ErrUnavailable, ErrLowDisk or ErrClosed.
func (l *Log) Health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case l.down != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, l.down)
	case l.low.Load():
		return ErrLowDisk
	}
	return nil
}

// Stats are the numbers of a log at one moment.
type Stats struct {
	// Entries is how many entries the log has.
	Entries uint64
	// Queue is how many records wait to be written, and Lag how long the oldest
	// of them may have waited.
	Queue int
	Lag   time.Duration
}

// Stats returns how the log is doing.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{Entries: l.size.Load(), Queue: len(l.queue)}
	if s.Queue > 0 {
		s.Lag = time.Since(l.since)
	}
	return s
}

// Key is the public key that the log's checkpoints are signed with.
func (l *Log) Key() Key { return l.signer.key }

// Close writes what is queued and the record "stopped", and lets go of the
// directory. It returns the error that kept records from being written.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.mu.Unlock()
	l.signal()
	<-l.done
	if err := errors.Join(l.lastErr, l.release()); err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

// release closes whatever is open. Only the writer, or nobody, may be using it.
func (l *Log) release() error {
	var errs []error
	if l.journal != nil {
		errs = append(errs, l.journal.Close())
		l.setJournal(nil)
	}
	if l.mark != nil {
		errs = append(errs, l.mark.Close())
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

// system seals a record of the log about itself.
func (l *Log) system(act string, details any) *item {
	text, err := json.Marshal(details)
	if err != nil {
		panic(err) // details are ours
	}
	return l.own(Record{Kind: KindSystem, Effect: act, System: text})
}

// own seals a record that the log makes itself, which is never invalid.
func (l *Log) own(r Record) *item {
	r.Time = l.c.Now()
	s, err := seal(r)
	if err != nil {
		panic(err)
	}
	return &item{sealed: s}
}
