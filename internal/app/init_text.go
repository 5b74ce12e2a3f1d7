package app

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

//go:embed starter
var starter embed.FS

// A serverText is a server as the configuration's template wants it.
type serverText struct {
	Name, Where, Problem, Margin string
	URL, Command, Cwd, TokenFile string
	Args                         []string
	Env                          map[string]string
}

// Commented is the same server behind comment signs.
func (s serverText) Commented() serverText {
	s.Margin = "#"
	return s
}

func (c InitConfig) configText(servers []InitServer) ([]byte, error) {
	var data struct{ Active, Inactive []serverText }
	for _, s := range servers {
		f := s.found
		t := serverText{
			Name: s.Name, Where: oneLine(strings.Join(s.Files, " and ")), Problem: oneLine(s.Problem),
			URL: f.URL, Command: f.Command, Args: f.Args, Env: f.Env, Cwd: f.Cwd,
		}
		if f.Token != "" {
			t.TokenFile = tokenFile(s.Name)
		}
		if s.Problem == "" {
			data.Active = append(data.Active, t)
		} else {
			data.Inactive = append(data.Inactive, t)
		}
	}
	return fill("bailiwick.yaml.tmpl", data)
}

// fill executes one of the starter templates.
func fill(name string, data any) ([]byte, error) {
	t, err := template.New(name).Funcs(template.FuncMap{"quote": quoteYAML}).ParseFS(starter, "starter/"+name)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("fill in %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// quoteYAML writes a value as JSON, which is among the ways to write YAML.
func quoteYAML(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// oneLine makes what a server or a library said fit for a comment.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "..."
	}
	return strings.TrimSuffix(s, ".")
}

func agentsText(hash string) []byte {
	return fmt.Appendf(nil, `# The agents that may call, and the hashes of their keys. A key itself is
# nowhere: 'bailiwick agents add' shows one once. Policies name agents as
# Agent::"id" and groups as Group::"name".
agents:
  - id: %s
    groups: [%s]
    key: "%s"
`, InitialAgent, initGroup, hash)
}

// catalogText writes the overlay that guesses suggest, for review.
func catalogText(lock *catalog.Lock) []byte {
	var b strings.Builder
	b.WriteString(`# What the tools do, in your words. Policies speak of effects, so read this
# through: what follows was guessed from names and from what the servers say
# about themselves, and a server may lie.
#
#   effects    read         only reads
#              write        changes something
#              destructive  destroys something
#              external     reaches outside the organisation
#   authority  the arguments that carry authority: a recipient, an amount, a path
#   outputs    outsiders: true if strangers can write what the tool returns; the
#              session is then labelled "untrusted"
#   groups     action groups of your own, for policies
#
# A tool that is not named here counts as destructive and external.
`)
	pins := lock.Pins()
	if len(pins) == 0 {
		b.WriteString("servers: {}\n")
		return []byte(b.String())
	}
	b.WriteString("servers:\n")
	server := ""
	for _, p := range pins {
		if p.Server != server {
			server = p.Server
			fmt.Fprintf(&b, "  %s:\n    tools:\n", server)
		}
		writeSuggestion(&b, p)
	}
	return []byte(b.String())
}

func writeSuggestion(b *strings.Builder, p catalog.Pin) {
	s := catalog.Suggest(p.Definition)
	if s.Why != "" {
		fmt.Fprintf(b, "      # %s\n", oneLine(s.Why))
	}
	fmt.Fprintf(b, "      %s:\n        effects: [%s]\n", mustQuote(p.Tool), strings.Join(s.Effects, ", "))
	if len(s.Authority) > 0 {
		quoted := make([]string, len(s.Authority))
		for i, a := range s.Authority {
			quoted[i] = mustQuote(a)
		}
		fmt.Fprintf(b, "        authority: [%s]\n", strings.Join(quoted, ", "))
	}
	if s.Outsiders {
		b.WriteString("        outputs: {outsiders: true}\n")
	}
}

// mustQuote is quoteYAML where it cannot fail: strings always encode.
func mustQuote(s string) string {
	q, err := quoteYAML(s)
	if err != nil {
		panic(err)
	}
	return q
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// starterPolicies fills in the example with a tool that there is, if possible
// one that destroys nothing.
func starterPolicies(lock *catalog.Lock) ([]byte, error) {
	data := struct{ Word, Action, Argument string }{"write-file", "files/write_file", `context.input.path like "/srv/notes/*"`}
	for _, p := range lock.Pins() {
		effects := catalog.Suggest(p.Definition).Effects
		// A name is the server's own choice of bytes; only a plain one may stand
		// in a policy file, where it could end the comment.
		if !plainName.MatchString(p.Tool) || slices.Contains(effects, catalog.EffectRead) {
			continue
		}
		data.Word, data.Action, data.Argument = strings.ReplaceAll(p.Tool, "_", "-"), p.Server+"/"+p.Tool, ""
		if !slices.Contains(effects, catalog.EffectDestructive) {
			break
		}
	}
	return fill("starter.cedar.tmpl", data)
}

// starterTests are tests of the starter policies, on tools that there are.
func starterTests(v *pdp.Version, lock *catalog.Lock) ([]byte, error) {
	var b strings.Builder
	b.WriteString(`# What the policies promise: requests, and the answer that each must get.
# 'bailiwick policy test' runs this; add a test with every policy.
- name: every agent may ask what there is
  agent: desktop
  action: mcp:tools/list
  server: any
  expect: allow
  policies: [discover]
`)
	allowed, denied := false, false
	for _, p := range lock.Pins() {
		q := Question{Agent: InitialAgent, Groups: []string{initGroup}, Action: p.Server + "/" + p.Tool, Input: exampleInput(p.Definition)}
		req, err := q.Ask(v)
		if err != nil {
			continue // its arguments are more than an example can guess
		}
		name, expect, known := "whatever no policy names is denied", "deny\n  code: no_permit", &denied
		if v.Program.Authorize(req).Allow {
			name, expect, known = "tools that only read are allowed", "allow\n  policies: [reads]", &allowed
		}
		if *known {
			continue
		}
		*known = true
		input, err := quoteYAML(q.Input)
		if err != nil {
			return nil, fmt.Errorf("write the tests of the policies: %w", err)
		}
		fmt.Fprintf(&b, "\n- name: %s\n  agent: %s\n  groups: [%s]\n  action: %s\n  input: %s\n  expect: %s\n",
			name, InitialAgent, initGroup, mustQuote(q.Action), input, expect)
	}
	return []byte(b.String()), nil
}

// exampleInput makes up values for the arguments that a tool requires.
func exampleInput(definition json.RawMessage) map[string]any {
	type schema struct {
		Type any   `json:"type"`
		Enum []any `json:"enum"`
	}
	var tool struct {
		InputSchema struct {
			Properties map[string]schema `json:"properties"`
			Required   []string          `json:"required"`
		} `json:"inputSchema"`
	}
	input := map[string]any{}
	if json.Unmarshal(definition, &tool) != nil {
		return input
	}
	for _, name := range tool.InputSchema.Required {
		s := tool.InputSchema.Properties[name]
		if len(s.Enum) > 0 {
			input[name] = s.Enum[0]
			continue
		}
		switch s.Type {
		case "integer", "number":
			input[name] = 1
		case "boolean":
			input[name] = true
		case "array":
			input[name] = []any{}
		case "object":
			input[name] = map[string]any{}
		default:
			input[name] = "example"
		}
	}
	return input
}
