package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
)

// LoadLock reads the pinned tool definitions. A missing file pins nothing.
func LoadLock(c *Config) (*catalog.Lock, error) {
	text, err := readOptional(c.Lock)
	if err != nil || text == nil {
		return &catalog.Lock{}, err
	}
	lock, err := catalog.ParseLock(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Lock, err)
	}
	return lock, nil
}

// LoadCatalog reads the pinned tools and the operator's word on them.
func LoadCatalog(c *Config) (*catalog.Catalog, error) {
	lock, err := LoadLock(c)
	if err != nil {
		return nil, err
	}
	text, err := readOptional(c.Catalog)
	if err != nil {
		return nil, err
	}
	overlay, err := catalog.ParseOverlay(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Catalog, err)
	}
	schema, err := readOptional(c.Schema)
	if err != nil {
		return nil, err
	}
	cat, err := catalog.New(catalog.Config{Lock: lock, Overlay: overlay, Schema: schema})
	if err != nil {
		return nil, fmt.Errorf("check catalogue: %w", err)
	}
	return cat, nil
}

// LoadPolicies reads and checks the policies against the catalogue. Mistakes
// come as [policy.Problems].
func LoadPolicies(c *Config, cat *catalog.Catalog) (*policy.Set, error) {
	sources, err := readSources(c, ".cedar")
	if err != nil {
		return nil, err
	}
	tests, err := readSources(c, "_test.yaml")
	if err != nil {
		return nil, err
	}
	parts := map[string][]byte{}
	for _, t := range tests {
		parts["test:"+t.File] = t.Text
	}
	for name, file := range map[string]string{"catalog": c.Catalog, "lock": c.Lock, "scorecard": scorecardFile(c)} {
		if parts[name], err = readOptional(file); err != nil {
			return nil, err
		}
	}
	return policy.New(policy.Config{Policies: sources, Schema: cat.Schema(), Parts: parts})
}

// scorecardFile weighs the signals of risk. It lies beside the policies, with
// which it is versioned.
func scorecardFile(c *Config) string { return filepath.Join(c.Policies, "scorecard.yaml") }

// LoadScorecard reads the scorecard. A missing file is the default one.
func LoadScorecard(c *Config) (*risk.Scorecard, error) {
	text, err := readOptional(scorecardFile(c))
	if err != nil {
		return nil, err
	}
	card, err := risk.ParseScorecard(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", scorecardFile(c), err)
	}
	return card, nil
}

// LoadVersion reads everything that decides.
func LoadVersion(c *Config) (*pdp.Version, error) {
	cat, err := LoadCatalog(c)
	if err != nil {
		return nil, err
	}
	set, err := LoadPolicies(c, cat)
	if err != nil {
		return nil, err
	}
	program, err := engine.Compile(set)
	if err != nil {
		return nil, fmt.Errorf("compile policies: %w", err)
	}
	card, err := LoadScorecard(c)
	if err != nil {
		return nil, err
	}
	v, err := pdp.NewVersion(cat, program, card)
	if err != nil {
		return nil, fmt.Errorf("check catalogue: %w", err)
	}
	if err := checkBudgets(c, cat); err != nil {
		return nil, err
	}
	return v, nil
}

// LoadAgents reads the agents file. A missing file is an empty registry.
func LoadAgents(c *Config) (*identity.Registry, error) {
	text, err := readOptional(c.Agents)
	if err != nil {
		return nil, err
	}
	r, err := identity.ParseRegistry(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Agents, err)
	}
	return r, nil
}

// readSources reads the files of the policy directory whose names end in
// suffix, subdirectories included. They are named relative to the directory of
// the configuration, so that the digest does not depend on where that is.
func readSources(c *Config, suffix string) ([]policy.Source, error) {
	var sources []policy.Source
	err := filepath.WalkDir(c.Policies, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(d.Name(), suffix) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(c.dir, path)
		if err != nil {
			name = path
		}
		sources = append(sources, policy.Source{File: filepath.ToSlash(name), Text: text})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no policies at %s: make the directory, or run 'bailiwick init'", c.Policies)
	}
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	slices.SortFunc(sources, func(a, b policy.Source) int { return strings.Compare(a.File, b.File) })
	return sources, nil
}

// readOptional reads a file that may be missing; it then returns nil.
func readOptional(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return text, nil
}

// fingerprint is a digest of everything that LoadVersion and LoadAgents read.
func fingerprint(c *Config) (string, error) {
	h := sha256.New()
	add := func(name string, text []byte) { fmt.Fprintf(h, "%q %d\n%s\n", name, len(text), text) }
	for _, suffix := range []string{".cedar", "_test.yaml"} {
		sources, err := readSources(c, suffix)
		if err != nil {
			return "", err
		}
		for _, s := range sources {
			add(s.File, s.Text)
		}
	}
	for _, file := range []string{c.Catalog, c.Lock, c.Schema, c.Agents, scorecardFile(c)} {
		text, err := readOptional(file)
		if err != nil {
			return "", err
		}
		add(file, text)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
