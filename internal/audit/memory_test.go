package audit_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

// A disk keeps entries in memory, survives its journals, and does what it is
// told to.
type disk struct {
	mu      sync.Mutex
	entries []audit.Entry
	opened  int
	// openErr fails opening; before fails an Append that writes nothing, after
	// one that has written all.
	openErr, before, after error
	// gate, if set, must be readable before an Append writes.
	gate chan struct{}
}

func (d *disk) set(f func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func (d *disk) stored() []audit.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

func (d *disk) open(context.Context) (audit.Journal, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	if d.openErr != nil {
		return nil, d.openErr
	}
	return &memory{disk: d}, nil
}

type memory struct {
	disk *disk
	bad  bool
}

func (m *memory) Append(_ context.Context, entries []audit.Entry) error {
	m.disk.mu.Lock()
	gate := m.disk.gate
	m.disk.mu.Unlock()
	if gate != nil {
		<-gate
	}
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.bad {
		panic("a journal was used after it had failed")
	}
	if err := m.disk.before; err != nil {
		m.bad = true
		return err
	}
	m.disk.entries = append(m.disk.entries, entries...)
	if err := m.disk.after; err != nil {
		m.bad = true
		return err
	}
	return nil
}

func (m *memory) Close() error { return nil }

func (m *memory) Entries(_ context.Context, from, to uint64, f func(audit.Entry) error) error {
	for _, e := range m.disk.stored() {
		if e.Index < from || e.Index >= to {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) LastCommit(_ context.Context, to uint64) (audit.Entry, error) {
	for _, e := range slices.Backward(m.disk.stored()) {
		if e.Index < to && len(e.Checkpoint) > 0 {
			return e, nil
		}
	}
	return audit.Entry{}, audit.ErrNotFound
}

var errDisk = errors.New("input/output error")

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func memoryConfig(dir string, d *disk) audit.Config {
	return audit.Config{Dir: dir, Origin: "test.example/log", Journal: d.open, Reserve: -1, Logger: quiet()}
}

func mustOpen(t *testing.T, c audit.Config) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustClose(t *testing.T, l *audit.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// advice is an allow to an enforcement point that reports no outcome.
func advice(id string) audit.Record {
	r := decision(id, true)
	r.Why.Advised, r.Who.PEP = true, "edge"
	return r
}

// decision is a record of the usual size.
func decision(id string, released bool) audit.Record {
	effect, code := "deny", authz.ReasonNoPermit
	if released {
		effect, code = "allow", authz.ReasonPolicyAllow
	}
	return audit.Record{
		Kind:     audit.KindDecision,
		Time:     time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Decision: id,
		Effect:   effect,
		Version:  "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
		Who:      &audit.Who{Subject: authz.Entity{Type: "Agent", ID: "billing-bot"}, Auth: "key", Session: "s-1", Gate: "mcp-http"},
		What:     &audit.What{Action: "bank/send_money", Server: "bank", Resource: authz.Entity{Type: "Server", ID: "bank"}},
		Why: &audit.Why{Mode: "enforce", Released: released, Reasons: []authz.Reason{{Code: code, Message: "…"}},
			Policies: []authz.PolicyRef{{ID: "send-money", Effect: "permit", File: "bank.cedar", Line: 3}}},
		Input: []byte(`{"to": "DE89 3704", "amount": 12}`),
	}
}

func outcome(id string) audit.Record {
	return audit.Record{
		Kind: audit.KindOutcome, Time: time.Date(2026, 11, 22, 10, 0, 1, 0, time.UTC), Decision: id, Effect: "success",
		Outcome: &audit.Outcome{Status: authz.OutcomeSuccess, Bytes: 512},
	}
}

// acts lists what a disk holds as "effect decision".
func (d *disk) acts(t *testing.T) []string {
	t.Helper()
	var acts []string
	for _, e := range d.stored() {
		r, err := audit.Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		act := r.Record.Effect
		if r.Record.Decision != "" {
			act += " " + r.Record.Decision
		}
		acts = append(acts, act)
	}
	return acts
}

func (d *disk) verify(t *testing.T, key audit.Key) audit.Report {
	t.Helper()
	r, err := audit.Verify(t.Context(), &memory{disk: d}, audit.Check{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Verified {
		t.Fatalf("log does not verify: %v", r.Faults)
	}
	return r
}
