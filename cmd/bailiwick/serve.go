package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newServe(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway in front of the configured MCP servers",
		Long: `Run the MCP gateway. Clients connect to http://ADDRESS/mcp for all servers
(tools are named <server>__<tool>), or to http://ADDRESS/mcp/<server> for one.

Policies, catalogue and agents are taken over when their files change; files
that are wrong change nothing.`,
		Example: `  bailiwick serve
  bailiwick serve --config /etc/bailiwick/bailiwick.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			n, err := app.Start(cmd.Context(), c, logger(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			if err := serve(cmd.Context(), n, cmd.ErrOrStderr(), c); err != nil {
				_ = n.Close(cmd.Context()) // the first error is the one to show
				return err
			}
			return n.Close(cmd.Context())
		},
	}
}

func serve(ctx context.Context, n *app.Node, stderr io.Writer, c *app.Config) error {
	if err := n.Listen(); err != nil {
		return err
	}
	if len(c.Upstreams) > 0 {
		fmt.Fprintf(stderr, "bailiwick: listening on %s/mcp for %d servers, mode %s\n", n.URL(), len(c.Upstreams), c.Mode)
	}
	if n.PDP == nil {
		fmt.Fprintf(stderr, "bailiwick: a gate of the PDP at %s\n", c.PDP.URL)
	} else {
		fmt.Fprintf(stderr, "bailiwick: enforcement points ask %s/access/v1/evaluation\n", n.URL())
	}
	return n.Wait(ctx)
}

func newRun(o *options) *cobra.Command {
	var agent string
	cmd := &cobra.Command{
		Use:   "run [--agent ID] [--server NAME] -- COMMAND [ARG...]",
		Short: "Wrap one stdio MCP server for a desktop client",
		Long: `Run one MCP server behind the gate, speaking MCP on standard input and output.
Put it into a desktop client's configuration in place of the server's command.

The server's name is that of the upstream with the same command in the
configuration, or what --server says.`,
		Example: `  bailiwick run -- npx -y @modelcontextprotocol/server-filesystem ~/notes
  bailiwick run --agent claude --server notes -- node server.js`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("no command given: bailiwick run -- COMMAND [ARG...]")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "desktop", "the agent's `id`, as policies know it")
	server := cmd.Flags().String("server", "", "the server's `name`, as policies know it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := app.LoadConfig(o.config)
		if err != nil {
			return err
		}
		n, err := app.StartRun(cmd.Context(), c, *server, args, logger(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		err = n.Gate.ServeStdio(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), authz.Credential{Kind: authz.CredentialLocal, Value: agent})
		if closed := n.Close(cmd.Context()); err == nil {
			err = closed
		}
		return err
	}
	return cmd
}

// logger writes operational logs as JSON. BAILIWICK_DEBUG adds detail; it
// changes nothing else.
func logger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("BAILIWICK_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}
