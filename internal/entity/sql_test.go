//go:build unix

package entity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/goccy/go-yaml"

	"github.com/bailiwick-dev/bailiwick/test/postgres"
)

// A store is a database that a test fills.
type store struct {
	conf SQL
	// exec runs statements in it.
	exec func(t testing.TB, statements ...string)
	// of chooses between what is written for PostgreSQL and for SQLite.
	of func(postgres, sqlite string) string
}

// sources are the store with queries. The patience is that of a machine with
// too much to do.
func (s store) sources(types map[string]SQLType) Sources { return s.patient(30*time.Second, types) }

func (s store) patient(timeout time.Duration, types map[string]SQLType) Sources {
	c := s.conf
	c.Types, c.Timeout, c.Refresh = types, timeout, leastRefresh
	return Sources{SQL: []SQL{c}}
}

func newSQLite(t testing.TB) store {
	file := filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := store{
		conf: SQL{Driver: "sqlite", File: file},
		exec: func(t testing.TB, statements ...string) {
			t.Helper()
			for _, q := range statements {
				if _, err := db.ExecContext(bounded(t), q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
		},
		of: func(_, sqlite string) string { return sqlite },
	}
	s.exec(t, "PRAGMA journal_mode=WAL")
	return s
}

func newPostgres(t testing.TB, server *postgres.Server) store {
	dsn := server.Database(t)
	return store{
		conf: SQL{Driver: "postgres", DSNFile: write(t, t.TempDir(), "db.dsn", dsn+"\n")},
		exec: func(t testing.TB, statements ...string) { t.Helper(); server.Exec(t, dsn, statements...) },
		of:   func(postgres, _ string) string { return postgres },
	}
}

const (
	oneUser = `SELECT id, role, level, active, lim AS "limit", since, teams, grade, manager, address, member_of AS parents FROM users WHERE id = $1`
	allUser = `SELECT id, role, level, active, lim AS "limit", since, teams, grade, manager, address, member_of AS parents FROM users`
	oneTeam = `SELECT id, parents FROM teams WHERE id = $1;`
	oneDoc  = `SELECT id, owner, folder AS parents FROM documents WHERE id = $1 -- a comment`
)

// fill makes the tables of the suite: bob of bobYAML, his manager eve, and teams
// in teams in a department.
func (s store) fill(t testing.TB) {
	t.Helper()
	array := s.of("text[]", "TEXT")
	json := s.of("jsonb", "TEXT")
	list := func(items ...string) string {
		if s.of("p", "s") == "p" {
			return "'{" + strings.Join(items, ",") + "}'"
		}
		return `'["` + strings.Join(items, `","`) + `"]'`
	}
	s.exec(t,
		"CREATE TABLE users (id TEXT PRIMARY KEY, role TEXT, level INTEGER, active BOOLEAN, lim "+s.of("numeric(10,4)", "REAL")+", since "+
			s.of("timestamptz", "DATETIME")+", teams "+array+", grade TEXT, manager TEXT, address "+json+", member_of "+array+")",
		`INSERT INTO users VALUES ('bob', 'admin', 3, true, 1.10, '2026-01-31T00:00:00Z', `+list("ops", "dev")+`, 'low', 'eve',
			'{"street": "Long Street\n# not a comment\n- not an entity\n"}', `+list("ops")+`)`,
		"INSERT INTO users (id, role, manager) VALUES ('eve', 'admin', 'max'), ('max', 'member', NULL)",
		"CREATE TABLE teams (id TEXT, parents "+json+")",
		`INSERT INTO teams VALUES ('ops', '[{"type":"Records::team","id":"it"}]'), ('it', '[{"type":"Records::department","id":"central"}]')`,
		"CREATE TABLE documents (id "+s.of("bigint", "INTEGER")+" PRIMARY KEY, owner TEXT, folder "+array+")",
		"INSERT INTO documents VALUES (7, 'bob', "+list("root")+"), (8, 'nobody', NULL)",
	)
}

func lookupTypes() map[string]SQLType {
	return map[string]SQLType{"Records::user": {One: oneUser}, "Records::team": {One: oneTeam}, "Records::document": {One: oneDoc}}
}

// TestSQLite and TestPostgreSQL are one suite for both databases.
func TestSQLite(t *testing.T) {
	t.Parallel()
	suite(t, func(t testing.TB) store { return newSQLite(t) })
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	server := postgres.Start(t)
	suite(t, func(t testing.TB) store { return newPostgres(t, server) })
	t.Run("types fit each other", func(t *testing.T) { testIsolation(t, newPostgres(t, server)) })
	t.Run("credentials are read again", func(t *testing.T) { testCredentials(t, newPostgres(t, server)) })
}

// group is the id of the only group in the World.
func group(d *Directory) string {
	for _, g := range d.World().OfType("Group") {
		return string(g.ID)
	}
	return ""
}

// All types are read from one state of the database.
func testIsolation(t *testing.T, s store) {
	d := open(t, Config{Sources: s.sources(map[string]SQLType{"Group": {All: "SELECT current_setting('transaction_isolation') AS id"}})})
	if got := group(d); got != "repeatable read" {
		t.Errorf("types are read in a transaction that is %q", got)
	}
}

// Another user and password in the file are those of the next connection.
func testCredentials(t *testing.T, s store) {
	s.exec(t, "CREATE ROLE other LOGIN")
	d := open(t, Config{Sources: s.sources(map[string]SQLType{"Group": {All: "SELECT current_user::text AS id"}})})
	if got := group(d); got != "postgres" {
		t.Errorf("the user is %q", got)
	}
	write(t, filepath.Dir(s.conf.DSNFile), filepath.Base(s.conf.DSNFile), strings.Replace(must(s.conf.dsn()), "user=postgres", "user=other", 1))
	d.sources[0].source.(*database).db.SetMaxIdleConns(0) // ends the connections
	if err := d.Refresh(bounded(t)); err != nil || group(d) != "other" {
		t.Errorf("the user is %q, %v", group(d), err)
	}
}

func suite(t *testing.T, fresh func(testing.TB) store) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, store)
	}{
		{"columns are typed by the schema", testColumns},
		{"fetch finds what policies may look at", testFetch},
		{"absent is not an error", testAbsent},
		{"the World is read again", testRefresh},
		{"lists come in pages", testSQLList},
		{"lies are errors", testLies},
		{"lies at a lookup are errors", testLookupLies},
		{"nothing is written", testReadOnly},
		{"wrong queries are seen at the start", testWrongQueries},
		{"many at a time", testConcurrent},
		{"fetch is bounded", testBounds},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := fresh(t)
			s.fill(t)
			tt.run(t, s)
		})
	}
}

