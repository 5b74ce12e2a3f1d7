package app

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
)

// A decision that would be another without a signal hangs on it; one that has
// enough without it does not. Habits outlive the node.
func TestAblate(t *testing.T) {
	c := runConfig(t)
	lock := &catalog.Lock{}
	if _, err := lock.Pin("mail", json.RawMessage(`{"name":"read","inputSchema":{"type":"object"}}`)); err != nil {
		t.Fatal(err)
	}
	pinned, err := lock.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"catalog.lock.json": string(pinned),
		"catalog.yaml":      "servers: {mail: {tools: {read: {effects: [read], outputs: {outsiders: true}}}}}\n",
		"policies/a.cedar": `@id("a") permit (principal, action, resource);
@id("b") forbid (principal, action in Action::"read", resource) when { context.risk.score > 70 };`,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	node := func() *Node {
		t.Helper()
		n, err := Start(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	decide := func(n *Node, session string) authz.Decision {
		t.Helper()
		d, err := n.PDP.Decide(t.Context(), authz.Request{
			Credential: authz.Credential{Kind: authz.CredentialLocal, Value: "bot"}, Action: "mail/read", Server: "mail", Input: json.RawMessage(`{}`), Session: session,
		})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	n := node()
	if d := decide(n, "s"); !d.Allow { // 65: nothing is known of the agent
		t.Fatalf("%+v", d)
	}
	last := decide(n, "s") // and 20 for what outsiders wrote
	if last.Allow {
		t.Fatal("allowed")
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	n = node()
	if d := decide(n, "t"); !d.Allow { // 65, and 3 for the denial that is remembered
		t.Fatalf("%+v", d)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	a, err := Ablate(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if a.Decisions != 3 || a.Skipped != 0 {
		t.Errorf("%+v", a)
	}
	for _, s := range a.Signals {
		want := SignalShare{Signal: s.Signal}
		switch s.Signal {
		case "rate", "sequence", "change":
			want.Counted, want.Decisive = 3, 1
		case "hour":
			want.Counted = 3 // 85 less 10 is still too much
		case "untrusted":
			want.Counted, want.Decisive = 1, 1
		case "denials":
			want.Counted = 1
		}
		if s.Counted != want.Counted || s.Decisive != want.Decisive || (s.Decisive > 0) != (len(s.Examples) == 1 && s.Examples[0] == last.ID) {
			t.Errorf("%+v, want %+v", s, want)
		}
	}
}
