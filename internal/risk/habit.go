package risk

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"sync"
)

// Bounds of what is known of one agent, about 15 KB.
const (
	mostPairs        = 512 // of operations in a row
	mostOperations   = 256 // as what is done, and as what was done before
	mostDestinations = 256
	mostSessions     = 32 // whose last operation is known
	// mostCount is where the counts of an operation are halved, which forgets
	// what was rare and long ago.
	mostCount = 1 << 14
)

// What the signals mean. Times are in seconds, surprise in sixteenths of a bit.
const (
	// few is how often an operation must have been followed to say what follows.
	few = 8
	// warm is how many actions must have been learnt from before the agent has a
	// habit, and week how long ago the first of them must be before its hours are
	// known. Until then these signals are missing, which counts in full.
	warm = 100
	week = 7 * 24 * 3600
	// A surprise of calm or less is none; one of shock is the strongest.
	calm, shock = 2 * bit, 8 * bit
	// The change point detector (CUSUM) sums the surprise beyond the usual one
	// and slack, and is sure at certain.
	slack, certain = 3 * bit / 2, 20 * bit
	// spare is how many calls in a minute are no burst, whatever the habit.
	spare = 10
	// A denial counts half after denialHalf, and denialsFull of them in full.
	denialHalf, denialsFull = 600, 5
	// In an hour at most learnBase actions are learnt from, and one in learnShare
	// of what is known already, and of those that surprise at most learnNew:
	// nobody changes a habit in an afternoon.
	learnBase, learnShare, learnNew = 64, 8, 8

	bit = 16
)

// An Event is an action as risk sees it.
type Event struct {
	// Session and Operation name the session and what is to be done.
	Session, Operation string
	// Unix is when, in seconds.
	Unix int64
	// Stakes is how much is at stake: 0 for what only reads to 3 for what
	// destroys.
	Stakes int64
	// Untrusted: the session has seen what outsiders may have written.
	Untrusted bool
	// Destinations are the values that say whom or what the action reaches.
	Destinations []string
}

// state is what is known of one agent. It has a fixed size, and is stored as it
// is.
type state struct {
	// What happened, whether it was allowed or not.
	Minute   int64 // since the epoch
	InMinute int64
	Denied   int64 // sixteenths, as of DeniedAt
	DeniedAt int64
	Cusum    int64
	Sessions [mostSessions]uint64
	Last     [mostSessions]uint64 // the session's last operation
	NextSlot uint32

	// What was learnt.
	Learned          int64
	Since            int64 // the first
	Hour, InHour     int64 // how many in this hour
	NewInHour        int64 // and how many of them surprised
	LearnedMinute    int64
	InLearnedMinute  int64
	PerMinute        int64 // mean of calls in a minute with calls, in 256ths
	Usual            int64 // mean surprise, in 256ths of a sixteenth of a bit
	Done             int64 // operations, halved with their counts
	Hours            [168]uint16
	Operations       [mostOperations]count
	Pairs            [mostPairs]count
	Destinations     [mostDestinations]uint64
	NextDestination  uint32
	KnownOperations  uint32
	KnownPairs       uint32
	KnownDestination uint32
}

// A count is how often something was learnt. A zero key is a free place.
type count struct {
	Key uint64
	N   uint32
}

type habit struct {
	mu  sync.Mutex
	buf []byte
	state
}

// name names a session or an operation in 64 bits (FNV-1a), never zero. Who can
// choose two with one name gains nothing: operations are pinned by an operator,
// and of sessions only the order of their calls is known.
func name(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h | 1
}

// hash names a destination in 64 bits that nobody can aim at, never zero: one
// that looks like another would be no stranger.
func (h *habit) hash(s string) uint64 {
	h.buf = append(h.buf[:0], s...)
	sum := sha256.Sum256(h.buf)
	return binary.LittleEndian.Uint64(sum[:]) | 1
}

// pair names two operations in a row.
func pair(a, b uint64) uint64 { return (bits.RotateLeft64(a, 31)*0x9e3779b97f4a7c15 ^ b) | 1 }