func testColumns(t *testing.T, s store) {
	want := bob()
	want.Tags = types.Record{}
	d := open(t, Config{Sources: s.sources(map[string]SQLType{"Records::user": {All: allUser}})})
	if got, _ := d.World().Entity(want.UID); !got.Equal(want) {
		t.Errorf("all:\ngot  %v\nwant %v", got, want)
	}
	if d.World().Len() != 3 || d.Lookup("Records::user") {
		t.Errorf("%d entities, lookup %v", d.World().Len(), d.Lookup("Records::user"))
	}
	d = open(t, Config{Sources: s.sources(lookupTypes())})
	got, err := d.Fetch(bounded(t), want.UID)
	if err != nil || !got[want.UID].Equal(want) {
		t.Errorf("one:\ngot  %v, %v\nwant %v", got[want.UID], err, want)
	}
	if d.World().Len() != 0 || !d.Lookup("Records::user") {
		t.Errorf("%d entities, lookup %v", d.World().Len(), d.Lookup("Records::user"))
	}
	// What all doesn't hold is looked up.
	both := s.sources(map[string]SQLType{"Records::user": {All: allUser + " WHERE id <> 'bob'", One: oneUser}})
	d = open(t, Config{Sources: both})
	if got, err := d.Fetch(bounded(t), want.UID, uid("user", "eve")); err != nil || len(got) != 1 || !got[want.UID].Equal(want) {
		t.Errorf("both: %v, %v", got, err)
	}
}

func ids(m types.EntityMap) string {
	var out []string
	for _, t := range []types.EntityType{"Records::user", "Records::team", "Records::document", "Records::folder"} {
		for _, e := range sortedOf(m, t) {
			out = append(out, string(e.ID))
		}
	}
	return strings.Join(out, " ")
}

