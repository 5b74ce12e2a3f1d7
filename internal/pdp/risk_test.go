package pdp_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
)

// scored is the score of a record.
func scored(r *audit.Risk) risk.Score {
	if r == nil {
		return risk.Score{}
	}
	s := risk.Score{Total: r.Score}
	for name, p := range r.Points {
		signal, _ := risk.SignalOf(name)
		s.Points[signal] = p
	}
	return s
}

const riskPolicies = `
@id("clerks") permit (principal in Group::"clerks", action, resource);
@id("too-risky") forbid (principal, action, resource) when { context.risk.score > 70 };
`

// Policy sees the risk of each action: what is missing counts in full, a habit
// lowers it, and what outsiders may have written raises it again. The record
// holds what policy saw.
func TestRisk(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Now = func() time.Time { return now } })
	p.version.Store(version(t, riskPolicies))
	decide := func(session, action, input string) authz.Decision {
		t.Helper()
		now = now.Add(time.Minute)
		req := p.request("clerk", action, input)
		req.Session = session
		d, err := p.Decide(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	const money, mail = `{"to":"bob","cents":5}`, `{"id":"1"}`
	if d := decide("first", "bank/send_money", money); d.Allow || !slices.Equal(ids(d.Policies), []string{"too-risky"}) {
		t.Errorf("an agent that nobody knows sends money: %+v", d)
	}
	for i := range 150 {
		if d := decide(fmt.Sprint("morning", i), "mail/read_mail", mail); !d.Allow {
			t.Fatalf("%+v", d)
		}
	}
	if d := decide("clean", "bank/send_money", money); !d.Allow {
		t.Errorf("an agent that is known does not: %+v", d)
	}
	decide("tainted", "mail/read_mail", mail)
	if d := decide("tainted", "bank/send_money", `{"to":"carol","cents":5}`); d.Allow {
		t.Error("it is no riskier after what outsiders wrote")
	}
	if d := decide("clean too", "bank/send_money", `{"to":"dave","cents":5}`); !d.Allow {
		t.Errorf("outsiders have written nothing: %+v", d)
	}
	for range 60 { // within a minute
		now = now.Add(-time.Minute)
		decide("burst", "mail/read_mail", mail)
	}
	if r := p.records(t); r[len(r)-1].Why.Risk.Points["rate"] == 0 {
		t.Errorf("a burst is no risk: %+v", r[len(r)-1].Why.Risk)
	}

	for i, r := range p.records(t) {
		if r.Why.Risk == nil || (r.Why.Risk.Score > 70) != (slices.Contains(ids(r.Why.Policies), "too-risky")) {
			t.Errorf("record %d: risk %+v, %+v", i, r.Why.Risk, r.Why.Policies)
		}
		sum := int64(0)
		for _, points := range r.Why.Risk.Points {
			sum += points
		}
		if r.Why.Risk.Score != min(sum, risk.Most) {
			t.Errorf("record %d: %+v", i, r.Why.Risk)
		}
	}
}
