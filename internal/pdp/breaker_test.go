package pdp_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// Outcomes and denials drive the breakers; one that is open denies with its
// reason, until a probe succeeds.
func TestBreakersStopWhatKeepsFailing(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	b := breaker.New(breaker.Settings{Failures: 3, Pause: time.Minute}, nil)
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) {
		c.Breakers, c.Deadline, c.Now = b, time.Minute, func() time.Time { return now }
	})
	ask := func(action, input string) authz.Decision {
		t.Helper()
		req := p.request("clerk", action, input)
		req.Server = "bank"
		d, err := p.Decide(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	report := func(d authz.Decision, s authz.OutcomeStatus, problem string) {
		t.Helper()
		out := authz.Outcome{Decision: d.ID, Status: s, Error: problem, Ours: problem == "the gate was stopped"}
		if err := p.Report(t.Context(), out); err != nil {
			t.Fatal(err)
		}
	}
	for range 9 { // which says nothing of the server
		report(ask("bank/send_money", pay), authz.OutcomeAmbiguous, "the gate was stopped")
	}
	for range 3 {
		report(ask("bank/send_money", pay), authz.OutcomeAmbiguous, "no answer in time")
	}
	if d := ask("bank/send_money", pay); d.Allow || d.Code() != authz.ReasonBreakerOpen || d.ID == "" {
		t.Fatalf("open: %+v", d)
	}
	if d := ask("mcp:tools/list", `{}`); !d.Allow {
		t.Errorf("lists have no breaker: %+v", d)
	}
	now = now.Add(time.Minute)
	advised := p.request("clerk", "bank/send_money", pay)
	advised.Server, advised.Advisory = "bank", true // nobody is going to report on it, so it is no probe
	if d, err := p.Decide(t.Context(), advised); err != nil || !d.Allow {
		t.Fatalf("%+v, %v", d, err)
	}
	probe := ask("bank/send_money", pay)
	if !probe.Allow {
		t.Fatalf("the probe: %+v", probe)
	}
	if d := ask("bank/send_money", pay); d.Allow {
		t.Errorf("a second probe: %+v", d)
	}
	report(probe, authz.OutcomeSuccess, "")
	if d := ask("bank/send_money", pay); !d.Allow {
		t.Errorf("closed again: %+v", d)
	}
	for range 3 {
		if d := ask("bank/send_money", `{"to":"bob","cents":20000}`); d.Code() != authz.ReasonForbidden {
			t.Fatalf("%+v", d)
		}
	}
	if d := ask("bank/send_money", pay); d.Allow || d.Code() != authz.ReasonBreakerOpen {
		t.Errorf("after denials: %+v", d)
	}
}

// What fails on our side stops nobody.
func TestOurFaultsTripNoBreaker(t *testing.T) {
	schema, cedar := fixture(t)
	dir := newDirectory(t, nil, things(a("Records::user", "bob", types.RecordMap{"role": types.String("admin")})))
	dir.fail = func(context.Context) error { return errors.New("down") }
	b := breaker.New(breaker.Settings{Failures: 3}, nil)
	p := withPEPs(t, dir, applicationVersion(t, schema, cedar), func(c *pdp.Config) { c.Breakers, c.Deadline = b, time.Minute })
	for range 6 {
		if d, _ := p.Decide(t.Context(), p.asks("records", "user/bob", "write", "record/record-2")); d.Code() != authz.ReasonEntitiesDown {
			t.Fatalf("%+v", d)
		}
	}
}
