package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// anyServer stands for all servers in the overlay.
const anyServer = "*"

// An Overlay is the operator's catalogue file (catalog.yaml), parsed.
type Overlay struct {
	file  overlayFile
	lines map[string]int
}

// overlayFile is the form of catalog.yaml.
type overlayFile struct {
	// Servers holds what is said by server; "*" is said of all.
	Servers map[string]serverRules `yaml:"servers"`
}

type serverRules struct {
	// Outputs is said of everything that the server returns: tools, resources
	// and prompts.
	Outputs outputRules `yaml:"outputs"`
	// Coaz binds the server to an application of the operator's schema: what is
	// asked of the server must be allowed there too, as the COAZ-MCP mappings
	// say, the server's own among them.
	Coaz string `yaml:"coaz"`
	// Tools holds what is said by tool: a name, or a pattern with "*".
	Tools map[string]toolRules `yaml:"tools"`
}

type toolRules struct {
	// Effects are the effect groups: read, write, destructive, external.
	Effects []string `yaml:"effects"`
	// Groups are the operator's own groups.
	Groups []string `yaml:"groups"`
	// Authority are the arguments that carry authority: those that say who gets
	// something, or what is changed or destroyed. Paths with dots. Nothing said:
	// all arguments. [] is none.
	Authority []string `yaml:"authority"`
	// Outputs is said of what the tool returns.
	Outputs outputRules `yaml:"outputs"`
	// Resource maps an argument to the entity that is touched.
	Resource *resourceRule `yaml:"resource"`
	// Numbers is "exact" (default: a number that a Cedar decimal cannot hold
	// is refused) or "round" (it is rounded to four places).
	Numbers string `yaml:"numbers"`
	// Undeclared is "refuse" or "allow": arguments that the tool does not
	// declare. Default: as the tool's schema says, and "refuse" if it says
	// nothing.
	Undeclared string `yaml:"undeclared"`
}

type outputRules struct {
	// Outsiders says that people outside the organisation can write what is
	// returned. It is the label "untrusted".
	Outsiders bool `yaml:"outsiders"`
	// Trust is how far what is returned can be trusted, as far as no field is
	// said of: "unknown", "outsiders", "structure", "directory" or "signed".
	// Default: "outsiders" with Outsiders, else "structure".
	Trust string `yaml:"trust"`
	// Fields say the same of fields, as paths with dots in which lists are looked
	// through and "*" stands for any name, and of all beneath them.
	Fields map[string]string `yaml:"fields"`
	// Format is "json" (default) or "yaml": how text is written that has fields.
	// "yaml" is for servers whose text is made by a YAML library. Text that is
	// not as it should be is trusted as little as any of its fields.
	Format string `yaml:"format"`
	// Confidentiality is how far what is returned may spread: "internal",
	// "private" or "secret". It is a label too.
	Confidentiality string `yaml:"confidentiality"`
	// Labels are further labels that a session gets.
	Labels []string `yaml:"labels"`
}

type resourceRule struct {
	// Type is the Cedar entity type.
	Type string `yaml:"type"`
	// ID is the argument that holds the id, as a path with dots.
	ID string `yaml:"id"`
}

// coaz is the application that a server is bound to.
func (o *Overlay) coaz(server string) string {
	if a := o.file.Servers[server].Coaz; a != "" {
		return a
	}
	return o.file.Servers[anyServer].Coaz
}

// ParseOverlay reads catalog.yaml. Unknown keys and values are errors that
// name the line. Names of servers, tools and arguments are checked by [New].
func ParseOverlay(text []byte) (*Overlay, error) {
	o := &Overlay{lines: map[string]int{}}
	if len(strings.TrimSpace(string(text))) == 0 {
		return o, nil
	}
	if err := yaml.UnmarshalWithOptions(text, &o.file, yaml.Strict()); err != nil {
		return nil, yamlProblem(err)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, yamlProblem(err)
	}
	for _, doc := range file.Docs {
		o.locate(nil, doc.Body)
	}
	if err := joinProblems(o.check()); err != nil {
		return nil, err
	}
	return o, nil
}

// yamlProblem says where the library stumbled.
func yamlProblem(err error) *Problem {
	p := &Problem{File: "catalog.yaml", Message: err.Error()}
	var y yaml.Error
	if errors.As(err, &y) {
		p.Message = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			p.Line = t.Position.Line
		}
	}
	return p
}

// locate notes the line of every key.
func (o *Overlay) locate(path []string, n ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			o.locate(path, v)
		}
	case *ast.MappingValueNode:
		at := append(slices.Clip(path), keyText(n.Key))
		o.lines[strings.Join(at, "\x00")] = n.Key.GetToken().Position.Line
		o.locate(at, n.Value)
	case *ast.AnchorNode:
		o.locate(path, n.Value)
	}
}

