package coaz

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/common/types"
)

func eval(t testing.TB, source, params string) (string, uint64, error) {
	t.Helper()
	e, err := compileExpression(source)
	if err != nil {
		t.Fatalf("%s: %v", printable(source), err)
	}
	in, err := readObject("params", json.RawMessage(params), maxParams)
	if err != nil {
		t.Fatal(err)
	}
	v, cost, err := e.eval(t.Context(), in, in)
	if err != nil {
		return "", cost, err
	}
	if o, ok := v.(*types.Optional); ok && o.HasValue() {
		v = o.GetValue()
	}
	w := valueWriter{}
	err = w.value(v, 0)
	return string(w.b), cost, err
}

// What an expression can make the process do is bounded by counting, and no
// bomb of a few bytes gets around it.
func TestExpressionsEnd(t *testing.T) {
	ones := "[" + strings.Repeat("1,", 9999) + "1]"
	some := "[" + strings.Repeat("1,", 499) + "1]"
	text := `"` + strings.Repeat("a", 900_000) + `"`
	double := func(begin, step string, n int, end string) string {
		return "optional.of(" + begin + ")" + strings.Repeat(".optMap(a, "+step+")", n) + ".optMap(a, " + end + ").value()"
	}
	for _, tt := range []struct{ name, source, params, reason string }{
		{name: "nested loops", source: "params.l.all(a, params.l.all(b, params.l.all(c, a + b + c > 0)))", params: `{"l":` + ones + `}`},
		{name: "nested lists", source: "params.l.map(a, params.l.map(b, params.l)).size() > 0", params: `{"l":` + ones + `}`},
		{name: "a string that doubles", source: double("'0123456789'", "a + a", 40, "size(a)")},
		{name: "a list that doubles", source: double("[1]", "a + a", 60, "1 in a")},
		{name: "a list that doubles, compared", source: double("[1]", "a + a", 60, "a == a")},
		{name: "a tree that doubles, compared", source: double("[1, 1]", "[a, a]", 30, "a == a")},
		{name: "a tree that doubles, searched", source: double("[1, 1]", "[a, a]", 30, "a in [a]")},
		{name: "a tree of loops", source: "[[1, 1]]" + strings.Repeat(".map(a, [a, a])", 20) + " == []"},
		{name: "a map that doubles", source: double("{'a': 1}", "{'a': a, 'b': a}", 30, "a == a")},
		{name: "a pattern of the message", source: "'a'.matches(params.p)", params: `{"p":"` + strings.Repeat("(", 500) + strings.Repeat("a{1000}", 50) + strings.Repeat(")", 500) + `"}`, reason: errMatch.Error()},
		{name: "a pattern that repeats itself", source: "'a'.matches('((a{100}){100}){10}')", reason: errMatch.Error()},
		{name: "a long text again and again", source: "params.l.all(x, size(params.s) > 0)", params: `{"l":` + some + `,"s":` + text + `}`},
		{name: "a long text converted again and again", source: "params.l.all(x, bytes(params.s) != b'')", params: `{"l":` + some + `,"s":` + text + `}`},
		{name: "a long list again and again", source: "params.l.all(x, params.l == params.l)", params: `{"l":` + ones + `}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.reason == "" {
				tt.reason = errCost.Error()
			}
			if tt.params == "" {
				tt.params = "{}"
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, cost, err := eval(t, tt.source, tt.params)
				if err == nil || err.Error() != tt.reason {
					t.Errorf("got %v, want %q", err, tt.reason)
				}
				// The step that goes over the limit is the last: nothing that comes
				// before it has cost more, and it handles no more than the inputs hold.
				if cost > maxCost+maxParams/10 {
					t.Errorf("it has cost %d", cost)
				}
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("it does not end")
			}
		})
	}
}

// A regular expression is not run when running it would be too much, since CEL
// charges for it when it is done.
func TestMatchesIsBoundedBeforehand(t *testing.T) {
	long := types.String(strings.Repeat("a", 900_000))
	for _, tt := range []struct {
		text    types.String
		pattern string
		want    string
	}{
		{"hello", "^h.*o$", "true"},
		{"hello", "^x", "false"},
		{long, "b$", "false"},
		{long, "(a{14}){14}b", "error"},
		{"a", "(a{1000}){2}", "error"},
		{"a", "[" + strings.Repeat("a", maxPattern) + "]", "error"},
		{"a", "[" + strings.Repeat("a", maxPattern-2) + "]", "true"},
		{"a", "((a{100}){100}){10}", "error"},
		{"a", "(", "error"},
		{"a", strings.Repeat("(a|", 100) + "b" + strings.Repeat(")", 100), "error"},
	} {
		got := "error"
		if v := matches(tt.text, types.String(tt.pattern)); !types.IsError(v) {
			got = fmt.Sprint(v.Value())
		}
		if got != tt.want {
			t.Errorf("%d bytes against %s: %s, want %s", len(tt.text), printable(tt.pattern), got, tt.want)
		}
	}
}

// The expressions of the binding are far from the limits.
func TestDefaultsAreCheap(t *testing.T) {
	for _, source := range []string{
		"token.sub", "token.?client_id", "params.ref.type == 'ref/prompt' ? params.ref.name : params.ref.uri",
		"token.roles.exists(r, r == 'treasury') ? 'treasury_user' : 'standard_user'",
	} {
		_, cost, err := eval(t, source, `{"sub":"a","client_id":"c","ref":{"type":"ref/prompt","name":"n"},"roles":["a","treasury"]}`)
		if err != nil || cost > 40 {
			t.Errorf("%s costs %d: %v", source, cost, err)
		}
	}
}

// All expressions of a mapping together are bounded too.
func TestMappingsEnd(t *testing.T) {
	var members []string
	for i := range 100 {
		members = append(members, fmt.Sprintf(`"m%d":"$params.l.all(a, a > 0)"`, i))
	}
	m, err := Compile(json.RawMessage(`{"evaluation":{"action":{"name":"a"},"resource":{"type":"t","id":"i"},"context":{` + strings.Join(members, ",") + `}}}`))
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Token: json.RawMessage(`{"sub":"a"}`), Params: json.RawMessage(`{"l":[` + strings.Repeat("1,", 4000) + `1]}`)}
	if _, err := m.Map(t.Context(), in); err == nil || !strings.Contains(err.Error(), errCost.Error()) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	_, err = m.Map(ctx, in)
	if !errors.Is(err, stop) || Code(err) != CodeUnavailable {
		t.Errorf("a cancelled Map: %v", err)
	}
}

// A loop looks at the context while it runs.
func TestLoopsAreInterrupted(t *testing.T) {
	e, err := compileExpression("params.l.all(a, a > 0)")
	if err != nil {
		t.Fatal(err)
	}
	in, err := readObject("params", json.RawMessage(`{"l":[`+strings.Repeat("1,", 4000)+`1]}`), maxParams)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, cost, err := e.eval(ctx, in, in); err == nil || cost > 10*checkEvery {
		t.Errorf("cost %d: %v", cost, err)
	}
}

// What is too long or too deep is not even compiled.
func TestExpressionsAreSmall(t *testing.T) {
	for name, source := range map[string]string{
		"long":             "'" + strings.Repeat("a", maxSource) + "'",
		"deep":             strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"deep parentheses": strings.Repeat("(", 500) + "1" + strings.Repeat(")", 500),
		"deep conditions":  strings.Repeat("true ? 1 : ", 300) + "1",
		"deep macros":      strings.Repeat("[1].map(a, ", 100) + "1" + strings.Repeat(")", 100),
		"deep sums":        strings.Repeat("1+", 1500) + "1",
	} {
		if _, err := compileExpression(source); err == nil {
			t.Errorf("%s: it compiles", name)
		}
	}
}

// Numbers keep the meaning that they have in JSON: the value decides and not
// how it is written, and what would have to be rounded is refused.
func TestNumbersAreNotRounded(t *testing.T) {
	for _, tt := range []struct{ text, kind, out string }{
		{"0", "int", "0"},
		{"-0", "int", "0"},
		{"10", "int", "10"},
		{"10.0", "int", "10"},
		{"1e1", "int", "10"},
		{"100e-1", "int", "10"},
		{"9223372036854775807", "int", "9223372036854775807"},
		{"-9223372036854775808", "int", "-9223372036854775808"},
		{"9007199254740993", "int", "9007199254740993"}, // 2^53+1
		{"0.1", "double", "0.1"},
		{"-2.5e-3", "double", "-0.0025"},
		{"1e300", "double", "1e+300"},
		{"9223372036854775808", "", ""},
		{"18446744073709551615", "", ""},
		{"10000.0000000000001", "", ""},
		{"1e400", "", ""},
		{"1e-400", "", ""},
		{"1e99999999999999", "", ""},
	} {
		v, ok := number(tt.text)
		if ok != (tt.kind != "") {
			t.Errorf("%s: ok %t", tt.text, ok)
		}
		if !ok {
			if _, err := readObject("params", json.RawMessage(`{"n":[`+tt.text+`]}`), maxParams); err == nil {
				t.Errorf("%s is read", tt.text)
			}
			continue
		}
		if v.Type().TypeName() != tt.kind {
			t.Errorf("%s is %s", tt.text, v.Type().TypeName())
		}
		if out, _, err := eval(t, "params.n", `{"n":`+tt.text+`}`); out != tt.out || err != nil {
			t.Errorf("%s becomes %s, %v", tt.text, out, err)
		}
	}
	for source, want := range map[string]string{
		"params.n > 10000":       "true",
		"params.n + 1":           "10002",
		"double(params.n) / 2.0": "5000.5",
		"string(params.n)":       `"10001"`,
		"params.n == 10001.0":    "true",
		"params.n / 0":           "",
	} {
		if got, _, err := eval(t, source, `{"n":10001}`); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", source, got, err)
		}
	}
}

// An expression has JSON values or fails.
func TestOnlyJSONComesOut(t *testing.T) {
	for source, want := range map[string]string{
		"params": `{"a":[1,null,true],"b":"\u0001<"}`, "params.a": `[1,null,true]`, "null": "null", "1u": "1", "[1, 'a']": `[1,"a"]`,
		"{'b': 1, 'a': {}}": `{"a":{},"b":1}`, "{?'a': params.?x}": `{}`, "{?'a': params.?b}": `{"a":"\u0001<"}`,
		"b'a'": "", "timestamp('2026-01-01T00:00:00Z')": "", "duration('1s')": "", "type(1)": "", "1.0 / 0.0": "", "double('NaN')": "",
		"{1: 2}": "", "{'a': params.?x}": "", "[params.?x]": "", "string(timestamp('2026-01-01T00:00:00Z'))": `"2026-01-01T00:00:00Z"`,
		"timestamp('2026-01-01T00:00:00Z').getHours()": "0",
	} {
		got, _, err := eval(t, source, `{"a":[1,null,true],"b":"\u0001<"}`)
		if (err == nil) != (want != "") || (err == nil && got != want) {
			t.Errorf("%s: %s, %v", source, got, err)
		}
	}
	for _, bad := range []string{"timestamp('2026-01-01T00:00:00Z').getHours('Europe/Berlin')", "now", "request.x", "$params.a", "params.", "", " ", "foo(1)"} {
		if _, err := compileExpression(bad); err == nil {
			t.Errorf("%q compiles", bad)
		}
	}
	if got, _, err := eval(t, "params.a.matches('^h.*o$') && matches(params.a, 'll')", `{"a":"hello"}`); got != "true" || err != nil {
		t.Errorf("matches: %s, %v", got, err)
	}
}

// The output is bounded in bytes, values and depth.
func TestOutputIsBounded(t *testing.T) {
	for name, params := range map[string]string{
		"deep":  `{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
		"large": `{"x":"` + strings.Repeat("a", maxOutput) + `"}`,
	} {
		m, err := Compile(json.RawMessage(`{"evaluation":{"action":{"name":"a"},"resource":{"type":"t","id":"i"},"context":{"x":"$params.x"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Map(t.Context(), Input{Token: json.RawMessage(`{"sub":"a"}`), Params: json.RawMessage(params)}); err == nil || Code(err) != CodeMapping {
			t.Errorf("%s: %v", name, err)
		}
	}
	many, err := Compile(json.RawMessage(`{"evaluations":{"action":{"name":"a"},"resource":{"type":"t","id":"i"},"evaluations":[` +
		strings.TrimSuffix(strings.Repeat(`{"context":{"x":"$params.x"}},`, 20), ",") + `]}}`))
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Token: json.RawMessage(`{"sub":"a"}`), Params: json.RawMessage(`{"x":"` + strings.Repeat("a", maxOutput/10) + `"}`)}
	if _, err := many.Map(t.Context(), in); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("many: %v", err)
	}
}

// A value is not written further than what a request may have.
func TestWritingStops(t *testing.T) {
	in, err := readObject("params", json.RawMessage(`{"l":[`+strings.TrimSuffix(strings.Repeat(`"`+strings.Repeat("a", 9000)+`",`, 100), ",")+`]}`), maxParams)
	if err != nil {
		t.Fatal(err)
	}
	w := valueWriter{}
	if err := w.value(in, 0); !errors.Is(err, errOutput) || len(w.b) > maxOutput+10_000 {
		t.Errorf("%d bytes: %v", len(w.b), err)
	}
}
