package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/bailiwick-dev/bailiwick/authz"
)

const (
	// startWindow is how many of the newest entries are checked against their
	// checkpoints, and searched for released decisions without an outcome, when
	// a log is opened. It takes about 10 µs for each. Verify checks all.
	startWindow = 1 << 16
	// recoverWindow is how many are checked after a failure in mid-life, when
	// all that is older was checked already. At a start, the payloads of so many
	// are checked, too.
	recoverWindow = 1 << 12
	// defaultReserve is the free space below which nothing is released.
	defaultReserve = 256 << 20
)

// start does what Open does once the directory is taken.
func (l *Log) start(ctx context.Context) error {
	j, err := l.c.Journal(ctx)
	if err != nil {
		return err
	}
	l.journal = j
	_, err = j.LastCommit(ctx, math.MaxUint64)
	fresh := errors.Is(err, ErrNotFound)
	if err != nil && !fresh {
		return fmt.Errorf("read the newest checkpoint: %w", err)
	}
	if l.signer, err = loadSigner(l.c.Dir, l.c.Origin, fresh); err != nil {
		return err
	}
	end, err := l.readEnd(ctx, startWindow)
	if err != nil {
		return err
	}
	l.tree = end.tree
	mark, err := l.openMark(ctx)
	if err != nil {
		return err
	}
	l.checkDisk()
	if err := l.settle(end, mark); err != nil {
		return err
	}
	// The journal's files must be found again after a loss of power.
	return syncDir(l.c.Dir)
}

// settle commits the record "started" and the outcome "ambiguous" for each
// released decision that has none.
func (l *Log) settle(end logEnd, mark string) error {
	open := end.ledger.pending()
	details := struct {
		Entries    uint64 `json:"entries"`
		Previous   string `json:"previous"`
		Checkpoint string `json:"checkpoint_file"`
		Ambiguous  int    `json:"ambiguous"`
	}{end.tree.size(), end.previous(), mark, len(open)}
	batch := []*item{l.system("started", details)}
	for _, decision := range open {
		batch = append(batch, l.outcome(decision, authz.OutcomeAmbiguous, "the process ended before an outcome was recorded"))
	}
	for part := range slices.Chunk(batch, maxBatch) {
		if err := l.commit(part); err != nil {
			return err
		}
	}
	return nil
}

// A logEnd is what the newest entries of a log say.
type logEnd struct {
	tree   tree
	ledger ledger
	last   leaf
}

// previous says how the process before this one ended.
func (e *logEnd) previous() string {
	switch {
	case e.tree.size() == 0:
		return "none"
	case e.last.kind == KindSystem && e.last.effect == "stopped":
		return "stopped"
	default:
		return "killed"
	}
}

// readEnd checks the newest entries, at least window of them if there are so
// many, against the signed checkpoints. A fault is returned as ErrDamaged.
func (l *Log) readEnd(ctx context.Context, window uint64) (logEnd, error) {
	end := logEnd{tree: newTree()}
	last, err := l.journal.LastCommit(ctx, math.MaxUint64)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return logEnd{}, fmt.Errorf("read the newest checkpoint: %w", err)
	case last.Index >= window:
		if end.tree, err = l.treeBefore(ctx, last.Index+1-window); err != nil {
			return logEnd{}, err
		}
	}
	var first *Fault
	c := newChecker(l.signer.key, end.tree, func(f Fault) {
		if first == nil {
			first = &f
		}
	})
	c.visit = func(lf *leaf) {
		end.ledger.add(lf)
		end.last = *lf
	}
	err = l.journal.Entries(ctx, end.tree.size(), math.MaxUint64, func(e Entry) error {
		c.payloads = e.Index+recoverWindow > last.Index
		c.entry(e)
		if first != nil {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return logEnd{}, fmt.Errorf("check the newest entries: %w", err)
	}
	c.end()
	if first != nil {
		return logEnd{}, fmt.Errorf("%w: %s. Nothing is released from a log that cannot be trusted: keep a copy of %s, run 'bailiwick audit verify', and restore a backup or move the directory away to begin a new log", ErrDamaged, first, l.c.Dir)
	}
	end.tree = c.tree
	return end, nil
}

var errStop = errors.New("stop")

// treeBefore is the tree of the newest commit that ends at or before size.
func (l *Log) treeBefore(ctx context.Context, size uint64) (tree, error) {
	e, err := l.journal.LastCommit(ctx, size)
	if errors.Is(err, ErrNotFound) {
		return newTree(), nil
	}
	if err != nil {
		return tree{}, fmt.Errorf("read the checkpoint before entry %d: %w", size, err)
	}
	return signedTree(l.signer.key, e)
}

// signedTree is the tree that ends with an entry, as its checkpoint signs it.
func signedTree(k Key, e Entry) (tree, error) {
	cp, err := k.checkpoint(e.Checkpoint)
	if err != nil {
		return tree{}, fmt.Errorf("%w: entry %d: %w", ErrDamaged, e.Index, err)
	}
	t, err := treeAt(e.Index+1, e.Frontier)
	if err != nil {
		return tree{}, fmt.Errorf("%w: entry %d: %w", ErrDamaged, e.Index, err)
	}
	if root := t.root(); cp.Size != t.size() || !bytes.Equal(cp.Hash, root[:]) {
		return tree{}, fmt.Errorf("%w: entry %d: its frontier is not the tree that its checkpoint signs", ErrDamaged, e.Index)
	}
	return t, nil
}

// openMark compares the checkpoint file with the journal. The file is written
// after each commit and not synced, so it is never ahead of what was durable:
// if it knows more entries than the journal has, the journal has lost some.
// It returns what state the file was in.
func (l *Log) openMark(ctx context.Context) (string, error) {
	file := filepath.Join(l.c.Dir, CheckpointFile)
	text, err := os.ReadFile(file)
	state := "present"
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(text) == 0:
		state = "absent"
	case err != nil:
		return "", fmt.Errorf("read the checkpoint file: %w", err)
	default:
		cp, err := l.signer.key.checkpoint(text)
		if err != nil {
			// A loss of power may tear it; a liar would rather delete it.
			state = "damaged"
			break
		}
		if err := l.holds(ctx, cp.Size, text); err != nil {
			return "", err
		}
	}
	l.mark, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("open the checkpoint file: %w", err)
	}
	if state == "damaged" {
		if err := l.mark.Truncate(0); err != nil {
			return "", fmt.Errorf("clear the damaged checkpoint file: %w", err)
		}
	}
	return state, nil
}

