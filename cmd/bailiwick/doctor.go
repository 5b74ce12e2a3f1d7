package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newDoctor(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that serve needs, and say what to do",
		Long: `Look at the configuration, catalogue, policies, agents, secrets, disk, evidence,
clock, upstreams and port. Every finding that is not ok says what to do next.

Doctor asks each upstream for its tools and calls none of them. It exits with 1
if something would keep the gateway from working.`,
		Example: `  bailiwick doctor
  bailiwick doctor --json | jq '.[] | select(.status != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := app.Doctor(cmd.Context(), o.config)
			if o.json {
				if err := printJSON(cmd, findings); err != nil {
					return err
				}
			} else {
				printFindings(newPage(cmd.OutOrStdout()), findings)
			}
			if slices.ContainsFunc(findings, func(f app.Finding) bool { return f.Status == app.FindingFailed }) {
				return errFailed
			}
			return nil
		},
	}
}

func printFindings(p *page, findings []app.Finding) {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Check))
	}
	counts := map[string]int{}
	for _, f := range findings {
		counts[f.Status]++
		indent := 9 + width + 2
		fmt.Fprintf(p, "%s  %s  %s\n", p.in(findingStyle(f.Status), pad(f.Status, 7)), pad(f.Check, width), p.wrap(printable(f.Detail), indent))
		if f.Next != "" {
			fmt.Fprintf(p, "%*s%s\n", indent, "", p.in(dim, p.wrap("-> "+printable(f.Next), indent)))
		}
	}
	fmt.Fprintf(p, "\n%d ok, %s, %d failed\n", counts[app.FindingOK], number(counts[app.FindingWarning], "warning"), counts[app.FindingFailed])
}

func findingStyle(status string) style {
	switch status {
	case app.FindingOK:
		return green
	case app.FindingWarning:
		return yellow
	default:
		return red
	}
}
