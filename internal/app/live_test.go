package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/entity"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// Files that are wrong change nothing, whatever is wrong with them, and each
// file that is right is taken over.
func TestWrongFilesChangeNothing(t *testing.T) {
	c := runConfig(t)
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("policies/a.cedar", `@id("a") permit (principal, action in Action::"discover", resource);`)
	put("schema.cedarschema", "namespace A { entity user { role?: String }; }")
	put("entities.yaml", "entities:\n  - {type: 'A::user', id: bob, attributes: {role: admin}}\n")
	c.Entities.Files = []string{filepath.Join(c.dir, "entities.yaml")}
	first, err := LoadVersion(c)
	if err != nil {
		t.Fatal(err)
	}
	agents, err := LoadAgents(c)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := identity.New(identity.Config{Agents: agents})
	if err != nil {
		t.Fatal(err)
	}
	entities, err := entity.Open(t.Context(), entity.Config{Sources: c.Entities, Policies: first.Program.Set()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { entities.Close() })
	var log strings.Builder
	var changes int
	l := &live{
		config: c, agents: verifier, entities: entities, changed: func(*pdp.Version) { changes++ },
		logger: slog.New(slog.NewJSONHandler(&log, nil)),
	}
	l.version.Store(first)
	if l.seen, err = fingerprint(c); err != nil {
		t.Fatal(err)
	}
	l.reload()
	for name, text := range map[string]string{
		"policies/a.cedar":  `@id("a") permit (principal, action == Action::"no/such", resource);`,
		"catalog.yaml":      "servers: {nobody: {tools: {x: {effects: [read]}}}}\n",
		"catalog.lock.json": "{",

		"policies/scorecard.yaml": "caps: {mood: 3}\n",
		// The schema is right in itself, but not for the entities that there are.
		"schema.cedarschema": "namespace A { entity user { role?: Long }; }",
	} {
		before, readErr := os.ReadFile(filepath.Join(c.dir, name))
		log.Reset()
		put(name, text)
		l.reload()
		if l.Version("") != first || changes != 0 || !strings.Contains(log.String(), "not taken over") {
			t.Errorf("%s: version %v, %d changes, log %q", name, l.Version("").Digest(), changes, log.String())
		}
		if readErr != nil {
			if err := os.Remove(filepath.Join(c.dir, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		put(name, string(before))
	}
	l.reload()
	if changes != 0 || l.Version("").Digest() != first.Digest() {
		t.Errorf("%d changes of the version although the files are as they were", changes)
	}

	key, hash := identity.NewKey()
	put("agents.yaml", "agents:\n  - {id: new, key: '"+hash+"'}\n")
	put("policies/a.cedar", `@id("b") permit (principal, action in Action::"discover", resource);`)
	l.reload()
	if changes != 1 || l.Version("").Digest() == first.Digest() {
		t.Errorf("%d changes; the new policy is not in force", changes)
	}
	cred := authz.Credential{Kind: authz.CredentialBearer, Value: key}
	if _, err := verifier.Verify(t.Context(), cred); err != nil {
		t.Errorf("the new agent is not known: %v", err)
	}
	put("agents.yaml", "agents: nonsense\n")
	l.reload()
	if _, err := verifier.Verify(t.Context(), cred); err != nil {
		t.Errorf("a wrong agents file locked an agent out: %v", err)
	}
}
