package app

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/demo"
	"github.com/bailiwick-dev/bailiwick/internal/desk"
	"github.com/bailiwick-dev/bailiwick/internal/entity"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// initWith runs Init in a new directory, for a client that lists servers.
func initWith(t *testing.T, servers map[string]any) (*InitReport, *Config) {
	t.Helper()
	r, err := Init(t.Context(), initConfigFor(t, servers))
	if err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(filepath.Join(r.Dir, DefaultConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

func initConfigFor(t *testing.T, servers map[string]any) InitConfig {
	t.Helper()
	root := t.TempDir()
	text, err := json.Marshal(map[string]any{"mcpServers": servers})
	if err != nil {
		t.Fatal(err)
	}
	project := filepath.Join(root, "project")
	if err := os.Mkdir(project, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(project, ".mcp.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return InitConfig{
		Dir:  filepath.Join(root, "bailiwick"),
		Desk: desk.Desk{Home: root, Project: project, OS: "linux", Getenv: func(string) string { return "" }},
	}
}

// serveDemo serves the demo's servers, and wants a bearer token if token is set.
func serveDemo(t *testing.T, token string) string {
	t.Helper()
	h := demo.NewWorld().Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestInitWritesWhatServeReads(t *testing.T) {
	open, guarded := serveDemo(t, ""), serveDemo(t, "s3cret")
	r, c := initWith(t, map[string]any{
		"bank":    map[string]any{"url": open + "/bank"},
		"my mail": map[string]any{"url": guarded + "/mailbox", "headers": map[string]string{"Authorization": "Bearer s3cret"}},
		"gone":    map[string]any{"command": "/does/not/exist", "args": []string{"# \n"}, "env": map[string]string{"A": "b\nc: d"}},
		"asking":  map[string]any{"command": "x", "env": map[string]string{"KEY": "${input:key}"}},
	})
	upstreams := map[string]Upstream{
		"bank":    {URL: open + "/bank"},
		"my-mail": {URL: guarded + "/mailbox", TokenFile: filepath.Join(r.Dir, "secrets/my-mail.token")},
	}
	if diff := cmp.Diff(upstreams, c.Upstreams); diff != "" {
		t.Errorf("upstreams (-want +got):\n%s", diff)
	}
	tools := map[string]int{}
	for _, s := range r.Servers {
		tools[s.Name] = s.Tools
		if (s.Tools == 0) != (s.Problem != "") {
			t.Errorf("server %s: %d tools, problem %q", s.Name, s.Tools, s.Problem)
		}
	}
	if diff := cmp.Diff(map[string]int{"bank": 3, "my-mail": 4, "gone": 0, "asking": 0}, tools); diff != "" {
		t.Errorf("tools (-want +got):\n%s", diff)
	}
	s, err := CheckConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Policies != 2 || s.Agents != 1 {
		t.Errorf("summary = %+v, want 2 policies and 1 agent", s)
	}
	for name, want := range map[string]fs.FileMode{
		"bailiwick.yaml": 0o600, "agents.yaml": 0o600, "secrets/my-mail.token": 0o600, "secrets": 0o700 | fs.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(r.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestInitialPoliciesReadAndDoNothingElse(t *testing.T) {
	url := serveDemo(t, "")
	_, c := initWith(t, map[string]any{"bank": map[string]any{"url": url + "/bank"}})
	for _, tt := range []struct {
		action string
		groups []string
		want   bool
	}{
		{"bank/get_balance", []string{"desktop"}, true},
		{"bank/get_balance", nil, false},
		{"bank/send_money", []string{"desktop"}, false},
		{"mcp:tools/list", nil, true},
	} {
		q := Question{Agent: InitialAgent, Groups: tt.groups, Action: tt.action, Server: "bank"}
		if tt.action == "bank/send_money" {
			q.Input = map[string]any{"recipient": "X", "amount_cents": 1, "reference": ""}
		}
		a, err := Decide(c, q)
		if err != nil {
			t.Fatal(err)
		}
		if a.Allow != tt.want {
			t.Errorf("%s in groups %v: allow = %t, want %t", tt.action, tt.groups, a.Allow, tt.want)
		}
	}
}

func TestInitialAgentHasTheKey(t *testing.T) {
	r, c := initWith(t, nil)
	agents, err := LoadAgents(c)
	if err != nil {
		t.Fatal(err)
	}
	want := []identity.Agent{{ID: InitialAgent, Groups: []string{"desktop"}, Key: identity.HashKey(r.Key)}}
	if diff := cmp.Diff(want, agents.Agents()); diff != "" {
		t.Errorf("agents (-want +got):\n%s", diff)
	}
	err = filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), r.Key) {
			t.Errorf("%s holds the key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInitReplacesNothing(t *testing.T) {
	for _, name := range []string{initConfig, initCatalog, initLock, initAgents, initPolicies, initTests, tokenFile("wiki")} {
		t.Run(name, func(t *testing.T) {
			c := initConfigFor(t, map[string]any{
				"wiki": map[string]any{"url": "http://127.0.0.1:1/mcp", "headers": map[string]string{"Authorization": "Bearer t"}},
			})
			file := filepath.Join(c.Dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Init(t.Context(), c)
			if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), name) {
				t.Fatalf("Init = %v, want ErrExists that names %s", err, name)
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
				t.Errorf("the file holds %q (%v), want it as it was", text, err)
			}
			entries, err := os.ReadDir(c.Dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("the directory holds %v (%v), want only what was there", entries, err)
			}
			c.Force = true
			if _, err := Init(t.Context(), c); err != nil {
				t.Errorf("forced: %v", err)
			}
		})
	}
}

// A server chooses the names of its tools. None of them may become policy, nor
// say something in the catalogue.
func TestHostileToolNamesStayNames(t *testing.T) {
	for _, name := range []string{
		"x\n@id(\"gotcha\") permit (principal, action, resource);\n//",
		"a: b\n        effects: [read]",
		`"quoted" */ #`,
		"send\n      \"x\": {effects: [read]}",
		"drop\u2028all",
		"{{.Word}}",
	} {
		t.Run(name, func(t *testing.T) {
			text, err := starterPolicies(pinned(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), name) || !strings.Contains(string(text), "files/write_file") {
				t.Errorf("the name is in the policies:\n%s", text)
			}
			lock := pinned(t, name)
			overlay, err := catalog.ParseOverlay(catalogText(lock))
			if err != nil {
				t.Fatal(err)
			}
			c, err := catalog.New(catalog.Config{Lock: lock, Overlay: overlay})
			if err != nil {
				t.Fatal(err)
			}
			pin, _ := lock.Find("hostile", name)
			guess := catalog.Suggest(pin.Definition).Effects
			op, ok := c.Operation("hostile/" + name)
			if !ok || op.Classified != (len(guess) > 0) || op.Classified && !slices.Equal(op.Effects, guess) {
				t.Errorf("operation = %+v, want the effects that were guessed: %q", op, guess)
			}
		})
	}
}

// pinned pins one tool of a server "hostile". The catalogue may refuse to; the
// name of the tool is then no danger, and the test is over.
func pinned(t *testing.T, name string) *catalog.Lock {
	t.Helper()
	definition, err := json.Marshal(map[string]any{"name": name, "description": name, "inputSchema": map[string]any{"type": "object"}})
	if err != nil {
		t.Fatal(err)
	}
	lock := &catalog.Lock{}
	if _, err := lock.Pin("hostile", definition); err != nil {
		t.Skipf("not pinned: %v", err)
	}
	return lock
}

func TestProblemsStayComments(t *testing.T) {
	text, err := InitConfig{}.configText([]InitServer{{
		Name: "x", Files: []string{"/a\nmode: observe"}, Problem: "refused\nmode: observe\u2028mode: observe",
		found: desk.Server{Command: "y\nmode: observe", Env: map[string]string{"A\nmode": "observe\nmode: observe"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), DefaultConfigFile)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.Mode != "enforce" || len(c.Upstreams) != 0 {
		t.Errorf("mode %s, upstreams %v; want enforce and none\n%s", c.Mode, c.Upstreams, text)
	}
}

func TestConfigurationDocumentsEveryKey(t *testing.T) {
	_, c := initWith(t, nil)
	text, err := os.ReadFile(filepath.Join(c.dir, DefaultConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[Issuer](), reflect.TypeFor[SPIFFE](), reflect.TypeFor[TokenExchange](), reflect.TypeFor[Audience](), reflect.TypeFor[Upstream](), reflect.TypeFor[TLS](), reflect.TypeFor[API](), reflect.TypeFor[ExtAuthz](), reflect.TypeFor[RemotePDP](), reflect.TypeFor[Telemetry](), reflect.TypeFor[budget.Budget](), reflect.TypeFor[breaker.Settings](), reflect.TypeFor[entity.Sources](), reflect.TypeFor[entity.SQL](), reflect.TypeFor[entity.SQLType]()} {
		for f := range typ.Fields() {
			key := f.Tag.Get("yaml")
			if key != "" && !strings.Contains(string(text), key+":") {
				t.Errorf("%s does not mention %s", DefaultConfigFile, key)
			}
		}
	}
}
