package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
)

func newCatalog(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "See and pin what agents can do",
		Long: `The catalogue is what agents can do. It is made from the tool definitions that
you have pinned (catalog.lock.json) and from what you say about them
(catalog.yaml). A tool whose server has changed its definition is denied until
you have looked at the change and pinned it again.`,
	}
	cmd.AddCommand(newCatalogList(o), newCatalogDiff(o), newCatalogPin(o), newCatalogSchema(o))
	return cmd
}

func newCatalogList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the operations with their effects and labels",
		Example: "  bailiwick catalog list\n  bailiwick catalog list --json | jq '.operations[] | select(.classified | not)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			l, err := app.ListCatalog(c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, l)
			}
			return printCatalog(cmd.OutOrStdout(), cmd.ErrOrStderr(), l)
		},
	}
}

func printCatalog(out, people io.Writer, l *app.CatalogList) error {
	p := newPage(out)
	width := len("ACTION")
	for _, e := range l.Operations {
		width = max(width, len([]rune(printable(e.Action))))
	}
	width = min(width, 48)
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s  %s\n", pad("ACTION", width), pad("EFFECTS", 26), pad("LABELS", 14), "PIN")
	for _, e := range l.Operations {
		fmt.Fprintf(&b, "%s  %s  %s  %s\n", pad(printable(e.Action), width), pad(effectsText(e), 26),
			pad(orDash(strings.Join(e.Labels, ",")), 14), shortDigest(e.Digest))
	}
	if _, err := io.WriteString(p, b.String()); err != nil {
		return err
	}
	return printCatalogNotes(people, l)
}

// printCatalogNotes tells people what they should look at.
func printCatalogNotes(w io.Writer, l *app.CatalogList) error {
	var notes []string
	var unclassified int
	for _, e := range l.Operations {
		if !e.Classified {
			unclassified++
		}
		for _, c := range e.Conflicts {
			notes = append(notes, printable(e.Action)+": "+c)
		}
	}
	if unclassified > 0 {
		notes = append(notes, fmt.Sprintf("%d operations marked ? are in no rule of catalog.yaml that states effects, and count as destructive and external", unclassified))
	}
	for _, s := range l.Unpinned {
		notes = append(notes, fmt.Sprintf("no tool of %s is pinned, so all are denied: bailiwick catalog pin %s", s, s))
	}
	for _, s := range l.Orphaned {
		notes = append(notes, fmt.Sprintf("%s has pinned tools and is not among the upstreams", s))
	}
	for _, n := range notes {
		if _, err := fmt.Fprintln(w, "note:", n); err != nil {
			return err
		}
	}
	return nil
}

func effectsText(e app.CatalogEntry) string {
	s := strings.Join(e.Effects, ",")
	if !e.Classified {
		s += " ?"
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shortDigest is enough of a digest to recognise it.
func shortDigest(d string) string {
	hex, ok := strings.CutPrefix(d, "sha256:")
	if !ok {
		return "-"
	}
	return hex[:min(12, len(hex))]
}

func newCatalogDiff(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "diff [SERVER...]",
		Short: "Compare what servers offer now with what is pinned",
		Long: `Ask the upstreams for their tools and show how these differ from the pinned
definitions. The exit code is 1 if anything differs or a server cannot be
asked.`,
		Example: "  bailiwick catalog diff\n  bailiwick catalog diff mailbox --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			diffs, err := app.DiffCatalog(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(cmd, diffs)
			} else {
				err = printDiffs(cmd.OutOrStdout(), diffs)
			}
			if err == nil && slices.ContainsFunc(diffs, app.ServerDiff.Differs) {
				return errFailed
			}
			return err
		},
	}
}

func printDiffs(out io.Writer, diffs []app.ServerDiff) error {
	p := newPage(out)
	var b strings.Builder
	for _, d := range diffs {
		switch {
		case d.Error != "":
			fmt.Fprintf(&b, "%s: %s\n", p.in(bold, d.Server), p.in(red, p.wrap(printable(d.Error), 2)))
		case !d.Differs():
			fmt.Fprintf(&b, "%s: %d tools, all as pinned\n", p.in(bold, d.Server), len(d.Tools))
		default:
			fmt.Fprintf(&b, "%s:\n", p.in(bold, d.Server))
			for _, t := range d.Tools {
				if t.State != catalog.StatePinned {
					writeDifference(&b, p, t)
				}
			}
		}
	}
	_, err := io.WriteString(p, b.String())
	return err
}

