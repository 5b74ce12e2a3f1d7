package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

const journalName = "journal.db"

// evidenceDir is the directory of the evidence.
func evidenceDir(c *Config) string { return filepath.Join(c.Data, "evidence") }

// journalFile is the file of the journal.
func journalFile(c *Config) string { return filepath.Join(evidenceDir(c), journalName) }

// Evidence is a log opened for reading, while a server may write to it.
type Evidence struct {
	Dir string
	Key audit.Key

	journal *store.Journal
}

// OpenEvidence opens the evidence of the configuration for reading.
func OpenEvidence(ctx context.Context, c *Config) (*Evidence, error) {
	return OpenEvidenceDir(ctx, evidenceDir(c))
}

// OpenEvidenceDir opens an evidence directory, or the data directory that holds
// one, for reading.
func OpenEvidenceDir(ctx context.Context, dir string) (*Evidence, error) {
	dir, err := findEvidence(dir)
	if err != nil {
		return nil, err
	}
	key, err := audit.ReadKey(filepath.Join(dir, audit.PublicKeyFile))
	if err != nil {
		return nil, err
	}
	j, err := store.ReadJournal(ctx, filepath.Join(dir, journalName))
	if err != nil {
		return nil, err
	}
	return &Evidence{Dir: dir, Key: key, journal: j}, nil
}

func findEvidence(dir string) (string, error) {
	for _, d := range []string{dir, filepath.Join(dir, "evidence")} {
		_, err := os.Stat(filepath.Join(d, journalName))
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("open evidence: %w", err)
		}
	}
	if runs := runEvidence(dir); len(runs) > 0 {
		return "", fmt.Errorf("'bailiwick serve' has left no evidence in %s, but 'bailiwick run' has: add --dir %s", dir, strings.Join(runs, " or --dir "))
	}
	return "", fmt.Errorf("no evidence in %s: it begins when 'bailiwick serve' or 'bailiwick run' starts; to read another directory use --dir", dir)
}

// runEvidence are the data directories of bailiwick run beside a directory
// without evidence.
func runEvidence(dir string) []string {
	found, err := filepath.Glob(filepath.Join(filepath.Dir(dir), runDir, "*", "evidence", journalName))
	if err != nil {
		return nil // only a malformed pattern is an error
	}
	for i, f := range found {
		found[i] = filepath.Dir(filepath.Dir(f))
	}
	return found
}

// Close lets go of the evidence.
func (e *Evidence) Close() error { return e.journal.Close() }

// Tail returns the last n records, the oldest first.
func (e *Evidence) Tail(ctx context.Context, n int) ([]audit.Hit, error) {
	return audit.Tail(ctx, e.journal, n)
}

// Follow calls f with each record from an index on, and each new one.
func (e *Evidence) Follow(ctx context.Context, from uint64, f func(audit.Recorded) error) error {
	return audit.Follow(ctx, e.journal, from, f)
}

// Search returns the newest records that a query selects, the newest first.
func (e *Evidence) Search(ctx context.Context, q audit.Query) ([]audit.Hit, error) {
	return audit.Search(ctx, e.journal, q)
}

// Size is the number of entries.
func (e *Evidence) Size(ctx context.Context) (uint64, error) { return audit.Size(ctx, e.journal) }

// Show returns the entry with an index, proven.
func (e *Evidence) Show(ctx context.Context, index uint64) (audit.Shown, error) {
	return audit.Show(ctx, e.journal, e.Key, index)
}

// ShowDecision returns the decision with an id, proven.
func (e *Evidence) ShowDecision(ctx context.Context, id string) (audit.Shown, error) {
	return audit.ShowDecision(ctx, e.journal, e.Key, id)
}

// Export writes the entries of [from, to) as a bundle; a to of 0 means all.
func (e *Evidence) Export(ctx context.Context, from, to uint64, w io.Writer) (audit.Exported, error) {
	return audit.Export(ctx, e.journal, e.Key, from, to, w)
}

// A Verification says what to verify, and against what.
type Verification struct {
	// Path is an evidence directory, a data directory, or a bundle.
	Path string
	// KeyFile is the public key, if it did not come with the evidence.
	KeyFile string
	// CheckpointFiles are checkpoints or proofs kept elsewhere.
	CheckpointFiles []string
}

// Verify verifies a directory or a bundle.
func (v Verification) Verify(ctx context.Context) (audit.Report, error) {
	var check audit.Check
	if v.KeyFile != "" {
		key, err := audit.ReadKey(v.KeyFile)
		if err != nil {
			return audit.Report{}, err
		}
		check.Key, check.Trusted = key, true
	}
	for _, file := range v.CheckpointFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			return audit.Report{}, fmt.Errorf("read checkpoint: %w", err)
		}
		check.Known = append(check.Known, text)
	}
	info, err := os.Stat(v.Path)
	switch {
	case err != nil:
		return audit.Report{}, fmt.Errorf("verify: %w", err)
	case info.IsDir():
		return verifyDir(ctx, v.Path, check)
	default:
		return verifyBundle(ctx, v.Path, check)
	}
}

func verifyBundle(ctx context.Context, file string, check audit.Check) (audit.Report, error) {
	f, err := os.Open(file)
	if err != nil {
		return audit.Report{}, fmt.Errorf("verify: %w", err)
	}
	defer f.Close() // only read
	return audit.VerifyBundle(ctx, f, check)
}

// verifyDir verifies a directory against its own checkpoint file, too: it
// shows when the journal has lost its end.
func verifyDir(ctx context.Context, dir string, check audit.Check) (_ audit.Report, err error) {
	dir, err = findEvidence(dir)
	if err != nil {
		return audit.Report{}, err
	}
	if !check.Trusted {
		if check.Key, err = audit.ReadKey(filepath.Join(dir, audit.PublicKeyFile)); err != nil {
			return audit.Report{}, err
		}
	}
	// Before the journal is opened: a server that is running moves both on.
	if check.Mark, err = readMark(filepath.Join(dir, audit.CheckpointFile)); err != nil {
		return audit.Report{}, err
	}
	j, err := store.ReadJournal(ctx, filepath.Join(dir, journalName))
	if err != nil {
		return audit.Report{}, err
	}
	defer j.Close() // only read
	return audit.Verify(ctx, j, check)
}

// readMark reads the checkpoint file, which a server may be overwriting: two
// reads that agree have not met a write halfway.
func readMark(file string) ([]byte, error) {
	var last []byte
	for range 10 {
		mark, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read checkpoint file: %w", err)
		}
		if last != nil && bytes.Equal(mark, last) {
			return mark, nil
		}
		last = mark
	}
	return last, nil
}

// VerifyEvidence verifies the evidence of the configuration.
func VerifyEvidence(ctx context.Context, c *Config) (audit.Report, error) {
	return Verification{Path: evidenceDir(c)}.Verify(ctx)
}

// eachRecord calls f with each record of the configuration's evidence, from an
// index on.
func eachRecord(ctx context.Context, c *Config, from uint64, f func(audit.Recorded) error) error {
	e, err := OpenEvidence(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(audit.Records(ctx, e.journal, from, math.MaxUint64, f), e.Close())
}

// evidenceSize is the number of entries in the configuration's evidence, 0 when
// there is none.
func evidenceSize(ctx context.Context, c *Config) (uint64, error) {
	if _, err := os.Stat(journalFile(c)); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	e, err := OpenEvidence(ctx, c)
	if err != nil {
		return 0, err
	}
	size, err := e.Size(ctx)
	return size, errors.Join(err, e.Close())
}
