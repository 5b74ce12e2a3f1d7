package pdp

import (
	"fmt"
	"slices"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
)

var defaultScorecard = risk.DefaultScorecard()

// An appraisal is the risk of the action that is being decided.
type appraisal struct {
	event        risk.Event
	card         *risk.Scorecard // nil: nothing has been appraised
	assessment   risk.Assessment
	points       map[string]int64
	destinations []string
	record       audit.Risk
}

// appraise assesses the risk of the action and adds it to the question. Lists
// and handshakes are no acts of the agent's, and have none.
func (c *inquiry) appraise(v *Version, q *engine.Request) {
	a := &c.risk
	if !slices.Contains(c.op.Effects, discover) {
		if a.card = v.Scorecard; a.card == nil {
			a.card = defaultScorecard
		}
		a.destinations = appendDestinations(a.destinations[:0], c.op, c.origins.args)
		a.event = risk.Event{
			Session: c.session, Operation: c.op.Action, Unix: c.now.Unix(), Stakes: stakes(c.op.Effects),
			Untrusted: slices.Contains(c.visit.Labels, catalog.LabelUntrusted), Destinations: a.destinations,
		}
		a.assessment = c.p.Risk.Assess(c.visit.Agent, &a.event, a.card)
		clear(a.points)
		for i, p := range a.assessment.Points {
			if p > 0 {
				a.points[risk.Signal(i).String()] = p
			}
		}
		a.record = audit.Risk{Score: a.assessment.Total, Points: a.points}
		c.why.Risk = &a.record
	}
	q.Fields = append(q.Fields, c.memory.riskOf(a.assessment.Score))
}

// concluded lets the agent's habit learn what became of the action.
func (c *inquiry) concluded(released bool) {
	if a := &c.risk; a.card != nil {
		c.p.Risk.Conclude(c.visit.Agent, &a.event, &a.assessment, a.card, released)
		a.card = nil
	}
}

// riskOf is a score as policy sees it.
func (m *memory) riskOf(s risk.Score) engine.Field {
	m.reasons = s.AppendReasons(m.reasons[:0])
	return engine.Nested("risk", append(m.risk[:0], engine.Long("score", s.Total), engine.Strings("reasons", m.reasons)))
}

// stakes is how much is at stake in an action, for [risk.Event].
func stakes(effects []string) int64 {
	most := int64(0)
	for i, e := range [...]string{"write", "external", "destructive"} {
		if slices.Contains(effects, e) {
			most = int64(i) + 1
		}
	}
	return most
}

// appendDestinations appends the values of the arguments that carry authority,
// with their names, each element of a list by itself.
func appendDestinations(to []string, op *catalog.Operation, args map[string]any) []string {
	for _, path := range op.Authority {
		for _, v := range valuesOf(args, path) {
			if list, ok := v.([]any); ok {
				for _, e := range list {
					to = append(to, path+"="+fmt.Sprint(e))
				}
			} else {
				to = append(to, path+"="+fmt.Sprint(v))
			}
		}
	}
	return to
}
