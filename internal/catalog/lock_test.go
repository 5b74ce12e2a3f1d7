package catalog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLockKeepsDefinitionsVerbatim(t *testing.T) {
	def := `{"name":"b","zeta":1.50,"description":"a < b \u0026 \u200bc","inputSchema":{"type":"object","x":12345678901234567890}}`
	l := mustLock(t, "fs", def, `{"name":"a"}`)
	text, err := l.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseLock(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	pin, ok := again.Find("fs", "b")
	if !ok {
		t.Fatal("the pin is gone")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, pin.Definition); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(def, compact.String()); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
	text2, err := again.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(text2)); diff != "" {
		t.Errorf("the file changes when it is written again:\n%s", diff)
	}
	if i, j := strings.Index(string(text), `"a": {`), strings.Index(string(text), `"b": {`); i < 0 || j < i {
		t.Errorf("tools are not sorted:\n%s", text)
	}
}

func TestLockIsStrict(t *testing.T) {
	good, err := mustLock(t, "fs", `{"name":"a"}`).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"edited definition", `"name": "a"`, `"name": "a", "x": 1`, "digest"},
		{"renamed tool", `"a": {`, `"b": {`, `holds the definition of "a"`},
		{"another version", `"version": 1`, `"version": 2`, "version 2"},
		{"unknown key", `"version": 1`, `"version": 1, "extra": 1`, "extra"},
		{"server name", `"fs": {`, `"f/s": {`, "server name"},
		{"no JSON", `{`, ``, "lock"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(string(good), tt.old, tt.new, 1)
			if bad == string(good) {
				t.Fatal("nothing was replaced")
			}
			_, err := ParseLock([]byte(bad))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestDefinitionsThatCannotBePinned(t *testing.T) {
	for name, def := range map[string]string{
		"no name":        `{"description":"x"}`,
		"empty name":     `{"name":""}`,
		"no object":      `[]`,
		"duplicate key":  `{"name":"a","name":"b"}`,
		"not JSON":       `{"name":`,
		"trailing bytes": `{"name":"a"} {}`,
		"too large":      `{"name":"a","description":"` + strings.Repeat("x", maxDefinition) + `"}`,
	} {
		if _, err := new(Lock).Pin("fs", json.RawMessage(def)); err == nil {
			t.Errorf("%s: pinned", name)
		}
	}
}

func TestSeenComparesWithPins(t *testing.T) {
	l := mustLock(t, "fs", `{"name":"same"}`, `{"name":"changed","description":"old"}`, `{"name":"gone"}`)
	diffs, err := l.Seen("fs", []json.RawMessage{
		json.RawMessage(`{ "name" : "same" }`),
		json.RawMessage(`{"name":"changed","description":"new"}`),
		json.RawMessage(`{"name":"new"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]State{}
	for _, d := range diffs {
		got[d.Tool] = d.State
	}
	want := map[string]State{"same": StatePinned, "changed": StateChanged, "gone": StateGone, "new": StateNew}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	twice := json.RawMessage(`{"name":"same"}`)
	if _, err := l.Seen("fs", []json.RawMessage{twice, twice}); err == nil {
		t.Error("a tool that is listed twice is accepted")
	}
}

func TestUnpin(t *testing.T) {
	l := mustLock(t, "fs", `{"name":"a"}`, `{"name":"b"}`)
	if !l.Unpin("fs", "a") || l.Unpin("fs", "a") || l.Unpin("other", "b") {
		t.Error("Unpin does not say what was there")
	}
	if _, ok := l.Find("fs", "a"); ok || len(l.Pins()) != 1 {
		t.Errorf("pins: %v", l.Pins())
	}
	l.Unpin("fs", "b")
	if len(l.Servers()) != 0 {
		t.Errorf("servers: %v", l.Servers())
	}
}
