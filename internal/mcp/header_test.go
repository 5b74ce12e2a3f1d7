package mcp

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestHeaderValueEncoding(t *testing.T) {
	t.Parallel()
	// The examples are those of the protocol's text, and edges of it.
	for text, want := range map[string]string{
		"us-west1":              "us-west1",
		"a b\tc":                "a b\tc",
		"":                      "",
		"Hello, 世界":             "=?base64?SGVsbG8sIOS4lueVjA==?=",
		" padded ":              "=?base64?IHBhZGRlZCA=?=",
		"\ttab":                 "=?base64?CXRhYg==?=",
		"line1\nline2":          "=?base64?bGluZTEKbGluZTI=?=",
		"=?base64?literal?=":    "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=",
		"=?base64?=":            "=?base64?=",
		"=?BASE64?bGl0ZXJhbA?=": "=?BASE64?bGl0ZXJhbA?=",
		"\x7f":                  "=?base64?fw==?=",
	} {
		got := EncodeHeaderValue(text)
		if got != want {
			t.Errorf("encode %q: got %q, want %q", text, got, want)
		}
		if back, err := DecodeHeaderValue(got); back != text || err != nil {
			t.Errorf("decode %q: got %q, %v", got, back, err)
		}
	}
	for _, bad := range []string{"=?base64?@@?=", "=?base64?Zg?=", "=?base64?Zh==?=", "=?base64?Z\ng==?=", "ü", "a\nb", " a", "a\x00"} {
		if got, err := DecodeHeaderValue(bad); err == nil {
			t.Errorf("decoded %q: %q", bad, got)
		}
	}
}

func TestHeaderValueProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`=\?base64\?.*\?=`)).Draw(t, "text")
		e := EncodeHeaderValue(s)
		if !isPlain(e) {
			t.Fatalf("%q is no header value", e)
		}
		if back, err := DecodeHeaderValue(e); err != nil || back != s {
			t.Fatalf("got %q, %v", back, err)
		}
	})
}

const regionSchema = `{"type":"object","properties":{
	"region":{"type":"string","x-mcp-header":"Region"},
	"opts":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"},"dry":{"type":"boolean","x-mcp-header":"Dry"}}},
	"x-mcp-header":{"type":"string"},
	"free":{"enum":[{"x-mcp-header":"no schema"}],"default":{"x-mcp-header":1}}}}`

