package catalog

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestAnnotationsOnlyTighten(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		name      string
		stated    []string
		hints     hints
		want      []string
		conflicts int
	}{
		{"silent", []string{"read"}, hints{}, []string{"read"}, 0},
		{"agreeing", []string{"read"}, hints{ReadOnly: &yes, OpenWorld: &no}, []string{"read"}, 0},
		{"read-only is not believed", []string{"write", "destructive"}, hints{ReadOnly: &yes, Destructive: &no}, []string{"destructive", "write"}, 0},
		{"destructive", []string{"read"}, hints{Destructive: &yes}, []string{"destructive", "write"}, 1},
		{"open world", []string{"read"}, hints{OpenWorld: &yes}, []string{"external", "read"}, 1},
		{"not read-only", []string{"read"}, hints{ReadOnly: &no}, []string{"write"}, 1},
		{"not read-only, as stated", []string{"write"}, hints{ReadOnly: &no}, []string{"write"}, 0},
		{"destructive implies write", []string{"destructive"}, hints{}, []string{"destructive", "write"}, 0},
		{"contradicts itself", []string{"read"}, hints{ReadOnly: &yes, Destructive: &yes}, []string{"destructive", "write"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, conflicts := tighten(tt.stated, tt.hints)
			if diff := cmp.Diff(tt.want, got); diff != "" || len(conflicts) != tt.conflicts {
				t.Errorf("conflicts %q, effects (-want +got):\n%s", conflicts, diff)
			}
		})
	}
}

func TestSilenceIsTheWorstCase(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "s", `{"name":"get","annotations":{"readOnlyHint":true}}`), "")
	o, _ := c.Operation("s/get")
	if diff := cmp.Diff([]string{"destructive", "external", "write"}, o.Effects); diff != "" || o.Classified {
		t.Errorf("classified %t, effects (-want +got):\n%s", o.Classified, diff)
	}
}

func TestSuggest(t *testing.T) {
	for _, tt := range []struct {
		def  string
		want Suggestion
	}{
		{
			`{"name":"send_email","inputSchema":{"type":"object","properties":{"recipients":{},"body":{}}}}`,
			Suggestion{Effects: []string{"external", "write"}, Authority: []string{"recipients"}},
		},
		{`{"name":"readFile","inputSchema":{"type":"object","properties":{"path":{}}}}`, Suggestion{Effects: []string{"read"}, Authority: []string{"path"}}},
		{`{"name":"search_emails"}`, Suggestion{Effects: []string{"read"}, Outsiders: true}},
		{`{"name":"get_email"}`, Suggestion{Effects: []string{"read"}, Outsiders: true}},
		{`{"name":"email_customer"}`, Suggestion{Effects: []string{"external", "write"}}},
		{`{"name":"fetch_webpage"}`, Suggestion{Effects: []string{"external", "read"}, Outsiders: true}},
		{`{"name":"get_or_create_user"}`, Suggestion{Effects: []string{"write"}}},
		{`{"name":"delete_file"}`, Suggestion{Effects: []string{"destructive", "write"}}},
		{`{"name":"list_things","annotations":{"destructiveHint":true}}`, Suggestion{Effects: []string{"destructive", "write"}}},
		{`{"name":"frobnicate","description":"only reads"}`, Suggestion{}},
		{`[]`, Suggestion{}},
	} {
		got := Suggest(json.RawMessage(tt.def))
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Suggestion{}, "Why"), cmpopts.EquateEmpty()); diff != "" || got.Why == "" {
			t.Errorf("%s: why %q (-want +got):\n%s", tt.def, got.Why, diff)
		}
	}
}

// TestSuggestionsAreValidEffects holds Suggest to words that the
// overlay accepts.
func TestSuggestionsAreValidEffects(t *testing.T) {
	for _, group := range effectWords() {
		for _, e := range group.effects {
			if !slices.Contains([]string{EffectRead, EffectWrite, EffectDestructive, EffectExternal}, e) {
				t.Errorf("%q is no effect", e)
			}
		}
	}
}
