package audit

import (
	"encoding/json"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A Kind says what a record is about.
type Kind string

// The kinds of record.
const (
	KindDecision Kind = "decision"
	KindOutcome  Kind = "outcome"
	// KindSystem marks an act of the node itself: started, stopped, recovered,
	// policy version loaded, tool pinned.
	KindSystem Kind = "system"
)

// A Record is one piece of evidence. A decision record holds all that replay
// needs: the request as policy saw it, the decision, and why.
//
// The parts are committed to separately (docs/formats.md), so that an auditor
// can be shown why something was decided without being shown the input.
type Record struct {
	Kind Kind `json:"kind"`
	// Time is when the decision was taken; truncated to milliseconds UTC.
	Time time.Time `json:"time"`
	// Decision is the id of the decision that this record is, or is about.
	Decision string `json:"decision,omitempty"`
	// Effect is "allow" or "deny" for a decision as policy decided it, the
	// outcome's status, or the name of a system act.
	Effect string `json:"effect,omitempty"`
	// Version is the digest of the policy set in force.
	Version string `json:"version,omitempty"`

	Who     *Who            `json:"who,omitempty"`     // decision
	What    *What           `json:"what,omitempty"`    // decision
	Why     *Why            `json:"why,omitempty"`     // decision
	Input   json.RawMessage `json:"input,omitempty"`   // decision: the arguments, as sent
	Outcome *Outcome        `json:"outcome,omitempty"` // outcome
	System  json.RawMessage `json:"system,omitempty"`  // system: details, a JSON object
}

// Who is the verified subject and where it stood.
type Who struct {
	// Subject is the acting agent.
	Subject authz.Entity `json:"subject"`
	// For is the person the agent acts for, if a credential says so.
	For string `json:"for,omitempty"`
	// Groups are the agent's groups when the decision was taken.
	Groups []string `json:"groups,omitempty"`
	// Chain are the agents that have handed the task on, the latest first. Each
	// of them was decided about too.
	Chain []Actor `json:"chain,omitempty"`
	// Owner, Purpose and Model are what the registry said of the agent.
	Owner   string `json:"owner,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	Model   string `json:"model,omitempty"`
	// Auth is how the subject was verified: "key", "jwt", "local", …, or that an
	// enforcement point named it: "asserted".
	Auth string `json:"auth,omitempty"`
	// Level is how strongly, Authenticated when a person last was, in seconds of
	// Unix time, and Scopes what the token was for.
	Level         int64    `json:"level,omitempty"`
	Authenticated int64    `json:"authenticated,omitempty"`
	Scopes        []string `json:"scopes,omitempty"`
	// PEP is the enforcement point of another process that asked.
	PEP         string `json:"pep,omitempty"`
	Session     string `json:"session,omitempty"`
	Gate        string `json:"gate,omitempty"`
	Correlation string `json:"correlation,omitempty"`
}

// An Actor is an agent that has handed a task on.
type Actor struct {
	ID      string   `json:"id"`
	Groups  []string `json:"groups,omitempty"`
	Owner   string   `json:"owner,omitempty"`
	Purpose string   `json:"purpose,omitempty"`
	Model   string   `json:"model,omitempty"`
}

// What is the operation and what it touches.
type What struct {
	Action     string       `json:"action"`
	Server     string       `json:"server,omitempty"`
	Resource   authz.Entity `json:"resource"`
	Definition string       `json:"definition,omitempty"`
	Effects    []string     `json:"effects,omitempty"`
}

// Why is the decision with its grounds.
type Why struct {
	// Mode is "enforce" or "observe".
	Mode string `json:"mode"`
	// Released says whether the action was let through: allowed, or observed.
	Released bool `json:"released"`
	// Advised says that whoever asked acts by itself, and will not report an
	// outcome.
	Advised  bool              `json:"advised,omitempty"`
	Reasons  []authz.Reason    `json:"reasons"`
	Policies []authz.PolicyRef `json:"policies,omitempty"`
	// Session is the snapshot that policy saw.
	Session *Session `json:"session,omitempty"`
	// Risk is the score that policy saw.
	Risk *Risk `json:"risk,omitempty"`
	// Origins are where the arguments were from, as policy saw it. What is not
	// there was given by nobody.
	Origins []Origin `json:"origins,omitempty"`
	// Labels are what releasing the action taught the session.
	Labels []string `json:"labels,omitempty"`
	// Spends are what releasing the action reserves of budgets.
	Spends []Spend `json:"spends,omitempty"`
	// Micros is the time spent in each step, in microseconds.
	Micros map[string]int64 `json:"micros,omitempty"`
}

// Spend is what was reserved of one budget.
type Spend struct {
	Budget  string    `json:"budget"`
	Subject string    `json:"subject"`
	Window  time.Time `json:"window"` // when it began
	Amount  int64     `json:"amount"`
}

// Risk is how risky an action was taken to be.
type Risk struct {
	// Score is the sum of the points, bounded.
	Score int64 `json:"score"`
	// Points are what each signal added, by name, unless it was nothing.
	Points map[string]int64 `json:"points,omitempty"`
}

// Origin is where a part of the arguments was from.
type Origin struct {
	// Of is the argument, by its path; or "(authority)" and "(content)" for the
	// least trusted of those that carry authority and of the others.
	Of string `json:"of"`
	// Origin is the word for the trust in the source, and Tool and Step are where
	// it was: empty and -1 when no tool returned it.
	Origin    string `json:"origin"`
	Tool      string `json:"tool,omitempty"`
	Step      int64  `json:"step"`
	Named     bool   `json:"named,omitempty"`
	Contested bool   `json:"contested,omitempty"`
}

// Session is a session's state as policy saw it.
type Session struct {
	ID      string    `json:"id"`
	Labels  []string  `json:"labels,omitempty"`
	Calls   int64     `json:"calls"`
	Denials int64     `json:"denials"`
	Started time.Time `json:"started"`
}

// Outcome is what became of a released action.
type Outcome struct {
	Status authz.OutcomeStatus `json:"status"`
	Bytes  int64               `json:"bytes,omitempty"`
	Error  string              `json:"error,omitempty"`
}
