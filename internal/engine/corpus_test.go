package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// A corpusTest is one case of Cedar's integration tests.
type corpusTest struct {
	Schema   string `json:"schema"`
	Policies string `json:"policies"`
	Entities string `json:"entities"`
	Requests []struct {
		Description string          `json:"description"`
		Principal   types.EntityUID `json:"principal"`
		Action      types.EntityUID `json:"action"`
		Resource    types.EntityUID `json:"resource"`
		Context     types.Record    `json:"context"`
		Decision    types.Decision  `json:"decision"`
		Reason      []string        `json:"reason"`
		Errors      []string        `json:"errors"`
	} `json:"requests"`
}

// TestCorpus holds the engine to the answers of Cedar itself: the cases that
// Cedar's differential fuzzer made, as cedar-go ships them in its module.
func TestCorpus(t *testing.T) {
	t.Parallel()
	files := corpus(t)
	requests, slow := 0, 0
	for name, content := range files {
		if !strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".entities.json") {
			continue
		}
		var tt corpusTest
		if err := json.Unmarshal(content, &tt); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var s schema.Schema
		if err := s.UnmarshalCedar(files[tt.Schema]); err != nil {
			t.Fatalf("%s: schema: %v", name, err)
		}
		resolved, err := s.Resolve()
		if err != nil {
			t.Fatalf("%s: schema: %v", name, err)
		}
		var entities types.EntityMap
		if err := json.Unmarshal(files[tt.Entities], &entities); err != nil {
			t.Fatalf("%s: entities: %v", name, err)
		}
		p := compile(corpusPolicies(t, name, files[tt.Policies]), resolved)
		slow += len(p.code.slow)
		for _, r := range tt.Requests {
			requests++
			got := p.Authorize(&Request{Principal: r.Principal, Action: r.Action, Resource: r.Resource, Context: r.Context, Entities: entities})
			if got.CedarAllow() != bool(r.Decision) {
				t.Errorf("%s, %s: decision %v, Cedar says %v", name, r.Description, got.CedarAllow(), r.Decision)
			}
			if got.Allow && len(r.Errors) > 0 {
				t.Errorf("%s, %s: allowed although %v failed", name, r.Description, r.Errors)
			}
			if d := cmp.Diff(sortedIDs(r.Reason), ids(got.Determining)); d != "" {
				t.Errorf("%s, %s: determining policies (-Cedar +engine):\n%s", name, r.Description, d)
			}
			if d := cmp.Diff(sortedIDs(r.Errors), errorIDs(got.Errors)); d != "" {
				t.Errorf("%s, %s: errors (-Cedar +engine):\n%s", name, r.Description, d)
			}
		}
	}
	if requests < 60000 {
		t.Errorf("the corpus had %d requests, far fewer than cedar-go ships", requests)
	}
	t.Logf("%d requests; %d policies were left to cedar-go", requests, slow)
}

// corpusPolicies parses policies that have no @id, and names them as the
// corpus does.
func corpusPolicies(t *testing.T, name string, text []byte) []*policy.Policy {
	t.Helper()
	list, err := cedar.NewPolicyListFromBytes(name, text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	ps := make([]*policy.Policy, len(list))
	for i, p := range list {
		ps[i] = &policy.Policy{ID: fmt.Sprintf("policy%d", i), AST: (*ast.Policy)(p.AST())}
	}
	return sortPolicies(ps)
}

// corpus returns the files of the corpus by name.
func corpus(t *testing.T) map[string][]byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cedar-policy/cedar-go").Output()
	if err != nil {
		t.Fatalf("find cedar-go: %v", err)
	}
	archive, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "corpus-tests.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
