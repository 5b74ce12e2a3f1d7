package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
)

func parse(t *testing.T, text []byte) *schema.Schema {
	t.Helper()
	var s schema.Schema
	if err := s.UnmarshalCedar(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &s
}

// mustLock pins tools of one server.
func mustLock(t testing.TB, server string, defs ...string) *Lock {
	t.Helper()
	l := &Lock{}
	for _, d := range defs {
		if _, err := l.Pin(server, json.RawMessage(d)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func mustCatalog(t testing.TB, l *Lock, overlay string) *Catalog {
	t.Helper()
	o, err := ParseOverlay([]byte(overlay))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Lock: l, Overlay: o})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustOperation(t testing.TB, c *Catalog, action string) *Operation {
	t.Helper()
	o, ok := c.Operation(action)
	if !ok {
		t.Fatalf("there is no operation %s", action)
	}
	return o
}

const mailTools = `{"name":"send mail","description":"Sends.","inputSchema":{"type":"object","properties":{
	"to":{"type":"array","items":{"type":"string"}},
	"mode":{"type":"string","enum":["now","later"]},
	"options":{"type":"object","properties":{"retries":{"type":["integer","null"]}}},
	"headers":{"type":"object","additionalProperties":{"type":"string"}},
	"extra":{"type":"object"},
	"in":{"type":"number"}
},"required":["to"]}}`

const mailOverlay = `
servers:
  mail-box:
    tools:
      send*:
        effects: [write, external]
        groups: [messaging]
        authority: [to]
        outputs: {outsiders: true, labels: [mail]}
`

func TestSchemaOfATool(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "mail-box", mailTools), mailOverlay)
	text := string(c.Schema())
	resolve(t, parse(t, c.Schema()))
	for _, want := range []string{
		`type mail_x2dbox__send_x20mail__Input = {
  extra?: Unknown,
  headers?: mail_x2dbox__send_x20mail__Input__headers,
  "in"?: decimal,
  mode?: mail_x2dbox__send_x20mail__Input__mode,
  options?: mail_x2dbox__send_x20mail__Input__options,
  to: Set<String>
};`,
		`type mail_x2dbox__send_x20mail__Input__options = {
  retries?: {
    typeChoice0?: Long,
    typeChoice1?: Null
  }
};`,
		`entity mail_x2dbox__send_x20mail__Input__headers tags String;`,
		`entity mail_x2dbox__send_x20mail__Input__mode enum ["now", "later"];`,
		`action "mail-box/send mail" in [Action::"external", Action::"messaging", Action::"write"] appliesTo {
  principal: [Agent],
  resource: [Server],
  context: {
    approvals: Set<String>,
    args: {
      to?: Origin
    },
    auth: Auth,
    authority: Origin,
    chain: Set<String>,
    content: Origin,
    gate: String,
    input: mail_x2dbox__send_x20mail__Input,
    now: datetime,
    risk: Risk,
    session: Session,
    subject?: String
  }
};`,
		`action "mcp:resources/read" in [Action::"read"] appliesTo {
  principal: [Agent],
  resource: [McpResource],`,
		"entity Agent in [Group] = {\n  model?: String,\n  owner?: String,\n  purpose?: String\n};", "entity McpPrompt in [Server];", `action "messaging";`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the schema lacks\n%s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestSchemaIsDeterministicAndTheSameInJSON(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "mail-box", mailTools), mailOverlay)
	for range 20 {
		again := mustCatalog(t, mustLock(t, "mail-box", mailTools), mailOverlay)
		if string(again.Schema()) != string(c.Schema()) {
			t.Fatal("the schema differs from run to run")
		}
	}
	text, err := c.SchemaJSON()
	if err != nil {
		t.Fatal(err)
	}
	var s schema.Schema
	if err := s.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(resolve(t, parse(t, c.Schema())), resolve(t, &s), resolvedOptions); diff != "" {
		t.Errorf("JSON and Cedar syntax differ:\n%s", diff)
	}
}

func TestActionsHoldTheGroups(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "mail-box", mailTools), mailOverlay)
	r := resolve(t, parse(t, c.Schema()))
	actions := c.Actions()
	if len(actions) != len(r.Actions) {
		t.Errorf("got %d action entities, want %d", len(actions), len(r.Actions))
	}
	v := validate.New(r)
	if err := v.Entities(actions); err != nil {
		t.Error(err)
	}
	o := mustOperation(t, c, "mail-box/send mail")
	if diff := cmp.Diff([]string{"mail", "untrusted"}, o.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"to"}, o.Authority); diff != "" {
		t.Errorf("authority (-want +got):\n%s", diff)
	}
}