func sortedOf(m types.EntityMap, t types.EntityType) []types.EntityUID {
	var out []types.EntityUID
	for uid := range m {
		if uid.Type == t {
			out = append(out, uid)
		}
	}
	for i := range out {
		for j := i; j > 0 && out[j].ID < out[j-1].ID; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

func testFetch(t *testing.T, s store) {
	file := write(t, t.TempDir(), "a.yaml", `entities:
- {type: Records::document, id: mine, attributes: {owner: {type: Records::user, id: bob}}, parents: [{type: Records::folder, id: f}]}
- {type: Records::folder, id: f}
- {type: Records::team, id: it, parents: [{type: Records::team, id: world}]}
`)
	types := lookupTypes()
	src := s.sources(types)
	d := open(t, Config{Sources: src})
	for _, tt := range []struct {
		name, policies string
		uids           string
		want           string
	}{
		{"itself and what it is in", ``, "user bob", "bob it ops"},
		{"owners", `@id("a") permit (principal, action, resource is Records::document) when { resource.owner.role == "x" };`, "document 7", "bob it ops 7"},
		{"owners are not looked at", ``, "document 7", "7"},
		{"owners in a team", `@id("a") permit (principal, action, resource is Records::document) when { resource.owner in Records::team::"x" };`, "document 7", "bob it ops 7"},
		{"managers of owners", managers, "document 7", "bob eve it ops 7"},
		{"an owner who is not there", managers, "document 8", "8"},
		{"two", ``, "user bob user eve user bob", "bob eve it ops"},
		{"named", `@id("a") forbid (principal, action, resource) unless { Records::user::"max".role == "admin" };`, "user nobody", "max"},
		{"named in a list only", `@id("a") forbid (principal, action, resource) when { principal == Records::user::"max" };`, "user nobody", ""},
		{"another type", ``, "folder f", ""},
	} {
		set := newSet(t, recordsSchema, tt.policies)
		if err := d.SetPolicies(set); err != nil {
			t.Fatal(err)
		}
		got, err := d.Fetch(bounded(t), readUIDs(tt.uids)...)
		if err != nil || ids(got) != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.name, ids(got), err, tt.want)
		}
	}
	// What the World holds leads to what is looked up.
	delete(types, "Records::document")
	types["Records::team"] = SQLType{One: "SELECT id, parents FROM teams WHERE id = $1 AND id <> 'world' UNION ALL SELECT 'world', NULL WHERE 'world' = $1"}
	src = s.sources(types)
	src.Files = []string{file}
	d = open(t, Config{Sources: src})
	if got, err := d.Fetch(bounded(t), uid("document", "mine")); err != nil || ids(got) != "bob eve ops world" {
		t.Errorf("from the World: got %q, %v", ids(got), err)
	}
}

func readUIDs(text string) []types.EntityUID {
	var out []types.EntityUID
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		out = append(out, uid(types.EntityType(words[i]), words[i+1]))
	}
	return out
}

func testAbsent(t *testing.T, s store) {
	d := open(t, Config{Sources: s.sources(lookupTypes())})
	for _, id := range []string{"nobody", "' OR 1=1 --", "BOB", "bob ", strings.Repeat("x", 1<<16), "é😀\u2028"} {
		got, err := d.Fetch(bounded(t), uid("user", id))
		if err != nil || len(got) != 0 {
			t.Errorf("%.20q: %v, %v", id, got, err)
		}
	}
	// An id that a column or the protocol cannot hold may be an error. It is not
	// the database's, and others are still found.
	for _, u := range []types.EntityUID{uid("document", "x"), uid("document", "99999999999999999999"), uid("user", "a\x00b"), uid("user", "\xff")} {
		if got, err := d.Fetch(bounded(t), u); len(got) != 0 {
			t.Errorf("%v: %v, %v", u, got, err)
		}
	}
	if got, err := d.Fetch(bounded(t), uid("user", "bob")); err != nil || len(got) == 0 || d.Health() != nil {
		t.Errorf("afterwards: %v, %v, health %v", got, err, d.Health())
	}
}

