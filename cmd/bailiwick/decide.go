package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

func newDecide(o *options) *cobra.Command {
	var f questionFlags
	cmd := &cobra.Command{
		Use:   "decide",
		Short: "Ask the policies what they would say to one request",
		Long: `Decide one request by the policies and the catalogue as they stand in the files.
Nothing runs because of the answer, so nothing is recorded.

Exit code 0: allowed, 3: denied.`,
		Example: `  bailiwick decide --agent claude --action files/read_file --input '{"path":"/notes/a.txt"}'
  bailiwick decide --agent claude --action bank/send_money --label untrusted --input @payment.json
  bailiwick decide --file request.yaml --json`,
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
			a, err := app.Decide(c, q)
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(cmd, a)
			} else {
				err = printAnswer(cmd.OutOrStdout(), a)
			}
			if err == nil && !a.Allow {
				err = errDenied
			}
			return err
		},
	}
	f.register(cmd)
	return cmd
}

func printAnswer(w io.Writer, a app.Answer) error {
	word := "denied"
	if a.Allow {
		word = "allowed"
	}
	if _, err := fmt.Fprintf(w, "%s (%s)\n", word, a.Code); err != nil {
		return err
	}
	for _, p := range a.Policies {
		line := fmt.Sprintf("  %s %s at %s:%d", p.Effect, p.ID, p.File, p.Line)
		if p.Error != "" {
			line += ": " + p.Error
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// questionFlags are the flags that make up a request.
type questionFlags struct {
	app.Question
	file, input string
}

func (f *questionFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "read the request from a YAML or JSON `file` (- for standard input)")
	fl.StringVar(&f.Agent, "agent", "", "the agent's `id`")
	fl.StringSliceVar(&f.Groups, "group", nil, "a `group` of the agent (repeat for more)")
	fl.StringVar(&f.Subject, "subject", "", "the `person` the agent acts for")
	fl.StringVar(&f.Action, "action", "", "the operation, `server/tool` or mcp:method")
	fl.StringVar(&f.Server, "server", "", "the `server`, for a method")
	fl.StringVar(&f.input, "input", "", "the arguments as `JSON`, or @file")
	fl.StringSliceVar(&f.Session.Labels, "label", nil, "a `label` of the session (repeat for more)")
	fl.Int64Var(&f.Session.Calls, "calls", 0, "`calls` released in the session before")
	fl.Int64Var(&f.Session.Denials, "denials", 0, "`denials` in the session before")
}

// question reads the file, if one is named; flags win over it.
func (f *questionFlags) question(stdin io.Reader) (app.Question, error) {
	q := f.Question
	if f.file != "" {
		text, err := readArgument("@"+f.file, stdin)
		if err != nil {
			return q, err
		}
		var from app.Question
		if err := yaml.UnmarshalWithOptions(text, &from, yaml.Strict()); err != nil {
			return q, fmt.Errorf("%s: %s", f.file, yaml.FormatError(err, false, true))
		}
		q = f.over(from)
	}
	if f.input != "" {
		text, err := readArgument(f.input, stdin)
		if err != nil {
			return q, err
		}
		dec := json.NewDecoder(strings.NewReader(string(text)))
		dec.UseNumber()
		q.Input = nil
		if err := dec.Decode(&q.Input); err != nil {
			return q, fmt.Errorf("--input is not a JSON object: %w", err)
		}
	}
	return q, nil
}

// over lays the flags that were given over a request from a file.
func (f *questionFlags) over(q app.Question) app.Question {
	for _, s := range []struct {
		to   *string
		from string
	}{{&q.Agent, f.Agent}, {&q.Subject, f.Subject}, {&q.Action, f.Action}, {&q.Server, f.Server}} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if f.Groups != nil {
		q.Groups = f.Groups
	}
	if f.Session.Labels != nil {
		q.Session.Labels = f.Session.Labels
	}
	if f.Session.Calls != 0 {
		q.Session.Calls = f.Session.Calls
	}
	if f.Session.Denials != 0 {
		q.Session.Denials = f.Session.Denials
	}
	return q
}

// readArgument returns the text itself, or what "@file" or "@-" holds.
func readArgument(arg string, stdin io.Reader) ([]byte, error) {
	name, isFile := strings.CutPrefix(arg, "@")
	switch {
	case !isFile:
		return []byte(arg), nil
	case name == "-":
		return io.ReadAll(stdin)
	default:
		return os.ReadFile(name)
	}
}
