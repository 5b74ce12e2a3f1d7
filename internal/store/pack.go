package store

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

// The entries of a commit are packed into two blobs of one row, so that a
// record costs SQLite little more than copying it (docs/formats.md). Payloads
// are in a blob of their own: they are what may be erased one day, and leaves
// are what others are given to read.

const (
	hashSize   = 32
	lengthSize = 4
)

// packLeaves appends, for each entry, the hash of its leaf, the length of the
// leaf as four bytes, most significant first, and the leaf.
func packLeaves(b []byte, entries []audit.Entry) []byte {
	for i := range entries {
		b = append(b, entries[i].Hash[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(entries[i].Leaf)))
		b = append(b, entries[i].Leaf...)
	}
	return b
}

// packPayloads appends, for each entry, the length of its payload and the
// payload.
func packPayloads(b []byte, entries []audit.Entry) []byte {
	for i := range entries {
		b = binary.BigEndian.AppendUint32(b, uint32(len(entries[i].Payload)))
		b = append(b, entries[i].Payload...)
	}
	return b
}

// A row is one commit as it is stored.
type row struct {
	last                                   int64
	leaves, payloads, checkpoint, frontier []byte
}

// entries unpacks a row. What it returns shares the row's memory. A row that
// packLeaves and packPayloads could not have written is [audit.ErrDamaged].
func (r *row) entries() ([]audit.Entry, error) {
	var entries []audit.Entry
	leaves, payloads := unpacker{rest: r.leaves}, unpacker{rest: r.payloads}
	for len(leaves.rest) > 0 && !leaves.short && !payloads.short {
		e := audit.Entry{Hash: [hashSize]byte(leaves.take(hashSize)), Leaf: leaves.sized(), Payload: payloads.sized()}
		entries = append(entries, e)
	}
	n := uint64(len(entries))
	if leaves.short || payloads.short || len(payloads.rest) > 0 || n == 0 || r.last < 0 || n > uint64(r.last)+1 {
		return nil, fmt.Errorf("%w: the row of the commit that ends with entry %d is not in the format", audit.ErrDamaged, r.last)
	}
	for i := range entries {
		entries[i].Index = uint64(r.last) + 1 - n + uint64(i)
	}
	entries[n-1].Checkpoint, entries[n-1].Frontier = r.checkpoint, r.frontier
	return entries, nil
}

// An unpacker takes a blob apart. When there is less than it should take, it
// is short and gives zeros.
type unpacker struct {
	rest  []byte
	short bool
}

func (u *unpacker) take(n int) []byte {
	if len(u.rest) < n {
		u.short = true
		// No length that is read here can make it allocate much: n is then
		// one of the two constants, or more than there is.
		return make([]byte, min(n, hashSize))
	}
	b := u.rest[:n:n]
	u.rest = u.rest[n:]
	return b
}

// sized takes a length and so many bytes.
func (u *unpacker) sized() []byte {
	n := binary.BigEndian.Uint32(u.take(lengthSize))
	if uint64(n) > math.MaxInt32 {
		u.short = true
		return nil
	}
	return u.take(int(n))
}
