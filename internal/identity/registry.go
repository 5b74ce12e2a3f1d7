package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// keyPrefix marks an agent key, so that scanners of leaked secrets can find
// one and a JWT is never mistaken for one.
const keyPrefix = "bwk_"

// hashPrefix precedes the hexadecimal digest in the agents file.
const hashPrefix = "sha256:"

// An Agent is one entry of the agents file.
type Agent struct {
	// ID names the agent; it is the Cedar entity Agent::"ID".
	ID string `yaml:"id"`
	// Groups are the groups that the agent is in.
	Groups []string `yaml:"groups,omitempty"`
	// Key is "sha256:" and the hexadecimal SHA-256 of the agent's key. A key
	// has 256 random bits, so a plain hash is as good as a slow one. Empty:
	// the agent has no key and comes with a JWT or locally.
	Key string `yaml:"key,omitempty"`
}

// A Registry is an immutable set of agents.
type Registry struct {
	byID   map[string]Agent
	byHash map[string]Agent
}

var agentID = regexp.MustCompile(`^[^\s"\\/]{1,128}$`)

// NewRegistry checks and indexes agents.
func NewRegistry(agents []Agent) (*Registry, error) {
	r := &Registry{byID: map[string]Agent{}, byHash: map[string]Agent{}}
	for _, a := range agents {
		if !agentID.MatchString(a.ID) {
			return nil, fmt.Errorf("agent %q: an id has 1 to 128 characters without space, quote, slash or backslash", a.ID)
		}
		if _, ok := r.byID[a.ID]; ok {
			return nil, fmt.Errorf("agent %s is there twice", a.ID)
		}
		a.Groups = slices.Compact(slices.Sorted(slices.Values(a.Groups)))
		r.byID[a.ID] = a
		if a.Key == "" {
			continue
		}
		digest, err := hex.DecodeString(strings.TrimPrefix(a.Key, hashPrefix))
		if err != nil || len(digest) != sha256.Size || !strings.HasPrefix(a.Key, hashPrefix) {
			return nil, fmt.Errorf("agent %s: the key must be %q and 64 hexadecimal digits: the hash of the key, never the key itself", a.ID, hashPrefix)
		}
		if other, ok := r.byHash[string(digest)]; ok {
			return nil, fmt.Errorf("agents %s and %s have the same key", other.ID, a.ID)
		}
		r.byHash[string(digest)] = a
	}
	return r, nil
}

// ParseRegistry reads an agents file. Unknown keys are errors.
func ParseRegistry(text []byte) (*Registry, error) {
	var file struct {
		Agents []Agent `yaml:"agents"`
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return NewRegistry(nil)
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("parse agents: %s", yaml.FormatError(err, false, true))
	}
	return NewRegistry(file.Agents)
}

// Agents lists the agents by id.
func (r *Registry) Agents() []Agent {
	list := make([]Agent, 0, len(r.byID))
	for _, a := range r.byID {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Agent) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// NewKey makes an agent key and the hash that the agents file holds.
func NewKey() (key, hash string) {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	key = keyPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	return key, HashKey(key)
}

// HashKey returns what the agents file holds for a key.
func HashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hashPrefix + hex.EncodeToString(sum[:])
}

func isKey(s string) bool { return strings.HasPrefix(s, keyPrefix) }

// byKey finds the agent by the digest of its key. Looking a digest up in a map
// tells a timing attacker nothing about the key.
func (r *Registry) byKey(key string) (Subject, error) {
	sum := sha256.Sum256([]byte(key))
	a, ok := r.byHash[string(sum[:])]
	if !ok {
		return Subject{}, fmt.Errorf("no agent has this key: %w", ErrUnauthenticated)
	}
	return Subject{Agent: a.ID, Groups: a.Groups, Method: "key"}, nil
}

// named is the subject of an agent whose id was proven by other means. An
// agent without an entry is in no group.
func (r *Registry) named(id, method string) Subject {
	return Subject{Agent: id, Groups: r.byID[id].Groups, Method: method}
}
