package pdp_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// suspensions is a real authority with a store of its own.
func suspensions(t testing.TB) *revoke.Authority {
	t.Helper()
	s, err := store.OpenSuspensions(t.Context(), filepath.Join(t.TempDir(), "suspensions.db"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := revoke.NewAuthority(revoke.Config{Store: s, Node: "n", Record: func(context.Context, revoke.Change) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Watch().Close()
		s.Close()
	})
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Follow(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return a
}

func flip(t testing.TB, a *revoke.Authority, verb revoke.Verb, kind, id string) {
	t.Helper()
	c := revoke.Change{Time: time.Now(), Verb: verb, Entity: authz.Entity{Type: kind, ID: id}, By: "ann", Reason: "test"}
	if _, err := a.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

const pay = `{"to":"bob","cents":500}`

func TestWhatIsSuspendedIsDenied(t *testing.T) {
	for _, tt := range []struct {
		kind, id, code string
	}{
		{revoke.KindAgent, "clerk", authz.ReasonAgentSuspended},
		{revoke.KindSession, "run-clerk", authz.ReasonSessionSuspended},
		{revoke.KindGroup, "clerks", authz.ReasonGroupSuspended},
		{revoke.KindTool, "bank/send_money", authz.ReasonToolSuspended},
		{revoke.KindServer, "bank", authz.ReasonServerSuspended},
		{revoke.KindAll, "", authz.ReasonKilled},
	} {
		for _, observe := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.kind, observe), func(t *testing.T) {
				a := suspensions(t)
				p := newPlane(t, func(c *pdp.Config, _ *identity.Config) {
					c.Suspensions, c.Observe, c.Deadline = a, observe, time.Minute
				})
				ask := func(action, input string) authz.Decision {
					t.Helper()
					req := p.request("clerk", action, input)
					req.Server, _, _ = strings.Cut(action, "/") // as our gates do
					d, err := p.Decide(t.Context(), req)
					if err != nil {
						t.Fatal(err)
					}
					return d
				}
				list := func() bool {
					t.Helper()
					req := p.request("clerk", "", "")
					req.Server = "bank"
					reach, err := p.Reachable(t.Context(), req, []pep.Operation{{Action: "bank/send_money"}})
					if err != nil {
						t.Fatal(err)
					}
					return reach[0]
				}
				d := ask("bank/send_money", pay)
				if !d.Allow || !slices.Contains(d.Scope, authz.Entity{Type: tt.kind, ID: tt.id}) && tt.kind != revoke.KindAll {
					t.Fatalf("before: %+v", d)
				}
				if !list() {
					t.Error("before: it is not listed")
				}
				flip(t, a, revoke.Suspend, tt.kind, tt.id)
				if d := ask("bank/send_money", pay); d.Allow || d.Code() != tt.code || d.ID == "" {
					t.Errorf("suspended: %+v", d)
				}
				if recs := p.records(t); recs[len(recs)-1].Why.Released {
					t.Error("the record says that it was let through")
				}
				if d := ask("bank/no-such-tool", "{}"); d.Allow && tt.kind != revoke.KindTool {
					t.Errorf("a tool that is unknown: %+v", d)
				}
				if list() {
					t.Error("suspended: it is listed")
				}
				other := ask("mail/read_mail", `{"id":"1"}`)
				if want := tt.kind == revoke.KindTool || tt.kind == revoke.KindServer; other.Allow != want {
					t.Errorf("another tool: %+v", other)
				}
				flip(t, a, revoke.Resume, tt.kind, tt.id)
				if d := ask("bank/send_money", pay); !d.Allow && !observe && d.Code() != authz.ReasonForbidden {
					t.Errorf("resumed: %+v", d)
				}
			})
		}
	}
}

// A suspension that comes when the record says "allow" already, and before the
// answer has left, wins; the record then says that nothing ran.
func TestSuspensionBeforeTheAnswerLeavesWins(t *testing.T) {
	a := suspensions(t)
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Suspensions, c.Deadline = a, time.Minute })
	once := func() error {
		p.journal.fail.Store(nil)
		flip(t, a, revoke.Suspend, revoke.KindAgent, "clerk")
		return nil // the record is written
	}
	p.journal.fail.Store(&once)
	d, err := p.Decide(t.Context(), p.request("clerk", "bank/send_money", pay))
	if err != nil || d.Allow || d.Code() != authz.ReasonAgentSuspended || d.ID == "" || d.Scope != nil {
		t.Fatalf("%+v, %v", d, err)
	}
	recs := p.records(t)
	if len(recs) != 1 || recs[0].Decision != d.ID || !recs[0].Why.Released {
		t.Fatalf("records: %+v", recs)
	}
	if d, err := p.Decide(t.Context(), p.request("clerk", "bank/send_money", pay)); err != nil || d.Code() != authz.ReasonAgentSuspended {
		t.Fatalf("%+v, %v", d, err)
	} // and what was posted before is written
	var outcome *audit.Record
	err = audit.Records(t.Context(), p.log, 0, math.MaxUint64, func(r audit.Recorded) error {
		if r.Record.Kind == audit.KindOutcome && r.Record.Decision == d.ID {
			outcome = &r.Record
		}
		return nil
	})
	if err != nil || outcome == nil || outcome.Outcome.Status != authz.OutcomeNotRun {
		t.Errorf("outcome: %+v, %v", outcome, err)
	}
}

