package audit

import "errors"

// Errors that callers branch on. A decision whose record met one of them must
// be answered as a denial.
var (
	// ErrUnavailable: the log cannot make records durable. It stays so until
	// the journal has been reopened and checked, which the log tries by itself.
	ErrUnavailable = errors.New("audit log unavailable")
	// ErrBusy: too much is waiting to be written. Nothing was queued.
	ErrBusy = errors.New("audit log busy: its queue is full")
	// ErrLowDisk: the disk is so full that no action may be released. Denials
	// and outcomes are still recorded.
	ErrLowDisk = errors.New("audit log low on disk: free some space")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("audit log closed")
	// ErrInvalid: the record itself cannot be recorded.
	ErrInvalid = errors.New("invalid audit record")
	// ErrLocked: another process writes to this directory.
	ErrLocked = errors.New("evidence directory in use by another process")
	// ErrDamaged: stored evidence is not what was signed.
	ErrDamaged = errors.New("evidence damaged")
	// ErrNotFound: there is no such entry.
	ErrNotFound = errors.New("no such entry")
)
