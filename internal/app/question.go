package app

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/provenance"
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
	// Level is how strongly. Default 1, what every credential proves.
	Level int64 `json:"level,omitempty" yaml:"level"`
	// Authenticated is when a person last authenticated. Zero: not known.
	Authenticated time.Time `json:"authenticated,omitzero" yaml:"authenticated"`
	// Scopes are the scopes of the token.
	Scopes []string `json:"scopes,omitempty" yaml:"scopes"`
	// Chain are the agents that have handed the task on, the latest first. It is
	// the acting agent that is asked about.
	Chain []string `json:"chain,omitempty" yaml:"chain"`
	// Owner, Purpose and Model are what the registry says of the agent.
	Owner   string `json:"owner,omitempty" yaml:"owner"`
	Purpose string `json:"purpose,omitempty" yaml:"purpose"`
	Model   string `json:"model,omitempty" yaml:"model"`
	// Action is "<server>/<tool>" or "mcp:<method>".
	Action string `json:"action" yaml:"action"`
	// Server is needed for a method only.
	Server   string          `json:"server,omitempty" yaml:"server"`
	Resource *authz.Entity   `json:"resource,omitempty" yaml:"resource"`
	Input    map[string]any  `json:"input,omitempty" yaml:"input"`
	Session  QuestionSession `json:"session,omitzero" yaml:"session"`
	Risk     QuestionRisk    `json:"risk,omitzero" yaml:"risk"`
	// Origins are where arguments that carry authority are taken to be from, by
	// path: "user", "directory", "structure", "outsiders" and so on, followed by
	// "named" and "contested" as they apply. Default: unknown.
	Origins map[string]string `json:"origins,omitempty" yaml:"origins"`
	// Content is where the least trusted address, link or account in the other
	// arguments is from. Default: there is none.
	Content string `json:"content,omitempty" yaml:"content"`
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
	from, err := q.origins(op, input)
	if err != nil {
		return nil, err
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
		Agent: q.Agent, Groups: q.Groups, For: q.Subject, Method: orDefault(q.Auth, identity.MethodKey), Level: cmp.Or(q.Level, identity.LevelProven),
		Authenticated: q.Authenticated, Scopes: q.Scopes, Owner: q.Owner, Purpose: q.Purpose, Model: q.Model,
	}}
	for _, a := range q.Chain {
		who.Chain = append(who.Chain, identity.Subject{Agent: a})
	}
	score, err := q.Risk.score()
	if err != nil {
		return nil, err
	}
	return v.Request(who, s, score, from, op, req, nil, now)
}

// origins reads where the arguments are supposed to be from.
func (q Question) origins(op *catalog.Operation, input json.RawMessage) (pdp.Origins, error) {
	content, args := provenance.None, map[string]provenance.Origin{}
	var err error
	if q.Content != "" {
		if content, err = readOrigin(q.Content); err != nil {
			return pdp.Origins{}, fmt.Errorf("content: %w", err)
		}
	}
	for path, said := range q.Origins {
		if !slices.Contains(op.Authority, path) {
			return pdp.Origins{}, fmt.Errorf("origins: %q is no argument of %s that carries authority", path, op.Action)
		}
		if args[path], err = readOrigin(said); err != nil {
			return pdp.Origins{}, fmt.Errorf("origins: %s: %w", path, err)
		}
	}
	return pdp.NewOrigins(op, input, args, content), nil
}

func readOrigin(said string) (provenance.Origin, error) {
	words := strings.Fields(said)
	o := provenance.Origin{Step: -1}
	known := append(provenance.MarkNames(), provenance.User.String())
	if len(words) == 0 || !slices.Contains(known, words[0]) {
		return o, fmt.Errorf("%q does not begin with one of %s", said, strings.Join(known, ", "))
	}
	o.Trust, _ = provenance.ParseTrust(words[0])
	if words[0] == provenance.User.String() {
		o.Trust, o.Named = provenance.User, true
	}
	for _, word := range words[1:] {
		switch word {
		case "named":
			o.Named = true
		case "contested":
			o.Contested = true
		default:
			return o, fmt.Errorf("%q is neither \"named\" nor \"contested\"", word)
		}
	}
	return o, nil
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
