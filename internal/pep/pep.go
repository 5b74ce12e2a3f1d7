// Package pep is what every enforcement point shares: ask, obey obligations,
// fail closed, and report what became of the action.
package pep

import (
	"context"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A Decider answers the questions of a gate: a PDP in this process, or a
// client of one elsewhere.
type Decider interface {
	// Decide decides one request and has recorded it durably when it returns.
	// With an error the decision is a denial.
	Decide(ctx context.Context, req authz.Request) (authz.Decision, error)
	// Reachable reports, for each operation, whether any input could lead to an
	// allow for this subject as things stand. It is for filtering lists: it
	// over-approximates, records nothing and releases nothing. An operation
	// that is not pinned, or whose definition differs from its pin, is not
	// reachable.
	Reachable(ctx context.Context, req authz.Request, ops []Operation) ([]bool, error)
	// Report records what became of an action that a decision released. It does
	// not wait for the disk.
	Report(ctx context.Context, out authz.Outcome) error
}

// An Operation names what a list offers.
type Operation struct {
	// Action is the operation's name, "<server>/<tool>".
	Action string
	// Definition is the digest of its definition as the server gave it.
	Definition string
}
