package mcpgate

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// maxParked bounds the calls of one agent run that wait for input.
const maxParked = 16

// A parkingLot holds calls that wait for a client's input, by the requestState
// that the client was given. That is a random handle: it says nothing, cannot
// be guessed or altered, works once, for the same run and the same request, and
// expires. It authorizes nothing, either; the request that it comes with is
// decided like any other.
type parkingLot struct {
	gate *Gate
	mu   sync.Mutex
	all  map[[sha256.Size]byte]*parked
}

type parked struct {
	run     *running
	owner   string // the client's run, which is bound to its credential
	expires time.Time
}

func newParkingLot(g *Gate) *parkingLot {
	return &parkingLot{gate: g, all: map[[sha256.Size]byte]*parked{}}
}

// put parks a call and returns the handle to take it up with.
func (p *parkingLot) put(c *client, run *running) (string, error) {
	handle := rand.Text() + rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.all {
		if e.owner == c.run {
			n++
		}
	}
	if n >= maxParked {
		return "", refuse(reasonBusy, "Too many calls wait for input; answer or cancel some first.")
	}
	p.all[sha256.Sum256([]byte(handle))] = &parked{run: run, owner: c.run, expires: time.Now().Add(p.gate.limits.Answer)}
	return handle, nil
}

// take returns the call that a handle stands for and forgets the handle. A
// wrong client, request or server gets nothing, and spoils nothing.
func (p *parkingLot) take(c *client, d *downward, handle, digest string) *running {
	key := sha256.Sum256([]byte(handle))
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.all[key]
	if e == nil || e.owner != c.run || e.run.bridge != d || e.run.digest != digest || time.Now().After(e.expires) {
		return nil
	}
	delete(p.all, key)
	return e.run
}

// sweep gives up the calls that nobody has taken up in time.
func (p *parkingLot) sweep(now time.Time) {
	p.mu.Lock()
	var late []*parked
	for key, e := range p.all {
		if now.After(e.expires) {
			delete(p.all, key)
			late = append(late, e)
		}
	}
	p.mu.Unlock()
	for _, e := range late {
		e.run.cancel(errUnanswered)
	}
}
