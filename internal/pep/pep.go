// Package pep is what every enforcement point shares: ask, obey obligations,
// fail closed, and report what became of the action.
package pep

import (
	"context"
	"errors"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A Decider answers the questions of a gate: a PDP in this process, or a
// client of one elsewhere.
type Decider interface {
	// Decide decides one request and has recorded it durably when it returns.
	// With an error the decision is a denial.
	Decide(ctx context.Context, req authz.Request) (authz.Decision, error)
	// Reachable reports, for each operation, whether any input could lead to an
	// allow for this subject as things stand. An error that wraps [ErrRefused]
	// says that the credential proves nobody who may act, or that the session is
	// somebody else's. It is for filtering lists: it
	// over-approximates, records nothing and releases nothing. An operation
	// that is not pinned, or whose definition differs from its pin, is not
	// reachable.
	Reachable(ctx context.Context, req authz.Request, ops []Operation) ([]bool, error)
	// Report records what became of an action that a decision released. It does
	// not wait for the disk.
	Report(ctx context.Context, out authz.Outcome) error
}

// A Searcher finds what a subject, resource or action could be for a request
// to be allowed (AuthZEN 1.0 §8).
type Searcher interface {
	// Search returns one page, in a stable order. req.Asserted holds what is
	// given; the part that is searched for is left out of it but for its type.
	// Nothing is released by it. An error that wraps [ErrRefused] says that the
	// PEP may not ask this.
	Search(ctx context.Context, req authz.Request, q Query) (Page, error)
}

// ErrRefused is wrapped by the error of a [Searcher] for a PEP that is not
// known or may not ask.
var ErrRefused = errors.New("refused")

// A Query says what a search looks for.
type Query struct {
	// Want is the part of the request that is searched for.
	Want Part
	// After is the id (or name) of the last result of the page before; empty for
	// the first page.
	After string
	// Limit is how many results are wanted at most; it must be positive.
	Limit int
}

// A Part is a part of a request.
type Part string

// The parts that can be searched for.
const (
	PartSubject  Part = "subject"
	PartResource Part = "resource"
	PartAction   Part = "action"
)

// A Page is one page of results, ordered by id.
type Page struct {
	// IDs are the ids of the subjects or resources, or the names of the actions.
	IDs []string
	// More says that there are further results after the last of these.
	More bool
}

// An Operation names what a list offers.
type Operation struct {
	// Action is the operation's name, "<server>/<tool>".
	Action string
	// Definition is the digest of its definition as the server gave it.
	Definition string
}
