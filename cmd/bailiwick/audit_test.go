package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// evidence makes a small log: one denial, one release with its outcome.
func evidence(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "evidence")
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	l, err := audit.Open(t.Context(), audit.Config{
		Dir: dir, Origin: "test.example/log", Reserve: -1, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return now },
		Journal: func(ctx context.Context) (audit.Journal, error) {
			return store.OpenJournal(ctx, filepath.Join(dir, "journal.db"))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	denied := audit.Record{
		Kind: audit.KindDecision, Time: now, Decision: "d-denied", Effect: "deny", Version: "sha256:ab",
		Who:   &audit.Who{Subject: authz.Entity{Type: "Agent", ID: "billing-bot"}, Auth: "key", Session: "s-1", Gate: "mcp-http"},
		What:  &audit.What{Action: "bank/send_money", Server: "bank", Resource: authz.Entity{Type: "Server", ID: "bank"}},
		Why:   &audit.Why{Mode: "enforce", Reasons: []authz.Reason{{Code: authz.ReasonForbidden, Message: "No."}}, Policies: []authz.PolicyRef{{ID: "no-money", Effect: "forbid", File: "bank.cedar", Line: 7}}},
		Input: json.RawMessage(`{"to": "DE89", "note": "\u001b[31m"}`),
	}
	released := denied
	released.Decision, released.Effect, released.Input = "d-released", "allow", nil
	released.Why = &audit.Why{Mode: "enforce", Released: true, Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow, Message: "Yes."}}}
	released.What = &audit.What{Action: "mail/list", Server: "mail"}
	for _, r := range []audit.Record{denied, released, {
		Kind: audit.KindOutcome, Time: now, Decision: "d-released", Effect: "success",
		Outcome: &audit.Outcome{Status: authz.OutcomeSuccess, Bytes: 12},
	}} {
		if _, err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// auditCommand runs one audit command and returns what it printed.
func auditCommand(t *testing.T, asJSON bool, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newAudit(&options{config: filepath.Join(t.TempDir(), "none.yaml"), json: asJSON})
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestAuditCommands(t *testing.T) {
	dir := evidence(t)
	bundle := filepath.Join(t.TempDir(), "bundle.jsonl")
	proof := filepath.Join(t.TempDir(), "proof")
	for _, tt := range []struct {
		name   string
		args   []string
		json   bool
		want   []string
		absent []string
	}{
		{name: "tail", args: []string{"tail"},
			want: []string{"#1 ", "deny", "billing-bot", "bank/send_money  forbidden", "mail/list  → success", "outcome  success of d-released", "stopped"}},
		{name: "tail 1", args: []string{"tail", "-n", "1"}, want: []string{"#4 "}, absent: []string{"#3 "}},
		{name: "tail json", args: []string{"tail"}, json: true, want: []string{`{"index":1,"record":{"kind":"decision"`}},
		{name: "search deny", args: []string{"search", "--effect", "deny", "--agent", "billing-bot", "--policy", "no-money", "--reason", "forbidden", "--server", "bank", "--session", "s-1", "--text", "de89"},
			want: []string{"#1 "}, absent: []string{"#2 ", "#3 "}},
		{name: "search nothing", args: []string{"search", "--agent", "nobody"}, absent: []string{"#"}},
		{name: "search until", args: []string{"search", "--until", "2026-11-22T10:00:00Z"}, absent: []string{"#"}},
		{name: "search since", args: []string{"search", "--since", "2026-11-22T10:00:00Z", "--kind", "outcome"}, want: []string{"#3 "}},
		{name: "show decision", args: []string{"show", "d-denied"},
			want:   []string{"Agent billing-bot", "forbidden: No.", "forbid no-money at bank.cedar:7", "released     no", `"to": "DE89"`, "proof        verified: entry 1"},
			absent: []string{"\x1b"}},
		{name: "show index", args: []string{"show", "2", "--proof", proof}, want: []string{"success, bytes 12 (entry 3)"}},
		{name: "show json", args: []string{"show", "2"}, json: true, want: []string{`"proof": "c2sp.org/tlog-proof@v1`}},
		{name: "export", args: []string{"export", "-o", bundle}},
		{name: "verify", args: []string{"verify", "--checkpoint", proof},
			want: []string{"verified  entries 0 to 4 of test.example/log", "5 checkpoints", "The key came with the evidence", "kept elsewhere, of size 3", "This is a prefix of the log", "1 released, 1 with an outcome, 0 without"}},
		{name: "verify bundle", args: []string{"verify", bundle, "--key", filepath.Join(dir, audit.PublicKeyFile)},
			want: []string{"verified  entries 0 to 4"}, absent: []string{"came with the evidence"}},
		{name: "verify json", args: []string{"verify"}, json: true, want: []string{`"verified": true`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := auditCommand(t, tt.json, append(tt.args, "--dir", dir)...)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range tt.want {
				if !strings.Contains(got, w) {
					t.Errorf("does not say %q:\n%s", w, got)
				}
			}
			for _, w := range tt.absent {
				if strings.Contains(got, w) {
					t.Errorf("says %q:\n%s", w, got)
				}
			}
		})
	}
}

func TestAuditVerifyFails(t *testing.T) {
	dir := evidence(t)
	bundle := filepath.Join(t.TempDir(), "bundle.jsonl")
	if _, err := auditCommand(t, false, "export", "-o", bundle, "--dir", dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bundle, bytes.Replace(text, []byte("DE89"), []byte("DE88"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := auditCommand(t, false, "verify", bundle)
	if !errors.Is(err, errFailed) {
		t.Errorf("verify: %v, want it to fail", err)
	}
	if want := `entry 1: the group "input" of the payload is not what the leaf commits to`; !strings.Contains(got, want) {
		t.Errorf("does not say %q:\n%s", want, got)
	}
	if !strings.HasPrefix(got, "NOT VERIFIED") {
		t.Errorf("does not begin with NOT VERIFIED:\n%s", got)
	}
}

func TestAuditUsage(t *testing.T) {
	for _, args := range [][]string{
		{"show"}, {"tail", "-n", "-1"}, {"search", "--since", "yesterday"}, {"search", "--limit", "0"}, {"export", "--from", "5", "--to", "5"},
	} {
		if _, err := auditCommand(t, false, append(args, "--dir", t.TempDir())...); !errors.As(err, new(usageError)) {
			t.Errorf("%v: %v, want a usage error", args, err)
		}
	}
	if _, err := auditCommand(t, false, "tail", "--dir", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no evidence in") {
		t.Errorf("tail of nothing: %v", err)
	}
}
