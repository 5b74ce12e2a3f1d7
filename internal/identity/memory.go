package identity

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// rememberFor bounds how long a verified token is taken as verified. A key
	// that an issuer withdraws keeps its tokens alive for as long, beside the
	// time for which go-oidc itself remembers keys.
	rememberFor = time.Minute
	// rememberMost bounds how many tokens are remembered, about 8 MB.
	rememberMost = 20_000
)

// A memory keeps what verified tokens proved, by the digest of the whole
// token. Verifying a signature costs a hundred times what looking it up does
// (BenchmarkVerifyToken), and verifying it again tells nothing new: what may
// change while a token holds (the registry, revocations, groups of the
// registry) is not in it.
type memory struct {
	mu     sync.RWMutex
	proved map[[sha256.Size]byte]proof
}

type proof struct {
	subject Subject
	until   time.Time
}

func (m *memory) get(token string, now time.Time) (Subject, bool) {
	key := sha256.Sum256([]byte(token))
	m.mu.RLock()
	p, ok := m.proved[key]
	m.mu.RUnlock()
	if !ok || !now.Before(p.until) {
		return Subject{}, false
	}
	return p.subject, true
}

func (m *memory) put(token string, s Subject, now, expires time.Time) {
	until := now.Add(rememberFor)
	if expires.Before(until) {
		until = expires
	}
	key := sha256.Sum256([]byte(token))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proved == nil || len(m.proved) >= rememberMost {
		// Forgetting all of them costs each a verification, once.
		m.proved = map[[sha256.Size]byte]proof{}
	}
	m.proved[key] = proof{subject: s, until: until}
}

func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proved = nil
}
