// Package bench measures what users pay for: a decision of the engine, and a
// call through the gateway.
package bench

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

var large = flag.Bool("large", false, "measure the engine with 100,000 policies too, which takes a minute to load")

// BenchmarkEngine puts the engine beside plain cedar.Authorize on the same
// policies and requests. The engine's rows say how many times faster it is
// than Cedar (x-cedar), and how its cost has grown since 100 policies
// (x-100-policies). The boxed rows are of requests that share no World and
// build their context.
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
			plain, candidates, memory := 0.0, w.candidates(), 0
			if n == 100_000 { // plain Cedar's copies are not made
				memory = resident()
			}
			name := fmt.Sprintf("%s/policies=%d", kind.name, n)
			if n <= 10_000 {
				b.Run(name+"/cedar", func(b *testing.B) {
					w.authorize(w.boxed[0])
					plain = w.measure(b, func(i int) { w.authorize(w.boxed[i]) })
				})
			}
			b.Run(name+"/boxed", func(b *testing.B) {
				w.measure(b, func(i int) { w.program.Authorize(w.boxed[i]) })
			})
			b.Run(name+"/engine", func(b *testing.B) {
				ns := w.measure(b, func(i int) { w.program.Authorize(w.requests[i]) })
				if n == 100 {
					at100 = ns
				}
				b.ReportMetric(candidates, "candidates")
				if memory > 0 {
					b.ReportMetric(float64(memory)/1e6, "rss-MB")
				}
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
// each: on average, and in the best of many short stretches (best-cpu-ns),
// which is what to compare where other programs use the caches meanwhile.
func (w *workload) measure(b *testing.B, decide func(i int)) float64 {
	b.ReportAllocs()
	runtime.GC() // do not charge the decisions for what was built before
	const stretch = 2048
	start, n := cpuTime(), 0
	last, best := start, time.Duration(math.MaxInt64)
	for b.Loop() {
		decide(n % len(w.requests))
		n++
		if n%stretch == 0 {
			now := cpuTime()
			last, best = now, min(best, now-last)
		}
	}
	ns := float64((cpuTime() - start).Nanoseconds()) / float64(n)
	b.ReportMetric(ns, "cpu-ns/op")
	if n >= stretch {
		b.ReportMetric(float64(best.Nanoseconds())/stretch, "best-cpu-ns")
	}
	return ns
}

// resident returns the bytes of memory that this process holds, once it has
// given back what it does not use, or 0 where there is no Linux to ask.
func resident() int {
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int
	if _, err := fmt.Sscan(string(status), &size, &pages); err != nil {
		return 0
	}
	return pages * os.Getpagesize()
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
		for i, req := range w.requests {
			got, boxed := w.program.Authorize(req), w.program.Authorize(w.boxed[i])
			decision, d := w.authorize(w.boxed[i])
			if !reflect.DeepEqual(got, boxed) {
				t.Fatalf("%s: %v with a World, %v without", name, got, boxed)
			}
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
