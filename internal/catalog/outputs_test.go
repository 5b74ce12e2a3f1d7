package catalog

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/provenance"
)

func TestReturns(t *testing.T) {
	t.Parallel()
	const tool = `{"name":"read","inputSchema":{"type":"object","properties":{"id":{"type":"string"}}}}`
	field := func(path string, trust provenance.Trust) provenance.FieldMark {
		return provenance.FieldMark{Path: strings.Split(path, "."), Trust: trust}
	}
	for _, tt := range []struct {
		name, overlay string
		marks         provenance.Marks
		labels        []string
		undecided     bool
	}{
		{"nothing is said", ``, provenance.Marks{Rest: provenance.Unknown}, []string{"unknown"}, true},
		{"effects only", `servers: {s: {tools: {read: {effects: [read], authority: []}}}}`, provenance.Marks{Rest: provenance.Structure}, []string{}, false},
		{"outsiders", `servers: {s: {tools: {read: {effects: [read], outputs: {outsiders: true, fields: {id: structure}}}}}}`,
			provenance.Marks{Rest: provenance.Outsiders, Fields: []provenance.FieldMark{field("id", provenance.Structure)}}, []string{"untrusted"}, true},
		{"a field of outsiders'", `servers: {s: {tools: {read: {effects: [read], outputs: {format: yaml, fields: {a.b: outsiders}}}}}}`,
			provenance.Marks{Rest: provenance.Structure, YAML: true, Fields: []provenance.FieldMark{field("a.b", provenance.Outsiders)}}, []string{"untrusted"}, true},
		{"a field of nobody's", `servers: {s: {tools: {read: {effects: [read], outputs: {trust: directory, confidentiality: secret, fields: {x: unknown}}}}}}`,
			provenance.Marks{Rest: provenance.Directory, Fields: []provenance.FieldMark{field("x", provenance.Unknown)}}, []string{"secret", "unknown"}, true},
		{"the least trusted word of several", `servers: {"*": {outputs: {trust: signed}}, s: {outputs: {outsiders: true}, tools: {read: {effects: [read], outputs: {trust: directory}}, "re*": {authority: [id]}}}}`,
			provenance.Marks{Rest: provenance.Outsiders}, []string{"untrusted"}, false},
		{"a tool cannot be trusted more than its server", `servers: {s: {outputs: {trust: structure}, tools: {read: {effects: [read], outputs: {trust: signed}}}}}`,
			provenance.Marks{Rest: provenance.Structure}, []string{}, true},
	} {
		o := mustOperation(t, mustCatalog(t, mustLock(t, "s", tool), tt.overlay), "s/read")
		if d := cmp.Diff(tt.marks, o.Returns("s")); d != "" {
			t.Errorf("%s: marks (-want +got):\n%s", tt.name, d)
		}
		if !slices.Equal(o.OutputLabels("s"), tt.labels) || o.Undecided != tt.undecided {
			t.Errorf("%s: labels %q, undecided %v", tt.name, o.OutputLabels("s"), o.Undecided)
		}
		if o.IsAuthority("anything") != tt.undecided {
			t.Errorf("%s: what is unsaid carries authority: %v", tt.name, !tt.undecided)
		}
	}
}

func TestOutputMistakes(t *testing.T) {
	t.Parallel()
	for outputs, want := range map[string]string{
		`{trust: friends}`:                      `"friends" is not one of`,
		`{trust: user}`:                         `"user" is not one of`,
		`{outsiders: true, trust: structure}`:   "outsiders can write it",
		`{fields: {a: outsider}}`:               `did you mean "outsiders"`,
		`{fields: {a..b: structure}}`:           "a path is names with dots",
		`{format: xml}`:                         `neither "json" nor "yaml"`,
		`{confidentiality: top}`:                `"top" is not one of`,
		`{integrity: 3}`:                        "integrity",
		`{outsiders: true, trust: unknown}`:     "",
		`{outsiders: true, fields: {a: user}}`:  `"user" is not one of`,
		`{fields: {a: signed, "*.b": unknown}}`: "",
	} {
		_, err := ParseOverlay([]byte("servers: {s: {tools: {t: {outputs: " + outputs + "}}}}"))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", outputs, err, want)
		}
	}
}
