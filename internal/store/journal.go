package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

const (
	// journalID marks a SQLite file as a journal ("BLWJ"), so that no other
	// database is taken for one.
	journalID      = 0x424c574a
	journalVersion = 2
)

// journalSchema has one row for each commit, and no index beside the primary
// key. The triggers keep a slip of our own hand from changing evidence; who
// wants to can drop them, and the tree will show it.
const journalSchema = `
CREATE TABLE commits (
	last       INTEGER PRIMARY KEY CHECK (last >= 0),
	leaves     BLOB NOT NULL,
	payloads   BLOB NOT NULL,
	checkpoint BLOB NOT NULL,
	frontier   BLOB NOT NULL
) STRICT;
CREATE TRIGGER commits_no_update BEFORE UPDATE ON commits BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER commits_no_delete BEFORE DELETE ON commits BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
`

const rowColumns = "last, leaves, payloads, checkpoint, frontier"

// A Journal is the evidence journal in one SQLite file.
type Journal struct {
	read *sql.DB
	// The rest is nil in a journal that is only read. There is one connection,
	// with one statement.
	write  *sql.DB
	conn   *sql.Conn
	insert driver.Stmt

	// next is the index after the last entry. Append keeps it, and the memory
	// that it packs entries in.
	next             uint64
	leaves, payloads []byte
}

var _ audit.Journal = (*Journal)(nil)

// OpenJournal opens the journal in file for writing and makes it if it is
// missing. The caller must be the only writer.
func OpenJournal(ctx context.Context, file string) (*Journal, error) {
	j := &Journal{}
	err := createPrivate(file)
	if err == nil {
		err = j.openWriter(ctx, file)
	}
	if err == nil {
		err = j.openReader(ctx, file, "mode=ro")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", file, err), j.Close())
	}
	return j, nil
}

// createPrivate makes the file, if it is missing, readable by its owner only.
// SQLite gives the files beside it the same mode.
func createPrivate(file string) error {
	// Never open one that exists: closing it would drop the locks that SQLite
	// holds on it for this process.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// ReadJournal opens the journal in file for reading only, also while another
// process writes to it.
func ReadJournal(ctx context.Context, file string) (*Journal, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{}
	err := j.openReader(ctx, file, "mode=ro")
	if err != nil && !exists(file+"-wal") {
		// Without a WAL all is in the one file; in a directory where SQLite
		// cannot make its shared memory, it must be told that nobody writes.
		err = errors.Join(j.Close(), j.openReader(ctx, file, "mode=ro&immutable=1"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", file, err), j.Close())
	}
	return j, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func dataSource(file, query string) string {
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(file), RawQuery: query}).String()
}

func (j *Journal) openWriter(ctx context.Context, file string) error {
	// A commit is one fsync of the WAL. Checkpoints of 1,000 pages keep the
	// pauses short; larger ones make fewer and longer pauses.
	q := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(1000)", "cache_size(-4096)",
	}}
	var err error
	if j.write, err = sql.Open("sqlite", dataSource(file, q.Encode())); err != nil {
		return err
	}
	if j.conn, err = j.write.Conn(ctx); err != nil {
		return err
	}
	id, version, err := identify(ctx, j.conn)
	switch {
	case err != nil:
		return err
	case id == 0 && version == 0:
		if err := j.create(ctx); err != nil {
			return err
		}
	default:
		if err := checkIdentity(id, version); err != nil {
			return err
		}
	}
	if err := j.settle(ctx); err != nil {
		return err
	}
	return j.prepare(ctx)
}

// prepare makes ready for Append.
func (j *Journal) prepare(ctx context.Context) error {
	var last sql.NullInt64
	if err := j.conn.QueryRowContext(ctx, "SELECT max(last) FROM commits").Scan(&last); err != nil {
		return fmt.Errorf("read the index of the last entry: %w", err)
	}
	if last.Valid {
		j.next = uint64(last.Int64) + 1
	}
	// The driver's own statement: database/sql would cost as much again as what
	// the statement does.
	return j.conn.Raw(func(c any) (err error) {
		j.insert, err = c.(driver.ConnPrepareContext).PrepareContext(ctx, "INSERT INTO commits ("+rowColumns+") VALUES (?,?,?,?,?)")
		return err
	})
}

func (j *Journal) create(ctx context.Context) error {
	tx, err := j.conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("create tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, q := range []string{
		journalSchema,
		fmt.Sprintf("PRAGMA application_id = %d", journalID),
		fmt.Sprintf("PRAGMA user_version = %d", journalVersion),
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("create tables: %w", err)
	}
	return nil
}

// settle moves the WAL into the file and syncs it. After a failed fsync the
// kernel may show pages that are not on the disk and will never be written
// again; copying them makes them dirty once more, so that what is read from
// now on is what is durable.
func (j *Journal) settle(ctx context.Context) error {
	var busy, frames, moved int
	err := j.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	if err != nil {
		return fmt.Errorf("move the write-ahead log into the file: %w", err)
	}
	if busy != 0 {
		return errors.New("move the write-ahead log into the file: a reader has held it for too long")
	}
	return nil
}

func (j *Journal) openReader(ctx context.Context, file, mode string) error {
	var err error
	if j.read, err = sql.Open("sqlite", dataSource(file, mode+"&_pragma=busy_timeout(5000)&_pragma=query_only(1)")); err != nil {
		return err
	}
	id, version, err := identify(ctx, j.read)
	if err != nil {
		return err
	}
	return checkIdentity(id, version)
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func identify(ctx context.Context, q querier) (id, version int, err error) {
	if err := q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return 0, 0, fmt.Errorf("read the file's kind: %w", err)
	}
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, 0, fmt.Errorf("read the file's version: %w", err)
	}
	return id, version, nil
}

