package mcp

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseReadsEveryKind(t *testing.T) {
	t.Parallel()
	type view struct {
		ID, Method, Params, Result, Error string
		Request, Notification, Response   bool
	}
	for _, tt := range []struct {
		name, in string
		want     view
	}{
		{"request", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, view{ID: "1", Method: "ping", Request: true}},
		{"request with all", ` { "method" : "a\/b" , "x":[], "params":{ "n" : null } , "id":"\u0031","jsonrpc":"2.0"}` + "\r\n",
			view{ID: `"\u0031"`, Method: "a/b", Params: `{ "n" : null }`, Request: true}},
		{"null params", `{"jsonrpc":"2.0","id":-7,"method":"ping","params":null}`, view{ID: "-7", Method: "ping", Request: true}},
		{"notification", `{"jsonrpc":"2.0","method":"notifications/x","params":{}}`, view{Method: "notifications/x", Params: "{}", Notification: true}},
		{"result", `{"jsonrpc":"2.0","id":"a","result":{"r":1}}`, view{ID: `"a"`, Result: `{"r":1}`, Response: true}},
		{"odd result", `{"jsonrpc":"2.0","id":1,"result":null}`, view{ID: "1", Result: "null", Response: true}},
		{"error", `{"jsonrpc":"2.0","id":1,"error":{"code":1}}`, view{ID: "1", Error: `{"code":1}`, Response: true}},
		{"error with null id", `{"jsonrpc":"2.0","id":null,"error":{}}`, view{ID: "null", Error: `{}`, Response: true}},
		{"error without id", `{"jsonrpc":"2.0","error":{}}`, view{Error: `{}`, Response: true}},
		{"same name in other objects", `{"jsonrpc":"2.0","id":1,"method":"x","params":{"id":{"id":1}}}`, view{ID: "1", Method: "x", Params: `{"id":{"id":1}}`, Request: true}},
		{"arguments in any case", `{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"a":1,"A":2}}}`,
			view{ID: "1", Method: "x", Params: `{"arguments":{"a":1,"A":2}}`, Request: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			got := view{string(m.ID()), m.Method(), string(m.Params()), string(m.Result()), string(m.Error()), m.IsRequest(), m.IsNotification(), m.IsResponse()}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if got, want := string(m.Bytes()), strings.TrimSpace(tt.in); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	nested := func(n int) string {
		return `{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":` + strings.Repeat("[", n-2) + strings.Repeat("]", n-2) + `}}`
	}
	if _, err := Parse([]byte(nested(MaxDepth))); err != nil {
		t.Errorf("nested as deep as can be: %v", err)
	}
	for _, tt := range []struct {
		name, in string
		code     int
		id       string
	}{
		{name: "nothing", in: " \n", code: CodeParseError},
		{name: "text", in: "hello", code: CodeParseError},
		{name: "half", in: `{"jsonrpc":"2.0","id":1,`, code: CodeParseError, id: "1"},
		{name: "two", in: `{"jsonrpc":"2.0","id":1,"method":"x"}{}`, code: CodeParseError, id: "1"},
		{name: "a scalar", in: `"x"`, code: CodeParseError},
		{name: "a batch", in: `[{"jsonrpc":"2.0","id":1,"method":"x"}]`, code: CodeInvalidRequest},
		{name: "invalid UTF-8", in: "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", code: CodeParseError, id: "1"},
		{name: "half a surrogate", in: `{"jsonrpc":"2.0","id":1,"method":"\ud800"}`, code: CodeParseError, id: "1"},
		{name: "an empty object", in: `{}`, code: CodeInvalidRequest},
		{name: "no version", in: `{"id":1,"method":"x"}`, code: CodeInvalidRequest, id: "1"},
		{name: "version as a number", in: `{"jsonrpc":2.0,"id":1,"method":"x"}`, code: CodeInvalidRequest, id: "1"},
		{name: "version 1", in: `{"jsonrpc":"1.0","id":1,"method":"x"}`, code: CodeInvalidRequest, id: "1"},
		{name: "no method", in: `{"jsonrpc":"2.0","id":1}`, code: CodeInvalidRequest, id: "1"},
		{name: "an empty method", in: `{"jsonrpc":"2.0","id":1,"method":""}`, code: CodeInvalidRequest, id: "1"},
		{name: "a method that is a number", in: `{"jsonrpc":"2.0","id":1,"method":1}`, code: CodeInvalidRequest, id: "1"},
		{name: "a null id", in: `{"jsonrpc":"2.0","id":null,"method":"x"}`, code: CodeInvalidRequest, id: "null"},
		{name: "a fraction as id", in: `{"jsonrpc":"2.0","id":1.5,"method":"x"}`, code: CodeInvalidRequest},
		{name: "an exponent as id", in: `{"jsonrpc":"2.0","id":1e3,"method":"x"}`, code: CodeInvalidRequest},
		{name: "an object as id", in: `{"jsonrpc":"2.0","id":{},"method":"x"}`, code: CodeInvalidRequest},
		{name: "params as a list", in: `{"jsonrpc":"2.0","id":1,"method":"x","params":[]}`, code: CodeInvalidRequest, id: "1"},
		{name: "a request and a result", in: `{"jsonrpc":"2.0","id":1,"method":"x","result":{}}`, code: CodeInvalidRequest, id: "1"},
		{name: "a request and an error", in: `{"jsonrpc":"2.0","id":1,"method":"x","error":{}}`, code: CodeInvalidRequest, id: "1"},
		{name: "a result and an error", in: `{"jsonrpc":"2.0","id":1,"result":{},"error":{}}`, code: CodeInvalidRequest, id: "1"},
		{name: "a response with params", in: `{"jsonrpc":"2.0","id":1,"result":{},"params":{}}`, code: CodeInvalidRequest, id: "1"},
		{name: "a result without an id", in: `{"jsonrpc":"2.0","result":{}}`, code: CodeInvalidRequest},
		{name: "a result for null", in: `{"jsonrpc":"2.0","id":null,"result":{}}`, code: CodeInvalidRequest, id: "null"},
		{name: "an error that is text", in: `{"jsonrpc":"2.0","id":1,"error":"x"}`, code: CodeInvalidRequest, id: "1"},
		{name: "the same name twice", in: `{"jsonrpc":"2.0","id":1,"method":"x","id":2}`, code: CodeInvalidRequest, id: "1"},
		{name: "the same name twice, escaped", in: `{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":1,"n\u0061me":2}}`, code: CodeInvalidRequest, id: "1"},
		{name: "the same name twice, deep", in: `{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[{"b":{"c":1,"c":1}}]}}`, code: CodeInvalidRequest, id: "1"},
		{name: "another case", in: `{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}`, code: CodeInvalidRequest, id: "1"},
		{name: "another case, folded", in: `{"jsonrpc":"2.0","id":1,"method":"x","param\u017f":{}}`, code: CodeInvalidRequest, id: "1"},
		{name: "another case in params", in: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}`, code: CodeInvalidRequest, id: "1"},
		{name: "too deep", in: nested(MaxDepth + 1), code: CodeInvalidRequest},
		{name: "very deep", in: strings.Repeat(`{"a":`, 1<<20), code: CodeInvalidRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse([]byte(tt.in))
			var bad *SyntaxError
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, %v, want a *SyntaxError", m, err)
			}
			if bad.Code != tt.code || string(bad.ID) != tt.id || bad.Message == "" {
				t.Errorf("got code %d, id %q, message %q; want code %d, id %q", bad.Code, bad.ID, bad.Message, tt.code, tt.id)
			}
			if m != nil {
				t.Error("a message in spite of the error")
			}
		})
	}
}

func TestParseKeepsNothingOfItsInput(t *testing.T) {
	t.Parallel()
	in := []byte(`{"jsonrpc":"2.0","id":1,"method":"x"}`)
	m, err := Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	want := string(in)
	clear(in)
	if got := string(m.Bytes()); got != want {
		t.Errorf("got %s", got)
	}
}

func TestNewMessages(t *testing.T) {
	t.Parallel()
	id := json.RawMessage(`"i"`)
	for _, tt := range []struct {
		got  *Message
		want string
	}{
		{NewRequest(id, "a/\"b\"", json.RawMessage(`{"x":1}`)), `{"jsonrpc":"2.0","id":"i","method":"a/\"b\"","params":{"x":1}}`},
		{NewRequest(id, "a", nil), `{"jsonrpc":"2.0","id":"i","method":"a"}`},
		{NewNotification("n", json.RawMessage(`{}`)), `{"jsonrpc":"2.0","method":"n","params":{}}`},
		{NewResult(id, json.RawMessage(`{"r":1}`)), `{"jsonrpc":"2.0","id":"i","result":{"r":1}}`},
		{NewResult(id, nil), `{"jsonrpc":"2.0","id":"i","result":{}}`},
		{NewError(id, -1, "a <\"b\">", map[string]int{"x": 1}), `{"jsonrpc":"2.0","id":"i","error":{"code":-1,"message":"a <\"b\">","data":{"x":1}}}`},
		{NewError(nil, -1, "a", nil), `{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"a"}}`},
		{NewError(id, -1, "a", make(chan int)), `{"jsonrpc":"2.0","id":"i","error":{"code":-1,"message":"a"}}`},
	} {
		if got := string(tt.got.Bytes()); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		sameAsParsed(t, tt.got)
	}
}

// sameAsParsed checks that a message knows of itself what Parse would find.
func sameAsParsed(t interface {
	Helper()
	Fatalf(string, ...any)
}, m *Message) {
	t.Helper()
	p, err := Parse(m.Bytes())
	if err != nil {
		t.Fatalf("%s: %v", m.Bytes(), err)
	}
	if diff := cmp.Diff(p, m, cmp.AllowUnexported(Message{}, span{})); diff != "" {
		t.Fatalf("%s: %s", m.Bytes(), diff)
	}
}

func TestWithChangesNothingElse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in string
		change   func(*Message) *Message
		want     string
	}{
		{"id", `{ "id" : 1 ,"jsonrpc":"2.0", "method":"m","x" : 1.0}`,
			func(m *Message) *Message { return m.WithID(json.RawMessage(`"new"`)) },
			`{ "id" : "new" ,"jsonrpc":"2.0", "method":"m","x" : 1.0}`},
		{"id of a notification", `{"jsonrpc":"2.0","method":"m" }`,
			func(m *Message) *Message { return m.WithID(json.RawMessage(`9`)) },
			`{"jsonrpc":"2.0","method":"m" ,"id":9}`},
		{"no id", `{"jsonrpc":"2.0","id":1,"method":"m"}`,
			func(m *Message) *Message { return m.WithID(nil) },
			`{"jsonrpc":"2.0","id":1,"method":"m"}`},
		{"params", `{"params":{"a":1}, "jsonrpc":"2.0","id":1,"method":"m"}`,
			func(m *Message) *Message { return m.WithParams(json.RawMessage(`{}`)) },
			`{"params":{}, "jsonrpc":"2.0","id":1,"method":"m"}`},
		{"params where none were", `{"jsonrpc":"2.0","id":1,"method":"m"}`,
			func(m *Message) *Message { return m.WithParams(json.RawMessage(`{"b":2}`)) },
			`{"jsonrpc":"2.0","id":1,"method":"m","params":{"b":2}}`},
		{"params of a response", `{"jsonrpc":"2.0","id":1,"result":{}}`,
			func(m *Message) *Message { return m.WithParams(json.RawMessage(`{"b":2}`)) },
			`{"jsonrpc":"2.0","id":1,"result":{}}`},
		{"result", `{"jsonrpc":"2.0","result" : {"a":1} ,"id":1}`,
			func(m *Message) *Message { return m.WithResult(json.RawMessage(`{"b":[]}`)) },
			`{"jsonrpc":"2.0","result" : {"b":[]} ,"id":1}`},
		{"result of an error", `{"jsonrpc":"2.0","error":{},"id":1}`,
			func(m *Message) *Message { return m.WithResult(json.RawMessage(`{}`)) },
			`{"jsonrpc":"2.0","error":{},"id":1}`},
		{"all in turn", `{"jsonrpc":"2.0","params":{"a":1},"id":1,"method":"m"}`,
			func(m *Message) *Message {
				return m.WithID(json.RawMessage(`100000`)).WithParams(json.RawMessage(`{}`)).WithID(json.RawMessage(`2`))
			},
			`{"jsonrpc":"2.0","params":{},"id":2,"method":"m"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := mustParse(t, tt.in)
			got := tt.change(m)
			if string(got.Bytes()) != tt.want {
				t.Errorf("got  %s\nwant %s", got.Bytes(), tt.want)
			}
			if string(m.Bytes()) != tt.in {
				t.Errorf("the message itself has changed: %s", m.Bytes())
			}
			sameAsParsed(t, got)
		})
	}
}

func TestMessageSlicesCannotGrowIntoTheMessage(t *testing.T) {
	t.Parallel()
	m := mustParse(t, `{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1}}`)
	want := string(m.Bytes())
	_ = append(m.ID(), "xxx"...)
	_ = append(m.Params(), "xxx"...)
	v, _ := Get(m.Params(), "a")
	_ = append(v, "xxx"...)
	_ = append(m.Bytes(), "xxx"...)
	if got := string(m.Bytes()); got != want {
		t.Errorf("got %s", got)
	}
}

// genValue draws a JSON text with white space and odd spellings.
func genValue(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kinds := 5
		if depth > 0 {
			kinds = 7
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "word")
		case 1:
			return rapid.SampledFrom([]string{"0", "-0", "1.0", "1e2", "12345678901234567890", "0.1E-7"}).Draw(t, "number")
		case 2, 3, 4:
			return genString().Draw(t, "string")
		case 5:
			list := rapid.SliceOfN(genValue(depth-1), 0, 4).Draw(t, "list")
			return "[" + strings.Join(list, " ,") + "]"
		default:
			return genObject(depth-1).Draw(t, "object")
		}
	})
}

