package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

func newAudit(o *options) *cobra.Command {
	a := &auditOptions{options: o}
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read, search, verify and export the evidence",
		Long: `The evidence is a log of every decision and its outcome, written before anything
runs. Each record is a leaf of a Merkle tree whose root is signed with every
commit, so that a change to any of them can be found by whoever has the public
key (checkpoint.pub in the evidence directory).

These commands only read. They work while a server writes.`,
	}
	cmd.PersistentFlags().StringVar(&a.dir, "dir", "", "the evidence or data `directory` (default: that of the configuration)")
	cmd.AddCommand(newAuditTail(a), newAuditSearch(a), newAuditShow(a), newAuditVerify(a), newAuditExport(a))
	return cmd
}

type auditOptions struct {
	*options
	dir string
}

// read opens the evidence, calls f, and closes it.
func (a *auditOptions) read(ctx context.Context, f func(*app.Evidence) error) error {
	e, err := a.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(e), e.Close())
}

func (a *auditOptions) open(ctx context.Context) (*app.Evidence, error) {
	if a.dir != "" {
		return app.OpenEvidenceDir(ctx, a.dir)
	}
	c, err := app.LoadConfig(a.config)
	if err != nil {
		return nil, err
	}
	return app.OpenEvidence(ctx, c)
}

// printHit prints one record as a line: of JSON, or for people.
func (a *auditOptions) printHit(p *page, h audit.Hit) error {
	if a.json {
		enc := json.NewEncoder(p)
		enc.SetEscapeHTML(false)
		return enc.Encode(h)
	}
	_, err := fmt.Fprintln(p, hitLine(p, h))
	return err
}

func newAuditTail(a *auditOptions) *cobra.Command {
	var (
		n      int
		follow bool
	)
	cmd := &cobra.Command{
		Use:     "tail",
		Short:   "Print the newest records",
		Example: "  bailiwick audit tail -n 50\n  bailiwick audit tail -f --json | jq 'select(.record.effect == \"deny\")'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 0 {
				return usageError{errors.New("-n is a number of records, 0 or more")}
			}
			return a.read(cmd.Context(), func(e *app.Evidence) error {
				return a.tail(cmd.Context(), e, newPage(cmd.OutOrStdout()), n, follow)
			})
		},
	}
	cmd.Flags().IntVarP(&n, "lines", "n", 20, "how many `records`")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print new records as they are written, until interrupted")
	return cmd
}

func (a *auditOptions) tail(ctx context.Context, e *app.Evidence, p *page, n int, follow bool) error {
	next, err := e.Size(ctx)
	if err != nil {
		return err
	}
	hits, err := e.Tail(ctx, n)
	if err != nil {
		return err
	}
	for _, h := range hits {
		if err := a.printHit(p, h); err != nil {
			return err
		}
		next = h.Index + 1
	}
	if !follow {
		return nil
	}
	err = e.Follow(ctx, next, func(r audit.Recorded) error { return a.printHit(p, audit.Hit{Recorded: r}) })
	if ctx.Err() != nil {
		return nil // interrupted, as it is meant to be
	}
	return err
}

func newAuditSearch(a *auditOptions) *cobra.Command {
	var (
		q            audit.Query
		kind         string
		since, until string
	)
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Find records, the newest first",
		Long: `Find records, the newest first. Every condition narrows the search.

Exit code 0 also when nothing is found.`,
		Example: `  bailiwick audit search --effect deny --since 24h
  bailiwick audit search --agent billing-bot --action bank/send_money --text "DE89"
  bailiwick audit search --policy send-money --json | jq .record.why`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			now := time.Now()
			if q.Since, err = parseTime(since, now); err != nil {
				return usageError{fmt.Errorf("--since: %w", err)}
			}
			if q.Until, err = parseTime(until, now); err != nil {
				return usageError{fmt.Errorf("--until: %w", err)}
			}
			if q.Limit < 1 {
				return usageError{errors.New("--limit is a number of records, 1 or more")}
			}
			q.Kind = audit.Kind(kind)
			return a.read(cmd.Context(), func(e *app.Evidence) error {
				hits, err := e.Search(cmd.Context(), q)
				if err != nil {
					return err
				}
				p := newPage(cmd.OutOrStdout())
				for _, h := range hits {
					if err := a.printHit(p, h); err != nil {
						return err
					}
				}
				if len(hits) == q.Limit && !a.json {
					fmt.Fprintf(cmd.ErrOrStderr(), "stopped at %d; for older ones add --before %d\n", q.Limit, hits[len(hits)-1].Index)
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&kind, "kind", "", "`kind` of record: decision, outcome or system")
	f.StringVar(&q.Agent, "agent", "", "the acting agent's `id`")
	f.StringVar(&q.For, "for", "", "the `person` the agent acted for")
	f.StringVar(&q.Action, "action", "", "the operation, `server/tool` or mcp:method")
	f.StringVar(&q.Server, "server", "", "the `server`")
	f.StringVar(&q.Effect, "effect", "", "`effect`: allow or deny; an outcome's status; a system act")
	f.StringVar(&q.Reason, "reason", "", "the `code` of a reason, such as no_permit")
	f.StringVar(&q.Policy, "policy", "", "the `id` of a determining policy")
	f.StringVar(&q.Session, "session", "", "the `session`")
	f.StringVar(&q.Decision, "decision", "", "the `id` of the decision")
	f.StringVar(&since, "since", "", "at or after this `time`: 2h, 7d, 2026-11-22 or 2026-11-22T10:00:00Z")
	f.StringVar(&until, "until", "", "before this `time`")
	f.StringVar(&q.Text, "text", "", "`text` anywhere in the record")
	f.Uint64Var(&q.Before, "before", 0, "only entries before this `index`")
	f.IntVar(&q.Limit, "limit", 100, "at most this many `records`")
	return cmd
}

// parseTime reads an instant, a day, or how long ago.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time (2026-11-22, 2026-11-22T10:00:00Z) nor how long ago (90m, 2h, 7d)", s)
}

func newAuditShow(a *auditOptions) *cobra.Command {
	var proof string
	cmd := &cobra.Command{
		Use:   "show DECISION|INDEX",
		Short: "Show one record with its proof",
		Long: `Show who asked for what, why it was answered as it was, and what became of it,
and prove that the record is in the signed log.`,
		Example: "  bailiwick audit show 17\n  bailiwick audit show d-01k9… --proof decision.tlog-proof",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("show takes the id of a decision, or the index of an entry")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.read(cmd.Context(), func(e *app.Evidence) error {
				s, err := showOne(cmd.Context(), e, args[0])
				if err != nil {
					return err
				}
				if proof != "" {
					if err := os.WriteFile(proof, []byte(s.Proof), 0o644); err != nil {
						return fmt.Errorf("write proof: %w", err)
					}
				}
				if a.json {
					return printJSON(cmd, s)
				}
				return printShown(newPage(cmd.OutOrStdout()), s, e)
			})
		},
	}
	cmd.Flags().StringVar(&proof, "proof", "", "also write the inclusion proof (c2sp.org/tlog-proof) to this `file`")
	return cmd
}

