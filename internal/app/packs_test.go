package app

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/provenance"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// packCatalog has a tool of every kind of effect.
const packCatalog = `servers:
  s:
    tools:
      look: {effects: [read]}
      fetch: {effects: [read, external], authority: [to]}
      note: {effects: [write], authority: [to]}
      send: {effects: [write, external], authority: [to, cc]}
      drop: {effects: [destructive], authority: [to]}
      cancel: {effects: [destructive, external], authority: [to]}
      tidy: {effects: [destructive], authority: []}
      free: {effects: [write]}
`

var packTools = []string{"look", "fetch", "note", "send", "drop", "cancel", "tidy", "free", "unheard"}

// packConfig is an installation whose policies are a preset, besides one that
// permits everything, and tests.
func packConfig(t testing.TB, preset, tests string) *Config {
	t.Helper()
	dir := t.TempDir()
	lock := new(catalog.Lock)
	for _, name := range packTools {
		def := fmt.Sprintf(`{"name":%q,"inputSchema":{"type":"object","properties":{"to":{"type":"string"},"cc":{"type":"string"},"text":{"type":"string"}}}}`, name)
		if _, err := lock.Pin("s", json.RawMessage(def)); err != nil {
			t.Fatal(err)
		}
	}
	pins, err := lock.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pack, err := Pack(preset)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"catalog.lock.json": string(pins), "catalog.yaml": packCatalog, "policies/pack.cedar": string(pack),
		"policies/all.cedar":      "@id(\"all\")\npermit (principal, action, resource);\n",
		"policies/pack_test.yaml": tests,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Config{dir: dir, Policies: filepath.Join(dir, "policies"), Catalog: filepath.Join(dir, "catalog.yaml"), Lock: filepath.Join(dir, "catalog.lock.json")}
}

// TestPacksKeepTheirPromises asks each preset the same questions.
func TestPacksKeepTheirPromises(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		tool, to, content string
		labels            []string
		// strict, balanced, permissive
		allow [3]bool
	}{
		{tool: "send", to: "unknown", allow: [3]bool{true, true, true}}, // nothing outsiders' has been read
		{tool: "send", to: "outsiders contested", labels: []string{"untrusted"}},
		{tool: "send", to: "unknown", labels: []string{"untrusted"}},
		{tool: "send", to: "unknown", labels: []string{"unknown"}},
		{tool: "send", to: "structure", labels: []string{"untrusted"}, allow: [3]bool{false, true, true}},
		{tool: "send", to: "structure contested", labels: []string{"untrusted"}, allow: [3]bool{false, false, true}},
		{tool: "send", to: "structure named contested", labels: []string{"untrusted"}, allow: [3]bool{false, true, true}},
		{tool: "send", to: "directory", labels: []string{"untrusted"}, allow: [3]bool{true, true, true}},
		{tool: "send", to: "user", labels: []string{"untrusted"}, allow: [3]bool{true, true, true}},
		{tool: "send", to: "user contested", labels: []string{"untrusted"}, allow: [3]bool{false, true, true}},
		{tool: "send", to: "user", content: "outsiders", labels: []string{"untrusted"}, allow: [3]bool{false, false, true}},
		{tool: "note", to: "user", content: "outsiders", labels: []string{"untrusted"}, allow: [3]bool{false, true, true}},
		{tool: "send", to: "structure", labels: []string{"private"}, allow: [3]bool{false, true, true}},
		{tool: "note", to: "outsiders", labels: []string{"untrusted"}},
		{tool: "fetch", to: "outsiders", labels: []string{"untrusted"}},
		{tool: "drop", to: "structure", labels: []string{"untrusted"}, allow: [3]bool{false, false, true}},
		{tool: "drop", to: "structure contested", labels: []string{"untrusted"}},
		{tool: "drop", to: "structure named", labels: []string{"untrusted"}, allow: [3]bool{true, true, true}},
		{tool: "cancel", to: "user", labels: []string{"untrusted"}, allow: [3]bool{true, true, true}},
		{tool: "look", to: "outsiders", labels: []string{"untrusted"}, allow: [3]bool{true, true, true}},
		{tool: "tidy", to: "outsiders", labels: []string{"untrusted"}, allow: [3]bool{true, true, true}},
		{tool: "free", to: "outsiders", labels: []string{"untrusted"}},    // nobody said what carries authority
		{tool: "unheard", to: "outsiders", labels: []string{"untrusted"}}, // nobody said anything
	} {
		for i, preset := range []string{"strict", "balanced", "permissive"} {
			v, err := LoadVersion(packConfig(t, preset, ""))
			if err != nil {
				t.Fatal(err)
			}
			q := Question{
				Agent: "a", Action: "s/" + tt.tool, Input: map[string]any{"to": "x"}, Content: tt.content,
				Session: QuestionSession{Labels: tt.labels, Calls: 1},
			}
			if op, _ := v.Catalog.Operation(q.Action); slices.Contains(op.Authority, "to") {
				q.Origins = map[string]string{"to": tt.to}
			}
			req, err := q.Ask(v)
			if err != nil {
				t.Fatal(err)
			}
			a := v.Program.Authorize(req)
			if a.Allow != tt.allow[i] || len(a.Errors) > 0 {
				t.Errorf("%s: %s to %s, content %s, %v: %v %v", preset, tt.tool, tt.to, tt.content, tt.labels, a.Allow, a.Errors)
			}
			if a.Allow {
				continue
			}
			// Whatever is held up, a reviewer can let through.
			r := v.Program.Remedies(req, engine.RemedyOptions{})
			if !slices.ContainsFunc(r.Sets, func(s engine.Remedy) bool {
				return len(s) == 1 && s[0].Kind == engine.Approval && s[0].Name == "reviewer"
			}) {
				t.Errorf("%s: %s to %s: a denial that no reviewer can overturn: %v", preset, tt.tool, tt.to, r.Sets)
			}
		}
	}
}

