// Package suite runs the MCP conformance suite against a server and compares
// its results.
package suite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// The revisions of the protocol whose requirements are run: the last with
// sessions, and the first without.
const (
	Legacy = "2025-11-25"
	Modern = "2026-07-28"
)

// A Check is one thing that the suite looked at.
type Check struct {
	Scenario string `json:"scenario"`
	ID       string `json:"id"`
	// Status is SUCCESS, FAILURE, WARNING, INFO or SKIPPED.
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// A Config says what to run.
type Config struct {
	// URL is the server's endpoint. Required.
	URL string
	// Revision selects the scenarios: those that this revision of the protocol
	// requires. Required unless Scenario is set.
	Revision string
	// Scenario selects a single scenario instead.
	Scenario string
}

// Run runs the suite and returns every check, in the order of the scenarios'
// names. A failing check is no error.
func Run(ctx context.Context, c Config) ([]Check, error) {
	node, err := rig.Node()
	if err != nil {
		return nil, err
	}
	script, err := rig.Script("@modelcontextprotocol/conformance/dist/index.js")
	if err != nil {
		return nil, err
	}
	out, err := os.MkdirTemp("", "bailiwick-suite-*")
	if err != nil {
		return nil, fmt.Errorf("make a folder for results: %w", err)
	}
	args := []string{script, "server", "--url", c.URL, "-o", out}
	if c.Scenario != "" {
		args = append(args, "--scenario", c.Scenario)
	} else {
		args = append(args, "--requirements", c.Revision)
	}
	text, runErr := exec.CommandContext(ctx, node, args...).CombinedOutput()
	checks, err := read(out)
	// The suite exits with 1 when a check fails, so only a run without results
	// is an error.
	if err == nil && len(checks) == 0 {
		err = fmt.Errorf("run the conformance suite: no results (%w)\n%s", errors.Join(runErr, ctx.Err()), text)
	}
	return checks, errors.Join(err, os.RemoveAll(out))
}

// resultDir is how the suite names the folder of a scenario's results.
var resultDir = regexp.MustCompile(`^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$`)

func read(dir string) ([]Check, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	if err != nil {
		return nil, fmt.Errorf("find results: %w", err)
	}
	var all []Check
	for _, f := range files {
		name := resultDir.FindStringSubmatch(filepath.Base(filepath.Dir(f)))
		if name == nil {
			return nil, fmt.Errorf("read results: %s is not named as expected", f)
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read results: %w", err)
		}
		var checks []struct {
			ID           string
			Status       string
			ErrorMessage string
		}
		if err := json.Unmarshal(text, &checks); err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		for _, c := range checks {
			all = append(all, Check{Scenario: name[1], ID: c.ID, Status: c.Status, Message: c.ErrorMessage})
		}
	}
	slices.SortStableFunc(all, func(a, b Check) int { return cmp.Compare(a.Scenario, b.Scenario) })
	return all, nil
}
