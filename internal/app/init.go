package app

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/desk"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

//go:embed starter
var starter embed.FS

// InitialAgent is the agent that [Init] makes. bailiwick run acts as it too.
const InitialAgent = "desktop"

// An InitConfig says where [Init] looks and writes.
type InitConfig struct {
	// Dir is the directory to write to; it is made if it is missing. Required.
	Dir string
	// Desk is where clients are looked for. Required.
	Desk desk.Desk
	// Clients are client files to read instead of the usual ones.
	Clients []string
	// Force replaces files that exist.
	Force bool
	// Timeout bounds listing the tools of one server. Default 30 s: npx may
	// have to install it first.
	Timeout time.Duration
	// Progress, if set, is told what is being waited for.
	Progress func(string)
}

// An InitReport is what [Init] found and wrote.
type InitReport struct {
	Dir     string       `json:"dir"`
	Clients []desk.File  `json:"clients"`
	Servers []InitServer `json:"servers"`
	Files   []string     `json:"files"` // written, relative to Dir
	Agent   string       `json:"agent"`
	Key     string       `json:"key"` // of the agent: shown only now
	Listen  string       `json:"listen"`
}

// An InitServer is a server that [Init] found.
type InitServer struct {
	Name    string   `json:"name"`
	Files   []string `json:"files"`
	Command string   `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
	URL     string   `json:"url,omitempty"`
	// Tools counts the pinned tools.
	Tools int `json:"tools"`
	// Secrets says that env values or a token were copied from the client.
	Secrets bool `json:"secrets,omitempty"`
	// Problem is why the server was left out; empty if it was not.
	Problem string `json:"problem,omitempty"`

	found desk.Server
	defs  []json.RawMessage
}

// ErrExists is the error of [Init] when it would have to replace a file.
var ErrExists = errors.New("init replaces nothing")

// Init finds the MCP servers that clients on this desk use, lists and pins
// their tools, and writes a configuration to start from. A server that cannot
// be reached is written as a comment. When a file exists Init writes nothing
// and returns [ErrExists], unless it is forced.
func Init(ctx context.Context, c InitConfig) (*InitReport, error) {
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if err := c.checkDir(); err != nil {
		return nil, err
	}
	files, found := c.Desk.Servers(c.Clients)
	r := &InitReport{Dir: c.Dir, Clients: files, Agent: InitialAgent}
	for _, f := range found {
		r.Servers = append(r.Servers, InitServer{
			Name: f.Name, Files: f.Files, Command: f.Command, Args: f.Args, URL: f.URL,
			Secrets: len(f.Env) > 0 || f.Token != "", Problem: f.Problem, found: f,
		})
	}
	c.listTools(ctx, r.Servers)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r, c.write(r)
}

// The files that Init writes, apart from tokens.
const (
	initConfig   = DefaultConfigFile
	initCatalog  = "catalog.yaml"
	initLock     = "catalog.lock.json"
	initAgents   = "agents.yaml"
	initPolicies = "policies/starter.cedar"
	initTests    = "policies/starter_test.yaml"
)

// checkDir makes sure that nothing would be replaced.
func (c InitConfig) checkDir() error {
	if c.Force {
		return nil
	}
	var there []string
	for _, name := range []string{initConfig, initCatalog, initLock, initAgents, initPolicies, initTests} {
		_, err := os.Lstat(filepath.Join(c.Dir, name))
		if err == nil {
			there = append(there, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at the directory: %w", err)
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("%w: %s has %s already; choose another --dir, or replace them with --force",
			ErrExists, c.Dir, strings.Join(there, ", "))
	}
	return nil
}

// listTools asks every server for its tools, a few at a time.
func (c InitConfig) listTools(ctx context.Context, servers []InitServer) {
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i := range servers {
		s := &servers[i]
		if s.Problem != "" {
			continue
		}
		c.Progress("asking " + s.Name + " for its tools")
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, c.Timeout)
			defer cancel()
			if err := s.list(ctx, c.Dir); err != nil {
				s.Problem = err.Error()
			}
		})
	}
	wg.Wait()
}

// list fills in the server's tools. It reaches the server the way the gateway
// will.
func (s *InitServer) list(ctx context.Context, dir string) error {
	f := s.found
	up := Upstream{Command: f.Command, Args: f.Args, Env: f.Env, Cwd: f.Cwd, URL: f.URL}
	if f.Token != "" {
		scratch, err := os.MkdirTemp("", "bailiwick-init-")
		if err != nil {
			return fmt.Errorf("keep its token: %w", err)
		}
		defer os.RemoveAll(scratch) //nolint:errcheck // a private file in a temporary directory
		up.TokenFile = filepath.Join(scratch, "token")
		if err := os.WriteFile(up.TokenFile, []byte(f.Token), 0o600); err != nil {
			return fmt.Errorf("keep its token: %w", err)
		}
	}
	if up.Command != "" && up.Cwd == "" {
		up.Cwd = dir
	}
	if err := checkUpstream(s.Name, up); err != nil {
		return err
	}
	server, err := (&Config{Upstreams: map[string]Upstream{s.Name: up}}).Server(s.Name)
	if err != nil {
		return err
	}
	server.Stderr = nil // what it logs while it is asked is nobody's business
	s.defs, err = mcp.ListTools(ctx, server)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it did not answer in time")
	}
	s.Tools = len(s.defs)
	return err
}

// write writes all files. The configuration comes last, so that what is left
// behind when writing fails is not taken for complete.
func (c InitConfig) write(r *InitReport) error {
	lock, err := pinAll(r.Servers)
	if err != nil {
		return err
	}
	lockText, err := lock.Marshal()
	if err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	key, hash := identity.NewKey()
	r.Key = key
	policies, err := starterPolicies(lock)
	if err != nil {
		return err
	}
	config, err := c.configText(r.Servers)
	if err != nil {
		return err
	}
	files := []initFile{
		{initCatalog, catalogText(lock), 0o644},
		{initLock, lockText, 0o644},
		{initAgents, agentsText(hash), 0o600},
		{initPolicies, policies, 0o644},
	}
	for _, s := range r.Servers {
		if s.found.Token != "" {
			files = append(files, initFile{tokenFile(s.Name), []byte(s.found.Token + "\n"), 0o600})
		}
	}
	// It may hold secrets of servers, in env.
	files = append(files, initFile{initConfig, config, 0o600})
	for _, f := range files {
		if err := f.write(c.Dir); err != nil {
			return err
		}
		r.Files = append(r.Files, f.name)
	}
	return c.checkWritten(r)
}

// checkWritten reads the files back as the gateway will. Init that wrote
// something wrong must not look as if it had worked.
func (c InitConfig) checkWritten(r *InitReport) error {
	config, err := LoadConfig(filepath.Join(c.Dir, initConfig))
	if err != nil {
		return fmt.Errorf("init wrote a configuration that is wrong, which is a bug: %w", err)
	}
	if _, err := CheckConfig(config); err != nil {
		return fmt.Errorf("init wrote policies or a catalogue that are wrong, which is a bug: %w", err)
	}
	r.Listen = config.Listen
	return nil
}

type initFile struct {
	name string
	text []byte
	mode os.FileMode
}

func (f initFile) write(dir string) error {
	path := filepath.Join(dir, filepath.FromSlash(f.name))
	mode := os.FileMode(0o755)
	if strings.HasPrefix(f.name, secretsDir) {
		mode = 0o700
	}
	if err := os.MkdirAll(filepath.Dir(path), mode); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return WriteFile(path, f.text, f.mode)
}

const secretsDir = "secrets/"

func tokenFile(server string) string { return secretsDir + server + ".token" }

// pinAll pins the tools of all servers. A definition that cannot be pinned
// leaves its server out.
func pinAll(servers []InitServer) (*catalog.Lock, error) {
	lock := &catalog.Lock{}
	for i := range servers {
		s := &servers[i]
		for _, d := range s.defs {
			if _, err := lock.Pin(s.Name, d); err != nil {
				s.Problem, s.Tools = "one of its tools cannot be pinned: "+err.Error(), 0
				break
			}
		}
		if s.Problem == "" {
			continue
		}
		for _, p := range lock.Pins() {
			if p.Server == s.Name {
				lock.Unpin(p.Server, p.Tool)
			}
		}
	}
	return lock, nil
}

// A serverText is a server as the configuration's template wants it.
type serverText struct {
	Name, Where, Problem, Margin string
	URL, Command, Cwd, TokenFile string
	Args                         []string
	Env                          map[string]string
}

// Commented is the same server behind comment signs.
func (s serverText) Commented() serverText {
	s.Margin = "#"
	return s
}

func (c InitConfig) configText(servers []InitServer) ([]byte, error) {
	var data struct{ Active, Inactive []serverText }
	for _, s := range servers {
		f := s.found
		t := serverText{
			Name: s.Name, Where: strings.Join(s.Files, " and "), Problem: oneLine(s.Problem),
			URL: f.URL, Command: f.Command, Args: f.Args, Env: f.Env, Cwd: f.Cwd,
		}
		if f.Token != "" {
			t.TokenFile = tokenFile(s.Name)
		}
		if s.Problem == "" {
			data.Active = append(data.Active, t)
		} else {
			data.Inactive = append(data.Inactive, t)
		}
	}
	return fill("bailiwick.yaml.tmpl", data)
}

// fill executes one of the starter templates.
func fill(name string, data any) ([]byte, error) {
	t, err := template.New(name).Funcs(template.FuncMap{"quote": quoteYAML}).ParseFS(starter, "starter/"+name)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("fill in %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// quoteYAML writes a string as a double-quoted scalar. JSON's strings are
// among those of YAML.
func quoteYAML(s string) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(s)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// oneLine makes what a server or a library said fit for a comment.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "..."
	}
	return strings.TrimSuffix(s, ".")
}

func agentsText(hash string) []byte {
	return fmt.Appendf(nil, `# The agents that may call, and the hashes of their keys. A key itself is
# nowhere: 'bailiwick agents add' shows one once. Policies name agents as
# Agent::"id" and groups as Group::"name".
agents:
  - id: %s
    groups: [desktop]
    key: "%s"
`, InitialAgent, hash)
}

// catalogText writes the overlay that guesses suggest, for review.
func catalogText(lock *catalog.Lock) []byte {
	var b strings.Builder
	b.WriteString(`# What the tools do, in your words. Policies speak of effects, so read this
# through: what follows was guessed from names and from what the servers say
# about themselves, and a server may lie.
#
#   effects    read         only reads
#              write        changes something
#              destructive  destroys something
#              external     reaches outside the organisation
#   authority  the arguments that carry authority: a recipient, an amount, a path
#   outputs    outsiders: true if strangers can write what the tool returns; the
#              session is then labelled "untrusted"
#   groups     action groups of your own, for policies
#
# A tool that is not named here counts as destructive and external.
`)
	pins := lock.Pins()
	if len(pins) == 0 {
		b.WriteString("servers: {}\n")
		return []byte(b.String())
	}
	b.WriteString("servers:\n")
	server := ""
	for _, p := range pins {
		if p.Server != server {
			server = p.Server
			fmt.Fprintf(&b, "  %s:\n    tools:\n", server)
		}
		writeSuggestion(&b, p)
	}
	return []byte(b.String())
}

func writeSuggestion(b *strings.Builder, p catalog.Pin) {
	s := catalog.Suggest(p.Definition)
	if s.Why != "" {
		fmt.Fprintf(b, "      # %s\n", oneLine(s.Why))
	}
	fmt.Fprintf(b, "      %s:\n        effects: [%s]\n", mustQuote(p.Tool), strings.Join(s.Effects, ", "))
	if len(s.Authority) > 0 {
		quoted := make([]string, len(s.Authority))
		for i, a := range s.Authority {
			quoted[i] = mustQuote(a)
		}
		fmt.Fprintf(b, "        authority: [%s]\n", strings.Join(quoted, ", "))
	}
	if s.Outsiders {
		b.WriteString("        outputs: {outsiders: true}\n")
	}
}

// mustQuote is quoteYAML where it cannot fail: strings always encode.
func mustQuote(s string) string {
	q, err := quoteYAML(s)
	if err != nil {
		panic(err)
	}
	return q
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// starterPolicies fills in the example with a tool that there is, if possible
// one that destroys nothing.
func starterPolicies(lock *catalog.Lock) ([]byte, error) {
	data := struct{ Word, Action, Argument string }{"write-file", "files/write_file", `context.input.path like "/srv/notes/*"`}
	for _, p := range lock.Pins() {
		effects := catalog.Suggest(p.Definition).Effects
		// A name is the server's own choice of bytes; only a plain one may stand
		// in a policy file, where it could end the comment.
		if !plainName.MatchString(p.Tool) || slices.Contains(effects, catalog.EffectRead) {
			continue
		}
		data.Word, data.Action, data.Argument = strings.ReplaceAll(p.Tool, "_", "-"), p.Server+"/"+p.Tool, ""
		if !slices.Contains(effects, catalog.EffectDestructive) {
			break
		}
	}
	return fill("starter.cedar.tmpl", data)
}
