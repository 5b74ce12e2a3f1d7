package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// sealed makes a small log of a few commits and returns its disk and key.
func sealed(t *testing.T) (*disk, audit.Key) {
	t.Helper()
	d, dir := &disk{}, t.TempDir()
	l := mustOpen(t, memoryConfig(dir, d))
	gate := make(chan struct{})
	d.set(func(d *disk) { d.gate = gate })
	if err := l.Post(decision("d-0", true)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := l.Append(context.WithoutCancel(t.Context()), outcome("d-0"))
		done <- err
	}()
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	return d, l.Key()
}

func bundleOf(t *testing.T, d *disk, key audit.Key, from, to uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := audit.Export(t.Context(), &memory{disk: d}, key, from, to, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func verifyBundle(t *testing.T, bundle []byte, c audit.Check) audit.Report {
	t.Helper()
	r, err := audit.VerifyBundle(t.Context(), bytes.NewReader(bundle), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// No byte of a bundle may change unseen, not even one that means nothing.
func TestEveryByteOfABundleMatters(t *testing.T) {
	t.Parallel()
	d, key := sealed(t)
	bundle := bundleOf(t, d, key, 0, 2)
	if r := verifyBundle(t, bundle, audit.Check{}); !r.Verified {
		t.Fatalf("the sound bundle does not verify: %v", r.Faults)
	}
	flips := []byte{0x01, 0x20}
	for _, flip := range flips {
		for i := range bundle {
			changed := bytes.Clone(bundle)
			changed[i] ^= flip
			if r := verifyBundle(t, changed, audit.Check{}); r.Verified {
				t.Errorf("byte %d changed from %q to %q and nobody noticed: …%s…", i, bundle[i], changed[i], bundle[max(0, i-30):min(len(bundle), i+30)])
			}
		}
	}
	for i := range bundle {
		if r := verifyBundle(t, bundle[:i], audit.Check{}); r.Verified {
			t.Errorf("cut after %d of %d bytes and nobody noticed", i, len(bundle))
		}
	}
	t.Logf("%d bytes, each changed in %d ways and cut off", len(bundle), len(flips))
}

func faults(r audit.Report) []string {
	var s []string
	for _, f := range r.Faults {
		s = append(s, fmt.Sprintf("%s %d-%d", f.Code, f.From, f.To))
	}
	return s
}

// commits makes a log whose commits are [0] [1] [2] [3 4 5] [6].
func commits(t *testing.T) (*disk, audit.Key) {
	t.Helper()
	d, dir := &disk{}, t.TempDir()
	l := mustOpen(t, memoryConfig(dir, d)) // 0
	for _, id := range []string{"d-1", "d-2"} {
		if _, err := l.Append(t.Context(), decision(id, true)); err != nil { // 1, 2
			t.Fatal(err)
		}
	}
	crashed := &disk{entries: d.stored()}
	mustClose(t, l)
	remove(t, dir, audit.CheckpointFile)
	l = mustOpen(t, memoryConfig(dir, crashed)) // 3 started, 4 and 5 ambiguous
	mustClose(t, l)                             // 6 stopped
	return crashed, l.Key()
}

// Each fault is named, with the entries concerned.
func TestFaultsAreNamed(t *testing.T) {
	rehash := func(e *audit.Entry) { e.Hash = sha256.Sum256(append([]byte{0}, e.Leaf...)) }
	type entries = []audit.Entry
	for _, tt := range []struct {
		name   string
		change func(entries) entries
		want   []string
	}{
		{"sound", func(e entries) entries { return e }, nil},
		{"leaf", func(e entries) entries { e[4].Leaf[20] ^= 1; return e }, []string{"leaf_changed 4-5"}},
		{"stored hash", func(e entries) entries { e[4].Hash[0] ^= 1; return e }, []string{"leaf_changed 4-5"}},
		{"payload", func(e entries) entries { e[4].Payload[60] ^= 1; return e }, []string{"payload_changed 4-5"}},
		{"nonce", func(e entries) entries { e[4].Payload[5] ^= 1; return e }, []string{"payload_changed 4-5"}},
		{"payload of another", func(e entries) entries { e[4].Payload = e[5].Payload; return e }, []string{"payload_changed 4-5"}},
		{"payload gone", func(e entries) entries { e[4].Payload = nil; return e }, []string{"payload_changed 4-5"}},
		{"leaf and its hash", func(e entries) entries {
			e[4].Leaf = bytes.Replace(e[4].Leaf, []byte(`"ambiguous"`), []byte(`"success"`), 1)
			rehash(&e[4])
			return e
		}, []string{"root_mismatch 3-6"}},
		{"leaf and its hash, and a payload", func(e entries) entries {
			e[4].Leaf = bytes.Replace(e[4].Leaf, []byte(`"ambiguous"`), []byte(`"success"`), 1)
			rehash(&e[4])
			e[5].Payload[60] ^= 1
			return e
		}, []string{"payload_changed 5-6", "root_mismatch 3-6"}},
		{"leaf not in the format", func(e entries) entries {
			e[4].Leaf = append(e[4].Leaf, ' ')
			rehash(&e[4])
			return e
		}, []string{"malformed 4-5"}},
		{"missing", func(e entries) entries { return slices.Delete(e, 4, 5) }, []string{"entries_missing 4-5"}},
		{"first missing", func(e entries) entries { return e[1:] }, []string{"entries_missing 0-1"}},
		{"whole commits missing", func(e entries) entries { return slices.Delete(e, 1, 6) }, []string{"entries_missing 1-6"}},
		{"twice", func(e entries) entries { return slices.Insert(e, 1, e[1]) }, []string{"entries_reordered 1-2"}},
		{"swapped", func(e entries) entries {
			e[4], e[5] = e[5], e[4]
			return e
		}, []string{"entries_missing 4-5", "entries_reordered 4-5"}},
		{"swapped and renumbered", func(e entries) entries {
			for _, p := range []struct{ a, b *[]byte }{{&e[3].Leaf, &e[4].Leaf}, {&e[3].Payload, &e[4].Payload}} {
				*p.a, *p.b = *p.b, *p.a
			}
			rehash(&e[3])
			rehash(&e[4])
			return e
		}, []string{"entries_reordered 3-4", "entries_reordered 4-5"}},
		{"end cut inside a commit", func(e entries) entries { return e[:4] }, []string{"not_covered 3-4"}},
		{"added after the end", func(e entries) entries {
			x := e[6]
			x.Index = 7
			x.Leaf = bytes.Replace(x.Leaf, []byte(`"index":6`), []byte(`"index":7`), 1)
			x.Checkpoint, x.Frontier = nil, nil
			rehash(&x)
			return append(e, x)
		}, []string{"not_covered 7-8"}},
		{"checkpoint", func(e entries) entries {
			e[1].Checkpoint = bytes.Replace(e[1].Checkpoint, []byte("\n2\n"), []byte("\n3\n"), 1)
			return e
		}, []string{"checkpoint_invalid 1-2"}},
		{"last checkpoint", func(e entries) entries { e[6].Checkpoint[3] ^= 1; return e }, []string{"checkpoint_invalid 6-7", "not_covered 6-7"}},
		{"checkpoint of another size", func(e entries) entries { e[1].Checkpoint = e[0].Checkpoint; return e }, []string{"checkpoint_invalid 1-2"}},
		{"frontier", func(e entries) entries { e[1].Frontier[3] ^= 1; return e }, []string{"frontier_changed 1-2"}},
		{"frontier gone", func(e entries) entries { e[1].Frontier = nil; return e }, []string{"frontier_changed 1-2"}},
		{"frontier without a checkpoint", func(e entries) entries { e[4].Frontier = make([]byte, 32); return e }, []string{"frontier_changed 4-5"}},
		{"two faults in two commits", func(e entries) entries {
			e[0].Leaf[20] ^= 1
			e[5].Payload[60] ^= 1
			return e
		}, []string{"leaf_changed 0-1", "payload_changed 5-6"}},
		{"empty", func(entries) entries { return nil }, []string{"truncated 0-0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, key := commits(t)
			r, err := audit.Verify(t.Context(), &verbatim{tt.change(d.stored())}, audit.Check{Key: key})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, faults(r)); diff != "" {
				t.Errorf("faults (-want +got):\n%s\n%v", diff, r.Faults)
			}
			if r.Verified != (tt.want == nil) {
				t.Errorf("verified %t", r.Verified)
			}
		})
	}
}

// A log that ends at a checkpoint is sound by itself. Only a checkpoint from
// elsewhere shows that it was longer, or another.
func TestKnownCheckpointsShowWhatIsCutOffOrRewritten(t *testing.T) {
	d, key := commits(t)
	entries := d.stored()
	check := func(n int, known ...[]byte) audit.Report {
		t.Helper()
		r, err := audit.Verify(t.Context(), &verbatim{entries[:n]}, audit.Check{Key: key, Known: known})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	last := entries[6].Checkpoint
	if r := check(3); !r.Verified || r.Size != 3 || r.Known != nil {
		t.Errorf("a prefix alone: verified %t of size %d, compared with %v", r.Verified, r.Size, r.Known)
	}
	if r := check(7, last, entries[1].Checkpoint); !r.Verified || !slices.Equal(r.Known, []uint64{2, 7}) {
		t.Errorf("with its own checkpoints: verified %t, compared with %v: %v", r.Verified, r.Known, r.Faults)
	}
	if diff := cmp.Diff([]string{"truncated 3-7"}, faults(check(3, last))); diff != "" {
		t.Errorf("cut off (-want +got):\n%s", diff)
	}

	r, err := audit.Verify(t.Context(), &verbatim{entries[:3]}, audit.Check{Key: key, Mark: last})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"truncated 3-7"}, faults(r)); diff != "" {
		t.Errorf("cut off, with the checkpoint file (-want +got):\n%s", diff)
	}

	// The same key signs two logs: a fork.
	dir := t.TempDir()
	fork := &disk{}
	l := mustOpen(t, memoryConfig(dir, fork))
	common := &disk{entries: fork.stored()}
	if _, err := l.Append(t.Context(), decision("one", true)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	remove(t, dir, audit.CheckpointFile)
	l = mustOpen(t, memoryConfig(dir, common))
	mustClose(t, l)
	r, err = audit.Verify(t.Context(), &memory{disk: common}, audit.Check{Key: l.Key(), Known: [][]byte{fork.stored()[1].Checkpoint}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"root_mismatch 0-2"}, faults(r)); diff != "" {
		t.Errorf("forked (-want +got):\n%s", diff)
	}
	write(t, dir, audit.CheckpointFile, string(fork.stored()[1].Checkpoint))
	if _, err := audit.Open(t.Context(), memoryConfig(dir, common)); !errors.Is(err, audit.ErrDamaged) {
		t.Errorf("Open beside the checkpoint of a fork: %v, want ErrDamaged", err)
	}
}

func TestPartsOfALogVerifyByThemselves(t *testing.T) {
	d, key := commits(t)
	for _, tt := range []struct{ from, to, first, size uint64 }{
		{0, 0, 0, 7}, {0, 1, 0, 1}, {2, 3, 2, 3}, {4, 5, 3, 6}, {5, 0, 3, 7}, {6, 99, 6, 7},
	} {
		r := verifyBundle(t, bundleOf(t, d, key, tt.from, tt.to), audit.Check{Key: key, Trusted: true})
		if !r.Verified || r.First != tt.first || r.Size != tt.size {
			t.Errorf("export of [%d, %d): verified %t of [%d, %d), want [%d, %d): %v", tt.from, tt.to, r.Verified, r.First, r.Size, tt.first, tt.size, r.Faults)
		}
	}
	if _, err := audit.Export(t.Context(), &memory{disk: d}, key, 7, 0, &bytes.Buffer{}); err == nil {
		t.Error("exported what is not there")
	}
}

func TestBundleFaultsAreNamed(t *testing.T) {
	d, key := commits(t)
	_, other := commits(t)
	lines := func(b []byte) [][]byte { return bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) }
	whole := lines(bundleOf(t, d, key, 0, 0))
	whole[len(whole)-1] = append(whole[len(whole)-1], '\n')
	for _, tt := range []struct {
		name   string
		bundle [][]byte
		check  audit.Check
		want   []string
	}{
		{"sound", whole, audit.Check{}, nil},
		{"another key", whole, audit.Check{Key: other, Trusted: true}, []string{"wrong_key 0-0", "checkpoint_invalid 0-1"}},
		{"no header", whole[1:], audit.Check{}, []string{"malformed 0-0"}},
		{"nothing", nil, audit.Check{}, []string{"malformed 0-0"}},
		{"no footer", whole[:len(whole)-1], audit.Check{}, []string{"truncated 7-0"}},
		{"cut at a commit", whole[:3], audit.Check{}, []string{"truncated 2-0"}},
		{"cut, with the footer", slices.Concat(whole[:3], whole[8:]), audit.Check{}, []string{"entries_missing 2-7"}},
		{"line missing", slices.Concat(whole[:5], whole[6:]), audit.Check{}, []string{"entries_missing 4-5"}},
		{"line garbled", slices.Concat(whole[:5], [][]byte{[]byte("{}\n")}, whole[6:]), audit.Check{}, []string{"malformed 0-0", "entries_missing 4-5"}},
		{"more after the end", slices.Concat(whole, whole[1:2]), audit.Check{}, []string{"malformed 0-0"}},
		{"footer of another", slices.Concat(whole[:8], lines(bundleOf(t, d, key, 0, 1))[2:], [][]byte{[]byte("\n")}), audit.Check{}, []string{"checkpoint_invalid 0-0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := verifyBundle(t, bytes.Join(tt.bundle, nil), tt.check)
			got := faults(r)
			if len(got) > 2 {
				got = got[:2] // under another key each checkpoint is a fault
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s\n%v", diff, r.Faults)
			}
		})
	}
}

// verbatim gives entries in the order in which they are, whatever they say.
type verbatim struct{ entries []audit.Entry }

func (v *verbatim) Entries(_ context.Context, _, _ uint64, f func(audit.Entry) error) error {
	for _, e := range v.entries {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (v *verbatim) LastCommit(context.Context, uint64) (audit.Entry, error) {
	return audit.Entry{}, audit.ErrNotFound
}

// No bit of a stored row may change unseen.
func TestEveryByteOfAStoredRowMatters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "journal.db")
	l := mustOpen(t, audit.Config{Dir: dir, Origin: "test.example/log", Reserve: -1, Logger: quiet(),
		Journal: func(ctx context.Context) (audit.Journal, error) { return store.OpenJournal(ctx, file) }})
	if _, err := l.Append(t.Context(), decision("d", true)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), q, args...); err != nil {
			t.Fatal(err)
		}
	}
	j, err := store.ReadJournal(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	verified := func() bool {
		t.Helper()
		r, err := audit.Verify(t.Context(), j, audit.Check{Key: l.Key()})
		if err != nil {
			t.Fatal(err)
		}
		return r.Verified
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE commits SET leaves = x'00'"); err == nil || !strings.Contains(err.Error(), "never changed") {
		t.Errorf("an entry was updated by plain SQL: %v", err)
	}
	exec("PRAGMA synchronous = OFF")
	exec("DROP TRIGGER commits_no_update")
	exec("DROP TRIGGER commits_no_delete")
	if !verified() {
		t.Fatal("the sound journal does not verify")
	}
	tried := 0
	for _, column := range []string{"leaves", "payloads", "checkpoint", "frontier"} {
		var old []byte
		if err := db.QueryRowContext(t.Context(), "SELECT "+column+" FROM commits WHERE last = 1").Scan(&old); err != nil {
			t.Fatal(err)
		}
		for i := range old {
			changed := bytes.Clone(old)
			changed[i] ^= 1
			exec("UPDATE commits SET "+column+" = ? WHERE last = 1", changed)
			if verified() {
				t.Errorf("byte %d of %s changed and nobody noticed", i, column)
			}
			tried++
		}
		for _, changed := range [][]byte{old[:len(old)-1], append(bytes.Clone(old), 0)} {
			exec("UPDATE commits SET "+column+" = ? WHERE last = 1", changed)
			if verified() {
				t.Errorf("the length of %s changed and nobody noticed", column)
			}
		}
		exec("UPDATE commits SET "+column+" = ? WHERE last = 1", old)
	}
	for _, q := range []string{"UPDATE commits SET last = 7 WHERE last = 1", "DELETE FROM commits WHERE last = 7"} {
		exec(q)
		if verified() {
			t.Errorf("%s: nobody noticed", q)
		}
	}
	t.Logf("%d bytes changed", tried)
}
