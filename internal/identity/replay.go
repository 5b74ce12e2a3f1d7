package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errReplaysFull says that no further proof can be told from a replayed one.
var errReplaysFull = errors.New("more proofs of possession are being remembered than there is room for")

// replays remembers proofs of possession for as long as they could be shown
// again. When it is full new ones are refused: to forget one would let it be
// replayed.
type replays struct {
	most int

	mu   sync.Mutex
	seen map[[sha256.Size]byte]seenProof
	// order holds the proofs by the time at which they may be forgotten: all of
	// them are remembered for the same time.
	order []expiring
}

type seenProof struct{ exchange string }

type expiring struct {
	key   [sha256.Size]byte
	until time.Time
}

func newReplays(most int) *replays {
	if most <= 0 {
		most = 200_000
	}
	return &replays{most: most, seen: map[[sha256.Size]byte]seenProof{}}
}

// take accepts a proof once. Within one exchange, which the gate names, it is
// one and the same proof however often the PDP is asked about it.
func (r *replays) take(key [sha256.Size]byte, exchange string, now, until time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	if p, ok := r.seen[key]; ok {
		if exchange != "" && p.exchange == exchange {
			return nil
		}
		return fmt.Errorf("the proof of possession was shown before: %w", ErrUnauthenticated)
	}
	if len(r.seen) >= r.most {
		return errReplaysFull
	}
	r.seen[key] = seenProof{exchange}
	r.order = append(r.order, expiring{key, until})
	return nil
}

// forget drops the proofs that nobody can show any more. Their times come
// nearly in order; one that is early waits for those before it.
func (r *replays) forget(now time.Time) {
	n := 0
	for n < len(r.order) && !now.Before(r.order[n].until) {
		delete(r.seen, r.order[n].key)
		n++
	}
	r.order = r.order[n:]
}
