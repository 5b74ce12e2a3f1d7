package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newPolicy(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, test and explain the policies",
		Long: `The policies are the *.cedar files of the policy directory. They are checked
against the catalogue: a policy that names a tool, an argument or a type that
does not exist is an error. Tests stand beside them in *_test.yaml files.`,
	}
	cmd.AddCommand(newPolicyCheck(o), newPolicyTest(o), newPolicyExplain(o), newPolicyAblate(o), newPolicyPack())
	return cmd
}

func newPolicyCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "check",
		Short:   "Check the policies against the catalogue",
		Long:    "Check the policies against the catalogue, and print what is wrong as\nfile:line:column: message, files relative to the configuration.",
		Example: "  bailiwick policy check\n  bailiwick policy check --json | jq '.problems[].message'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			check, err := app.CheckPolicies(c)
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(cmd, check)
			} else {
				err = printCheck(cmd.OutOrStdout(), check)
			}
			if err == nil && len(check.Problems) > 0 {
				err = errFailed
			}
			return err
		},
	}
}

func printCheck(w io.Writer, check app.PolicyCheck) error {
	for _, problem := range check.Problems {
		if _, err := fmt.Fprintln(w, printable(problem.String())); err != nil {
			return err
		}
	}
	if len(check.Problems) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "policies: %d, problems: none, version: %s\n", check.Policies, shortDigest(check.Version))
	return err
}

func newPolicyPack() *cobra.Command {
	return &cobra.Command{
		Use:   "pack [PRESET]",
		Short: "Print a policy pack, or the names of all",
		Long: `Print a preset of the policy pack about provenance: where the values of an
action may come from. It fits every catalogue, and only takes back: write it
beside policies that permit what your agents may do. Without a preset, print the
names of all, one a line.`,
		Example: "  bailiwick policy pack balanced > policies/provenance.cedar\n  bailiwick policy check",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(app.Packs(), "\n"))
				return err
			}
			text, err := app.Pack(args[0])
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}

func newPolicyTest(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: "Run the tests beside the policies",
		Long: `Run the tests in the *_test.yaml files of the policy directory. A file is a
list of requests, each with the answer that the policies must give:

  - name: small payments pass
    agent: claude
    groups: [staff]
    action: bank/send_money
    input: {recipient: bob, amount: 50}
    session: {labels: [untrusted], calls: 3}
    expect: allow
    policies: [small-payments]

Required are name, agent, action and expect (allow or deny). Further: code,
policies, subject, auth, server, resource {type, id}, gate, now,
risk {score, reasons}, and of the session also id, denials and started. Without
now the test is of the present.`,
		Example: "  bailiwick policy test\n  bailiwick policy test --json | jq '.tests[] | select(.pass | not)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			r, err := app.TestPolicies(c)
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(cmd, r)
			} else {
				err = printTests(cmd.OutOrStdout(), cmd.ErrOrStderr(), r)
			}
			if err == nil && r.Failed > 0 {
				err = errFailed
			}
			return err
		},
	}
}

func newPolicyAblate(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "ablate",
		Short: "Say which recorded decisions hang on one signal of risk",
		Long: `Decide the recorded decisions again under the policies in force, without one
signal of risk after the other. A decision that would be another without a
signal hangs on that signal alone: whoever can silence it, or set it off, has
that decision in hand.

The scorecard, policies/scorecard.yaml, says how many points a signal may add:

  caps: {rate: 15, sequence: 15, change: 25, denials: 15, sensitivity: 15,
         untrusted: 20, destination: 15, hour: 10}
  flag: 60   # from this score on nothing is learnt from an action`,
		Example: "  bailiwick policy ablate\n  bailiwick policy ablate --json | jq '.signals[] | select(.decisive > 0)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			a, err := app.Ablate(cmd.Context(), c)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, a)
			}
			return printAblation(cmd.OutOrStdout(), a)
		},
	}
}

func printAblation(w io.Writer, a app.Ablation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %8s %8s\n", "signal", "counted", "decisive")
	for _, s := range a.Signals {
		fmt.Fprintf(&b, "%-12s %8d %8d  %s\n", s.Signal, s.Counted, s.Decisive, printable(strings.Join(s.Examples, " ")))
	}
	fmt.Fprintf(&b, "%d decisions decided again, %d skipped\n", a.Decisions, a.Skipped)
	_, err := io.WriteString(w, b.String())
	return err
}

