package entity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

const recordsSchema = `
entity Agent in [Group];
entity Group;
namespace Records {
  entity team in [team, department];
  entity department;
  entity level enum ["low", "high"];
  entity user in [team] = {
    role: String,
    level?: Long,
    active?: Bool,
    limit?: decimal,
    since?: datetime,
    teams?: Set<String>,
    grade?: level,
    manager?: user,
    address?: { street: String, landlord?: user },
  } tags String;
  entity document in [folder] = { owner: user, title?: String };
  entity folder in [folder];
  entity room in [level];
}
action read appliesTo { principal: [Agent, Records::user], resource: [Records::document, Records::folder], context: {} };
`

// managers lets conditions look two steps from a document.
const managers = `@id("managers") permit (principal, action, resource is Records::document) when { resource.owner has manager && principal == resource.owner.manager };
@id("theirs") permit (principal, action, resource is Records::document) when { resource.owner has manager && resource.owner.manager.role == "admin" };`

func newSet(t testing.TB, schema, policies string) *policy.Set {
	t.Helper()
	set, err := policy.New(policy.Config{Schema: []byte(schema), Policies: []policy.Source{{File: "p.cedar", Text: []byte(policies)}}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func recordsSet(t testing.TB) *policy.Set { return newSet(t, recordsSchema, managers) }

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	// As an editor does it: whole or not at all.
	if err := os.WriteFile(file+".tmp", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
	return file
}

func uid(t types.EntityType, id string) types.EntityUID {
	return types.NewEntityUID("Records::"+t, types.String(id))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bounded is a context that ends before the test would hang.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, c Config) *Directory {
	t.Helper()
	if c.Policies == nil {
		c.Policies = recordsSet(t)
	}
	d, err := Open(bounded(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func openFile(t testing.TB, text string) (*Directory, error) {
	t.Helper()
	return Open(bounded(t), Config{Policies: recordsSet(t), Sources: Sources{Files: []string{write(t, t.TempDir(), "users.yaml", text)}}})
}

const bobYAML = `# who we know
entities:
  - type: Records::user
    id: bob   # the first
    attributes:
      role: "admin"
      level: 3
      active: true
      limit: 1.10
      since: 2026-01-31
      teams: [ops, "dev"]
      grade: {type: Records::level, id: low}
      manager:
        type: Records::user
        id: eve
      address:
        street: |
          Long Street
          # not a comment
          - not an entity
    tags: {room: "12"}
    parents:
      - {type: Records::team, id: ops}

# another
  - type: Records::team
    id: ops
`

const bobJSON = `[
 {"uid":{"type":"Records::user","id":"bob"},
  "attrs":{"role":"admin","level":3,"active":true,"limit":{"__extn":{"fn":"decimal","arg":"1.1"}},"since":{"__extn":{"fn":"datetime","arg":"2026-01-31"}},
   "teams":["ops","dev"],"grade":{"__entity":{"type":"Records::level","id":"low"}},"manager":{"__entity":{"type":"Records::user","id":"eve"}},
   "address":{"street":"Long Street\n# not a comment\n- not an entity\n"}},
  "tags":{"room":"12"},
  "parents":[{"type":"Records::team","id":"ops"}]},
 {"uid":{"__entity":{"type":"Records::team","id":"ops"}},"attrs":{},"parents":[],"tags":{}}
]`

func bob() types.Entity {
	return types.Entity{
		UID: uid("user", "bob"),
		Attributes: types.NewRecord(types.RecordMap{
			"role": types.String("admin"), "level": types.Long(3), "active": types.True, "limit": must(types.ParseDecimal("1.1")),
			"since": must(types.ParseDatetime("2026-01-31")), "teams": types.NewSet(types.String("ops"), types.String("dev")),
			"grade": uid("level", "low"), "manager": uid("user", "eve"),
			"address": types.NewRecord(types.RecordMap{"street": types.String("Long Street\n# not a comment\n- not an entity\n")}),
		}),
		Tags:    types.NewRecord(types.RecordMap{"room": types.String("12")}),
		Parents: types.NewEntityUIDSet(uid("team", "ops")),
	}
}

func TestFormsOfFilesMeanTheSame(t *testing.T) {
	t.Parallel()
	ours := strings.ReplaceAll(bobJSON, `"attrs"`, `"attributes"`)
	ours = strings.ReplaceAll(ours, `"uid":{"type":"Records::user","id":"bob"}`, `"type":"Records::user","id":"bob"`)
	ours = `{"entities":` + strings.ReplaceAll(ours, `"uid":{"__entity":{"type":"Records::team","id":"ops"}}`, `"type":"Records::team","id":"ops"`) + `}`
	for name, text := range map[string]string{
		"YAML":               bobYAML,
		"YAML of Windows":    "\xef\xbb\xbf" + strings.ReplaceAll(strings.ReplaceAll(bobYAML, "\n", "\r\n"), "|\r\n          Long Street\r\n          # not a comment\r\n          - not an entity\r\n", "\"Long Street\\n# not a comment\\n- not an entity\\n\"\r\n"),
		"YAML, not indented": strings.ReplaceAll(strings.ReplaceAll(bobYAML, "\n  ", "\n"), "entities:", "---\nentities:"),
		"Cedar":              bobJSON,
		"JSON":               ours,
	} {
		d, err := openFile(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, _ := d.World().Entity(uid("user", "bob"))
		if !got.Equal(bob()) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got, bob())
		}
		if team, ok := d.World().Entity(uid("team", "ops")); !ok || !team.Equal(types.Entity{UID: uid("team", "ops")}) {
			t.Errorf("%s: team: %v", name, team)
		}
	}
}

// Files are strict: what they say wrong is an error that says where, and what
// was probably meant.
func TestFilesAreStrict(t *testing.T) {
	t.Parallel()
	user := func(rest string) string {
		return "entities:\n- type: Records::user\n  id: bob\n  attributes: {role: a}\n" + rest
	}
	for _, tt := range []struct{ name, text, want string }{
		{"key", "entities:\n- type: Records::user\n  id: bob\n  atributes: {role: a}\n", `users.yaml:2: the entity: "atributes" is not known: an entity has type, id, attributes, parents and tags`},
		{"file", "entites:\n- type: Records::user\n", `users.yaml:1: the file does not begin with "entities:" and a list below it`},
		{"another key", user("groups: []\n"), `users.yaml:5: this is not a part of the list of entities, and nothing else is known`},
		{"two documents", user("---\nentities: []\n"), `users.yaml:5: this is not a part`},
		{"not a list", "entities:\n  bob: {}\n", `users.yaml:2: this is not a part`},
		{"no list either", "entities: {}\n", `users.yaml:1: the file does not begin`},
		{"an item too far left", "entities:\n   - {type: Group, id: a}\n - {type: Group, id: b}\n", `users.yaml:3: this is not a part`},
		{"after an empty list", "entities: []\n- type: a\n", `users.yaml:2: this is not a part`},
		{"type", "entities:\n- type: Records::usr\n  id: bob\n", `users.yaml:2: Records::usr::"bob": the schema has no entity type Records::usr; did you mean "Records::user"?`},
		{"no type", "entities:\n- id: bob\n", `users.yaml:2: the entity: type is missing`},
		{"no id", "entities:\n- type: Records::user\n", `users.yaml:2: the entity: id is missing`},
		{"an id that is empty", "entities:\n- {type: Records::user, id: ''}\n", `users.yaml:2: the entity: id is empty`},
		{"an id that is a number", "entities:\n- {type: Records::user, id: 7}\n", `users.yaml:2: the entity: id is not a string: put it in quotes`},
		{"a type that is none", "entities:\n- {type: 'a b', id: x}\n", `users.yaml:2: the entity: invalid entity type`},
		{"an action", "entities:\n- {type: Action, id: x}\n", `is an action, and actions are the schema's`},
		{"an enumerated type", "entities:\n- {type: Records::level, id: low}\n", `the schema itself lists the entities of this type`},
		{"attribute", "entities:\n- {type: Records::user, id: bob, attributes: {rol: a}}\n", `users.yaml:2: Records::user::"bob": rol is not known; did you mean "role"?`},
		{"required attribute", "entities:\n# x\n- {type: Records::user, id: bob}\n", `users.yaml:3: Records::user::"bob": role is missing`},
		{"wrong type", "entities:\n- {type: Records::user, id: bob, attributes: {role: 1}}\n", `role is not a string`},
		{"null", "entities:\n- {type: Records::user, id: bob, attributes: {role: ~}}\n", `role is null; leave out what has no value`},
		{"not listed", "entities:\n- {type: Records::user, id: bob, attributes: {role: a, grade: {type: Records::level, id: mid}}}\n", `grade is not one of the entities that Records::level lists`},
		{"parent type", user("  parents: [{type: Group, id: g}]\n"), `parents.0: an entity of type Records::user cannot be in one of type Group; the schema lets it be in Records::team`},
		{"no parents at all", "entities:\n- {type: Group, id: g, parents: [{type: Group, id: h}]}\n", `parents.0: an entity of type Group cannot be in one of type Group; the schema lets it be in none`},
		{"a parent that is none", user("  parents: [ops]\n"), `parents.0: is not an entity: {"type": "…", "id": "…"}`},
		{"parents that are no list", user("  parents: {type: Records::team, id: ops}\n"), `parents is not an array`},
		{"an id alone", "entities:\n- {type: Records::user, id: bob, attributes: {role: a, manager: eve}}\n", `manager is not an entity: {"type": "…", "id": "…"}`},
		{"a parent that is not listed", "entities:\n- {type: Records::room, id: r, parents: [{type: Records::level, id: mid}]}\n", `parents.0: Records::level lists no such entity`},
		{"tags", "entities:\n- {type: Records::team, id: t, tags: {a: b}}\n", `tags: a is not known`},
		{"wrong tags", user("  tags: {a: 1}\n"), `tags: a is not a string`},
		{"twice", user("") + "- {type: Records::user, id: bob, attributes: {role: b}}\n", `users.yaml:5: Records::user::"bob": is already at users.yaml:2`},
		{"a key twice", "entities:\n- type: Records::user\n  id: bob\n  id: eve\n", `users.yaml:4: mapping key "id" already defined`},
		{"a key twice in JSON", "entities:\n- {\"type\": \"Group\", \"id\": \"a\", \"id\": \"b\"}\n", `users.yaml:2: mapping key "id" already defined`},
		{"a circle", "entities:\n- {type: Records::team, id: a, parents: [{type: Records::team, id: b}]}\n- {type: Records::team, id: b, parents: [{type: Records::team, id: a}]}\n", `is in itself`},
		{"anchor", user("  tags: &x {}\n"), `users.yaml:5: anchors, aliases, tags and merged keys are not known here`},
		{"tag", "entities:\n- type: !!str Group\n  id: a\n", `users.yaml:2: anchors, aliases, tags and merged keys are not known here`},
		{"merge", "entities:\n- type: Group\n  id: a\n  <<: {a: b}\n", `users.yaml:4: a key is text`},
		{"octal", "entities:\n- {type: Records::user, id: a, attributes: {role: a, level: 007}}\n", `users.yaml:2: write the number in plain digits, or in quotes if it is text`},
		{"underscore", "entities:\n- {type: Records::user, id: a, attributes: {role: a, level: 1_000}}\n", `users.yaml:2: write the number in plain digits, or in quotes if it is text`},
		{"infinite", "entities:\n- {type: Records::user, id: a, attributes: {role: a, level: .inf}}\n", `not known here`},
		{"tab", "entities:\n-\ttype: Group\n\tid: a\n", `users.yaml:2: this is not a part`},
		{"broken", "entities:\n- type: \"Group\n  id: a\n", `users.yaml:2:`},
		{"empty item", "entities:\n-\n- {type: Group, id: a}\n", `users.yaml:2`},
		{"a list in the list", "entities:\n- - type: Group\n    id: a\n", `users.yaml:2: the entity: is not an object`},
		{"deep", "entities:\n- " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n", `users.yaml:2: the entity is nested more than 1000 times`},
		{"deep dashes", "entities:\n- " + strings.Repeat("- ", 5000) + "a\n", `users.yaml:2: the entity is nested more than 1000 times`},
		{"large", "entities:\n- type: Group\n  id: " + strings.Repeat("x", 1<<20) + "\n", `users.yaml:2: the entity that begins here is larger than 1048576 bytes`},
		{"JSON", `[{"type":"Group","id":"a"},{"type":"Group"}]`, `users.yaml:1: the entity: id is missing`},
		{"JSON, second line", "[{\"type\":\"Group\",\"id\":\"a\"}\n,\n{\"type\":\"Group\"}]", `users.yaml:3: the entity: id is missing`},
		{"JSON, broken", "[{\"type\":\"Group\",\"id\":\"a\"},\n{\"type\":\"Group\",]", `users.yaml:2: the entity that begins here is not valid JSON`},
		{"JSON, cut", `[{"type":"Group","id":"a"}`, `users.yaml:1: the entity that begins here is not valid JSON`},
		{"JSON, more", `[{"type":"Group","id":"a"}] []`, `there is something after the entities`},
		{"JSON, another key", `{"entities":[],"x":1}`, `there is something else beside the entities`},
		{"JSON, an object", `{"x":[]}`, `the file is not a list of entities`},
		{"JSON, no list", `{"entities":{}}`, `the entities are not a list`},
		{"forms mixed", `[{"uid":{"type":"Group","id":"a"},"id":"b"}]`, `mixes two forms`},
		{"forms mixed again", `[{"type":"Group","id":"a","attrs":{}}]`, `mixes two forms`},
		{"uid", `[{"uid":{"type":"Group","id":"a","x":1}}]`, `uid is not an entity`},
		{"uid and more", `[{"uid":{"__entity":{"type":"Group","id":"a"},"x":1}}]`, `uid is not an entity`},
		{"uid in uid", `[{"uid":{"__entity":{"__entity":{"type":"Group","id":"a"}}}}]`, `uid is not an entity`},
	} {
		if d, err := openFile(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q in it", tt.name, err, tt.want)
			if err == nil {
				for _, e := range d.World().All() {
					t.Log(e)
				}
			}
		}
	}
}

func TestAllMistakesAreReportedUpToABound(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("entities:\n")
	for i := range 30 {
		fmt.Fprintf(&b, "- {type: Group, id: \"%d\", attributes: {x: 1}}\n", i)
	}
	_, err := openFile(t, b.String())
	if err == nil || strings.Count(err.Error(), "x is not known") != 10 || !strings.Contains(err.Error(), "there are more") {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsAListToo(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n# nothing\n", "entities:\n", "entities: []\n", "---\nentities:   [] # none\n# end\n", "[]", `{"entities":[]}`} {
		d, err := openFile(t, text)
		if err != nil || d.World() == nil || d.World().Len() != 0 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A directory is read with all its files, hidden ones and others left out.
func TestDirectoryOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", "entities:\n- {type: Group, id: a}\n")
	if err := os.Mkdir(filepath.Join(dir, "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "more/b.json", `[{"type":"Group","id":"b"}]`)
	write(t, dir, "more/c.yml", "entities:\n- {type: Group, id: c}\n")
	write(t, dir, ".hidden.yaml", "nonsense")
	write(t, dir, "README.md", "nonsense")
	d := open(t, Config{Sources: Sources{Files: []string{dir}}})
	if got := d.World().Len(); got != 3 {
		t.Errorf("%d entities, want 3", got)
	}
	write(t, dir, "more/d.yaml", "entities:\n- {type: Group, id: a}\n")
	if err := d.Refresh(bounded(t)); err == nil || !strings.Contains(err.Error(), `d.yaml:2: Group::"a": is already at a.yaml:2`) {
		t.Errorf("the same entity in two files: %v", err)
	}
}

func TestMissingFileIsAnError(t *testing.T) {
	t.Parallel()
	_, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: Sources{Files: []string{filepath.Join(t.TempDir(), "none.yaml")}}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(bounded(t), Config{}); err == nil {
		t.Error("a directory without policies was opened")
	}
}

// What the program itself knows joins the World. An entity that both know is an
// error, and a change of it comes into force.
func TestExtraEntities(t *testing.T) {
	t.Parallel()
	agent := func(groups ...types.EntityUID) types.EntityMap {
		a := types.NewEntityUID("Agent", "bot")
		return types.EntityMap{a: {UID: a, Parents: types.NewEntityUIDSet(groups...)}}
	}
	var mu sync.Mutex
	extra := agent()
	file := write(t, t.TempDir(), "a.yaml", "entities:\n- {type: Group, id: a}\n")
	d := open(t, Config{Sources: Sources{Files: []string{file}}, Extra: func() types.EntityMap {
		mu.Lock()
		defer mu.Unlock()
		return extra
	}})
	if d.World().Len() != 2 || d.Epoch() != 1 {
		t.Fatalf("%d entities, epoch %d", d.World().Len(), d.Epoch())
	}
	set := func(m types.EntityMap) error {
		mu.Lock()
		extra = m
		mu.Unlock()
		return d.Refresh(bounded(t))
	}
	if err := set(agent(types.NewEntityUID("Group", "a"))); err != nil || d.Epoch() != 2 {
		t.Errorf("a new group: %v, epoch %d", err, d.Epoch())
	}
	if err := set(agent(types.NewEntityUID("Group", "a"))); err != nil || d.Epoch() != 2 {
		t.Errorf("nothing new: %v, epoch %d", err, d.Epoch())
	}
	g := types.NewEntityUID("Group", "a")
	if err := set(types.EntityMap{g: {UID: g}}); err == nil || d.Epoch() != 2 || d.World().Len() != 2 {
		t.Errorf("a clash: %v, epoch %d", err, d.Epoch())
	}
	if err := set(agent()); err != nil || d.Epoch() != 3 || d.Health() != nil {
		t.Errorf("after the clash: %v, epoch %d", err, d.Epoch())
	}
}

func TestSourcesMayNotClash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := write(t, dir, "a.yaml", "entities:\n- {type: Group, id: a}\n")
	b := write(t, dir, "b.yaml", "entities:\n- {type: Group, id: a}\n")
	_, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: Sources{Files: []string{a, b}}})
	if err == nil || !strings.Contains(err.Error(), `Group::"a" is in `+b+` and in another source`) {
		t.Errorf("got %v", err)
	}
}

// A file that is wrong changes nothing, says so, and is taken over when it is
// right again. So is one that was refused because of another source.
func TestWrongFileChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const right = "entities:\n- {type: Group, id: a}\n"
	a, b := write(t, dir, "a.yaml", right), write(t, dir, "b.yaml", "entities: []\n")
	var log bytes.Buffer
	d := open(t, Config{Sources: Sources{Files: []string{a, b}}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	refresh := func(wantErr string, wantEpoch uint64, wantLen int) {
		t.Helper()
		err := d.Refresh(bounded(t))
		if wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Errorf("got %v, want %q", err, wantErr)
		}
		if d.Epoch() != wantEpoch || d.World().Len() != wantLen {
			t.Errorf("epoch %d, %d entities; want %d and %d", d.Epoch(), d.World().Len(), wantEpoch, wantLen)
		}
	}
	refresh("", 1, 1)
	write(t, dir, "a.yaml", "nonsense")
	refresh("a.yaml:1: the file does not begin", 1, 1)
	refresh("a.yaml:1: the file does not begin", 1, 1)
	if got := strings.Count(log.String(), "not taken over"); got != 1 {
		t.Errorf("the same failure was logged %d times", got)
	}
	if s := d.Stats(); s[0].Err == nil || s[0].Entities != 1 || s[0].Source != a || s[0].Kind != "files" || s[1].Err != nil {
		t.Errorf("stats: %+v", s)
	}
	write(t, dir, "a.yaml", right)
	refresh("", 1, 1)
	write(t, dir, "a.yaml", right+"- {type: Group, id: b}\n")
	refresh("", 2, 2)
	write(t, dir, "b.yaml", "entities:\n- {type: Group, id: b}\n")
	refresh(`Group::"b" is in `, 2, 2)
	write(t, dir, "a.yaml", right)
	// What stands in b was refused because of a, and a is another now.
	refresh("", 4, 2)
	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	refresh("no such file", 4, 2)
	refresh("no such file", 4, 2)
	if got := strings.Count(log.String(), "not taken over"); got != 1 {
		t.Errorf("the same failure was logged %d times", got)
	}
}

// What was refused is not looked at again until something else has changed.
func TestRefusedIsNotReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := write(t, dir, "a.yaml", "entities: []\n"), write(t, dir, "b.yaml", "entities: []\n")
	d := open(t, Config{Sources: Sources{Files: []string{a, b}}})
	spy := &spy{source: d.sources[0].source}
	d.sources[0].source = spy
	write(t, dir, "a.yaml", "nonsense")
	for range 3 {
		if d.Refresh(bounded(t)) == nil {
			t.Error("nonsense was taken over")
		}
	}
	if spy.seen[0] == spy.seen[1] || spy.seen[1] != spy.seen[2] {
		t.Errorf("it was read with %q", spy.seen)
	}
	write(t, dir, "b.yaml", "entities:\n- {type: Group, id: a}\n")
	for range 2 {
		if d.Refresh(bounded(t)) == nil {
			t.Error("nonsense was taken over")
		}
	}
	if spy.seen[4] != spy.seen[0] {
		t.Errorf("after a change it was read with %q", spy.seen)
	}
}

// A spy notes with what a source is read.
type spy struct {
	source
	seen []string
}

func (s *spy) read(ctx context.Context, seen string) ([]row, string, error) {
	s.seen = append(s.seen, seen)
	return s.source.read(ctx, seen)
}

// Follow takes changes over without being asked, and ends with its context.
func TestFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := write(t, dir, "a.yaml", "entities: []\n")
	d := open(t, Config{Sources: Sources{Files: []string{file}}, Every: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(bounded(t))
	done := make(chan struct{})
	go func() { defer close(done); d.Follow(ctx) }()
	write(t, dir, "a.yaml", "entities:\n- {type: Group, id: a}\n")
	waitFor(t, func() bool { return d.World().Len() == 1 })
	cancel()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("Follow goes on after its context")
	}
}

// waitFor polls until something holds, for a time that is bounded.
func waitFor(t testing.TB, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatal("it does not come about")
		case <-tick.C:
		}
	}
}

// A file that changes while it is looked at is not believed: half of it could be
// a whole list that lacks somebody.
func TestFileThatIsBeingWrittenIsNotBelieved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(n int) string { return fmt.Sprintf("entities:\n- {type: Group, id: \"%d\"}\n", n) }
	d := open(t, Config{Sources: Sources{Files: []string{write(t, dir, "a.yaml", version(0))}}})
	ctx, cancel := context.WithCancel(bounded(t))
	var writer sync.WaitGroup
	begun := make(chan struct{})
	writer.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			write(t, dir, "a.yaml", version(n))
			if n == 1 {
				close(begun)
			}
		}
	})
	<-begun
	if err := d.Refresh(ctx); err == nil || !strings.Contains(err.Error(), "it is being written") || d.Epoch() != 1 {
		t.Errorf("got %v, epoch %d", err, d.Epoch())
	}
	cancel()
	writer.Wait()
	if err := d.Refresh(bounded(t)); err != nil || d.Epoch() != 2 {
		t.Errorf("once it is written: %v, epoch %d", err, d.Epoch())
	}
}

