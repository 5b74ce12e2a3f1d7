package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newBudgets(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "budgets",
		Short: "List the budgets in use, and when they are full again",
		Long: `List how the budgets of the configuration stand that are in use: of the running
gateway, with what calls in flight have reserved, or as they were saved last.`,
		Example: "  bailiwick budgets",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			list, err := app.ListBudgets(cmd.Context(), c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "BUDGET\tPER\tSUBJECT\tUSED\tLIMIT\tFULL AGAIN")
			for _, s := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", s.Budget, s.Per, s.Subject, s.Used, s.Limit, s.Frees.Local().Format(time.DateTime))
			}
			return w.Flush()
		},
	}
}
