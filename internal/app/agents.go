package app

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// An AgentInfo is what may be shown of an agent.
type AgentInfo struct {
	ID     string   `json:"id"`
	Groups []string `json:"groups,omitempty"`
	HasKey bool     `json:"has_key"`
}

// ListAgents lists the agents of the agents file, by id.
func ListAgents(c *Config) ([]AgentInfo, error) {
	r, err := LoadAgents(c)
	if err != nil {
		return nil, err
	}
	list := []AgentInfo{}
	for _, a := range r.Agents() {
		list = append(list, AgentInfo{ID: a.ID, Groups: a.Groups, HasKey: a.Key != ""})
	}
	return list, nil
}

// AddAgent adds an agent with a new key to the agents file and returns the key.
func AddAgent(c *Config, id string, groups []string) (string, error) {
	key, hash := identity.NewKey()
	entry := []identity.Agent{{ID: id, Groups: groups, Key: hash}}
	return key, addEntry(c, "agents", id, entry, func(r *identity.Registry) int { return len(r.Agents()) })
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
