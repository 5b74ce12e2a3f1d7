package coaz_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/bailiwick-dev/bailiwick/internal/coaz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// valid reports what is wrong with a request that a mapping has made.
func valid(t *testing.T, r coaz.Requests) {
	t.Helper()
	if len(r.Evaluations) == 0 || r.Single && len(r.Evaluations) != 1 {
		t.Fatalf("%d evaluations, single %t", len(r.Evaluations), r.Single)
	}
	for _, e := range r.Evaluations {
		for _, s := range []string{e.Subject.Type, e.Subject.ID, e.Action, e.Resource.Type, e.Resource.ID} {
			if s == "" || !utf8.ValidString(s) {
				t.Fatalf("%+v lacks something", e)
			}
		}
		for _, o := range []json.RawMessage{e.SubjectProperties, e.ActionProperties, e.ResourceProperties, e.Context} {
			var reader ijson.Reader
			reader.Reset(o)
			if o != nil && (reader.Kind() != '{' || len(reader.Value()) == 0 || reader.End() != nil) {
				t.Fatalf("%s is not an I-JSON object", o)
			}
		}
		body, err := json.Marshal(e)
		if err != nil || !json.Valid(body) {
			t.Fatalf("%s: %v", body, err)
		}
		if _, err := json.Marshal(e.Request()); err != nil {
			t.Fatal(err)
		}
	}
}

// No mapping and no message makes the process panic, and what a mapping makes
// of a message is a valid request whose subject is the token's unless it says
// otherwise.
func FuzzMap(f *testing.F) {
	b := quoted(f)
	for method, params := range messages {
		for _, p := range params {
			if m := b.Defaults[method]; m != nil {
				f.Add([]byte(m), []byte(p), []byte(token))
			}
		}
	}
	for _, d := range b.Tools {
		if m, ok, _ := coaz.Declared(d); ok { // these can be read
			f.Add([]byte(m), []byte(b.Call.Params), []byte(b.Token))
			f.Add([]byte(m), []byte(`{"arguments":`+string(b.Copy)+`}`), []byte(`{"sub":"a","roles":["treasury"],"aud":["a","b"]}`))
		}
	}
	for _, m := range []string{
		one(`"context":{"a":"$params.?x","b":["$$x","$null",{"c":1e5}]}`), one(`"subject":"$params"`), one(`"context":"${'a': [1u, 1.5, params]}"`),
		one(`"context":{"a":"$params.l.map(x, x + x)"}`), one(`"context":{"a":"$params.s.matches(params.p)"}`), one(`"context":{"a":"$optional.of(params).optMap(a, [a, a])"}`),
		many(`"action":{"name":"a"}`, `{"resource":{"type":"t","id":"$token.aud"}},{"resource":"$params"}`),
	} {
		f.Add([]byte(m), []byte(`{"x":1,"l":[1,2.5,-0],"s":"aaa","p":"a+","type":"t","id":"i"}`), []byte(token))
	}
	f.Fuzz(func(t *testing.T, mapping, params, claims []byte) {
		m, err := coaz.Compile(mapping)
		if err != nil {
			if coaz.Code(err) != coaz.CodeMapping || err.Error() == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		r, err := m.Map(t.Context(), coaz.Input{Params: params, Token: claims, Server: "a"})
		if err != nil {
			if coaz.Code(err) != coaz.CodeMapping || r.Evaluations != nil {
				t.Fatalf("%+v, %v", r, err)
			}
			return
		}
		valid(t, r)
		var who struct {
			Sub string `json:"sub"`
		}
		// Other forms of sub, and members whose names differ in case only, are of
		// no interest here.
		if json.Unmarshal(claims, &who) == nil && !r.Unanchored && r.Evaluations[0].Subject.ID != who.Sub {
			var exact map[string]any
			if json.Unmarshal(claims, &exact) == nil && exact["sub"] != r.Evaluations[0].Subject.ID {
				t.Fatalf("the subject is %q, and the token's %q", r.Evaluations[0].Subject.ID, who.Sub)
			}
		}
	})
}

// Every definition either declares a mapping or does not, or cannot be read.
func FuzzDeclared(f *testing.F) {
	for _, d := range quoted(f).Tools {
		f.Add([]byte(d))
	}
	f.Add([]byte(`{"inputSchema":{"x-authzen-mapping":{},"x-authzen-mapping":{}}}`))
	f.Fuzz(func(t *testing.T, definition []byte) {
		got, ok, err := coaz.Declared(definition)
		if ok && (err != nil || !json.Valid(got)) || !ok && got != nil {
			t.Fatalf("%s %t %v", got, ok, err)
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	declared, _, err := coaz.Declared(quoted(b).tool(b, "transfer_funds"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := coaz.Compile(declared); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMap(b *testing.B) {
	q := quoted(b)
	transfer := raw(`{"name":"transfer_funds","arguments":{"from_account":"a1","to_account":"a2","amount":10001,"currency":"EUR"}}`)
	list, _ := coaz.Default("tools/call")
	for _, bm := range []struct {
		name          string
		mapping       *coaz.Mapping
		params, token json.RawMessage
	}{
		{"default", list, q.Call.Params, q.Token},
		{"declared", q.declared(b, "get_customer"), q.Call.Params, q.Token},
		{"conditions", q.declared(b, "transfer_funds"), transfer, raw(`{"sub":"a","roles":["clerk","treasury"],"client_id":"c"}`)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bm.mapping.Map(b.Context(), coaz.Input{Params: bm.params, Token: bm.token}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
