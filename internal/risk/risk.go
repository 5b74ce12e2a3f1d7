// Package risk says how far an action is from what its agent usually does, and
// how much would be at stake: a bounded sum of bounded signals, each of which
// can be named.
//
// It is pure, and all of it is integers: the same events in the same order give
// the same scores on every machine.
package risk

import "strings"

// A Signal is one reason for risk.
type Signal int

// The signals.
const (
	// Rate: more calls in this minute than the agent is used to.
	Rate Signal = iota
	// Sequence: the agent rarely does this after what the session did before.
	Sequence
	// Change: what the agent has done of late is not what it used to do.
	Change
	// Denials: requests of the agent were denied of late.
	Denials
	// Sensitivity: the action writes, leaves the organisation, or destroys.
	Sensitivity
	// Untrusted: the session has seen what outsiders may have written.
	Untrusted
	// Destination: the action names something that the agent has never named.
	Destination
	// Hour: the agent does not work at this hour of the week.
	Hour

	// Signals is how many there are.
	Signals
)

var names = [Signals]string{"rate", "sequence", "change", "denials", "sensitivity", "untrusted", "destination", "hour"}

func (s Signal) String() string { return names[s] }

// Most is the highest score.
const Most = 100

// A Score is how risky one action is. Its zero value is no risk at all.
type Score struct {
	// Total is the sum of the points, at most [Most].
	Total int64
	// Points are what each signal adds, at most its cap.
	Points [Signals]int64
}

// AppendReasons appends the names of the signals that add to the score.
func (s *Score) AppendReasons(to []string) []string {
	for i, p := range s.Points {
		if p > 0 {
			to = append(to, names[i])
		}
	}
	return to
}

// Without is the score as it were without one signal.
func (s Score) Without(signal Signal) Score {
	s.Points[signal] = 0
	s.sum()
	return s
}

func (s *Score) sum() {
	s.Total = 0
	for _, p := range s.Points {
		s.Total += p
	}
	s.Total = min(s.Total, Most)
}

// full is a signal at its strongest. Each is a number from 0 to full.
const full = 1000

// A strength is how strong each signal is, before a scorecard weighs it.
type strength [Signals]int64

// of weighs the signals.
func (c *Scorecard) of(s *strength) Score {
	var score Score
	for i := range s {
		score.Points[i] = c.caps[i] * min(max(s[i], 0), full) / full
	}
	score.sum()
	return score
}

// SignalOf returns the signal of a name.
func SignalOf(name string) (Signal, bool) {
	for i, n := range names {
		if n == name {
			return Signal(i), true
		}
	}
	return 0, false
}

// Names lists the names of the signals, for messages.
func Names() string { return strings.Join(names[:], ", ") }