// TestManyLargeTools builds a catalogue of real tools several times over.
func TestManyLargeTools(t *testing.T) {
	tools := readTools(t, filepath.Join(traces(t, "mcp-schema"), "strands", "strands_tools.json"))
	l := &Lock{}
	for _, server := range []string{"a", "b", "c", "d", "e"} {
		for _, def := range tools {
			if _, err := l.Pin(server, def); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := mustCatalog(t, l, "")
	if n := len(l.Pins()); n < 200 || len(c.Operations()) < n {
		t.Fatalf("%d pins, %d operations", n, len(c.Operations()))
	}
	resolve(t, parse(t, c.Schema()))
}

// TestHostileSchemasEnd turns schemas without an end into catalogues.
func TestHostileSchemasEnd(t *testing.T) {
	doubling := `{"name":"t","inputSchema":{"type":"object","properties":{"x":{"$ref":"#/$defs/d0"}},"$defs":{`
	for i := range 60 {
		doubling += fmt.Sprintf(`"d%d":{"type":"object","properties":{"a":{"$ref":"#/$defs/d%d"},"b":{"$ref":"#/$defs/d%d"}}},`, i, i+1, i+1)
	}
	doubling += `"d60":{"type":"string"}}}}`
	for name, def := range map[string]string{
		"itself":        `{"name":"t","inputSchema":{"type":"object","properties":{"n":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"object","properties":{"v":{"type":"string"},"next":{"$ref":"#/$defs/n"}}}}}}`,
		"one another":   `{"name":"t","inputSchema":{"type":"object","properties":{"a":{"$ref":"#/$defs/a"},"b":{"$ref":"#/$defs/b"}},"$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/b"}},"b":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}]}}}}`,
		"aliases":       `{"name":"t","inputSchema":{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}}`,
		"root":          `{"name":"t","inputSchema":{"$ref":"#/$defs/r","$defs":{"r":{"type":"object","properties":{"r":{"$ref":"#/$defs/r"}}}}}}`,
		"nowhere":       `{"name":"t","inputSchema":{"type":"object","properties":{"a":{"$ref":"#/$defs/none"},"b":{"$ref":"https://example.com/schema.json"},"c":{"$ref":"#"}}}}`,
		"doubling":      doubling,
		"deep":          `{"name":"t","inputSchema":` + strings.Repeat(`{"type":"object","properties":{"a":`, 500) + `{}` + strings.Repeat(`}}`, 500) + `}`,
		"deep array":    `{"name":"t","inputSchema":{"type":"object","properties":{"a":` + strings.Repeat(`{"type":"array","items":`, 500) + `{}` + strings.Repeat(`}`, 500) + `}}}`,
		"wrong types":   `{"name":"t","description":1,"annotations":[],"inputSchema":{"type":"object","properties":{"a":{"type":7},"b":true,"c":{"type":"string","enum":[]},"d":{"type":[]},"e":{"anyOf":[]}},"required":"a"}}`,
		"no schema":     `{"name":"t"}`,
		"array schema":  `{"name":"t","inputSchema":[]}`,
		"same names":    `{"name":"t","inputSchema":{"type":"object","properties":{"d":{"type":"string","enum":["x"]},"e":{"type":"object","properties":{"d":{"type":"string","enum":["y"]}}},"f":{"$ref":"#/$defs/d"},"o":{"type":"object","properties":{"oTag":{"type":"string","enum":["z"]}},"additionalProperties":{"type":"string","enum":["w"]}}},"$defs":{"d":{"type":"string","enum":["v"]},"e":{"type":"object","properties":{}}}}}`,
		"names of ours": `{"name":"Input","inputSchema":{"type":"object","properties":{"Agent":{"type":"string","enum":["x"]},"Set":{"type":"object","properties":{"Long":{"type":"integer"}}},"":{"type":"string","enum":[""]}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := mustCatalog(t, mustLock(t, "s", def), "")
			if n := len(c.Schema()); n > 1<<20 {
				t.Errorf("the schema has %d bytes", n)
			}
			resolve(t, parse(t, c.Schema()))
		})
	}
}

func TestToolsOfSimilarNamesStayApart(t *testing.T) {
	l := &Lock{}
	enum := func(tool, value string) json.RawMessage {
		return json.RawMessage(`{"name":"` + tool + `","inputSchema":{"type":"object","properties":{"m":{"type":"string","enum":["` + value + `"]}}}}`)
	}
	for _, p := range [][3]string{{"a", "b_c", "1"}, {"a_b", "c", "2"}, {"a", "b__c", "3"}, {"a_", "b", "4"}, {"a", "_b", "5"}, {"a-b", "c", "6"}} {
		if _, err := l.Pin(p[0], enum(p[1], p[2])); err != nil {
			t.Fatal(err)
		}
	}
	c := mustCatalog(t, l, "")
	for _, p := range l.Pins() {
		o := mustOperation(t, c, p.Server+"/"+p.Tool)
		if got := len(o.input.fields[0].shape.values); got != 1 {
			t.Errorf("%s: %d values", o.Action, got)
		}
	}
	if got := len(resolve(t, parse(t, c.Schema())).Enums); got != len(l.Pins()) {
		t.Errorf("got %d enums, want %d", got, len(l.Pins()))
	}
}

func TestMethodsAreOperations(t *testing.T) {
	c := mustCatalog(t, &Lock{}, "servers:\n  \"*\":\n    outputs: {labels: [seen]}\n")
	for _, tt := range []struct {
		method, params, effect, resource, wantErr string
	}{
		{"initialize", `{"protocolVersion":"x"}`, "discover", `Server::"s"`, ""},
		{"tools/list", ``, "discover", `Server::"s"`, ""},
		{"resources/list", `{}`, "discover", `Server::"s"`, ""},
		{"resources/templates/list", `{}`, "discover", `Server::"s"`, ""},
		{"prompts/list", `{"cursor":"x"}`, "discover", `Server::"s"`, ""},
		{"tasks/list", `{}`, "discover", `Server::"s"`, ""},
		{"subscriptions/listen", `{"_meta":{}}`, "discover", `Server::"s"`, ""},
		{"logging/setLevel", `{"level":"debug"}`, "discover", `Server::"s"`, ""},
		{"logging/setLevel", `{}`, "discover", ``, `"level" is missing`},
		{"resources/read", `{"uri":"file:///a"}`, "read", `McpResource::"s/file:///a"`, ""},
		{"resources/read", `{"uri":1}`, "read", ``, `"uri" is not a string`},
		{"resources/read", `{"uri":"a","uri":"b"}`, "read", ``, `twice`},
		{"resources/read", `[]`, "read", ``, `not a JSON object`},
		{"tools/list", `{"a":1} x`, "discover", ``, `after the arguments`},
		{"resources/subscribe", `{"uri":"u"}`, "read", `McpResource::"s/u"`, ""},
		{"resources/unsubscribe", `{"uri":"u"}`, "read", `McpResource::"s/u"`, ""},
		{"prompts/get", `{"name":"p","arguments":{}}`, "read", `McpPrompt::"s/p"`, ""},
		{"completion/complete", `{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""}}`, "read", `McpPrompt::"s/p"`, ""},
		{"completion/complete", `{"ref":{"type":"ref/resource","uri":"u"}}`, "read", `McpResource::"s/u"`, ""},
		{"completion/complete", `{"ref":{"type":"ref/resource","name":"p"}}`, "read", ``, `"uri" is missing`},
		{"completion/complete", `{"ref":{"type":"ref/other","uri":"u"}}`, "read", ``, `"ref.type"`},
		{"tasks/get", `{"taskId":"t"}`, "read", `Server::"s"`, ""},
		{"tasks/result", `{"taskId":"t"}`, "read", `Server::"s"`, ""},
		{"tasks/update", `{"taskId":"t"}`, "write", `Server::"s"`, ""},
		{"tasks/cancel", `{"taskId":"t"}`, "write", `Server::"s"`, ""},
	} {
		t.Run(tt.method+tt.params, func(t *testing.T) {
			o := mustOperation(t, c, "mcp:"+tt.method)
			if diff := cmp.Diff([]string{tt.effect}, o.Effects); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
			input, entities, err := o.Input("s", json.RawMessage(tt.params))
			uid := types.EntityUID{}
			if err == nil {
				var more types.EntityMap
				uid, more, err = o.Resource("s", authz.Entity{}, json.RawMessage(tt.params))
				entities = join(entities, more)
			}
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if uid.String() != tt.resource {
				t.Errorf("resource %s, want %s", uid, tt.resource)
			}
			checkRequest(t, c, o, input, uid, entities)
		})
	}
	read := mustOperation(t, c, "mcp:resources/read")
	if diff := cmp.Diff([]string{"seen", "unknown"}, read.OutputLabels("s")); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// A fataler is a testing.TB or a rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// checkRequest has cedar-go check a request and its entities by the schema.
func checkRequest(t fataler, c *Catalog, o *Operation, input types.Record, resource types.EntityUID, entities types.EntityMap) {
	t.Helper()
	var s schema.Schema
	if err := s.UnmarshalCedar(c.Schema()); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	v := validate.New(r)
	origin := types.NewRecord(types.RecordMap{
		"origin": types.String("user"), "trust": types.Long(5), "named": types.True, "contested": types.False,
		"tool": types.String(""), "step": types.Long(-1),
	})
	req := types.Request{
		Principal: types.NewEntityUID("Agent", "a"), Action: o.UID(), Resource: resource,
		Context: types.NewRecord(types.RecordMap{
			"input": input, "gate": types.String("mcp"), "now": types.NewDatetimeFromMillis(1),
			"auth":      types.NewRecord(types.RecordMap{"method": types.String("key"), "level": types.Long(1), "age": types.Long(0), "scopes": types.NewSet()}),
			"chain":     types.NewSet(),
			"risk":      types.NewRecord(types.RecordMap{"score": types.Long(0), "reasons": types.NewSet()}),
			"approvals": types.NewSet(),
			"authority": origin, "content": origin, "args": types.NewRecord(nil),
			"session": types.NewRecord(types.RecordMap{
				"id": types.String("s"), "labels": types.NewSet(), "calls": types.Long(1),
				"denials": types.Long(0), "integrity": types.Long(2), "confidentiality": types.Long(0), "started": types.NewDatetimeFromMillis(0),
			}),
		}),
	}
	if err := v.Request(req); err != nil {
		t.Fatalf("%v\n%s", err, c.Schema())
	}
	for _, e := range entities {
		if err := v.Entity(e); err != nil {
			t.Fatalf("entity %s: %v", e.UID, err)
		}
	}
}

func join(a, b types.EntityMap) types.EntityMap {
	out := types.EntityMap{}
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

func BenchmarkInput(b *testing.B) {
	c := mustCatalog(b, mustLock(b, "bank", `{"name":"pay","inputSchema":{"type":"object","properties":{"recipient":{"type":"string"},"amount":{"type":"number"},"subject":{"type":"string"},"date":{"type":"string","format":"date"},"urgent":{"type":"boolean"},"count":{"type":"integer"},"note":{"anyOf":[{"type":"string"},{"type":"null"}]}},"required":["recipient","amount"]}}`), "")
	op, _ := c.Operation("bank/pay")
	raw := json.RawMessage(`{"recipient":"GB29NWBK60161331926819","amount":100.25,"subject":"Rent for the flat in the Long Street, month of November 2026, thank you very much and see you soon, yours truly","date":"2026-11-22","urgent":false,"count":3,"note":"this is a note of about sixty characters in length, or so it is"}`)
	b.Log(len(raw))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := op.Input("bank", raw); err != nil {
			b.Fatal(err)
		}
	}
}
