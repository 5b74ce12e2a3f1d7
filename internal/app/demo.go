package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
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

// A DemoConfig says where the demo is played.
type DemoConfig struct {
	// Dir is the demo's directory. It is made if it is missing; one that a demo
	// made before is played again, with whatever policies it holds now. Any
	// other is refused. Required.
	Dir string
	// Binary is the path of this program, for starting the demo's servers later.
	Binary string
}

// A DemoReport is everything that the demo showed.
type DemoReport struct {
	Dir    string `json:"dir"`
	Config string `json:"config"`
	Task   string `json:"task"`
	// Mail is the mail that gives the agent orders.
	Mail demo.Mail `json:"mail"`
	// Runs are the same story twice: observed, then enforced.
	Runs []DemoRun `json:"runs"`
	// Log is what offline verification of the log says, and Tampered what it
	// says of a copy in which one byte was changed.
	Log      audit.Report `json:"log"`
	Tampered DemoTampered `json:"tampered"`
}

// A DemoRun is the story played once.
type DemoRun struct {
	Mode  string     `json:"mode"`
	Steps []DemoStep `json:"steps"`
	// Hidden are the tools that the agent was not shown.
	Hidden []string `json:"hidden_tools,omitempty"`
	// Done is what the user got of what she wanted, Lost what the mail got.
	Done []string `json:"done"`
	Lost []string `json:"lost"`
	// Opening and Balance are the balance of the account, before and after.
	Opening int64 `json:"opening_balance_cents"`
	Balance int64 `json:"balance_cents"`
}

// A DemoStep is one call of the agent, and what the record says of it.
type DemoStep struct {
	Action  string          `json:"action"`
	Args    json.RawMessage `json:"arguments"`
	Summary string          `json:"summary,omitempty"`
	// Injected is set when a mail wanted the call, and not the user.
	Injected bool `json:"injected,omitempty"`
	// Denial is what the agent was told, if the call was not made.
	Denial *demo.Denial `json:"denial,omitempty"`
	// Failure is what the server said, if the call failed there.
	Failure string `json:"failure,omitempty"`

	// Index and Decision say where the record is.
	Index    uint64 `json:"index"`
	Decision string `json:"decision"`
	// Effect is what policy decided; the rest is why.
	Effect   string            `json:"effect"`
	Reasons  []authz.Reason    `json:"reasons"`
	Policies []authz.PolicyRef `json:"policies,omitempty"`
	// Text is the first of the policies, as it stands in its file.
	Text string `json:"policy_text,omitempty"`
}

// A DemoTampered is a copy of the evidence in which one byte was changed.
type DemoTampered struct {
	Config string `json:"config"`
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	// Was and Is are the text around the byte.
	Was    string       `json:"was"`
	Is     string       `json:"is"`
	Report audit.Report `json:"report"`
}

// Demo plays the story in observe mode and then enforcing, through a node of
// its own with the configuration in the demo's directory, and verifies what
// was recorded.
func Demo(ctx context.Context, c DemoConfig) (*DemoReport, error) {
	s, err := openStage(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("prepare the demo: %w", err)
	}
	r := &DemoReport{Dir: c.Dir, Config: filepath.Join(c.Dir, DefaultConfigFile), Task: demo.Task, Mail: demo.PoisonedMail()}
	for _, mode := range []string{"observe", "enforce"} {
		run, err := s.play(ctx, mode)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("play the demo, mode %s: %w (%s has the log)", mode, err, demoLogFile), s.close())
		}
		r.Runs = append(r.Runs, run)
	}
	if err := s.close(); err != nil {
		return nil, err
	}
	if r.Log, err = VerifyEvidence(ctx, s.config); err != nil {
		return nil, err
	}
	r.Tampered, err = s.tamper(ctx)
	return r, err
}

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

// play plays the story once, in a new world and a new session.
func (s *stage) play(ctx context.Context, mode string) (DemoRun, error) {
	world := demo.NewWorld()
	servers, err := serveWorld(world)
	if err != nil {
		return DemoRun{}, err
	}
	defer servers.close()
	config := *s.config
	config.Mode, config.Listen = mode, "127.0.0.1:0"
	config.Upstreams = map[string]Upstream{}
	for name, url := range servers.urls() {
		config.Upstreams[name] = Upstream{URL: url}
	}
	run := DemoRun{Mode: mode, Opening: world.Bank.Balance()}
	from, err := evidenceSize(ctx, &config)
	if err != nil {
		return run, err
	}
	node, err := Start(ctx, &config, slog.New(slog.NewJSONHandler(s.log, nil)))
	if err != nil {
		return run, err
	}
	err = run.through(ctx, node, s.key)
	if err := errors.Join(err, node.Close(ctx)); err != nil {
		return run, err
	}
	run.Balance, run.Done, run.Lost = world.Bank.Balance(), world.Done(), world.Losses()
	if err := run.explain(ctx, &config, from); err != nil {
		return run, err
	}
	for i := range run.Steps {
		run.Steps[i].Text = s.policyText(run.Steps[i].Policies)
	}
	return run, nil
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

// through plays the story with a client of the node's gateway.
func (r *DemoRun) through(ctx context.Context, node *Node, key string) error {
	if err := node.Listen(); err != nil {
		return err
	}
	client, err := demo.Connect(ctx, "http://"+node.Addr()+"/mcp", key)
	if err != nil {
		return err
	}
	shown, err := client.Tools(ctx)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	r.Hidden = hidden(node, shown)
	err = demo.Play(ctx, func(ctx context.Context, server, tool string, args json.RawMessage) (demo.Answer, error) {
		return client.Call(ctx, server+"__"+tool, args)
	}, func(t demo.Turn) {
		r.Steps = append(r.Steps, DemoStep{
			Action: t.Action(), Args: t.Args, Summary: t.Summary(), Injected: t.Injected,
			Denial: t.Answer.Denial, Failure: t.Answer.Failure,
		})
	})
	return errors.Join(err, client.Close())
}

// hidden are the pinned tools that are not among those shown.
func hidden(n *Node, shown []string) []string {
	seen := map[string]bool{}
	for _, s := range shown {
		seen[s] = true
	}
	var out []string
	for _, op := range n.live.version.Load().Catalog.Operations() {
		if op.Server != "" && !seen[op.Server+"__"+op.Tool] {
			out = append(out, op.Action)
		}
	}
	return out
}

// explain adds to each step what the log has on it. The agent takes one step
// at a time, so the decisions stand there in its order.
func (r *DemoRun) explain(ctx context.Context, c *Config, from uint64) error {
	i := 0
	err := eachRecord(ctx, c, from, func(rec audit.Recorded) error {
		d := rec.Record
		if d.Kind != audit.KindDecision || strings.HasPrefix(d.What.Action, "mcp:") {
			return nil
		}
		if i >= len(r.Steps) || r.Steps[i].Action != d.What.Action {
			return fmt.Errorf("record %d decides %s, which is not what the agent did", rec.Index, d.What.Action)
		}
		s := &r.Steps[i]
		s.Index, s.Decision, s.Effect = rec.Index, d.Decision, d.Effect
		s.Reasons, s.Policies = d.Why.Reasons, d.Why.Policies
		i++
		return nil
	})
	if err == nil && i < len(r.Steps) {
		err = fmt.Errorf("%s was done and is not on the record", r.Steps[i].Action)
	}
	return err
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

// DemoServer serves one of the story's servers on standard input and output.
func DemoServer(ctx context.Context, name string) error {
	return demo.NewWorld().ServeStdio(ctx, name)
}
