package app

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// An AgentInfo is what may be shown of an agent.
type AgentInfo struct {
	ID          string           `json:"id"`
	Owner       string           `json:"owner,omitempty"`
	Purpose     string           `json:"purpose,omitempty"`
	Model       string           `json:"model,omitempty"`
	Groups      []string         `json:"groups,omitempty"`
	State       string           `json:"state"`
	HasKey      bool             `json:"has_key"`
	Credentials []CredentialInfo `json:"credentials,omitempty"`
}

// A CredentialInfo is what may be shown of a credential: of a key, nothing but
// that it is one.
type CredentialInfo struct {
	Kind string `json:"kind"`
	identity.AgentCredential
}

// ListAgents lists the agents of the agents file, by id.
func ListAgents(c *Config) ([]AgentInfo, error) {
	r, err := LoadAgents(c)
	if err != nil {
		return nil, err
	}
	list := []AgentInfo{}
	for _, a := range r.Agents() {
		info := AgentInfo{
			ID: a.ID, Owner: a.Owner, Purpose: a.Purpose, Model: a.Model, Groups: a.Groups,
			State: cmp.Or(string(a.State), string(identity.StateActive)),
		}
		for _, cred := range a.All() {
			info.HasKey = info.HasKey || cred.Kind() == "key"
			info.Credentials = append(info.Credentials, CredentialInfo{cred.Kind(), cred})
		}
		list = append(list, info)
	}
	return list, nil
}

// ShowAgent returns one agent of the agents file.
func ShowAgent(c *Config, id string) (AgentInfo, error) {
	list, err := ListAgents(c)
	if err != nil {
		return AgentInfo{}, err
	}
	for _, a := range list {
		if a.ID == id {
			return a, nil
		}
	}
	return AgentInfo{}, fmt.Errorf("%s has no agent %s", c.Agents, id)
}

// An Agent is an agent of the agents file.
type Agent = identity.Agent

// AddAgent adds an agent with a new key to the agents file and returns the key.
// a.Key is ignored.
func AddAgent(c *Config, a Agent) (string, error) {
	key, hash := identity.NewKey()
	a.Key = hash
	return key, addEntry(c, "agents", a.ID, []identity.Agent{a}, func(r *identity.Registry) int { return len(r.Agents()) })
}

// RotateAgent gives an agent another key and returns it. Its keys so far stop
// proving it after the overlap, unless they expire sooner; those that have
// expired are removed.
func RotateAgent(c *Config, id, label string, overlap time.Duration) (string, error) {
	key, hash := identity.NewKey()
	now := time.Now().UTC().Truncate(time.Second)
	return key, changeAgent(c, id, func(a *identity.Agent) {
		var kept []identity.AgentCredential
		for _, cred := range a.All() {
			if end := now.Add(overlap); cred.Key != "" && (cred.Expires.IsZero() || cred.Expires.After(end)) {
				cred.Expires = end
			}
			if cred.Expires.IsZero() || cred.Expires.After(now) {
				kept = append(kept, cred)
			}
		}
		if label == "" {
			label = now.Format(time.RFC3339)
		}
		a.Key, a.Credentials = "", append(kept, identity.AgentCredential{Label: label, Key: hash})
	})
}

// RetireAgent ends an agent for good. Its entry stays, without credentials.
func RetireAgent(c *Config, id string) error {
	return changeAgent(c, id, func(a *identity.Agent) {
		a.State, a.Key, a.Credentials = identity.StateRetired, "", nil
	})
}

// changeAgent changes one entry of the agents file. It keeps what stands outside
// of the entry, comments among it, and checks that the result is what was meant
// before it writes.
func changeAgent(c *Config, id string, change func(*identity.Agent)) error {
	text, err := readOptional(c.Agents)
	if err != nil {
		return err
	}
	before, err := LoadAgents(c)
	if err != nil {
		return err
	}
	want := before.Agents()
	at := slices.IndexFunc(want, func(a identity.Agent) bool { return a.ID == id })
	if at < 0 {
		return fmt.Errorf("%s has no agent %s", c.Agents, id)
	}
	change(&want[at])
	entry, err := yaml.MarshalWithOptions([]identity.Agent{want[at]}, yaml.IndentSequence(true))
	if err != nil {
		return fmt.Errorf("write %s: %w", id, err)
	}
	changed, err := replaceEntry(text, id, indent(entry))
	if err != nil {
		return fmt.Errorf("%s: %w; change the entry by hand to:\n%s", c.Agents, err, entry)
	}
	after, err := identity.ParseRegistry(changed)
	if err != nil || !reflect.DeepEqual(after.Agents(), want) || !reflect.DeepEqual(after.PEPs(), before.PEPs()) {
		return fmt.Errorf("%s is written in a way that cannot be changed safely; change the entry by hand to:\n%s", c.Agents, entry)
	}
	return WriteFile(c.Agents, changed, 0o600)
}

