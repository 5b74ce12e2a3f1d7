package api

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// atOnce is how many evaluations of one request are decided at the same time,
// so that their records share commits.
const atOnce = 16

// The semantics of AuthZEN 1.0 §7.1.2.1.
const (
	executeAll          = "execute_all"
	denyOnFirstDeny     = "deny_on_first_deny"
	permitOnFirstPermit = "permit_on_first_permit"
)

// A batch is an access evaluations request (AuthZEN 1.0 §7.1).
type batch struct {
	defaults question
	items    []question
	semantic string
	wrong    string
}

// evaluations answers several questions (AuthZEN 1.0 §7).
func (e *exchange) evaluations() *problem {
	body, p := e.body()
	if p != nil {
		return p
	}
	b, p := e.parseBatch(body)
	switch {
	case p != nil:
		return p
	case b.wrong != "":
		return badRequest(b.wrong)
	case len(b.items) == 0:
		return e.single(&b.defaults)
	case b.defaults.wrong != "":
		return badRequest(b.defaults.wrong)
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	var answers []authz.Decision
	if b.semantic == executeAll {
		answers = e.decideAll(ctx, b)
	} else {
		answers = e.decideInTurn(ctx, b)
	}
	return e.tell(b, answers)
}

func (e *exchange) parseBatch(body []byte) (*batch, *problem) {
	b := &batch{semantic: executeAll}
	r := &e.reader
	r.Reset(body)
	if !r.Object() {
		return nil, e.malformed()
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		switch {
		case b.defaults.read(r, member, ""):
		case string(member) == "evaluations":
			b.readItems(r, e.api.MaxEvaluations)
		case string(member) == "options":
			b.readOptions(r)
		default:
			r.Value()
		}
	}
	if r.End() != nil {
		return nil, e.malformed()
	}
	// The defaults may stand behind the evaluations.
	for i := range b.items {
		b.items[i].inherit(&b.defaults)
	}
	return b, nil
}

func (b *batch) readItems(r *ijson.Reader, limit int) {
	if !r.Array() {
		b.wrong = "evaluations must be an array."
		r.Value()
		return
	}
	for r.Element() {
		if len(b.items) == limit {
			b.wrong = "evaluations has more than " + strconv.Itoa(limit) + " elements; ask in several requests."
			r.Value()
			continue
		}
		b.items = append(b.items, question{})
		b.items[len(b.items)-1].readItem(r)
	}
}

func (q *question) readItem(r *ijson.Reader) {
	if !r.Object() {
		q.expect(r, "An evaluation", "", "an object")
		return
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		if !q.read(r, member, "") {
			r.Value()
		}
	}
}

func (b *batch) readOptions(r *ijson.Reader) {
	if !r.Object() {
		b.wrong = "options must be an object."
		r.Value()
		return
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		if string(member) != "evaluations_semantic" {
			r.Value()
			continue
		}
		b.semantic, ok = r.String()
		if !ok {
			r.Value()
		}
		switch b.semantic {
		case executeAll, denyOnFirstDeny, permitOnFirstPermit:
		default:
			b.wrong = "options.evaluations_semantic must be execute_all, deny_on_first_deny or permit_on_first_permit."
		}
	}
}

// inherit takes the parts that a question does not have from the defaults,
// each as a whole (AuthZEN 1.0 §7.1.1).
func (q *question) inherit(defaults *question) {
	if !q.subject.present {
		q.subject = defaults.subject
	}
	if !q.action.present {
		q.action = defaults.action
	}
	if !q.resource.present {
		q.resource = defaults.resource
	}
	if !q.context.present {
		q.context = defaults.context
	}
}

// decideAll decides all items, some at the same time.
func (e *exchange) decideAll(ctx context.Context, b *batch) []authz.Decision {
	answers := make([]authz.Decision, len(b.items))
	var next atomic.Int64
	var unknown atomic.Bool // nobody knows the PEP: what is left need not be asked
	work := func() {
		for !unknown.Load() {
			i := int(next.Add(1)) - 1
			if i >= len(answers) {
				return
			}
			answers[i] = e.decideItem(ctx, &b.items[i])
			if isUnauthenticated(answers[i]) {
				unknown.Store(true)
			}
		}
	}
	var others sync.WaitGroup
	for range min(atOnce, len(answers)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	return answers
}

// decideInTurn decides the items one after the other, until one ends it.
func (e *exchange) decideInTurn(ctx context.Context, b *batch) []authz.Decision {
	var answers []authz.Decision
	for i := range b.items {
		d := e.decideItem(ctx, &b.items[i])
		answers = append(answers, d)
		if d.Allow == (b.semantic == permitOnFirstPermit) || isUnauthenticated(d) {
			break
		}
	}
	return answers
}

// decideItem decides one item. One that cannot be asked is denied without a
// reason: tell knows why.
func (e *exchange) decideItem(ctx context.Context, q *question) authz.Decision {
	if q.lacks("") != "" {
		return authz.Decision{}
	}
	return e.api.decide(ctx, q.request(e))
}

func isUnauthenticated(d authz.Decision) bool {
	return !d.Allow && d.Code() == authz.ReasonUnauthenticated
}

// tell answers with what was decided, in the order of the questions (AuthZEN
// 1.0 §7.2).
func (e *exchange) tell(b *batch, answers []authz.Decision) *problem {
	e.buf = append(e.buf, `{"evaluations":[`...)
	for i := range answers {
		if isUnauthenticated(answers[i]) {
			return unauthenticated()
		}
		if wrong := b.items[i].lacks(""); wrong != "" {
			e.buf = appendItemError(e.buf, wrong)
		} else {
			e.buf = e.api.appendDecision(e.buf, &answers[i])
		}
		e.buf = append(e.buf, ',')
	}
	e.buf = append(trimComma(e.buf), "]}"...)
	e.write(http.StatusOK)
	return nil
}

// appendItemError denies one item that is no question (AuthZEN 1.0 §7.2.1).
func appendItemError(b []byte, wrong string) []byte {
	b = append(b, `{"decision":false,"context":{"error":{"status":400,"message":`...)
	b = quote(b, wrong)
	return append(b, "}}}"...)
}
