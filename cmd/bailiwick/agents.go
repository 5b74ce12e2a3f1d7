package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newAgents(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List agents, and give them keys",
	}
	cmd.AddCommand(newAgentsList(o), newAgentsShow(o), newAgentsAdd(o), newAgentsRotate(o), newAgentsRetire(o), newAgentsSuspend(o), newAgentsResume(o))
	return cmd
}

func newAgentsShow(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show what the agents file says of an agent",
		Example: "  bailiwick agents show billing-bot",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			a, err := app.ShowAgent(c, args[0])
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, a)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, line := range [][2]string{
				{"Agent", a.ID}, {"State", a.State}, {"Owner", a.Owner}, {"Purpose", a.Purpose}, {"Model", a.Model}, {"Groups", strings.Join(a.Groups, ", ")},
			} {
				if line[1] != "" {
					fmt.Fprintf(w, "%s:\t%s\n", line[0], line[1])
				}
			}
			for _, cred := range a.Credentials {
				fmt.Fprintf(w, "Credential:\t%s\n", credentialLine(cred))
			}
			return w.Flush()
		},
	}
}

// credentialLine says what may be said of a credential.
func credentialLine(c app.CredentialInfo) string {
	line := c.Kind
	if c.Label != "" {
		line += " " + strconv.Quote(c.Label)
	}
	if name := c.SPIFFE + c.Certificate; name != "" {
		line += " " + name
	}
	switch {
	case c.Expires.IsZero():
	case time.Now().Before(c.Expires):
		line += ", until " + c.Expires.UTC().Format(time.RFC3339)
	default:
		line += ", expired " + c.Expires.UTC().Format(time.RFC3339)
	}
	return line
}

func newAgentsRotate(o *options) *cobra.Command {
	var label string
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Give an agent another key and print it, once",
		Long: `Give an agent another key and print it. The keys that it has work on for the
overlap, so that the agent can be given the new one without a pause; with an
overlap of 0 they end at once. A running gateway takes the change over.`,
		Example: "  bailiwick agents rotate billing-bot --overlap 1h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if overlap < 0 {
				return errors.New("an overlap is not negative")
			}
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			key, err := app.RotateAgent(c, args[0], label, overlap)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, map[string]string{"agent": args[0], "key": key})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Agent %s has another key in %s. It is shown only now:\n", args[0], c.Agents)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
	cmd.Flags().StringVar(&label, "label", "", "what tells the key from others (default: the time)")
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "for how long the keys so far work on")
	return cmd
}

func newAgentsRetire(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "retire ID",
		Short: "End an agent for good",
		Long: `End an agent for good: it is denied everything, whoever vouches for it, and its
credentials are removed. The entry stays, so that nobody takes the id that stands
in the records. A running gateway takes the change over.`,
		Example: "  bailiwick agents retire billing-bot",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			if err := app.RetireAgent(c, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Agent %s is retired in %s.\n", args[0], c.Agents)
			return nil
		},
	}
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
			fmt.Fprintln(w, "AGENT\tSTATE\tOWNER\tGROUPS\tKEY")
			for _, a := range list {
				key := "none"
				if a.HasKey {
					key = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.ID, a.State, a.Owner, strings.Join(a.Groups, ", "), key)
			}
			return w.Flush()
		},
	}
}

func newAgentsAdd(o *options) *cobra.Command {
	var a app.Agent
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Add an agent and print its key, once",
		Long: `Add an agent to the agents file and print its key. The file keeps only a hash of
the key: it cannot be shown again. A running gateway takes the change over.`,
		Example: "  bailiwick agents add billing-bot --group billing --owner finance@example.com --purpose 'Pays approved invoices'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			a.ID = args[0]
			key, err := app.AddAgent(c, a)
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
	cmd.Flags().StringVar(&a.Owner, "owner", "", "the `person` or team that answers for it")
	cmd.Flags().StringVar(&a.Purpose, "purpose", "", "what it is for")
	cmd.Flags().StringVar(&a.Model, "model", "", "the model that drives it")
	cmd.Flags().StringSliceVar(&a.Groups, "group", nil, "a `group` that the agent is in (repeat for more)")
	return cmd
}
