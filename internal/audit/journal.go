package audit

import "context"

// An Entry is one record as it is stored (docs/formats.md).
type Entry struct {
	// Index is the position in the log, counted from 0.
	Index uint64
	// Hash is the RFC 6962 leaf hash of Leaf.
	Hash [32]byte
	// Leaf is what the tree commits to: a small header and the commitments.
	Leaf []byte
	// Payload opens the commitments of Leaf.
	Payload []byte
	// Checkpoint is the signed checkpoint of the tree that ends with this
	// entry. Only the last entry of each commit has one.
	Checkpoint []byte
	// Frontier is the compact range of that tree. Present with Checkpoint.
	Frontier []byte
}

// A Reader reads stored entries.
type Reader interface {
	// Entries calls f for each entry of [from, to) that exists, in order. An
	// error of f ends it and is returned. f may keep the entry.
	Entries(ctx context.Context, from, to uint64, f func(Entry) error) error
	// LastCommit returns the newest entry below index to that carries a
	// checkpoint, or ErrNotFound.
	LastCommit(ctx context.Context, to uint64) (Entry, error)
}

// A Journal stores entries. Append and Close are called by one goroutine at a
// time, Entries and LastCommit by any.
type Journal interface {
	Reader
	// Append adds the entries of one commit, all or none: those that follow the
	// last, with a checkpoint on the last of them only. They are durable when it
	// returns nil. With an error their fate is unknown until the journal is opened again.
	Append(ctx context.Context, entries []Entry) error
	Close() error
}