func testRefresh(t *testing.T, s store) {
	d := open(t, Config{Sources: s.sources(map[string]SQLType{"Records::user": {All: allUser}}), Every: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(bounded(t))
	var follow sync.WaitGroup
	follow.Go(func() { d.Follow(ctx) })
	role := func() string {
		e, _ := d.World().Entity(uid("user", "bob"))
		r, _ := e.Attributes.Get("role")
		return fmt.Sprint(r)
	}
	s.exec(t, "UPDATE users SET role = 'member' WHERE id = 'bob'")
	waitFor(t, func() bool { return role() == "member" })
	epoch := d.Epoch()
	s.exec(t, "DELETE FROM users WHERE id = 'eve'", "UPDATE users SET role = 'x' WHERE id = 'bob'")
	waitFor(t, func() bool { return role() == "x" })
	if d.Epoch() <= epoch {
		t.Errorf("epoch %d after %d", d.Epoch(), epoch)
	}
	waitFor(t, func() bool { return d.World().Len() == 2 })
	// What becomes wrong changes nothing.
	s.exec(t, "UPDATE users SET role = NULL WHERE id = 'bob'")
	waitFor(t, func() bool { return d.Health() != nil })
	if role() != "x" || !strings.Contains(d.Health().Error(), "role is missing") {
		t.Errorf("role %s, health %v", role(), d.Health())
	}
	s.exec(t, "UPDATE users SET role = 'y' WHERE id = 'bob'")
	waitFor(t, func() bool { return role() == "y" && d.Health() == nil })
	cancel()
	follow.Wait()
}

func testSQLList(t *testing.T, s store) {
	list := "SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2"
	d := open(t, Config{Sources: s.sources(map[string]SQLType{
		"Records::user": {One: oneUser, List: list}, "Records::team": {One: oneTeam}, "Records::document": {All: strings.Split(oneDoc, " WHERE")[0]},
	})})
	for _, tt := range []struct{ typ, after, want string }{
		{"user", "", "bob eve"}, {"user", "eve", "max"}, {"user", "max", ""}, {"document", "", "7 8"}, {"document", "7", "8"},
	} {
		got, err := d.List(bounded(t), types.EntityType("Records::"+tt.typ), tt.after, 2)
		var ids []string
		for _, u := range got {
			ids = append(ids, string(u.ID))
		}
		if strings.Join(ids, " ") != tt.want || err != nil {
			t.Errorf("%s after %q: %v, %v", tt.typ, tt.after, ids, err)
		}
	}
	if _, err := d.List(bounded(t), "Records::team", "", 1); !errors.Is(err, ErrNoList) {
		t.Errorf("without a query: %v", err)
	}
	d = open(t, Config{Sources: s.sources(map[string]SQLType{"Records::user": {One: oneUser, List: "SELECT 'bob' AS id WHERE $1 = $1 AND $2 > 0"}})})
	if _, err := d.List(bounded(t), "Records::user", "bob", 5); err == nil {
		t.Error("a list that never ends was taken")
	}
}

// What a table says in full that cannot be is an error at the start, and names
// the entity.
func testLies(t *testing.T, s store) {
	for _, tt := range []struct{ name, typ, query, want string }{
		{"wrong type", "Records::user", "SELECT id, 1 AS role FROM users", "role is not a string"},
		{"no role", "Records::user", "SELECT id FROM users", "role is missing"},
		{"null", "Records::user", "SELECT id, NULL AS role FROM users", "role is missing"},
		{"unknown column", "Records::user", "SELECT id, role, 1 AS secrets FROM users", "secrets is not known"},
		{"no id", "Records::user", "SELECT role FROM users", "row 1 has no id"},
		{"id is null", "Records::user", "SELECT NULL AS id, role FROM users", "neither text nor an integer"},
		{"id is empty", "Records::user", "SELECT '' AS id, role FROM users", "has no id"},
		{"id is a fraction", "Records::user", "SELECT 1.5 AS id, role FROM users", "neither text nor an integer"},
		{"id twice", "Records::user", "SELECT 'bob' AS id, role FROM users", `Records::user::"bob": is already at`},
		{"a column twice", "Records::user", "SELECT id, role, 'x' AS role FROM users", s.of("has a key twice", "role:1 is not known")},
		{"a truth value that is none", "Records::user", "SELECT id, role, 2 AS active FROM users", "active is not true or false"},
		{"too many places", "Records::user", `SELECT id, role, 1.23456 AS "limit" FROM users`, "limit is not a decimal number"},
		{"a time without a zone", "Records::user", "SELECT id, role, '2026-01-31T00:00:00' AS since FROM users", "since is not a date-time"},
		{"a set that is none", "Records::user", "SELECT id, role, 'ops' AS teams FROM users", "teams is text that is not JSON"},
		{"text that closes the object", "Records::user", `SELECT id, role, '[],"level":9' AS teams FROM users`, "teams is text that is not JSON"},
		{"not listed", "Records::user", "SELECT id, role, 'mid' AS grade FROM users", "grade is not one of the entities"},
		{"parents that are none", "Records::user", "SELECT id, role, 'ops' AS parents FROM users", "parents that are text and not JSON"},
		{"a parent of another type", "Records::user", `SELECT id, role, '[{"type":"Group","id":"a"}]' AS parents FROM users`, "cannot be in one of type Group"},
		{"an id of which type?", "Records::team", `SELECT id, '["it"]' AS parents FROM teams`, "an id alone does not say of which of 2 types"},
		{"a circle", "Records::team", `SELECT id, '[{"type":"Records::team","id":"' || id || '"}]' AS parents FROM teams`, "is in itself"},
		{"a type that the schema lacks", "Records::usr", "SELECT id FROM users WHERE false", `the schema has no entity type Records::usr; did you mean "Records::user"?`},
	} {
		_, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: s.sources(map[string]SQLType{tt.typ: {All: tt.query}})})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q in it", tt.name, err, tt.want)
		}
	}
}

