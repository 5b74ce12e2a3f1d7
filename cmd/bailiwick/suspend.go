package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newSuspend(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "suspend KIND ID --reason TEXT",
		Short: "Suspend an agent, session, person, tool, server or group at once",
		Long: `Suspend something in every process of this installation, and in the gates that
depend on it: nothing is decided for it any more, its calls in flight are cut and
its streams end. The command is done when all of them have confirmed; one that
cannot be reached denies by itself within 5 seconds.

KIND is agent, session (the id that records have), owner (the person acted for),
tool (<server>/<tool>), server, or group. It works with nothing running too.`,
		Example: `  bailiwick suspend agent billing-bot --reason "sends money to strangers"
  bailiwick suspend tool bank/send_money --reason "incident 4711"`,
		Args: exactly(2, "suspend KIND ID"),
		RunE: func(cmd *cobra.Command, args []string) error { return suspend(cmd, o, args[0], args[1], reason) },
	}
	reasonFlag(cmd, &reason, "why, for the record")
	return cmd
}

func newKill(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "kill --reason TEXT",
		Short: "Stop everything: no agent may do anything until 'bailiwick resume all'",
		Long: `Suspend everything: every request is denied, calls in flight are cut and streams
end, in every process of this installation and in the gates that depend on it.`,
		Example: `  bailiwick kill --reason "somebody is in our systems"`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return suspend(cmd, o, "all", "", reason) },
	}
	reasonFlag(cmd, &reason, "why, for the record")
	return cmd
}

func newResume(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "resume (KIND ID | all)",
		Short: "Resume what was suspended",
		Example: `  bailiwick resume agent billing-bot
  bailiwick resume all`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 2 || len(args) == 1 && args[0] == "all" {
				return nil
			}
			return usageError{errors.New("what is to be resumed? bailiwick resume KIND ID, or bailiwick resume all")}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return resume(cmd, o, args[0], strings.Join(args[1:], ""), reason)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record (`text`)")
	return cmd
}

func newAgentsSuspend(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "suspend ID --reason TEXT",
		Short:   "Suspend an agent at once: the same as 'bailiwick suspend agent ID'",
		Example: `  bailiwick agents suspend billing-bot --reason "sends money to strangers"`,
		Args:    exactly(1, "agents suspend ID"),
		RunE:    func(cmd *cobra.Command, args []string) error { return suspend(cmd, o, "agent", args[0], reason) },
	}
	reasonFlag(cmd, &reason, "why, for the record")
	return cmd
}

func newAgentsResume(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "resume ID",
		Short:   "Resume a suspended agent: the same as 'bailiwick resume agent ID'",
		Example: "  bailiwick agents resume billing-bot",
		Args:    exactly(1, "agents resume ID"),
		RunE:    func(cmd *cobra.Command, args []string) error { return resume(cmd, o, "agent", args[0], reason) },
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record (`text`)")
	return cmd
}

func newSuspensions(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "suspensions",
		Short:   "List what is suspended, since when, by whom and why",
		Example: "  bailiwick suspensions",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			list, err := app.ListSuspensions(cmd.Context(), c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "KIND\tID\tSINCE\tBY\tREASON")
			for _, s := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Type, s.ID, s.Since.Local().Format(time.DateTime), s.By, s.Reason)
			}
			return w.Flush()
		},
	}
}

// suspend suspends and says what that means.
func suspend(cmd *cobra.Command, o *options, kind, id, reason string) error {
	if reason == "" {
		return usageError{errors.New("why? --reason is for the record")}
	}
	return changeSuspension(cmd, o, func(c *app.Config) error { return app.Suspend(cmd.Context(), c, kind, id, reason) },
		strings.TrimSpace(kind+" "+id)+" is suspended, everywhere")
}

func resume(cmd *cobra.Command, o *options, kind, id, reason string) error {
	return changeSuspension(cmd, o, func(c *app.Config) error { return app.Resume(cmd.Context(), c, kind, id, reason) },
		strings.TrimSpace(kind+" "+id)+" is resumed")
}

func changeSuspension(cmd *cobra.Command, o *options, change func(*app.Config) error, done string) error {
	c, err := app.LoadConfig(o.config)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := change(c); err != nil {
		if errors.Is(err, app.ErrUnconfirmed) {
			err = fmt.Errorf("saved, but not every process has confirmed it; one that runs takes it over, or denies everything, within 5 seconds: %w", err)
		}
		return err
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s (%s)\n", done, time.Since(start).Round(time.Millisecond))
	return err
}

// exactly wants n arguments.
func exactly(n int, usage string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{errors.New("usage: bailiwick " + usage)}
		}
		return nil
	}
}

func reasonFlag(cmd *cobra.Command, reason *string, usage string) {
	cmd.Flags().StringVar(reason, "reason", "", usage+" (`text`, required)")
}
