package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cedar-policy/cedar-go/types"
)

// everything is a tool with an argument of each type.
const everything = `{"name":"t","inputSchema":{"type":"object","properties":{
	"s":{"type":"string"}, "b":{"type":"boolean"}, "i":{"type":"integer"}, "n":{"type":"number"},
	"e":{"type":"string","enum":["one","two"]}, "c":{"type":"string","const":"only"},
	"date":{"type":"string","format":"date"}, "time":{"type":"string","format":"date-time"}, "dur":{"type":"string","format":"duration"},
	"ip4":{"type":"string","format":"ipv4"}, "ip6":{"type":"string","format":"ipv6"}, "dec":{"type":"string","format":"decimal"},
	"z":{"type":"null"}, "u":{"anyOf":[{"type":"string"},{"type":"null"}]},
	"a":{"type":"array","items":{"type":"integer"}}, "free":{}, "map":{"type":"object","additionalProperties":{"type":"string"}},
	"pair":{"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":false},
	"o":{"type":"object","properties":{"x":{"type":"string"},"y":{"type":"integer"}},"required":["x"]},
	"open":{"type":"object","properties":{"x":{"type":"string"}},"additionalProperties":true},
	"any":{"type":"object"},
	"maybe":{"type":["string","null"],"enum":["on",null]},
	"do":{"oneOf":[{"$ref":"#/$defs/back"},{"$ref":"#/$defs/go"}]}
},"required":["s"],"$defs":{
	"back":{"type":"object","properties":{"type":{"type":"string","const":"back"},"n":{"type":"integer"}},"required":["type"]},
	"go":{"type":"object","properties":{"type":{"type":"string","const":"go"},"n":{"type":"integer"}},"required":["type"]}
}}}`

