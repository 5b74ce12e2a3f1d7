package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// traces finds the published vectors beside the repository.
func traces(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		p := filepath.Join(dir, "shared", "traces", name)
		if _, err := os.Stat(p); err == nil {
			return p
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Skip("no shared/traces beside the repository")
	return ""
}

func TestUpstreamVectorsAreReproduced(t *testing.T) {
	dir := traces(t, "mcp-schema")
	var manifest struct {
		Cases []struct {
			Tools, Stub, Expected string
			Config                struct {
				IncludeOutputs         bool  `json:"include_outputs"`
				ObjectsAsRecords       bool  `json:"objects_as_records"`
				EraseAnnotations       *bool `json:"erase_annotations"`
				FlattenNamespaces      bool  `json:"flatten_namespaces"`
				NumbersAsDecimal       bool  `json:"encode_numbers_as_decimal"`
				DeduplicateEntityTypes bool  `json:"deduplicate_entity_types"`
			}
		}
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "manifest.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.Cases) != 31 {
		t.Fatalf("got %d cases, want 31", len(manifest.Cases))
	}
	for _, c := range manifest.Cases {
		t.Run(c.Expected, func(t *testing.T) {
			got, err := GenerateSchema(readFile(t, filepath.Join(dir, c.Stub)), readTools(t, filepath.Join(dir, c.Tools)), GenerateOptions{
				IncludeOutputs:         c.Config.IncludeOutputs,
				ObjectsAsRecords:       c.Config.ObjectsAsRecords,
				KeepAnnotations:        c.Config.EraseAnnotations != nil && !*c.Config.EraseAnnotations,
				FlattenNamespaces:      c.Config.FlattenNamespaces,
				NumbersAsDecimal:       c.Config.NumbersAsDecimal,
				DeduplicateEntityTypes: c.Config.DeduplicateEntityTypes,
			})
			if err != nil {
				t.Fatal(err)
			}
			want := readFile(t, filepath.Join(dir, c.Expected))
			var wantSchema schema.Schema
			if strings.HasSuffix(c.Expected, ".json") {
				if err := wantSchema.UnmarshalJSON(want); err != nil {
					t.Fatal(err)
				}
			} else {
				if diff := cmp.Diff(withoutComments(want), string(FormatSchema(got))); diff != "" {
					t.Errorf("bytes differ (-want +got):\n%s", diff)
				}
				if err := wantSchema.UnmarshalCedar(want); err != nil {
					t.Fatal(err)
				}
			}
			gotSchema := schema.NewSchemaFromAST(got)
			if diff := cmp.Diff(resolve(t, &wantSchema), resolve(t, gotSchema), resolvedOptions); diff != "" {
				t.Errorf("resolved schemas differ (-want +got):\n%s", diff)
			}
		})
	}
}

var resolvedOptions = cmp.Options{cmpopts.EquateEmpty()}

func resolve(t *testing.T, s *schema.Schema) *resolved.Schema {
	t.Helper()
	r, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	// Upstream's JSON says of an action that applies to nothing that it does
	// so for no principal and no resource; Cedar syntax leaves it out.
	for uid, a := range r.Actions {
		if a.AppliesTo != nil && len(a.AppliesTo.Principals)+len(a.AppliesTo.Resources) == 0 {
			a.AppliesTo = nil
			r.Actions[uid] = a
		}
	}
	return r
}

func withoutComments(text []byte) string {
	var out []string
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "//") {
			out = append(out, line)
		}
	}
	return strings.Trim(strings.Join(out, "\n"), "\n") + "\n"
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readTools reads one tool, or the result of tools/list.
func readTools(t *testing.T, name string) []json.RawMessage {
	t.Helper()
	b := readFile(t, name)
	var list struct {
		Result *struct{ Tools []json.RawMessage }
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	if list.Result == nil {
		return []json.RawMessage{bytes.TrimSpace(b)}
	}
	return list.Result.Tools
}