// holds checks that the journal holds the commit that a checkpoint ended.
func (l *Log) holds(ctx context.Context, size uint64, signed []byte) error {
	if have := l.tree.size(); size > have {
		return fmt.Errorf("%w: the journal has %d entries and the checkpoint file was signed for %d: the last %d are lost. Restore the journal; or, to go on without them, move %s away, which the log will record",
			ErrDamaged, have, size, size-have, filepath.Join(l.c.Dir, CheckpointFile))
	}
	e, err := l.journal.LastCommit(ctx, size)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("read the checkpoint of size %d: %w", size, err)
	}
	if !bytes.Equal(e.Checkpoint, signed) {
		return fmt.Errorf("%w: the journal does not hold the commit of size %d that the checkpoint file names: it is another log's, or was rewritten", ErrDamaged, size)
	}
	return nil
}

// setMark writes the checkpoint file. It is an aid for finding loss, so
// failing to write it does not fail the commit, which is durable.
func (l *Log) setMark(signed []byte) {
	// A checkpoint never gets shorter, so none of the old one is left over.
	if _, err := l.mark.WriteAt(signed, 0); err != nil {
		l.c.Logger.Warn("checkpoint file not written", "error", err)
	}
}

// checkDisk compares the free space with the reserve.
func (l *Log) checkDisk() {
	if l.c.Reserve < 0 {
		return
	}
	free, total, err := diskSpace(l.c.Dir)
	if err != nil {
		// A disk that cannot be asked may still be written; a commit will tell.
		l.c.Logger.Warn("free space unknown", "error", err)
		return
	}
	reserve := l.c.Reserve
	if reserve == 0 {
		reserve = min(defaultReserve, total/20)
	}
	low := free < reserve
	if l.low.Swap(low) != low {
		l.c.Logger.Warn("disk reserve", "low", low, "free", free, "reserve", reserve)
	}
}

// A ledger pairs released decisions with their outcomes.
type ledger struct {
	open     map[string]uint64
	Released uint64 // released decisions
	Outcomes uint64 // outcomes of those
	Stray    uint64 // outcomes without a released decision before them
}

// maxOpen bounds the memory of a ledger. Decisions beyond it are counted and
// not paired.
const maxOpen = 1 << 20

func (g *ledger) add(l *leaf) {
	switch {
	case l.kind == KindDecision && l.released:
		g.Released++
		if g.open == nil {
			g.open = map[string]uint64{}
		}
		if len(g.open) < maxOpen {
			g.open[l.decision] = l.index
		}
	case l.kind == KindOutcome:
		if _, ok := g.open[l.decision]; ok {
			delete(g.open, l.decision)
			g.Outcomes++
		} else {
			g.Stray++
		}
	}
}

// pending lists the decisions without an outcome, the oldest first.
func (g *ledger) pending() []string {
	ids := make([]string, 0, len(g.open))
	for id := range g.open {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return int(int64(g.open[a]) - int64(g.open[b]))
	})
	return ids
}
