package coaz_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/coaz"
)

// one is a mapping with these members, and an action and a resource if it has
// none.
func one(members string) string {
	for _, m := range []string{`"action":{"name":"a"}`, `"resource":{"type":"t","id":"i"}`} {
		if name, _, _ := strings.Cut(m, ":"); !strings.Contains(members, name) {
			members += "," + m
		}
	}
	return `{"evaluation":{` + strings.TrimPrefix(members, ",") + `}}`
}

func many(top, entries string) string {
	if top != "" {
		top += ","
	}
	return `{"evaluations":{` + top + `"evaluations":[` + entries + `]}}`
}

// Malformed mappings are refused, and the error says where.
func TestMalformedMappings(t *testing.T) {
	for _, tt := range []struct{ name, mapping, path string }{
		// COAZ, The Mapping; COAZ-MCP, Mapping Envelopes
		{"no envelope", `{}`, "mapping"},
		{"two envelopes", `{"evaluation":{"action":{"name":"a"},"resource":{"type":"t","id":"i"}},"evaluations":{}}`, "mapping"},
		{"unknown envelope", `{"search":{"action":{"name":"a"},"resource":{"type":"t","id":"i"}}}`, "mapping"},
		{"no object", `[]`, "mapping"},
		{"null", `null`, "mapping"},
		{"nothing", ``, "mapping"},
		{"two objects", `{"evaluation":{}}{}`, "mapping"},
		{"duplicate key", one(`"context":{"a":1,"a":2}`), "mapping"},
		{"duplicate envelope", `{"evaluation":{},"evaluation":{}}`, "mapping"},
		{"invalid UTF-8", one("\"context\":{\"a\":\"\xff\"}"), "mapping"},
		{"envelope is an expression", `{"evaluation":"$params"}`, "evaluation"},
		{"unknown member", one(`"options":{}`), "evaluation"},
		{"entries in the other envelope", one(`"evaluations":[]`), "evaluation"},
		{"no action", `{"evaluation":{"resource":{"type":"t","id":"i"}}}`, "evaluation.action"},
		{"no resource", `{"evaluation":{"action":{"name":"a"}}}`, "evaluation.resource"},
		{"action is null", one(`"action":null`), "evaluation.action"},
		{"resource is null", one(`"resource":null`), "evaluation.resource"},
		{"subject is null", one(`"subject":null`), "evaluation.subject"},
		{"subject is a string", one(`"subject":"alice"`), "evaluation.subject"},
		{"context is a list", one(`"context":[]`), "evaluation.context"},
		{"sibling of the subject", one(`"subject":{"role":"admin"}`), "evaluation.subject"},
		{"sibling of the action", one(`"action":{"name":"a","soft":true}`), "evaluation.action"},
		{"type of an action", one(`"action":{"name":"a","type":"t"}`), "evaluation.action"},
		{"sibling of the resource", one(`"resource":{"type":"t","id":"i","status":"s"}`), "evaluation.resource"},
		{"not CEL", one(`"context":{"a":"$params."}`), "evaluation.context.a"},
		{"empty expression", one(`"context":{"a":"$"}`), "evaluation.context.a"},
		{"a variable that is not there", one(`"context":{"a":["$request.x"]}`), "evaluation.context.a[0]"},
		{"a dollar inside", one(`"resource":{"type":"t","id":"$true ? $params.a : 'b'"}`), "evaluation.resource.id"},
		{"no entries", `{"evaluations":{"action":{"name":"a"},"resource":{"type":"t","id":"i"}}}`, "evaluations.evaluations"},
		{"empty entries", many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, ``), "evaluations.evaluations"},
		// COAZ, The Expression Contract: no fan out.
		{"entries are an expression", `{"evaluations":{"action":{"name":"a"},"resource":{"type":"t","id":"i"},"evaluations":"$params.list"}}`, "evaluations.evaluations"},
		{"entry is an expression", many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, `"$params.x"`), "evaluations.evaluations[0]"},
		// COAZ-MCP, Declared Mappings: identity smuggling.
		{"subject in an entry", many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, `{},{"subject":{"type":"identity","id":"$token.sub"}}`), "evaluations.evaluations[1].subject"},
		{"empty subject in an entry", many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, `{"subject":{}}`), "evaluations.evaluations[0].subject"},
		{"entry without action", many(`"resource":{"type":"t","id":"i"}`, `{"action":{"name":"a"}},{}`), "evaluations.evaluations[1].action"},
		{"entry without resource", many(`"action":{"name":"a"}`, `{}`), "evaluations.evaluations[0].resource"},
		{"unknown member of an entry", many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, `{"options":{}}`), "evaluations.evaluations[0]"},
		{"options", many(`"options":{"evaluations_semantic":"permit_on_first_permit"},"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, `{}`), "evaluations"},
		// Bounds.
		{"many entries", many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, strings.Repeat(`{},`, 32)+`{}`), "evaluations.evaluations"},
		{"many expressions", one(`"context":{"a":[` + strings.Repeat(`"$1",`, 128) + `"$1"]}`), "evaluation.context.a[128]"},
		{"many values", one(`"context":{"a":[` + strings.Repeat(`1,`, 1100) + `1]}`), "evaluation.context.a[1017]"},
		{"deep", one(`"context":{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`), "evaluation.context.a" + strings.Repeat("[0]", 32)},
		{"long", one(`"context":{"a":"` + strings.Repeat("a", 64<<10) + `"}`), "mapping"},
		{"long expression", one(`"context":{"a":"$'` + strings.Repeat("a", 4<<10) + `'"}`), "evaluation.context.a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := coaz.Compile(raw(tt.mapping))
			e, ok := err.(*coaz.Error)
			if m != nil || !ok || e.Path != tt.path || coaz.Code(err) != coaz.CodeMapping || len(err.Error()) > 600 {
				t.Errorf("got %v, want an error at %s", err, tt.path)
			}
		})
	}
}

// What a mapping makes of a message.
func TestRules(t *testing.T) {
	const (
		subject = `"subject":{"type":"identity","id":"alice"}`
		rest    = `,"action":{"name":"a"},"resource":{"type":"t","id":"i"}`
		params  = `{"name":"n","arguments":{"id":"x","n":5,"list":["a","b"],"nil":null,"entity":{"type":"et","id":"ei"},"empty":""}}`
		claims  = `{"sub":"alice","obo":"bob","email":"a@b","aud":["https://other","https://me"],"n":7,"act":{"sub":"bot"}}`
	)
	plain := `{` + subject + rest + `}`
	for _, tt := range []struct {
		name, mapping string
		claim         string // designated
		params, token string
		want          string // a request; empty: a mapping error
		path          string // of the error
		unanchored    bool
	}{
		// COAZ-MCP, Declared Mappings: the subject.
		{name: "no subject", mapping: one(``), want: plain},
		{name: "no subject.id", mapping: one(`"subject":{"type":"user"}`), want: `{"subject":{"type":"user","id":"alice"}` + rest + `}`},
		{name: "no subject.type", mapping: one(`"subject":{"id":"$token.sub"}`), want: plain},
		{name: "anchored by index", mapping: one(`"subject":{"id":"$token['sub']"}`), want: plain},
		{name: "anchored by optional", mapping: one(`"subject":{"id":"$token.?sub"}`), want: plain},
		{name: "subject's own attributes", mapping: one(`"subject":{"properties":{"tier":"$params.arguments.id","vip":true}}`), want: `{"subject":{"type":"identity","id":"alice","properties":{"tier":"x","vip":true}}` + rest + `}`},
		{name: "subject of the entries", mapping: many(`"subject":{"type":"user"}`+rest, `{}`), want: `{"subject":{"type":"user","id":"alice"}` + rest + `}`},
		{name: "no subject of the entries", mapping: many(strings.TrimPrefix(rest, ","), `{}`), want: plain},
		{name: "token without the claim", mapping: one(``), token: `{"email":"a@b"}`, path: "evaluation.subject.id"},
		{name: "claim is no string", mapping: one(``), token: `{"sub":7}`, path: "evaluation.subject.id"},
		{name: "claim is a list", mapping: one(``), token: `{"sub":["alice"]}`, path: "evaluation.subject.id"},
		{name: "claim is empty", mapping: one(``), token: `{"sub":""}`, path: "evaluation.subject.id"},
		{name: "no token", mapping: one(``), token: `{}`, path: "evaluation.subject.id"},
		// COAZ-MCP, The Subject-Identity Claim.
		{name: "designated claim", mapping: one(`"subject":{"id":"$token.sub"}`), claim: "obo", want: `{"subject":{"type":"identity","id":"bob"}` + rest + `}`},
		{name: "designated claim by default", mapping: one(``), claim: "obo", want: `{"subject":{"type":"identity","id":"bob"}` + rest + `}`},
		{name: "designated claim by name", mapping: one(`"subject":{"id":"$token.obo"}`), claim: "obo", want: `{"subject":{"type":"identity","id":"bob"}` + rest + `}`},
		{name: "designated claim missing", mapping: one(`"subject":{"id":"$token.sub"}`), claim: "nobody", path: "evaluation.subject.id"},
		{name: "sub elsewhere is sub", mapping: one(`"context":{"sub":"$token.sub"}`), claim: "obo", want: `{"subject":{"type":"identity","id":"bob"}` + rest + `,"context":{"sub":"alice"}}`},
		// COAZ-MCP, PEP Behavior 5: whoever overrides it is warned about.
		{name: "another claim", mapping: one(`"subject":{"id":"$token.email"}`), want: `{"subject":{"type":"identity","id":"a@b"}` + rest + `}`, unanchored: true},
		{name: "claim that is not designated", mapping: one(`"subject":{"id":"$token.obo"}`), want: `{"subject":{"type":"identity","id":"bob"}` + rest + `}`, unanchored: true},
		{name: "claim within a claim", mapping: one(`"subject":{"id":"$token.act.sub"}`), want: `{"subject":{"type":"identity","id":"bot"}` + rest + `}`, unanchored: true},
		{name: "from the params", mapping: one(`"subject":{"id":"$params.arguments.id"}`), want: `{"subject":{"type":"identity","id":"x"}` + rest + `}`, unanchored: true},
		{name: "a param called as the claim", mapping: one(`"subject":{"id":"$params.sub"}`), params: `{"sub":"mallory"}`, want: `{"subject":{"type":"identity","id":"mallory"}` + rest + `}`, unanchored: true},
		{name: "a param called as the claim, by index", mapping: one(`"subject":{"id":"$params['sub']"}`), params: `{"sub":"mallory"}`, want: `{"subject":{"type":"identity","id":"mallory"}` + rest + `}`, unanchored: true},
		{name: "whether there is the claim", mapping: one(`"subject":{"id":"$has(token.sub)"}`), path: "evaluation.subject.id"},
		{name: "a variable called token", mapping: one(`"subject":{"id":"$optional.of({'sub': 'mallory'}).optMap(token, token.sub).value()"}`), want: `{"subject":{"type":"identity","id":"mallory"}` + rest + `}`, unanchored: true},
		{name: "a literal", mapping: one(`"subject":{"id":"mallory"}`), want: `{"subject":{"type":"identity","id":"mallory"}` + rest + `}`, unanchored: true},
		{name: "computed of the claim", mapping: one(`"subject":{"id":"$token.sub + ''"}`), want: plain, unanchored: true},
		{name: "wholly computed", mapping: one(`"subject":"$params.arguments.entity"`), want: `{"subject":{"type":"et","id":"ei"}` + rest + `}`, unanchored: true},
		{name: "wholly computed without id", mapping: one(`"subject":"${'type': 'user'}"`), path: "evaluation.subject.id", unanchored: true},
		{name: "wholly computed with a sibling", mapping: one(`"subject":"${'type': 'user', 'id': 'x', 'role': 'admin'}"`), path: "evaluation.subject.role", unanchored: true},
		// COAZ, The Expression Contract.
		{name: "absent is left out", mapping: one(`"context":{"a":"$params.?x","b":"$params.arguments.?id","c":"$params.?x.?y"}`), want: `{` + subject + rest + `,"context":{"b":"x"}}`},
		{name: "absent first and last", mapping: one(`"context":{"l":["$params.?x",1,"$params.?x",2,"$params.?x"]}`), want: `{` + subject + rest + `,"context":{"l":[1,2]}}`},
		{name: "null is not absent", mapping: one(`"context":{"a":null,"b":"$null","c":"$params.arguments.?nil"}`), want: `{` + subject + rest + `,"context":{"a":null,"b":null,"c":null}}`},
		{name: "absent context", mapping: one(`"context":"$params.?x"`), want: plain},
		{name: "absent properties", mapping: one(`"resource":{"type":"t","id":"i","properties":"$params.?x"}`), want: plain},
		{name: "missing is an error", mapping: one(`"context":{"a":"$params.x"}`), path: "evaluation.context.a"},
		{name: "a list is one value", mapping: one(`"context":{"a":"$params.arguments.list"}`), want: `{` + subject + rest + `,"context":{"a":["a","b"]}}`},
		{name: "a map is one value", mapping: one(`"context":"$params.arguments.entity"`), want: `{` + subject + rest + `,"context":{"type":"et","id":"ei"}}`},
		{name: "computed resource", mapping: one(`"resource":"$params.arguments.entity"`), want: `{` + subject + `,"action":{"name":"a"},"resource":{"type":"et","id":"ei"}}`},
		{name: "computed action", mapping: one(`"action":"${'name': params.name}"`), want: `{` + subject + `,"action":{"name":"n"},"resource":{"type":"t","id":"i"}}`},
		{name: "literals", mapping: one(`"context":{"n":1.50,"b":false,"l":[{"a":"$$x"}],"s":"cost: $5"}`), want: `{` + subject + rest + `,"context":{"n":1.50,"b":false,"l":[{"a":"$x"}],"s":"cost: $5"}}`},
		// Absent or null where it is required.
		{name: "absent subject", mapping: one(`"subject":"$params.?x"`), path: "evaluation.subject"},
		{name: "absent action", mapping: one(`"action":"$params.?x"`), path: "evaluation.action"},
		{name: "absent resource", mapping: one(`"resource":"$params.?x"`), path: "evaluation.resource"},
		{name: "null subject", mapping: one(`"subject":"$null"`), path: "evaluation.subject"},
		{name: "null action", mapping: one(`"action":"$params.arguments.nil"`), path: "evaluation.action"},
		{name: "null resource", mapping: one(`"resource":"$params.arguments.nil"`), path: "evaluation.resource"},
		{name: "absent subject.id", mapping: one(`"subject":{"id":"$params.?x"}`), path: "evaluation.subject.id"},
		{name: "absent subject.type", mapping: one(`"subject":{"type":"$params.?x"}`), path: "evaluation.subject.type"},
		{name: "null subject.id", mapping: one(`"subject":{"id":null}`), path: "evaluation.subject.id"},
		{name: "absent action.name", mapping: one(`"action":{"name":"$params.?x"}`), path: "evaluation.action.name"},
		{name: "null action.name", mapping: one(`"action":{"name":"$null"}`), path: "evaluation.action.name"},
		{name: "no action.name", mapping: one(`"action":{}`), path: "evaluation.action.name"},
		{name: "absent resource.id", mapping: one(`"resource":{"type":"t","id":"$params.?x"}`), path: "evaluation.resource.id"},
		{name: "no resource.type", mapping: one(`"resource":{"id":"i"}`), path: "evaluation.resource.type"},
		{name: "resource.id is a list", mapping: one(`"resource":{"type":"t","id":"$params.arguments.list"}`), path: "evaluation.resource.id"},
		{name: "resource.id is a number", mapping: one(`"resource":{"type":"t","id":"$params.arguments.n"}`), path: "evaluation.resource.id"},
		{name: "resource.id is empty", mapping: one(`"resource":{"type":"t","id":"$params.arguments.empty"}`), path: "evaluation.resource.id"},
		{name: "properties are a list", mapping: one(`"resource":{"type":"t","id":"i","properties":"$params.arguments.list"}`), path: "evaluation.resource.properties"},
		{name: "properties are null", mapping: one(`"action":{"name":"a","properties":null}`), path: "evaluation.action.properties"},
		{name: "context is a list", mapping: one(`"context":"$params.arguments.list"`), path: "evaluation.context"},
		{name: "context is null", mapping: one(`"context":"$null"`), path: "evaluation.context"},
		{name: "sibling of a computed resource", mapping: one(`"resource":"${'type': 't', 'id': 'i', 'x': 1}"`), path: "evaluation.resource.x"},
		// AuthZEN 1.0 §7.1.1: an entry replaces a default as a whole.
		{
			name: "defaults", mapping: many(`"action":{"name":"a","properties":{"p":1}},"context":{"c":1},"resource":{"type":"t","id":"i","properties":{"r":1}}`, `{"resource":{"type":"u","id":"j"},"context":{"d":2}},{"action":{"name":"b"}}`),
			want: `{` + subject + `,"evaluations":[{"action":{"name":"a","properties":{"p":1}},"resource":{"type":"u","id":"j"},"context":{"d":2}},{"action":{"name":"b"},"resource":{"type":"t","id":"i","properties":{"r":1}},"context":{"c":1}}]}`,
		},
		{name: "error in a default", mapping: many(`"action":{"name":"a"},"resource":{"type":"t","id":"$params.x"}`, `{"resource":{"type":"u","id":"j"}}`), path: "evaluations.resource.id"},
		{name: "absent in an entry", mapping: many(`"action":{"name":"a"},"resource":{"type":"t","id":"i"}`, `{"action":"$params.?x"}`), path: "evaluations.evaluations[0].action"},
		// COAZ-MCP, Default Mappings: aud.
		{name: "aud of several", mapping: one(`"resource":{"type":"t","id":"$token.aud"}`), want: `{` + subject + `,"action":{"name":"a"},"resource":{"type":"t","id":"https://me"}}`},
		{name: "aud of one", mapping: one(`"resource":{"type":"t","id":"$token.aud"}`), token: `{"sub":"alice","aud":"https://x"}`, want: `{` + subject + `,"action":{"name":"a"},"resource":{"type":"t","id":"https://x"}}`},
		{name: "aud without this server", mapping: one(`"resource":{"type":"t","id":"$token.aud"}`), token: `{"sub":"alice","aud":["https://x"]}`, path: "evaluation.resource.id"},
		{name: "no aud", mapping: one(`"resource":{"type":"t","id":"$token.aud"}`), token: `{"sub":"alice"}`, path: "evaluation.resource.id"},
		{name: "aud of another form", mapping: one(`"resource":{"type":"t","id":"$token.aud"}`), token: `{"sub":"alice","aud":{"a":1}}`, path: "evaluation.resource.id"},
		{name: "aud elsewhere is aud", mapping: one(`"context":{"aud":"$token.aud"}`), want: `{` + subject + rest + `,"context":{"aud":["https://other","https://me"]}}`},
		// Inputs are I-JSON.
		{name: "params with a key twice", mapping: one(``), params: `{"name":"a","name":"b"}`, path: "params"},
		{name: "params that are no object", mapping: one(``), params: `[]`, path: "params"},
		{name: "params that are null", mapping: one(``), params: `null`, path: "params"},
		{name: "params and more", mapping: one(``), params: `{},{}`, path: "params"},
		{name: "params that are large", mapping: one(``), params: `{"a":"` + strings.Repeat("a", 1<<20) + `"}`, path: "params"},
		{name: "params of many values", mapping: one(``), params: `{"a":[` + strings.Repeat("1,", 1<<16) + `1]}`, path: "params"},
		{name: "params that are deep", mapping: one(``), params: `{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, path: "params"},
		{name: "a number to be rounded", mapping: one(``), params: `{"a":12345678901234567891}`, path: "params"},
		{name: "token with a key twice", mapping: one(``), token: `{"sub":"alice","sub":"mallory"}`, path: "token"},
		{name: "token that is large", mapping: one(``), token: `{"sub":"alice","a":"` + strings.Repeat("a", 64<<10) + `"}`, path: "token"},
		{name: "large integers", mapping: one(`"context":{"a":"$params.a"}`), params: `{"a":9007199254740993}`, want: `{` + subject + rest + `,"context":{"a":9007199254740993}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := coaz.Input{Params: raw(params), Token: raw(claims), Server: "https://me", SubjectClaim: tt.claim}
			if tt.params != "" {
				in.Params = raw(tt.params)
			}
			if tt.token != "" {
				in.Token = raw(tt.token)
			}
			r, err := compile(t, tt.mapping).Map(t.Context(), in)
			if tt.want == "" {
				e, ok := err.(*coaz.Error)
				if !ok || e.Path != tt.path || len(r.Evaluations) > 0 {
					t.Errorf("got %+v, %v, want an error at %s", r, err, tt.path)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(expand(t, raw(tt.want)), bodies(t, r)); d != "" || r.Unanchored != tt.unanchored {
				t.Errorf("unanchored %t, %s", r.Unanchored, d)
			}
			if tt.name == "large integers" && !strings.Contains(string(r.Evaluations[0].Context), "9007199254740993") {
				t.Errorf("rounded: %s", r.Evaluations[0].Context)
			}
		})
	}
}

// A PEP that does not know its own identifier takes the one audience there is.
func TestAudienceWithoutServer(t *testing.T) {
	m, _ := coaz.Default("tools/list")
	for aud, want := range map[string]string{`["https://a"]`: "https://a", `"https://b"`: "https://b", `["https://a","https://b"]`: "", `[]`: "", `[7]`: ""} {
		r, err := m.Map(t.Context(), coaz.Input{Token: raw(`{"sub":"alice","aud":` + aud + `}`)})
		if (err == nil) != (want != "") || (err == nil && r.Evaluations[0].Resource.ID != want) {
			t.Errorf("%s: %+v, %v", aud, r, err)
		}
	}
}

// A mapping is declared by the member of a tool's inputSchema, and nowhere
// else.
func TestDeclared(t *testing.T) {
	for _, tt := range []struct {
		definition, want string
		ok, fails        bool
	}{
		{definition: `{"name":"a","inputSchema":{"type":"object","x-authzen-mapping":{"evaluation":{}}}}`, want: `{"evaluation":{}}`, ok: true},
		{definition: `{"name":"a","inputSchema":{"x-authzen-mapping":null}}`, want: `null`, ok: true},
		{definition: `{"name":"a","inputSchema":{"type":"object"}}`},
		{definition: `{"name":"a","inputSchema":true}`},
		{definition: `{"name":"a"}`},
		{definition: `{"name":"a","x-authzen-mapping":{}}`},
		{definition: `{"name":"a","inputSchema":{"properties":{"x-authzen-mapping":{}}}}`},
		{definition: `{"name":"a","outputSchema":{"x-authzen-mapping":{}}}`},
		{definition: `{"inputSchema":{"x-authzen-mapping":{},"x-authzen-mapping":{}}}`, fails: true},
		{definition: `{"inputSchema":{},"inputSchema":{"x-authzen-mapping":{}}}`, fails: true},
		{definition: `[]`, fails: true},
		{definition: ``, fails: true},
		{definition: `{"inputSchema":{"x-authzen-mapping":{}}`, fails: true},
	} {
		got, ok, err := coaz.Declared(raw(tt.definition))
		if string(got) != tt.want || ok != tt.ok || (err != nil) != tt.fails {
			t.Errorf("%s: %s %t %v", tt.definition, got, ok, err)
		}
	}
}

func TestToolCall(t *testing.T) {
	for _, tt := range []struct{ name, arguments, want string }{
		{"a\"b", `{"x":1}`, `{"name":"a\"b","arguments":{"x":1}}`},
		{"a", ``, `{"name":"a"}`},
	} {
		got, err := coaz.ToolCall(tt.name, raw(tt.arguments))
		if string(got) != tt.want || err != nil {
			t.Errorf("%s %v", got, err)
		}
	}
	for _, bad := range []string{`{},"name":"b"`, `{},"_meta":{}`, `[]`, `null`, `{`, `{"a":1,"a":2}`} {
		if got, err := coaz.ToolCall("a", raw(bad)); coaz.Code(err) != coaz.CodeMapping || got != nil {
			t.Errorf("arguments %s: %s %v", bad, got, err)
		}
	}
	if _, err := coaz.ToolCall("\xff", nil); err == nil {
		t.Error("a name that is not UTF-8")
	}
}

func ExampleMapping_Map() {
	m, err := coaz.Compile(raw(`{"evaluation":{"action":{"name":"get_customer"},"resource":{"type":"customer","id":"$params.arguments.id"}}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = m.Map(context.Background(), coaz.Input{Token: raw(`{"sub":"alice"}`), Params: raw(`{"name":"get_customer","arguments":{}}`)})
	fmt.Println(err)
	// Output: evaluation.resource.id: expression '$params.arguments.id' failed: no such key 'id'
}
