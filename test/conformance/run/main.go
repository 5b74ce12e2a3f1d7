// Command run holds the MCP conformance suite against a gateway and against
// the everything-server itself, and lists what the gateway loses.
//
//	go run ./test/conformance/run -up 127.0.0.1:9101 -requirements 2026-07-28 -url http://127.0.0.1:7430/mcp/everything
//
// starts an everything-server at the given address, which the gateway has as
// its upstream, and runs. With -serve it only keeps the everything-server
// running; without -url it makes the direct run only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
	"github.com/bailiwick-dev/bailiwick/test/internal/suite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	err = errors.Join(err, rig.Clean())
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	url := flags.String("url", "", "the gateway's `endpoint`; empty for the direct run only")
	up := flags.String("up", "", "`address` of the everything-server that is started; a free port if empty")
	revision := flags.String("requirements", suite.Modern, "`revision` whose requirements are run")
	scenario := flags.String("scenario", "", "run one scenario only")
	serve := flags.Bool("serve", false, "only run the everything-server until interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p, direct, err := rig.StartEverything(ctx, *up, *revision == suite.Modern)
	if err != nil {
		return err
	}
	defer p.Kill()
	fmt.Fprintf(stdout, "everything-server at %s\n", direct)
	if *serve {
		<-ctx.Done()
		return nil
	}
	want, err := suite.Run(ctx, suite.Config{URL: direct, Revision: *revision, Scenario: *scenario})
	if err != nil {
		return err
	}
	if *url == "" {
		return suite.Table(stdout, want, nil)
	}
	got, err := suite.Run(ctx, suite.Config{URL: *url, Revision: *revision, Scenario: *scenario})
	if err != nil {
		return err
	}
	if err := suite.Table(stdout, want, got); err != nil {
		return err
	}
	lost := suite.Lost(want, got)
	for _, l := range lost {
		fmt.Fprintln(stdout, "lost", l)
	}
	if len(lost) > 0 {
		return fmt.Errorf("%d checks are lost through the gateway", len(lost))
	}
	return nil
}