// Other policies bring another schema. Entities that do not fit it keep it from
// coming into force.
func TestPoliciesBringASchema(t *testing.T) {
	t.Parallel()
	d, err := openFile(t, "entities:\n- {type: Records::user, id: bob, attributes: {role: admin, level: 3}}\n")
	if err != nil {
		t.Fatal(err)
	}
	before := d.View()
	changed := newSet(t, strings.Replace(recordsSchema, "level?: Long", "level?: String", 1), "")
	if err := d.SetPolicies(changed); err == nil || !strings.Contains(err.Error(), "level is not a string") {
		t.Errorf("got %v", err)
	}
	if d.View() != before {
		t.Error("policies that were refused have changed the view")
	}
	wider := newSet(t, strings.Replace(recordsSchema, "role: String", "role: String, phone?: String", 1), "")
	if err := d.SetPolicies(wider); err != nil {
		t.Fatal(err)
	}
	if v := d.View(); v.Policies() != wider || v.Epoch() != before.Epoch()+1 || v.World().Len() != 1 {
		t.Errorf("view %d of %v", v.Epoch(), v.Policies())
	}
	gone := newSet(t, "entity Agent; entity Group; action read appliesTo {principal: [Agent], resource: [Group], context: {}};", "")
	if err := d.SetPolicies(gone); err == nil || !strings.Contains(err.Error(), "the schema has no entity type Records::user") {
		t.Errorf("got %v", err)
	}
}

