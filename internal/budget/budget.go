// Package budget reserves what calls may use up before they run, and settles it
// when they have.
//
// A reservation counts from the moment of the decision, so that calls in flight
// count. It stands unless the call certainly never ran. The state follows from
// the records: a decision says what it has reserved. It is kept in memory, saved
// behind the decision path, and caught up from the evidence after a crash.
package budget

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Whose a budget is.
const (
	PerSession = "session"
	PerAgent   = "agent"
	PerOwner   = "owner" // the person that the agent acts for
	PerAll     = "all"   // one for everybody
)

// What a budget measures, beside arguments.
const (
	MeasureCalls = "calls"
	MeasureBytes = "bytes" // of answers
)

// A Budget bounds what may be used up in a window of time.
type Budget struct {
	// ID names it, for records and denials: letters, digits, '-', '_', '.'.
	ID string `yaml:"id"`
	// Per says whose it is: session, agent, owner or all. One per owner does not
	// bound agents that act for nobody.
	Per string `yaml:"per"`
	// Actions are the operations that use it up, by their full names. Empty: all
	// but lists and handshakes.
	Actions []string `yaml:"actions"`
	// Measure is "calls" (default), "bytes", or an argument of all the actions
	// that is a number: a sum of money, a number of rows or tokens. A fraction
	// counts as a whole.
	Measure string `yaml:"measure"`
	// Limit is how much may be used up in a window. Required.
	Limit int64 `yaml:"limit"`
	// Window is the length of a window; windows follow each other without gap, the
	// first from 1970 on. Empty, for a session only: 30 days from its first use.
	Window time.Duration `yaml:"window"`
	// Worst is what a call may use up at most when that is not known before: its
	// bytes (required for them), or an optional argument that is left out.
	Worst int64 `yaml:"worst"`
}

// sessionWindow is the window of a budget per session that names none.
const sessionWindow = 30 * 24 * time.Hour

// Check says what is wrong with a list of budgets. number reports whether an
// action exists, has a number of this name among its arguments, and whether that
// is required.
func Check(list []Budget, number func(action, argument string) (exists, number, required bool)) error {
	seen := map[string]bool{}
	for _, b := range list {
		if err := b.check(number); err != nil {
			return fmt.Errorf("budget %q: %w", b.ID, err)
		}
		if seen[b.ID] {
			return fmt.Errorf("budget %q: there are two of that name", b.ID)
		}
		seen[b.ID] = true
	}
	return nil
}

func (b Budget) check(number func(action, argument string) (exists, number, required bool)) error {
	switch {
	case b.ID == "" || len(b.ID) > 64 || strings.ContainsFunc(b.ID, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}):
		return errors.New("an id is needed: letters, digits, '-', '_' and '.', at most 64")
	case !slices.Contains([]string{PerSession, PerAgent, PerOwner, PerAll}, b.Per):
		return fmt.Errorf("per: %q is none of session, agent, owner, all", b.Per)
	case b.Limit <= 0:
		return errors.New("limit: it must be positive")
	case b.Worst < 0 || b.Worst > b.Limit:
		return errors.New("worst: it must be between 0 and the limit, or no call would ever pass")
	case b.Window < 0 || b.Window > 0 && b.Window < time.Second:
		return errors.New("window: it must be a second at least")
	case b.Window == 0 && b.Per != PerSession:
		return errors.New("window: only what is per session ends by itself")
	case b.measure() == MeasureBytes && b.Worst == 0:
		return errors.New("worst: how many bytes may a call bring at most? It is reserved before the call")
	}
	argument := b.argument()
	if argument != "" && len(b.Actions) == 0 {
		return fmt.Errorf("measure: %q is an argument, so actions that have it are needed", argument)
	}
	for _, a := range b.Actions {
		exists, ok, required := number(a, argument)
		switch {
		case !exists:
			return fmt.Errorf("actions: %q is not in the catalogue", a)
		case argument != "" && !ok:
			return fmt.Errorf("measure: %s has no argument %q that is a number", a, argument)
		case argument != "" && !required && b.Worst == 0:
			return fmt.Errorf("worst: %s may leave %q out; what does it count then?", a, argument)
		}
	}
	return nil
}

func (b *Budget) measure() string {
	if b.Measure == "" {
		return MeasureCalls
	}
	return b.Measure
}

// argument is the argument that the budget measures, if it measures one.
func (b *Budget) argument() string {
	if m := b.measure(); m != MeasureCalls && m != MeasureBytes {
		return m
	}
	return ""
}

// window is the window that a moment lies in: its beginning, and its end.
func (b *Budget) window(now time.Time) (start, end time.Time) {
	length := b.Window
	if length == 0 {
		length = sessionWindow
	}
	start = time.UnixMicro(now.UnixMicro() / length.Microseconds() * length.Microseconds()).UTC()
	return start, start.Add(length)
}

// A Call is what wants to use budgets up.
type Call struct {
	Session, Agent, Owner string
	Action                string
	// Number is the value of an argument, or false when it is left out. An error
	// says that it is no number that can be counted.
	Number func(argument string) (int64, bool, error)
}

// subject is whose of the budgets of one id the call uses up; empty: none.
func (b *Budget) subject(c *Call) string {
	switch b.Per {
	case PerSession:
		return c.Session
	case PerAgent:
		return c.Agent
	case PerOwner:
		return c.Owner
	default:
		return PerAll
	}
}

// cost is what the call may use up at most.
func (b *Budget) cost(c *Call) (int64, error) {
	switch b.measure() {
	case MeasureCalls:
		return 1, nil
	case MeasureBytes:
		return b.Worst, nil
	}
	n, given, err := c.Number(b.argument())
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %s: %w", ErrUncountable, b.argument(), err)
	case !given:
		return b.Worst, nil
	case n < 0:
		return 0, fmt.Errorf("%w: %s is negative", ErrUncountable, b.argument())
	}
	return n, nil
}

// ErrUncountable is wrapped when an argument cannot be counted.
var ErrUncountable = errors.New("an argument cannot be counted against a budget")

// ErrFull is wrapped when there is no memory to count for another subject.
var ErrFull = errors.New("too many budgets are in use to count for another subject")

// Exhausted is the error when a budget does not have what a call may use up.
type Exhausted struct {
	Budget      string
	Limit, Left int64
	Cost        int64
	Frees       time.Time // when the next window begins
}

func (e *Exhausted) Error() string {
	return fmt.Sprintf("the budget %s has %d of %d left, and the call may need %d; it is full again at %s",
		e.Budget, e.Left, e.Limit, e.Cost, e.Frees.UTC().Format(time.RFC3339))
}

// A Spend is what a call has reserved of one budget.
type Spend struct {
	Budget  string    `json:"budget"`
	Subject string    `json:"subject"`
	Window  time.Time `json:"window"` // when it began
	Amount  int64     `json:"amount"`
}
