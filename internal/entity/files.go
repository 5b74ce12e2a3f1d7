package entity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// settle is how long a file that has changed must stay as it is before it is
// believed. Half of a file can be a whole list that lacks entities.
const settle = 50 * time.Millisecond

// files is a file of entities, or a directory of such.
type files struct{ path string }

// A text is a file's name and content.
type text struct {
	file string
	text []byte
}

func (f *files) name() string { return f.path }
func (f *files) kind() string { return "files" }
func (f *files) close() error { return nil }

func (f *files) read(ctx context.Context, seen string) ([]row, string, error) {
	texts, digest, err := f.texts()
	if err != nil || digest == seen {
		return nil, digest, err
	}
	if seen != "" {
		if digest, err = f.settled(ctx, digest); err != nil {
			return nil, "", err
		}
	}
	var rows []row
	for _, t := range texts {
		more, err := parse(filepath.Base(t.file), t.text)
		if err != nil {
			return nil, digest, err
		}
		rows = append(rows, more...)
	}
	return rows, digest, nil
}

// settled looks again after a moment and wants to see the same.
func (f *files) settled(ctx context.Context, digest string) (string, error) {
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(settle):
	}
	_, again, err := f.texts()
	if err == nil && again != digest {
		err = errors.New("it is being written")
	}
	return digest, err
}

// texts reads the files, sorted by name, and a digest of all.
func (f *files) texts() ([]text, string, error) {
	var texts []text
	err := filepath.WalkDir(f.path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if hidden := strings.HasPrefix(d.Name(), "."); path != f.path && (hidden || d.IsDir() || !isEntities(path)) {
			if hidden && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		b, err := readBounded(path)
		texts = append(texts, text{path, b})
		return err
	})
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(texts, func(a, b text) int { return strings.Compare(a.file, b.file) })
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%q %d\n", t.file, len(t.text))
		_, _ = h.Write(t.text) // a hash.Hash never returns an error
	}
	return texts, hex.EncodeToString(h.Sum(nil)), nil
}

func isEntities(path string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path))
}

// readBounded reads a file that is not larger than a file of entities may be.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}
