package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newInit(o *options) *cobra.Command {
	var c app.InitConfig
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a configuration from the MCP servers that your clients use",
		Long: `Find the MCP servers in the configuration files of Claude Desktop, Claude Code,
Cursor, VS Code, Windsurf, Zed and Gemini CLI, ask each for its tools, pin these,
and write a configuration, a catalogue and policies to start from: agents may
look, and do nothing else.

The clients' own files are not changed. Existing files are never replaced,
unless --force says so. The new agent's key is printed to standard output, once.`,
		Example: `  bailiwick init
  bailiwick init --dir /etc/bailiwick --client ~/.cursor/mcp.json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&c.Dir, "dir", ".", "the `directory` to write to")
	cmd.Flags().StringArrayVar(&c.Clients, "client", nil, "read this client `file` instead of the usual ones (repeat for more)")
	cmd.Flags().BoolVar(&c.Force, "force", false, "replace files that exist; the agent gets a new key")
	cmd.Flags().DurationVar(&c.Timeout, "timeout", time.Minute, "how long to wait for one server")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if c.Dir, err = filepath.Abs(c.Dir); err != nil {
			return fmt.Errorf("find the directory: %w", err)
		}
		c.Progress = func(s string) { fmt.Fprintf(cmd.ErrOrStderr(), "%s ...\n", s) }
		r, err := app.Init(cmd.Context(), c)
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd, r)
		}
		binary, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		p := newPage(cmd.ErrOrStderr())
		printInit(p, r)
		fmt.Fprintf(p, "The key of the agent %q is shown only now; %s keeps a hash of it:\n\n", r.Agent, "agents.yaml")
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), r.Key); err != nil {
			return err
		}
		return printInitNext(p, r, binary)
	}
	return cmd
}

func printInit(p *page, r *app.InitReport) {
	for _, f := range r.Clients {
		if f.Error != "" {
			fmt.Fprintf(p, "%s  %s: %s\n", p.in(yellow, "warning"), f.Path, p.wrap(printable(f.Error), 9))
		}
	}
	if len(r.Servers) == 0 {
		fmt.Fprintln(p, p.wrap("No MCP server was found in the files of the clients that this looks for. Add yours to bailiwick.yaml, or name a client's file with --client.", 0))
	} else {
		fmt.Fprintf(p, "\n%s\n", p.in(bold, "MCP servers found"))
	}
	width := 0
	for _, s := range r.Servers {
		width = max(width, len(s.Name))
	}
	for _, s := range r.Servers {
		state := p.in(green, fmt.Sprintf("%d tools pinned", s.Tools))
		if s.Problem != "" {
			state = p.in(yellow, "left out: ") + p.wrap(printable(s.Problem), width+14)
		}
		fmt.Fprintf(p, "  %s  %s\n", pad(s.Name, width), state)
		how := s.URL
		if s.Command != "" {
			how = strings.Join(append([]string{s.Command}, s.Args...), " ")
		}
		fmt.Fprintf(p, "  %s  %s\n", pad("", width), p.in(dim, clip(printable(how), p.width-width-4)))
		if s.Secrets && s.Problem == "" {
			fmt.Fprintf(p, "  %s  %s\n", pad("", width), p.wrap("its environment or token was copied from the client: keep it out of version control", width+4))
		}
	}
	fmt.Fprintf(p, "\n%s %s\n", p.in(bold, "Written to"), r.Dir)
	for _, f := range r.Files {
		fmt.Fprintf(p, "  %s\n", f)
	}
	fmt.Fprintln(p)
}

func printInitNext(p *page, r *app.InitReport, binary string) error {
	command, config := commandName(binary), filepath.Join(r.Dir, app.DefaultConfigFile)
	gateway, err := snippet("bailiwick", clientServer{
		Type: "http", URL: "http://" + r.Listen + "/mcp", Headers: map[string]string{"Authorization": "Bearer THE-KEY"},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p, "\n%s\n", p.in(bold, "Next"))
	fmt.Fprintf(p, "  1. %s\n", p.wrap("Read catalog.yaml: it says what each tool does, and was guessed.", 5))
	fmt.Fprintf(p, "  2. %s\n", p.wrap("See that all is well, then start the gateway:", 5))
	fmt.Fprintf(p, "       %s doctor --config %s\n", command, quoteShell(config))
	fmt.Fprintf(p, "       %s serve --config %s\n", command, quoteShell(config))
	fmt.Fprintf(p, "  3. %s\n\n%s\n", p.wrap("In your client's file, put the gateway in place of its servers:", 5), gateway)
	for _, s := range r.Servers {
		if s.Command == "" || s.Problem != "" {
			continue
		}
		wrapped, err := snippet(s.Name, clientServer{
			Command: binary,
			Args:    append([]string{"run", "--config", config, "--server", s.Name, "--", s.Command}, s.Args...),
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(p, "     %s\n\n%s\n", p.wrap("Or wrap a server where it is, without a gateway to run:", 5), wrapped)
		break
	}
	return nil
}

// A clientServer is an entry of a client's file.
type clientServer struct {
	Type    string            `json:"type,omitempty"`
	URL     string            `json:"url,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Command string            `json:"command,omitempty"`
	Args    []string          `json:"args,omitempty"`
}

// snippet is one server as most clients write it, indented to be copied.
func snippet(name string, server clientServer) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("       ", "  ")
	if err := enc.Encode(map[string]clientServer{name: server}); err != nil {
		return "", fmt.Errorf("write the client's snippet: %w", err)
	}
	return "       " + b.String(), nil
}
