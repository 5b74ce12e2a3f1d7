package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// maxFaults bounds how many faults a report lists; all are counted.
const maxFaults = 200

// A Report is what verification found. Its zero value has verified nothing.
type Report struct {
	// Origin and Key say whose log this is.
	Origin string `json:"origin"`
	Key    string `json:"key"`
	// First is the first entry looked at and Size the index past the last.
	First uint64 `json:"first"`
	Size  uint64 `json:"size"`
	// Verified says that every entry of [First, Size) is what was signed.
	Verified bool `json:"verified"`
	// Faults are what is wrong, FaultCount how many there are.
	Faults     []Fault `json:"faults,omitempty"`
	FaultCount int     `json:"fault_count"`
	// Root and Checkpoint are those of the newest commit that was in order.
	Root       string `json:"root,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"`
	// Checkpoints is how many signatures were checked.
	Checkpoints int `json:"checkpoints"`
	// KeyGiven says that the caller brought the key: with a key that came with
	// the evidence, verification shows only that the two fit.
	KeyGiven bool `json:"key_given"`
	// Known lists the sizes of checkpoints from elsewhere that were compared.
	// Without one nobody can tell from the evidence alone whether entries are
	// missing after its end.
	Known []uint64 `json:"known,omitempty"`

	// Released decisions, those of them with an outcome, those without (the
	// first few by id), and outcomes whose decision is not among the entries.
	Released    uint64   `json:"released"`
	Outcomes    uint64   `json:"outcomes"`
	Open        uint64   `json:"open"`
	OpenIDs     []string `json:"open_ids,omitempty"`
	Stray       uint64   `json:"stray_outcomes"`
	LastStopped bool     `json:"last_stopped"`
}

// A Check says what to verify against.
type Check struct {
	// Key is the public key; the zero Key is none.
	Key Key
	// Trusted says that Key did not come with the evidence.
	Trusted bool
	// Known are signed checkpoints, or proofs with one, from elsewhere.
	Known [][]byte
	// Mark is the checkpoint file of the directory, if it has one. It shows
	// that a journal lost its end by accident; who cuts the journal on purpose
	// deletes the file as well.
	Mark []byte
}

// Verify recomputes everything in a journal: each commitment, each leaf, the
// tree, and each checkpoint. It returns an error only when it could not look;
// what it found is in the report.
func Verify(ctx context.Context, r Reader, c Check) (Report, error) {
	v, err := newVerification(c.Key, newTree(), c)
	if err != nil {
		return Report{}, err
	}
	if err := r.Entries(ctx, 0, math.MaxUint64, v.entry); err != nil {
		if ctx.Err() != nil {
			return Report{}, fmt.Errorf("verify: %w", err)
		}
		// The file is too broken to be read: that is a finding, too.
		v.fault(Fault{From: v.checker.next, To: v.checker.next + 1, Code: FaultFormat, Detail: "cannot be read: " + err.Error()})
	}
	return v.finish(), nil
}

// A verification is one run over entries.
type verification struct {
	report  Report
	checker *checker
	ledger  ledger
	known   []knownTree
	last    leaf
}

func newVerification(key Key, start tree, c Check) (*verification, error) {
	v := &verification{}
	v.report = Report{Origin: key.Origin(), Key: key.String(), First: start.size(), KeyGiven: c.Trusted}
	v.checker = newChecker(key, start, v.fault)
	v.checker.visit = func(l *leaf) {
		v.ledger.add(l)
		v.last = *l
	}
	for _, text := range c.Known {
		cp, err := knownCheckpoint(key, text)
		if err != nil {
			return nil, err
		}
		v.known = append(v.known, knownTree{cp, true})
	}
	if len(c.Mark) > 0 {
		cp, err := key.checkpoint(c.Mark)
		if err != nil {
			v.fault(Fault{Code: FaultCheckpoint, Detail: "the checkpoint file: " + err.Error()})
		} else {
			v.known = append(v.known, knownTree{cp, false})
		}
	}
	v.compare()
	return v, nil
}

// A knownTree is a tree that was signed, as a checkpoint beside the entries
// says.
type knownTree struct {
	log.Checkpoint
	elsewhere bool
}

// knownCheckpoint reads a checkpoint, or that of a proof.
func knownCheckpoint(key Key, text []byte) (log.Checkpoint, error) {
	if bytes.HasPrefix(text, []byte("c2sp.org/tlog-proof@")) {
		var p proof.TLogProof
		if err := p.Unmarshal(text); err != nil {
			return log.Checkpoint{}, fmt.Errorf("the checkpoint to compare with: %w", err)
		}
		text = p.Checkpoint
	}
	cp, err := key.checkpoint(text)
	if err != nil {
		return log.Checkpoint{}, fmt.Errorf("the checkpoint to compare with is not of this log and key: %w", err)
	}
	return cp, nil
}

func (v *verification) fault(f Fault) {
	v.report.FaultCount++
	if len(v.report.Faults) < maxFaults {
		v.report.Faults = append(v.report.Faults, f)
	}
}

func (v *verification) entry(e Entry) error {
	if len(e.Checkpoint) > 0 {
		v.report.Checkpoints++
	}
	v.checker.entry(e)
	v.compare()
	return nil
}

