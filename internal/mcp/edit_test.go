package mcp

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

func TestEdit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, obj, value string
		path             []string
		set, deleted     string // "" is an error
	}{
		{name: "first", obj: `{"a":1, "b" : 2}`, value: `[]`, path: []string{"a"}, set: `{"a":[], "b" : 2}`, deleted: `{ "b" : 2}`},
		{name: "middle", obj: `{"a":1,"b":2,"c":3}`, value: `9`, path: []string{"b"}, set: `{"a":1,"b":9,"c":3}`, deleted: `{"a":1,"c":3}`},
		{name: "last", obj: `{"a":1 , "b":2 }`, value: `9`, path: []string{"b"}, set: `{"a":1 , "b":9 }`, deleted: `{"a":1 }`},
		{name: "only", obj: `{ "a" : 1 }`, value: `9`, path: []string{"a"}, set: `{ "a" : 9 }`, deleted: `{ }`},
		{name: "escaped", obj: `{"\u0061":1}`, value: `9`, path: []string{"a"}, set: `{"\u0061":9}`, deleted: `{}`},
		{name: "new", obj: `{"a":1 }`, value: `9`, path: []string{"b\""}, set: `{"a":1 ,"b\"":9}`, deleted: `{"a":1 }`},
		{name: "new in an empty object", obj: `{ }`, value: `9`, path: []string{"b"}, set: `{ "b":9}`, deleted: `{ }`},
		{name: "deep", obj: `{"_meta":{"x":{"y":1},"z":2}}`, value: `9`, path: []string{"_meta", "x", "y"}, set: `{"_meta":{"x":{"y":9},"z":2}}`, deleted: `{"_meta":{"x":{},"z":2}}`},
		{name: "deep and new", obj: `{"q":1}`, value: `9`, path: []string{"_meta", "x", "y"}, set: `{"q":1,"_meta":{"x":{"y":9}}}`, deleted: `{"q":1}`},
		{name: "nothing there", obj: ``, value: `9`, path: []string{"a", "b"}, set: `{"a":{"b":9}}`},
		{name: "a string in the way", obj: `{"a":"x"}`, value: `9`, path: []string{"a", "b"}},
		{name: "a null in the way", obj: `{"a":null}`, value: `9`, path: []string{"a", "b"}},
		{name: "a list", obj: `[]`, value: `9`, path: []string{"a"}},
		{name: "no JSON", obj: `{"a"`, value: `9`, path: []string{"b"}},
		{name: "no value", obj: `{}`, value: `nine`, path: []string{"b"}, deleted: `{}`},
		{name: "no path", obj: `{}`, value: `9`, set: `9`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Set(json.RawMessage(tt.obj), json.RawMessage(tt.value), tt.path...)
			if string(got) != tt.set || (err == nil) == (tt.set == "") {
				t.Errorf("set: got %s, %v, want %s", got, err, tt.set)
			}
			got, err = Delete(json.RawMessage(tt.obj), tt.path...)
			if string(got) != tt.deleted || (err == nil) == (tt.deleted == "") {
				t.Errorf("delete: got %s, %v, want %s", got, err, tt.deleted)
			}
		})
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	obj := json.RawMessage(`{"s":"a\u0062","n":1, "o":{"p":{"q":[1, 2]}}, "x":null}`)
	for path, want := range map[string]string{
		"s": `"a\u0062"`, "n": "1", "o/p": `{"q":[1, 2]}`, "o/p/q": `[1, 2]`, "x": "null",
		"missing": "", "o/missing": "", "s/p": "", "o/p/q/0": "", "x/y": "",
	} {
		got, ok := Get(obj, strings.Split(path, "/")...)
		if string(got) != want || ok != (want != "") {
			t.Errorf("%s: got %s, %v, want %s", path, got, ok, want)
		}
	}
	if got := GetString(obj, "s"); got != "ab" {
		t.Errorf("got %q", got)
	}
	for _, path := range []string{"n", "o", "x", "missing"} {
		if got := GetString(obj, path); got != "" {
			t.Errorf("%s: got %q", path, got)
		}
	}
	for _, bad := range []string{"", "{", "[]", `{"s" "x"}`, "x"} {
		if got, ok := Get(json.RawMessage(bad), "s"); ok {
			t.Errorf("%q has %s", bad, got)
		}
	}
	if got, ok := Get(obj); !ok || string(got) != string(obj) {
		t.Errorf("no path: got %s", got)
	}
}

func TestEditProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		obj := genObject(3).Draw(t, "object")
		value := genValue(2).Draw(t, "value")
		path := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "", "new"}), 1, 3).Draw(t, "path")
		checkEdit(t, obj, value, path)
	})
}

// checkEdit holds Set, Get and Delete against each other.
func checkEdit(t interface{ Fatalf(string, ...any) }, obj, value string, path []string) {
	got, err := Set(json.RawMessage(obj), json.RawMessage(value), path...)
	if err != nil {
		return
	}
	if !jsontext.Value(got).IsValid() {
		t.Fatalf("set made %s", got)
	}
	if back, ok := Get(got, path...); !ok || string(back) != strings.Trim(value, " \t\r\n") && string(back) != value {
		t.Fatalf("set %s, got %s of %s", value, back, got)
	}
	gone, err := Delete(got, path...)
	if err != nil || !jsontext.Value(gone).IsValid() {
		t.Fatalf("delete made %s, %v", gone, err)
	}
	if v, ok := Get(gone, path...); ok {
		t.Fatalf("deleted, and still there: %s", v)
	}
	if before, ok := Get(json.RawMessage(obj), path...); ok {
		if again, err := Set(got, before, path...); err != nil || string(again) != obj {
			t.Fatalf("to and fro: %s, %v", again, err)
		}
	}
}
