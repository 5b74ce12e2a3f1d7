package catalog

import (
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"pgregory.net/rapid"
)

func TestEscapeKeepsIdentifiers(t *testing.T) {
	for _, name := range []string{"read_file", "send", "A", "get2", "max_x", "is_xml", "_leading", "Input"} {
		if got := Escape(name); got != name {
			t.Errorf("Escape(%q) = %q, want it unchanged", name, got)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"", "_x65"},
		{"my-tool", "my_x2dtool"},
		{"in", "_x69n"},
		{"String", "_x53tring"},
		{"Action", "_x41ction"},
		{"1st", "_x31st"},
		{"a__b", "a_x5f_b"},
		{"from_", "from_x5f"},
		{"a_x2db", "a_x5fx2db"},
		{"é", "_xc3_xa9"},
		{"__cedar", "_x5f_cedar"},
	} {
		if got := Escape(tt.name); got != tt.want {
			t.Errorf("Escape(%q) = %q, want %q", tt.name, got, tt.want)
		}
		if got := Unescape(tt.want); got != tt.name {
			t.Errorf("Unescape(%q) = %q, want %q", tt.want, got, tt.name)
		}
	}
}

// names are arbitrary names, with those that are nearly escapes among them.
func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[_x0-9a-f]{0,12}`),
		rapid.SampledFrom([]string{"true", "in", "is", "Set", "Long", "decimal", "Action", "__cedar", "_x", "_x5f", "_x65", "e"}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }),
	)
}

func TestEscapeIsReversibleAndAlwaysAnIdentifier(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := names().Draw(t, "name")
		ident := Escape(name)
		if got := Unescape(ident); got != name {
			t.Fatalf("Unescape(Escape(%q)) = %q (by way of %q)", name, got, ident)
		}
		if strings.Contains(ident, "__") || strings.HasSuffix(ident, "_") {
			t.Fatalf("Escape(%q) = %q, which is ambiguous when joined by __", name, ident)
		}
		text := "entity " + ident + "; type T" + " = { a: " + ident + ", b: String, c: Set<Long> };"
		var s schema.Schema
		if err := s.UnmarshalCedar([]byte(text)); err != nil {
			t.Fatalf("Escape(%q) = %q: %v", name, ident, err)
		}
		if _, err := s.Resolve(); err != nil && ident != "T" {
			t.Fatalf("Escape(%q) = %q: %v", name, ident, err)
		}
	})
}

func TestJoinedNamesAreUnambiguous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(names(), 1, 4)
		a, b := parts.Draw(t, "a"), parts.Draw(t, "b")
		join := func(parts []string) string {
			out := make([]string, len(parts))
			for i, p := range parts {
				out[i] = Escape(p)
			}
			return strings.Join(out, "__")
		}
		if same := strings.Join(a, "\x00") == strings.Join(b, "\x00") && len(a) == len(b); !same && join(a) == join(b) {
			t.Fatalf("%q and %q join to the same name %q", a, b, join(a))
		}
	})
}
