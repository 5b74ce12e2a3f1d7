package risk

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const monday = 1_790_000_000 / (7 * 24 * 3600) * (7 * 24 * 3600) // the beginning of a week of 168 hours

// A naive scorer keeps every event and works everything out from them, each
// time anew. It knows no tables and no running sums.
type naive struct {
	card   *Scorecard
	events []past
}

type past struct {
	Event
	released, learnt bool
	bits, drift      int64
}

func (n *naive) last(session string) string {
	for _, p := range slices.Backward(n.events) {
		if p.Session == session && p.released {
			return p.Operation
		}
	}
	return ""
}

// learntAfter returns the events that were learnt from and what each followed.
func (n *naive) learnt() (events []past, followed []string) {
	last := map[string]string{}
	for _, p := range n.events {
		if p.learnt {
			events, followed = append(events, p), append(followed, last[p.Session])
		}
		if p.released {
			last[p.Session] = p.Operation
		}
	}
	return events, followed
}

func (n *naive) surprise(last, op string) int64 {
	events, followed := n.learnt()
	all, seen, once := 0, 0, 0
	ops, befores := map[string]bool{}, map[string]bool{}
	for i, e := range events {
		ops[e.Operation], befores[followed[i]] = true, true
		if e.Operation == op {
			once++
		}
		if followed[i] == last {
			all++
			if e.Operation == op {
				seen++
			}
		}
	}
	if all < few {
		all, seen = len(events), once
	}
	return max(logarithm(all+len(ops)+len(befores)+1)-logarithm(seen+1), 0)
}

func logarithm(n int) int64 { return int64(math.Floor(math.Log2(float64(n))*bit + 1e-9)) }

// means replays what was learnt.
func (n *naive) means() (usual, perMinute int64) {
	events, _ := n.learnt()
	minute, in := int64(0), int64(0)
	for _, e := range events {
		usual += (e.bits*256 - usual) / 64
		if m := e.Unix / 60; m != minute {
			if in > 0 {
				perMinute += min((in*256-perMinute)/16, perMinute/8+64)
			}
			minute, in = m, 0
		}
		in++
	}
	return usual, perMinute
}

func (n *naive) assess(e Event) (Score, past) {
	p := past{Event: e}
	events, _ := n.learnt()
	usual, perMinute := n.means()
	p.bits = n.surprise(n.last(e.Session), e.Operation)
	p.drift = p.bits - usual/256 - slack

	cusum, inMinute, denied, deniedAt := int64(0), int64(0), int64(0), int64(0)
	for _, x := range append(slices.Clone(n.events), p) {
		cusum = min(cusum+max(x.drift, 0), 2*certain)
		if x.released {
			cusum = max(cusum+min(x.drift, 0), 0)
		}
		if x.Unix/60 == e.Unix/60 {
			inMinute++
		}
	}
	for _, x := range n.events {
		if !x.released {
			denied, deniedAt = min(denied>>((x.Unix-deniedAt)/denialHalf)+16, 16*64), x.Unix
		}
	}
	var s strength
	s[Denials] = denied >> ((e.Unix - deniedAt) / denialHalf) * full / (16 * denialsFull)
	s[Sensitivity] = e.Stakes * full / 3
	if e.Untrusted {
		s[Untrusted] = full
	}
	reached := map[string]bool{}
	hours := map[int64]int{}
	for _, x := range events {
		for _, d := range x.Destinations {
			reached[d] = true
		}
		hours[x.Unix/3600%168]++
	}
	for _, d := range e.Destinations {
		if !reached[d] || len(events) < warm {
			s[Destination] = full
		}
	}
	if len(events) < warm {
		s[Rate], s[Sequence], s[Change], s[Hour] = full, full, full, full
		return n.card.of(&s), p
	}
	most := 2*perMinute/256 + spare
	s[Rate] = (inMinute - most) * full / most
	s[Sequence] = (p.bits - calm) * full / (shock - calm)
	s[Change] = cusum * full / certain
	h := e.Unix / 3600 % 168
	near := hours[(h+167)%168] + hours[h] + hours[(h+1)%168]
	switch {
	case e.Unix-events[0].Unix < week || near == 0:
		s[Hour] = full
	case near < 3:
		s[Hour] = full / 2
	}
	return n.card.of(&s), p
}