// assess counts the event and returns its signals.
func (h *habit) assess(e *Event) (s strength, o omen) {
	o.session, o.op = name(e.Session), name(e.Operation)
	if slot := h.slot(o.session); slot >= 0 {
		o.last = h.Last[slot]
	}
	o.bits = h.surprise(o.last, o.op)
	o.drift = o.bits - h.Usual/256 - slack
	h.Cusum = min(h.Cusum+max(o.drift, 0), 2*certain)
	if m := e.Unix / 60; m != h.Minute {
		h.Minute, h.InMinute = m, 0
	}
	h.InMinute++

	s[Denials] = h.denials(e.Unix) * full / (16 * denialsFull)
	s[Sensitivity] = e.Stakes * full / 3
	if e.Untrusted {
		s[Untrusted] = full
	}
	if h.Learned < warm {
		s[Rate], s[Sequence], s[Change], s[Hour] = full, full, full, full
		if len(e.Destinations) > 0 {
			s[Destination] = full
		}
		return s, o
	}
	usual := 2*h.PerMinute/256 + spare
	s[Rate] = (h.InMinute - usual) * full / usual
	s[Sequence] = (o.bits - calm) * full / (shock - calm)
	s[Change] = h.Cusum * full / certain
	s[Hour] = h.hour(e.Unix)
	for _, d := range e.Destinations {
		if !h.reached(h.hash(d)) {
			s[Destination] = full
		}
	}
	return s, o
}

// An omen is what an operation follows in its session, how surprising that is
// in sixteenths of a bit, and by how much more than usual.
type omen struct {
	session, op, last uint64
	bits, drift       int64
}

func (h *habit) slot(session uint64) int {
	for i, s := range h.Sessions {
		if s == session {
			return i
		}
	}
	return -1
}

// pass makes an operation that was released the last of its session. Only what
// was released calms: whoever is denied gains nothing by trying.
func (h *habit) pass(o omen) {
	slot := h.slot(o.session)
	if slot < 0 { // new, or forgotten
		slot = int(h.NextSlot)
		h.NextSlot = (h.NextSlot + 1) % mostSessions
		h.Sessions[slot] = o.session
	}
	h.Last[slot] = o.op
	h.Cusum = max(h.Cusum+min(o.drift, 0), 0)
}

// surprise is minus the logarithm of how likely it is that an operation follows
// another, as if each that is known had been seen once more. After one of which
// too little is known, it is how likely the operation is at all.
func (h *habit) surprise(last, op uint64) int64 {
	more := int64(h.KnownOperations) + 1
	all, seen := int64(find(h.Operations[:], before(last))), int64(0)
	if all < few {
		all, seen = h.Done, int64(find(h.Operations[:], op))
	} else {
		seen = int64(find(h.Pairs[:], pair(last, op)))
	}
	return max(log2(all+more)-log2(seen+1), 0)
}

// before names an operation as what was done before. Zero is the beginning of a
// session.
func before(op uint64) uint64 { return bits.RotateLeft64(op, 17) ^ 0xd6e8feb86659fd92 | 1 }

// denials are the denials of late, in sixteenths.
func (h *habit) denials(now int64) int64 {
	return h.Denied >> min(uint64(max(now-h.DeniedAt, 0)/denialHalf), 62)
}

// hour is how unusual the hour is. A neighbouring hour is as good.
func (h *habit) hour(now int64) int64 {
	if now-h.Since < week {
		return full
	}
	at := hourOfWeek(now)
	switch n := int(h.Hours[(at+167)%168]) + int(h.Hours[at]) + int(h.Hours[(at+1)%168]); {
	case n == 0:
		return full
	case n < 3:
		return full / 2
	default:
		return 0
	}
}

func hourOfWeek(unix int64) int { return int(uint64(unix) / 3600 % 168) }

func (h *habit) reached(d uint64) bool {
	for _, k := range h.Destinations[:h.KnownDestination] {
		if k == d {
			return true
		}
	}
	return false
}

// deny counts a denial.
func (h *habit) deny(now int64) {
	h.Denied, h.DeniedAt = min(h.denials(now)+16, 16*64), max(now, h.DeniedAt)
}

