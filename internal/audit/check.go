package audit

import (
	"fmt"
	"math"
)

// A Fault is one way in which stored evidence is not what was signed.
type Fault struct {
	// From and To bound the entries concerned: From is the first, To is past
	// the last.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Code is one of the Fault constants.
	Code string `json:"code"`
	// Detail is a sentence for people.
	Detail string `json:"detail"`
}

// The codes of faults.
const (
	FaultLeaf       = "leaf_changed"       // a leaf is not the one its hash was made of
	FaultPayload    = "payload_changed"    // a payload does not open its leaf's commitments
	FaultMissing    = "entries_missing"    // entries are not there
	FaultOrder      = "entries_reordered"  // an entry stands where another belongs
	FaultRoot       = "root_mismatch"      // entries are not those that a checkpoint signed
	FaultCheckpoint = "checkpoint_invalid" // a checkpoint is not signed by the key, or is not of this size
	FaultFrontier   = "frontier_changed"   // the stored right edge of the tree is wrong
	FaultUncovered  = "not_covered"        // entries after the last checkpoint
	FaultTruncated  = "truncated"          // a checkpoint exists for more entries than there are
	FaultKey        = "wrong_key"          // another key than the one given
	FaultFormat     = "malformed"          // bytes that are not in the format
)

func (f Fault) String() string {
	switch {
	case f.To == 0:
		return f.Detail
	case f.To == f.From+1:
		return fmt.Sprintf("entry %d: %s", f.From, f.Detail)
	default:
		return fmt.Sprintf("entries %d to %d: %s", f.From, f.To-1, f.Detail)
	}
}

// A checker recomputes the tree over a run of entries and compares it with
// every checkpoint on the way.
type checker struct {
	key    Key
	report func(Fault)
	// visit, if set, is called with each entry whose leaf is sound.
	visit func(*leaf)

	// tree is the tree of the entries so far; lost is set while it cannot be
	// known, from a fault to the next commit that says where the tree stands.
	tree tree
	lost bool
	// next is the index of the next entry, start that of the open commit.
	next, start uint64
	// named is set when the leaf at fault in the open commit has been named.
	named bool
	// payloads says whether to check the payloads too.
	payloads bool
	// root and checkpoint are those of the last commit that was in order.
	root       [32]byte
	checkpoint []byte
	verified   uint64
}

func newChecker(key Key, t tree, report func(Fault)) *checker {
	return &checker{key: key, report: report, tree: t.clone(), next: t.size(), start: t.size(), payloads: true, verified: t.size(), root: t.root()}
}

// entry takes the next entry of the log.
func (c *checker) entry(e Entry) {
	if e.Index != c.next {
		c.misplaced(e.Index)
	}
	c.next = max(c.next, e.Index+1)
	c.content(e)
	if !c.lost {
		c.tree.append(hashLeaf(e.Leaf))
	}
	switch {
	case len(e.Checkpoint) > 0:
		c.commit(e)
	case len(e.Frontier) > 0:
		c.report(Fault{From: e.Index, To: e.Index + 1, Code: FaultFrontier, Detail: "there is a frontier without a checkpoint"})
	}
}

// misplaced reports that the entry with this index is not the one that should
// come next.
func (c *checker) misplaced(index uint64) {
	c.lost, c.named = true, true
	switch {
	case index > c.next:
		c.report(Fault{From: c.next, To: index, Code: FaultMissing, Detail: "missing"})
		c.start = index
	default:
		c.report(Fault{From: index, To: index + 1, Code: FaultOrder, Detail: fmt.Sprintf("stands where entry %d belongs", c.next)})
	}
}

// content checks what can be checked of one entry by itself.
func (c *checker) content(e Entry) {
	if hashLeaf(e.Leaf) != e.Hash {
		c.fault(e.Index, FaultLeaf, "the leaf, or the hash stored beside it, was changed")
		return
	}
	l, err := parseLeaf(e.Leaf)
	if err != nil {
		c.fault(e.Index, FaultFormat, err.Error())
		return
	}
	if l.index != e.Index {
		c.fault(e.Index, FaultOrder, fmt.Sprintf("the leaf is that of entry %d", l.index))
		return
	}
	if c.payloads {
		if err := checkPayload(e.Payload, &l.commit); err != nil {
			c.report(Fault{From: e.Index, To: e.Index + 1, Code: FaultPayload, Detail: err.Error()})
		}
	}
	if c.visit != nil {
		c.visit(&l)
	}
}

func checkPayload(payload []byte, c *commitments) error {
	os, err := parsePayload(payload)
	if err != nil {
		return err
	}
	return os.check(c)
}

// fault names one leaf as the reason why the root of its commit will not match.
func (c *checker) fault(index uint64, code, detail string) {
	c.named = true
	c.report(Fault{From: index, To: index + 1, Code: code, Detail: detail})
}

// commit checks the checkpoint that ends a commit, and finds the tree again if
// it was lost.
func (c *checker) commit(e Entry) {
	size := e.Index + 1
	stored, err := c.committed(e)
	if err != nil {
		// The next checkpoint covers these entries too.
		c.report(Fault{From: e.Index, To: size, Code: FaultCheckpoint, Detail: err.Error()})
		return
	}
	frontier, err := treeAt(size, e.Frontier)
	sound := err == nil && frontier.root() == stored
	if !sound {
		c.report(Fault{From: e.Index, To: size, Code: FaultFrontier, Detail: "the frontier stored with the checkpoint was changed"})
	}
	switch {
	case c.lost:
		// Reported when it was lost.
	case c.tree.root() != stored:
		if !c.named {
			c.report(Fault{From: c.start, To: size, Code: FaultRoot, Detail: fmt.Sprintf(
				"not those that the checkpoint of size %d was signed for: at least one was changed, replaced or reordered", size)})
		}
		c.lost = true
	default:
		c.root, c.checkpoint, c.verified = stored, e.Checkpoint, size
	}
	if c.lost && sound {
		c.tree, c.lost = frontier, false
	}
	c.start, c.named = size, false
}

// committed returns the root that the checkpoint of an entry signs.
func (c *checker) committed(e Entry) ([32]byte, error) {
	cp, err := c.key.checkpoint(e.Checkpoint)
	if err != nil {
		return [32]byte{}, err
	}
	if e.Index == math.MaxUint64 || cp.Size != e.Index+1 {
		return [32]byte{}, fmt.Errorf("the checkpoint is of size %d, not %d", cp.Size, e.Index+1)
	}
	return [32]byte(cp.Hash), nil
}

// end reports what follows the last checkpoint.
func (c *checker) end() {
	if c.start < c.next {
		c.report(Fault{From: c.start, To: c.next, Code: FaultUncovered, Detail: "no checkpoint covers them: the log was cut, or they were added"})
	}
}
