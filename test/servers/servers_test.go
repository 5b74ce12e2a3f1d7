// Package servers puts the gateway between real MCP servers and real clients:
// the reference servers from npm, the Inspector, and the Go SDK.
package servers

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// policies let an agent read files, write notes, remember things, and use two
// of the tools of the everything server.
const policies = `@id("look-around")
permit (principal, action in Action::"discover", resource);

@id("read-files")
permit (principal, action in [Action::"files/read_text_file", Action::"files/list_directory"], resource);

@id("write-notes")
permit (principal, action == Action::"files/write_file", resource)
when { context.input.path like "*/notes/*" };

@id("remember")
permit (principal, action in [Action::"memory/create_entities", Action::"memory/read_graph"], resource);

@id("harmless")
permit (principal, action in [Action::"everything/echo", Action::"everything/get-sum"], resource);

@id("one-prompt")
permit (principal, action == Action::"mcp:prompts/get", resource == McpPrompt::"everything/simple-prompt");

@id("documents")
permit (principal, action == Action::"mcp:resources/read", resource in Server::"everything");

@id("but-one")
forbid (principal, action == Action::"mcp:resources/read", resource == McpResource::"everything/demo://resource/static/document/startup.md");
`

// A site is the three servers behind a deployment, and what they work on.
type site struct {
	*rig.Deployment
	root   string // of the filesystem server
	memory string // the memory server's file
}

// secret is in the environment of the everything server, which has a tool
// that prints it.
const secret = "hunter2-from-the-environment"

func newSite(t *testing.T) *site {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"seed.txt": "seed", "notes/first.txt": "first"} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	memory := filepath.Join(t.TempDir(), "memory.jsonl")
	node := func(script string, args ...string) []string {
		bin, err := rig.Node()
		if err != nil {
			t.Fatal(err)
		}
		script, err = rig.Script("@modelcontextprotocol/" + script)
		if err != nil {
			t.Fatal(err)
		}
		return append([]string{bin, script}, args...)
	}
	files := node("server-filesystem/dist/index.js", root)
	graph := node("server-memory/dist/index.js")
	everything := node("server-everything/dist/index.js")
	d := rig.Deploy(t, rig.Setup{
		Policies: policies,
		Upstreams: map[string]rig.Upstream{
			"files":      {Command: files[0], Args: files[1:]},
			"memory":     {Command: graph[0], Args: graph[1:], Env: map[string]string{"MEMORY_FILE_PATH": memory}},
			"everything": {Command: everything[0], Args: everything[1:], Env: map[string]string{"SECRET": secret}},
		},
		Race: true,
	})
	d.Pin(t)
	return &site{d, root, memory}
}