// TestPolicyTestsSupposeOrigins: an operator can test a pack like any policy, and
// an origin that makes no sense is an error.
func TestPolicyTestsSupposeOrigins(t *testing.T) {
	t.Parallel()
	const tests = `
- name: pays whom the user names
  agent: a
  action: s/send
  input: {to: x, cc: y}
  origins: {to: user, cc: structure named}
  session: {labels: [untrusted]}
  expect: allow
- name: an argument of which nothing is said is from nowhere
  agent: a
  action: s/send
  input: {to: x, cc: y}
  origins: {to: user}
  session: {labels: [untrusted]}
  expect: deny
  code: forbidden
- name: a deed without arguments that nobody has said may be done unasked
  agent: a
  action: s/free
  session: {labels: [untrusted]}
  expect: deny
  code: forbidden
- name: a deed without arguments of which it has been said
  agent: a
  action: s/tidy
  session: {labels: [untrusted]}
  expect: allow
`
	r, err := TestPolicies(packConfig(t, "balanced", tests))
	if err != nil || r.Passed != 4 || r.Failed != 0 {
		t.Errorf("%v %+v", err, r)
	}
	for _, bad := range []string{"origins: {to: friends}", "origins: {to: user twice}", "origins: {text: user}", "content: nobody"} {
		r, err := TestPolicies(packConfig(t, "balanced", "- name: x\n  agent: a\n  action: s/send\n  input: {to: x}\n  expect: allow\n  "+bad+"\n"))
		if err != nil || r.Failed != 1 || !strings.Contains(r.Tests[0].Failure, "cannot be asked") {
			t.Errorf("%s: %v %+v", bad, err, r)
		}
	}
}

// TestTighteningNeverAllowsMore: through the real engine and each preset, a
// source that is trusted less, an origin that is no longer named or is contested,
// and a further label never turn a denial into an allow.
func TestTighteningNeverAllowsMore(t *testing.T) {
	t.Parallel()
	for _, preset := range Packs() {
		v, err := LoadVersion(packConfig(t, preset, ""))
		if err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			op, _ := v.Catalog.Operation("s/" + rapid.SampledFrom(packTools).Draw(t, "tool"))
			origin := func(label string) (o, tighter provenance.Origin) {
				o.Trust = provenance.Trust(rapid.IntRange(0, int(provenance.User)).Draw(t, label))
				o.Named, o.Contested = rapid.Bool().Draw(t, label+" named"), rapid.Bool().Draw(t, label+" contested")
				tighter.Trust = provenance.Trust(rapid.IntRange(0, int(o.Trust)).Draw(t, label+" then"))
				tighter.Named = o.Named && rapid.Bool().Draw(t, label+" still named")
				tighter.Contested = o.Contested || rapid.Bool().Draw(t, label+" now contested")
				return o, tighter
			}
			args, tighterArgs := map[string]provenance.Origin{}, map[string]provenance.Origin{}
			args["to"], tighterArgs["to"] = origin("to")
			args["cc"], tighterArgs["cc"] = origin("cc")
			content, tighterContent := origin("content")
			label := rapid.SampledFrom([]string{"untrusted", "unknown", "internal", "private", "secret", "other"})
			labels := rapid.SliceOfDistinct(label, rapid.ID).Draw(t, "labels")
			more := append(slices.Clone(labels), rapid.SliceOf(label).Draw(t, "more labels")...)
			ask := func(labels []string, args map[string]provenance.Origin, content provenance.Origin) bool {
				input := json.RawMessage(`{"to": "x", "cc": "y"}`)
				slices.Sort(labels)
				req, err := v.Request(
					pdp.Caller{Subject: identity.Subject{Agent: "a", Method: identity.MethodKey, Level: 1}},
					session.Snapshot{ID: "s", Labels: slices.Compact(labels), Calls: 1}, risk.Score{}, pdp.NewOrigins(op, input, args, content), op,
					authz.Request{Action: op.Action, Server: "s", Input: input}, nil, time.Unix(0, 0))
				if err != nil {
					t.Fatal(err)
				}
				return v.Program.Authorize(req).Allow
			}
			if !ask(labels, args, content) && ask(more, tighterArgs, tighterContent) {
				t.Fatalf("%s: denied, and allowed when tightened", op.Action)
			}
		})
	}
}
