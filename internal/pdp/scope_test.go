package pdp

import (
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// Everything under which a decision can be suspended is in its scope: the person
// acted for, and the groups that only the directory knows, through other groups.
func TestScopeOfADecision(t *testing.T) {
	who := &Caller{Subject: identity.Subject{Agent: "bot", For: "ann", Groups: []string{"staff"}}}
	uid := types.NewEntityUID
	q := &engine.Request{Principal: uid("Agent", "bot"), Entities: types.EntityMap{}}
	for _, e := range []types.Entity{
		{UID: q.Principal, Parents: types.NewEntityUIDSet(uid("Group", "staff"))},
		{UID: uid("Group", "staff"), Parents: types.NewEntityUIDSet(uid("Group", "tenant-1"))},
		{UID: uid("Group", "tenant-1"), Parents: types.NewEntityUIDSet(uid("Group", "staff"), uid("Records::team", "red"))}, // in a circle
	} {
		q.Entities[e.UID] = e
	}
	got := within(touches(concerns(nil, who, "run"), "bank/pay", "bank"), q)
	want := []authz.Entity{
		{Type: revoke.KindAgent, ID: "bot"}, {Type: revoke.KindSession, ID: "run"}, {Type: revoke.KindOwner, ID: "ann"},
		{Type: revoke.KindGroup, ID: "staff"}, {Type: revoke.KindTool, ID: "bank/pay"}, {Type: revoke.KindServer, ID: "bank"},
		{Type: revoke.KindGroup, ID: "tenant-1"}, {Type: revoke.KindGroup, ID: "Records::team/red"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