// command is a server wrapped by bailiwick run, as a desktop client starts it.
func (s *site) command(t *testing.T, server string) rig.Endpoint {
	t.Helper()
	var c struct{ Upstreams map[string]rig.Upstream }
	text, err := os.ReadFile(filepath.Join(s.Dir, "bailiwick.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	up := c.Upstreams[server]
	cmd := s.Command(append([]string{"run", "--agent", rig.Agent, "--server", server, "--", up.Command}, up.Args...)...)
	return rig.Endpoint{Command: cmd.Args}
}

// clients are the real clients, by the names of the tests.
func clients(t *testing.T, e rig.Endpoint) map[string]func(*testing.T) rig.Client {
	t.Helper()
	return map[string]func(*testing.T) rig.Client{
		"sdk 2025-11-25":   func(t *testing.T) rig.Client { return rig.DialSDK(t, e, "2025-11-25") },
		"sdk 2026-07-28":   func(t *testing.T) rig.Client { return rig.DialSDK(t, e, "2026-07-28") },
		"inspector legacy": func(t *testing.T) rig.Client { return rig.NewInspector(t, e, "legacy") },
		"inspector modern": func(t *testing.T) rig.Client { return rig.NewInspector(t, e, "modern") },
	}
}

func TestServersBehindServe(t *testing.T) {
	rig.EndToEnd(t)
	s := newSite(t)
	s.Serve(t)
	for _, server := range []struct {
		name  string
		tools []string
		use   func(*testing.T, *site, rig.Client)
	}{
		{"files", []string{"list_directory", "read_text_file", "write_file"}, useFiles},
		{"memory", []string{"create_entities", "read_graph"}, useMemory},
		{"everything", []string{"echo", "get-sum"}, useEverything},
	} {
		for name, dial := range clients(t, rig.Endpoint{URL: s.Endpoint(server.name), Token: s.Key}) {
			t.Run(server.name+" "+name, func(t *testing.T) {
				c := dial(t)
				checkTools(t, c, server.tools)
				server.use(t, s, c)
			})
		}
	}
	t.Run("all servers at one endpoint", func(t *testing.T) {
		c := rig.DialSDK(t, rig.Endpoint{URL: "http://" + s.Addr + "/mcp", Token: s.Key}, "2026-07-28")
		checkTools(t, c, []string{
			"everything__echo", "everything__get-sum",
			"files__list_directory", "files__read_text_file", "files__write_file",
			"memory__create_entities", "memory__read_graph",
		})
		if got := call(t, c, "everything__echo", map[string]any{"message": "hi"}); got.Error || !strings.Contains(got.Text, "hi") {
			t.Errorf("echo answered %+v", got)
		}
	})
}

func TestServersBehindRun(t *testing.T) {
	rig.EndToEnd(t)
	s := newSite(t)
	for name, dial := range clients(t, s.command(t, "files")) {
		t.Run("files "+name, func(t *testing.T) {
			c := dial(t)
			checkTools(t, c, []string{"list_directory", "read_text_file", "write_file"})
			useFiles(t, s, c)
		})
	}
	t.Run("memory", func(t *testing.T) {
		c := rig.DialSDK(t, s.command(t, "memory"), "2025-11-25")
		checkTools(t, c, []string{"create_entities", "read_graph"})
		useMemory(t, s, c)
	})
	t.Run("everything", func(t *testing.T) {
		c := rig.DialSDK(t, s.command(t, "everything"), "2026-07-28")
		checkTools(t, c, []string{"echo", "get-sum"})
		useEverything(t, s, c)
	})
}

func useFiles(t *testing.T, s *site, c rig.Client) {
	if got := call(t, c, "read_text_file", map[string]any{"path": filepath.Join(s.root, "seed.txt")}); got.Error || got.Text != "seed" {
		t.Errorf("reading the seed answered %+v", got)
	}

	note := filepath.Join(s.root, "notes", strings.ReplaceAll(t.Name(), "/", "_"))
	if got := call(t, c, "write_file", map[string]any{"path": note, "content": "noted"}); got.Error {
		t.Errorf("writing a note answered %+v", got)
	}
	if text, err := os.ReadFile(note); err != nil || string(text) != "noted" {
		t.Errorf("the note holds %q, %v", text, err)
	}

	// Denied by its arguments.
	stolen := filepath.Join(s.root, "elsewhere.txt")
	got := call(t, c, "write_file", map[string]any{"path": stolen, "content": "no"})
	checkDenied(t, got, "no_permit")
	if _, err := os.Stat(stolen); err == nil {
		t.Error("the denied file was written")
	}

	// Denied whatever the arguments. The Inspector looks a tool up in the list
	// first and does not find it.
	seed := filepath.Join(s.root, "seed.txt")
	got = call(t, c, "move_file", map[string]any{"source": seed, "destination": seed + ".moved"})
	checkRefused(t, c, got, "no_permit")
	if _, err := os.Stat(seed); err != nil {
		t.Errorf("the seed is gone: %v", err)
	}
}

func useMemory(t *testing.T, s *site, c rig.Client) {
	entity := "entity of " + t.Name()
	got := call(t, c, "create_entities", map[string]any{"entities": []any{
		map[string]any{"name": entity, "entityType": "test", "observations": []any{"seen"}},
	}})
	if got.Error {
		t.Errorf("remembering answered %+v", got)
	}
	checkRefused(t, c, call(t, c, "delete_entities", map[string]any{"entityNames": []any{entity}}), "no_permit")
	if got := call(t, c, "read_graph", map[string]any{}); got.Error || !strings.Contains(got.Text, entity) {
		t.Errorf("%q is not remembered: %+v", entity, got)
	}
	text, err := os.ReadFile(s.memory)
	if err != nil || !strings.Contains(string(text), entity) {
		t.Errorf("%q is not in the server's file: %v\n%s", entity, err, text)
	}
}

func useEverything(t *testing.T, _ *site, c rig.Client) {
	if got := call(t, c, "echo", map[string]any{"message": "hello"}); got.Error || !strings.Contains(got.Text, "hello") {
		t.Errorf("echo answered %+v", got)
	}
	if got := call(t, c, "get-sum", map[string]any{"a": 2, "b": 40}); got.Error || !strings.Contains(got.Text, "42") {
		t.Errorf("get-sum answered %+v", got)
	}
	got := call(t, c, "get-env", map[string]any{})
	checkRefused(t, c, got, "no_permit")
	if strings.Contains(got.Text, secret) {
		t.Error("the environment of the server was shown")
	}
}

// Resources and prompts are filtered and decided as tools are.
func TestResourcesAndPromptsAreDecided(t *testing.T) {
	rig.EndToEnd(t)
	s := newSite(t)
	s.Serve(t)
	const secretDocument = "demo://resource/static/document/startup.md"
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(revision, func(t *testing.T) {
			ctx := t.Context()
			c := rig.DialSDK(t, rig.Endpoint{URL: s.Endpoint("everything"), Token: s.Key}, revision).Session
			var prompts []string
			for p, err := range c.Prompts(ctx, nil) {
				if err != nil {
					t.Fatal(err)
				}
				prompts = append(prompts, p.Name)
			}
			if diff := cmp.Diff([]string{"simple-prompt"}, prompts); diff != "" {
				t.Errorf("prompts (-want +got):\n%s", diff)
			}
			if _, err := c.GetPrompt(ctx, &mcp.GetPromptParams{Name: "simple-prompt"}); err != nil {
				t.Errorf("the permitted prompt: %v", err)
			}
			if _, err := c.GetPrompt(ctx, &mcp.GetPromptParams{Name: "args-prompt", Arguments: map[string]string{"city": "Bonn"}}); err == nil {
				t.Error("a prompt that is not permitted was given")
			}
			var documents []string
			for r, err := range c.Resources(ctx, nil) {
				if err != nil {
					t.Fatal(err)
				}
				documents = append(documents, r.URI)
			}
			if len(documents) == 0 || slices.Contains(documents, secretDocument) {
				t.Fatalf("documents %q, want some, without %s", documents, secretDocument)
			}
			if _, err := c.ReadResource(ctx, &mcp.ReadResourceParams{URI: documents[0]}); err != nil {
				t.Errorf("a permitted document: %v", err)
			}
			if _, err := c.ReadResource(ctx, &mcp.ReadResourceParams{URI: secretDocument}); err == nil {
				t.Error("the forbidden document was read")
			}
		})
	}
}

func checkTools(t *testing.T, c rig.Client, want []string) {
	t.Helper()
	got, err := c.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tools (-want +got):\n%s", diff)
	}
}

func call(t *testing.T, c rig.Client, tool string, args map[string]any) rig.Answer {
	t.Helper()
	got, err := c.Call(t.Context(), tool, args)
	if err != nil {
		t.Fatalf("call %s: %v", tool, err)
	}
	return got
}

// checkDenied wants a denial that an agent can read and a program can tell.
func checkDenied(t *testing.T, got rig.Answer, reason string) {
	t.Helper()
	if !got.Error || got.Reason != reason || got.Text == "" {
		t.Errorf("got %+v, want a denial for %s with a sentence", got, reason)
	}
	for _, leak := range []string{"permit (", "principal", "when {", "write-notes"} {
		if strings.Contains(got.Text, leak) {
			t.Errorf("the denial shows policy (%q): %s", leak, got.Text)
		}
	}
}

// checkRefused wants a denial, or that the client itself did not find the tool
// in the filtered list.
func checkRefused(t *testing.T, c rig.Client, got rig.Answer, reason string) {
	t.Helper()
	if _, ok := c.(*rig.Inspector); !ok {
		checkDenied(t, got, reason)
	} else if !got.Error {
		t.Errorf("got %+v, want a refusal", got)
	}
}
