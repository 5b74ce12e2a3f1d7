package audit

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/compact"
	merkle "github.com/transparency-dev/merkle/proof"
)

// hashLeaf and hashChildren are those of RFC 6962 §2.1.
func hashLeaf(leaf []byte) [sha256.Size]byte {
	b := make([]byte, 0, 1024)
	return sha256.Sum256(append(append(b, 0), leaf...))
}

func hashChildren(left, right []byte) []byte {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left)
	copy(b[1+sha256.Size:], right)
	sum := sha256.Sum256(b[:])
	return sum[:]
}

// A tree is the right edge of the Merkle tree: enough to grow it and to know
// its root, a few hundred bytes whatever its size.
type tree struct{ edge *compact.Range }

func newTree() tree {
	f := &compact.RangeFactory{Hash: hashChildren}
	return tree{f.NewEmptyRange(0)}
}

// treeAt is the tree of a given size with a given frontier.
func treeAt(size uint64, frontier []byte) (tree, error) {
	if len(frontier)%sha256.Size != 0 {
		return tree{}, fmt.Errorf("a frontier of %d bytes is not made of hashes", len(frontier))
	}
	var hashes [][]byte
	for h := range slices.Chunk(frontier, sha256.Size) {
		hashes = append(hashes, h)
	}
	f := &compact.RangeFactory{Hash: hashChildren}
	r, err := f.NewRange(0, size, hashes)
	if err != nil {
		return tree{}, fmt.Errorf("frontier of size %d: %w", size, err)
	}
	return tree{r}, nil
}

func (t tree) size() uint64 { return t.edge.End() }

// frontier is the concatenation of the hashes of the largest perfect subtrees,
// from left to right.
func (t tree) frontier() []byte { return slices.Concat(t.edge.Hashes()...) }

// clone returns a tree that can grow by itself.
func (t tree) clone() tree {
	// The size and the number of hashes of an existing range always agree.
	c, err := treeAt(t.size(), t.frontier())
	if err != nil {
		panic(err)
	}
	return c
}

func (t tree) append(hash [sha256.Size]byte) {
	t.visit(hash, nil)
}

func (t tree) visit(hash [sha256.Size]byte, f compact.VisitFn) {
	// Append fails only on a range whose hashes do not fit its size.
	if err := t.edge.Append(hash[:], f); err != nil {
		panic(err)
	}
}

func (t tree) root() [sha256.Size]byte {
	h, err := t.edge.GetRootHash(nil)
	if err != nil {
		panic(err) // only for ranges that do not begin at 0
	}
	if h == nil {
		return sha256.Sum256(nil) // RFC 6962 §2.1: the hash of an empty list
	}
	return [sha256.Size]byte(h)
}

// A commit is what one commit added to the tree: enough to prove each of its
// entries without reading the disk. Every sibling on the path of a new leaf is
// either inside the commit or on the frontier of the tree before it.
type commit struct {
	before     tree // never grown
	hashes     [][sha256.Size]byte
	checkpoint []byte

	once  sync.Once
	nodes map[compact.NodeID][]byte
}

func (c *commit) size() uint64 { return c.before.size() + uint64(len(c.hashes)) }

// prove returns the inclusion proof of one of the commit's entries. The first
// call does work for all of them.
func (c *commit) prove(index uint64) ([]byte, error) {
	c.once.Do(c.fillNodes)
	want, err := merkle.Inclusion(index, c.size())
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	hashes := make([][]byte, len(want.IDs))
	for i, id := range want.IDs {
		h, ok := c.nodes[id]
		if !ok {
			return nil, fmt.Errorf("prove entry %d: it is not of this commit", index)
		}
		hashes[i] = h
	}
	hashes, err = want.Rehash(hashes, hashChildren)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	p := proof.TLogProof{Index: index, Checkpoint: c.checkpoint}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, [sha256.Size]byte(h))
	}
	return p.Marshal(), nil
}

func (c *commit) fillNodes() {
	c.nodes = make(map[compact.NodeID][]byte, 2*len(c.hashes)+64)
	keep := func(id compact.NodeID, hash []byte) { c.nodes[id] = hash }
	ids := compact.RangeNodes(0, c.before.size(), nil)
	for i, h := range c.before.edge.Hashes() {
		keep(ids[i], h)
	}
	t := c.before.clone()
	for i := range c.hashes {
		t.visit(c.hashes[i], keep)
	}
}

// A Receipt says where in the log a record is.
type Receipt struct {
	// Index is the entry's index, counted from 0.
	Index uint64

	commit *commit
}

// Size is the size of the tree whose checkpoint was signed with the entry.
func (r Receipt) Size() uint64 {
	if r.commit == nil {
		return 0
	}
	return r.commit.size()
}

// Checkpoint is the signed checkpoint of the tree of that size.
func (r Receipt) Checkpoint() []byte {
	if r.commit == nil {
		return nil
	}
	return slices.Clone(r.commit.checkpoint)
}

// Proof returns the inclusion proof of the entry in the text form of
// c2sp.org/tlog-proof, with the checkpoint. It is computed when it is asked
// for, and holds for the leaf, which it does not contain.
func (r Receipt) Proof() ([]byte, error) {
	if r.commit == nil {
		return nil, fmt.Errorf("prove entry: the receipt is empty: %w", ErrNotFound)
	}
	return r.commit.prove(r.Index)
}
