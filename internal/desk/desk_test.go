package desk

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// desk lays out files below a new directory, home in "home" and the project in
// "project".
func desk(t *testing.T, goos string, env map[string]string, files map[string]string) Desk {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Desk{
		Home: filepath.Join(root, "home"), Project: filepath.Join(root, "project"), OS: goos,
		Getenv: func(k string) string { return env[k] },
	}
}

func stdio(args string) string {
	return `{"mcpServers":{"files":{"command":"npx","args":["` + args + `"]}}}`
}

func TestEveryClientIsFound(t *testing.T) {
	for _, tt := range []struct{ name, goos, file, text string }{
		{"Claude Desktop", "linux", "home/.config/Claude/claude_desktop_config.json", stdio("fs")},
		{"Claude Desktop", "darwin", "home/Library/Application Support/Claude/claude_desktop_config.json", stdio("fs")},
		{"Claude Desktop", "windows", "home/AppData/Roaming/Claude/claude_desktop_config.json", stdio("fs")},
		{"Claude Code", "linux", "project/.mcp.json", stdio("fs")},
		{"Claude Code", "linux", "home/.claude.json", stdio("fs")},
		{"Cursor", "linux", "project/.cursor/mcp.json", stdio("fs")},
		{"Cursor", "linux", "home/.cursor/mcp.json", stdio("fs")},
		{"VS Code", "linux", "project/.vscode/mcp.json", `{
			// the team's servers
			"servers": {"files": {"type": "stdio", "command": "npx", "args": ["fs"],},}, /* no more */
			"inputs": [],
		}`},
		{"VS Code", "darwin", "home/Library/Application Support/Code/User/mcp.json", `{"servers":{"files":{"command":"npx","args":["fs"]}}}`},
		{"Windsurf", "linux", "home/.codeium/windsurf/mcp_config.json", stdio("fs")},
		{"Zed", "linux", "home/.config/zed/settings.json", `{"theme":"x","context_servers":{"files":{"command":{"path":"npx","args":["fs"]}}}}`},
		{"Zed", "darwin", "home/.config/zed/settings.json", `{"context_servers":{"files":{"source":"custom","command":"npx","args":["fs"]}}}`},
		{"Zed", "linux", "project/.zed/settings.json", `{"context_servers":{"files":{"command":"npx","args":["fs"]}}}`},
		{"Gemini CLI", "linux", "home/.gemini/settings.json", stdio("fs")},
		{"Gemini CLI", "linux", "project/.gemini/settings.json", stdio("fs")},
	} {
		t.Run(tt.name+" "+tt.goos, func(t *testing.T) {
			d := desk(t, tt.goos, nil, map[string]string{tt.file: tt.text})
			path := filepath.Join(filepath.Dir(d.Home), filepath.FromSlash(tt.file))
			files, servers := d.Servers(nil)
			if diff := cmp.Diff([]File{{Client: tt.name, Path: path}}, files); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			want := []Server{{Name: "files", Files: []string{path}, Command: "npx", Args: []string{"fs"}}}
			if strings.HasPrefix(tt.file, "project/") {
				want[0].Cwd = d.Project
			}
			if diff := cmp.Diff(want, servers); diff != "" {
				t.Errorf("servers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProjectServersOfClaudeCode(t *testing.T) {
	d := desk(t, "linux", nil, nil)
	doc, err := json.Marshal(map[string]any{"projects": map[string]any{
		d.Project:    json.RawMessage(stdio("mine")),
		"/elsewhere": json.RawMessage(stdio("theirs")),
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), ".claude.json")
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	_, got := d.Servers([]string{file})
	want := []Server{{Name: "files", Files: []string{file}, Command: "npx", Args: []string{"mine"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
}

func TestEntries(t *testing.T) {
	env := map[string]string{"TOKEN": "s3cret", "ROOT": "/srv"}
	for _, tt := range []struct {
		name, client, entry string
		want                Server
		skip                bool
	}{
		{name: "environment", entry: `{"command":"x","env":{"A":"${TOKEN}","B":"${env:ROOT}/b","C":"${NOPE:-c}","D":7}}`,
			want: Server{Command: "x", Env: map[string]string{"A": "s3cret", "B": "/srv/b", "C": "c", "D": "7"}}},
		{name: "folders", entry: `{"command":"${userHome}/x","args":["${workspaceFolder}"],"cwd":"${ROOT}"}`,
			want: Server{Command: "HOME/x", Args: []string{"PROJECT"}, Cwd: "/srv"}},
		{name: "asked for by the client", entry: `{"command":"x","env":{"A":"${input:key}"}}`,
			want: Server{Command: "x", Env: map[string]string{"A": "${input:key}"}, Problem: "the client fills in ${input:key}, which is not set here"}},
		{name: "dollar is only a dollar", entry: `{"command":"x","args":["$TOKEN"]}`,
			want: Server{Command: "x", Args: []string{"$TOKEN"}}},
		{name: "except for Gemini", client: ".gemini/settings.json", entry: `{"command":"x","args":["$TOKEN"]}`,
			want: Server{Command: "x", Args: []string{"s3cret"}}},
		{name: "http with a token", entry: `{"type":"http","url":"https://a.example/mcp","headers":{"authorization":"Bearer ${TOKEN}"}}`,
			want: Server{URL: "https://a.example/mcp", Token: "s3cret"}},
		{name: "Windsurf's word", entry: `{"serverUrl":"https://a.example/mcp"}`,
			want: Server{URL: "https://a.example/mcp"}},
		{name: "Gemini's word", client: ".gemini/settings.json", entry: `{"httpUrl":"https://a.example/mcp"}`,
			want: Server{URL: "https://a.example/mcp"}},
		{name: "the old transport", entry: `{"type":"sse","url":"https://a.example/sse"}`,
			want: Server{URL: "https://a.example/sse", Problem: "it speaks the old HTTP+SSE transport, which is not supported: ask its vendor for streamable HTTP"}},
		{name: "the old transport of Gemini", client: ".gemini/settings.json", entry: `{"url":"https://a.example/sse"}`,
			want: Server{URL: "https://a.example/sse", Problem: "it speaks the old HTTP+SSE transport, which is not supported: ask its vendor for streamable HTTP"}},
		{name: "another header", entry: `{"url":"https://a.example/mcp","headers":{"X-API-Key":"k"}}`,
			want: Server{URL: "https://a.example/mcp", Problem: "it wants the header X-API-Key; only a bearer token can be sent"}},
		{name: "bearer in another header", entry: `{"url":"https://a.example/mcp","headers":{"X-Token":"Bearer k"}}`,
			want: Server{URL: "https://a.example/mcp", Problem: "it wants the header X-Token; only a bearer token can be sent"}},
		{name: "basic authentication", entry: `{"url":"https://a.example/mcp","headers":{"Authorization":"Basic k"}}`,
			want: Server{URL: "https://a.example/mcp", Problem: "it wants the header Authorization; only a bearer token can be sent"}},
		{name: "environment file", entry: `{"command":"x","envFile":".env"}`,
			want: Server{Command: "x", Problem: "it takes its environment from .env: copy what it needs into env"}},
		{name: "nothing", entry: `{"type":"stdio"}`,
			want: Server{Problem: "it names neither a command nor a URL"}},
		{name: "command of another type", entry: `{"command":7}`,
			want: Server{Problem: "its command is neither a string nor an object"}},
		{name: "disabled", entry: `{"command":"x","disabled":true}`, skip: true},
		{name: "not enabled", entry: `{"command":"x","enabled":false}`, skip: true},
		{name: "Bailiwick itself", entry: `{"command":"/usr/bin/bailiwick","args":["run","--","x"]}`, skip: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := tt.client
			if client == "" {
				client = ".mcp.json"
			}
			d := desk(t, "linux", env, map[string]string{"project/" + client: `{"mcpServers":{"s":` + tt.entry + `}}`})
			_, got := d.Servers(nil)
			if tt.skip {
				if len(got) != 0 {
					t.Fatalf("servers = %+v, want none", got)
				}
				return
			}
			want := tt.want
			want.Name = "s"
			want.Files = []string{filepath.Join(d.Project, client)}
			if want.Command == "HOME/x" {
				want.Command, want.Args = d.Home+"/x", []string{d.Project}
			}
			if want.Command != "" && want.Cwd == "" {
				want.Cwd = d.Project
			}
			if diff := cmp.Diff([]Server{want}, got); diff != "" {
				t.Errorf("servers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOneServerOfTwoClientsIsOneServer(t *testing.T) {
	d := desk(t, "linux", nil, map[string]string{
		"project/.mcp.json":        `{"mcpServers":{"files":{"command":"npx","args":["fs"]},"a":{"command":"a"}}}`,
		"project/.cursor/mcp.json": `{"mcpServers":{"my files":{"command":"npx","args":["fs"]},"a":{"command":"other"}}}`,
	})
	_, got := d.Servers(nil)
	code, cursor := filepath.Join(d.Project, ".mcp.json"), filepath.Join(d.Project, ".cursor/mcp.json")
	want := []Server{
		{Name: "a", Files: []string{code}, Command: "a", Cwd: d.Project},
		{Name: "files", Files: []string{code, cursor}, Command: "npx", Args: []string{"fs"}, Cwd: d.Project},
		{Name: "a-2", Files: []string{cursor}, Command: "other", Cwd: d.Project},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
}

func TestAProjectInTheHomeDirectoryIsReadOnce(t *testing.T) {
	d := desk(t, "linux", nil, map[string]string{"home/.cursor/mcp.json": stdio("fs")})
	d.Project = d.Home
	files, servers := d.Servers(nil)
	if len(files) != 1 || len(servers) != 1 || len(servers[0].Files) != 1 {
		t.Errorf("files = %+v, servers = %+v; want one of each", files, servers)
	}
}

func TestNamesFitTheConfiguration(t *testing.T) {
	found := []Server{{Name: "io.github/files"}, {Name: "a__b"}, {Name: "mcp"}, {Name: "äöü"}, {Name: "_x_"}, {Name: "a b"}}
	giveNames(found)
	var got []string
	for _, s := range found {
		got = append(got, s.Name)
	}
	want := []string{"io-github-files", "a-b", "mcp-2", "server", "x", "a-b-2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestUnreadableFiles(t *testing.T) {
	d := desk(t, "linux", nil, map[string]string{"project/.mcp.json": `{"mcpServers":`})
	files, servers := d.Servers(nil)
	if len(servers) != 0 || len(files) != 1 || files[0].Error == "" {
		t.Errorf("files = %+v, servers = %+v; want the file with its error", files, servers)
	}
	missing := filepath.Join(d.Project, "nothing.json")
	files, _ = d.Servers([]string{missing})
	if len(files) != 1 || files[0].Path != missing || files[0].Error == "" {
		t.Errorf("files = %+v, want the named file with its error", files)
	}
}

func TestWithoutComments(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": "// no /* comment */"}`: `{"a": "// no /* comment */"}`,
		`{"a": "\"//"} // yes`:         `{"a": "\"//"} `,
		"{/*/ x\n*/\"a\":1}":           "{\n\"a\":1}",
		`[1, 2, ]`:                     `[1, 2  ]`,
		"[1, // one\n]":                "[1  \n]",
		`["a,]"]`:                      `["a,]"]`,
		`{"a":1,"b":[2,{"c":3,},],}`:   `{"a":1,"b":[2,{"c":3 } ] }`,
		`/* never ends`:                ``,
		`"never ends\`:                 `"never ends\`,
		`/`:                            `/`,
	} {
		if got := string(withoutComments([]byte(in))); got != want {
			t.Errorf("withoutComments(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzWithoutComments(f *testing.F) {
	for _, s := range []string{`{"a":[1,],}//x`, "/*\n*/", `"\`, `{"a":"\u0000"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		out := withoutComments(text)
		if json.Valid(text) {
			var before, after any
			if json.Unmarshal(text, &before) != nil {
				return // beyond what encoding/json holds
			}
			if err := json.Unmarshal(out, &after); err != nil {
				t.Fatalf("%q was JSON and became %q: %v", text, out, err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Fatalf("%q changed its meaning:\n%s", text, diff)
			}
		}
	})
}
