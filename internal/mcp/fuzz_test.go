package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"
)

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		callWith(`{"a":1}`), `{"jsonrpc":"2.0","id":1,"result":{}}`, `{"jsonrpc":"2.0","error":{}}`, `[]`, ``,
		`{"jsonrpc":"2.0","id":1,"method":"x","params":{"n\u0061me":1,"name":2}}`, strings.Repeat(`{"a":[`, 70),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			var bad *SyntaxError
			if !errors.As(err, &bad) || bad.Code == 0 || m != nil {
				t.Fatalf("got %v, %v", m, err)
			}
			return
		}
		if !bytes.Equal(m.Bytes(), bytes.Trim(b, " \t\r\n")) {
			t.Fatalf("got %q", m.Bytes())
		}
		if !jsontext.Value(b).IsValid() {
			t.Fatal("accepted what is not valid JSON")
		}
		n := 0
		for _, is := range []bool{m.IsRequest(), m.IsNotification(), m.IsResponse()} {
			if is {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("a message of %d kinds", n)
		}
		// Another decoder must see what we see.
		var other struct {
			Method string
			ID     json.RawMessage
			Params json.RawMessage
		}
		if err := json.Unmarshal(b, &other); err != nil {
			t.Fatal(err)
		}
		if other.Method != m.Method() || m.Params() != nil && !bytes.Equal(other.Params, m.Params()) || !bytes.Equal(other.ID, m.ID()) {
			t.Fatalf("encoding/json sees %+v in %s", other, b)
		}
		sameAsParsed(t, m.WithID(json.RawMessage(`"x"`)))
		sameAsParsed(t, m.WithParams(json.RawMessage(`{}`)))
		sameAsParsed(t, m.WithResult(json.RawMessage(`{}`)))
		if one := mustParse(t, string(oneLine(b))); bytes.ContainsAny(one.Bytes(), "\r\n") {
			t.Fatalf("more than one line: %q", one.Bytes())
		}
	})
}

func FuzzEdit(f *testing.F) {
	f.Add(`{"a":{"b":1}, "c":2}`, `[1]`, "a", "b")
	f.Add(`{ }`, ` "x"`, "", "b")
	f.Fuzz(func(t *testing.T, obj, value, a, b string) {
		if !jsontext.Value(obj).IsValid() || !jsontext.Value(value).IsValid() {
			_, _ = Set(json.RawMessage(obj), json.RawMessage(value), a, b) // it must not panic
			_, _ = Delete(json.RawMessage(obj), a, b)
			_, _ = Get(json.RawMessage(obj), a, b)
			return
		}
		name := func(s string) string { return strings.ToValidUTF8(s, "?") }
		value = strings.Trim(value, " \t\r\n")
		checkEdit(t, obj, value, []string{name(a)})
		checkEdit(t, obj, value, []string{name(a), name(b)})
	})
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(`{"a" : [1, {"b":"]}"}] ,"\u0062":"\\\"", "":null}`))
	f.Add([]byte(`[1,[2,"\"]"],{"a":[]} , true]`))
	for _, s := range []string{``, `{`, `{"a"`, `{"a`, `{"a":`, `{a:1}`, `{"a" 1}`, `{"a":1 2}`, `{"a":["}`, `{"\x":1}`, `[`, `[1`, `[1 2]`, `[,]`, `["`, `[[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []string
		_, err := members(b, func(name []byte, value span) error {
			got = append(got, string(name), string(b[value.start:value.end]))
			return nil
		})
		err2 := elements(b, func(v []byte) error { got = append(got, string(v)); return nil })
		if !jsontext.Value(b).IsValid() {
			return // all that counts is that it has ended
		}
		switch kind(b) {
		case '{', '[':
			if (err == nil) == (err2 == nil) {
				t.Fatalf("an object and an array at once, or neither: %v, %v", err, err2)
			}
		default:
			if err == nil || err2 == nil {
				t.Fatal("neither an object nor an array")
			}
			return
		}
		d := jsontext.NewDecoder(bytes.NewReader(b))
		var want []string
		if _, err := d.ReadToken(); err != nil {
			t.Fatal(err)
		}
		for k := d.PeekKind(); k != '}' && k != ']'; k = d.PeekKind() {
			if v, err := d.ReadValue(); err != nil {
				t.Fatal(err)
			} else if s, ok := unquote(v); ok && kind(b) == '{' && len(want)%2 == 0 {
				want = append(want, s)
			} else {
				want = append(want, string(v))
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("id: 1\nretry: 5\ndata: a\r\rdata: b\r\n\r\n:c\n\n"))
	f.Add([]byte("\xef\xbb\xbfevent: x\ndata\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const max = 100
		whole, err := readEvents(bytes.NewReader(b), max)
		parts, err2 := readEvents(iotest.OneByteReader(bytes.NewReader(b)), max)
		if len(whole) != len(parts) || (err == io.EOF) != (err2 == io.EOF) {
			t.Fatalf("%d events and %v, or %d and %v", len(whole), err, len(parts), err2)
		}
		for i, e := range whole {
			if !bytes.Equal(e.Data, parts[i].Data) || e.ID != parts[i].ID || e.Type != parts[i].Type || e.Retry != parts[i].Retry {
				t.Fatalf("event %d: %+v or %+v", i, e, parts[i])
			}
			if len(e.Data)+len(e.ID) > max || e.Retry < 0 || e.Retry > maxRetry {
				t.Fatalf("event %d: %+v", i, e)
			}
		}
	})
}

func FuzzPipe(f *testing.F) {
	f.Add([]byte(note("a") + "\r\n\n" + note("b")))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := readAll(NewPipe(bytes.NewReader(b), nil, 100))
		parts := readAll(NewPipe(iotest.OneByteReader(bytes.NewReader(b)), nil, 100))
		if strings.Join(whole, "\n") != strings.Join(parts, "\n") {
			t.Fatalf("%q or %q", whole, parts)
		}
	})
}

func FuzzDecodeHeaderValue(f *testing.F) {
	f.Add("=?base64?ZXU=?=")
	f.Add("plain")
	f.Fuzz(func(t *testing.T, s string) {
		if back, err := DecodeHeaderValue(EncodeHeaderValue(s)); err != nil || back != s {
			t.Fatalf("to and fro: %q, %v", back, err)
		}
		text, err := DecodeHeaderValue(s)
		if err != nil {
			return
		}
		// Two spellings of a value may differ; the value must not.
		if again, err := DecodeHeaderValue(EncodeHeaderValue(text)); err != nil || again != text {
			t.Fatalf("%q became %q, %v", text, again, err)
		}
	})
}

func FuzzAnnotations(f *testing.F) {
	f.Add(regionSchema, `{"region":"eu","opts":{"n":1e2}}`)
	f.Fuzz(func(t *testing.T, schema, args string) {
		m, err := Parse([]byte(callWith(args)))
		if err != nil || !jsontext.Value(schema).IsValid() {
			return
		}
		h, err := ParamHeaders(m, json.RawMessage(schema))
		if err != nil {
			return
		}
		for k, v := range StandardHeaders(m) {
			h[k] = v
		}
		if err := CheckHeaders(h, m, json.RawMessage(schema)); err != nil {
			t.Fatalf("what we send we would refuse: %v", err)
		}
	})
}
