package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// A group is a part of a record that is committed to by itself, so that it can
// be shown, or erased, by itself.
type group uint8

// The groups. Their numbers are the tags of the payload.
const (
	groupWho group = iota
	groupWhat
	groupWhy
	groupInput
	groupOutcome
	groupSystem
	groupCount
)

func (g group) String() string {
	switch g {
	case groupWho:
		return "who"
	case groupWhat:
		return "what"
	case groupWhy:
		return "why"
	case groupInput:
		return "input"
	case groupOutcome:
		return "outcome"
	case groupSystem:
		return "system"
	default:
		return "group(" + string('0'+rune(g)) + ")"
	}
}

const (
	nonceSize = 32
	// maxRecord bounds one payload.
	maxRecord = 16 << 20
)

// An opening opens one commitment. The zero opening opens none.
type opening struct {
	has   bool
	nonce [nonceSize]byte
	text  []byte
}

// openings are the openings of one record, by group.
type openings [groupCount]opening

// commitment returns SHA-256("bailiwick/v1/" || group || "\n" || nonce || text).
// Without the nonce, a guess at the text cannot be tested.
func commitment(g group, nonce, text []byte) [sha256.Size]byte {
	var room [1024]byte // on the stack; a longer text is moved to the heap
	b := append(append(append(room[:0], "bailiwick/v1/"...), g.String()...), '\n')
	b = append(append(b, nonce...), text...)
	return sha256.Sum256(b)
}

// encode returns the payload: for each group present its tag, its nonce, the
// length of its text as four bytes, most significant first, and the text.
func (os *openings) encode() []byte {
	size := 0
	for g := range os {
		size += 1 + nonceSize + 4 + len(os[g].text)
	}
	b := make([]byte, 0, size)
	for g := range os {
		o := &os[g]
		if !o.has {
			continue
		}
		b = append(b, byte(g))
		b = append(b, o.nonce[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(o.text)))
		b = append(b, o.text...)
	}
	return b
}

// parsePayload is the inverse of encode. The texts share memory with b.
func parsePayload(b []byte) (openings, error) {
	var os openings
	next := group(0)
	for len(b) > 0 {
		if len(b) < 1+nonceSize+4 {
			return openings{}, errors.New("parse payload: a group is cut short")
		}
		g := group(b[0])
		if g < next || g >= groupCount {
			return openings{}, fmt.Errorf("parse payload: tag %d is unknown or out of order", g)
		}
		next = g + 1
		o := &os[g]
		o.has = true
		copy(o.nonce[:], b[1:])
		n := binary.BigEndian.Uint32(b[1+nonceSize:])
		b = b[1+nonceSize+4:]
		if uint64(n) > uint64(len(b)) {
			return openings{}, fmt.Errorf("parse payload: the group %q is cut short", g)
		}
		o.text, b = b[:n:n], b[n:]
	}
	return os, nil
}

// check compares openings with the commitments of a leaf.
func (os *openings) check(c *commitments) error {
	for g := range groupCount {
		o := &os[g]
		switch {
		case o.has && !c.has[g]:
			return fmt.Errorf("the payload has a group %q that the leaf does not commit to", g)
		case !o.has && c.has[g]:
			return fmt.Errorf("the payload lacks the group %q that the leaf commits to", g)
		case o.has && commitment(g, o.nonce[:], o.text) != c.hash[g]:
			return fmt.Errorf("the group %q of the payload is not what the leaf commits to", g)
		}
	}
	return nil
}

// A sealed record lacks only its place in the log.
type sealed struct {
	kind       Kind
	decision   string
	released   bool // it lets something happen
	settles    bool // and an outcome will say what
	head, tail []byte
	payload    []byte
}

func (s *sealed) size() int { return len(s.head) + len(s.tail) + len(s.payload) }