func TestInputIsTyped(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "x", everything), "")
	o := mustOperation(t, c, "x/t")
	for _, tt := range []struct{ args, attr, want string }{
		{`{"s":""}`, "s", `""`},
		{`{"s":"\u0041\n"}`, "s", `"A\n"`},
		{`{"s":"x","\u0062":true}`, "b", `true`},
		{`{"s":"x","i":5.0}`, "i", `5`},
		{`{"s":"x","i":-9223372036854775808}`, "i", `-9223372036854775808`},
		{`{"s":"x","n":100.25}`, "n", `decimal("100.25")`},
		{`{"s":"x","e":"two"}`, "e", `x__t__Input__e::"two"`},
		{`{"s":"x","c":"only"}`, "c", `"only"`},
		{`{"s":"x","date":"2026-11-22"}`, "date", `datetime("2026-11-22T00:00:00.000Z")`},
		{`{"s":"x","time":"2026-11-22T20:00:00.123456+02:00"}`, "time", `datetime("2026-11-22T18:00:00.123Z")`},
		{`{"s":"x","dur":"P1DT1M"}`, "dur", `duration("1d1m")`},
		{`{"s":"x","ip4":"10.0.0.1"}`, "ip4", `ip("10.0.0.1")`},
		{`{"s":"x","ip6":"fe80::1"}`, "ip6", `ip("fe80::1")`},
		{`{"s":"x","dec":"1.5"}`, "dec", `decimal("1.5")`},
		{`{"s":"x","z":null}`, "z", `Null::"null"`},
		{`{"s":"x","u":"y"}`, "u", `{"typeChoice0":"y"}`},
		{`{"s":"x","u":null}`, "u", `{"typeChoice1":Null::"null"}`},
		{`{"s":"x","a":[2,1,2]}`, "a", `[1, 2]`},
		{`{"s":"x","a":[]}`, "a", `[]`},
		{`{"s":"x","free":{"b":1,"a":2}}`, "free", `Unknown::"sha256:d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772"`},
		{`{"s":"x","pair":["l",3]}`, "pair", `{"proj0":"l", "proj1":3}`},
		{`{"s":"x","o":{"y":1,"x":"v"}}`, "o", `{"x":"v", "y":1}`},
		{`{"s":"x","open":{"x":"v","more":[1]}}`, "open", `{"x":"v"}`},
		{`{"s":"x","do":{"type":"go"}}`, "do", `{"typeChoice1":{"type":"go"}}`},
		{`{"s":"x","maybe":"on"}`, "maybe", `{"typeChoice0":"on"}`},
		{`{"s":"x","map":{"k":"v"}}`, "map", `x__t__Input__map::"/map"`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			rec, entities, err := o.Input("x", json.RawMessage(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			v, ok := rec.Get(types.String(tt.attr))
			if !ok {
				t.Fatalf("there is no %s in %v", tt.attr, rec)
			}
			if got := string(v.MarshalCedar()); got != tt.want && !(tt.attr == "a" && got == "[2, 1]") {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			checkRequest(t, c, o, rec, types.NewEntityUID("Server", "x"), entities)
		})
	}
	_, entities, err := o.Input("x", json.RawMessage(`{"s":"x","map":{"k":"v"}}`))
	if err != nil {
		t.Fatal(err)
	}
	e := entities[types.NewEntityUID("x__t__Input__map", "/map")]
	if v, ok := e.Tags.Get("k"); !ok || v != types.String("v") {
		t.Errorf("tags: %v", e.Tags)
	}
}

func TestInputIsStrict(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "x", everything), "")
	o := mustOperation(t, c, "x/t")
	for _, tt := range []struct{ args, want string }{
		{``, `argument "s" is missing`},
		{`{}`, `argument "s" is missing`},
		{`null`, `not a JSON object`},
		{`[]`, `not a JSON object`},
		{`{"s":"x"} {}`, `after the arguments`},
		{`{"s":"x"`, `not valid JSON`},
		{`{"s":"x",}`, `not valid JSON`},
		{"{\"s\":\"\xff\"}", `not valid JSON`},
		{`{"s":"\ud800"}`, `not valid JSON`},
		{`{"s":"x","s":"y"}`, `twice`},
		{`{"s":"x","\u0073":"y"}`, `twice`},
		{`{"s":"x","free":{"a":1,"a":2}}`, `twice`},
		{`{"s":"x","open":{"more":1,"more":2}}`, `twice`},
		{`{"s":1}`, `argument "s" is not a string`},
		{`{"s":null}`, `argument "s" is not a string`},
		{`{"s":"x","sorry":1}`, `argument "sorry" is not known`},
		{`{"s":"x","tim":"x"}`, `did you mean "time"?`},
		{`{"s":"x","b":"true"}`, `argument "b" is neither true nor false`},
		{`{"s":"x","i":"1"}`, `argument "i" is not an integer`},
		{`{"s":"x","i":1.5}`, `argument "i" is not an integer of 64 bits`},
		{`{"s":"x","i":9223372036854775808}`, `argument "i" is not an integer of 64 bits`},
		{`{"s":"x","n":0.00001}`, `argument "n" has more than four decimal places`},
		{`{"s":"x","n":1e30}`, `argument "n" is beyond the range`},
		{`{"s":"x","n":"1"}`, `argument "n" is not a number`},
		{`{"s":"x","e":"three"}`, `argument "e" is not one of the 2 values allowed: "one", "two"`},
		{`{"s":"x","c":"other"}`, `argument "c" is not one of the 1 values allowed`},
		{`{"s":"x","date":"22.11.2026"}`, `argument "date" is not a date-time`},
		{`{"s":"x","time":"2026-11-22T20:00:00"}`, `argument "time" is not a date-time`},
		{`{"s":"x","dur":"P1M"}`, `argument "dur" is not an ISO 8601 duration`},
		{`{"s":"x","ip4":"fe80::1"}`, `argument "ip4" is not an IP address of version 4`},
		{`{"s":"x","ip4":"10.0.0.0/8"}`, `argument "ip4" is not an IP address of version 4`},
		{`{"s":"x","ip6":"::ffff:10.0.0.1"}`, `argument "ip6" is not an IP address of version 6`},
		{`{"s":"x","ip6":"fe80::1%eth0"}`, `argument "ip6" is not an IP address of version 6`},
		{`{"s":"x","dec":"1"}`, `argument "dec" is not a decimal number`},
		{`{"s":"x","z":0}`, `argument "z" is not null`},
		{`{"s":"x","u":1}`, `argument "u" fits none of the 2 forms`},
		{`{"s":"x","a":1}`, `argument "a" is not an array`},
		{`{"s":"x","a":[1,"2"]}`, `argument "a.1" is not an integer`},
		{`{"s":"x","pair":["l"]}`, `argument "pair" has fewer than 2 elements`},
		{`{"s":"x","pair":["l",1,2]}`, `argument "pair" has more than 2 elements`},
		{`{"s":"x","o":{}}`, `argument "o.x" is missing`},
		{`{"s":"x","o":"x"}`, `argument "o" is not an object`},
		{`{"s":"x","o":{"x":"v","z":1}}`, `argument "o.z" is not known`},
		{`{"s":"x","map":{"k":1}}`, `argument "map.k" is not a string`},
		{`{"s":"x","maybe":"off"}`, `argument "maybe" fits none`},
		{`{"s":"x","do":{"type":"stop"}}`, `argument "do" fits none`},
		{`{"s":"x","free":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, `not valid JSON`},
		{`{"s":"x","a":[` + strings.Repeat("1,", maxElements) + `1]}`, `argument "a" has more than`},
	} {
		name := tt.args[:min(len(tt.args), 40)]
		t.Run(name, func(t *testing.T) {
			_, _, err := o.Input("x", json.RawMessage(tt.args))
			var bad *InputError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an InputError with %q", err, tt.want)
			}
		})
	}
}

func TestUndeclaredArguments(t *testing.T) {
	for _, tt := range []struct {
		name, schema, word string
		allowed            bool
	}{
		{"declared arguments only", `{"type":"object","properties":{"a":{}}}`, "", false},
		{"no arguments at all", `{"type":"object","properties":{}}`, "", false},
		{"closed", `{"type":"object","additionalProperties":false}`, "", false},
		{"nothing said", `{"type":"object"}`, "", true},
		{"open", `{"type":"object","properties":{"a":{}},"additionalProperties":true}`, "", true},
		{"open with a type", `{"type":"object","properties":{"a":{}},"additionalProperties":{"type":"string"}}`, "", true},
		{"opened by the operator", `{"type":"object","properties":{"a":{}}}`, "allow", true},
		{"closed by the operator", `{"type":"object","properties":{"a":{}},"additionalProperties":true}`, "refuse", false},
		{"emptied by the operator", `{"type":"object"}`, "refuse", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overlay := ""
			if tt.word != "" {
				overlay = "servers:\n  x:\n    tools:\n      t: {undeclared: " + tt.word + "}\n"
			}
			c := mustCatalog(t, mustLock(t, "x", `{"name":"t","inputSchema":`+tt.schema+`}`), overlay)
			_, _, err := mustOperation(t, c, "x/t").Input("x", json.RawMessage(`{"zzz":1}`))
			if (err == nil) != tt.allowed {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNumbersAreRoundedWhereTheOperatorSaysSo(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "x", everything), "servers:\n  x:\n    tools:\n      t: {numbers: round}\n")
	rec, _, err := mustOperation(t, c, "x/t").Input("x", json.RawMessage(`{"s":"","n":2.00005}`))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := rec.Get("n"); v.String() != "2.0001" {
		t.Errorf("got %v", v)
	}
}

// TestAlternativesAreBounded has unions within unions whose first alternative
// fails at the very end, so that every level doubles the work.
func TestAlternativesAreBounded(t *testing.T) {
	item, value := `{"type":"string"}`, `"x"`
	for range 8 {
		alt := func(required string) string {
			return `{"type":"object","properties":{"a":` + item + `,"z":{}},"required":[` + required + `]}`
		}
		item, value = `{"anyOf":[`+alt(`"z"`)+`,`+alt(``)+`]}`, `{"a":`+value+`}`
	}
	c := mustCatalog(t, mustLock(t, "x", `{"name":"t","inputSchema":{"type":"object","properties":{"l":{"type":"array","items":`+item+`}}}}`), "")
	o := mustOperation(t, c, "x/t")
	if _, _, err := o.Input("x", json.RawMessage(`{"l":[`+value+`]}`)); err != nil {
		t.Error(err)
	}
	many := `{"l":[` + strings.Repeat(value+",", 3000) + value + `]}`
	if _, _, err := o.Input("x", json.RawMessage(many)); err == nil || !strings.Contains(err.Error(), "too complex") {
		t.Errorf("got %v, want an end of the patience", err)
	}
}

// A schemaMaker draws JSON Schemas and values that conform to them.
type schemaMaker struct{ t *rapid.T }

func (m schemaMaker) schema(depth int) map[string]any {
	kinds := []string{"string", "boolean", "integer", "number", "null", "enum", "date-time", "duration", "ipv4", "ipv6", "unknown"}
	if depth > 0 {
		kinds = append(kinds, "array", "object", "map", "tuple", "union", "types", "free")
	}
	switch k := rapid.SampledFrom(kinds).Draw(m.t, "kind"); k {
	case "string", "boolean", "integer", "number", "null":
		return map[string]any{"type": k}
	case "enum":
		return map[string]any{"type": "string", "enum": toAny(rapid.SliceOfNDistinct(rapid.String(), 1, 4, rapid.ID).Draw(m.t, "values"))}
	case "date-time", "duration", "ipv4", "ipv6":
		return map[string]any{"type": "string", "format": k}
	case "array":
		return map[string]any{"type": "array", "items": m.schema(depth - 1)}
	case "object":
		return m.object(depth)
	case "map":
		o := m.object(depth)
		o["additionalProperties"] = m.schema(depth - 1)
		return o
	case "tuple":
		return map[string]any{"type": "array", "prefixItems": []any{m.schema(depth - 1), m.schema(depth - 1)}, "items": false}
	case "union":
		return map[string]any{"anyOf": []any{m.schema(depth - 1), m.schema(depth - 1)}}
	case "types":
		return map[string]any{"type": []any{"null", "string", "integer"}}
	case "free":
		return map[string]any{"type": "object"}
	default:
		return map[string]any{}
	}
}

func (m schemaMaker) object(depth int) map[string]any {
	props, required := map[string]any{}, []any{}
	for _, name := range rapid.SliceOfNDistinct(names().Filter(func(s string) bool { return json.Valid([]byte(quoted(s))) }), 0, 4, rapid.ID).Draw(m.t, "names") {
		name = strings.ToValidUTF8(name, "?")
		props[name] = m.schema(depth - 1)
		if rapid.Bool().Draw(m.t, "required") {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": props, "required": required}
}

func (m schemaMaker) value(s map[string]any) any {
	if alts, ok := s["anyOf"].([]any); ok {
		return m.value(rapid.SampledFrom(alts).Draw(m.t, "alternative").(map[string]any))
	}
	switch s["type"] {
	case "string":
		return m.text(s)
	case "boolean":
		return rapid.Bool().Draw(m.t, "bool")
	case "integer":
		return rapid.Int64().Draw(m.t, "integer")
	case "number":
		return json.RawMessage(fmt.Sprintf("%d.%04d", rapid.IntRange(-1e9, 1e9).Draw(m.t, "whole"), rapid.IntRange(0, 9999).Draw(m.t, "part")))
	case "null":
		return nil
	case "array":
		return m.array(s)
	case "object":
		return m.members(s)
	default:
		if _, isList := s["type"].([]any); isList {
			return rapid.SampledFrom([]any{nil, "text", 7}).Draw(m.t, "any of the types")
		}
		return rapid.SampledFrom([]any{nil, "x", 1, true, []any{1, "a"}, map[string]any{"k": nil}}).Draw(m.t, "anything")
	}
}

func (m schemaMaker) text(s map[string]any) any {
	if values, ok := s["enum"].([]any); ok {
		return rapid.SampledFrom(values).Draw(m.t, "enum")
	}
	switch s["format"] {
	case "date-time":
		return "2026-11-22T10:00:00Z"
	case "duration":
		return "PT90S"
	case "ipv4":
		return "192.0.2.1"
	case "ipv6":
		return "2001:db8::1"
	default:
		return rapid.String().Draw(m.t, "string")
	}
}

func (m schemaMaker) array(s map[string]any) any {
	out := []any{}
	if prefix, ok := s["prefixItems"].([]any); ok {
		for _, p := range prefix {
			out = append(out, m.value(p.(map[string]any)))
		}
		return out
	}
	for range rapid.IntRange(0, 3).Draw(m.t, "length") {
		out = append(out, m.value(s["items"].(map[string]any)))
	}
	return out
}

func (m schemaMaker) members(s map[string]any) any {
	out := map[string]any{}
	props, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, name := range sortedKeys(props) {
		if slices.Contains(required, any(name)) || rapid.Bool().Draw(m.t, "present") {
			out[name] = m.value(props[name].(map[string]any))
		}
	}
	if more, ok := s["additionalProperties"].(map[string]any); ok {
		for range rapid.IntRange(0, 2).Draw(m.t, "more") {
			name := "more" + rapid.StringMatching(`[a-c"\\]{1,2}`).Draw(m.t, "name")
			if _, taken := props[name]; !taken {
				out[name] = m.value(more)
			}
		}
	}
	return out
}

