// Package bench measures what users pay for: a decision of the engine, and a
// call through the gateway.
package bench

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

var large = flag.Bool("large", false, "measure the engine with 100,000 policies too, which takes a minute to load")

// BenchmarkEngine puts the engine beside plain cedar.Authorize on the same
// policies and requests. The engine's rows say how many times faster it is
// than Cedar (x-cedar), and how its cost has grown since 100 policies
// (x-100-policies).
func BenchmarkEngine(b *testing.B) {
	for _, kind := range []struct {
		name string
		make func(r *rand.Rand, n, i int) string
	}{{"scoped", scoped}, {"mixed", mixed}} {
		at100 := 0.0
		for _, n := range []int{10, 100, 1_000, 10_000, 100_000} {
			if n == 100_000 && !*large {
				continue
			}
			w := newWorkload(b, n, kind.make)
			plain, candidates := 0.0, w.candidates()
			name := fmt.Sprintf("%s/policies=%d", kind.name, n)
			if n <= 10_000 {
				b.Run(name+"/cedar", func(b *testing.B) {
					w.authorize(w.requests[0])
					plain = w.measure(b, func(i int) { w.authorize(w.requests[i]) })
				})
			}
			b.Run(name+"/engine", func(b *testing.B) {
				ns := w.measure(b, func(i int) { w.program.Authorize(w.requests[i]) })
				if n == 100 {
					at100 = ns
				}
				b.ReportMetric(candidates, "candidates")
				if plain > 0 {
					b.ReportMetric(plain/ns, "x-cedar")
				}
				if n > 100 && at100 > 0 {
					b.ReportMetric(ns/at100, "x-100-policies")
				}
			})
		}
	}
}

// measure runs one decision after another and returns nanoseconds of CPU for
// each.
func (w *workload) measure(b *testing.B, decide func(i int)) float64 {
	b.ReportAllocs()
	runtime.GC() // do not charge the decisions for what was built before
	start, n := cpuTime(), 0
	for b.Loop() {
		decide(n % len(w.requests))
		n++
	}
	ns := float64((cpuTime() - start).Nanoseconds()) / float64(n)
	b.ReportMetric(ns, "cpu-ns/op")
	return ns
}

// BenchmarkLoad measures from text to a program, and the memory that it keeps.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var w *workload
			for b.Loop() {
				w = newWorkload(b, n, scoped)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/policy")
			runtime.KeepAlive(w)
		})
	}
}

// TestWorkloadsAreDecidedAsCedarDecides guards the comparison: both sides must
// give the same answers, allow and deny, or the numbers mean nothing.
func TestWorkloadsAreDecidedAsCedarDecides(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]func(r *rand.Rand, n, i int) string{"scoped": scoped, "mixed": mixed} {
		w := newWorkload(t, 300, kind)
		allowed := 0
		for _, req := range w.requests {
			got := w.program.Authorize(req)
			decision, d := w.authorize(req)
			if got.Allow != bool(decision) || len(got.Determining) != len(d.Reasons) || len(got.Errors) != len(d.Errors) {
				t.Fatalf("%s: engine says %v, Cedar says %v %v", name, got, decision, d)
			}
			if got.Allow {
				allowed++
			}
		}
		if allowed < requests/20 || allowed > requests*19/20 {
			t.Errorf("%s: %d of %d requests are allowed: too few of one kind", name, allowed, requests)
		}
	}
}
