package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// us is this tree's "bailiwick serve", asked through the AuthZEN API with a
// key, as a gate of somebody else's would. Decisions are recorded durably
// before they are answered, which no peer here does.
func us() *server {
	key, hash := identity.NewKey()
	return &server{
		name: "bailiwick", version: "this tree",
		layout: "`bailiwick serve`, AuthZEN with a bearer key; groups and attributes in the server",
		binary: func(ctx context.Context) (string, error) {
			dir, err := filepath.Abs(cache)
			if err != nil {
				return "", err
			}
			// Each time: the go command knows whether there is something to do.
			return filepath.Join(dir, "bailiwick"),
				run(ctx, ".", dir, "go", "build", "-trimpath", "-buildvcs=false", "-o", dir, "./cmd/bailiwick")
		},
		write: func(dir, addr string, w *workload) ([]string, error) {
			return []string{"serve", "--config", "bailiwick.yaml"}, writeUs(dir, addr, hash, w)
		},
		ask:    askAuthZEN,
		header: "Authorization: Bearer " + key + "\r\n",
		yes:    `"decision":true`, no: `"decision":false`,
	}
}

// writeUs writes the directory that bailiwick serves: the same policies as for
// plain Cedar, the agents with their groups, and one agent more, the asking
// gate, which has the key.
func writeUs(dir, addr, keyHash string, w *workload) error {
	var agents strings.Builder
	fmt.Fprintf(&agents, "agents:\n  - id: gate\n    key: %q\n", keyHash)
	for i := range w.agents {
		fmt.Fprintf(&agents, "  - id: a%d\n    groups: [%s]\n", i, strings.Join(w.groupNames(i), ", "))
	}
	errs := []error{os.MkdirAll(filepath.Join(dir, "policies"), 0o755)}
	for name, text := range map[string]string{
		"bailiwick.yaml":       fmt.Sprintf("listen: %q\n", addr),
		"agents.yaml":          agents.String(),
		"policies/rules.cedar": cedarPolicies(w),
	} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}