// seal checks a record, encodes it and commits to its groups. Its errors wrap
// ErrInvalid.
func seal(r Record) (sealed, error) {
	if err := checkRecord(r); err != nil {
		return sealed{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	l := leaf{
		kind:     r.Kind,
		time:     r.Time.UTC().Truncate(time.Millisecond),
		decision: r.Decision,
		effect:   r.Effect,
		version:  r.Version,
		released: r.Kind == KindDecision && r.Why.Released && !r.Why.Advised,
	}
	// One piece of memory for all of the record, usually large enough.
	b := make([]byte, 0, 2048+len(r.Input)+len(r.System))
	b, err := appendPayload(b, r, &l.commit)
	if err != nil {
		return sealed{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	payload := len(b)
	if payload > maxRecord {
		return sealed{}, fmt.Errorf("%w: %d bytes are more than the %d that a record may have", ErrInvalid, payload, maxRecord)
	}
	b = l.appendHead(b)
	head := len(b)
	b = l.appendTail(b)
	return sealed{
		kind:     r.Kind,
		decision: r.Decision,
		released: r.Kind == KindDecision && r.Why.Released,
		settles:  l.released,
		payload:  b[:payload:payload],
		head:     b[payload:head:head],
		tail:     b[head:],
	}, nil
}

func checkRecord(r Record) error {
	if err := checkKind(r.Kind); err != nil {
		return err
	}
	for _, f := range []struct{ name, value string }{
		{"decision", r.Decision}, {"effect", r.Effect}, {"version", r.Version},
	} {
		if err := checkName(f.value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	switch {
	case r.Time.Year() < 1 || r.Time.Year() > 9999:
		return errors.New("time: the year has more than four digits")
	case r.Kind != KindSystem && r.Decision == "":
		return fmt.Errorf("a record of kind %q needs the id of its decision", r.Kind)
	case r.Kind == KindDecision && r.Why == nil:
		return errors.New("a decision needs its why")
	case r.Kind == KindOutcome && r.Outcome == nil:
		return errors.New("an outcome record needs an outcome")
	}
	return nil
}

// appendPayload encodes the groups of a record, each with a fresh nonce, and
// commits to them.
func appendPayload(b []byte, r Record, c *commitments) ([]byte, error) {
	if len(r.System) > 0 && !isJSON(r.System) {
		return nil, errors.New("system: not JSON")
	}
	has := [groupCount]bool{
		groupWho: r.Who != nil, groupWhat: r.What != nil, groupWhy: r.Why != nil,
		groupInput: len(r.Input) > 0, groupOutcome: r.Outcome != nil, groupSystem: len(r.System) > 0,
	}
	n := 0
	for _, there := range has {
		if there {
			n += nonceSize
		}
	}
	var room [groupCount * nonceSize]byte
	nonces := room[:n]
	// Read never fails: the runtime ends the process instead. It costs by the
	// byte, a third of what the rest of this function does.
	rand.Read(nonces)
	for g := range groupCount {
		if !has[g] {
			continue
		}
		var nonce []byte
		nonce, nonces = nonces[:nonceSize], nonces[nonceSize:]
		w := jsonWriter{b: append(append(append(b, byte(g)), nonce...), 0, 0, 0, 0)}
		start := len(w.b)
		switch g {
		case groupWho:
			w.who(r.Who)
		case groupWhat:
			w.what(r.What)
		case groupWhy:
			w.why(r.Why)
		case groupInput:
			w.b = appendInput(w.b, r.Input)
		case groupOutcome:
			w.outcome(r.Outcome)
		case groupSystem:
			w.b = append(w.b, r.System...)
		default:
			return nil, fmt.Errorf("encode %s: no such group", g)
		}
		text := w.b[start:]
		if w.err != nil {
			return nil, fmt.Errorf("encode %s: %w", g, w.err)
		}
		if uint64(len(text)) > math.MaxUint32 {
			return nil, fmt.Errorf("%s: too long", g)
		}
		binary.BigEndian.PutUint32(w.b[start-4:], uint32(len(text)))
		c.has[g], c.hash[g] = true, commitment(g, nonce, text)
		b = w.b
	}
	return b, nil
}

// appendInput keeps the arguments byte for byte. What is not JSON at all, which
// was denied for just that, is kept as {"invalid":"<base64>"}, so that every
// text of a payload is JSON.
func appendInput(b, raw []byte) []byte {
	if isJSON(raw) {
		return append(b, raw...)
	}
	b = append(b, `{"invalid":"`...)
	b = base64.StdEncoding.AppendEncode(b, raw)
	return append(b, `"}`...)
}

func isJSON(b []byte) bool { return utf8.Valid(b) && json.Valid(b) }

// Recorded is a record with its place in the log.
type Recorded struct {
	Index  uint64 `json:"index"`
	Record Record `json:"record"`
}

// Decode reads the record of an entry, and checks that its payload is the one
// that its leaf commits to. It does not check that the entry is in the log.
func Decode(e Entry) (Recorded, error) {
	l, err := parseLeaf(e.Leaf)
	if err != nil {
		return Recorded{}, fmt.Errorf("entry %d: %w", e.Index, err)
	}
	os, err := parsePayload(e.Payload)
	if err != nil {
		return Recorded{}, fmt.Errorf("entry %d: %w", e.Index, err)
	}
	if err := os.check(&l.commit); err != nil {
		return Recorded{}, fmt.Errorf("entry %d: %w", e.Index, err)
	}
	r, err := recordOf(&l, &os)
	if err != nil {
		return Recorded{}, fmt.Errorf("entry %d: %w", e.Index, err)
	}
	return Recorded{Index: e.Index, Record: r}, nil
}

func recordOf(l *leaf, os *openings) (Record, error) {
	r := Record{Kind: l.kind, Time: l.time, Decision: l.decision, Effect: l.effect, Version: l.version}
	// Copies: a record that is kept must not keep the commit that it was read
	// with.
	if o := &os[groupInput]; o.has {
		r.Input = bytes.Clone(o.text)
	}
	if o := &os[groupSystem]; o.has {
		r.System = bytes.Clone(o.text)
	}
	return r, errors.Join(
		decodeGroup(os, groupWho, &r.Who),
		decodeGroup(os, groupWhat, &r.What),
		decodeGroup(os, groupWhy, &r.Why),
		decodeGroup(os, groupOutcome, &r.Outcome),
	)
}

func decodeGroup[T any](os *openings, g group, into **T) error {
	if !os[g].has {
		return nil
	}
	*into = new(T)
	if err := json.Unmarshal(os[g].text, *into); err != nil {
		return fmt.Errorf("decode %s: %w", g, err)
	}
	return nil
}
