package risk

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A habitat is how a simulated agent works: which operation follows which, and
// how often it does anything at all instead.
type habitat struct {
	r     *rand.Rand
	ops   []string
	next  map[string][]string
	stray float64
}

func newHabitat(r *rand.Rand, prefix string) *habitat {
	h := &habitat{r: r, next: map[string][]string{}, stray: 0.02 + 0.06*r.Float64()}
	for i := range 5 + r.IntN(12) {
		h.ops = append(h.ops, fmt.Sprint(prefix, i))
	}
	h.shuffle()
	return h
}

// shuffle gives each operation one to three others that usually follow it.
func (h *habitat) shuffle() {
	for _, op := range append(h.ops, "") {
		h.next[op] = nil
		for range 1 + h.r.IntN(3) {
			h.next[op] = append(h.next[op], h.ops[h.r.IntN(len(h.ops))])
		}
	}
}

func (h *habitat) step(last string) string {
	next := h.next[last]
	if len(next) == 0 || h.r.Float64() < h.stray {
		return h.ops[h.r.IntN(len(h.ops))]
	}
	return next[h.r.IntN(len(next))]
}

// A life is an agent in a tracker.
type life struct {
	tr   *Tracker
	now  int64
	runs int
}

// run is one session of an agent, of so many calls, and reports after which
// call the detector was sure, or -1.
func (l *life) run(h *habitat, calls int) int {
	card := DefaultScorecard()
	l.runs++
	last, alarm := "", -1
	for i := range calls {
		op := h.step(last)
		l.now += 5
		e := Event{Session: fmt.Sprint(l.runs), Operation: op, Unix: l.now}
		a := l.tr.Assess("bot", &e, card)
		if l.tr.agents["bot"].Cusum >= certain && alarm < 0 {
			alarm = i
		}
		l.tr.Conclude("bot", &e, &a, card, true)
		last = op
	}
	l.now += 600
	return alarm
}

// An injected change of behaviour is found within 20 calls, at no more than one
// false alarm in a week of an agent: other operations always, and the same ones
// in another order nine times in ten (where what an agent does next is close to
// chance, no order is much of a surprise).
func TestChangeIsFound(t *testing.T) {
	t.Parallel()
	agents := 200
	if testing.Short() {
		agents = 40
	}
	const perDay, calls = 12, 30 // 2,520 calls a week
	alarms, missed, slowest := 0, map[string]int{}, map[string]int{}
	for a := range agents {
		r := rand.New(rand.NewPCG(uint64(a), 3))
		h := newHabitat(r, "op")
		l := &life{tr: New(), now: monday}
		for day := range 21 {
			for range perDay {
				if l.run(h, calls) >= 0 && day >= 14 {
					alarms++
				}
			}
			l.now = (l.now/86400 + 1) * 86400
		}
		stored := saved(t, l.tr)["bot"]
		for kind, other := range map[string]*habitat{"other operations": newHabitat(r, "new"), "another order": reordered(r, h)} {
			changed := &life{tr: New(), now: l.now, runs: 1_000_000}
			if err := changed.tr.Restore("bot", stored); err != nil {
				t.Fatal(err)
			}
			if found := changed.run(other, 20); found < 0 {
				missed[kind]++
			} else {
				slowest[kind] = max(slowest[kind], found+1)
			}
		}
	}
	t.Logf("%d agents: %d false alarms in a week each; within 20 calls missed %v, found by call %v at the latest", agents, alarms, missed, slowest)
	if alarms > agents || missed["other operations"] > 0 || missed["another order"] > agents/10 {
		t.Error("the detector is worse than it should be")
	}
}

// reordered is the same agent with its operations in another order.
func reordered(r *rand.Rand, h *habitat) *habitat {
	o := &habitat{r: r, ops: h.ops, next: map[string][]string{}, stray: h.stray}
	o.shuffle()
	return o
}
