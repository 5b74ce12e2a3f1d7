package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// Agent is the agent that the tests' clients act as.
const Agent = "tester"

// PermitAll is a policy file that permits everything.
const PermitAll = `@id("permit-all")
permit (principal, action, resource);
`

// A Setup says how bailiwick is to be configured. Its zero value has no
// upstream, and policies that permit nothing.
type Setup struct {
	// Policies is Cedar text.
	Policies string
	// Catalog is the operator's catalogue file.
	Catalog string
	// Upstreams are the servers, as bailiwick.yaml has them.
	Upstreams map[string]Upstream
	// Anonymous lets callers without a token act as [Agent].
	Anonymous bool
	// Agents follows in the agents file: further entries, and lists.
	Agents string
	// Settings are further keys of bailiwick.yaml.
	Settings map[string]any
	// Race runs a binary with the race detector in it. It is slower and larger.
	Race bool
}

// An Upstream is one server in bailiwick.yaml.
type Upstream struct {
	Command   string            `json:"command,omitempty"`
	Args      []string          `json:"args,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	URL       string            `json:"url,omitempty"`
	TokenFile string            `json:"token_file,omitempty"`
}

// A Deployment is a folder with all that bailiwick reads and writes.
type Deployment struct {
	Dir string
	// Addr is where serve listens.
	Addr string
	// Key is the agent key of [Agent].
	Key string
	// Within is a command line that runs another one, put before that of
	// bailiwick: nsenter, for example.
	Within []string

	binary string
}

// Deploy writes the files of a deployment into a folder of the test.
func Deploy(t testing.TB, s Setup) *Deployment {
	t.Helper()
	d, err := deploy(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func deploy(dir string, s Setup) (*Deployment, error) {
	build := Binary
	if s.Race {
		build = RaceBinary
	}
	binary, err := build()
	if err != nil {
		return nil, err
	}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	key, hash := identity.NewKey()
	d := &Deployment{Dir: dir, Addr: addr, Key: key, binary: binary}
	config := map[string]any{"listen": addr, "upstreams": s.Upstreams}
	if s.Anonymous {
		config["anonymous"] = Agent
	}
	for k, v := range s.Settings {
		config[k] = v
	}
	// YAML is a superset of JSON.
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	agents := fmt.Sprintf("agents:\n  - id: %s\n    groups: [testers]\n    key: %s\n%s", Agent, hash, s.Agents)
	return d, errors.Join(
		d.Write("bailiwick.yaml", string(text)),
		d.Write("agents.yaml", agents),
		d.Write("catalog.yaml", s.Catalog),
		d.Write("policies/test.cedar", s.Policies),
	)
}

// Write writes a file of the deployment.
func (d *Deployment) Write(name, text string) error {
	p := filepath.Join(d.Dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.WriteFile(p, []byte(text), 0o644)
}

// Endpoint is the URL at which one server is reached through the gateway.
func (d *Deployment) Endpoint(server string) string {
	return "http://" + d.Addr + "/mcp/" + server
}

// Command is the command line of bailiwick for this deployment.
func (d *Deployment) Command(args ...string) *exec.Cmd {
	line := slices.Concat(d.Within, []string{d.binary, "--config", filepath.Join(d.Dir, "bailiwick.yaml")}, args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir = d.Dir
	// A data race ends the process, and so the test.
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 exitcode=66")
	return cmd
}

// An Output is what a command printed and how it ended.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a command of bailiwick to its end.
func (d *Deployment) Run(args ...string) (Output, error) {
	cmd := d.Command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return Output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, err
}

// MustRun runs a command that has to succeed and returns its standard output.
func (d *Deployment) MustRun(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	if out.Code != 0 {
		t.Fatalf("bailiwick %q ended with %d:\n%s%s", args, out.Code, out.Stdout, out.Stderr)
	}
	return out.Stdout
}

// Serve starts the gateway, waits until it listens, and stops it when the
// test ends.
func (d *Deployment) Serve(t testing.TB) *Process {
	t.Helper()
	p, err := Start(d.Command("serve"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("bailiwick serve wrote:\n%s", p.Log())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := p.Listening(ctx, d.Addr); err != nil {
		t.Fatal(err)
	}
	return p
}

// Pin pins every tool that the upstreams offer, as an operator does who has
// looked at them.
func (d *Deployment) Pin(t testing.TB) {
	t.Helper()
	d.MustRun(t, "catalog", "pin", "--all", "--yes")
}
