package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newBreakers(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "breakers",
		Short:   "List the circuit breakers of the running gateway that are open",
		Example: "  bailiwick breakers",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			list, err := app.ListBreakers(cmd.Context(), c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STATE\tSERVER\tAGENT\tTOOL\tTRIED AGAIN FROM")
			for _, b := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", b.State, b.Server, b.Agent, b.Tool, b.Until.Local().Format(time.DateTime))
			}
			return w.Flush()
		},
	}
}