// What a table says of one entity that cannot be is an error, and never an
// entity that is absent. The database is asked again.
func testLookupLies(t *testing.T, s store) {
	for _, tt := range []struct{ name, typ, query, want string }{
		{"wrong type", "Records::user", "SELECT id, 1 AS role FROM users WHERE id = $1", "role is not a string"},
		{"another", "Records::user", "SELECT 'eve' AS id, 'a' AS role WHERE $1 = 'bob'", "it is about another"},
		{"two", "Records::user", "SELECT id, role FROM users WHERE id = $1 UNION ALL SELECT id, 'admin' FROM users WHERE id = $1", "there is more than one"},
		{"nobody", "Records::user", "SELECT NULL AS id, 'a' AS role WHERE $1 <> ''", "neither text nor an integer"},
		{"in itself", "Records::team", `SELECT $1 AS id, '[{"type":"Records::team","id":"bob"}]' AS parents WHERE $1 <> ''`, "is in itself"},
		{"a circle of two", "Records::team", `SELECT $1 AS id, CASE $1 WHEN 'bob' THEN '[{"type":"Records::team","id":"x"}]' ELSE '[{"type":"Records::team","id":"bob"}]' END AS parents WHERE $1 <> ''`, "is in itself"},
		{"a failing row", "Records::user", s.of("SELECT id, role, 1/(length(id)-3) AS level FROM users WHERE id = $1",
			"SELECT id, role, json_extract('x', id) AS level FROM users WHERE id = $1"), s.of("division by zero", "malformed JSON")},
	} {
		src := s.sources(map[string]SQLType{tt.typ: {One: strings.ReplaceAll(tt.query, "$1", s.of("$1::text", "$1"))}})
		d := open(t, Config{Sources: src})
		for range 2 {
			got, err := d.Fetch(bounded(t), types.NewEntityUID(types.EntityType(tt.typ), "bob"))
			if err == nil || len(got) != 0 || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, %v; want %q", tt.name, got, err, tt.want)
			}
		}
		if d.Health() != nil {
			t.Errorf("%s: the database is held to have failed: %v", tt.name, d.Health())
		}
	}
}

// A query cannot write, whatever the rights of the database's user are.
func testReadOnly(t *testing.T, s store) {
	if s.of("p", "s") == "p" {
		s.exec(t, "CREATE FUNCTION spoil(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN DELETE FROM users; RETURN 'x'; END $$", "CREATE SEQUENCE seq")
	}
	queries := []string{"DELETE FROM users RETURNING id, role", "SELECT id, role FROM users; DELETE FROM users", "SELECT id, role FROM users) q; DELETE FROM users; --"}
	queries = append(queries, strings.Split(s.of(
		"SELECT spoil('x') AS id, 'x' AS role|WITH d AS (DELETE FROM users RETURNING id, role) SELECT * FROM d|SELECT nextval('seq') AS id, 'x' AS role|SELECT set_config('transaction_read_only', 'off', true) AS id, spoil('x') AS role",
		"SELECT id, role FROM users) q; ATTACH 'OTHER' AS x; SELECT * FROM (SELECT id, role FROM users|PRAGMA journal_mode=DELETE"), "|")...)
	other := filepath.Join(t.TempDir(), "other.db")
	for _, q := range queries {
		q = strings.ReplaceAll(q, "OTHER", other)
		for _, typ := range []SQLType{{All: q}, {One: q + s.of(" /* $1 */", "")}} {
			d, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: s.sources(map[string]SQLType{"Records::user": typ})})
			if err == nil {
				_, err = d.Fetch(bounded(t), uid("user", "bob"))
				_ = d.Close()
			}
			if err == nil {
				t.Errorf("%s: no error", q)
			}
		}
	}
	d := open(t, Config{Sources: s.sources(map[string]SQLType{"Records::user": {All: allUser}})})
	// Nor could it if it were not part of another.
	if _, err := d.sources[0].source.(*database).db.ExecContext(bounded(t), "DELETE FROM users"); err == nil {
		t.Error("the connection can write")
	}
	if d.World().Len() != 3 {
		t.Errorf("%d users are left", d.World().Len())
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("another database was made")
	}
}

func testWrongQueries(t *testing.T, s store) {
	for name, typ := range map[string]SQLType{
		"all":  {All: "SELECT id, role FROM userz"},
		"one":  {One: "SELECT id, role FROM userz WHERE id = $1"},
		"list": {One: oneUser, List: "SELECT id FROM userz WHERE id > $1 LIMIT $2"},
	} {
		_, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: s.sources(map[string]SQLType{"Records::user": typ})})
		if err == nil || !strings.Contains(err.Error(), "types.Records::user: "+name) || !strings.Contains(err.Error(), "userz") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testConcurrent(t *testing.T, s store) {
	types := lookupTypes()
	types["Records::document"] = SQLType{All: strings.Split(oneDoc, " WHERE")[0]}
	d := open(t, Config{Sources: s.sources(types), Every: time.Millisecond})
	ctx, cancel := context.WithCancel(bounded(t))
	var all, follow sync.WaitGroup
	follow.Go(func() { d.Follow(ctx) })
	for range 8 {
		all.Go(func() {
			for range 20 {
				got, err := d.Fetch(ctx, uid("document", "7"), uid("user", "max"))
				if err != nil || ids(got) != "bob eve max it ops" {
					t.Errorf("got %q, %v", ids(got), err)
					return
				}
			}
		})
	}
	all.Wait()
	cancel()
	follow.Wait()
}

