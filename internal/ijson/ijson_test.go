package ijson_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// seeds are texts that are easily got wrong, valid and not.
var seeds = []string{
	``, ` `, `null`, ` true `, `false`, `nul`, `truex`, `{}`, ` { } `, `[]`, `[ ]`, `[1,2]`, `[1,]`, `[,1]`, `[1 2]`, `{"a":1,}`,
	`{"a":1 "b":2}`, `{"a" 1}`, `{a:1}`, `{"a":1}x`, `{"a":1}{}`, `{"a":1} `, `{`, `[`, `{"a"`, `{"a":`, `{"a":1`, `"`, `"a`, `"\`, `"\"`,
	`0`, `-0`, `-`, `01`, `1.`, `.1`, `1.5e+3`, `1e`, `1e+`, `1E-7`, `--1`, `+1`, `1e400`, `-1.`, `0x1`,
	`"\n"`, `"\x"`, `"\u12"`, `"\u0041"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\ud83d\u0041"`, "\"\x00\"", "\"\x1f\"", "\"\x7f\"", "\"\n\"",
	"\"\xff\"", "\"\xc3\xa9\"", "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\xef\xbf\xbd\"", "\xef\xbb\xbf{}", "{}\x00",
	`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":2}}`, `[{"a":1},{"a":1}]`, `[{"x":{"a":1,"a":1}}]`, `{"a":{"a":{"a":1}}}`, `{"":1,"":2}`,
	`{"a":[}`, `[{]}`, `[}`, `{]`, `{"a":1]`,
	many(20, ""), many(20, `,"n3":1`), many(17, `,"n16":1`), many(16, `,"n15":1`), many(15, `,"n14":1`),
	strings.Repeat(`[`, 64) + strings.Repeat(`]`, 64), strings.Repeat(`[`, 65) + strings.Repeat(`]`, 65), strings.Repeat(`{"a":`, 65) + `1` + strings.Repeat(`}`, 65),
}

// many is an object with n names, and more.
func many(n int, more string) string {
	var b strings.Builder
	b.WriteString(`{"n0":0`)
	for i := 1; i < n; i++ {
		b.WriteString(`,"n` + strconv.Itoa(i) + `":` + strconv.Itoa(i))
	}
	return b.String() + more + `}`
}

// depth is how deep a valid text is nested.
func depth(text []byte) int {
	deepest := 0
	for d := jsontext.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.ReadToken(); err != nil {
			return deepest
		}
		deepest = max(deepest, d.StackDepth())
	}
}

// walk reads a text as its users do: member by member.
func walk(r *ijson.Reader) {
	switch {
	case r.Object():
		for {
			if _, ok := r.Next(); !ok {
				return
			}
			walk(r)
		}
	case r.Array():
		for r.Element() {
			walk(r)
		}
	default:
		if _, ok := r.String(); !ok {
			r.Value()
		}
	}
}

func checkAgainstJSONText(t *testing.T, text []byte) {
	t.Helper()
	want := jsontext.Value(text).IsValid()
	if want && depth(text) > ijson.MaxDepth {
		want = false
	}
	var r ijson.Reader
	r.Reset(text)
	v := r.Value()
	if err := r.End(); (err == nil) != want {
		t.Errorf("%q: got %v, want valid %v", text, err, want)
	} else if err == nil && !bytes.Equal(v, bytes.TrimSpace(text)) {
		t.Errorf("%q: got value %q", text, v)
	}
	r.Reset(text)
	walk(&r)
	if err := r.End(); (err == nil) != want {
		t.Errorf("%q: walked: got %v, want valid %v", text, err, want)
	}
}

func TestWhatIsReadIsIJSON(t *testing.T) {
	t.Parallel()
	for _, text := range seeds {
		checkAgainstJSONText(t, []byte(text))
	}
}

func FuzzReader(f *testing.F) {
	for _, text := range seeds {
		f.Add([]byte(text))
	}
	f.Fuzz(checkAgainstJSONText)
}

func TestPartsAreOfTheText(t *testing.T) {
	t.Parallel()
	text := []byte(` {"n\u0061me": "v\"al", "list": [1, {"x": null}], "raw": {"k" : 1} , "n": -1.5e3}`)
	var r ijson.Reader
	r.Reset(text)
	got := map[string]string{}
	if !r.Object() {
		t.Fatal("no object")
	}
	for name, ok := r.Next(); ok; name, ok = r.Next() {
		n := string(name)
		if s, ok := r.String(); ok {
			got[n] = s
			continue
		}
		if r.Array() {
			for r.Element() {
				got[n] += string(r.Kind()) + string(r.Value()) + ";"
			}
			continue
		}
		mark := r.Mark()
		r.Value()
		got[n] = string(r.Since(mark))
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[string]string{"name": `v"al`, "list": `01;{{"x": null};`, "raw": `{"k" : 1}`, "n": `-1.5e3`} {
		if got[n] != want {
			t.Errorf("%s: got %q, want %q", n, got[n], want)
		}
	}
}

// A violation says what and where, and ends every loop.
func TestViolationsAreNamed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a":1,"a":2}`:           "a duplicate name at byte 10",
		`{"a":1}x`:                "more than one value at byte 7",
		``:                        "no value at byte 0",
		"\"\xff\"":                "invalid UTF-8 at byte 1",
		"\"\n\"":                  "a control character in a string at byte 1",
		strings.Repeat(`[`, 1000): "nesting that is too deep at byte 64",
	} {
		var r ijson.Reader
		r.Reset([]byte(text))
		r.Value()
		if err := r.End(); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

const typical = `{"subject":{"type":"user","id":"alice@example.com","properties":{"department":"Sales"}},"action":{"name":"can_read","properties":{"method":"GET"}},"resource":{"type":"account","id":"123"},"context":{"time":"1985-10-26T01:22-07:00"}}`

func BenchmarkReader(b *testing.B) {
	text := []byte(typical)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var r ijson.Reader
	for b.Loop() {
		r.Reset(text)
		r.Value()
		if err := r.End(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWalk reads every string, as a walk through the members does.
func BenchmarkWalk(b *testing.B) {
	text := []byte(typical)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var r ijson.Reader
	for b.Loop() {
		r.Reset(text)
		walk(&r)
		if err := r.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSONTextWalk(b *testing.B) {
	text := []byte(typical)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var d jsontext.Decoder
	for b.Loop() {
		d.Reset(bytes.NewBuffer(text))
		for {
			t, err := d.ReadToken()
			if err != nil {
				break
			}
			if t.Kind() == '"' {
				_ = t.String()
			}
		}
	}
}

func BenchmarkJSONText(b *testing.B) {
	text := jsontext.Value(typical)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if !text.IsValid() {
			b.Fatal("invalid")
		}
	}
}
