package typed_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/internal/typed"
)

const schemaText = `
namespace Records {
  entity team;
  entity level enum ["low", "high"];
  entity user = {
    name: String,
    age?: Long,
    active?: Bool,
    teams?: Set<team>,
    best?: team,
    level?: level,
    limit?: decimal,
    since?: datetime,
    pause?: duration,
    from?: ipaddr,
    tags?: Set<Set<Long>>,
    address?: { street: String, number?: Long },
  };
}`

func load(t testing.TB) *resolved.Schema {
	t.Helper()
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(schemaText)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// names resolves what is written without its namespace.
func names(s *resolved.Schema) func(string) (types.EntityType, bool) {
	return func(name string) (types.EntityType, bool) {
		for _, t := range []types.EntityType{types.EntityType(name), types.EntityType("Records::" + name)} {
			_, entity := s.Entities[t]
			_, enum := s.Enums[t]
			if entity || enum {
				return t, true
			}
		}
		return "", false
	}
}

func strict(s *resolved.Schema) typed.Options {
	return typed.Options{RefuseExtra: true, Partial: true, Entity: names(s), Enums: s.Enums}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEveryFormIsReadAsItsType(t *testing.T) {
	t.Parallel()
	s := load(t)
	ops := types.NewEntityUID("Records::team", "ops")
	for _, tt := range []struct {
		json string
		want types.Value
	}{
		{`{"name":"Bob"}`, types.String("Bob")},
		{`{"name":""}`, types.String("")},
		{`{"age":-9223372036854775808}`, types.Long(-1 << 63)},
		{`{"age":9223372036854775807}`, types.Long(1<<63 - 1)},
		{`{"active":false}`, types.Boolean(false)},
		{`{"teams":[]}`, types.NewSet()},
		{`{"teams":[{"type":"team","id":"ops"},{"type":"Records::team","id":"ops"},{"__entity":{"type":"Records::team","id":"ops"}}]}`, types.NewSet(ops)},
		{`{"best":{"id":"ops","type":"team"}}`, ops},
		{`{"level":{"type":"level","id":"low"}}`, types.NewEntityUID("Records::level", "low")},
		{`{"limit":"1.23"}`, must(types.ParseDecimal("1.23"))},
		{`{"limit":1.23}`, must(types.ParseDecimal("1.23"))},
		{`{"limit":-0.5000000}`, must(types.ParseDecimal("-0.5"))},
		{`{"limit":12}`, must(types.ParseDecimal("12.0"))},
		{`{"limit":{"__extn":{"fn":"decimal","arg":"1.2300"}}}`, must(types.ParseDecimal("1.23"))},
		{`{"since":"2026-01-31T12:00:00Z"}`, must(types.ParseDatetime("2026-01-31T12:00:00Z"))},
		{`{"since":"2026-01-31T12:00:00.123456+02:00"}`, must(types.ParseDatetime("2026-01-31T10:00:00.123Z"))},
		{`{"since":"2026-01-31T12:00:00.000+0200"}`, must(types.ParseDatetime("2026-01-31T10:00:00Z"))},
		{`{"since":"2026-01-31"}`, must(types.ParseDatetime("2026-01-31"))},
		{`{"pause":"1h30m"}`, must(types.ParseDuration("1h30m"))},
		{`{"from":"10.0.0.0/8"}`, must(types.ParseIPAddr("10.0.0.0/8"))},
		{`{"from":{"__extn":{"arg":"::1","fn":"ip"}}}`, must(types.ParseIPAddr("::1"))},
		{`{"tags":[[1,2],[2,1,2],[]]}`, types.NewSet(types.NewSet(types.Long(1), types.Long(2)), types.NewSet())},
		{`{"address":{"street":"x"}}`, types.NewRecord(types.RecordMap{"street": types.String("x")})},
	} {
		got, err := typed.Record(s.Entities["Records::user"].Shape, []byte(tt.json), strict(s))
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", tt.json, got, err)
			continue
		}
		for _, v := range got {
			if !v.Equal(tt.want) {
				t.Errorf("%s: got %v, want %v", tt.json, v, tt.want)
			}
		}
	}
}

// What is refused is named by its member, and its value is not quoted.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := load(t)
	many := func(n int) string { return "[" + strings.Repeat("[],", n-1) + "[]]" }
	for _, tt := range []struct{ name, json, want string }{
		{"not an object", `[]`, `the value is not an object`},
		{"null", `null`, `the value is null; leave out what has no value`},
		{"nothing", ``, `the value is not valid JSON (RFC 8259, UTF-8)`},
		{"cut short", `{"name":"a`, `the value is not valid JSON (RFC 8259, UTF-8)`},
		{"bad UTF-8", "{\"name\":\"\xff\"}", `the value is not valid JSON (RFC 8259, UTF-8)`},
		{"more", `{"name":"a"} {}`, `the value is followed by something else`},
		{"a long name", `{"` + strings.Repeat("é", 40) + `":1}`, strings.Repeat("é", 32) + `… is not known`},
		{"a key twice", `{"name":"a","name":"b"}`, `the value has a key twice`},
		{"a key twice inside", `{"address":{"street":"a","street":"b"}}`, `address has a key twice`},
		{"unknown", `{"nmae":"secret"}`, `nmae is not known; did you mean "name"?`},
		{"unknown inside", `{"address":{"street":"a","numbr":1}}`, `address.numbr is not known; did you mean "number"?`},
		{"missing inside", `{"address":{"number":1}}`, `address.street is missing`},
		{"null member", `{"age":null}`, `age is null; leave out what has no value`},
		{"not a string", `{"name":1}`, `name is not a string`},
		{"not a bool", `{"active":"true"}`, `active is not true or false`},
		{"not a number", `{"age":"1"}`, `age is not an integer`},
		{"1.0", `{"age":1.0}`, `age is not written as an integer`},
		{"1e3", `{"age":1e3}`, `age is not written as an integer`},
		{"-0", `{"age":-0}`, `age is not written as an integer`},
		{"too large", `{"age":9223372036854775808}`, `age is not an integer of 64 bits`},
		{"five places", `{"limit":1.23456}`, `limit is not a decimal number with one to four decimal places, like "1.5"`},
		{"exponent", `{"limit":1e3}`, `limit is not a decimal number with one to four decimal places, like "1.5"`},
		{"decimal too large", `{"limit":922337203685477.5808}`, `limit is not a decimal number with one to four decimal places, like "1.5"`},
		{"no point", `{"limit":"1"}`, `limit is not a decimal number with one to four decimal places, like "1.5"`},
		{"not RFC 3339", `{"since":"2026-01-31 12:00:00"}`, `since is not a date-time of RFC 3339, like "2026-01-31T12:00:00Z"`},
		{"lenient RFC 3339", `{"since":"2026-01-31T1:00:00,5Z"}`, `since is not a date-time of RFC 3339, like "2026-01-31T12:00:00Z"`},
		{"duration", `{"pause":"PT1H"}`, `pause is not a duration, like "1h30m"`},
		{"not an IP address", `{"from":"10.0.0"}`, `from is not an IP address or range, like "10.0.0.0/8"`},
		{"IPv4 in IPv6", `{"from":"::ffff:0a00:0001"}`, `from is not an IP address or range, like "10.0.0.0/8"`},
		{"another function", `{"from":{"__extn":{"fn":"decimal","arg":"1.0"}}}`, `from is not an IP address or range, like "10.0.0.0/8"`},
		{"half a function", `{"from":{"__extn":{"fn":"ip"}}}`, `from is not an IP address or range, like "10.0.0.0/8"`},
		{"a function and more", `{"from":{"__extn":{"fn":"ip","arg":"::1","x":1}}}`, `from.x is not known`},
		{"no function", `{"from":{}}`, `from is not an IP address or range, like "10.0.0.0/8"`},
		{"another type", `{"best":{"type":"user","id":"a"}}`, `best is not an entity of type Records::team`},
		{"an unknown type", `{"best":{"type":"taem","id":"a"}}`, `best is not an entity of type Records::team`},
		{"no id", `{"best":{"type":"team"}}`, `best is not an entity: {"type": "…", "id": "…"}`},
		{"a number for an id", `{"best":{"type":"team","id":1}}`, `best.id is not a string`},
		{"a plain id", `{"best":"ops"}`, `best is not an entity: {"type": "…", "id": "…"}`},
		{"both forms", `{"best":{"type":"team","id":"a","__entity":{"type":"team","id":"b"}}}`, `best is not an entity: {"type": "…", "id": "…"}`},
		{"a form in a form", `{"best":{"__entity":{"__entity":{"type":"team","id":"b"}}}}`, `best is not an entity: {"type": "…", "id": "…"}`},
		{"an entity and more", `{"best":{"type":"team","id":"a","x":1}}`, `best.x is not known`},
		{"not listed", `{"level":{"type":"level","id":"mid"}}`, `level is not one of the entities that Records::level lists`},
		{"an element", `{"teams":[{"type":"team","id":"a"},1]}`, `teams.1 is not an entity: {"type": "…", "id": "…"}`},
		{"not an array", `{"teams":{}}`, `teams is not an array`},
		{"a large set", `{"tags":` + many(1<<14+1) + `}`, `tags has more than 16384 elements`},
		{"many values", `{"tags":[` + strings.Repeat("[1"+strings.Repeat(",1", 9999)+"],", 6) + "[1" + strings.Repeat(",1", 9999) + `]]}`, `the value has more than 65536 values in it`},
		{"large", `{"name":"` + strings.Repeat("x", 16<<20) + `"}`, `the value is larger than 16777216 bytes`},
		{"a name that lies", `{"name. is\u0000?":1}`, `"name. is\x00?" is not known`},
	} {
		_, err := typed.Record(s.Entities["Records::user"].Shape, []byte(tt.json), strict(s))
		var e *typed.Error
		if err == nil || err.Error() != tt.want || !errors.As(err, &e) {
			t.Errorf("%s: got %q, want %q", tt.name, err, tt.want)
		}
	}
}