// keyText is the value of a key, without its quotes.
func keyText(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.GetToken().Value
}

func (o *Overlay) problem(path []string, format string, args ...any) *Problem {
	line := 0
	for n := len(path); n > 0 && line == 0; n-- {
		line = o.lines[strings.Join(path[:n], "\x00")]
	}
	return &Problem{File: "catalog.yaml", Line: line, Message: fmt.Sprintf(format, args...)}
}

var (
	groupName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)
	labelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`)
	typeName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
)

// check finds the mistakes that can be seen without knowing the tools.
func (o *Overlay) check() []*Problem {
	var ps []*Problem
	for _, server := range sortedKeys(o.file.Servers) {
		s := o.file.Servers[server]
		at := []string{"servers", server}
		ps = append(ps, o.checkOutputs(append(at, "outputs"), s.Outputs)...)
		for _, tool := range sortedKeys(s.Tools) {
			ps = append(ps, o.checkTool(append(slices.Clip(at), "tools", tool), s.Tools[tool])...)
		}
	}
	return ps
}

func (o *Overlay) checkTool(at []string, t toolRules) []*Problem {
	var ps []*Problem
	bad := func(key, format string, args ...any) {
		ps = append(ps, o.problem(append(slices.Clip(at), key), "%s: %s: %s", strings.Join(at, "."), key, fmt.Sprintf(format, args...)))
	}
	effects := []string{EffectRead, EffectWrite, EffectDestructive, EffectExternal}
	for _, e := range t.Effects {
		if !slices.Contains(effects, e) {
			bad("effects", "%q is not one of %s%s", e, strings.Join(effects, ", "), didYouMean(e, effects))
		}
	}
	if slices.Contains(t.Effects, EffectRead) && (slices.Contains(t.Effects, EffectWrite) || slices.Contains(t.Effects, EffectDestructive)) {
		bad("effects", "read is for tools that only read, so that a permit for it lets no change through: leave it out of [%s]", strings.Join(t.Effects, ", "))
	}
	for _, g := range t.Groups {
		if !groupName.MatchString(g) || slices.Contains(append(effects, EffectDiscover), g) {
			bad("groups", "%q cannot be a group: letters, digits, '_', '.' and '-', and not the name of an effect", g)
		}
	}
	if !slices.Contains([]string{"", "exact", "round"}, t.Numbers) {
		bad("numbers", "%q is neither \"exact\" nor \"round\"", t.Numbers)
	}
	if !slices.Contains([]string{"", "refuse", "allow"}, t.Undeclared) {
		bad("undeclared", "%q is neither \"refuse\" nor \"allow\"", t.Undeclared)
	}
	if r := t.Resource; r != nil {
		if !typeName.MatchString(r.Type) || strings.Contains(r.Type, "__") || keptWord(r.Type) || slices.Contains(baseTypes, r.Type) {
			bad("resource", "%q cannot be the type of a resource: letters, digits and '_', and not a type that Bailiwick or Cedar has", r.Type)
		}
		if r.ID == "" {
			bad("resource", "it needs an id: the argument that says which %s is touched", r.Type)
		}
	}
	return append(ps, o.checkOutputs(append(slices.Clip(at), "outputs"), t.Outputs)...)
}

func (o *Overlay) checkOutputs(at []string, r outputRules) []*Problem {
	ps := o.checkTrust(at, r)
	for _, l := range r.Labels {
		if !labelName.MatchString(l) {
			ps = append(ps, o.problem(append(slices.Clip(at), "labels"), "%s: %q cannot be a label: letters, digits, '_', '.', ':' and '-'", strings.Join(at, "."), l))
		}
	}
	return ps
}

// A match is a rule that applies to a tool.
type match struct {
	server, pattern string
	rules           toolRules
}

func (m match) path(key string) []string {
	return []string{"servers", m.server, "tools", m.pattern, key}
}

// rank orders rules by how closely they name a tool.
func (m match) rank() int {
	r := len(strings.ReplaceAll(m.pattern, "*", ""))
	if !isPattern(m.pattern) {
		r += 1 << 16
	}
	if m.server != anyServer {
		r += 1 << 20
	}
	return r
}

func isPattern(s string) bool { return strings.Contains(s, "*") }

// matches are the rules for a tool, the closest last.
func (o *Overlay) matches(l *Lock, server, tool string) []match {
	var out []match
	for _, s := range []string{anyServer, server} {
		for pattern, rules := range o.file.Servers[s].Tools {
			if l.matches(s, pattern, tool) {
				out = append(out, match{s, pattern, rules})
			}
		}
	}
	slices.SortFunc(out, func(a, b match) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.pattern, b.pattern))
	})
	return out
}

// serverOutputs is what is said of everything that a server returns.
func (o *Overlay) serverOutputs(server string) []outputRules {
	said := []outputRules{o.file.Servers[anyServer].Outputs}
	if server != anyServer {
		said = append(said, o.file.Servers[server].Outputs)
	}
	return said
}

// glob matches a name with a pattern in which "*" stands for any characters.
func glob(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, p)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

// matches reports whether a rule of a server is for a tool. A name that a tool
// of that server really has is never a pattern: a server that calls a tool
// "*" must not have what is said of it said of all.
func (l *Lock) matches(server, pattern, tool string) bool {
	if _, isName := l.Find(server, pattern); isName {
		return pattern == tool
	}
	return glob(pattern, tool)
}

// A toolWord is what the overlay says of one tool: the closest rule where one
// must win, all of them where they add up.
type toolWord struct {
	effects   []string
	groups    []string
	authority []authorityWord
	// undecided: nothing is said of authority, not even that nothing has any.
	undecided  bool
	outputs    []outputRules
	labels     []string
	resource   *resourceRule
	resourceAt match
	numbers    string
	undeclared string
}

type authorityWord struct {
	path string
	from match
}

// word sums up the rules for a tool.
func (o *Overlay) word(l *Lock, server, tool string) (toolWord, []*Problem) {
	var w toolWord
	var ps []*Problem
	w.outputs, w.undecided = o.serverOutputs(server), true
	ms := o.matches(l, server, tool)
	for i, m := range ms {
		if i > 0 && ms[i-1].rank() == m.rank() && disagree(ms[i-1].rules, m.rules) {
			ps = append(ps, o.problem(m.path(""), "servers.%s.tools: %q and %q say different things about %q: name it in full",
				m.server, ms[i-1].pattern, m.pattern, tool))
		}
		r := m.rules
		if len(r.Effects) > 0 {
			w.effects = r.Effects
		}
		if r.Resource != nil {
			w.resource, w.resourceAt = r.Resource, m
		}
		w.numbers = cmp.Or(r.Numbers, w.numbers)
		w.undeclared = cmp.Or(r.Undeclared, w.undeclared)
		w.groups = append(w.groups, r.Groups...)
		w.outputs = append(w.outputs, r.Outputs)
		w.undecided = w.undecided && r.Authority == nil
		for _, a := range r.Authority {
			w.authority = append(w.authority, authorityWord{a, m})
		}
	}
	w.groups, w.labels = sortedSet(w.groups), labelsOf(w.outputs)
	return w, ps
}

// disagree reports whether two rules cannot both win.
func disagree(a, b toolRules) bool {
	return len(a.Effects) > 0 && len(b.Effects) > 0 && !slices.Equal(sortedSet(a.Effects), sortedSet(b.Effects)) ||
		a.Resource != nil && b.Resource != nil && *a.Resource != *b.Resource ||
		a.Numbers != "" && b.Numbers != "" && a.Numbers != b.Numbers ||
		a.Undeclared != "" && b.Undeclared != "" && a.Undeclared != b.Undeclared
}

// names finds the servers and tools in the overlay that do not exist.
func (o *Overlay) names(l *Lock) []*Problem {
	var ps []*Problem
	servers := l.Servers()
	for _, server := range sortedKeys(o.file.Servers) {
		rules := o.file.Servers[server]
		if server != anyServer && !slices.Contains(servers, server) {
			ps = append(ps, o.problem([]string{"servers", server}, "servers.%s: no tool of a server of this name is pinned%s", server, didYouMean(server, servers)))
			continue
		}
		tools := l.tools(server)
		for _, pattern := range sortedKeys(rules.Tools) {
			if server == anyServer && isPattern(pattern) || slices.ContainsFunc(tools, func(t string) bool { return l.matches(server, pattern, t) }) {
				continue
			}
			ps = append(ps, o.problem([]string{"servers", server, "tools", pattern},
				"servers.%s.tools: %q matches no pinned tool%s", server, pattern, didYouMean(pattern, tools)))
		}
	}
	return ps
}

// tools are the names of the pinned tools of a server, or of all.
func (l *Lock) tools(server string) []string {
	var out []string
	for _, p := range l.Pins() {
		if server == anyServer || p.Server == server {
			out = append(out, p.Tool)
		}
	}
	return sortedSet(out)
}

func sortedSet(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
