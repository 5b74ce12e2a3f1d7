package audit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

const (
	// diskPeriod is how often the free space is looked at.
	diskPeriod = time.Second
	// firstRetry and lastRetry bound the pause between attempts to reopen.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// company is how long records that nobody waits for wait for one that
	// somebody does. The outcome of a call then shares the commit of the next
	// decision, which would otherwise have to wait for the outcome's own fsync:
	// with one client in a row of calls, that is one fsync a call and not two.
	company = 5 * time.Millisecond
	// gather bounds how long a commit waits for those who were there just before.
	// It also waits no longer than the last commit took. A commit costs the
	// processor as much as 20 records do (SQLite's pages, the signature, the
	// fsync), so with many callers fewer and larger commits carry more. A caller
	// that is alone waits for nobody.
	gather = 3 * time.Millisecond
)

// write is the writer's life.
func (l *Log) write() {
	defer close(l.done)
	tick := time.NewTicker(diskPeriod)
	defer tick.Stop()
	for {
		batch, hold, closing := l.take()
		switch {
		case len(batch) > 0:
			began := time.Now()
			if !l.commitOrRecover(batch) {
				return
			}
			l.answered(began)
			select {
			case <-tick.C:
				l.checkDisk()
			default:
			}
		case closing:
			// The last word: the log ends here by will and in order.
			l.lastErr = l.commit([]*item{l.system("stopped", struct{}{})})
			return
		default:
			var held <-chan time.Time // nil: nothing is held back
			if hold > 0 {
				held = time.After(hold)
			}
			select {
			case <-l.wake:
			case <-held:
			case <-tick.C:
				l.checkDisk()
			}
		}
	}
}

// take returns what is to be written next, at most one batch. With nothing to
// write yet, hold is how long what there is may still wait for company.
func (l *Log) take() (batch []*item, hold time.Duration, closing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) > 0 && l.waited == 0 && len(l.owed) == 0 && !l.closed && len(l.queue) < maxBatch {
		if hold = company - time.Since(l.since); hold > 0 {
			return nil, hold, false
		}
	}
	if l.waited > 0 && l.waited < l.want && len(l.owed) == 0 && !l.closed {
		from := l.since
		if l.committed.After(from) {
			from = l.committed
		}
		if hold = l.patience - time.Since(from); hold > 0 {
			return nil, hold, false
		}
	}
	before := l.waited
	n, size := 0, 0
	for n < len(l.queue) && len(l.owed)+n < maxBatch && (n == 0 || size+l.queue[n].size() <= maxBatchBytes) {
		size += l.queue[n].size()
		n++
	}
	batch = append(l.owed, l.queue[:n]...)
	for _, it := range l.queue[:n] {
		if it.done != nil {
			l.waited--
		}
	}
	l.owed = nil
	clear(l.queue[:n])
	l.queue = l.queue[n:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
	l.bytes -= size
	l.taken = before - l.waited
	return batch, 0, l.closed
}

// answered notes that the batch begun at an instant was answered. Those who were
// in it and those who wait by now are who there is, give or take those on their
// way. Half of them are worth waiting for: while they are committed, the other
// half keeps the processor busy.
func (l *Log) answered(began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crowd = max(l.taken+l.waited, l.crowd*7/8)
	l.want = l.crowd / 2
	l.committed = time.Now()
	l.patience = min(gather, l.committed.Sub(began))
}

// commitOrRecover commits a batch. If that fails, it answers all who wait, and
// then tries to reopen the journal until that succeeds or the log is closed;
// only the latter reports false.
func (l *Log) commitOrRecover(batch []*item) bool {
	err := l.commit(batch)
	if err == nil {
		return true
	}
	l.fail(batch, err)
	return l.recover()
}

// commit makes a batch durable, with one checkpoint, and answers.
func (l *Log) commit(batch []*item) error {
	grown := l.tree.clone()
	c := &commit{before: l.tree, hashes: make([][32]byte, len(batch))}
	entries, room := make([]Entry, len(batch)), 0
	for _, it := range batch {
		room += it.leafRoom()
	}
	leaves := make([]byte, 0, room)
	for i, it := range batch {
		entries[i], leaves = it.at(grown.size(), leaves)
		c.hashes[i] = entries[i].Hash
		grown.append(c.hashes[i])
	}
	signed, err := l.signer.checkpoint(grown)
	if err != nil {
		return err
	}
	last := &entries[len(entries)-1]
	last.Checkpoint, last.Frontier = signed, grown.frontier()
	// The commit cannot be called back: whoever waits has a deadline of its own.
	if err := l.journal.Append(context.Background(), entries); err != nil {
		return fmt.Errorf("commit entries %d to %d: %w", entries[0].Index, last.Index, err)
	}
	c.checkpoint = signed
	first := l.tree.size()
	l.tree = grown
	l.size.Store(grown.size())
	l.setMark(signed)
	for i, it := range batch {
		if !it.answer(Receipt{Index: first + uint64(i), commit: c}, nil) {
			l.oweNotRun(it, "recorded after the caller had given up")
		}
	}
	return nil
}

