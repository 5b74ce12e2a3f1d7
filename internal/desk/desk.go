// Package desk finds the MCP servers that the clients on somebody's desk use.
//
// It reads the clients' own files and changes none of them.
package desk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// gemini is the client whose files differ from the others' in more than names.
const gemini = "Gemini CLI"

// A Desk is the machine and account on which MCP clients are looked for.
type Desk struct {
	// Home is the account's home directory, and Project the directory whose own
	// client files count too.
	Home, Project string
	// OS is a runtime.GOOS.
	OS string
	// Getenv reads the environment, which client files may refer to.
	Getenv func(string) string
}

// Here is the running process's own account, with a project directory.
func Here(project string) (Desk, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return Desk{}, fmt.Errorf("find the home directory: %w", err)
	}
	project, err = filepath.Abs(project)
	if err != nil {
		return Desk{}, fmt.Errorf("find the project directory: %w", err)
	}
	return Desk{Home: home, Project: project, OS: runtime.GOOS, Getenv: os.Getenv}, nil
}

// A File is a configuration file in which an MCP client lists servers.
type File struct {
	Client string `json:"client"`
	Path   string `json:"path"`
	// Error is why the file could not be read.
	Error string `json:"error,omitempty"`
}

// A Server is an MCP server that some client uses. Without a Problem it has
// either a Command or a URL.
type Server struct {
	// Name is the client's name for it, made fit for bailiwick.yaml.
	Name string
	// Files are the client files that list it.
	Files []string

	Command string
	Args    []string
	Env     map[string]string
	Cwd     string
	URL     string
	// Token is the bearer token that the client sends.
	Token string

	// Problem is why nobody but the client can reach it; empty if others can.
	Problem string
}

// clientFiles are the places where clients keep their servers, on this desk.
func (d Desk) clientFiles() []File {
	config := d.configDir()
	home := func(path string) string { return filepath.Join(d.Home, filepath.FromSlash(path)) }
	project := func(path string) string { return filepath.Join(d.Project, filepath.FromSlash(path)) }
	files := []File{
		{Client: "Claude Desktop", Path: filepath.Join(config, "Claude", "claude_desktop_config.json")},
		{Client: "Claude Code", Path: project(".mcp.json")},
		{Client: "Claude Code", Path: home(".claude.json")},
		{Client: "Cursor", Path: project(".cursor/mcp.json")},
		{Client: "Cursor", Path: home(".cursor/mcp.json")},
		{Client: "VS Code", Path: project(".vscode/mcp.json")},
		{Client: "VS Code", Path: filepath.Join(config, "Code", "User", "mcp.json")},
		{Client: "Windsurf", Path: home(".codeium/windsurf/mcp_config.json")},
		{Client: "Zed", Path: project(".zed/settings.json")},
		{Client: "Zed", Path: d.zedSettings()},
		{Client: gemini, Path: project(".gemini/settings.json")},
		{Client: gemini, Path: home(".gemini/settings.json")},
	}
	// The project may be the home directory.
	return slices.CompactFunc(files, func(a, b File) bool { return a == b })
}

// configDir is where desktop programs keep their settings.
func (d Desk) configDir() string {
	switch d.OS {
	case "darwin":
		return filepath.Join(d.Home, "Library", "Application Support")
	case "windows":
		if dir := d.Getenv("APPDATA"); dir != "" {
			return dir
		}
		return filepath.Join(d.Home, "AppData", "Roaming")
	default:
		return d.xdgConfig()
	}
}

func (d Desk) xdgConfig() string {
	if dir := d.Getenv("XDG_CONFIG_HOME"); dir != "" {
		return dir
	}
	return filepath.Join(d.Home, ".config")
}

// zedSettings is Zed's settings file, which on a Mac is not with the others.
func (d Desk) zedSettings() string {
	if d.OS == "windows" {
		return filepath.Join(d.configDir(), "Zed", "settings.json")
	}
	return filepath.Join(d.xdgConfig(), "zed", "settings.json")
}

// Servers reads the client files that exist, or exactly the named ones,
// and returns the files that were read and the servers, each server once. A
// file that cannot be read is in the list with its error.
func (d Desk) Servers(named []string) ([]File, []Server) {
	files := d.clientFiles()
	if len(named) > 0 {
		files = nil
		for _, n := range named {
			files = append(files, File{Client: d.clientOf(n), Path: n})
		}
	}
	read, found := []File{}, []Server{}
	for _, f := range files {
		servers, err := d.readClient(f)
		if errors.Is(err, fs.ErrNotExist) && len(named) == 0 {
			continue
		}
		if err != nil {
			f.Error = err.Error()
		}
		if err != nil || len(servers) > 0 {
			read = append(read, f)
		}
		found = merge(found, servers)
	}
	giveNames(found)
	return read, found
}

// clientOf names the client whose file this usually is.
func (d Desk) clientOf(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil {
		abs = file
	}
	for _, f := range d.clientFiles() {
		if f.Path == abs {
			return f.Client
		}
	}
	for _, f := range d.clientFiles() {
		if filepath.Base(f.Path) == filepath.Base(file) {
			return f.Client
		}
	}
	return "MCP client"
}

// clientDocument is what the clients' files have in common. Everything else in
// them is none of our business.
type clientDocument struct {
	Servers    map[string]json.RawMessage `json:"mcpServers"`
	VSCode     map[string]json.RawMessage `json:"servers"`
	Zed        map[string]json.RawMessage `json:"context_servers"`
	ClaudeCode map[string]struct {
		Servers map[string]json.RawMessage `json:"mcpServers"`
	} `json:"projects"`
}

// readClient reads one file. The servers are sorted by name.
func (d Desk) readClient(f File) ([]Server, error) {
	text, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, err
	}
	var doc clientDocument
	if err := json.Unmarshal(withoutComments(text), &doc); err != nil {
		return nil, fmt.Errorf("not the settings of an MCP client: %w", err)
	}
	entries := map[string]json.RawMessage{}
	for _, m := range []map[string]json.RawMessage{
		doc.Servers, doc.VSCode, doc.Zed, doc.ClaudeCode[d.Project].Servers,
	} {
		maps.Copy(entries, m)
	}
	var found []Server
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if s, ok := d.server(f, name, entries[name]); ok {
			found = append(found, s)
		}
	}
	return found, nil
}

// merge adds servers; one that is there already, for another client, is
// noted on the one that is there.
func merge(found, more []Server) []Server {
	for _, s := range more {
		i := slices.IndexFunc(found, s.sameAs)
		if i < 0 {
			found = append(found, s)
			continue
		}
		found[i].Files = append(found[i].Files, s.Files...)
	}
	return found
}

func (s Server) sameAs(o Server) bool {
	if s.Problem != "" || o.Problem != "" {
		return s.Problem == o.Problem && s.Name == o.Name
	}
	return s.Command == o.Command && slices.Equal(s.Args, o.Args) && maps.Equal(s.Env, o.Env) &&
		(s.Cwd == o.Cwd || s.Cwd == "" || o.Cwd == "") && s.URL == o.URL && s.Token == o.Token
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_-]+|__+`)

// giveNames makes the names valid and different from each other.
func giveNames(found []Server) {
	taken := map[string]bool{"mcp": true}
	for i := range found {
		base := strings.Trim(notInName.ReplaceAllString(found[i].Name, "-"), "-_")
		if base == "" {
			base = "server"
		}
		base = base[:min(len(base), 60)]
		name := base
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		taken[name] = true
		found[i].Name = name
	}
}
