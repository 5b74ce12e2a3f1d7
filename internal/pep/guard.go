package pep

import (
	"context"
	"log/slog"
	"sync"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// A Guard asks a [Decider] for a gate and fails closed. It carries out no
// obligation yet, so a decision with one is a denial (AuthZEN Obligations
// profile: a PEP that cannot comply must deny).
type Guard struct {
	Decider
	// Watch knows what is suspended. Nil: nothing ever is.
	Watch *revoke.Watch
	// Logger is told of faults. Required.
	Logger *slog.Logger
}

// A Release lets one action run. It must be settled exactly once; settling it
// again changes nothing.
type Release struct {
	// Decision is the decision that released the action.
	Decision authz.Decision

	once  sync.Once
	guard *Guard
	hold  *revoke.Hold
}

// Bind returns a ctx that also ends when what was released is suspended; the
// cause is then a [revoke.Cut]. What runs under it is given up. Its cancel
// function must be called.
func (r *Release) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return r.hold.Bind(ctx)
}

// Cut says why what was released has to end, or is nil.
func (r *Release) Cut() *revoke.Cut { return r.hold.Cut() }

// OnCut has f called when what was released is suspended: see
// [revoke.Hold.OnCut]. It is forgotten when the release is settled.
func (r *Release) OnCut(f func(*revoke.Cut)) { r.hold.OnCut(f) }

// Ask decides the request. The Release is nil unless the action may run.
func (g *Guard) Ask(ctx context.Context, req authz.Request) (*Release, authz.Decision) {
	d, err := g.Decide(ctx, req)
	if err != nil {
		g.Logger.Error("decision failed", "decision_id", d.ID, "action", req.Action, "error", err)
		if d.Allow || len(d.Reasons) == 0 {
			d = authz.Deny(authz.ReasonPDPDown, "The request could not be decided; try again later.")
		}
		return nil, d
	}
	if !d.Allow {
		return nil, d
	}
	r := &Release{Decision: d, guard: g, hold: g.Watch.Hold(d.Scope)}
	// What was suspended while the answer was on its way here.
	if cut := r.hold.Cut(); cut != nil {
		r.Abandon(authz.OutcomeNotRun, 0, cut.Code)
		denial := authz.Decision{ID: d.ID, Version: d.Version, Reasons: []authz.Reason{cut.Reason}}
		return nil, denial
	}
	if len(d.Obligations) > 0 {
		r.Abandon(authz.OutcomeNotRun, 0, "obligation not supported: "+d.Obligations[0].Type)
		denial := authz.Deny(authz.ReasonObligationUnmet, "The decision demands something that this gate cannot do.")
		denial.ID, denial.Version = d.ID, d.Version
		return nil, denial
	}
	return r, d
}

// Settle records what became of the action. output is what the agent is going to
// see of it: Settle comes first.
func (r *Release) Settle(status authz.OutcomeStatus, bytes int64, problem string, output ...string) {
	r.settle(authz.Outcome{Status: status, Bytes: bytes, Error: problem}, output)
}

// Abandon records what became of an action that was ended from our side, which
// says nothing of the upstream.
func (r *Release) Abandon(status authz.OutcomeStatus, bytes int64, problem string) {
	r.settle(authz.Outcome{Status: status, Bytes: bytes, Error: problem, Ours: true}, nil)
}

func (r *Release) settle(out authz.Outcome, output []string) {
	r.once.Do(func() {
		r.hold.Release()
		out.Decision = r.Decision.ID
		out.Output, out.Cut = bounded(output)
		err := r.guard.Report(context.Background(), out)
		if err != nil {
			// The decision stands on the record without an outcome, which is what
			// an unknown outcome looks like.
			r.guard.Logger.Error("outcome not recorded", "decision_id", r.Decision.ID, "error", err)
		}
	})
}

// bounded returns as many of the parts as fit into an outcome, and whether that
// is not all of them.
func bounded(parts []string) ([]string, bool) {
	size := 0
	for i, part := range parts {
		if size += len(part); size > authz.MaxOutput {
			return parts[:i], true
		}
	}
	return parts, false
}
