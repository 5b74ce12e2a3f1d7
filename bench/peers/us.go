package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// us is this tree's "bailiwick serve", asked through the AuthZEN API with a
// key, as a gate of somebody else's would. Decisions are recorded durably
// before they are answered, which no peer here does.
func us() *server {
	key, hash := identity.NewKey()
	return &server{
		name: "bailiwick", version: "this tree",
		layout: "`bailiwick serve`, AuthZEN with a bearer key, every decision durable; groups and attributes in the server",
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
		ask:    askUs,
		header: "Authorization: Bearer " + key + "\r\n",
		yes:    `"decision":true`, no: `"decision":false`,
	}
}

// askUs asks as [askAuthZEN], with the names of [ourSchema].
func askUs(_ *workload, q question) (string, any) {
	body := q.authzen()
	body["context"] = ourContext(q)
	return "/access/v1/evaluation", body
}

func ourContext(q question) object {
	return object{"danger": q.risk, "amount": q.amount, "hour": q.hour}
}

// unrecorded is the same server without the record, which the product cannot be
// told to leave out: what the decision itself costs.
func unrecorded() *server {
	s := us()
	s.name, s.layout = "unrecorded", "the same, and no decision recorded"
	s.binary = self
	s.write = func(write func(string, string, *workload) ([]string, error)) func(string, string, *workload) ([]string, error) {
		return func(dir, addr string, w *workload) ([]string, error) {
			_, err := write(dir, addr, w)
			return []string{"-serve", "unrecorded"}, err
		}
	}(s.write)
	return s
}

// serveUnrecorded serves the directory that it is started in.
func serveUnrecorded(ctx context.Context) error {
	c, err := app.LoadConfig("bailiwick.yaml")
	if err != nil {
		return err
	}
	n, err := app.Start(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	n.PDP.Log = &forgetful{}
	if err := n.Listen(); err != nil {
		return errors.Join(err, n.Close(ctx))
	}
	return errors.Join(n.Wait(ctx), n.Close(context.WithoutCancel(ctx)))
}

// A forgetful recorder says that it has recorded, and has not.
type forgetful struct{ index atomic.Uint64 }

func (f *forgetful) Append(context.Context, audit.Record) (audit.Receipt, error) {
	return audit.Receipt{Index: f.index.Add(1)}, nil
}

func (f *forgetful) Post(audit.Record) error { return nil }

// ourSchema is [cedarSchema] as an application: Cedar lets no namespace have
// the plane's own names.
const ourSchema = `namespace Bench {
	entity group;
	entity agent in [group] { clearance: Long };
	entity tool { sensitivity: Long };
	action call_tool appliesTo {
		principal: [agent], resource: [tool],
		context: { danger: Long, amount: Long, hour: Long },
	};
}
`

// ourNames are the names of [cedarPolicies] in the application.
var ourNames = strings.NewReplacer(
	`Group::`, `Bench::group::`, `Tool::`, `Bench::tool::`, `Action::`, `Bench::Action::`,
	`context.risk`, `context.danger`, // risk is what the plane itself says
	`(principal, action, resource)`, `(principal, action == Bench::Action::"call_tool", resource)`,
)

// writeUs writes the directory that bailiwick serves: the same policies as for
// plain Cedar, the agents with their groups, and the asking gate.
func writeUs(dir, addr, keyHash string, w *workload) error {
	errs := []error{os.MkdirAll(filepath.Join(dir, "policies"), 0o755)}
	for name, text := range ourFiles(addr, keyHash, w) {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}

func ourFiles(addr, keyHash string, w *workload) map[string]string {
	var entities strings.Builder
	entities.WriteString("entities:\n")
	for t, s := range w.sensitivity {
		fmt.Fprintf(&entities, "  - {type: Bench::tool, id: t%d, attributes: {sensitivity: %d}}\n", t, s)
	}
	for g := range w.groups {
		fmt.Fprintf(&entities, "  - {type: Bench::group, id: g%d}\n", g)
	}
	for i, a := range w.agents {
		var parents []string
		for _, g := range slices.Compact(slices.Sorted(slices.Values(a.groups))) {
			parents = append(parents, fmt.Sprintf("{type: Bench::group, id: g%d}", g))
		}
		fmt.Fprintf(&entities, "  - {type: Bench::agent, id: a%d, attributes: {clearance: %d}, parents: [%s]}\n", i, a.clearance, strings.Join(parents, ", "))
	}
	files := map[string]string{
		"bailiwick.yaml":     fmt.Sprintf("listen: %q\nentities: {files: [entities.yaml]}\n", addr),
		"agents.yaml":        fmt.Sprintf("peps:\n  - {id: gate, key: %q, application: Bench, subjects: [agent]}\n", keyHash),
		"schema.cedarschema": ourSchema,
		"entities.yaml":      entities.String(),
	}
	// A file of policies has a bound.
	rules := strings.SplitAfter(ourNames.Replace(cedarPolicies(w)), ";\n")
	for i := 0; len(rules) > 0; i++ {
		n := min(len(rules), 2000)
		files[fmt.Sprintf("policies/rules%d.cedar", i)] = strings.Join(rules[:n], "")
		rules = rules[n:]
	}
	return files
}
