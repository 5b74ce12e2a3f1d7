package pep_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// script answers with what it was told to and keeps the outcomes.
type script struct {
	pep.Decider
	decision authz.Decision
	err      error
	reports  []authz.Outcome
	broken   error
}

func (s *script) Decide(context.Context, authz.Request) (authz.Decision, error) {
	return s.decision, s.err
}

func (s *script) Report(_ context.Context, o authz.Outcome) error {
	s.reports = append(s.reports, o)
	return s.broken
}

func TestGuardFailsClosed(t *testing.T) {
	fault := errors.New("fault")
	for _, tt := range []struct {
		name     string
		decision authz.Decision
		err      error
		released bool
		code     string
	}{
		{name: "allow", decision: authz.Decision{ID: "1", Allow: true}, released: true, code: authz.ReasonInternal},
		{name: "deny", decision: authz.Deny(authz.ReasonForbidden, "no"), code: authz.ReasonForbidden},
		{name: "zero decision", code: authz.ReasonInternal},
		{name: "error with its denial", decision: authz.Deny(authz.ReasonAuditDown, "no"), err: fault, code: authz.ReasonAuditDown},
		{name: "error with nothing", err: fault, code: authz.ReasonPDPDown},
		{name: "error with an allow", decision: authz.Decision{Allow: true}, err: fault, code: authz.ReasonPDPDown},
		{name: "unknown obligation", decision: authz.Decision{ID: "1", Allow: true, Obligations: []authz.Obligation{{Type: "step-up"}}}, code: authz.ReasonObligationUnmet},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{decision: tt.decision, err: tt.err}
			g := &pep.Guard{Decider: s, Logger: slog.New(slog.DiscardHandler)}
			r, d := g.Ask(t.Context(), authz.Request{})
			if (r != nil) != tt.released || d.Allow != tt.released || d.Code() != tt.code {
				t.Errorf("released %v, decision %+v", r != nil, d)
			}
		})
	}
}

func TestOutcomeIsReportedOnce(t *testing.T) {
	for _, broken := range []error{nil, errors.New("log full")} {
		s := &script{decision: authz.Decision{ID: "7", Allow: true}, broken: broken}
		g := &pep.Guard{Decider: s, Logger: slog.New(slog.DiscardHandler)}
		r, _ := g.Ask(t.Context(), authz.Request{})
		r.Settle(authz.OutcomeError, 3, "boom")
		r.Settle(authz.OutcomeSuccess, 9, "")
		if d := cmp.Diff([]authz.Outcome{{Decision: "7", Status: authz.OutcomeError, Bytes: 3, Error: "boom"}}, s.reports); d != "" {
			t.Error(d)
		}
	}
}

func TestUnmetObligationNeverRan(t *testing.T) {
	s := &script{decision: authz.Decision{ID: "7", Allow: true, Obligations: []authz.Obligation{{Type: "step-up"}}}}
	g := &pep.Guard{Decider: s, Logger: slog.New(slog.DiscardHandler)}
	g.Ask(t.Context(), authz.Request{})
	if len(s.reports) != 1 || s.reports[0].Status != authz.OutcomeNotRun {
		t.Errorf("reports %+v", s.reports)
	}
}
