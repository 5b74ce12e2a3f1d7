package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newConfig(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Work with the configuration"}
	cmd.AddCommand(&cobra.Command{
		Use:     "check",
		Short:   "Check everything that serve would read, without starting",
		Example: "  bailiwick config check --config /etc/bailiwick/bailiwick.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			s, err := app.CheckConfig(cmd.Context(), c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, s)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %d servers, %d operations, %d policies, %d agents, %d enforcement points, %d entities, version %s\n",
				o.config, s.Servers, s.Operations, s.Policies, s.Agents, s.PEPs, s.Entities, s.Version)
			return err
		},
	})
	return cmd
}
