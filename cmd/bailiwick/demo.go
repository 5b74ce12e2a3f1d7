package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

func newDemo(o *options) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play a story: an injected mail, a bank, and the gateway between",
		Long: `Play a story through the real gateway, once observing and once enforcing: an
agent reads mail, and one of the mails orders it to send money away.

The demo brings two MCP servers of its own, with state in memory. Its
configuration, policies and evidence stay in a directory. Change the policies
there and play it again.`,
		Example: `  bailiwick demo
  bailiwick demo --dir /tmp/story`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the demo's `directory` (default: a new temporary one)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		binary, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		if dir == "" {
			if dir, err = os.MkdirTemp("", "bailiwick-demo-"); err != nil {
				return fmt.Errorf("make the demo's directory: %w", err)
			}
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return fmt.Errorf("find the demo's directory: %w", err)
		}
		r, err := app.Demo(cmd.Context(), app.DemoConfig{Dir: dir, Binary: binary})
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd, r)
		}
		printDemo(newPage(cmd.OutOrStdout()), r, commandName(binary))
		return nil
	}
	cmd.AddCommand(newDemoServer())
	return cmd
}

// newDemoServer serves one of the story's servers on standard input and
// output: what the demo's configuration starts.
func newDemoServer() *cobra.Command {
	return &cobra.Command{
		Use:    "server mailbox|bank",
		Short:  "Serve one of the demo's MCP servers on standard input and output",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return app.DemoServer(cmd.Context(), args[0])
		},
	}
}

// commandName is what a person types to run this program again: its name if
// the shell would find it, and its path if not.
func commandName(binary string) string {
	name := filepath.Base(binary)
	if found, err := exec.LookPath(name); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil && found == binary {
			return name
		}
	}
	return quoteShell(binary)
}

