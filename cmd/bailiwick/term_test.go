package main

import (
	"bytes"
	"os"
	"testing"
)

func TestPagesThatAreNoTerminalsArePlain(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() }) // nothing was written
	for name, p := range map[string]*page{
		"buffer": newPage(&bytes.Buffer{}),
		"file":   newPage(file),
	} {
		if got := p.in(red, "x"); got != "x" {
			t.Errorf("%s: in = %q, want it plain", name, got)
		}
		if p.width != plainWidth || p.rich {
			t.Errorf("%s: page = %+v, want it plain", name, p)
		}
	}
}

func TestColour(t *testing.T) {
	p := &page{width: 20, colour: true}
	if got, want := p.in(green, "ok"), "\x1b[32mok\x1b[0m"; got != want {
		t.Errorf("in = %q, want %q", got, want)
	}
	if got := p.in(green, ""); got != "" {
		t.Errorf("in = %q, want nothing for nothing", got)
	}
}

func TestWrap(t *testing.T) {
	p := &page{width: 20}
	for _, tt := range []struct {
		name, text, want string
		indent           int
	}{
		{"fits", "one two", "one two", 4},
		{"breaks", "one two three four five", "one two three\n    four five", 4},
		{"exactly", "1234567 90123456", "1234567 90123456", 4},
		{"long word", "a sha256:0123456789abcdef0123456789abcdef b", "a\n  sha256:0123456789abcdef0123456789abcdef\n  b", 2},
		{"runes", "ééééé ééééé ééééé", "ééééé ééééé ééééé", 3},
		{"empty", " ", "", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.wrap(tt.text, tt.indent); got != tt.want {
				t.Errorf("wrap = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestClipAndPad(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{clip("abcdef", 6), "abcdef"},
		{clip("abcdefg", 6), "abc..."},
		{clip("äöüäöüä", 6), "äöü..."},
		{pad("ä", 3), "ä  "},
		{pad("abcd", 3), "abcd"},
		{printable("a\x1b[31mb\nc\u009b"), "a [31mb c "},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