func (n *naive) conclude(p past, s Score, released bool) {
	events, _ := n.learnt()
	p.released = released
	cusum := int64(0)
	for _, x := range append(slices.Clone(n.events), p) {
		cusum = min(cusum+max(x.drift, 0), 2*certain)
		if x.released {
			cusum = max(cusum+min(x.drift, 0), 0)
		}
	}
	inHour, newInHour := int64(0), int64(0)
	for i, x := range events {
		if x.Unix/3600 == p.Unix/3600 {
			inHour++
			if i >= warm && x.bits >= (calm+shock)/2 {
				newInHour++
			}
		}
	}
	tooNew := len(events) >= warm && p.bits >= (calm+shock)/2 && newInHour >= learnNew
	flagged := len(events) >= warm && (s.Total >= n.card.flag || cusum >= certain)
	// What there was at the hour's beginning grows with what was learnt in it.
	p.learnt = released && !flagged && !tooNew && inHour < learnBase+int64(len(events))/learnShare
	n.events = append(n.events, p)
}

// The running sums and bounded tables say what the whole history says.
func TestEqualsTheWholeHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		card := DefaultScorecard()
		tr, n := New(), &naive{card: card}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		now := int64(monday)
		for i := range rapid.IntRange(50, 400).Draw(t, "events") {
			now += []int64{0, 1, 20, 60, 700, 3600, 40_000}[r.IntN(7)]
			e := Event{
				Session: fmt.Sprint("s", r.IntN(5)), Operation: fmt.Sprint("op", min(r.IntN(6), r.IntN(6))), Unix: now,
				Stakes: r.Int64N(4), Untrusted: r.IntN(8) == 0, Destinations: []string{fmt.Sprint("d", r.IntN(12))}[:r.IntN(2)],
			}
			released := r.IntN(10) > 0
			want, p := n.assess(e)
			a := tr.Assess("bot", &e, card)
			if a.Score != want {
				t.Fatalf("event %d: %+v, want %+v", i, a.Score, want)
			}
			tr.Conclude("bot", &e, &a, card, released)
			n.conclude(p, want, released)
		}
	})
}

// agent makes a tracker with an agent of a habit: three operations in a row, in
// office hours, for some weeks.
func agent(t testing.TB, weeks int) (*Tracker, int64) {
	t.Helper()
	tr, card := New(), DefaultScorecard()
	now := int64(monday)
	for day := range weeks * 7 {
		if day%7 > 4 {
			continue
		}
		for run := range 16 {
			at := monday + int64(day)*24*3600 + 9*3600 + int64(run)*1500
			for i, op := range []string{"read", "think", "write"} {
				now = at + int64(i)*20
				e := Event{Session: fmt.Sprint(day, run), Operation: op, Unix: now, Destinations: []string{"alice"}}
				a := tr.Assess("bot", &e, card)
				tr.Conclude("bot", &e, &a, card, true)
			}
		}
	}
	return tr, now
}

func TestSignals(t *testing.T) {
	t.Parallel()
	card := DefaultScorecard()
	office := int64(21*24*3600 + 10*3600)
	base := Event{Session: "new", Operation: "read", Destinations: []string{"alice"}, Unix: monday + office}
	for _, tt := range []struct {
		name   string
		change func(tr *Tracker, e *Event)
		want   []string
	}{
		{name: "as usual", change: func(*Tracker, *Event) {}},
		{name: "at stake", change: func(_ *Tracker, e *Event) { e.Stakes = 2 }, want: []string{"sensitivity"}},
		{name: "outsiders", change: func(_ *Tracker, e *Event) { e.Untrusted = true }, want: []string{"untrusted"}},
		{name: "a stranger", change: func(_ *Tracker, e *Event) { e.Destinations = []string{"alice", "mallory"} }, want: []string{"destination"}},
		{name: "at night", change: func(_ *Tracker, e *Event) { e.Unix += 14 * 3600 }, want: []string{"hour"}},
		{name: "out of order", change: func(_ *Tracker, e *Event) { e.Operation = "write" }, want: []string{"sequence", "change"}},
		{name: "after denials", change: func(tr *Tracker, e *Event) {
			for range 3 {
				x := *e
				a := tr.Assess("bot", &x, card)
				tr.Conclude("bot", &x, &a, card, false)
			}
		}, want: []string{"denials"}},
		{name: "denials long ago", change: func(tr *Tracker, e *Event) {
			for range 3 {
				x := *e
				a := tr.Assess("bot", &x, card)
				tr.Conclude("bot", &x, &a, card, false)
			}
			e.Unix += 2 * 3600
		}},
		{name: "in a burst", change: func(tr *Tracker, e *Event) {
			for range 30 {
				x := *e
				tr.Assess("bot", &x, card) // under way: not concluded yet
			}
		}, want: []string{"rate"}},
		{name: "of another agent", change: func(_ *Tracker, e *Event) { e.Session = "" }, want: nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, _ := agent(t, 3)
			e := base
			tt.change(tr, &e)
			a := tr.Assess("bot", &e, card)
			if d := cmp.Diff(a.AppendReasons(nil), tt.want); d != "" {
				t.Errorf("%+v\n%s", a.Score, d)
			}
		})
	}
	t.Run("unknown agent", func(t *testing.T) {
		tr, _ := agent(t, 1)
		a := tr.Assess("stranger", &base, card)
		if d := cmp.Diff(a.AppendReasons(nil), []string{"rate", "sequence", "change", "destination", "hour"}); d != "" {
			t.Error(d)
		}
		for _, s := range []Signal{Rate, Sequence, Change, Destination, Hour} {
			if a.Points[s] != card.Cap(s) {
				t.Errorf("%s: what is missing counts %d of %d", s, a.Points[s], card.Cap(s))
			}
		}
	})
}

