package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

func openJournal(t *testing.T, file string) *store.Journal {
	t.Helper()
	j, err := store.OpenJournal(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// entriesFrom makes n entries, the last of them with a checkpoint.
func entriesFrom(first, n int) []audit.Entry {
	var es []audit.Entry
	for i := first; i < first+n; i++ {
		es = append(es, audit.Entry{Index: uint64(i), Hash: [32]byte{byte(i)}, Leaf: fmt.Appendf(nil, "leaf %d", i), Payload: []byte{byte(i), 1}})
	}
	es[n-1].Checkpoint = fmt.Appendf(nil, "checkpoint %d", first+n)
	es[n-1].Frontier = []byte{1, 2, 3}
	return es
}

func read(t *testing.T, r audit.Reader, from, to uint64) []audit.Entry {
	t.Helper()
	var es []audit.Entry
	err := r.Entries(t.Context(), from, to, func(e audit.Entry) error {
		es = append(es, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func TestJournalKeepsEntries(t *testing.T) {
	// A name that would mean something in a URI.
	dir := filepath.Join(t.TempDir(), "a b?c#d%20&mode=memory")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "journal.db")
	j, err := store.OpenJournal(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	var want []audit.Entry
	for _, n := range []int{1, 31, 32, 33, 1000, 1200} {
		es := entriesFrom(len(want), n)
		if err := j.Append(t.Context(), es); err != nil {
			t.Fatal(err)
		}
		want = append(want, es...)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, file)
	if diff := cmp.Diff(want, read(t, j, 0, 1<<63)); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[5:1500], read(t, j, 5, 1500)); diff != "" {
		t.Errorf("a part (-want +got):\n%s", diff)
	}
	for to, index := range map[uint64]uint64{1: 0, 31: 0, 32: 31, 1 << 63: 2296} {
		e, err := j.LastCommit(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[index], e); diff != "" {
			t.Errorf("last commit before %d (-want +got):\n%s", to, diff)
		}
	}
	if _, err := j.LastCommit(t.Context(), 0); !errors.Is(err, audit.ErrNotFound) {
		t.Errorf("last commit before 0: %v, want ErrNotFound", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o, want 600", info.Mode().Perm())
	}
}

// Whatever is not the next commit is refused, and nothing of it is kept.
func TestJournalTakesOnlyTheNextCommit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.db")
	j, err := store.OpenJournal(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(t.Context(), entriesFrom(0, 3)); err != nil {
		t.Fatal(err)
	}
	refused := func(j *store.Journal) {
		t.Helper()
		changed := func(f func([]audit.Entry)) []audit.Entry {
			es := entriesFrom(3, 3)
			f(es)
			return es
		}
		for name, es := range map[string][]audit.Entry{
			"nothing":               nil,
			"a gap":                 entriesFrom(4, 1),
			"an index twice":        entriesFrom(2, 2),
			"a gap within":          changed(func(es []audit.Entry) { es[2].Index++ }),
			"no checkpoint":         changed(func(es []audit.Entry) { es[2].Checkpoint = nil }),
			"no frontier":           changed(func(es []audit.Entry) { es[2].Frontier = nil }),
			"a checkpoint too many": changed(func(es []audit.Entry) { es[0].Checkpoint = es[2].Checkpoint }),
			"a frontier too many":   changed(func(es []audit.Entry) { es[0].Frontier = es[2].Frontier }),
		} {
			if err := j.Append(t.Context(), es); err == nil {
				t.Errorf("%s: appended", name)
			}
		}
		if diff := cmp.Diff(entriesFrom(0, 3), read(t, j, 0, 1<<63)); diff != "" {
			t.Errorf("after what was refused (-want +got):\n%s", diff)
		}
	}
	refused(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, file)
	refused(j)
	if err := j.Append(t.Context(), entriesFrom(3, 1)); err != nil {
		t.Error(err)
	}
}

// Two that write: the second to come does not overwrite the first.
func TestJournalIsNotOverwrittenByASecondWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.db")
	first, second := openJournal(t, file), openJournal(t, file)
	if err := first.Append(t.Context(), entriesFrom(0, 2)); err != nil {
		t.Fatal(err)
	}
	if err := second.Append(t.Context(), entriesFrom(0, 2)); err == nil {
		t.Error("a commit was written twice")
	}
}

// A row that is not in the format is damage, wherever it was cut.
func TestJournalRowHasOneForm(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.db")
	j := openJournal(t, file)
	for i := range 2 {
		if err := j.Append(t.Context(), entriesFrom(3*i, 3)); err != nil {
			t.Fatal(err)
		}
	}
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
	exec("PRAGMA synchronous = OFF")
	exec("DROP TRIGGER commits_no_update")
	damaged := func(what string) {
		t.Helper()
		err := j.Entries(t.Context(), 4, 5, func(audit.Entry) error { return nil })
		if !errors.Is(err, audit.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", what, err)
		}
		if _, err := j.LastCommit(t.Context(), 100); !errors.Is(err, audit.ErrDamaged) {
			t.Errorf("%s: last commit: %v, want ErrDamaged", what, err)
		}
	}
	for _, column := range []string{"leaves", "payloads"} {
		var old []byte
		if err := db.QueryRowContext(t.Context(), "SELECT "+column+" FROM commits WHERE last = 5").Scan(&old); err != nil {
			t.Fatal(err)
		}
		change := func(what string, b []byte) {
			t.Helper()
			exec("UPDATE commits SET "+column+" = ? WHERE last = 5", b)
			damaged(what)
		}
		for n := range old {
			change(fmt.Sprintf("%s cut after %d bytes", column, n), old[:n])
		}
		change(column+" too long", append(bytes.Clone(old), 0))
		for i := range old {
			b := bytes.Clone(old)
			b[i] = 0xff // in a length: more than there is
			exec("UPDATE commits SET "+column+" = ? WHERE last = 5", b)
			if err := j.Entries(t.Context(), 0, 9, func(audit.Entry) error { return nil }); err != nil && !errors.Is(err, audit.ErrDamaged) {
				t.Errorf("byte %d of %s changed: %v", i, column, err)
			}
		}
		exec("UPDATE commits SET "+column+" = ? WHERE last = 5", old)
	}
	if got := read(t, j, 4, 5); len(got) != 1 {
		t.Fatalf("the sound row has %d entries of one", len(got))
	}
	exec("UPDATE commits SET leaves = x'', payloads = x'' WHERE last = 5")
	damaged("a commit of no entries")
	exec("UPDATE commits SET last = 1 WHERE last = 2") // three entries that end with entry 1
	if err := j.Entries(t.Context(), 0, 9, func(audit.Entry) error { return nil }); !errors.Is(err, audit.ErrDamaged) {
		t.Errorf("entries before the first: %v, want ErrDamaged", err)
	}
}

// However long a read is, it does not keep the write-ahead log from being
// moved into the file for all its time.
func TestJournalReadsInParts(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal.db"))
	if err := j.Append(t.Context(), entriesFrom(0, 1500)); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(t.Context(), entriesFrom(1500, 1)); err != nil {
		t.Fatal(err)
	}
	// What is added while the first part is read is in the second.
	got := 0
	err := j.Entries(t.Context(), 0, 1<<63, func(e audit.Entry) error {
		if got == 0 {
			if err := j.Append(t.Context(), entriesFrom(1501, 1)); err != nil {
				return err
			}
		}
		got++
		return nil
	})
	if err != nil || got != 1502 {
		t.Errorf("%d entries, %v, want 1502", got, err)
	}
}

func TestJournalIsReadWhileItIsWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.db")
	w := openJournal(t, file)
	r, err := store.ReadJournal(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 3 {
		if err := w.Append(t.Context(), entriesFrom(i, 1)); err != nil {
			t.Fatal(err)
		}
		if got := len(read(t, r, 0, 1<<63)); got != i+1 {
			t.Errorf("a reader sees %d entries of %d", got, i+1)
		}
	}
	if err := r.Append(t.Context(), entriesFrom(3, 1)); err == nil {
		t.Error("a reader wrote")
	}
}

func TestJournalRefusesOtherFiles(t *testing.T) {
	database := func(t *testing.T, file string, statements ...string) {
		t.Helper()
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, file string)
		want string
	}{
		{"another database", func(t *testing.T, file string) { database(t, file, "PRAGMA application_id = 7") }, "not a Bailiwick journal"},
		{"a newer journal", func(t *testing.T, file string) {
			database(t, file, "PRAGMA application_id = 0x424c574a", "PRAGMA user_version = 3")
		}, "the newer version 3, and this program reads version 2 only: use a newer release"},
		{"a former journal", func(t *testing.T, file string) {
			database(t, file, "PRAGMA application_id = 0x424c574a", "PRAGMA user_version = 1")
		}, "the former version 1, and this program reads version 2 only: read it with the release that wrote it"},
		{"no database", func(t *testing.T, file string) {
			if err := os.WriteFile(file, []byte(strings.Repeat("text ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a database"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, open := range []func(context.Context, string) (*store.Journal, error){store.OpenJournal, store.ReadJournal} {
				file := filepath.Join(t.TempDir(), "journal.db")
				tt.make(t, file)
				if j, err := open(t.Context(), file); err == nil {
					t.Error("opened")
					j.Close()
				} else if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want it to say %q", err, tt.want)
				}
			}
		})
	}
	if _, err := store.ReadJournal(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading none: %v, want ErrNotExist", err)
	}
}
