package bailiwick_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bailiwick-dev/bailiwick"

// A pkg is what go list says of one package.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path, Version string }
}

func list(t *testing.T, args ...string) map[string]pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Doc,Imports,Deps,Standard,Module"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs[p.ImportPath] = p
	}
}

// short is a package's name in ARCHITECTURE.md.
func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module+"/"), "internal/")
}

// product are the packages of the product: not its tests and benchmarks.
func product(t *testing.T) map[string]pkg {
	pkgs := list(t, "./...")
	maps.DeleteFunc(pkgs, func(path string, _ pkg) bool {
		return path == module || strings.HasPrefix(path, module+"/test/") || strings.HasPrefix(path, module+"/bench")
	})
	return pkgs
}

var arrowLine = regexp.MustCompile(`^(\d) ([a-z/]+) → (.*)$`)

// The list of arrows in ARCHITECTURE.md and the imports agree, both ways, and
// every arrow points to a lower level.
func TestArrows(t *testing.T) {
	file, err := os.Open("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	level, listed := map[string]string{}, map[string][]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		m := arrowLine.FindStringSubmatch(strings.Join(strings.Fields(lines.Text()), " "))
		if m == nil {
			continue
		}
		level[m[2]] = m[1]
		listed[m[2]] = nil
		if m[3] != "∅" {
			listed[m[2]] = slices.Sorted(slices.Values(strings.Fields(m[3])))
		}
	}
	found := map[string][]string{}
	for path, p := range product(t) {
		var ours []string
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module+"/") {
				ours = append(ours, short(i))
			}
		}
		slices.Sort(ours)
		found[short(path)] = ours
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		arrows, ok := listed[name]
		if !ok {
			t.Errorf("package %s is not in ARCHITECTURE.md", name)
			continue
		}
		for _, a := range found[name] {
			if !slices.Contains(arrows, a) {
				t.Errorf("%s imports %s, which ARCHITECTURE.md does not allow", name, a)
			}
		}
		for _, a := range arrows {
			if !slices.Contains(found[name], a) {
				t.Errorf("ARCHITECTURE.md lists %s → %s, which is not imported", name, a)
			}
			if level[a] >= level[name] {
				t.Errorf("%s (level %s) → %s (level %s) does not point down", name, level[name], a, level[a])
			}
		}
	}
	for name := range listed {
		if _, ok := found[name]; !ok {
			t.Errorf("ARCHITECTURE.md lists %s, which does not exist", name)
		}
	}
}

// Pure packages read no clock, file, network, environment or randomness: that
// is what makes a decision replayable.
func TestPurePackages(t *testing.T) {
	impure := []string{"os", "net", "net/http", "io/ioutil", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "syscall", "database/sql"}
	pkgs := product(t)
	for _, name := range []string{"authz", "internal/policy", "internal/engine", "internal/catalog", "internal/typed", "internal/ijson", "internal/coaz", "internal/provenance", "internal/risk"} {
		for _, i := range pkgs[module+"/"+name].Imports {
			if slices.Contains(impure, i) {
				t.Errorf("%s is pure and may not import %s", name, i)
			}
		}
	}
}

// The gates run in front of a PDP that may be in another process.
func TestGatesDoNotKnowThePDP(t *testing.T) {
	for path, p := range product(t) {
		if !strings.HasPrefix(path, module+"/internal/pep") {
			continue
		}
		for _, d := range p.Deps {
			if d == module+"/internal/pdp" || d == module+"/internal/store" {
				t.Errorf("%s reaches %s", path, d)
			}
		}
	}
}

var banned = regexp.MustCompile(`(^|/)(util|utils|common|helper|helpers|base|manager|service|impl|types|misc)$`)

// Every package says in one sentence what it is.
func TestPackageSentences(t *testing.T) {
	for path, p := range list(t, "./...") {
		if banned.MatchString(path) {
			t.Errorf("%s: a package is named for its noun", path)
		}
		if path == module || strings.HasPrefix(path, module+"/test") || strings.HasPrefix(path, module+"/bench") {
			continue
		}
		name := path[strings.LastIndex(path, "/")+1:]
		if !strings.HasPrefix(p.Doc, "Package "+name+" ") && !strings.HasPrefix(p.Doc, "Command "+name+" ") {
			t.Errorf("%s: the package comment is %q, not a sentence about it", path, p.Doc)
		}
	}
}

// DEPS.txt lists the modules in the binary, so that a new one is seen in
// review. UPDATE_DEPS=1 go test -run DependencyList . writes it.
func TestDependencyList(t *testing.T) {
	modules := map[string]bool{}
	for _, p := range list(t, "-deps", "./cmd/bailiwick") {
		if p.Module != nil && p.Module.Path != module {
			modules[p.Module.Path+" "+p.Module.Version] = true
		}
	}
	want := strings.Join(slices.Sorted(maps.Keys(modules)), "\n") + "\n"
	if os.Getenv("UPDATE_DEPS") != "" {
		if err := os.WriteFile("DEPS.txt", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("DEPS.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Errorf("DEPS.txt is not what the binary holds: review the change and write it again (UPDATE_DEPS=1 go test -run DependencyList .).\nhave:\n%s\nwant:\n%s", have, want)
	}
}

var testName = regexp.MustCompile(`\bTest[A-Z]\w*`)

// THREATS.md claims nothing without a test: each one that it names exists.
func TestThreatsNameTests(t *testing.T) {
	text, err := os.ReadFile("THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "node_modules":
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		for _, name := range testName.FindAllString(string(src), -1) {
			there[name] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := testName.FindAllString(string(text), -1)
	if len(names) < 20 {
		t.Fatalf("only %d tests found in THREATS.md", len(names))
	}
	for _, name := range names {
		if !there[name] {
			t.Errorf("THREATS.md names %s, which does not exist", name)
		}
	}
}

// The public API changes only together with testdata/api.txt, which
// go doc -all ./authz writes.
func TestPublicAPI(t *testing.T) {
	have, err := exec.Command("go", "doc", "-all", "./authz").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/api.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(want) {
		t.Error("the API of authz has changed: review the change and run 'go doc -all ./authz > testdata/api.txt'")
	}
}
