package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/google/go-cmp/cmp"
)

// FuzzNew looks for text that ends the process, and for text that we read
// differently from cedar-go: what a person checked must be what runs.
func FuzzNew(f *testing.F) {
	for _, seed := range []string{
		"", ";", "permit (principal, action, resource);", "@id(\"a\") forbid (principal, action, resource) when { -1 < 2 };",
		"/* ; */ permit (principal, action, resource) when { \"\\\";\" like \"*\" }; // ;\npermit (principal is A in A::\"b\", action, resource);",
		"@id(\"x\")permit(principal,action in[Action::\"bank/balance\"],resource)unless{context has input.a.b};",
		"permit (principal == ?principal, action, resource);", "((((", "if if if", "!!!--", "\"\\u{1F600}\\x41\\*\"", "a::b::\"c\"", "/*/", "//",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := New(Config{Schema: []byte(testSchema), Policies: []Source{{File: "a.cedar", Text: text}}})
		if (set == nil) == (err == nil) {
			t.Fatalf("set %v, error %v", set, err)
		}
		again, errAgain := New(Config{Schema: []byte(testSchema), Policies: []Source{{File: "a.cedar", Text: text}}})
		if (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() || err == nil && set.Digest() != again.Digest() {
			t.Fatalf("read twice: %v, then %v", err, errAgain)
		}
		compareWithCedar(t, text)
	})
}

// compareWithCedar compares what we read, policy by policy, with what cedar-go
// reads at one go.
func compareWithCedar(t *testing.T, text []byte) {
	t.Helper()
	parsed, problems := parse(Source{File: "a.cedar", Text: text})
	for _, p := range problems {
		if strings.Contains(p.Message, "split") || strings.Contains(p.Message, "unknown annotation") {
			return // cedar-go has no such limits, and must not be tried
		}
	}
	list, err := cedar.NewPolicyListFromBytes("a.cedar", text)
	if (err == nil) != (len(problems) == 0) {
		t.Fatalf("cedar-go: %v; we: %v", err, problems)
	}
	if err != nil {
		return
	}
	if len(list) != len(parsed) {
		t.Fatalf("cedar-go reads %d policies, we %d", len(list), len(parsed))
	}
	for i, p := range list {
		want, got := (*ast.Policy)(p.AST()), parsed[i].policy.AST
		if d := cmp.Diff(p.MarshalCedar(), cedar.NewPolicyFromAST((*cedarast.Policy)(got)).MarshalCedar()); d != "" {
			t.Fatalf("policy %d (-cedar-go +we):\n%s", i, d)
		}
		if want.Position != got.Position {
			t.Fatalf("policy %d is at %+v, not at %+v", i, want.Position, got.Position)
		}
	}
}

// FuzzSchema looks for schema text that ends the process: part of it comes
// from servers.
func FuzzSchema(f *testing.F) {
	for _, seed := range []string{testSchema, "", "entity A { a: Set<Set<Long>> };", "namespace A { entity B; }", "type T = { \"a\"?: T };", "entity A in A tags Long;"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		schema, problems := parseSchema(text)
		if (schema == nil) != (len(problems) > 0) {
			t.Fatalf("schema %v, problems %v", schema, problems)
		}
	})
}

// TestCorpusIsRead reads all policies and schemas that cedar-go ships: the
// caps and the token scan must not stand in the way of Cedar.
func TestCorpusIsRead(t *testing.T) {
	t.Parallel()
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
	files := 0
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		switch filepath.Ext(h.Name) {
		case ".cedar":
			files++
			_, problems := parse(Source{File: h.Name, Text: text})
			for _, p := range problems {
				if !strings.Contains(p.Message, "unknown annotation") {
					t.Errorf("%v\n%s", p, text)
				}
			}
			compareWithCedar(t, text)
		case ".cedarschema":
			if _, problems := parseSchema(text); len(problems) > 0 {
				t.Errorf("%s: %v", h.Name, problems)
			}
		}
	}
	if files < 5000 {
		t.Errorf("the corpus had %d files of policies only", files)
	}
}
