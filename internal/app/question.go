package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// A Question is a request made up by a person, for asking policy what it
// would say: in a test, in an explanation, on the command line. Nothing runs
// because of its answer, so nothing is recorded.
type Question struct {
	Agent  string   `json:"agent" yaml:"agent"`
	Groups []string `json:"groups,omitempty" yaml:"groups"`
	// Subject is the person the agent acts for.
	Subject string `json:"subject,omitempty" yaml:"subject"`
	// Auth is how the agent is taken to have been verified. Default "key".
	Auth string `json:"auth,omitempty" yaml:"auth"`
	// Action is "<server>/<tool>" or "mcp:<method>".
	Action string `json:"action" yaml:"action"`
	// Server is needed for a method only.
	Server   string          `json:"server,omitempty" yaml:"server"`
	Resource *authz.Entity   `json:"resource,omitempty" yaml:"resource"`
	Input    map[string]any  `json:"input,omitempty" yaml:"input"`
	Session  QuestionSession `json:"session,omitzero" yaml:"session"`
	Risk     QuestionRisk    `json:"risk,omitzero" yaml:"risk"`
	// Gate defaults to "mcp-http".
	Gate string `json:"gate,omitempty" yaml:"gate"`
	// Now defaults to the present.
	Now time.Time `json:"now,omitzero" yaml:"now"`
}

// A QuestionSession is the state of the session that a [Question] supposes.
type QuestionSession struct {
	ID      string    `json:"id,omitempty" yaml:"id"`
	Labels  []string  `json:"labels,omitempty" yaml:"labels"`
	Calls   int64     `json:"calls,omitempty" yaml:"calls"`
	Denials int64     `json:"denials,omitempty" yaml:"denials"`
	Started time.Time `json:"started,omitzero" yaml:"started"`
}

// A QuestionRisk is the risk that a [Question] supposes.
type QuestionRisk struct {
	// Score is 0 to 100.
	Score int64 `json:"score,omitempty" yaml:"score"`
	// Reasons are names of signals.
	Reasons []string `json:"reasons,omitempty" yaml:"reasons"`
}

func (r QuestionRisk) score() (s risk.Score, err error) {
	if r.Score < 0 || r.Score > risk.Most {
		return s, fmt.Errorf("risk.score is %d, and must be 0 to %d", r.Score, risk.Most)
	}
	for _, name := range r.Reasons {
		signal, ok := risk.SignalOf(name)
		if !ok {
			return s, fmt.Errorf("risk.reasons: there is no signal %q; there are %s", name, risk.Names())
		}
		s.Points[signal] = 1
	}
	s.Total = r.Score
	return s, nil
}

// Ask types the question for a version's engine. The error is fit for the
// person who asked.
func (q Question) Ask(v *pdp.Version) (*engine.Request, error) {
	if q.Agent == "" || q.Action == "" {
		return nil, errors.New("a request needs an agent and an action")
	}
	op, ok := v.Catalog.Operation(q.Action)
	if !ok {
		return nil, fmt.Errorf("%q is not in the catalogue%s", q.Action, suggestAction(v.Catalog, q.Action))
	}
	input := json.RawMessage("{}")
	if q.Input != nil {
		var err error
		if input, err = json.Marshal(q.Input); err != nil {
			return nil, fmt.Errorf("input: %w", err)
		}
	}
	req := authz.Request{Action: q.Action, Server: q.Server, Input: input, Gate: orDefault(q.Gate, "mcp-http")}
	if op.Server != "" {
		req.Server = op.Server
	}
	if q.Resource != nil {
		req.Resource = *q.Resource
	}
	now := q.Now
	if now.IsZero() {
		now = time.Now()
	}
	s := session.Snapshot{
		ID: orDefault(q.Session.ID, "test"), Agent: q.Agent, Started: q.Session.Started,
		Calls: q.Session.Calls, Denials: q.Session.Denials, Labels: slices.Sorted(slices.Values(q.Session.Labels)),
	}
	if s.Started.IsZero() {
		s.Started = now
	}
	who := pdp.Caller{Subject: identity.Subject{
		Agent: q.Agent, Groups: q.Groups, For: q.Subject, Method: orDefault(q.Auth, identity.MethodKey), Level: identity.LevelProven,
	}}
	score, err := q.Risk.score()
	if err != nil {
		return nil, err
	}
	return v.Request(who, s, score, op, req, nil, now)
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// suggestAction names the operation that the caller may have meant.
func suggestAction(c *catalog.Catalog, action string) string {
	for _, op := range c.Operations() {
		if op.Tool != "" && (op.Tool == action || op.Server+"__"+op.Tool == action) {
			return fmt.Sprintf("; did you mean %q?", op.Action)
		}
	}
	return "; 'bailiwick catalog list' lists what is"
}