// compare compares the tree as it is now with the known checkpoints of its
// size.
func (v *verification) compare() {
	if len(v.known) == 0 || v.checker.lost {
		return
	}
	size := v.checker.tree.size()
	for _, cp := range v.known {
		if cp.Size != size {
			continue
		}
		if cp.elsewhere {
			v.report.Known = append(v.report.Known, size)
		}
		if root := v.checker.tree.root(); !bytes.Equal(cp.Hash, root[:]) {
			v.fault(Fault{From: v.report.First, To: size, Code: FaultRoot, Detail: "not those of a checkpoint that the same key signed: the log was rewritten or forked"})
		}
	}
}

func (v *verification) finish() Report {
	c, r := v.checker, &v.report
	c.end()
	r.Size = c.next
	for _, cp := range v.known {
		if cp.Size > c.next {
			v.fault(Fault{From: c.next, To: cp.Size, Code: FaultTruncated, Detail: "missing at the end: a checkpoint that covers them was signed"})
		}
	}
	if r.Size == r.First {
		v.fault(Fault{Code: FaultTruncated, Detail: "there are no entries, and so nothing that was signed"})
	}
	r.Verified = r.FaultCount == 0
	if len(c.checkpoint) > 0 {
		r.Root = base64.StdEncoding.EncodeToString(c.root[:])
		r.Checkpoint = string(c.checkpoint)
	}
	g := &v.ledger
	r.Released, r.Outcomes, r.Stray, r.Open = g.Released, g.Outcomes, g.Stray, g.Released-g.Outcomes
	ids := g.pending()
	r.OpenIDs = ids[:min(len(ids), 20)]
	r.LastStopped = v.last.kind == KindSystem && v.last.effect == "stopped"
	return *r
}

// VerifyProof checks that leaf is in the log of key: that the inclusion proof,
// in the text form of c2sp.org/tlog-proof, leads to a checkpoint that the key
// signed.
func VerifyProof(key Key, text, leaf []byte) error {
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return fmt.Errorf("verify proof: %w", err)
	}
	if !bytes.Equal(p.Marshal(), text) {
		return errors.New("verify proof: not in canonical form")
	}
	cp, err := key.checkpoint(p.Checkpoint)
	if err != nil {
		return fmt.Errorf("verify proof: %w", err)
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	h := hashLeaf(leaf)
	if err := merkle.VerifyInclusion(rfc6962.DefaultHasher, p.Index, cp.Size, h[:], hashes, cp.Hash); err != nil {
		return fmt.Errorf("verify proof: %w", err)
	}
	return nil
}

// VerifyBundle verifies a bundle that Export wrote, like Verify. Without a key
// in the check it takes the one that the bundle names.
func VerifyBundle(ctx context.Context, in io.Reader, c Check) (Report, error) {
	b := newBundleReader(in)
	head, start, err := b.header()
	if err != nil {
		if errors.As(err, new(readError)) {
			return Report{}, fmt.Errorf("verify bundle: %w", err)
		}
		r := Report{KeyGiven: c.Trusted}
		r.Faults, r.FaultCount = []Fault{{Code: FaultFormat, Detail: err.Error()}}, 1
		return r, nil
	}
	key := head.key
	if c.Trusted {
		key = c.Key
	}
	v, err := newVerification(key, start, c)
	if err != nil {
		return Report{}, fmt.Errorf("verify bundle: %w", err)
	}
	if head.key.String() != key.String() {
		v.fault(Fault{Code: FaultKey, Detail: fmt.Sprintf("the bundle names the key %s, which is not the one given", head.key)})
	}
	if err := head.checkStart(key, start); err != nil {
		v.fault(Fault{Code: FaultCheckpoint, Detail: err.Error()})
	}
	if err := v.bundle(ctx, b); err != nil {
		return Report{}, fmt.Errorf("verify bundle: %w", err)
	}
	return v.finish(), nil
}

// bundle verifies the lines after the header.
func (v *verification) bundle(ctx context.Context, b *bundleReader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := b.next()
		switch {
		case errors.As(err, new(readError)):
			return err
		case errors.Is(err, io.EOF):
			v.fault(Fault{From: v.checker.next, To: 0, Code: FaultTruncated, Detail: fmt.Sprintf(
				"the bundle ends after entry %d without its last line: what is there is a prefix, and what followed cannot be told", int64(v.checker.next)-1)})
			return nil
		case err != nil:
			v.fault(Fault{Code: FaultFormat, Detail: err.Error()})
		case line.footer != nil:
			v.footer(*line.footer)
			if extra, err := b.next(); !errors.Is(err, io.EOF) || extra != (bundleLine{}) {
				v.fault(Fault{Code: FaultFormat, Detail: "there is more after the bundle's last line"})
			}
			return nil
		default:
			if err := v.entry(*line.entry); err != nil {
				return err
			}
		}
	}
}

// footer compares the bundle's last line with the entries before it.
func (v *verification) footer(f bundleFooter) {
	c := v.checker
	if f.Size > c.next {
		v.fault(Fault{From: c.next, To: f.Size, Code: FaultMissing, Detail: "missing before the bundle's last line"})
		return
	}
	if f.Size != c.next || f.Checkpoint != string(c.checkpoint) {
		v.fault(Fault{Code: FaultCheckpoint, Detail: "the bundle's last line is not the checkpoint of its last entry"})
	}
}
