package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// A bundle is a run of entries as JSON Lines: a header, the entries, and a
// footer with the last checkpoint. It can be verified by itself. Each line has
// one spelling (docs/formats.md), so that no byte can change unseen.

const (
	bundleFormat = "bailiwick/bundle/v1"
	// maxLine bounds the memory that a line takes: a record of the largest size
	// in which every byte is escaped.
	maxLine = 6*maxRecord + 1<<20
)

type bundleHeader struct {
	Format string `json:"format"`
	Origin string `json:"origin"`
	Key    string `json:"key"`
	// First is the index of the first entry. If it is not 0, Frontier and
	// Checkpoint are those of the tree before it.
	First      uint64 `json:"first"`
	Frontier   []byte `json:"frontier,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"`

	key Key
}

type bundleEntry struct {
	Index      *uint64         `json:"index"`
	Hash       []byte          `json:"hash"`
	Leaf       json.RawMessage `json:"leaf"`
	Open       bundleOpenings  `json:"open"`
	Frontier   []byte          `json:"frontier,omitempty"`
	Checkpoint string          `json:"checkpoint,omitempty"`
}

type bundleOpenings struct {
	Input   *bundleOpening `json:"input,omitempty"`
	Outcome *bundleOpening `json:"outcome,omitempty"`
	System  *bundleOpening `json:"system,omitempty"`
	What    *bundleOpening `json:"what,omitempty"`
	Who     *bundleOpening `json:"who,omitempty"`
	Why     *bundleOpening `json:"why,omitempty"`
}

func (b *bundleOpenings) of(g group) **bundleOpening {
	return [groupCount]**bundleOpening{
		groupWho: &b.Who, groupWhat: &b.What, groupWhy: &b.Why,
		groupInput: &b.Input, groupOutcome: &b.Outcome, groupSystem: &b.System,
	}[g]
}

type bundleOpening struct {
	Nonce []byte `json:"nonce"`
	Text  string `json:"text"`
}

type bundleFooter struct {
	Size       uint64 `json:"size"`
	Checkpoint string `json:"checkpoint"`
}

// A bundleLine is an entry or the footer.
type bundleLine struct {
	entry  *Entry
	footer *bundleFooter
}

// encodeLine returns the one spelling of a line, with its newline.
func encodeLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// decodeLine reads a line that encodeLine could have written, and no other.
func decodeLine(line []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	again, err := encodeLine(into)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, line) {
		return errors.New("not in canonical form")
	}
	return nil
}

// An Exported says what a bundle holds.
type Exported struct {
	Origin string `json:"origin"`
	First  uint64 `json:"first"`
	Size   uint64 `json:"size"`
}

// Export writes the entries of [from, to) as a bundle; a to of 0 means all.
// The range is widened to whole commits, because only those are signed.
func Export(ctx context.Context, r Reader, key Key, from, to uint64, w io.Writer) (Exported, error) {
	x, err := export(ctx, r, key, from, to, w)
	if err != nil {
		return Exported{}, fmt.Errorf("export: %w", err)
	}
	return x, nil
}

func export(ctx context.Context, r Reader, key Key, from, to uint64, w io.Writer) (Exported, error) {
	last, err := commitAt(ctx, r, to)
	if err != nil {
		return Exported{}, err
	}
	h := bundleHeader{Format: bundleFormat, Origin: key.Origin(), Key: key.String()}
	before, err := r.LastCommit(ctx, from)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return Exported{}, err
	default:
		h.First, h.Frontier, h.Checkpoint = before.Index+1, before.Frontier, string(before.Checkpoint)
	}
	size := last.Index + 1
	if h.First >= size {
		return Exported{}, fmt.Errorf("entry %d: %w: the log has %d entries", from, ErrNotFound, size)
	}
	out := bufio.NewWriter(w)
	put := func(v any) error {
		line, err := encodeLine(v)
		if err == nil {
			_, err = out.Write(line)
		}
		return err
	}
	if err := put(h); err != nil {
		return Exported{}, err
	}
	err = r.Entries(ctx, h.First, size, func(e Entry) error {
		b, err := toBundle(e)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		return put(b)
	})
	if err == nil {
		err = put(bundleFooter{Size: size, Checkpoint: string(last.Checkpoint)})
	}
	return Exported{Origin: key.Origin(), First: h.First, Size: size}, errors.Join(err, out.Flush())
}

// commitAt returns the last entry of the commit that holds entry to-1, or of
// the newest commit when to is 0 or beyond the end.
func commitAt(ctx context.Context, r Reader, to uint64) (Entry, error) {
	if to > 0 {
		var found *Entry
		err := r.Entries(ctx, to-1, math.MaxUint64, func(e Entry) error {
			if len(e.Checkpoint) == 0 {
				return nil
			}
			found = &e
			return errStop
		})
		if found != nil {
			return *found, nil
		}
		if err != nil {
			return Entry{}, err
		}
	}
	return r.LastCommit(ctx, math.MaxUint64)
}