func checkIdentity(id, version int) error {
	switch {
	case id != journalID:
		return errors.New("not a Bailiwick journal")
	case version < journalVersion:
		return fmt.Errorf("a journal of the former version %d, and this program reads version %d only: read it with the release that wrote it, and move its directory away to begin a new log", version, journalVersion)
	case version > journalVersion:
		return fmt.Errorf("a journal of the newer version %d, and this program reads version %d only: use a newer release", version, journalVersion)
	}
	return nil
}

// Close closes the journal.
func (j *Journal) Close() error {
	var errs []error
	if j.read != nil {
		errs = append(errs, j.read.Close())
	}
	if j.insert != nil {
		errs = append(errs, j.conn.Raw(func(any) error { return j.insert.Close() }))
	}
	if j.conn != nil {
		errs = append(errs, j.conn.Close())
	}
	if j.write != nil {
		errs = append(errs, j.write.Close())
	}
	return errors.Join(errs...)
}

// Append adds the entries of one commit as one row, which is one transaction.
// The first must follow the last of the journal, and the last carries the
// commit's checkpoint.
func (j *Journal) Append(ctx context.Context, entries []audit.Entry) error {
	if j.insert == nil {
		return errors.New("append to journal: it is open for reading only")
	}
	if err := j.fits(entries); err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	last := &entries[len(entries)-1]
	j.leaves, j.payloads = packLeaves(j.leaves[:0], entries), packPayloads(j.payloads[:0], entries)
	args := []driver.NamedValue{
		{Ordinal: 1, Value: int64(last.Index)},
		{Ordinal: 2, Value: j.leaves},
		{Ordinal: 3, Value: j.payloads},
		{Ordinal: 4, Value: last.Checkpoint},
		{Ordinal: 5, Value: last.Frontier},
	}
	err := j.conn.Raw(func(any) error {
		_, err := j.insert.(driver.StmtExecContext).ExecContext(ctx, args)
		return err
	})
	if err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	j.next = last.Index + 1
	if cap(j.leaves)+cap(j.payloads) > maxKept {
		j.leaves, j.payloads = nil, nil
	}
	return nil
}

// maxKept bounds the memory that is kept from one commit for the next.
const maxKept = 1 << 20

// fits checks that entries are one commit, and that which comes next.
func (j *Journal) fits(entries []audit.Entry) error {
	if len(entries) == 0 {
		return errors.New("a commit of no entries")
	}
	for i := range entries {
		e := &entries[i]
		switch last := i == len(entries)-1; {
		case e.Index != j.next+uint64(i) || e.Index > math.MaxInt64:
			return fmt.Errorf("entry %d where entry %d belongs", e.Index, j.next+uint64(i))
		case last != (len(e.Checkpoint) > 0) || last != (len(e.Frontier) > 0):
			return fmt.Errorf("entry %d: the last entry of a commit carries its checkpoint, and no other", e.Index)
		}
	}
	return nil
}

// readChunk is how many entries one query reads, or a few more: a long read
// must not keep the WAL from being moved into the file.
const readChunk = 1000

// Entries calls f for each entry of [from, to) that exists, in order.
func (j *Journal) Entries(ctx context.Context, from, to uint64, f func(audit.Entry) error) error {
	next, more := from, from < to
	for more {
		var err error
		next, more, err = j.query(ctx, next, func(e audit.Entry) error {
			switch {
			case e.Index < from:
				return nil // of the commit that holds from
			case e.Index >= to:
				return errEnough
			default:
				return f(e)
			}
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a query.
var errEnough = errors.New("enough")

// query calls f for the entries of the commits from the one that holds an
// index on. It returns where to go on, and whether there may be more.
func (j *Journal) query(ctx context.Context, from uint64, f func(audit.Entry) error) (next uint64, more bool, err error) {
	rows, err := j.read.QueryContext(ctx, "SELECT "+rowColumns+" FROM commits WHERE last >= ? ORDER BY last", clamp(from))
	if err != nil {
		return 0, false, fmt.Errorf("read journal from entry %d: %w", from, err)
	}
	defer rows.Close()
	next = from
	for n := 0; n < readChunk; {
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return 0, false, fmt.Errorf("read journal from entry %d: %w", next, err)
			}
			return next, false, nil
		}
		entries, err := scan(rows)
		if err != nil {
			return 0, false, fmt.Errorf("read journal from entry %d: %w", next, err)
		}
		for _, e := range entries {
			if err := f(e); err != nil {
				return 0, false, err
			}
		}
		n += len(entries)
		next = entries[len(entries)-1].Index + 1
	}
	return next, true, nil
}

// LastCommit returns the newest entry below index to that carries a
// checkpoint.
func (j *Journal) LastCommit(ctx context.Context, to uint64) (audit.Entry, error) {
	entries, err := scan(j.read.QueryRowContext(ctx, "SELECT "+rowColumns+" FROM commits WHERE last < ? ORDER BY last DESC LIMIT 1", clamp(to)))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return audit.Entry{}, fmt.Errorf("a checkpoint before entry %d: %w", to, audit.ErrNotFound)
	case err != nil:
		return audit.Entry{}, fmt.Errorf("read the checkpoint before entry %d: %w", to, err)
	}
	return entries[len(entries)-1], nil
}

// clamp fits an index into SQLite's integers.
func clamp(i uint64) int64 { return int64(min(i, math.MaxInt64)) }

type scanner interface{ Scan(dest ...any) error }

// scan reads the entries of one row.
func scan(s scanner) ([]audit.Entry, error) {
	var r row
	if err := s.Scan(&r.last, &r.leaves, &r.payloads, &r.checkpoint, &r.frontier); err != nil {
		return nil, err
	}
	return r.entries()
}