func writeDifference(b *strings.Builder, p *page, d catalog.Difference) {
	sign, colour := "!", yellow
	switch d.State {
	case catalog.StateNew:
		sign, colour = "+", green
	case catalog.StateGone:
		sign, colour = "-", red
	}
	fmt.Fprintf(b, "  %s %s %s\n", p.in(colour, sign), p.in(bold, catalog.Printable(d.Tool)), p.in(colour, string(d.State)))
	for _, c := range d.Changes {
		msg := c.Message
		if d.State == catalog.StateNew && c.Path != "" {
			msg = c.Path + ": " + msg
		}
		fmt.Fprintf(b, "      %s\n", p.wrap(msg, 6))
	}
}

func newCatalogPin(o *options) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "pin [SERVER[/TOOL]...]",
		Short: "Look at changed tools and pin them",
		Long: `Show how the tools that servers offer now differ from the pinned ones, ask, and
pin what was shown. Tools that a server no longer lists are removed from the
lock. Away from a terminal --yes must stand for the answer.`,
		Example: "  bailiwick catalog pin mailbox\n  bailiwick catalog pin mailbox/send_mail --yes\n  bailiwick catalog pin --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usageError{errors.New("name servers or tools to pin, or say --all")}
			}
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			return pin(cmd, o, c, args, yes)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "pin the differences of all upstreams")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func pin(cmd *cobra.Command, o *options, c *app.Config, args []string, yes bool) error {
	if len(args) == 0 {
		args = c.Servers()
	}
	targets := make([]app.PinTarget, len(args))
	var servers []string
	for i, a := range args {
		targets[i] = app.ParsePinTarget(a)
		if !slices.Contains(servers, targets[i].Server) {
			servers = append(servers, targets[i].Server)
		}
	}
	diffs, err := app.DiffCatalog(cmd.Context(), c, servers)
	if err != nil {
		return err
	}
	chosen, err := app.SelectPins(diffs, targets)
	if err != nil {
		return err
	}
	if len(chosen) > 0 {
		if err := confirmPins(cmd, chosen, yes); err != nil {
			return err
		}
		if err := app.PinCatalog(c, chosen); err != nil {
			return err
		}
	}
	if o.json {
		return printJSON(cmd, map[string]any{"pinned": append([]catalog.Difference{}, chosen...)})
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%d tools pinned in %s\n", len(chosen), c.Lock); err != nil {
		return err
	}
	// The pins are written and right by themselves. What catalog.yaml still
	// says of tools that are gone is for the operator to put in order.
	if _, err := app.LoadCatalog(c); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the catalogue needs a look now: %v\n", err)
	}
	return nil
}

// confirmPins shows the differences and asks. It returns an error unless the
// answer is yes.
func confirmPins(cmd *cobra.Command, chosen []catalog.Difference, yes bool) error {
	people := newPage(cmd.ErrOrStderr())
	var b strings.Builder
	server := ""
	for _, d := range chosen {
		if d.Server != server {
			server = d.Server
			fmt.Fprintf(&b, "%s:\n", people.in(bold, server))
		}
		writeDifference(&b, people, d)
	}
	if _, err := io.WriteString(people, b.String()); err != nil {
		return err
	}
	if yes {
		return nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("nobody can be asked here: look at the differences above and add --yes")}
	}
	fmt.Fprintf(people, "Pin these %d tools? [y/N] ", len(chosen))
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		fmt.Fprintln(people, "Nothing was pinned.")
		return errFailed
	}
	return nil
}

func newCatalogSchema(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the Cedar schema that policies are checked against",
		Example: `  bailiwick catalog schema > bailiwick.cedarschema
  bailiwick catalog schema --json > bailiwick.cedarschema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			cat, err := app.LoadCatalog(c)
			if err != nil {
				return err
			}
			if !o.json {
				_, err = cmd.OutOrStdout().Write(cat.Schema())
				return err
			}
			text, err := cat.SchemaJSON()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(text))
			return err
		},
	}
}
