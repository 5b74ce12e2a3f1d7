package pdp

import (
	"context"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// An Observer is told of every decision once it has been answered for, for
// metrics and traces. It must be quick, must not block, and decides nothing.
type Observer interface {
	// Decided is called with the context of the request, which may have ended.
	Decided(ctx context.Context, o Observation)
	// Refused is called for a request that there was no room to decide.
	Refused(gate string)
}

// An Observation is what may be told of a decision beside the record: nothing
// that names a subject or holds a value.
type Observation struct {
	Decision authz.Decision
	Gate     string
	// Action is a name of the catalogue, so that there are finitely many; empty
	// when the request named none of it.
	Action  string
	Effects []string
	// Start is when the decision began, and Steps what it then did, in order.
	Start time.Time
	// The steps may be kept no longer than the call.
	Steps []Step
}

// A Step is a part of a decision.
type Step struct {
	// Name is one of the Step constants.
	Name string
	Took time.Duration
}

// The steps of a decision.
const (
	StepIdentity = "identity" // who is asking?
	StepSession  = "session"  // in what session?
	StepCatalog  = "catalog"  // what would it do?
	StepEntities = "entities" // what is known of it?
	StepPolicy   = "policy"   // what does policy say?
	StepRemedies = "remedies" // what would change the answer?
	StepRecord   = "record"   // written down
)

func (c *inquiry) observe(ctx context.Context, d authz.Decision) {
	if c.p.Observer == nil {
		return
	}
	d.Challenge = nil // it repeats the scopes of the token
	o := Observation{Decision: d, Gate: c.req.Gate, Start: c.now, Steps: c.steps}
	if c.op != nil {
		o.Action, o.Effects = c.op.Action, c.op.Effects
	}
	c.p.Observer.Decided(ctx, o)
}

// micros puts the steps into m, as records hold them, in microseconds.
func micros(m map[string]int64, steps []Step) map[string]int64 {
	clear(m)
	for _, s := range steps {
		m[s.Name] += s.Took.Microseconds()
	}
	return m
}
