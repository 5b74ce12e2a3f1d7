package revoke

import (
	"context"
	"fmt"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
)

func BenchmarkCheck(b *testing.B) {
	scope := []authz.Entity{
		{Type: KindAgent, ID: "bot"}, {Type: KindSession, ID: "s"}, {Type: KindOwner, ID: "ann"}, {Type: KindGroup, ID: "g"},
		{Type: KindTool, ID: "bank/pay"}, {Type: KindServer, ID: "bank"},
	}
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprint(n, " suspended"), func(b *testing.B) {
			m := newMemory()
			for i := range n {
				e := authz.Entity{Type: KindAgent, ID: fmt.Sprint("agent-", i)}
				m.by[e] = Suspension{Entity: e}
			}
			a, err := NewAuthority(Config{Store: m, Node: "n", Record: func(context.Context, Change) error { return nil }})
			if err != nil {
				b.Fatal(err)
			}
			defer a.Watch().Close()
			if err := a.Sync(b.Context()); err != nil {
				b.Fatal(err)
			}
			w := a.Watch()
			b.ReportAllocs()
			for b.Loop() {
				if w.Check(scope) != nil {
					b.Fatal("suspended")
				}
			}
		})
	}
}