// learn makes an action part of the habit, unless too much was learnt in this
// hour.
func (h *habit) learn(e *Event, o omen) {
	if hour := e.Unix / 3600; hour != h.Hour {
		h.Hour, h.InHour, h.NewInHour = hour, 0, 0
	}
	if h.InHour >= learnBase+h.Learned/learnShare {
		return
	}
	if h.Learned >= warm && o.bits >= (calm+shock)/2 {
		if h.NewInHour >= learnNew {
			return
		}
		h.NewInHour++
	}
	h.InHour++
	if h.Learned == 0 {
		h.Since = e.Unix
	}
	h.Learned++
	h.Usual += (o.bits*256 - h.Usual) / 64
	h.minute(e.Unix / 60)
	if at := hourOfWeek(e.Unix); h.Hours[at] < 1<<16-1 {
		h.Hours[at]++
	}
	h.Done++
	h.KnownOperations += add(h.Operations[:], o.op, h.KnownOperations, mostOperations*3/4)
	h.KnownOperations += add(h.Operations[:], before(o.last), h.KnownOperations, mostOperations*3/4)
	h.KnownPairs += add(h.Pairs[:], pair(o.last, o.op), h.KnownPairs, mostPairs*3/4)
	if find(h.Operations[:], o.op) >= mostCount || find(h.Operations[:], before(o.last)) >= mostCount {
		h.Done /= 2
		h.KnownOperations = halve(h.Operations[:])
		h.KnownPairs = halve(h.Pairs[:])
	}
	for _, d := range e.Destinations {
		if k := h.hash(d); !h.reached(k) {
			h.Destinations[h.NextDestination] = k
			h.NextDestination = (h.NextDestination + 1) % mostDestinations
			h.KnownDestination = min(h.KnownDestination+1, mostDestinations)
		}
	}
}

// minute counts an action that was learnt from. When a minute is over, the mean
// follows it slowly, and upwards by an eighth at most.
func (h *habit) minute(m int64) {
	if m != h.LearnedMinute {
		if h.InLearnedMinute > 0 {
			step := (h.InLearnedMinute*256 - h.PerMinute) / 16
			h.PerMinute += min(step, h.PerMinute/8+64)
		}
		h.LearnedMinute, h.InLearnedMinute = m, 0
	}
	h.InLearnedMinute++
}

// find returns how often a key was counted.
func find(table []count, key uint64) uint32 {
	for i := key % uint64(len(table)); table[i].Key != 0; i = (i + 1) % uint64(len(table)) {
		if table[i].Key == key {
			return table[i].N
		}
	}
	return 0
}

// add counts a key. It returns 1 if the key is new, for which there is room up
// to most; a new one beyond it is not counted, and stays surprising.
func add(table []count, key uint64, used, most uint32) uint32 {
	i := key % uint64(len(table))
	for ; table[i].Key != 0; i = (i + 1) % uint64(len(table)) {
		if table[i].Key == key {
			table[i].N++
			return 0
		}
	}
	if used >= most {
		return 0
	}
	table[i] = count{Key: key, N: 1}
	return 1
}

// halve halves all counts, forgets those that were one, and returns how many
// are left.
func halve(table []count) (left uint32) {
	old := append([]count(nil), table...)
	clear(table)
	for _, c := range old {
		if c.N < 2 {
			continue
		}
		i := c.Key % uint64(len(table))
		for table[i].Key != 0 {
			i = (i + 1) % uint64(len(table))
		}
		table[i] = count{Key: c.Key, N: c.N / 2}
		left++
	}
	return left
}

// log2 is the logarithm of a positive number in sixteenths, rounded down.
func log2(n int64) int64 {
	whole := int64(bits.Len64(uint64(n))) - 1
	// The next four bits of the logarithm, by squaring (Knuth, TAOCP 1.2.2).
	x := uint64(n) << 31 >> whole // 1 to 2, with 31 fractional bits
	frac := int64(0)
	for range 4 {
		x = x * x >> 31
		frac <<= 1
		if x >= 1<<32 {
			x >>= 1
			frac |= 1
		}
	}
	return whole*bit + frac
}