// Readers never wait and never see half of a change.
func TestReadersSeeWholeWorlds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(n int) string {
		return fmt.Sprintf("entities:\n- {type: Records::user, id: a, attributes: {role: \"%d\"}}\n- {type: Records::user, id: b, attributes: {role: \"%d\"}}\n", n, n)
	}
	d := open(t, Config{Sources: Sources{Files: []string{write(t, dir, "a.yaml", version(0))}}})
	ctx, cancel := context.WithCancel(bounded(t))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := uint64(0)
			for ctx.Err() == nil {
				v := d.View()
				a, _ := v.World().Entity(uid("user", "a"))
				b, _ := v.World().Entity(uid("user", "b"))
				if !a.Attributes.Equal(b.Attributes) || v.Epoch() < last {
					t.Error("a reader saw half of a change, or an old one")
					return
				}
				last = v.Epoch()
			}
		})
	}
	for n := range 5 {
		write(t, dir, "a.yaml", version(n+1))
		if err := d.Refresh(ctx); err != nil {
			t.Error(err)
		}
	}
	cancel()
	readers.Wait()
	if d.Epoch() != 6 {
		t.Errorf("epoch %d, want 6", d.Epoch())
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	d, err := openFile(t, "entities:\n- {type: Group, id: c}\n- {type: Group, id: a}\n- {type: Group, id: b}\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		after string
		limit int
		want  string
	}{
		{"", 2, "a b"}, {"b", 2, "c"}, {"c", 2, ""}, {"", 100, "a b c"}, {"aa", 1, "b"}, {"", 0, ""}, {"", -1, ""}, {"zz", 5, ""},
	} {
		uids, err := d.List(bounded(t), "Group", tt.after, tt.limit)
		var ids []string
		for _, u := range uids {
			ids = append(ids, string(u.ID))
		}
		if got := strings.Join(ids, " "); got != tt.want || err != nil {
			t.Errorf("after %q, %d: %q, %v; want %q", tt.after, tt.limit, got, err, tt.want)
		}
	}
	if uids, err := d.List(bounded(t), "Nobody", "", 1); len(uids) != 0 || err != nil {
		t.Errorf("a type without entities: %v, %v", uids, err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	e := func(id, role string) types.Entity {
		return types.Entity{UID: uid("user", id), Attributes: types.NewRecord(types.RecordMap{"role": types.String(role)})}
	}
	m := func(es ...types.Entity) types.EntityMap {
		out := types.EntityMap{}
		for _, e := range es {
			out[e.UID] = e
		}
		return out
	}
	got := Diff(m(e("a", "x"), e("b", "x"), e("c", "x")), m(e("b", "x"), e("c", "y"), e("d", "x"), e("e", "x")))
	if want := (Change{Added: 2, Removed: 1, Changed: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What is written is read back as the same, and the same entities are the same
// bytes.
func TestWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	d, err := openFile(t, bobYAML)
	if err != nil {
		t.Fatal(err)
	}
	all := types.EntityMap{}
	for uid, e := range d.World().All() {
		all[uid] = e
	}
	odd := types.Entity{UID: uid("team", "a\"\\\u2028\x01😀: #- {"), Parents: types.NewEntityUIDSet(uid("team", "z"), uid("team", "ops"))}
	all[odd.UID] = odd
	var first, second bytes.Buffer
	if err := Write(&first, all); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		second.Reset()
		if err := Write(&second, all); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("written again: %v", err)
		}
	}
	for name, text := range map[string]string{"as it is": first.String(), "through YAML": strings.ReplaceAll(first.String(), `- {"type":`, `- {type: `)} {
		again, err := openFile(t, text)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		if c := Diff(all, again.View().all()); c != (Change{}) {
			t.Errorf("%s: %+v\n%s", name, c, text)
		}
	}
	var none bytes.Buffer
	if err := Write(&none, nil); err != nil || none.String() != "entities: []\n" {
		t.Errorf("%q, %v", none.String(), err)
	}
}

// all are the entities of the World.
func (v *View) all() types.EntityMap {
	m := types.EntityMap{}
	for uid, e := range v.world.All() {
		m[uid] = e
	}
	return m
}

func TestImport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := write(t, dir, "from.yaml", bobYAML), filepath.Join(dir, "to.yaml")
	set := recordsSet(t)
	for _, want := range []Change{{Added: 2}, {}} {
		got, err := Import(bounded(t), Sources{Files: []string{from}}, set, to)
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	write(t, dir, "from.yaml", "nonsense")
	before := must(os.ReadFile(to))
	if _, err := Import(bounded(t), Sources{Files: []string{from}}, set, to); err == nil || !bytes.Equal(before, must(os.ReadFile(to))) {
		t.Errorf("import of nonsense: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".entities-*"))
	if len(left) > 0 {
		t.Errorf("files are left over: %v", left)
	}
}

// FuzzParse: nothing that stands in a file panics, and what is taken is taken
// again when it has been written.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		bobYAML, bobJSON, "entities: []", "", "entities:\n- {\"type\":\"Group\",\"id\":\"a\"}\n", "entities:\n- type: Group\n  id: |\n    a\n   b\n",
		"entities:\n- a: &x [*x]\n", "entities:\n  - ? [\n", "[{}]", `{"entities":[{"uid":{}}]}`, "entities:\n- !!binary x\n", "entities:\n-\n- - -\n", "entities:\n- \"a\n  b\"\n",
	} {
		f.Add([]byte(seed))
	}
	set := recordsSet(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		rows, err := parse("f", text)
		if err != nil {
			return
		}
		m, err := typeRows(rows, set.Schema())
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, m); err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		rows, err = parse("f", b.Bytes())
		if err != nil {
			t.Fatalf("read what was written: %v\n%s", err, b.Bytes())
		}
		again, err := typeRows(rows, set.Schema())
		if err != nil || Diff(m, again) != (Change{}) {
			t.Fatalf("read what was written: %+v, %v\n%s", Diff(m, again), err, b.Bytes())
		}
	})
}