func toBundle(e Entry) (bundleEntry, error) {
	os, err := parsePayload(e.Payload)
	if err != nil {
		return bundleEntry{}, err
	}
	if !json.Valid(e.Leaf) {
		return bundleEntry{}, errors.New("the leaf is not JSON")
	}
	b := bundleEntry{Index: &e.Index, Hash: e.Hash[:], Leaf: e.Leaf, Frontier: e.Frontier, Checkpoint: string(e.Checkpoint)}
	for g := range groupCount {
		if o := &os[g]; o.has {
			*b.Open.of(g) = &bundleOpening{Nonce: o.nonce[:], Text: string(o.text)}
		}
	}
	return b, nil
}

func (b *bundleEntry) entry() (Entry, error) {
	if b.Index == nil || len(b.Hash) != 32 {
		return Entry{}, errors.New("no index or no hash")
	}
	e := Entry{Index: *b.Index, Hash: [32]byte(b.Hash), Leaf: b.Leaf, Frontier: b.Frontier, Checkpoint: []byte(b.Checkpoint)}
	var os openings
	for g := range groupCount {
		o := *b.Open.of(g)
		if o == nil {
			continue
		}
		if len(o.Nonce) != nonceSize {
			return Entry{}, fmt.Errorf("the nonce of %q is not of %d bytes", g, nonceSize)
		}
		os[g] = opening{has: true, nonce: [nonceSize]byte(o.Nonce), text: []byte(o.Text)}
	}
	e.Payload = os.encode()
	return e, nil
}

// A readError is a failure of the disk, not of what is on it.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

type bundleReader struct {
	in   *bufio.Reader
	line int
	last uint64
}

func newBundleReader(in io.Reader) *bundleReader { return &bundleReader{in: bufio.NewReader(in)} }

func (b *bundleReader) read() ([]byte, error) {
	b.line++
	var line []byte
	for {
		part, err := b.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("line %d: it does not end: the bundle was cut", b.line)
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, readError{fmt.Errorf("line %d: %w", b.line, err)}
		case len(line) > maxLine:
			return nil, readError{fmt.Errorf("line %d: longer than %d bytes", b.line, maxLine)}
		}
	}
}

// header reads the first line. The tree is the one before the first entry.
func (b *bundleReader) header() (bundleHeader, tree, error) {
	line, err := b.read()
	if errors.Is(err, io.EOF) {
		return bundleHeader{}, tree{}, errors.New("the bundle is empty")
	}
	if err != nil {
		return bundleHeader{}, tree{}, err
	}
	var h bundleHeader
	if err := decodeLine(line, &h); err != nil {
		return bundleHeader{}, tree{}, fmt.Errorf("line 1: not the header of a bundle: %w", err)
	}
	if h.Format != bundleFormat {
		return bundleHeader{}, tree{}, fmt.Errorf("line 1: the format is %q, and this program knows %q", h.Format, bundleFormat)
	}
	if h.key, err = ParseKey([]byte(h.Key)); err != nil {
		return bundleHeader{}, tree{}, fmt.Errorf("line 1: %w", err)
	}
	if h.key.Origin() != h.Origin {
		return bundleHeader{}, tree{}, fmt.Errorf("line 1: the key is of the log %q, not %q", h.key.Origin(), h.Origin)
	}
	start, err := treeAt(h.First, h.Frontier)
	if err != nil {
		return bundleHeader{}, tree{}, fmt.Errorf("line 1: %w", err)
	}
	b.last = h.First
	return h, start, nil
}

// checkStart checks that the tree before the first entry was signed.
func (h *bundleHeader) checkStart(key Key, start tree) error {
	if h.First == 0 {
		if h.Checkpoint != "" {
			return errors.New("line 1: a checkpoint of no entries")
		}
		return nil
	}
	cp, err := key.checkpoint([]byte(h.Checkpoint))
	if err != nil {
		return fmt.Errorf("line 1: %w", err)
	}
	if root := start.root(); cp.Size != h.First || !bytes.Equal(cp.Hash, root[:]) {
		return fmt.Errorf("line 1: the checkpoint is not of the %d entries before the bundle", h.First)
	}
	return nil
}

// next reads the next line. It returns io.EOF at the end of the file.
func (b *bundleReader) next() (bundleLine, error) {
	line, err := b.read()
	if err != nil {
		return bundleLine{}, err
	}
	if bytes.HasPrefix(line, []byte(`{"size":`)) {
		var f bundleFooter
		if err := decodeLine(line, &f); err != nil {
			return bundleLine{}, fmt.Errorf("line %d: %w", b.line, err)
		}
		return bundleLine{footer: &f}, nil
	}
	var be bundleEntry
	err = decodeLine(line, &be)
	var e Entry
	if err == nil {
		e, err = be.entry()
	}
	if err != nil {
		return bundleLine{}, fmt.Errorf("line %d, after entry %d: %w", b.line, int64(b.last)-1, err)
	}
	b.last = e.Index + 1
	return bundleLine{entry: &e}, nil
}
