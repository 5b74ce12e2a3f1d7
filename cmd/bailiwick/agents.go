package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newAgents(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List agents and give them keys",
	}
	cmd.AddCommand(newAgentsList(o), newAgentsAdd(o), newAgentsSuspend(o), newAgentsResume(o))
	return cmd
}

func newAgentsList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the agents of the agents file",
		Example: "  bailiwick agents list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			list, err := app.ListAgents(c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "AGENT\tGROUPS\tKEY")
			for _, a := range list {
				key := "none"
				if a.HasKey {
					key = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", a.ID, strings.Join(a.Groups, ", "), key)
			}
			return w.Flush()
		},
	}
}

func newAgentsAdd(o *options) *cobra.Command {
	var groups []string
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Add an agent and print its key, once",
		Long: `Add an agent to the agents file and print its key. The file keeps only a hash of
the key: it cannot be shown again. A running gateway takes the change over.`,
		Example: "  bailiwick agents add billing-bot --group billing",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			key, err := app.AddAgent(c, args[0], groups)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, map[string]string{"agent": args[0], "key": key})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Agent %s was added to %s. Its key is shown only now:\n", args[0], c.Agents)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "a `group` that the agent is in (repeat for more)")
	return cmd
}
