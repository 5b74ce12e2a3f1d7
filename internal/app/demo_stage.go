package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/demo"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// demoAgent is the agent of the story.
const demoAgent = "desk"

// The files of a demo's directory beside those of the workspace.
const (
	demoKeyFile  = "agent.key"
	demoLogFile  = "bailiwick.log"
	demoTampered = "tampered"
)

// A stage is where the demo is played: its directory, and the log of the node.
type stage struct {
	dir    string
	config *Config
	key    string
	log    *os.File
}

// openStage makes the demo's directory, or takes the one that is there.
func openStage(ctx context.Context, c DemoConfig) (*stage, error) {
	s := &stage{dir: c.Dir}
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(entries) == 0 {
		err = s.furnish(ctx, c)
	} else {
		err = s.recognise()
	}
	if err != nil {
		return nil, err
	}
	if s.config, err = LoadConfig(s.path(DefaultConfigFile)); err != nil {
		return nil, err
	}
	if s.log, err = os.OpenFile(s.path(demoLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *stage) close() error { return s.log.Close() }

// recognise takes over a directory that a demo made.
func (s *stage) recognise() error {
	key, err := os.ReadFile(s.path(demoKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not empty, and no demo made it: choose another --dir", s.dir)
	}
	s.key = strings.TrimSpace(string(key))
	return err
}

// furnish writes the workspace: what an operator would have written, one agent
// with a key, and the pinned tools.
func (s *stage) furnish(ctx context.Context, c DemoConfig) error {
	var files []initFile
	err := fs.WalkDir(demo.Workspace(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(demo.Workspace(), name)
		files = append(files, initFile{name, text, 0o644})
		return err
	})
	if err != nil {
		return err
	}
	for i := range files {
		if files[i].name == DefaultConfigFile {
			files[i].text = bytes.ReplaceAll(files[i].text, []byte(`"`+demo.BinaryMark+`"`), []byte(mustQuote(c.Binary)))
		}
	}
	lock, err := demoPins(ctx)
	if err != nil {
		return err
	}
	key, hash := identity.NewKey()
	s.key = key
	files = append(files,
		initFile{"catalog.lock.json", lock, 0o644},
		initFile{"agents.yaml", fmt.Appendf(nil, "agents:\n  - id: %s\n    key: %q\n", demoAgent, hash), 0o600},
		initFile{demoKeyFile, []byte(key + "\n"), 0o600},
	)
	for _, f := range files {
		if err := f.write(s.dir); err != nil {
			return err
		}
	}
	return nil
}

// demoPins pins the tools of the demo's servers.
func demoPins(ctx context.Context) ([]byte, error) {
	servers, err := serveWorld(demo.NewWorld())
	if err != nil {
		return nil, err
	}
	defer servers.close()
	lock := &catalog.Lock{}
	for name, url := range servers.urls() {
		definitions, err := mcp.ListTools(ctx, mcp.Server{Name: name, URL: url})
		if err != nil {
			return nil, fmt.Errorf("list the tools of %s: %w", name, err)
		}
		for _, d := range definitions {
			if _, err := lock.Pin(name, d); err != nil {
				return nil, fmt.Errorf("pin the tools of %s: %w", name, err)
			}
		}
	}
	return lock.Marshal()
}

// A worldServer serves a world over HTTP on the loopback interface.
type worldServer struct {
	http   *http.Server
	addr   string
	served chan struct{}
}

func serveWorld(w *demo.World) (*worldServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the demo's servers: %w", err)
	}
	s := &worldServer{
		http: &http.Server{Handler: w.Handler(), ReadHeaderTimeout: 10 * time.Second},
		addr: l.Addr().String(), served: make(chan struct{}),
	}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(l) // always an error: that it was closed
	}()
	return s, nil
}

func (s *worldServer) urls() map[string]string {
	return map[string]string{
		demo.MailboxName: "http://" + s.addr + "/" + demo.MailboxName,
		demo.BankName:    "http://" + s.addr + "/" + demo.BankName,
	}
}

func (s *worldServer) close() {
	_ = s.http.Close() // nobody is being served any more
	<-s.served
}

// policyText cuts the first of the policies out of its file.
func (s *stage) policyText(refs []authz.PolicyRef) string {
	if len(refs) == 0 {
		return ""
	}
	text, err := os.ReadFile(s.path(refs[0].File))
	if err != nil {
		return "" // it decided; that its file is gone now is not for here
	}
	lines := strings.SplitAfter(string(text), "\n")
	from := min(max(refs[0].Line-1, 0), len(lines))
	to := from
	for to < len(lines) && !strings.HasSuffix(strings.TrimSpace(lines[to]), ";") {
		to++
	}
	return strings.Join(lines[from:min(to+1, len(lines))], "")
}

// tamper copies the evidence, changes one byte of the copy, and verifies it:
// somebody would like the stolen payment to have been smaller.
func (s *stage) tamper(ctx context.Context) (DemoTampered, error) {
	dir := s.path(demoTampered)
	if err := os.RemoveAll(dir); err != nil {
		return DemoTampered{}, fmt.Errorf("remove the copy of an earlier demo: %w", err)
	}
	if err := os.CopyFS(filepath.Join(dir, filepath.Base(s.config.Data)), os.DirFS(s.config.Data)); err != nil {
		return DemoTampered{}, fmt.Errorf("copy the evidence: %w", err)
	}
	text, err := os.ReadFile(s.path(DefaultConfigFile))
	if err != nil {
		return DemoTampered{}, err
	}
	t := DemoTampered{Config: filepath.Join(dir, DefaultConfigFile)}
	if err := WriteFile(t.Config, text, 0o644); err != nil {
		return t, err
	}
	config, err := LoadConfig(t.Config)
	if err != nil {
		return t, err
	}
	t.File = journalFile(config)
	if err := t.change(`"amount_cents":480000`, `"amount_cents":180000`); err != nil {
		return t, fmt.Errorf("change one byte of %s: %w", t.File, err)
	}
	t.Report, err = VerifyEvidence(ctx, config)
	return t, err
}

// change replaces was, which must differ from is in one byte.
func (t *DemoTampered) change(was, is string) error {
	journal, err := os.ReadFile(t.File)
	if err != nil {
		return err
	}
	at := bytes.Index(journal, []byte(was))
	if at < 0 {
		return fmt.Errorf("it does not hold %s", was)
	}
	copy(journal[at:], is)
	t.Was, t.Is = was, is
	for t.Offset = int64(at); was[0] == is[0]; t.Offset++ {
		was, is = was[1:], is[1:]
	}
	return os.WriteFile(t.File, journal, 0o600)
}