func genString() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{`""`, `"a"`, `"\u0061b"`, `"\n\"\\"`, `"ü"`, `"\/"`, `"{}[],:"`, `"\ud83d\ude00"`})
}

func genObject(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{`"a"`, `"b"`, `"\u0063"`, `"d d"`, `""`, `"_meta"`, `"ä"`}), 0, 5, rapid.ID[string]).Draw(t, "names")
		space := rapid.SampledFrom([]string{"", " ", "\t", "\r\n "})
		out := "{" + space.Draw(t, "space")
		for i, n := range names {
			if i > 0 {
				out += "," + space.Draw(t, "space")
			}
			out += n + space.Draw(t, "space") + ":" + space.Draw(t, "space") + genValue(depth).Draw(t, "value") + space.Draw(t, "space")
		}
		return out + "}"
	})
}

func genMessage() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		parts := []string{`"jsonrpc" : "2.0"`, `"unknown":` + genValue(2).Draw(t, "unknown")}
		id := `"id":` + rapid.SampledFrom([]string{"0", "-5", `"x"`, `"\u0061"`, "99999999999999999999"}).Draw(t, "id")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			parts = append(parts, id, `"method":"m/n"`, `"params":`+genObject(3).Draw(t, "params"))
		case 1:
			parts = append(parts, `"method":"n"`)
		case 2:
			parts = append(parts, id, `"result":`+genValue(3).Draw(t, "result"))
		default:
			parts = append(parts, id, `"error":`+genObject(2).Draw(t, "error"))
		}
		return "{" + strings.Join(rapid.Permutation(parts).Draw(t, "parts"), ", ") + " }"
	})
}

func TestRoundTripProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := genMessage().Draw(t, "message")
		m, err := Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Bytes()) != in {
			t.Fatalf("got %s", m.Bytes())
		}
		n := m.WithID(json.RawMessage(`"replaced"`))
		sameAsParsed(t, n)
		if back := n.WithID(m.ID()); m.ID() != nil && string(back.Bytes()) != in {
			t.Fatalf("to and fro: %s", back.Bytes())
		}
		p := m.WithParams(json.RawMessage(`{"p":1}`))
		sameAsParsed(t, p)
		if m.Params() != nil && string(p.WithParams(m.Params()).Bytes()) != in {
			t.Fatalf("to and fro: %s", p.Bytes())
		}
		r := m.WithResult(json.RawMessage(`{"r":1}`))
		sameAsParsed(t, r)
		if m.Result() != nil && string(r.WithResult(m.Result()).Bytes()) != in {
			t.Fatalf("to and fro: %s", r.Bytes())
		}
	})
}
