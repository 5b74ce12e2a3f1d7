package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Size is the number of entries that checkpoints cover.
func Size(ctx context.Context, r Reader) (uint64, error) {
	e, err := r.LastCommit(ctx, math.MaxUint64)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("size of the log: %w", err)
	}
	return e.Index + 1, nil
}

// Records calls f with each record of [from, to), in order. An error of f ends
// it and is returned.
func Records(ctx context.Context, r Reader, from, to uint64, f func(Recorded) error) error {
	return r.Entries(ctx, from, to, func(e Entry) error {
		rec, err := Decode(e)
		if err != nil {
			return err
		}
		return f(rec)
	})
}

// Entries and LastCommit make a Log a Reader of itself.
func (l *Log) Entries(ctx context.Context, from, to uint64, f func(Entry) error) error {
	j, err := l.reader()
	if err != nil {
		return err
	}
	return j.Entries(ctx, from, to, f)
}

// LastCommit is that of [Reader].
func (l *Log) LastCommit(ctx context.Context, to uint64) (Entry, error) {
	j, err := l.reader()
	if err != nil {
		return Entry{}, err
	}
	return j.LastCommit(ctx, to)
}

func (l *Log) reader() (Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return nil, fmt.Errorf("read audit log: %w", ErrUnavailable)
	}
	return l.journal, nil
}

// A Query selects records. Its zero value selects all; each field that is set
// narrows it.
type Query struct {
	Kind     Kind   // decision, outcome or system
	Agent    string // id of the acting subject
	For      string // the person it acted for
	Action   string // name of the operation
	Server   string
	Effect   string // "allow" or "deny", an outcome's status, a system act
	Reason   string // code of one of the reasons
	Policy   string // id of a determining policy
	Session  string
	Decision string
	Since    time.Time // at or after
	Until    time.Time // before
	Text     string    // anywhere in the record, in any case
	// Before selects entries with a lower index; 0 means all. It pages: pass
	// the index of the last hit.
	Before uint64
	// Limit is how many hits to return. Required.
	Limit int
}

// A Hit is a record that a query selected.
type Hit struct {
	Recorded
	// Outcome is the status of a released decision's outcome, if there is one.
	Outcome string `json:"outcome,omitempty"`
}

const (
	// searchStep is how many entries a search reads at a time.
	searchStep = 2000
	// maxJoin bounds how many outcomes a search remembers.
	maxJoin = 1 << 16
)

// Search returns the newest hits, the newest first. It reads the journal from
// its end and stops at the limit: there is no index yet.
func Search(ctx context.Context, r Reader, q Query) ([]Hit, error) {
	end, err := Size(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	s := newSearch(q)
	for end > 0 && len(s.hits) < q.Limit {
		from := end - min(end, searchStep)
		var step []Entry
		err := r.Entries(ctx, from, end, func(e Entry) error {
			step = append(step, e)
			return nil
		})
		for i := len(step) - 1; err == nil && i >= 0 && len(s.hits) < q.Limit; i-- {
			err = s.entry(step[i])
		}
		if err != nil {
			return nil, fmt.Errorf("search: %w", err)
		}
		end = from
	}
	return s.hits, nil
}

type search struct {
	q        Query
	needles  [][]byte
	hits     []Hit
	outcomes map[string]string
}

func newSearch(q Query) *search {
	s := &search{q: q, outcomes: map[string]string{}}
	// What a payload must contain to be worth decoding.
	for _, v := range []string{q.Agent, q.For, q.Action, q.Server, q.Reason, q.Policy, q.Session} {
		if v != "" {
			text, err := json.Marshal(v)
			if err != nil {
				panic(err) // strings can always be encoded
			}
			s.needles = append(s.needles, text)
		}
	}
	s.q.Text = strings.ToLower(q.Text)
	return s
}

func (s *search) entry(e Entry) error {
	l, err := parseLeaf(e.Leaf)
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	if l.kind == KindOutcome && len(s.outcomes) < maxJoin {
		s.outcomes[l.decision] = l.effect
	}
	if !s.q.header(&l, e.Index) {
		return nil
	}
	for _, n := range s.needles {
		if !bytes.Contains(e.Payload, n) {
			return nil
		}
	}
	rec, err := Decode(e)
	if err != nil {
		return err
	}
	if s.q.record(rec.Record) && s.text(e) {
		h := Hit{Recorded: rec}
		if l.kind == KindDecision {
			h.Outcome = s.outcomes[l.decision]
		}
		s.hits = append(s.hits, h)
	}
	return nil
}

// header decides by what the leaf says.
func (q *Query) header(l *leaf, index uint64) bool {
	return (q.Before == 0 || index < q.Before) &&
		(q.Kind == "" || q.Kind == l.kind) &&
		(q.Effect == "" || q.Effect == l.effect) &&
		(q.Decision == "" || q.Decision == l.decision) &&
		(q.Since.IsZero() || !l.time.Before(q.Since)) &&
		(q.Until.IsZero() || l.time.Before(q.Until))
}

// record decides by what the payload says.
func (q *Query) record(r Record) bool {
	who, what, why := Who{}, What{}, Why{}
	if r.Who != nil {
		who = *r.Who
	}
	if r.What != nil {
		what = *r.What
	}
	if r.Why != nil {
		why = *r.Why
	}
	return (q.Agent == "" || q.Agent == who.Subject.ID) &&
		(q.For == "" || q.For == who.For) &&
		(q.Session == "" || q.Session == who.Session) &&
		(q.Action == "" || q.Action == what.Action) &&
		(q.Server == "" || q.Server == what.Server) &&
		(q.Reason == "" || q.hasReason(why)) &&
		(q.Policy == "" || q.hasPolicy(why))
}

func (q *Query) hasReason(w Why) bool {
	for _, r := range w.Reasons {
		if r.Code == q.Reason {
			return true
		}
	}
	return false
}

func (q *Query) hasPolicy(w Why) bool {
	for _, p := range w.Policies {
		if p.ID == q.Policy {
			return true
		}
	}
	return false
}

func (s *search) text(e Entry) bool {
	if s.q.Text == "" {
		return true
	}
	os, err := parsePayload(e.Payload)
	if err != nil {
		return false // decoded just now
	}
	for g := range os {
		if strings.Contains(strings.ToLower(string(os[g].text)), s.q.Text) {
			return true
		}
	}
	return strings.Contains(strings.ToLower(string(e.Leaf)), s.q.Text)
}

// Tail returns the last n records, the oldest first.
func Tail(ctx context.Context, r Reader, n int) ([]Hit, error) {
	hits, err := Search(ctx, r, Query{Limit: n})
	slices.Reverse(hits)
	return hits, err
}

// followPeriod is how often Follow looks for new entries.
const followPeriod = 200 * time.Millisecond

// Follow calls f with each record from an index on, and with each new one as
// it becomes durable, until the context ends or f returns an error.
func Follow(ctx context.Context, r Reader, from uint64, f func(Recorded) error) error {
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		err := Records(ctx, r, from, math.MaxUint64, func(rec Recorded) error {
			from = rec.Index + 1
			return f(rec)
		})
		if err != nil {
			return fmt.Errorf("follow: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