// quoteShell quotes a word for a POSIX shell, if it has to be.
func quoteShell(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func printDemo(p *page, r *app.DemoReport, command string) {
	fmt.Fprintf(p, "%s\n%s\n", p.in(bold, "A mailbox, a bank, an agent, and a mail that gives orders"), p.rule())
	fmt.Fprintln(p, p.wrap(fmt.Sprintf("Maya asks her agent: %q", r.Task), 0))
	fmt.Fprintln(p, p.wrap("The agent is a script that believes what it reads. It speaks MCP over HTTP to the gateway, and the gateway to the two servers. One mail is not for Maya but for her agent:", 0))
	fmt.Fprintf(p, "\n   %s\n", p.in(yellow, "From: "+r.Mail.From))
	for line := range strings.Lines(r.Mail.Body) {
		fmt.Fprintln(p, strings.TrimRight("   "+p.in(yellow, p.wrap(line, 5)), " "))
	}
	for i, run := range r.Runs {
		title := "Observed: decided and recorded, but nothing is stopped"
		if run.Mode == "enforce" {
			title = "Enforced: the same agent, mails and policies"
		}
		printChapter(p, i+1, title)
		printRun(p, run)
	}
	printChapter(p, 3, "Why: for the operator; an agent never sees policies")
	printWhy(p, r.Runs[len(r.Runs)-1])
	printChapter(p, 4, "Proof: the record is what was signed")
	printProof(p, r)
	printChapter(p, 5, "Try next")
	printNext(p, r, command)
}

func printChapter(p *page, n int, title string) {
	fmt.Fprintf(p, "\n%s\n\n", p.in(bold, fmt.Sprintf("%d. %s", n, title)))
}

const actionWidth = 21

func printRun(p *page, run app.DemoRun) {
	for _, s := range run.Steps {
		printStep(p, s)
	}
	fmt.Fprintln(p)
	fmt.Fprintln(p, " ! the mail wants it, not Maya")
	if run.Mode == "observe" {
		fmt.Fprintln(p, " * policy denies it; it ran all the same, because the mode is observe")
	}
	if len(run.Hidden) > 0 {
		fmt.Fprintf(p, "   not even shown to the agent: %s\n", strings.Join(run.Hidden, ", "))
	}
	fmt.Fprintln(p)
	printOutcome(p, green, "done", run.Done)
	printOutcome(p, red, "lost", run.Lost)
	if len(run.Lost) == 0 {
		printOutcome(p, green, "lost", []string{"nothing"})
	}
}

func printStep(p *page, s app.DemoStep) {
	word, st := "allow", green
	switch {
	case s.Denial != nil:
		word, st = "deny", red
	case s.Effect != "allow":
		word, st = "ran*", yellow
	}
	gutter := " "
	if s.Injected {
		gutter = p.in(bold, "!")
	}
	summary := clip(printable(s.Summary), p.width-12-actionWidth)
	line := fmt.Sprintf(" %s %s  %s  %s", gutter, p.in(st, pad(word, 5)), pad(s.Action, actionWidth), summary)
	fmt.Fprintln(p, strings.TrimRight(line, " "))
	if s.Denial != nil {
		fmt.Fprintf(p, "          %s\n", p.in(dim, p.wrap("told: "+printable(s.Denial.Message)+" ("+s.Denial.Code+")", 10)))
	}
	if s.Failure != "" {
		fmt.Fprintf(p, "          %s\n", p.wrap("failed: "+printable(s.Failure), 10))
	}
}

func printOutcome(p *page, st style, word string, what []string) {
	for _, w := range what {
		fmt.Fprintf(p, "   %s  %s\n", p.in(st, word), p.wrap(printable(w), 9))
	}
}

// printWhy says what determined the denials, and the text of the first policy
// that did.
func printWhy(p *page, run app.DemoRun) {
	text, width := "", 0
	for _, s := range run.Steps {
		for _, ref := range s.Policies {
			width = max(width, len(ref.Effect)+1+len(ref.ID))
		}
	}
	for _, s := range run.Steps {
		if s.Effect == "allow" {
			continue
		}
		if text == "" {
			text = s.Text
		}
		fmt.Fprintf(p, "   %s  %s  %s\n", p.in(red, "deny "), pad(s.Action, actionWidth), policyNames(p, s, width))
	}
	if text == "" {
		return
	}
	fmt.Fprintln(p)
	for line := range strings.Lines(text) {
		fmt.Fprintf(p, "   %s\n", p.in(cyan, strings.TrimSuffix(line, "\n")))
	}
}

// policyNames names what determined a decision in a column of the given width,
// and where each stands.
func policyNames(p *page, s app.DemoStep, width int) string {
	if len(s.Policies) == 0 {
		return "no policy permits it (" + code(s.Reasons) + ")"
	}
	column := "\n" + strings.Repeat(" ", 12+actionWidth)
	var names []string
	for _, ref := range s.Policies {
		name, place := ref.Effect+" "+ref.ID, fmt.Sprintf("%s:%d", ref.File, ref.Line)
		between := column
		if fits := 12 + actionWidth + width + 2 + len(place); fits <= p.width {
			between = strings.Repeat(" ", width-len(name)+2)
		}
		names = append(names, p.in(bold, name)+between+p.in(cyan, place))
	}
	return strings.Join(names, column)
}

func code(reasons []authz.Reason) string {
	if len(reasons) == 0 {
		return authz.ReasonInternal
	}
	return reasons[0].Code
}

func printProof(p *page, r *app.DemoReport) {
	word := p.in(green, "verified")
	if !r.Log.Verified {
		word = p.in(red, "NOT VERIFIED")
	}
	fmt.Fprintf(p, "   %s  %s\n", word, p.wrap(fmt.Sprintf("%d entries in a Merkle tree, %d signed checkpoints; %d calls released, %d outcomes",
		r.Log.Size, r.Log.Checkpoints, r.Log.Released, r.Log.Outcomes), 13))
	printFaults(p, r.Log.Faults)
	t := r.Tampered
	fmt.Fprintf(p, "   %s   %s\n", p.in(yellow, "changed"), p.wrap(fmt.Sprintf("one byte of a copy, at %d in %s: %s became %s",
		t.Offset, relative(r.Dir, t.File), t.Was, t.Is), 13))
	if t.Report.Verified {
		fmt.Fprintf(p, "   %s\n", p.in(red, "NOT NOTICED"))
		return
	}
	printFaults(p, t.Report.Faults)
}

// relative is a path as seen from dir, where that is shorter.
func relative(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// printFaults says what verification found wrong.
func printFaults(p *page, faults []audit.Fault) {
	const some = 5
	for i, f := range faults {
		if i == some {
			fmt.Fprintf(p, "%16sand %d more\n", "", len(faults)-some)
			return
		}
		fmt.Fprintf(p, "   %s  %s\n", p.in(red, "verify says"), p.wrap(printable(f.String())+" ("+f.Code+")", 16))
	}
}

// printNext says which commands to try, so that they can be copied as they
// stand.
func printNext(p *page, r *app.DemoReport, command string) {
	fmt.Fprintf(p, "   cd %s\n\n", quoteShell(r.Dir))
	for _, n := range []struct{ what, command string }{
		{"every decision and what became of it", "audit tail"},
		{"who, what and why of the payment that was stopped, with its proof", "audit show " + firstDenied(r)},
		{"what verification says of the log, and of the copy", "audit verify"},
		{"", "audit verify " + relative(r.Dir, filepath.Dir(r.Tampered.File))},
		{"why the policies answer as they do", "policy explain --agent desk --label untrusted --action mailbox/delete_mail --input '{\"id\": \"m-3\"}'"},
		{"what the policies promise", "policy test"},
		{"let the payment pass: put \"NEW-0042\" among the known payees in policies/untrusted.cedar, and play again", "demo --dir ."},
		{"use the gateway with your own client: http://127.0.0.1:7430/mcp, the key is in agent.key", "serve"},
	} {
		if n.what != "" {
			fmt.Fprintf(p, "   %s\n", p.in(dim, "# "+strings.ReplaceAll(p.wrap(n.what, 5), "\n     ", "\n   # ")))
		}
		fmt.Fprintf(p, "   %s %s\n", command, n.command)
	}
}

// firstDenied is the id of the first decision that stopped a call.
func firstDenied(r *app.DemoReport) string {
	for _, s := range r.Runs[len(r.Runs)-1].Steps {
		if s.Denial != nil {
			return s.Decision
		}
	}
	return r.Runs[0].Steps[0].Decision
}
