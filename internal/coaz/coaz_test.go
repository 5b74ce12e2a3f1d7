package coaz_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
)

// binding is what is quoted of the binding; see testdata.
type binding struct {
	Defaults map[string]json.RawMessage
	Call     struct{ Params json.RawMessage }
	Token    json.RawMessage
	Tools    []json.RawMessage
	Single   json.RawMessage // what get_customer gives
	Copy     json.RawMessage // arguments of copy_object
	Multi    json.RawMessage // what it gives
}

func read(t testing.TB, file string, to any) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func quoted(t testing.TB) binding {
	t.Helper()
	var b binding
	read(t, "binding.json", &b)
	return b
}

func (b binding) tool(t testing.TB, name string) json.RawMessage {
	t.Helper()
	for _, d := range b.Tools {
		var tool struct{ Name string }
		if json.Unmarshal(d, &tool) == nil && tool.Name == name {
			return d
		}
	}
	t.Fatalf("no tool %s", name)
	return nil
}

// declared is the mapping of a tool.
func (b binding) declared(t testing.TB, name string) *coaz.Mapping {
	t.Helper()
	raw, ok, err := coaz.Declared(b.tool(t, name))
	if err != nil || !ok {
		t.Fatalf("%s declares no mapping: %v", name, err)
	}
	return compile(t, string(raw))
}

func compile(t testing.TB, mapping string) *coaz.Mapping {
	t.Helper()
	m, err := coaz.Compile(json.RawMessage(mapping))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bodies are the requests as AuthZEN has them.
func bodies(t testing.TB, r coaz.Requests) []any {
	t.Helper()
	b, err := json.Marshal(r.Evaluations)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, b).([]any)
}