func toAny(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = strings.ToValidUTF8(s, "?")
	}
	return out
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(b)
}

// TestInputsConformToTheSchema: what Input makes of a value that conforms to
// the JSON Schema conforms to the Cedar schema, by cedar-go's validator.
func TestInputsConformToTheSchema(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := schemaMaker{t}
		s := m.object(3)
		def := marshal(t, map[string]any{"name": rapid.StringN(1, 8, -1).Draw(t, "tool"), "inputSchema": s})
		l := &Lock{}
		pin, err := l.Pin("srv", def)
		if err != nil {
			t.Skip(err)
		}
		c, err := New(Config{Lock: l})
		if err != nil {
			t.Fatal(err)
		}
		o, ok := c.Operation("srv/" + pin.Tool)
		if !ok {
			t.Fatal("there is no operation")
		}
		args := marshal(t, m.value(s))
		rec, entities, err := o.Input("srv", args)
		if err != nil {
			t.Fatalf("%v\nschema %s\narguments %s", err, def, args)
		}
		checkRequest(t, c, o, rec, types.NewEntityUID("Server", "srv"), entities)
		again, _, err := o.Input("srv", args)
		if err != nil || !again.Equal(rec) {
			t.Fatalf("the second time: %v, %v", again, err)
		}
	})
}

