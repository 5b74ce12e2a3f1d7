package pdp

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

// refusals counts the requests that were refused for want of room. A record for
// each would feed the very overload that they are refused for, so one record
// says how many there were at each gate.
type refusals struct {
	mu     sync.Mutex
	since  time.Time
	byGate map[string]int64
}

// refuse denies a request without looking at it.
func (p *PDP) refuse(req authz.Request) (authz.Decision, error) {
	now := p.Now()
	r := &p.refused
	r.mu.Lock()
	if r.byGate == nil {
		r.byGate, r.since = map[string]int64{}, now
	}
	r.byGate[clip(req.Gate, 64)]++
	r.mu.Unlock()
	if p.Observer != nil {
		p.Observer.Refused(req.Gate)
	}
	d := authz.Deny(authz.ReasonOverloaded, "There is more to decide than can be decided; try again in a second.")
	d.Time = now
	return d, nil
}

// RecordRefusals posts one record of the requests refused for want of room
// since the last one, if there were any. It is to be called every second or so.
func (p *PDP) RecordRefusals() error {
	r := &p.refused
	r.mu.Lock()
	details := struct {
		Since  string           `json:"since"`
		Gates  map[string]int64 `json:"gates"`
		Reason string           `json:"reason"`
	}{r.since.UTC().Format(time.RFC3339), r.byGate, authz.ReasonOverloaded}
	r.byGate = nil
	r.mu.Unlock()
	if details.Gates == nil {
		return nil
	}
	text, err := json.Marshal(details)
	if err == nil {
		err = p.Log.Post(audit.Record{Kind: audit.KindSystem, Time: p.Now(), Effect: "refused", System: text})
	}
	if err != nil {
		return fmt.Errorf("record refusals %v: %w", details.Gates, err)
	}
	return nil
}
