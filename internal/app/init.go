package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/desk"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// InitialAgent is the agent that [Init] makes. bailiwick run acts as it too.
const InitialAgent = "desktop"

// initGroup is the group that the starter policies speak of.
const initGroup = "desktop"

// An InitConfig says where [Init] looks and writes.
type InitConfig struct {
	// Dir is the directory to write to; it is made if it is missing. Required.
	Dir string
	// Desk is where clients are looked for. Default: this account and the
	// working directory.
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
	if c.Desk.Getenv == nil {
		here, err := desk.Here(".")
		if err != nil {
			return nil, err
		}
		c.Desk = here
	}
	files, found := c.Desk.Servers(c.Clients)
	if err := c.checkDir(found); err != nil {
		return nil, err
	}
	r := &InitReport{Dir: c.Dir, Clients: files, Servers: []InitServer{}, Agent: InitialAgent}
	for _, f := range found {
		r.Servers = append(r.Servers, InitServer{
			Name: f.Name, Files: f.Files, Command: f.Command, Args: f.Args, URL: f.URL,
			Secrets: len(f.Env) > 0 || f.Token != "", Problem: f.Problem, found: f,
		})
	}
	// A server that names no directory of its own is started in this one.
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
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
func (c InitConfig) checkDir(found []desk.Server) error {
	if c.Force {
		return nil
	}
	names := []string{initConfig, initCatalog, initLock, initAgents, initPolicies, initTests}
	for _, s := range found {
		if s.Token != "" {
			names = append(names, tokenFile(s.Name))
		}
	}
	var there []string
	for _, name := range names {
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
	return c.checkWritten(r, lock)
}

// checkWritten reads the files back as the gateway will, and adds tests of the
// policies. Init that wrote something wrong must not look as if it had worked.
func (c InitConfig) checkWritten(r *InitReport, lock *catalog.Lock) error {
	const bug = "init wrote something that is wrong, which is a bug: %w"
	config, err := LoadConfig(filepath.Join(c.Dir, initConfig))
	if err != nil {
		return fmt.Errorf(bug, err)
	}
	r.Listen = config.Listen
	v, err := LoadVersion(config)
	if err != nil {
		return fmt.Errorf(bug, err)
	}
	if _, err := LoadAgents(config); err != nil {
		return fmt.Errorf(bug, err)
	}
	text, err := starterTests(v, lock)
	if err != nil {
		return err
	}
	if err := (initFile{initTests, text, 0o644}).write(c.Dir); err != nil {
		return err
	}
	r.Files = append(r.Files, initTests)
	report, err := TestPolicies(config)
	if err != nil {
		return fmt.Errorf(bug, err)
	}
	for _, t := range report.Tests {
		if !t.Pass {
			return fmt.Errorf(bug, fmt.Errorf("%s:%d: %s: %s", t.File, t.Line, t.Name, t.Failure))
		}
	}
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
