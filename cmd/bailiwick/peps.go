package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newPEPs(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peps",
		Short: "List the enforcement points that may ask, and give them keys",
	}
	cmd.AddCommand(newPEPsList(o), newPEPsAdd(o))
	return cmd
}

func newPEPsList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the enforcement points of the agents file",
		Example: "  bailiwick peps list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			list, err := app.ListPEPs(c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PEP\tAPPLICATION\tSPEAKS FOR\tMAY SUPPLY\tRELAYS\tPROMPTS")
			for _, p := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, p.Application, strings.Join(p.Subjects, ", "), strings.Join(p.Asserts, ", "), yes(p.Relays), yes(p.Prompts))
			}
			return w.Flush()
		},
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func newPEPsAdd(o *options) *cobra.Command {
	var p app.PEP
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Add an enforcement point and print its key, once",
		Long: `Add an enforcement point to the agents file and print its key, which it shows as
a bearer token. The file keeps only a hash of it. It may do what the flags say
and nothing else. A running gateway takes the change over.`,
		Example: `  bailiwick peps add crm --application Records --subject user --assert user.role
  bailiwick peps add edge-envoy --relay
  bailiwick peps add chat --subject Agent --prompts`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			p.ID = args[0]
			key, err := app.AddPEP(c, p)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, map[string]string{"pep": p.ID, "key": key})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Enforcement point %s was added to %s. Its key is shown only now:\n", p.ID, c.Agents)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Application, "application", "", "the `namespace` of the schema that it asks about")
	f.StringSliceVar(&p.Subjects, "subject", nil, "a `type` of subject that it speaks for (repeat for more)")
	f.StringSliceVar(&p.Asserts, "assert", nil, "an attribute that it may supply, `type.attribute` (repeat for more)")
	f.BoolVar(&p.Relays, "relay", false, "it passes the credentials of agents on, and reports outcomes")
	f.BoolVar(&p.Prompts, "prompts", false, "it relays what the user says: only for the program that the user types into")
	return cmd
}