func showOne(ctx context.Context, e *app.Evidence, ref string) (audit.Shown, error) {
	if index, err := strconv.ParseUint(strings.TrimPrefix(ref, "#"), 10, 64); err == nil {
		return e.Show(ctx, index)
	}
	return e.ShowDecision(ctx, ref)
}

func newAuditVerify(a *auditOptions) *cobra.Command {
	var v app.Verification
	cmd := &cobra.Command{
		Use:   "verify [DIR|BUNDLE]",
		Short: "Recompute the log and compare it with what was signed",
		Long: `Recompute every commitment, every leaf, the tree and every signed checkpoint of an
evidence directory or an exported bundle. Each fault is named with its entry.

The public key decides what verification means. The key that lies beside the
evidence shows that the two fit. A key that you kept elsewhere (--key) shows
that the log is that node's. A checkpoint or proof that you kept elsewhere
(--checkpoint) shows that nothing has been cut off or rewritten since.

Exit code 0: verified, 1: not.`,
		Example: `  bailiwick audit verify
  bailiwick audit verify bundle.jsonl --key checkpoint.pub
  bailiwick audit verify .bailiwick --checkpoint yesterday.checkpoint`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.verifyPath(&v, args); err != nil {
				return err
			}
			r, err := v.Verify(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = printJSON(cmd, r)
			} else {
				err = printReport(newPage(cmd.OutOrStdout()), r)
			}
			if err == nil && !r.Verified {
				err = errFailed
			}
			return err
		},
	}
	cmd.Flags().StringVar(&v.KeyFile, "key", "", "the public key `file`, kept apart from the evidence")
	cmd.Flags().StringSliceVar(&v.CheckpointFiles, "checkpoint", nil, "a checkpoint or proof `file`, kept apart from the evidence (repeat for more)")
	return cmd
}

func (a *auditOptions) verifyPath(v *app.Verification, args []string) error {
	switch {
	case len(args) == 1:
		v.Path = args[0]
	case a.dir != "":
		v.Path = a.dir
	default:
		c, err := app.LoadConfig(a.config)
		if err != nil {
			return err
		}
		v.Path = c.Data
	}
	return nil
}

func newAuditExport(a *auditOptions) *cobra.Command {
	var (
		from, to uint64
		file     string
	)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write records as a bundle that can be verified elsewhere",
		Long: `Write entries as JSON Lines with everything that 'bailiwick audit verify' needs.
The range is widened to whole commits, because only those are signed.`,
		Example: "  bailiwick audit export -o evidence.jsonl\n  bailiwick audit export --from 1000 --to 2000 -o part.jsonl",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to != 0 && to <= from {
				return usageError{errors.New("--to is the index after the last entry, and so more than --from")}
			}
			return a.read(cmd.Context(), func(e *app.Evidence) error {
				x, err := export(cmd, e, from, to, file)
				if err != nil {
					return err
				}
				switch {
				case a.json && file != "-":
					return printJSON(cmd, x)
				default:
					_, err = fmt.Fprintf(cmd.ErrOrStderr(), "entries %d to %d of %s\n", x.First, x.Size-1, x.Origin)
					return err
				}
			})
		},
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "the `index` of the first entry")
	cmd.Flags().Uint64Var(&to, "to", 0, "the `index` after the last entry (default: all)")
	cmd.Flags().StringVarP(&file, "output", "o", "-", "the bundle's `file` (- for standard output)")
	return cmd
}

func export(cmd *cobra.Command, e *app.Evidence, from, to uint64, file string) (audit.Exported, error) {
	if file == "-" {
		return e.Export(cmd.Context(), from, to, cmd.OutOrStdout())
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return audit.Exported{}, fmt.Errorf("export: %w", err)
	}
	x, err := e.Export(cmd.Context(), from, to, f)
	return x, errors.Join(err, f.Close())
}