func printTests(out, people io.Writer, r app.PolicyTestReport) error {
	p := newPage(out)
	var b strings.Builder
	for _, t := range r.Tests {
		word := p.in(green, "pass")
		if !t.Pass {
			word = p.in(red, "FAIL")
		}
		fmt.Fprintf(&b, "%s  %s:%d: %s\n", word, t.File, t.Line, printable(t.Name))
		if t.Pass {
			continue
		}
		fmt.Fprintf(&b, "      %s\n", printable(t.Failure))
		for _, ref := range t.Answer.Policies {
			fmt.Fprintf(&b, "      %s\n", refText(ref))
		}
	}
	fmt.Fprintf(&b, "%d passed, %d failed\n", r.Passed, r.Failed)
	if _, err := io.WriteString(p, b.String()); err != nil {
		return err
	}
	switch {
	case len(r.Tests) == 0:
		_, err := fmt.Fprintln(people, "note: there are no tests: 'bailiwick policy test --help' shows how to write one")
		return err
	case len(r.Untested) > 0:
		_, err := fmt.Fprintf(people, "note: no test is decided by %s\n", strings.Join(r.Untested, ", "))
		return err
	}
	return nil
}

func newPolicyExplain(o *options) *cobra.Command {
	var f questionFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say why the policies answer a request as they do",
		Long: `Ask the policies about one request and say why they answer as they do: which
policies decided, which others were considered and what test they failed, and
which came close. Nothing runs and nothing is recorded.

The explanation quotes policies and the values of the request.`,
		Example: `  bailiwick policy explain --agent claude --action bank/send_money --input '{"recipient":"bob","amount":50}'
  bailiwick policy explain --agent claude --group staff --action mail/search --label untrusted
  bailiwick policy explain --file request.yaml --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.LoadConfig(o.config)
			if err != nil {
				return err
			}
			q, err := f.question(cmd.InOrStdin())
			if err != nil {
				return usageError{err}
			}
			e, err := app.ExplainPolicies(c, q)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd, e)
			}
			return printExplanation(cmd.OutOrStdout(), e)
		},
	}
	f.register(cmd)
	return cmd
}

func printExplanation(w io.Writer, e app.PolicyExplanation) error {
	p := newPage(w)
	var b strings.Builder
	word := p.in(red, "denied")
	if e.Allow {
		word = p.in(green, "allowed")
	}
	fmt.Fprintf(&b, "%s (%s): %s\n", word, e.Code, because(e.Code))
	if len(e.Considered) == 0 {
		b.WriteString("\nNo policy has a scope that fits.\n")
	} else {
		b.WriteString("\nPolicies whose scope fits:\n")
	}
	for _, c := range e.Considered {
		explainConsidered(&b, c)
	}
	if e.Omitted > 0 {
		fmt.Fprintf(&b, "  and %d more\n", e.Omitted)
	}
	if len(e.Near) > 0 {
		b.WriteString("\nPolicies that came close:\n")
	}
	for _, n := range e.Near {
		explainNear(&b, n)
	}
	_, err := io.WriteString(p, b.String())
	return err
}

// because says what a code means to an operator.
func because(code string) string {
	switch code {
	case authz.ReasonPolicyAllow:
		return "a permit is satisfied, and no forbid"
	case authz.ReasonForbidden:
		return "a forbid is satisfied"
	case authz.ReasonPolicyError:
		return "a policy could not be evaluated"
	default:
		return "no permit is satisfied"
	}
}

func explainConsidered(b *strings.Builder, p app.ConsideredPolicy) {
	fmt.Fprintf(b, "  %s: %s\n", refText(p.PolicyRef), p.Outcome)
	if p.Failed == nil {
		return
	}
	fmt.Fprintf(b, "      %s is %t\n", printable(p.Failed.Text), !p.Failed.Want)
	for _, v := range p.Failed.Values {
		fmt.Fprintf(b, "        %s = %s\n", printable(v.Expression), printable(v.Value))
	}
}

func explainNear(b *strings.Builder, p app.NearPolicy) {
	fmt.Fprintf(b, "  %s\n      wants %s, the %s is %s\n", refText(p.PolicyRef), printable(p.Wants), p.Part, printable(p.Has))
	if p.Outcome != "satisfied" {
		fmt.Fprintf(b, "      its condition is not satisfied either\n")
	}
}

// refText names a policy with its place, and its error if it has one.
func refText(p authz.PolicyRef) string {
	text := fmt.Sprintf("%s %s at %s:%d", p.Effect, p.ID, p.File, p.Line)
	if p.Error != "" {
		text += ": " + p.Error
	}
	return printable(text)
}