func testBounds(t *testing.T, s store) {
	concat := s.of("('[{\"type\":\"Records::team\",\"id\":\"' || ($1::bigint + 1) || '\"}]')", "('[{\"type\":\"Records::team\",\"id\":\"' || (CAST($1 AS INTEGER) + 1) || '\"}]')")
	d := open(t, Config{Sources: s.sources(map[string]SQLType{"Records::team": {One: "SELECT " + s.of("$1::bigint", "$1") + " AS id, " + concat + " AS parents WHERE $1 <> " + s.of("0", "''")}})})
	if got, err := d.Fetch(bounded(t), uid("team", "1")); err == nil || !strings.Contains(err.Error(), "more than 256") {
		t.Errorf("a hierarchy without an end: %d, %v", len(got), err)
	}
	var deep strings.Builder
	deep.WriteString("resource.owner has manager")
	for i := range 8 {
		fmt.Fprintf(&deep, " && resource.owner%s.manager has manager", strings.Repeat(".manager", i))
	}
	set := newSet(t, recordsSchema, `@id("deep") permit (principal, action, resource is Records::document) when { `+deep.String()+` };`)
	if err := d.SetPolicies(set); err == nil || !strings.Contains(err.Error(), "policy deep goes over more than 8 entities") {
		t.Errorf("a policy that goes far: %v", err)
	}
}

// A database that is not there is an error at the start.
func TestDatabaseDownAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "none.db")
	if _, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: store{conf: SQL{Driver: "sqlite", File: file}}.sources(lookupTypes())}); err == nil {
		t.Error("sqlite: no error")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("sqlite: the missing file was made")
	}
	text := write(t, dir, "text.db", "this is not a database, but long enough to be taken for one by a careless reader of its first hundred bytes and more")
	if _, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: store{conf: SQL{Driver: "sqlite", File: text}}.sources(lookupTypes())}); err == nil {
		t.Error("sqlite, not a database: no error")
	}
	dsn := write(t, dir, "db.dsn", "host="+dir+" user=u password=s3cret dbname=d")
	_, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: store{conf: SQL{Driver: "postgres", DSNFile: dsn}}.sources(lookupTypes())})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("postgres: %v", err)
	}
}

// A database that dies while it is used is an error for decisions, which do not
// wait for it, and is used again when it is back.
func TestDatabaseDies(t *testing.T) {
	t.Parallel()
	server := postgres.Start(t)
	s := newPostgres(t, server)
	s.fill(t)
	types := lookupTypes()
	types["Records::document"] = SQLType{All: strings.Split(oneDoc, " WHERE")[0]}
	d := open(t, Config{Sources: s.sources(types)})
	ctx, cancel := context.WithCancel(bounded(t))
	var follow sync.WaitGroup
	follow.Go(func() { d.Follow(ctx) })
	fetch := func() error {
		got, err := d.Fetch(ctx, uid("user", "bob"))
		if err == nil && ids(got) != "bob it ops" && ids(got) != "bob eve it ops" && ids(got) != "bob eve max it ops" {
			t.Errorf("got %q and no error", ids(got))
		}
		return err
	}
	if err := fetch(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	waitFor(t, func() bool { return fetch() != nil && d.Health() != nil })
	begun := time.Now()
	for range 1000 {
		if fetch() == nil {
			t.Fatal("a database that is down has an answer")
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("1,000 decisions waited %s for a database that is known to be down", took)
	}
	if d.World().Len() != 2 || d.Stats()[0].Err == nil {
		t.Errorf("%d entities, stats %+v", d.World().Len(), d.Stats())
	}
	server.Restart(t)
	waitFor(t, func() bool { return fetch() == nil && d.Health() == nil })
	cancel()
	follow.Wait()
}

// isErrorSoon does what must fail, and not by waiting for ever.
func isErrorSoon(t *testing.T, what string, do func() error) {
	t.Helper()
	begun := time.Now()
	if err := do(); err == nil {
		t.Errorf("%s: no error", what)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("%s: it took %s", what, took)
	}
}

// A database that hangs is an error in bounded time, at the start and later.
func TestDatabaseHangs(t *testing.T) {
	t.Parallel()
	server := postgres.Start(t)
	t.Run("a listener that never answers", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		dsn := write(t, t.TempDir(), "db.dsn", "host=127.0.0.1 port="+port+" user=u dbname=d")
		src := store{conf: SQL{Driver: "postgres", DSNFile: dsn}}.patient(3*time.Second, lookupTypes())
		isErrorSoon(t, "open", func() error { _, err := Open(bounded(t), Config{Policies: recordsSet(t), Sources: src}); return err })
	})
	t.Run("a statement that sleeps", func(t *testing.T) {
		s := newPostgres(t, server)
		s.fill(t)
		slow := "SELECT id, role FROM users WHERE id = $1 AND pg_sleep(3600) IS NOT NULL"
		d := open(t, Config{Sources: s.patient(3*time.Second, map[string]SQLType{"Records::user": {One: slow}})})
		isErrorSoon(t, "lookup", func() error { _, err := d.Fetch(bounded(t), uid("user", "bob")); return err })
		if d.Health() == nil {
			t.Error("a database that hangs is healthy")
		}
		isErrorSoon(t, "again", func() error { _, err := d.Fetch(bounded(t), uid("user", "bob")); return err })
		if err := d.Refresh(bounded(t)); err != nil {
			t.Errorf("it answers something else: %v", err)
		}
	})
	t.Run("a network that swallows everything", func(t *testing.T) {
		s := newPostgres(t, server)
		s.fill(t)
		dsn := must(s.conf.dsn())
		n := newSwallower(t, strings.TrimPrefix(strings.Fields(dsn)[0], "host=")+"/.s.PGSQL.5432")
		s.conf.DSNFile = write(t, t.TempDir(), "db.dsn", n.address+strings.Join(append([]string{""}, strings.Fields(dsn)[1:]...), " "))
		d := open(t, Config{Sources: s.patient(5*time.Second, lookupTypes())})
		n.mu.Lock() // from now on nothing gets through
		isErrorSoon(t, "lookup", func() error { _, err := d.Fetch(bounded(t), uid("user", "bob")); return err })
		begun := time.Now()
		var waiters sync.WaitGroup
		for range 20 {
			waiters.Go(func() {
				if _, err := d.Fetch(bounded(t), uid("user", "bob")); err == nil {
					t.Error("no error")
				}
			})
		}
		waiters.Wait()
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("20 decisions waited %s for a database that is known to hang", took)
		}
		isErrorSoon(t, "refresh", func() error { return d.Refresh(bounded(t)) })
		n.mu.Unlock()
		waitFor(t, func() bool { return d.Refresh(bounded(t)) == nil })
		if got, err := d.Fetch(bounded(t), uid("user", "bob")); err != nil || len(got) == 0 {
			t.Errorf("afterwards: %v, %v", got, err)
		}
	})
	t.Run("a table that is locked", func(t *testing.T) {
		s := newPostgres(t, server)
		s.fill(t)
		d := open(t, Config{Sources: s.patient(3*time.Second, map[string]SQLType{"Records::user": {One: oneUser}, "Records::team": {All: strings.Split(oneTeam, " WHERE")[0]}})})
		db, err := sql.Open("pgx", must(s.conf.dsn()))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		tx := must(db.BeginTx(bounded(t), nil))
		if _, err := tx.Exec("LOCK users, teams IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(bounded(t), 2*time.Second)
		defer cancel()
		isErrorSoon(t, "lookup", func() error { _, err := d.Fetch(ctx, uid("user", "bob")); return err })
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return d.Refresh(bounded(t)) == nil })
		if got, err := d.Fetch(bounded(t), uid("user", "bob")); err != nil || len(got) == 0 {
			t.Errorf("after the lock: %v, %v", got, err)
		}
	})
}

