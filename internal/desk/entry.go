package desk

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A clientEntry is one server as the clients write it.
type clientEntry struct {
	Type      string            `json:"type"`
	Command   json.RawMessage   `json:"command"`
	Args      []string          `json:"args"`
	Env       map[string]any    `json:"env"`
	EnvFile   string            `json:"envFile"`
	Cwd       string            `json:"cwd"`
	URL       string            `json:"url"`
	HTTPURL   string            `json:"httpUrl"`
	ServerURL string            `json:"serverUrl"`
	Headers   map[string]string `json:"headers"`
	Disabled  bool              `json:"disabled"`
	Enabled   *bool             `json:"enabled"`
}

// server makes an upstream of an entry. It reports false for entries that are
// switched off and for Bailiwick itself.
func (d Desk) server(f File, name string, raw json.RawMessage) (Server, bool) {
	s := Server{Name: name, Files: []string{f.Path}}
	var e clientEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		s.Problem = "its entry is not understood: " + err.Error()
		return s, true
	}
	if e.Disabled || (e.Enabled != nil && !*e.Enabled) {
		return s, false
	}
	x := &expansion{desk: d, gemini: f.Client == gemini}
	if err := s.fill(e, x); err != nil {
		s.Problem = err.Error()
	}
	if s.Command != "" && s.Cwd == "" && strings.HasPrefix(f.Path, d.Project+string(filepath.Separator)) {
		s.Cwd = d.Project // where the client would have started it
	}
	if s.Problem == "" && len(x.missing) > 0 {
		s.Problem = "the client fills in " + strings.Join(x.missing, ", ") + ", which is not set here"
	}
	return s, !s.isBailiwick()
}

func (s *Server) fill(e clientEntry, x *expansion) error {
	command, err := e.command()
	if err != nil {
		return err
	}
	s.Command, s.Cwd = x.string(command.Path), x.string(e.Cwd)
	for _, a := range append(command.Args, e.Args...) {
		s.Args = append(s.Args, x.string(a))
	}
	for k, v := range command.Env {
		s.setenv(k, x.string(v))
	}
	for k, v := range e.Env {
		s.setenv(k, x.string(fmt.Sprint(v)))
	}
	for _, url := range []string{e.HTTPURL, e.ServerURL, e.URL} {
		if s.URL == "" {
			s.URL = x.string(url)
		}
	}
	if s.Command != "" {
		s.URL = ""
	}
	switch {
	case s.Command == "" && s.URL == "":
		return errors.New("it names neither a command nor a URL")
	case e.EnvFile != "":
		return fmt.Errorf("it takes its environment from %s: copy what it needs into env", e.EnvFile)
	case e.Type == "sse", x.gemini && s.URL != "" && e.HTTPURL == "" && e.Type != "http":
		return errors.New("it speaks the old HTTP+SSE transport, which is not supported: ask its vendor for streamable HTTP")
	}
	return s.takeToken(e.Headers, x)
}

func (s *Server) setenv(k, v string) {
	if s.Env == nil {
		s.Env = map[string]string{}
	}
	s.Env[k] = v
}

// takeToken takes the bearer token out of the headers, which is the only
// header that an upstream can have.
func (s *Server) takeToken(headers map[string]string, x *expansion) error {
	for _, k := range slices.Sorted(maps.Keys(headers)) {
		token, isBearer := strings.CutPrefix(x.string(headers[k]), "Bearer ")
		if !strings.EqualFold(k, "Authorization") || !isBearer {
			return fmt.Errorf("it wants the header %s; only a bearer token can be sent", k)
		}
		s.Token = strings.TrimSpace(token)
	}
	return nil
}

type clientCommand struct {
	Path string            `json:"path"`
	Args []string          `json:"args"`
	Env  map[string]string `json:"env"`
}

// command reads a command, which older versions of Zed write as an object.
func (e clientEntry) command() (clientCommand, error) {
	var c clientCommand
	if len(e.Command) == 0 || string(e.Command) == "null" {
		return c, nil
	}
	if json.Unmarshal(e.Command, &c.Path) == nil {
		return c, nil
	}
	if err := json.Unmarshal(e.Command, &c); err != nil {
		return clientCommand{}, errors.New("its command is neither a string nor an object")
	}
	return c, nil
}

// isBailiwick reports whether a client has been put behind a gate already.
func (s *Server) isBailiwick() bool {
	return strings.TrimSuffix(filepath.Base(s.Command), ".exe") == "bailiwick"
}

// An expansion replaces the placeholders that clients allow in their files.
type expansion struct {
	desk    Desk
	gemini  bool // "$NAME" counts too, and a bare URL is the old transport
	missing []string
}

var (
	bracedVariable = regexp.MustCompile(`\$\{([^}]*)\}`)
	plainVariable  = regexp.MustCompile(`\$[A-Za-z_][A-Za-z0-9_]*`)
)

func (x *expansion) string(s string) string {
	s = bracedVariable.ReplaceAllStringFunc(s, func(m string) string { return x.value(m, m[2:len(m)-1]) })
	if x.gemini {
		s = plainVariable.ReplaceAllStringFunc(s, func(m string) string { return x.value(m, m[1:]) })
	}
	return s
}

// value is what a placeholder stands for. One that stands for nothing stays
// as it is and is noted.
func (x *expansion) value(placeholder, name string) string {
	switch name {
	case "workspaceFolder":
		return x.desk.Project
	case "userHome":
		return x.desk.Home
	case "/", "pathSeparator":
		return string(filepath.Separator)
	}
	name = strings.TrimPrefix(name, "env:")
	name, fallback, hasFallback := strings.Cut(name, ":-")
	if v := x.desk.Getenv(name); v != "" {
		return v
	}
	if hasFallback {
		return fallback
	}
	if !slices.Contains(x.missing, placeholder) {
		x.missing = append(x.missing, placeholder)
	}
	return placeholder
}
