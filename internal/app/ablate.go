package app

import (
	"context"
	"math"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/entity"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// An Ablation says which recorded decisions hang on one signal of risk alone.
type Ablation struct {
	// Decisions were decided again, under the policies in force.
	Decisions int `json:"decisions"`
	// Skipped could not be: they are of subjects that are no agents, of
	// operations that are gone, or the policies in force say something else.
	Skipped int           `json:"skipped"`
	Signals []SignalShare `json:"signals"`
}

// A SignalShare is what one signal had to do with the decisions.
type SignalShare struct {
	Signal string `json:"signal"`
	// Counted is in how many decisions it added points, and Decisive in how many
	// of them the answer would have been another without it.
	Counted  int `json:"counted"`
	Decisive int `json:"decisive"`
	// Examples are the ids of some of the latter, the newest first.
	Examples []string `json:"examples,omitempty"`
}

// mostExamples bounds the examples of a signal.
const mostExamples = 5

// Ablate decides the recorded decisions again, without one signal of risk after
// the other. Points are taken as they were recorded.
func Ablate(ctx context.Context, c *Config) (Ablation, error) {
	v, err := LoadVersion(c)
	if err != nil {
		return Ablation{}, err
	}
	known, err := entity.Open(ctx, entity.Config{Sources: c.Entities, Policies: v.Program.Set()})
	if err != nil {
		return Ablation{}, err
	}
	defer known.Close()
	evidence, err := OpenEvidence(ctx, c)
	if err != nil {
		return Ablation{}, err
	}
	defer evidence.Close()
	a := Ablation{Signals: make([]SignalShare, risk.Signals)}
	for i := range a.Signals {
		a.Signals[i].Signal = risk.Signal(i).String()
	}
	world := known.View().World()
	err = audit.Records(ctx, evidence.journal, 0, math.MaxUint64, func(r audit.Recorded) error {
		if r.Record.Kind == audit.KindDecision && r.Record.Why != nil && r.Record.Why.Risk != nil {
			a.add(v, world, r.Record)
		}
		return nil
	})
	return a, err
}

func (a *Ablation) add(v *pdp.Version, w *engine.World, r audit.Record) {
	score := risk.Score{Total: r.Why.Risk.Score}
	for name, points := range r.Why.Risk.Points {
		if s, ok := risk.SignalOf(name); ok {
			score.Points[s] = points
		}
	}
	allows := func(s risk.Score) (allow, ok bool) {
		q, err := question(v, w, r, s)
		if err != nil || q == nil {
			return false, false
		}
		return v.Program.Authorize(q).Allow, true
	}
	recorded := r.Effect == "allow"
	if allow, ok := allows(score); !ok || allow != recorded {
		a.Skipped++
		return
	}
	a.Decisions++
	for i := range a.Signals {
		if score.Points[i] == 0 {
			continue
		}
		s := &a.Signals[i]
		s.Counted++
		if allow, ok := allows(score.Without(risk.Signal(i))); ok && allow != recorded {
			s.Decisive++
			s.Examples = append([]string{r.Decision}, s.Examples[:min(len(s.Examples), mostExamples-1)]...)
		}
	}
}

// question is the question of a record, with another risk. It is nil for
// records of subjects that are no agents.
func question(v *pdp.Version, w *engine.World, r audit.Record, score risk.Score) (*engine.Request, error) {
	op, ok := v.Catalog.Operation(r.What.Action)
	if !ok || op.Application != "" || r.Who.Subject.Type != "Agent" || r.Why.Session == nil {
		return nil, nil
	}
	s := r.Why.Session
	who := pdp.Caller{Subject: identity.Subject{
		Agent: r.Who.Subject.ID, Groups: r.Who.Groups, For: r.Who.For, Method: r.Who.Auth, Level: identity.LevelProven,
	}}
	snapshot := session.Snapshot{ID: s.ID, Agent: who.Agent, Started: s.Started, Calls: s.Calls, Denials: s.Denials, Labels: s.Labels}
	req := authz.Request{Action: r.What.Action, Server: r.What.Server, Resource: r.What.Resource, Input: r.Input, Gate: r.Who.Gate}
	return v.Request(who, snapshot, score, pdp.OriginsOf(r.Why.Origins), op, req, w, r.Time)
}