func callWith(args string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"tool","arguments":` + args +
		`,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`
}

func TestStandardHeaders(t *testing.T) {
	t.Parallel()
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2027-01-01"}`
	for _, tt := range []struct {
		in   string
		want http.Header
	}{
		{callWith("{}"), http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"tool"}}},
		{`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///ä",` + meta + `}}`,
			http.Header{"Mcp-Protocol-Version": {"2027-01-01"}, "Mcp-Method": {"resources/read"}, "Mcp-Name": {"=?base64?ZmlsZTovLy/DpA==?="}}},
		{`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}`,
			http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"prompts/get"}, "Mcp-Name": {"p"}}},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"name":"p"}}`,
			http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/list"}}},
		{`{"jsonrpc":"2.0","id":1,"result":{}}`, http.Header{"Mcp-Protocol-Version": {"2026-07-28"}}},
	} {
		m := mustParse(t, tt.in)
		got := StandardHeaders(m)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.in, diff)
		}
		if v := GetString(m.Params(), "_meta", MetaProtocolVersion); m.IsRequest() && v != "" {
			if err := CheckHeaders(got, m, nil); err != nil {
				t.Errorf("%s: %v", tt.in, err)
			}
		}
	}
}

func TestParamHeaders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want http.Header // nil: an error
	}{
		{`{}`, http.Header{}},
		{`{"region":null,"opts":{"n":null}}`, http.Header{}},
		{`{"region":"eu","other":"x","opts":{"n":-7,"dry":false}}`,
			http.Header{"Mcp-Param-Region": {"eu"}, "Mcp-Param-N": {"-7"}, "Mcp-Param-Dry": {"false"}}},
		{`{"region":"Zürich"}`, http.Header{"Mcp-Param-Region": {"=?base64?WsO8cmljaA==?="}}},
		{`{"opts":{"n":42.0}}`, http.Header{"Mcp-Param-N": {"42"}}},
		{`{"opts":{"n":9007199254740991}}`, http.Header{"Mcp-Param-N": {"9007199254740991"}}},
		{`{"opts":{"n":9007199254740992}}`, nil},
		{`{"opts":{"n":1e999999999}}`, nil},
		{`{"opts":{"n":1.5}}`, nil},
		{`{"opts":{"n":"1"}}`, nil},
		{`{"opts":{"dry":"true"}}`, nil},
		{`{"region":["eu"]}`, nil},
		{`{"opts":"x"}`, http.Header{}},
	} {
		m := mustParse(t, callWith(tt.args))
		got, err := ParamHeaders(m, json.RawMessage(regionSchema))
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) == (tt.want == nil) {
			t.Errorf("%s: %v %s", tt.args, err, diff)
		}
		if err == nil {
			for k, v := range StandardHeaders(m) {
				got[k] = v
			}
			if err := CheckHeaders(got, m, json.RawMessage(regionSchema)); err != nil {
				t.Errorf("%s: %v", tt.args, err)
			}
		}
	}
}

func TestCheckHeaders(t *testing.T) {
	t.Parallel()
	const args = `{"region":"eu west","opts":{"n":42}}`
	good := func() http.Header {
		return http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"tool"},
			"Mcp-Param-Region": {"eu west"}, "Mcp-Param-N": {"42"}, "Mcp-Param-Unknown": {"anything"}}
	}
	for _, tt := range []struct {
		name, header string
		values       []string
		bad          bool
	}{
		{name: "all as they should be"},
		{name: "name in Base64", header: "Mcp-Name", values: []string{"=?base64?dG9vbA==?="}},
		{name: "argument in Base64", header: "Mcp-Param-Region", values: []string{"=?base64?ZXUgd2VzdA==?="}},
		{name: "integer with a point", header: "Mcp-Param-N", values: []string{"42.0"}},
		{name: "an argument that is not there", header: "Mcp-Param-Dry", values: []string{"true"}, bad: true},
		{name: "an empty header for no argument", header: "Mcp-Param-Dry", values: []string{""}, bad: true},
		{name: "no version", header: "Mcp-Protocol-Version", bad: true},
		{name: "another version", header: "Mcp-Protocol-Version", values: []string{"2025-11-25"}, bad: true},
		{name: "no method", header: "Mcp-Method", bad: true},
		{name: "another method", header: "Mcp-Method", values: []string{"tools/list"}, bad: true},
		{name: "a method in another case", header: "Mcp-Method", values: []string{"Tools/Call"}, bad: true},
		{name: "a method in Base64", header: "Mcp-Method", values: []string{EncodeHeaderValue("tools/call\n")}, bad: true},
		{name: "two methods", header: "Mcp-Method", values: []string{"tools/call", "tools/call"}, bad: true},
		{name: "no name", header: "Mcp-Name", bad: true},
		{name: "another name", header: "Mcp-Name", values: []string{"fool"}, bad: true},
		{name: "two names", header: "Mcp-Name", values: []string{"tool", "fool"}, bad: true},
		{name: "broken Base64", header: "Mcp-Name", values: []string{"=?base64?dG9vbA?="}, bad: true},
		{name: "no argument", header: "Mcp-Param-Region", bad: true},
		{name: "another argument", header: "Mcp-Param-Region", values: []string{"us"}, bad: true},
		{name: "another integer", header: "Mcp-Param-N", values: []string{"43"}, bad: true},
		{name: "an integer in hexadecimal", header: "Mcp-Param-N", values: []string{"0x2a"}, bad: true},
		{name: "an integer with a text", header: "Mcp-Param-N", values: []string{"42a"}, bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := good()
			if tt.header != "" {
				h[tt.header] = tt.values
			}
			err := CheckHeaders(h, mustParse(t, callWith(args)), json.RawMessage(regionSchema))
			var he *HeaderError
			if errors.As(err, &he) != tt.bad || tt.bad && (!strings.EqualFold(he.Header, tt.header) || he.Message == "") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckHeadersOfNotifications(t *testing.T) {
	t.Parallel()
	m := mustParse(t, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}`)
	for _, tt := range []struct {
		h   http.Header
		bad bool
	}{
		{h: http.Header{}},
		{h: http.Header{"Mcp-Protocol-Version": {"2026-07-28"}}},
		{h: http.Header{"Mcp-Method": {"notifications/cancelled"}}},
		{h: http.Header{"Mcp-Method": {"tools/call"}}, bad: true},
	} {
		if err := CheckHeaders(tt.h, m, nil); (err != nil) != tt.bad {
			t.Errorf("%v: got %v", tt.h, err)
		}
	}
}

func TestCheckAnnotations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, schema, problem string }{
		{name: "none", schema: `{"type":"object"}`},
		{name: "good", schema: regionSchema},
		{name: "true", schema: `true`},
		{name: "at the root", schema: `{"type":"string","x-mcp-header":"A"}`, problem: "not reachable"},
		{name: "in items", schema: `{"properties":{"a":{"items":{"type":"string","x-mcp-header":"A"}}}}`, problem: "not reachable"},
		{name: "in a composition", schema: `{"anyOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}`, problem: "not reachable"},
		{name: "in a definition", schema: `{"$defs":{"a":{"type":"string","x-mcp-header":"A"}}}`, problem: "not reachable"},
		{name: "behind a condition", schema: `{"if":true,"then":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}`, problem: "not reachable"},
		{name: "on a number", schema: `{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}`, problem: "cannot be mirrored"},
		{name: "on two types", schema: `{"properties":{"a":{"type":["string","null"],"x-mcp-header":"A"}}}`, problem: "cannot be mirrored"},
		{name: "empty", schema: `{"properties":{"a":{"type":"string","x-mcp-header":""}}}`, problem: "not the name"},
		{name: "with a line break", schema: `{"properties":{"a":{"type":"string","x-mcp-header":"A\r\nB"}}}`, problem: "not the name"},
		{name: "not a text", schema: `{"properties":{"a":{"type":"string","x-mcp-header":1}}}`, problem: "not the name"},
		{name: "twice", schema: `{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"properties":{"c":{"type":"string","x-mcp-header":"a"}}}}}`, problem: "already taken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := CheckAnnotations(json.RawMessage(tt.schema))
			if (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("got %v, want %q", err, tt.problem)
			}
			m := mustParse(t, callWith("{}"))
			if err := CheckHeaders(StandardHeaders(m), m, json.RawMessage(tt.schema)); (err == nil) != (tt.problem == "") {
				t.Errorf("a call of the tool: %v", err)
			}
		})
	}
}