func marshal(t *rapid.T, v any) json.RawMessage {
	b, err := jsonv2.Marshal(v)
	if err != nil {
		t.Skip(err)
	}
	return b
}

func FuzzInput(f *testing.F) {
	c := mustCatalog(f, mustLock(f, "x", everything), "")
	o := mustOperation(f, c, "x/t")
	for _, seed := range []string{
		`{"s":"x","map":{"k":"v"},"do":{"type":"go","n":1e3},"u":null,"a":[1,2],"free":[{}]}`,
		`{"s":"x","n":-0.12e-2,"pair":["a",1],"ip6":"::","time":"2026-11-22T20:00:00Z","dur":"P1D"}`,
		`{"s":`, `[[[[`, `{"s":"\ud83d\ude00","s":1}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		rec, entities, err := o.Input("x", raw)
		if err != nil {
			var bad *InputError
			if !errors.As(err, &bad) {
				t.Fatalf("%q: %v is no InputError", raw, err)
			}
			return
		}
		checkRequest(t, c, o, rec, types.NewEntityUID("Server", "x"), entities)
	})
}

// FuzzDefinition builds catalogues of whatever a server may call a tool.
func FuzzDefinition(f *testing.F) {
	f.Add([]byte(everything), []byte(`{"s":"x"}`))
	f.Add([]byte(mailTools), []byte(`{"to":[]}`))
	f.Add([]byte(`{"name":"t","inputSchema":{"type":["object","null"],"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}}}}`), []byte(`{"a":1}`))
	f.Fuzz(func(t *testing.T, def, args []byte) {
		l := &Lock{}
		pin, err := l.Pin("srv", def)
		if err != nil {
			return
		}
		c, err := New(Config{Lock: l})
		if err != nil {
			t.Fatal(err)
		}
		o, ok := c.Operation("srv/" + pin.Tool)
		if !ok {
			t.Fatal("there is no operation")
		}
		Suggest(def)
		Diff(nil, def)
		rec, entities, err := o.Input("srv", args)
		if err != nil {
			return
		}
		checkRequest(t, c, o, rec, types.NewEntityUID("Server", "srv"), entities)
	})
}

func TestErrorsNeverQuoteValues(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "x", everything), "")
	o := mustOperation(t, c, "x/t")
	for attr := range map[string]bool{"b": true, "i": true, "n": true, "e": true, "time": true, "ip4": true, "u": true, "o": true, "dec": true} {
		_, _, err := o.Input("x", json.RawMessage(`{"s":"x","`+attr+`":"hunter2secret"}`))
		if attr == "u" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", attr, err)
		}
	}
	if diff := cmp.Diff(`argument "a\\u{202e}b" is missing`, (&InputError{Path: "a\u202eb", Reason: "is missing"}).Error()); diff != "" {
		t.Errorf("control characters (-want +got):\n%s", diff)
	}
}

// TestEntitiesOfOneTypeStayApart gives objects with tags at two places whose
// paths look alike.
func TestEntitiesOfOneTypeStayApart(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "x", `{"name":"t","inputSchema":{"type":"object",
		"properties":{"a":{"type":"object","properties":{"b":{"$ref":"#/$defs/m"}}},"a/b":{"$ref":"#/$defs/m"}},
		"$defs":{"m":{"type":"object","additionalProperties":{"type":"string"}}}}}`), "")
	_, entities, err := mustOperation(t, c, "x/t").Input("x", json.RawMessage(`{"a":{"b":{"k":"1"}},"a/b":{"k":"2"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(entities) != 2 {
		t.Errorf("got %d entities, want 2: %v", len(entities), entities)
	}
}
