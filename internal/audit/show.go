package audit

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// A Shown is all there is to say about one entry.
type Shown struct {
	Recorded
	// Outcome is the first record of what became of a released decision.
	Outcome *Recorded `json:"outcome,omitempty"`
	// Leaf is what the tree commits to.
	Leaf string `json:"leaf"`
	// Proof is the inclusion proof (c2sp.org/tlog-proof) under the checkpoint
	// that was signed with the entry. It has been verified.
	Proof string `json:"proof"`
	// Size is the size of that checkpoint.
	Size uint64 `json:"size"`
}

// Show returns the entry with this index, with its proof. It returns
// ErrNotFound if there is none, and ErrDamaged if it cannot be proven.
func Show(ctx context.Context, r Reader, key Key, index uint64) (Shown, error) {
	e, c, err := readCommit(ctx, r, key, index)
	if err != nil {
		return Shown{}, fmt.Errorf("show entry %d: %w", index, err)
	}
	rec, err := Decode(e)
	if err != nil {
		return Shown{}, fmt.Errorf("show: %w: %w", ErrDamaged, err)
	}
	proof, err := c.prove(index)
	if err != nil {
		return Shown{}, fmt.Errorf("show: %w", err)
	}
	if err := VerifyProof(key, proof, e.Leaf); err != nil {
		return Shown{}, fmt.Errorf("show entry %d: %w: %w", index, ErrDamaged, err)
	}
	s := Shown{Recorded: rec, Leaf: string(e.Leaf), Proof: string(proof), Size: c.size()}
	if rec.Record.Kind == KindDecision && rec.Record.Why.Released {
		s.Outcome, err = outcomeOf(ctx, r, rec)
	}
	return s, err
}

// ShowDecision is Show for the decision with this id.
func ShowDecision(ctx context.Context, r Reader, key Key, id string) (Shown, error) {
	hits, err := Search(ctx, r, Query{Kind: KindDecision, Decision: id, Limit: 1})
	if err != nil {
		return Shown{}, err
	}
	if len(hits) == 0 {
		return Shown{}, fmt.Errorf("decision %s: %w", id, ErrNotFound)
	}
	return Show(ctx, r, key, hits[0].Index)
}

// readCommit reads the commit that holds an entry.
func readCommit(ctx context.Context, r Reader, key Key, index uint64) (Entry, *commit, error) {
	c := &commit{before: newTree()}
	before, err := r.LastCommit(ctx, index)
	if err == nil {
		c.before, err = signedTree(key, before)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Entry{}, nil, err
	}
	var found *Entry
	err = r.Entries(ctx, c.before.size(), math.MaxUint64, func(e Entry) error {
		if e.Index != c.size() {
			return fmt.Errorf("%w: entry %d is missing", ErrDamaged, c.size())
		}
		if e.Index == index {
			found = &e
		}
		c.hashes = append(c.hashes, hashLeaf(e.Leaf))
		if c.checkpoint = e.Checkpoint; len(c.checkpoint) > 0 {
			return errStop
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errStop):
		return Entry{}, nil, err
	case found == nil:
		return Entry{}, nil, ErrNotFound
	case len(c.checkpoint) == 0:
		return Entry{}, nil, fmt.Errorf("%w: no checkpoint covers it", ErrDamaged)
	}
	return *found, c, nil
}

// outcomeOf returns the first outcome of a decision, or nil.
func outcomeOf(ctx context.Context, r Reader, d Recorded) (*Recorded, error) {
	var found *Recorded
	err := r.Entries(ctx, d.Index+1, math.MaxUint64, func(e Entry) error {
		l, err := parseLeaf(e.Leaf)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if l.kind != KindOutcome || l.decision != d.Record.Decision {
			return nil
		}
		rec, err := Decode(e)
		if err != nil {
			return err
		}
		found = &rec
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("outcome of %s: %w", d.Record.Decision, err)
	}
	return found, nil
}