// at returns the entry that the record becomes at an index. Its leaf is
// appended to b, which is returned, too.
func (s *sealed) at(index uint64, b []byte) (Entry, []byte) {
	start := len(b)
	b = append(b, 0) // RFC 6962 §2.1: the prefix of a leaf's hash
	b = append(b, s.head...)
	b = strconv.AppendUint(b, index, 10)
	b = append(b, s.tail...)
	hashed := b[start:len(b):len(b)]
	return Entry{Index: index, Hash: sha256.Sum256(hashed), Leaf: hashed[1:], Payload: s.payload}, b
}

// leafRoom is what at appends at most.
func (s *sealed) leafRoom() int { return 1 + len(s.head) + 20 + len(s.tail) }

// oweNotRun adds the outcome of a released decision that was answered as a
// denial although its record is durable.
func (l *Log) oweNotRun(it *item, why string) {
	if !it.settles {
		return
	}
	l.owed = append(l.owed, l.outcome(it.decision, authz.OutcomeNotRun, why))
}

func (l *Log) outcome(decision string, status authz.OutcomeStatus, why string) *item {
	return l.own(Record{
		Kind:     KindOutcome,
		Decision: decision,
		Effect:   string(status),
		Outcome:  &Outcome{Status: status, Error: why},
	})
}

// fail answers everybody who waits: those of the batch, whose fate is unknown,
// and those in the queue, who were not written.
func (l *Log) fail(batch []*item, err error) {
	l.c.Logger.Error("audit log failed: nothing is released until it has recovered", "error", err)
	l.doubt = batch
	l.mu.Lock()
	l.down = err
	var posted []*item
	l.bytes = 0
	waiting := l.queue
	for _, it := range l.queue {
		if it.done == nil {
			posted = append(posted, it)
			l.bytes += it.size()
		}
	}
	l.queue, l.waited = posted, 0
	l.mu.Unlock()
	refused := fmt.Errorf("%w: %w", ErrUnavailable, err)
	for _, it := range append(waiting, batch...) {
		// Whoever had given up has been told the same: no.
		_ = it.answer(Receipt{}, refused)
	}
}

// recover reopens the journal until it can be trusted and written again. It
// reports false when the log was closed before that.
func (l *Log) recover() bool {
	since := l.c.Now()
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		closing := l.sleep(pause)
		err := l.reopen(since)
		if err == nil {
			l.c.Logger.Info("audit log recovered", "entries", l.tree.size())
			return true
		}
		l.mu.Lock()
		changed := l.down.Error() != err.Error()
		l.down = err
		l.mu.Unlock()
		if changed {
			l.c.Logger.Error("audit log has not recovered", "error", err)
		}
		if closing {
			l.lastErr = fmt.Errorf("%w: %w", ErrUnavailable, err)
			return false
		}
	}
}

// sleep pauses, and reports whether the log is closing, which ends the pause.
func (l *Log) sleep(d time.Duration) (closing bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		l.mu.Lock()
		closing = l.closed
		l.mu.Unlock()
		if closing {
			return true
		}
		select {
		case <-t.C:
			return false
		case <-l.wake:
		}
	}
}

// reopen opens the journal anew, checks its end, finds out whether the batch
// in doubt is in it, and commits what is owed together with the record
// "recovered". Then it lets callers in again.
func (l *Log) reopen(since time.Time) error {
	ctx := context.Background()
	if l.journal != nil {
		// It is given up: what counts is what the next one reads.
		_ = l.journal.Close()
		l.setJournal(nil)
	}
	j, err := l.c.Journal(ctx)
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	l.setJournal(j)
	if err := l.resolve(ctx); err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	l.mu.Lock()
	details := struct {
		Error   string `json:"error"`
		Since   string `json:"since"`
		Refused int64  `json:"refused"`
	}{l.down.Error(), since.UTC().Format(timeLayout), l.refused}
	l.mu.Unlock()
	recovered := l.system("recovered", details)
	recovered.once = true
	batch := append([]*item{recovered}, l.owed...)
	l.owed = nil
	if err := l.commit(batch); err != nil {
		l.doubt = batch
		return err
	}
	l.mu.Lock()
	l.down, l.refused = nil, 0
	l.mu.Unlock()
	return nil
}

func (l *Log) setJournal(j Journal) {
	l.mu.Lock()
	l.journal = j
	l.mu.Unlock()
}

// resolve finds out what became of the batch in doubt: all of it is in the
// journal, or none of it. What was posted is owed again if it is not there;
// what was released and answered with an error is owed an outcome if it is.
func (l *Log) resolve(ctx context.Context) error {
	end, err := l.readEnd(ctx, recoverWindow)
	if err != nil {
		return err
	}
	with := l.tree.clone()
	for _, it := range l.doubt {
		e, _ := it.at(with.size(), nil)
		with.append(e.Hash)
	}
	doubt := l.doubt
	switch end.tree.root() {
	case l.tree.root():
		for _, it := range doubt {
			if it.done == nil && !it.once {
				l.owed = append(l.owed, it)
			}
		}
	case with.root():
		l.tree = with
		for _, it := range doubt {
			if it.done != nil {
				l.oweNotRun(it, "recorded, but answered as a denial because the log failed")
			}
		}
	default:
		return fmt.Errorf("%w: the journal is neither as it was before the failure nor as it would be after it", ErrDamaged)
	}
	l.doubt = nil
	return nil
}
