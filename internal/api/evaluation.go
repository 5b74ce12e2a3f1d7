package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// The endpoints of AuthZEN 1.0 §10.1, table 1.
const (
	pathEvaluation     = "/access/v1/evaluation"
	pathEvaluations    = "/access/v1/evaluations"
	pathSearchSubject  = "/access/v1/search/subject"
	pathSearchResource = "/access/v1/search/resource"
	pathSearchAction   = "/access/v1/search/action"
)

// evaluation answers one question (AuthZEN 1.0 §6).
func (e *exchange) evaluation() *problem {
	b, p := e.body()
	if p != nil {
		return p
	}
	q, p := e.parse(b)
	if p != nil {
		return p
	}
	return e.single(&q)
}

// parse reads the body of an evaluation.
func (e *exchange) parse(body []byte) (question, *problem) {
	var q question
	r := &e.reader
	r.Reset(body)
	if !r.Object() {
		return q, e.malformed()
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		if !q.read(r, member, "") {
			r.Value() // AuthZEN 1.0 §10.1.1: unknown members are ignored
		}
	}
	if r.End() != nil {
		return q, e.malformed()
	}
	return q, nil
}

// malformed says what is wrong with the JSON of the body.
func (e *exchange) malformed() *problem {
	e.reader.Value()
	if err := e.reader.End(); err != nil {
		return badRequest("The body is not one I-JSON object: " + err.Error() + ".")
	}
	return badRequest("The body must be one JSON object.")
}

// single decides one question and answers.
func (e *exchange) single(q *question) *problem {
	if wrong := q.lacks(""); wrong != "" {
		return badRequest(wrong)
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	d := e.api.decide(ctx, q.request(e))
	switch {
	case d.Allow:
	case d.Code() == authz.ReasonUnauthenticated:
		return unauthenticated()
	case d.Code() == authz.ReasonOverloaded:
		return overloaded()
	}
	e.buf = e.api.appendDecision(e.buf, &d)
	e.write(http.StatusOK)
	return nil
}

// decide asks the decider and fails closed: a fault, and an allow that nobody
// recorded, are denials.
func (a *API) decide(ctx context.Context, req authz.Request) authz.Decision {
	d, err := a.ask(ctx, req)
	if err == nil && d.Allow && d.ID == "" {
		err = errors.New("an allow without the id of its record")
	}
	if err == nil {
		return d
	}
	a.Logger.Error("decision failed", "decision_id", d.ID, "gate", req.Gate, "error", err)
	if d.Allow || len(d.Reasons) == 0 {
		denial := authz.Deny(authz.ReasonInternal, undecided)
		denial.ID, denial.Version, denial.Time = d.ID, d.Version, d.Time
		return denial
	}
	return d
}

func (a *API) ask(ctx context.Context, req authz.Request) (d authz.Decision, err error) {
	defer a.contain(&err)
	return a.Decider.Decide(ctx, req)
}

const undecided = "The request could not be decided; try again later."

// contain makes an error of a panic.
func (a *API) contain(err *error) {
	if p := recover(); p != nil {
		a.logPanic(p)
		*err = fmt.Errorf("%w: the decider panicked", errOurs)
	}
}

// logPanic logs where a panic came from. Its value could hold what was asked;
// only the runtime's own says nothing of the kind.
func (a *API) logPanic(p any) {
	what := "a panic"
	if err, ok := p.(runtime.Error); ok {
		what = err.Error()
	}
	a.Logger.Error("decision panicked", "error", what, "stack", string(debug.Stack()))
}