// A swallower stands between a client and a server, and lets nothing through
// while mu is held.
type swallower struct {
	address string
	mu      sync.RWMutex
}

func newSwallower(t *testing.T, socket string) *swallower {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n := &swallower{address: "host=" + host + " port=" + port}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				continue
			}
			stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })
			pass := func(to, from net.Conn) {
				defer stop()
				defer to.Close()
				defer from.Close()
				_, _ = io.Copy(gated{to, n}, from) // it ends when either side does
			}
			all.Go(func() { pass(server, client) })
			all.Go(func() { pass(client, server) })
		}
	})
	return n
}

// gated writes when the swallower lets it.
type gated struct {
	net.Conn
	n *swallower
}

func (g gated) Write(b []byte) (int, error) {
	g.n.mu.RLock()
	defer g.n.mu.RUnlock()
	return g.Conn.Write(b)
}

// The same of a file that somebody else has locked.
func TestDatabaseIsLocked(t *testing.T) {
	t.Parallel()
	s := newSQLite(t)
	s.exec(t, "PRAGMA journal_mode=DELETE")
	s.fill(t)
	d := open(t, Config{Sources: s.patient(3*time.Second, lookupTypes())})
	db := must(sql.Open("sqlite", "file:"+s.conf.File))
	defer db.Close()
	conn := must(db.Conn(bounded(t)))
	defer conn.Close()
	if _, err := conn.ExecContext(bounded(t), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	isErrorSoon(t, "lookup", func() error { _, err := d.Fetch(bounded(t), uid("user", "bob")); return err })
	if d.Health() == nil {
		t.Error("a file that is locked is healthy")
	}
	if _, err := conn.ExecContext(bounded(t), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := d.Refresh(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Fetch(bounded(t), uid("user", "bob")); err != nil || len(got) == 0 {
		t.Errorf("after the lock: %v, %v", got, err)
	}
}

// A caller that goes away, or had no time, says nothing about the database.
func TestImpatientCallersDoNotOpenTheCircuit(t *testing.T) {
	t.Parallel()
	s := newSQLite(t)
	s.fill(t)
	d := open(t, Config{Sources: s.sources(lookupTypes())})
	gone, cancel := context.WithCancel(bounded(t))
	cancel()
	late, cancel := context.WithDeadline(bounded(t), time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{gone, late} {
		if _, err := d.Fetch(ctx, uid("user", "bob")); err == nil {
			t.Error("no error")
		}
	}
	if _, err := d.Fetch(bounded(t), uid("user", "bob")); err != nil {
		t.Error(err)
	}
}

// A connection that leaves this machine says how it proves the server.
func TestRemoteDatabaseNeedsTLSMode(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]bool{
		"postgres://u:s3cret@db.example/d":                     false,
		"host=db.example user=u password=s3cret":               false,
		"postgres://u:s3cret@db.example/d?sslmode=verify-full": true,
		"host=127.0.0.1 user=u":                                true,
		"host=/run/postgresql user=u":                          true,
		"host=localhost user=u":                                true,
		"":                                                     false,
		"postgres://u:s3cret@[::1/d":                           false,
		"postgres://u:s3cret@127.0.0.1,db.example/d":           false,
		"postgres://u:s3cret@127.0.0.1,db.example/d?sslmode=verify-full": true,
	} {
		db, err := openDatabase(SQL{Driver: "postgres", DSNFile: write(t, t.TempDir(), "db.dsn", dsn), Types: lookupTypes()})
		if (err == nil) != want {
			t.Errorf("%s: %v", dsn, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the password: %v", err)
		}
		if err == nil {
			if strings.Contains(db.name(), "s3cret") {
				t.Errorf("the name shows the password: %s", db.name())
			}
			_ = db.close()
		}
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	const right = `
files: [entities]
sql:
  - driver: postgres
    dsn_file: /etc/db.dsn
    refresh: 10s
    timeout: 500ms
    types:
      Records::user:
        all: SELECT id, role FROM users
        one: SELECT id, role FROM users WHERE id = $1
`
	var s Sources
	if err := yaml.UnmarshalWithOptions([]byte(right), &s, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil || s.SQL[0].Refresh != 10*time.Second || s.SQL[0].Timeout != 500*time.Millisecond || s.Files[0] != "entities" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, tt := range []struct{ was, is, want string }{
		{"postgres", "mysql", `driver "mysql" is neither postgres nor sqlite`},
		{"postgres", "sqlite", "a database of SQLite needs file and no dsn_file"},
		{"dsn_file: /etc/db.dsn", "file: x", "needs dsn_file"},
		{"refresh: 10s", "refresh: 1ms", "refresh is shorter than 100ms"},
		{"timeout: 500ms", "timeout: -1s", "timeout is negative"},
		{"Records::user", "user table", `"user table" is not the name of an entity type`},
		{"one:", "list:", "list is for what is looked up"},
		{"[entities]", "['']", "files.0 is empty"},
	} {
		var s Sources
		if err := yaml.UnmarshalWithOptions([]byte(strings.Replace(right, tt.was, tt.is, 1)), &s, yaml.Strict()); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.is, err, tt.want)
		}
	}
	s.SQL = append(s.SQL, s.SQL[0])
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "are looked up in sql.0 already") {
		t.Errorf("twice: %v", err)
	}
	for _, types := range []map[string]SQLType{nil, {"Group": {}}} {
		if err := (Sources{SQL: []SQL{{Driver: "sqlite", File: "x", Types: types}}}).Check(); err == nil {
			t.Errorf("%v: no error", types)
		}
	}
	if _, err := Read(bounded(t), Sources{SQL: []SQL{{Driver: "sqlite", File: "x", Types: lookupTypes()}}}, recordsSet(t)); err == nil || !strings.Contains(err.Error(), "only looked up") {
		t.Errorf("read what is only looked up: %v", err)
	}
}

// BenchmarkFetch looks a user up, with the teams that the user is in.
func BenchmarkFetch(b *testing.B) {
	server := postgres.Start(b)
	for _, bb := range []struct {
		name  string
		store store
	}{{"postgres", newPostgres(b, server)}, {"sqlite", newSQLite(b)}} {
		b.Run(bb.name, func(b *testing.B) {
			s := store{conf: bb.store.conf, exec: bb.store.exec, of: bb.store.of}
			s.exec(b, "DROP TABLE IF EXISTS users", "DROP TABLE IF EXISTS teams", "DROP TABLE IF EXISTS documents")
			s.fill(b)
			d := open(b, Config{Sources: s.sources(lookupTypes())})
			ctx := bounded(b)
			for _, u := range []types.EntityUID{uid("user", "max"), uid("user", "bob")} {
				b.Run(string(u.ID), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, err := d.Fetch(ctx, u); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			b.Run("parallel", func(b *testing.B) {
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						if _, err := d.Fetch(ctx, uid("user", "max")); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		})
	}
}