// An event that is bad in any way never lowers a score: more at stake, text of
// outsiders, one more stranger, a denial before it.
func TestBadNeverLowers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		card := DefaultScorecard()
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		a, b := New(), New()
		now := int64(monday)
		for i := range rapid.IntRange(1, 300).Draw(t, "events") {
			now += []int64{1, 60, 4000}[r.IntN(3)]
			e := Event{Session: fmt.Sprint(r.IntN(3)), Operation: fmt.Sprint(min(r.IntN(5), r.IntN(5))), Unix: now, Stakes: r.Int64N(3), Destinations: []string{fmt.Sprint(r.IntN(9))}}
			x, y := a.Assess("bot", &e, card), b.Assess("bot", &e, card)
			if x.Score != y.Score {
				t.Fatalf("event %d: two equal histories differ", i)
			}
			a.Conclude("bot", &e, &x, card, true)
			b.Conclude("bot", &e, &y, card, true)
		}
		e := Event{Session: "1", Operation: fmt.Sprint(r.IntN(9)), Unix: now + 1, Destinations: []string{"0"}}
		worse := e
		switch rapid.IntRange(0, 3).Draw(t, "worse") {
		case 0:
			worse.Stakes++
		case 1:
			worse.Untrusted = true
		case 2:
			worse.Destinations = []string{"0", "stranger"}
		default:
			denied := Event{Session: "1", Operation: fmt.Sprint(r.IntN(9)), Unix: now, Destinations: []string{"0"}}
			d := b.Assess("bot", &denied, card)
			b.Conclude("bot", &denied, &d, card, false)
		}
		x, y := a.Assess("bot", &e, card), b.Assess("bot", &worse, card)
		for s := range Signals {
			if y.Points[s] < x.Points[s] {
				t.Fatalf("%s: %d points, and %d when it is worse", s, x.Points[s], y.Points[s])
			}
		}
	})
}

// A crowd of calls that are flagged, or too many for an hour, teaches nothing.
func TestHabitsChangeSlowly(t *testing.T) {
	t.Parallel()
	card := DefaultScorecard()
	tr, now := agent(t, 3)
	before := tr.agents["bot"].Learned
	for i := range 2000 {
		e := Event{Session: "x", Operation: "wire", Unix: now + 7200 + int64(i), Stakes: 3, Destinations: []string{"mallory"}}
		a := tr.Assess("bot", &e, card)
		tr.Conclude("bot", &e, &a, card, true)
	}
	if n := tr.agents["bot"].Learned - before; n > 3 { // the first few, before it is sure
		t.Errorf("%d actions of a sudden change were learnt from", n)
	}
	before = tr.agents["bot"].Learned
	quiet := &Scorecard{flag: Most} // nothing counts, so nothing is flagged
	for i := range 2000 {
		e := Event{Session: "y", Operation: "read", Unix: (now/3600+30)*3600 + int64(i), Destinations: []string{"alice"}}
		a := tr.Assess("bot", &e, quiet)
		tr.agents["bot"].Cusum = 0
		tr.Conclude("bot", &e, &a, quiet, true)
	}
	if n := tr.agents["bot"].Learned - before; n == 0 || n > learnBase+before/learnShare+30 {
		t.Errorf("%d actions were learnt from in an hour, of %d before", n, before)
	}
}

// saved is what a tracker saves.
func saved(t *testing.T, tr *Tracker) (habits map[string][]byte) {
	t.Helper()
	if err := tr.Save(func(h map[string][]byte) error { habits = h; return nil }); err != nil {
		t.Fatal(err)
	}
	return habits
}

