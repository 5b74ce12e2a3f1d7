package pdp_test

import (
	"context"
	"errors"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// What would have to be looked up is not, when the answer is the same whatever
// it is; and it is, when it is not.
func TestLookupsThatMakeNoDifferenceAreNotMade(t *testing.T) {
	schema, cedar := fixture(t)
	remote := things(
		a("Records::user", "alice", nil), a("Records::user", "bob", types.RecordMap{"role": types.String("admin")}),
		a("Records::record", "record-1", nil), a("Records::record", "record-2", types.RecordMap{"status": types.String("archived")}),
	)
	dir := newDirectory(t, nil, remote)
	p := withPEPs(t, dir, applicationVersion(t, schema, cedar), nil)
	ask := func(subject, action, resource string) (allow bool, looked int) {
		t.Helper()
		before := dir.asked
		d, err := p.Decide(t.Context(), p.asks("records", subject, action, resource))
		if err != nil {
			t.Fatal(err)
		}
		return d.Allow, dir.asked - before
	}
	for range 200 {
		allow, _ := ask("user/alice", "read", "record/record-1") // by names alone
		if !allow {
			t.Fatal("alice may not read")
		}
	}
	if s := p.Shortcuts(); s != (pdp.ShortcutStats{Hits: 199, Misses: 1}) || dir.asked != 3 {
		t.Errorf("%+v; looked up %d times, want 3: each 64th to be sure", s, dir.asked)
	}
	for range 3 {
		if allow, looked := ask("user/bob", "write", "record/record-2"); !allow || looked != 1 { // by attributes
			t.Errorf("bob: %v, looked up %d times", allow, looked)
		}
		if allow, looked := ask("user/bob", "write", "record/record-1"); allow || looked != 1 { // a denial is explained
			t.Errorf("bob on record-1: %v, looked up %d times", allow, looked)
		}
	}
	// A new version is a new epoch: nothing of the one before counts.
	p.version.Store(applicationVersion(t, schema, `@id("nothing") forbid (principal, action == Records::Action::"view", resource);`))
	if allow, _ := ask("user/alice", "read", "record/record-1"); allow {
		t.Error("an answer of the version before was given")
	}
}

// While the source is down, only what does not depend on it is allowed.
func TestShortcutsNeedNoSource(t *testing.T) {
	schema, cedar := fixture(t)
	dir := newDirectory(t, nil, things(a("Records::user", "alice", nil), a("Records::user", "bob", types.RecordMap{"role": types.String("admin")})))
	dir.fail = func(context.Context) error { return errors.New("down") }
	p := withPEPs(t, dir, applicationVersion(t, schema, cedar), nil)
	if d, err := p.Decide(t.Context(), p.asks("records", "user/alice", "read", "record/record-1")); !d.Allow || err != nil {
		t.Errorf("alice: %+v, %v", d, err)
	}
	if d, err := p.Decide(t.Context(), p.asks("records", "user/bob", "write", "record/record-2")); d.Allow || d.Code() != authz.ReasonEntitiesDown || err == nil {
		t.Errorf("bob: %+v, %v", d, err)
	}
}
