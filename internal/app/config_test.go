package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), DefaultConfigFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfigDefaults(t *testing.T) {
	file := writeConfig(t, "upstreams:\n  notes: {command: node, args: [server.js]}\n")
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	want := &Config{
		Mode: "enforce", Node: "bailiwick.local/log", Listen: "127.0.0.1:7430",
		Data: filepath.Join(dir, ".bailiwick"), Policies: filepath.Join(dir, "policies"),
		Catalog: filepath.Join(dir, "catalog.yaml"), Lock: filepath.Join(dir, "catalog.lock.json"),
		Agents: filepath.Join(dir, "agents.yaml"), Schema: filepath.Join(dir, "schema.cedarschema"),
		Upstreams: map[string]Upstream{"notes": {Command: "node", Args: []string{"server.js"}, Cwd: dir}},
		dir:       dir,
	}
	if d := cmp.Diff(want, c, cmp.AllowUnexported(Config{})); d != "" {
		t.Error(d)
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, says string }{
		{"unknown key", "moode: enforce\n", "moode"},
		{"unknown mode", "mode: relaxed\n", "relaxed"},
		{"unknown key of an upstream", "upstreams:\n  a: {command: x, shell: true}\n", "shell"},
		{"half of a key pair", "tls: {cert: a.pem}\n", "belong together"},
		{"a level that everybody has", "issuers:\n  - {issuer: 'https://a.example', audience: b, levels: {x: 1}}\n", "begin at 2"},
		{"no address for metrics", "telemetry: {metrics: here}\n", "telemetry: metrics"},
		{"less than no decision", "max_in_flight: -1\n", "max_in_flight"},
		{"an unknown database", "entities:\n  sql:\n    - {driver: oracle}\n", "oracle"},
		{"neither command nor url", "upstreams:\n  a: {}\n", "either a command or a url"},
		{"both command and url", "upstreams:\n  a: {command: x, url: 'http://h/'}\n", "either a command or a url"},
		{"url of another scheme", "upstreams:\n  a: {url: 'file:///etc/passwd'}\n", "http(s)"},
		{"separator in a name", "upstreams:\n  a__b: {command: x}\n", "__"},
		{"slash in a name", "upstreams:\n  a/b: {command: x}\n", "not a server name"},
		{"name of the protocol", "upstreams:\n  mcp: {command: x}\n", "taken"},
		{"issuer in clear", "issuers:\n  - {issuer: 'http://idp.example', audience: x}\n", "https"},
		{"issuer without audience", "issuers:\n  - {issuer: 'https://idp.example'}\n", "audience"},
		{"listen without a port", "listen: localhost\n", "listen"},
		{"anonymous on the network", "listen: 0.0.0.0:7430\nanonymous: guest\n", "anonymous"},
		{"space in the node", "node: my log\n", "node"},
		{"not yaml", "mode: [", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := LoadConfig(writeConfig(t, tt.text))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
		})
	}
}

func TestMissingConfigSaysWhatToDo(t *testing.T) {
	_, err := LoadConfig(filepath.Join(t.TempDir(), "nothing.yaml"))
	if err == nil || !strings.Contains(err.Error(), "bailiwick init") {
		t.Errorf("got %v", err)
	}
}

func TestAddAgentKeepsComments(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Agents: filepath.Join(dir, "agents.yaml")}
	if err := os.WriteFile(c.Agents, []byte("# who may come in\nagents:\n  - id: first # the old one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := AddAgent(c, Agent{ID: "second", Groups: []string{"staff"}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := ListAgents(c)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]AgentInfo{{ID: "first", State: "active"}, {ID: "second", Groups: []string{"staff"}, State: "active", HasKey: true}}, list, cmpopts.IgnoreFields(AgentInfo{}, "Credentials")); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile(c.Agents)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "# the old one") || strings.Contains(string(text), key) {
		t.Errorf("the file is now\n%s", text)
	}
	if _, err := AddAgent(c, Agent{ID: "second"}); err == nil {
		t.Error("the same agent twice")
	}
	empty := &Config{Agents: filepath.Join(dir, "new.yaml")}
	if _, err := AddAgent(empty, Agent{ID: "only"}); err != nil {
		t.Fatal(err)
	}
	flow := &Config{Agents: filepath.Join(dir, "flow.yaml")}
	if err := os.WriteFile(flow.Agents, []byte("agents: [{id: a}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AddAgent(flow, Agent{ID: "b"}); err == nil {
		t.Error("appended to a list in one line")
	}
}