func TestHabitsAreStored(t *testing.T) {
	t.Parallel()
	card := DefaultScorecard()
	tr, now := agent(t, 2)
	full := errors.New("the disk is full")
	if err := tr.Save(func(map[string][]byte) error { return full }); !errors.Is(err, full) {
		t.Fatal(err)
	}
	stored := saved(t, tr) // all the same
	if len(stored) != 1 || len(saved(t, tr)) != 0 {
		t.Fatalf("%d habits changed", len(stored))
	}
	back := New()
	if err := back.Restore("bot", stored["bot"]); err != nil {
		t.Fatal(err)
	}
	e := Event{Session: "z", Operation: "write", Unix: now + 60, Destinations: []string{"bob"}}
	if a, b := tr.Assess("bot", &e, card), back.Assess("bot", &e, card); a.Score != b.Score {
		t.Errorf("%+v after a restart, %+v before", b.Score, a.Score)
	}
	if len(saved(t, back)) != 1 {
		t.Error("what was assessed is not to be stored")
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "short": stored["bot"][:100], "other version": append([]byte{9}, stored["bot"][1:]...),
		"full of ones": append([]byte{stateVersion}, slices.Repeat([]byte{0xff}, len(stored["bot"])-1)...),
	} {
		if err := New().Restore("bot", bad); err == nil {
			t.Errorf("%s: taken over", name)
		}
	}
}

// Beyond the bounds what is new stays surprising, and the agent too many is one
// without a habit.
func TestBounds(t *testing.T) {
	t.Parallel()
	card := DefaultScorecard()
	tr := New()
	for i := range 30_000 {
		e := Event{Session: "s", Operation: fmt.Sprint(i % 1000), Unix: monday + int64(i)*60, Destinations: []string{fmt.Sprint(i)}}
		a := tr.Assess("bot", &e, &Scorecard{flag: Most})
		tr.agents["bot"].Cusum = 0
		tr.Conclude("bot", &e, &a, &Scorecard{flag: Most}, true)
	}
	h := tr.agents["bot"]
	if h.KnownPairs > mostPairs*3/4 || h.KnownOperations > mostOperations*3/4 || h.KnownDestination > mostDestinations || !fits(h.Pairs[:], h.KnownPairs) {
		t.Errorf("%d pairs, %d operations, %d destinations", h.KnownPairs, h.KnownOperations, h.KnownDestination)
	}
	for i := range mostAgents {
		tr.Assess(fmt.Sprint(i), &Event{Operation: "read"}, card)
	}
	if tr.Len() != mostAgents {
		t.Errorf("%d agents", tr.Len())
	}
	e := Event{Operation: "read", Unix: monday}
	a := tr.Assess("one too many", &e, card)
	tr.Conclude("one too many", &e, &a, card, true)
	if a.Points[Change] != card.Cap(Change) {
		t.Errorf("nothing is known, and it counts %+v", a.Score)
	}
}

func TestCountsAreHalved(t *testing.T) {
	t.Parallel()
	h := &habit{}
	for i := range mostCount + 1 {
		h.InHour = 0
		h.learn(&Event{Unix: int64(i)}, omen{last: 5, op: 7})
	}
	if n := find(h.Operations[:], before(5)); n > mostCount/2+2 || n == 0 {
		t.Errorf("counted %d", n)
	}
	h = &habit{}
	h.learn(&Event{}, omen{last: 7, op: 9})
	if left := halve(h.Pairs[:]); left != 0 || find(h.Pairs[:], pair(7, 9)) != 0 {
		t.Error("what was seen once is not forgotten")
	}
}

func TestLog2(t *testing.T) {
	t.Parallel()
	for n := 1; n < 100_000; n += 1 + n/50 {
		if got, want := log2(int64(n)), logarithm(n); got != want {
			t.Fatalf("log2(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestScorecard(t *testing.T) {
	t.Parallel()
	c, err := ParseScorecard([]byte("caps: {rate: 0, change: 40}\nflag: 80\n"))
	if err != nil || c.caps[Rate] != 0 || c.caps[Change] != 40 || c.caps[Hour] != DefaultScorecard().caps[Hour] || c.flag != 80 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"caps: {mood: 3}", "caps: {rate: 41}", "caps: {rate: -1}", "flag: 0", "flag: 101", "cap: {}", "caps: ["} {
		if _, err := ParseScorecard([]byte(bad)); err == nil {
			t.Errorf("%s: taken", bad)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	tr, now := agent(t, 2)
	card := DefaultScorecard()
	e := Event{Session: "z", Operation: "read", Unix: now, Destinations: []string{"alice"}}
	if n := testing.AllocsPerRun(100, func() {
		a := tr.Assess("bot", &e, card)
		tr.Conclude("bot", &e, &a, card, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRisk(b *testing.B) {
	tr, now := agent(b, 4)
	card := DefaultScorecard()
	e := Event{Session: "z", Operation: "read", Unix: now, Destinations: []string{"alice"}}
	ops := []string{"read", "think", "write"}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e.Operation, e.Unix = ops[i%3], e.Unix+7
		a := tr.Assess("bot", &e, card)
		tr.Conclude("bot", &e, &a, card, true)
	}
}
