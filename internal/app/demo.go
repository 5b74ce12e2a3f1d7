package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/demo"
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

// DemoServer serves one of the story's servers on standard input and output.
func DemoServer(ctx context.Context, name string) error {
	return demo.NewWorld().ServeStdio(ctx, name)
}