func manyEntities(n int) types.EntityMap {
	m := make(types.EntityMap, n)
	for i := range n {
		e := types.Entity{
			UID:        uid("user", fmt.Sprintf("user-%d", i)),
			Attributes: types.NewRecord(types.RecordMap{"role": types.String("member"), "level": types.Long(i % 5)}),
			Parents:    types.NewEntityUIDSet(uid("team", fmt.Sprint(i%1000))),
		}
		m[e.UID] = e
	}
	return m
}

// BenchmarkLoad reads 100,000 entities from a file and publishes them.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	m := manyEntities(n)
	var lines bytes.Buffer
	if err := Write(&lines, m); err != nil {
		b.Fatal(err)
	}
	var people strings.Builder
	people.WriteString("entities:\n")
	for _, e := range m {
		level, _ := e.Attributes.Get("level")
		fmt.Fprintf(&people, "  - type: Records::user\n    id: %s\n    attributes:\n      role: member\n      level: %v\n    parents:\n", e.UID.ID, level)
		for p := range e.Parents.All() {
			fmt.Fprintf(&people, "      - {type: Records::team, id: \"%s\"}\n", p.ID)
		}
	}
	for name, text := range map[string]string{"lines": lines.String(), "yaml": people.String()} {
		b.Run(name, func(b *testing.B) {
			file := write(b, b.TempDir(), "users.yaml", text)
			set := recordsSet(b)
			b.ReportAllocs()
			for b.Loop() {
				d, err := Open(b.Context(), Config{Policies: set, Sources: Sources{Files: []string{file}}})
				if err != nil || d.World().Len() != n {
					b.Fatal(err)
				}
			}
		})
	}
}
