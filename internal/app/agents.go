package app

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

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
	text, err := readOptional(c.Agents)
	if err != nil {
		return "", err
	}
	key, hash := identity.NewKey()
	entry, err := yaml.MarshalWithOptions([]identity.Agent{{ID: id, Groups: groups, Key: hash}}, yaml.IndentSequence(true))
	if err != nil {
		return "", fmt.Errorf("write agent: %w", err)
	}
	// Appending keeps the comments of the file. That the result is what was
	// meant is checked before it is written.
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("agents:\n")
	} else if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	text = append(text, indent(entry)...)
	before, err := LoadAgents(c)
	if err != nil {
		return "", err
	}
	after, err := identity.ParseRegistry(text)
	if err != nil {
		return "", fmt.Errorf("add agent %s: %w", id, err)
	}
	if len(after.Agents()) != len(before.Agents())+1 {
		return "", fmt.Errorf("%s does not end with its list of agents: add %s there by hand with key: %s", c.Agents, id, hash)
	}
	return key, WriteFile(c.Agents, text, 0o600)
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
