package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// A Reporter is a decider that takes outcomes from gates in other processes.
type Reporter interface {
	// ReportFrom is [pep.Decider.Report] for a gate which the credential proves.
	// An error that wraps [pep.ErrRefused] says that it may not report.
	ReportFrom(ctx context.Context, gate authz.Credential, out authz.Outcome) error
}

// A Lessor is a decider that tells gates in other processes what is suspended.
type Lessor interface {
	// Lease answers when there is something new, or after a while: see
	// [revoke.Authority.Lease]. An error that wraps [pep.ErrRefused] says that the
	// gate may not ask.
	Lease(ctx context.Context, gate authz.Credential, holder string, epoch uint64) (*revoke.Set, time.Duration, error)
}

// gateLease tells a gate what is suspended.
func (e *exchange) gateLease() *problem {
	lessor, ok := e.api.Decider.(Lessor)
	if !ok {
		return notFound()
	}
	body, p := e.body()
	if p != nil {
		return p
	}
	holder, epoch, err := wire.ParseLeaseRequest(&e.reader, body)
	if err != nil {
		return misunderstood(err)
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	set, term, err := e.api.lease(ctx, lessor, e.credential(), holder, epoch)
	if err == nil {
		e.buf, err = wire.AppendLease(e.buf, set, term)
	}
	if err != nil {
		return e.fault("lease", err)
	}
	e.write(http.StatusOK)
	return nil
}

// gateDecide decides for a gate in another process. Every decision is an
// answer, that nobody knows the agent too: the gate has to tell it.
func (e *exchange) gateDecide() *problem {
	body, p := e.body()
	if p != nil {
		return p
	}
	req, err := wire.ParseRequest(&e.reader, body)
	if err != nil {
		return misunderstood(err)
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	d := e.api.decide(ctx, e.from(req))
	if e.buf, err = wire.AppendDecision(e.buf, &d); err != nil {
		return e.fault("decide", fmt.Errorf("%w: %w", errOurs, err))
	}
	e.write(http.StatusOK)
	return nil
}

// gateReachable says which operations a list may show.
func (e *exchange) gateReachable() *problem {
	body, p := e.body()
	if p != nil {
		return p
	}
	req, ops, err := wire.ParseReachable(&e.reader, body)
	if err != nil {
		return misunderstood(err)
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	reach, err := e.api.reach(ctx, e.from(req), ops)
	if err != nil {
		return e.fault("reachable", err)
	}
	e.buf = wire.AppendReach(e.buf, reach)
	e.write(http.StatusOK)
	return nil
}

// gateReport takes what became of a released action.
func (e *exchange) gateReport() *problem {
	reporter, ok := e.api.Decider.(Reporter)
	if !ok {
		return notFound()
	}
	body, p := e.body()
	if p != nil {
		return p
	}
	out, err := wire.ParseOutcome(&e.reader, body)
	if err != nil {
		return misunderstood(err)
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	if err := e.api.report(ctx, reporter, e.credential(), out); err != nil {
		return e.fault("report", err)
	}
	e.w.WriteHeader(http.StatusNoContent)
	return nil
}

// A PromptReader is a decider that learns what users say to their agents.
type PromptReader interface {
	// Prompt lets a session learn what its user said. An error that wraps
	// [pep.ErrRefused] says that whoever relays it may not.
	Prompt(ctx context.Context, said authz.Prompt) error
}

// gatePrompt takes what a program says that its user said.
func (e *exchange) gatePrompt() *problem {
	reader, ok := e.api.Decider.(PromptReader)
	if !ok {
		return notFound()
	}
	body, p := e.body()
	if p != nil {
		return p
	}
	said, err := wire.ParsePrompt(&e.reader, body)
	if err != nil {
		return misunderstood(err)
	}
	said.PEP = e.credential()
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	if err := e.api.prompt(ctx, reader, said); err != nil {
		return e.fault("prompt", err)
	}
	e.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) prompt(ctx context.Context, r PromptReader, said authz.Prompt) (err error) {
	defer a.contain(&err)
	return r.Prompt(ctx, said)
}

// from completes a gate's request with who the gate is.
func (e *exchange) from(req authz.Request) authz.Request {
	req.PEP = e.credential()
	if req.Correlation == "" {
		req.Correlation = e.correlation()
	}
	if req.Gate == "" {
		req.Gate = "remote"
	}
	return req
}

func misunderstood(err error) *problem {
	return badRequest("The body was not understood: " + err.Error() + ".")
}

// reach asks what is reachable. A panic is a fault like any other.
func (a *API) reach(ctx context.Context, req authz.Request, ops []pep.Operation) (reach []bool, err error) {
	defer a.contain(&err)
	reach, err = a.Decider.Reachable(ctx, req, ops)
	if err == nil && len(reach) != len(ops) {
		return nil, fmt.Errorf("%w: not every operation was answered", errOurs)
	}
	return reach, err
}

func (a *API) lease(ctx context.Context, l Lessor, gate authz.Credential, holder string, epoch uint64) (set *revoke.Set, term time.Duration, err error) {
	defer a.contain(&err)
	return l.Lease(ctx, gate, holder, epoch)
}

func (a *API) report(ctx context.Context, r Reporter, gate authz.Credential, out authz.Outcome) (err error) {
	defer a.contain(&err)
	return r.ReportFrom(ctx, gate, out)
}
