package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newVersion(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := app.Version()
			if o.json {
				return printJSON(cmd, v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "bailiwick %s (%s)\n", v.Version, v.Go)
			return err
		},
	}
}