// While it is not known what is suspended, nothing is let through.
func TestUnknownSuspensionsDeny(t *testing.T) {
	s, err := store.OpenSuspensions(t.Context(), filepath.Join(t.TempDir(), "suspensions.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := revoke.NewAuthority(revoke.Config{Store: s, Node: "n", Record: func(context.Context, revoke.Change) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) { c.Suspensions, c.Observe = a, true })
	if d, err := p.Decide(t.Context(), p.request("clerk", "bank/send_money", pay)); err != nil || d.Allow || d.Code() != authz.ReasonRevocationUnknown {
		t.Errorf("%+v, %v", d, err)
	}
}

// A remembered answer does not outlive a suspension, and groups that are looked
// up count.
func TestShortcutsDoNotOutliveASuspension(t *testing.T) {
	schema, cedar := fixture(t)
	alice := a("Records::user", "alice", nil)
	remote := things(alice, a("Records::user", "bob", nil), a("Records::record", "record-1", nil))
	dir := newDirectory(t, nil, remote)
	auth := suspensions(t)
	p := withPEPs(t, dir, applicationVersion(t, schema, cedar), func(c *pdp.Config) { c.Suspensions, c.Deadline = auth, time.Minute })
	ask := func(subject string) authz.Decision {
		t.Helper()
		d, err := p.Decide(t.Context(), p.asks("records", subject, "read", "record/record-1"))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 3 {
		if d := ask("user/alice"); !d.Allow || !slices.Contains(d.Scope, revoke.UnknownGroups()) {
			t.Fatalf("before: %+v", d)
		}
	}
	if p.Shortcuts().Hits == 0 {
		t.Fatal("no shortcut was taken")
	}
	flip(t, auth, revoke.Suspend, revoke.KindAgent, "Records::user/alice")
	if d := ask("user/alice"); d.Allow || d.Code() != authz.ReasonAgentSuspended {
		t.Errorf("suspended: %+v", d)
	}
	page, err := p.Search(t.Context(), p.asks("records", "user/", "read", "record/record-1"), pep.Query{Want: pep.PartSubject, Limit: 10})
	if err != nil || slices.Contains(page.IDs, "alice") {
		t.Errorf("a search finds what is suspended: %+v, %v", page, err)
	}
	flip(t, auth, revoke.Resume, revoke.KindAgent, "Records::user/alice")
	if d := ask("user/alice"); !d.Allow {
		t.Errorf("resumed: %+v", d)
	}
	hits := p.Shortcuts().Hits
	flip(t, auth, revoke.Suspend, revoke.KindGroup, "anything")
	if d := ask("user/alice"); !d.Allow || p.Shortcuts().Hits != hits || slices.Contains(d.Scope, revoke.UnknownGroups()) {
		t.Errorf("with a group suspended, groups are not looked up: %+v", d)
	}
}

// A group that only the directory knows the agent to be in counts.
func TestGroupOfTheDirectoryIsSuspended(t *testing.T) {
	auth := suspensions(t)
	clerk := a("Agent", "clerk", nil, types.NewEntityUID("Group", "tenant-1"))
	p := newPlane(t, func(c *pdp.Config, _ *identity.Config) {
		c.Suspensions, c.Entities, c.Deadline = auth, newDirectory(t, things(clerk), nil), time.Minute
	})
	ask := func() authz.Decision {
		t.Helper()
		d, err := p.Decide(t.Context(), p.request("clerk", "bank/send_money", pay))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := ask(); !d.Allow || !slices.Contains(d.Scope, authz.Entity{Type: revoke.KindGroup, ID: "tenant-1"}) {
		t.Fatalf("before: %+v", d)
	}
	flip(t, auth, revoke.Suspend, revoke.KindGroup, "tenant-1")
	if d := ask(); d.Allow || d.Code() != authz.ReasonGroupSuspended {
		t.Errorf("suspended: %+v", d)
	}
	if recs := p.records(t); recs[len(recs)-1].Why.Released {
		t.Error("the record says that it was let through")
	}
}

// Only a gate that relays is told what is suspended.
func TestLeaseIsForGates(t *testing.T) {
	auth := suspensions(t)
	schema, cedar := fixture(t)
	p := withPEPs(t, newDirectory(t, nil, things()), applicationVersion(t, schema, cedar), func(c *pdp.Config) { c.Suspensions, c.Deadline = auth, time.Minute })
	for name, want := range map[string]bool{"records": false, "stranger": false, "clerk": false, "relay": true} {
		cred := authz.Credential{Kind: authz.CredentialBearer, Value: p.keys[name]}
		set, _, err := p.Lease(t.Context(), cred, "h", 0)
		if ok := err == nil && set != nil; ok != want || !ok && !errors.Is(err, pep.ErrRefused) {
			t.Errorf("%s: %v, %v", name, set, err)
		}
	}
}
