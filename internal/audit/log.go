package audit

import (
	"context"
	"errors"
	"log/slog"
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
	// Now is the clock for the log's own records. Default: time.Now.
	Now func() time.Time
}

// A Log is the only writer of a directory of evidence. It may be used by many
// goroutines.
type Log struct{}

// Open takes the directory for this process, checks the newest part of the
// evidence against its signed checkpoint, settles what an earlier process left
// open, and records that it started. Released decisions without an outcome get
// the outcome "ambiguous": nobody can know any more.
//
// It returns ErrLocked if another process has the directory and ErrDamaged if
// the evidence is not what was signed.
func Open(ctx context.Context, c Config) (*Log, error) {
	return nil, errors.New("not built yet")
}

// Append makes one record durable. With an error the record may or may not
// have become durable, and the caller must answer its decision with a denial;
// should a released decision turn out to be durable after all, the log adds
// the outcome "not_run" by itself.
//
// It returns the error of ctx when that ends first, and ErrUnavailable,
// ErrBusy, ErrLowDisk, ErrInvalid or ErrClosed.
func (l *Log) Append(ctx context.Context, r Record) (Receipt, error) {
	return Receipt{}, ErrClosed
}

// Post queues one record in order with those of Append and does not wait for
// the disk. While the log is unavailable the record waits. It returns ErrBusy
// when the queue is full, ErrInvalid or ErrClosed.
func (l *Log) Post(r Record) error { return ErrClosed }

// Health returns nil when records can be made durable, and otherwise why not.
func (l *Log) Health() error { return ErrClosed }

// Close writes what is queued and the record "stopped", and lets go of the
// directory.
func (l *Log) Close() error { return nil }

// A Receipt says where in the log a record is.
type Receipt struct {
	// Index is the entry's index, counted from 0.
	Index uint64
	// Size is the size of the tree whose checkpoint was signed with the entry.
	Size uint64
}

// Proof returns the inclusion proof of the entry in the text form of
// c2sp.org/tlog-proof. It is computed when it is asked for.
func (r Receipt) Proof() ([]byte, error) { return nil, ErrNotFound }
