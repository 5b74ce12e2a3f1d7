// Command bailiwick is the authorization and governance plane for AI agents:
// one binary that decides, enforces and keeps the record.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

// The exit codes, the same for every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitDenied = 3
)

// errDenied ends a command whose answer is "denied". It has been printed.
var errDenied = errors.New("denied")

// errFailed ends a command that has already said what failed.
var errFailed = errors.New("failed")

// A usageError is the caller's mistake.
type usageError struct{ error }

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// options are the flags that every command has.
type options struct {
	config string
	json   bool
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "bailiwick: %v\n", err)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "bailiwick: %v\n", err)
		return exitFailed
	}
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "bailiwick",
		Short: "Authorization and governance for AI agents",
		Long: `Bailiwick stands between AI agents and their tools. Every action is decided
by policy, recorded before it runs, and can be proven afterwards.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q: 'bailiwick help' lists the commands", args[0])}
			}
			return cmd.Help()
		},
	}
	root.PersistentFlags().StringVarP(&o.config, "config", "c", app.DefaultConfigFile, "configuration `file`")
	root.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON to standard output")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newAgents(o), newPEPs(o),
		newAudit(o),
		newBreakers(o),
		newBudgets(o),
		newCatalog(o),
		newConfig(o),
		newDecide(o),
		newDemo(o),
		newDoctor(o),
		newInit(o),
		newKill(o),
		newPolicy(o),
		newResume(o),
		newRun(o),
		newServe(o),
		newSuspend(o),
		newSuspensions(o),
		newVersion(o),
	)
	return root
}
