package catalog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	base := `{"name":"t","description":"old","inputSchema":{"type":"object","properties":{"to":{"type":"string"}},"required":["to"]},"annotations":{"readOnlyHint":true}}`
	for _, tt := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing but white space", `"name":"t"`, `"name" : "t"`, nil},
		{"description", `"old"`, `"new"`, []string{`description: was "old", is "new"`}},
		{"argument added", `"properties":{`, `"properties":{"bcc":{"type":"string"},`, []string{`argument "bcc" added: {"type":"string"}`}},
		{"argument removed", `"to":{"type":"string"}`, ``, []string{`argument "to" removed (was {"type":"string"})`}},
		{"type changed", `"to":{"type":"string"}`, `"to":{"type":"integer"}`, []string{`type of argument "to": was "string", is "integer"`}},
		{"required", `["to"]`, `["to","cc"]`, []string{`argument "cc" is now required`}},
		{"no longer required", `["to"]`, `[]`, []string{`argument "to" is no longer required`}},
		{"annotation", `"readOnlyHint":true`, `"readOnlyHint":false`, []string{`annotation readOnlyHint: was true, is false`}},
		{"invisible text", `"old"`, `"old\u200b\u202e"`, []string{`description: was "old", is "old\u{200b}\u{202e}"`}},
		{"key added", `"name":"t"`, `"name":"t","x":[1]`, []string{`x added: [1]`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := strings.Replace(base, tt.old, tt.new, 1)
			if seen == base {
				t.Fatal("nothing was replaced")
			}
			var got []string
			for _, c := range Diff(json.RawMessage(base), json.RawMessage(seen)) {
				got = append(got, c.Message)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiffNeverSaysNothingOfAChange(t *testing.T) {
	for _, tt := range [][2]string{
		{`{"name":"t","n":12345678901234567890}`, `{"name":"t","n":12345678901234567891}`},
		{`{"name":"t","required":["a","b"]}`, `{"name":"t","required":["b","a"]}`},
		{`{"name":"t"}`, `nonsense`},
	} {
		if len(Diff(json.RawMessage(tt[0]), json.RawMessage(tt[1]))) == 0 {
			t.Errorf("%s and %s: no changes", tt[0], tt[1])
		}
	}
}

// TestPoisonedDefinitionsAreShown pins the honest form of each tool that
// MCPSecBench poisons, and looks at what an operator is shown.
func TestPoisonedDefinitionsAreShown(t *testing.T) {
	dir := traces(t, "mcp_poisoning")
	type record struct {
		ServerFile string `json:"server_file"`
		Attack     string
		Tool       json.RawMessage
	}
	tools := map[string]map[string]json.RawMessage{} // server file: name: definition
	rugPulls := 0
	sc := bufio.NewScanner(bytes.NewReader(readFile(t, filepath.Join(dir, "tool_definitions.jsonl"))))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var r record
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		d, err := parseDefinition(r.Tool)
		if err != nil {
			t.Fatal(err)
		}
		if tools[r.ServerFile] == nil {
			tools[r.ServerFile] = map[string]json.RawMessage{}
		}
		tools[r.ServerFile][d.name] = r.Tool
		if r.Attack == "rug_pull" {
			rugPulls++
			before := bytes.Replace(r.Tool, []byte(" with enhanced data"), nil, 1)
			if got := Diff(before, r.Tool); len(got) != 1 || got[0].Path != "description" {
				t.Errorf("rug pull of %s: got %v, want a change of the description", d.name, got)
			}
		}
	}
	if rugPulls == 0 {
		t.Error("there is no rug pull in the vectors")
	}
	for _, tt := range []struct{ name, honest, poisoned, want string }{
		{"add", "addserver.py", "maliciousadd.py", `argument "b" removed`},
		{"sub", "addserver.py", "maliciousadd.py", `argument "a" removed`},
		{"check", "download.py", "squatting.py", `argument "file_name" added`},
	} {
		l := &Lock{}
		if _, err := l.Pin("s", tools[tt.honest][tt.name]); err != nil {
			t.Fatal(err)
		}
		diffs, err := l.Seen("s", []json.RawMessage{tools[tt.poisoned][tt.name]})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range diffs[0].Changes {
			all = append(all, c.Message)
		}
		if diffs[0].State != StateChanged || !strings.Contains(strings.Join(all, "\n"), tt.want) {
			t.Errorf("%s: got %s %q, want a change with %q", tt.name, diffs[0].State, all, tt.want)
		}
	}
}