func TestOptionsSayHowLenient(t *testing.T) {
	t.Parallel()
	s := load(t)
	shape := s.Entities["Records::user"].Shape
	enum := func(o typed.Options) typed.Options { o.Entity, o.Enums = names(s), s.Enums; return o }
	for _, tt := range []struct {
		name, json, want string
		o                typed.Options
	}{
		{"required", `{}`, `name is missing`, typed.Options{}},
		{"required is there", `{"name":"a"}`, ``, typed.Options{}},
		{"extra", `{"name":"a","x":{"y":[null]},"best":{"type":"team","id":"a","properties":{}}}`, ``, enum(typed.Options{})},
		{"extra that is broken", `{"name":"a","x":{"y":1,"y":2}}`, `the value has a key twice`, typed.Options{}},
		{"written as in the schema", `{"name":"a","best":{"type":"team","id":"a"}}`, `best is not an entity of type Records::team`, typed.Options{}},
		{"ids", `{"name":"a","best":"ops","teams":["a",-7]}`, ``, typed.Options{IDs: true}},
		{"an id that two write differently", `{"name":"a","best":1.0}`, `best is not an integer of 64 bits`, typed.Options{IDs: true}},
		{"ids are listed too", `{"name":"a","level":"mid"}`, `level is not one of the entities that Records::level lists`, enum(typed.Options{IDs: true})},
	} {
		_, err := typed.Record(shape, []byte(tt.json), tt.o)
		if got := errorText(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestMapHasAnyNames(t *testing.T) {
	t.Parallel()
	long := resolved.LongType{}
	got, err := typed.Map(long, []byte(`{"a":1,"":2}`), typed.Options{RefuseExtra: true})
	if err != nil || len(got) != 2 || got["a"] != types.Long(1) || got[""] != types.Long(2) {
		t.Errorf("got %v, %v", got, err)
	}
	for json, want := range map[string]string{
		`[]`: `the value is not an object`, `{"a":"x"}`: `a is not an integer`, `{"a":1,"a":1}`: `the value has a key twice`,
		`{"a":1`: `the value is not valid JSON (RFC 8259, UTF-8)`, `{} {}`: `the value is followed by something else`,
	} {
		if _, err := typed.Map(long, []byte(json), typed.Options{}); errorText(err) != want {
			t.Errorf("%s: got %v, want %q", json, err, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A schema that goes deeper than a value may is an error and not a stack that
// overflows, and so is JSON that goes deep where nobody looks.
func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	var deep resolved.IsType = resolved.LongType{}
	for range 100 {
		deep = resolved.SetType{Element: deep}
	}
	text := strings.Repeat("[", 100) + "1" + strings.Repeat("]", 100)
	if _, err := typed.Value(deep, []byte(text), typed.Options{}); err == nil || !strings.HasSuffix(err.Error(), "is deeper than 64 levels") {
		t.Errorf("deep type: %v", err)
	}
	text = `{"x":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`
	if _, err := typed.Value(resolved.RecordType{}, []byte(text), typed.Options{}); err == nil {
		t.Error("a million arrays in each other were skipped")
	}
}

// A nil type, or a type that a later Cedar brings, is an error.
func TestUnknownTypeIsRefused(t *testing.T) {
	t.Parallel()
	for _, typ := range []resolved.IsType{nil, resolved.ExtensionType("colour")} {
		if v, err := typed.Value(typ, []byte(`"x"`), typed.Options{}); err == nil {
			t.Errorf("%v: read as %v", typ, v)
		}
	}
}

// cedarReads reads JSON as cedar-go does, without a schema.
func cedarReads(raw []byte) (types.Value, bool) {
	var v types.Value
	err := types.UnmarshalJSON(raw, &v)
	return v, err == nil
}

// FuzzRecord: nothing panics, and where cedar-go reads the same bytes as a value
// of the type, both mean the same.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a"}`, `{"name":"a","age":1,"active":true}`, `{"name":"a","teams":[{"__entity":{"type":"Records::team","id":"x"}}]}`,
		`{"name":"a","limit":{"__extn":{"fn":"decimal","arg":"1.5"}},"from":{"__extn":{"fn":"ip","arg":"::1"}}}`,
		`{"name":"a","since":{"__extn":{"fn":"datetime","arg":"2026-01-01"}},"pause":{"__extn":{"fn":"duration","arg":"1h"}}}`,
		`{"name":"a","tags":[[1],[2,3]],"address":{"street":"s","number":-1}}`, `{"name":"\ud800"}`, `{"limit":-0.00}`, `{"age":-0}`, `[`, `{"name":"a"}x`,
	} {
		f.Add([]byte(seed))
	}
	s := load(f)
	user := s.Entities["Records::user"].Shape
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := typed.Value(user, raw, typed.Options{RefuseExtra: true, Enums: s.Enums})
		_, lenient := typed.Value(user, raw, typed.Options{Partial: true, IDs: true, Entity: names(s)})
		if err == nil && lenient != nil {
			t.Errorf("%q: strict reads it, lenient does not: %v", raw, lenient)
		}
		if err != nil {
			return
		}
		if !json.Valid(raw) {
			t.Errorf("%q is not JSON", raw)
		}
		want, ok := cedarReads(raw)
		if ok && conforms(want, user) && !got.Equal(want) {
			t.Errorf("%q: got %v, cedar-go %v", raw, got, want)
		}
		again, err := typed.Value(user, must(json.Marshal(got)), typed.Options{RefuseExtra: true, Enums: s.Enums})
		if err != nil || !again.Equal(got) {
			t.Errorf("%q: written and read again: %v, %v", raw, again, err)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	s := load(b)
	raw := []byte(`{"name":"Bob","age":42,"teams":[{"type":"Records::team","id":"ops"}],"limit":"1.5","since":"2026-01-31T12:00:00Z"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := typed.Record(s.Entities["Records::user"].Shape, raw, typed.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