// replaceEntry replaces the lines of one agent of an agents file.
func replaceEntry(text []byte, id string, entry []byte) ([]byte, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	path, err := yaml.PathString("$.agents")
	if err != nil {
		return nil, err
	}
	node, err := path.FilterFile(file)
	if err != nil {
		return nil, err
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok || list.IsFlowStyle {
		return nil, errors.New("the agents are not a list of lines")
	}
	var agents []struct {
		ID string `yaml:"id"`
	}
	if err := yaml.NodeToValue(list, &agents); err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, e := range list.Entries {
		if i >= len(agents) || agents[i].ID != id {
			continue
		}
		from := e.GetToken().Position.Line - 1
		column := e.GetToken().Position.Column - 1
		to := from + 1
		// It ends with the first line that is not further in, and that is no
		// comment or empty: what stands before the next entry belongs to that.
		for to < len(lines) && deeper(lines[to], column) {
			to++
		}
		return slices.Concat(bytes.Join(lines[:from], nil), at(entry, column), bytes.Join(lines[to:], nil)), nil
	}
	return nil, fmt.Errorf("agent %s is not in the list", id)
}

// deeper reports whether a line goes on with an entry whose dash is at a column.
func deeper(line []byte, column int) bool {
	text := bytes.TrimLeft(line, " ")
	return len(bytes.TrimSpace(text)) > 0 && text[0] != '#' && len(line)-len(text) > column
}

// at moves an entry from the second column to another.
func at(entry []byte, column int) []byte {
	if column == 2 {
		return entry
	}
	var out []byte
	for line := range bytes.Lines(entry) {
		out = append(append(out, bytes.Repeat([]byte(" "), column)...), bytes.TrimPrefix(line, []byte("  "))...)
	}
	return out
}

// A PEP is an enforcement point of the agents file.
type PEP = identity.PEP

// ListPEPs lists the enforcement points of the agents file, by id. Their keys
// are left out.
func ListPEPs(c *Config) ([]PEP, error) {
	r, err := LoadAgents(c)
	if err != nil {
		return nil, err
	}
	list := r.PEPs()
	for i := range list {
		list[i].Key = ""
	}
	return list, nil
}

// AddPEP adds an enforcement point with a new key to the agents file and
// returns the key. p.Key is ignored.
func AddPEP(c *Config, p PEP) (string, error) {
	key, hash := identity.NewKey()
	p.Key = hash
	return key, addEntry(c, "peps", p.ID, []PEP{p}, func(r *identity.Registry) int { return len(r.PEPs()) })
}

// addEntry adds one entry to a list of the agents file. It keeps the comments
// of the file, and checks that the result is what was meant before it writes.
func addEntry(c *Config, list, id string, entry any, count func(*identity.Registry) int) error {
	text, err := readOptional(c.Agents)
	if err != nil {
		return err
	}
	add, err := yaml.MarshalWithOptions(entry, yaml.IndentSequence(true))
	if err != nil {
		return fmt.Errorf("write %s: %w", id, err)
	}
	before, err := LoadAgents(c)
	if err != nil {
		return err
	}
	text = insert(text, list, indent(add))
	after, err := identity.ParseRegistry(text)
	if err != nil {
		return fmt.Errorf("add %s: %w", id, err)
	}
	if count(after) != count(before)+1 {
		return fmt.Errorf("%s has no list of %s that an entry can be added to: add it there by hand:\n%s", c.Agents, list, add)
	}
	return WriteFile(c.Agents, text, 0o600)
}

// insert puts an entry at the end of a top-level list of a YAML text, which it
// begins if there is none.
func insert(text []byte, list string, entry []byte) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	in, at := false, len(lines)
	for i, line := range lines {
		top := len(line) > 0 && !bytes.ContainsRune([]byte(" \t#-\r\n"), rune(line[0]))
		switch {
		case top && bytes.HasPrefix(line, []byte(list+":")):
			in = true
		case top && in:
			at = i
		}
		if at < len(lines) {
			break
		}
	}
	head, tail := bytes.Join(lines[:at], nil), bytes.Join(lines[at:], nil)
	if len(head) > 0 && !bytes.HasSuffix(head, []byte("\n")) {
		head = append(head, '\n')
	}
	if !in {
		head = append(head, list+":\n"...)
	}
	return slices.Concat(head, entry, tail)
}

// indent moves a YAML sequence two columns in, unless it is there already.
func indent(seq []byte) []byte {
	if bytes.HasPrefix(seq, []byte("  ")) {
		return seq
	}
	lines := bytes.SplitAfter(bytes.TrimRight(seq, "\n"), []byte("\n"))
	return append(append([]byte("  "), bytes.Join(lines, []byte("  "))...), '\n')
}

// WriteFile replaces a file in one step, so that a reader sees the old or the
// new content and a crash leaves one of the two.
func WriteFile(file string, text []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone after the rename
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closed := tmp.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
