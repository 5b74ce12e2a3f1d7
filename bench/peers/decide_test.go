package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// BenchmarkDecide is the whole pipeline in one process, without HTTP: 64
// callers wait for their decisions, each durable.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			w := newWorkload(n)
			node, key := ourNode(b, w)
			requests := make([]authz.Request, len(w.questions))
			for i, q := range w.questions {
				requests[i] = ourRequest(b, key, q)
			}
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					q := w.questions[i%len(w.questions)]
					d, err := node.PDP.Decide(b.Context(), requests[i%len(requests)])
					if err != nil || d.Allow != q.allow {
						b.Errorf("%+v: %+v, %v", q, d, err)
						return
					}
				}
			})
		})
	}
}

func ourNode(b *testing.B, w *workload) (*app.Node, string) {
	b.Helper()
	key, hash := identity.NewKey()
	dir := b.TempDir()
	if err := writeUs(dir, "127.0.0.1:0", hash, w); err != nil {
		b.Fatal(err)
	}
	c, err := app.LoadConfig(filepath.Join(dir, "bailiwick.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	node, err := app.Start(b.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { node.Close(b.Context()) })
	return node, key
}

func ourRequest(b *testing.B, key string, q question) authz.Request {
	b.Helper()
	context, err := json.Marshal(ourContext(q))
	if err != nil {
		b.Fatal(err)
	}
	return authz.Request{
		PEP:      authz.Credential{Kind: authz.CredentialBearer, Value: key},
		Asserted: &authz.Assertion{Subject: authz.Entity{Type: "agent", ID: fmt.Sprintf("a%d", q.agent)}, Context: context},
		Action:   "call_tool", Resource: authz.Entity{Type: "tool", ID: fmt.Sprintf("t%d", q.tool)}, Gate: "authzen",
	}
}