func decode(t testing.TB, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// expand applies the defaults of an Access Evaluations request by AuthZEN 1.0
// §7.1.1, independently of the package.
func expand(t testing.TB, request json.RawMessage) []any {
	t.Helper()
	body := decode(t, request).(map[string]any)
	list, _ := body["evaluations"].([]any)
	delete(body, "evaluations")
	if list == nil {
		return []any{body}
	}
	var out []any
	for _, e := range list {
		full := map[string]any{}
		for k, v := range body {
			full[k] = v
		}
		for k, v := range e.(map[string]any) {
			full[k] = v
		}
		out = append(out, full)
	}
	return out
}

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func mapped(t testing.TB, m *coaz.Mapping, in coaz.Input) coaz.Requests {
	t.Helper()
	r, err := m.Map(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The examples of the binding give exactly the requests that it states.
func TestExamplesOfTheBinding(t *testing.T) {
	b := quoted(t)
	arguments, err := coaz.ToolCall("copy_object", b.Copy)
	if err != nil {
		t.Fatal(err)
	}
	transfer := `{"from_account":"a1","to_account":"a2","amount":10001,"currency":"EUR"}`
	for _, tt := range []struct {
		name, tool    string
		params, token json.RawMessage
		single        bool
		want          json.RawMessage
	}{
		{name: "single", tool: "get_customer", params: b.Call.Params, token: b.Token, single: true, want: b.Single},
		{name: "multi", tool: "copy_object", params: arguments, token: b.Token, want: b.Multi},
		{
			name: "conditions", tool: "transfer_funds", single: true,
			params: raw(`{"name":"transfer_funds","arguments":` + transfer + `}`), token: raw(`{"sub":"alice","roles":["clerk","treasury"]}`),
			want: raw(`{"subject":{"type":"treasury_user","id":"alice"},"action":{"name":"international_transfer"},
				"resource":{"type":"account","id":"a1","properties":{"sensitivity":"high"}},"context":{"target_account":"a2"}}`),
		},
		{
			name: "other conditions", tool: "transfer_funds", single: true,
			params: raw(`{"name":"transfer_funds","arguments":` + strings.NewReplacer("EUR", "USD", "10001", "10000.0").Replace(transfer) + `}`),
			token:  raw(`{"sub":"alice","roles":[],"client_id":"c"}`),
			want: raw(`{"subject":{"type":"standard_user","id":"alice"},"action":{"name":"domestic_transfer"},
				"resource":{"type":"account","id":"a1","properties":{"sensitivity":"standard"}},"context":{"agent":"c","target_account":"a2"}}`),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := mapped(t, b.declared(t, tt.tool), coaz.Input{Params: tt.params, Token: tt.token})
			if d := cmp.Diff(expand(t, tt.want), bodies(t, r)); d != "" || r.Single != tt.single || r.Unanchored {
				t.Errorf("single %t, unanchored %t, %s", r.Single, r.Unanchored, d)
			}
		})
	}
	if _, ok, err := coaz.Declared(b.tool(t, "get_local_weather")); ok || err != nil {
		t.Errorf("get_local_weather declares a mapping: %t, %v", ok, err)
	}
}

// The examples of the framework, with its illustrative variable by our name.
func TestExamplesOfTheFramework(t *testing.T) {
	var quotes []json.RawMessage
	read(t, "framework.json", &quotes)
	in := coaz.Input{Token: raw(`{"sub":"alice"}`), Params: raw(`{"document_id":"d1","source":"f1","destination":"f2","method":"GET","path":"/x","path_params":{"report_id":"r1"}}`)}
	const subject = `"subject":{"type":"identity","id":"alice"}`
	quotes = append(quotes, raw(`{"evaluation":{"action":{"name":"read"},"resource":{"type":"document","id":"$'urn:doc:' + request.document_id"}}}`))
	for i, want := range []string{
		`{` + subject + `,"action":{"name":"read"},"resource":{"type":"document","id":"d1"}}`,
		`{` + subject + `,"evaluations":[{"action":{"name":"read"},"resource":{"type":"folder","id":"f1"}},{"action":{"name":"write"},"resource":{"type":"folder","id":"f2"}}]}`,
		`{` + subject + `,"action":{"name":"GET"},"resource":{"type":"http_route","id":"/x"}}`,
		`{` + subject + `,"action":{"name":"approve"},"resource":{"type":"expense_report","id":"r1"}}`,
		`{` + subject + `,"action":{"name":"read"},"resource":{"type":"document","id":"urn:doc:d1"}}`,
	} {
		m := compile(t, strings.ReplaceAll(string(quotes[i]), "request.", "params."))
		if d := cmp.Diff(expand(t, raw(want)), bodies(t, mapped(t, m, in))); d != "" {
			t.Errorf("%d: %s", i, d)
		}
	}
}

// The expressions of the binding's table have the values that it states.
func TestExpressionsOfTheBinding(t *testing.T) {
	b := quoted(t)
	for expression, want := range map[string]string{
		"$params.name": "get_customer", "$params.arguments.id": "cust-12345", "$token.sub": "alice@example.com",
		"$token.?client_id": "http://agentprovider.com/agent-app-id", "customer": "customer", "$$50": "$50",
		"$$token.sub": "$token.sub", "a$b": "a$b", "$params.arguments['case']": "case-67890",
	} {
		r := mapped(t, compile(t, `{"evaluation":{"action":{"name":"a"},"resource":{"type":"t","id":"i"},"context":{"v":"`+expression+`"}}}`),
			coaz.Input{Params: b.Call.Params, Token: b.Token})
		if got := decode(t, r.Evaluations[0].Context).(map[string]any)["v"]; got != want {
			t.Errorf("%s is %v, want %s", expression, got, want)
		}
	}
}

// messages are params of each method.
var messages = map[string][]string{
	"initialize":               {`{"protocolVersion":"2025-11-25"}`},
	"tools/call":               {`{"name":"n","arguments":{"a":1}}`},
	"resources/read":           {`{"uri":"file:///a"}`},
	"resources/subscribe":      {`{"uri":"file:///a"}`},
	"resources/unsubscribe":    {`{"uri":"file:///a"}`},
	"prompts/get":              {`{"name":"p"}`},
	"completion/complete":      {`{"ref":{"type":"ref/prompt","name":"p"}}`, `{"ref":{"type":"ref/resource","uri":"file:///{a}"}}`},
	"logging/setLevel":         {`{"level":"debug"}`},
	"tasks/get":                {`{"taskId":"t1"}`},
	"tasks/result":             {`{"taskId":"t1"}`},
	"tasks/cancel":             {`{"taskId":"t1"}`},
	"tasks/update":             {`{"taskId":"t1"}`},
	"server/discover":          {``, `{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}`},
	"subscriptions/listen":     {`{"notifications":{}}`, `{"notifications":{"resourceSubscriptions":["file:///a"]}}`},
	"tools/list":               {``, `{"cursor":"x"}`},
	"resources/list":           {``},
	"resources/templates/list": {``},
	"prompts/list":             {``},
	"tasks/list":               {``},
}

const token = `{"sub":"alice","client_id":"bot","aud":"https://mcp.example.com"}`

// Every default mapping is the one that the binding quotes.
func TestDefaultMappings(t *testing.T) {
	b := quoted(t)
	if _, err := coaz.Compile(b.Defaults["completion/complete"]); err == nil {
		t.Error("the draft's mapping of completion/complete compiles: ours can go")
	}
	b.Defaults["completion/complete"] = raw(strings.NewReplacer("? $params", "? params", ": $params", ": params").Replace(string(b.Defaults["completion/complete"])))
	for method, quote := range b.Defaults {
		m, ok := coaz.Default(method)
		if !ok {
			t.Errorf("%s has no default mapping", method)
			continue
		}
		for _, params := range messages[method] {
			in := coaz.Input{Params: raw(params), Token: raw(token)}
			got, want := mapped(t, m, in), mapped(t, compile(t, string(quote)), in)
			if d := cmp.Diff(want, got); d != "" || !got.Single || got.Unanchored || got.Evaluations[0].Action != method {
				t.Errorf("%s: %+v %s", method, got, d)
			}
			in.Token = raw(`{"sub":"alice","aud":["https://mcp.example.com"]}`)
			if d := cmp.Diff(mapped(t, compile(t, string(quote)), in), mapped(t, m, in)); d != "" {
				t.Errorf("%s without an agent: %s", method, d)
			}
		}
		in := coaz.Input{Params: raw(`{"unrelated":1}`), Token: raw(token)}
		_, err := m.Map(t.Context(), in)
		if needs := messages[method][0] != ""; needs != (err != nil) {
			t.Errorf("%s without params: %v", method, err)
		}
	}
}

// Beside the binding's methods there are ours, and no others.
func TestExtension(t *testing.T) {
	b := quoted(t)
	var methods []string
	for method := range b.Defaults {
		methods = append(methods, method)
	}
	methods = append(methods, coaz.Extension()...)
	slices.Sort(methods)
	if d := cmp.Diff(methods, coaz.Methods()); d != "" {
		t.Error(d)
	}
	const common = `"subject":{"type":"identity","id":"alice"}`
	for _, tt := range []struct{ method, params, want string }{
		{"server/discover", ``, `{` + common + `,"action":{"name":"server/discover"},"resource":{"type":"mcp_server","id":"https://mcp.example.com"},"context":{"agent":"bot"}}`},
		{"server/discover", messages["server/discover"][1], `{` + common + `,"action":{"name":"server/discover"},"resource":{"type":"mcp_server","id":"https://mcp.example.com"},"context":{"agent":"bot","protocol_version":"2026-07-28"}}`},
		{"resources/templates/list", ``, `{` + common + `,"action":{"name":"resources/templates/list"},"resource":{"type":"mcp_server","id":"https://mcp.example.com"},"context":{"agent":"bot"}}`},
		{"subscriptions/listen", messages["subscriptions/listen"][1], `{` + common + `,"action":{"name":"subscriptions/listen"},"resource":{"type":"mcp_server","id":"https://mcp.example.com"},"context":{"agent":"bot","resources":["file:///a"]}}`},
		{"tasks/update", `{"taskId":"t1"}`, `{` + common + `,"action":{"name":"tasks/update"},"resource":{"type":"task","id":"t1"},"context":{"agent":"bot"}}`},
	} {
		m, _ := coaz.Default(tt.method)
		if d := cmp.Diff(expand(t, raw(tt.want)), bodies(t, mapped(t, m, coaz.Input{Params: raw(tt.params), Token: raw(token)}))); d != "" {
			t.Errorf("%s: %s", tt.method, d)
		}
	}
}

// What nobody has mapped has no mapping, and only pings and notifications pass.
func TestUnknownMethodsHaveNoMapping(t *testing.T) {
	for method, pass := range map[string]bool{
		"ping": true, "notifications/cancelled": true, "notifications/": true,
		"": false, "notifications": false, "tools/call": false, "tools/delete": false, "Ping": false, "ping/": false, "xnotifications/x": false,
		"sampling/createMessage": false, "elicitation/create": false, "roots/list": false,
	} {
		if coaz.PassThrough(method) != pass {
			t.Errorf("PassThrough(%q) is %t", method, !pass)
		}
		if _, ok := coaz.Default(method); ok != (method == "tools/call") {
			t.Errorf("Default(%q): %t", method, ok)
		}
	}
}

// The three kinds of refusal have the codes of the binding.
func TestCodes(t *testing.T) {
	m, _ := coaz.Default("tools/call")
	_, err := m.Map(t.Context(), coaz.Input{Token: raw(token)})
	if coaz.Code(err) != -32602 || err.Error() != "evaluation.resource.id: expression '$params.name' failed: no such key 'name'" {
		t.Errorf("%d: %v", coaz.Code(err), err)
	}
	if coaz.Code(coaz.ErrDenied) != -32001 || coaz.Code(os.ErrDeadlineExceeded) != -32603 {
		t.Errorf("%d %d", coaz.Code(coaz.ErrDenied), coaz.Code(os.ErrDeadlineExceeded))
	}
}

// A mapping, the params and the token never show in an error what they hold.
func TestErrorsQuoteNoValues(t *testing.T) {
	for _, expression := range []string{"int(params.secret)", "params.list[params.n]", "token[params.secret]", "timestamp(params.secret)", "params.secret + 1", "{params.secret: 1}[params.other]"} {
		m := compile(t, `{"evaluation":{"action":{"name":"a"},"resource":{"type":"t","id":"$`+expression+`"}}}`)
		_, err := m.Map(t.Context(), coaz.Input{Token: raw(`{"sub":"hunter2"}`), Params: raw(`{"secret":"hunter2","other":"hunter2x","list":[],"n":770077}`)})
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "770077") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

// An evaluation is a request in which all is asserted.
func TestEvaluationsAreRequests(t *testing.T) {
	e := coaz.Evaluation{
		Subject: authz.Entity{Type: "s", ID: "1"}, SubjectProperties: raw(`{"a":1}`), Action: "do", ActionProperties: raw(`{"b":2}`),
		Resource: authz.Entity{Type: "r", ID: "2"}, ResourceProperties: raw(`{"c":3}`), Context: raw(`{"d":4}`),
	}
	want := authz.Request{
		Action: "do", Resource: e.Resource,
		Asserted: &authz.Assertion{Subject: e.Subject, SubjectProperties: raw(`{"a":1}`), ActionProperties: raw(`{"b":2}`), ResourceProperties: raw(`{"c":3}`), Context: raw(`{"d":4}`)},
	}
	if d := cmp.Diff(want, e.Request()); d != "" {
		t.Error(d)
	}
}

// A mapping is used by many at once.
func TestMappingsAreShared(t *testing.T) {
	b := quoted(t)
	arguments, err := coaz.ToolCall("copy_object", b.Copy)
	if err != nil {
		t.Fatal(err)
	}
	m := b.declared(t, "copy_object")
	want := mapped(t, m, coaz.Input{Params: arguments, Token: b.Token})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				got, err := m.Map(t.Context(), coaz.Input{Params: arguments, Token: b.Token})
				if d := cmp.Diff(want, got); d != "" || err != nil {
					t.Errorf("%v %s", err, d)
					return
				}
				if list, ok := coaz.Default("tools/list"); !ok {
					t.Errorf("%v", list)
				}
			}
		})
	}
	all.Wait()
}
