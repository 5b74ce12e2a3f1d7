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

// A PEP is an enforcement point that asks from outside of this process. What
// it may say is as narrow as the operator makes it; an entry that says nothing
// may ask for nobody.
type PEP struct {
	// ID names the PEP in records.
	ID string `yaml:"id" json:"id"`
	// Key is the hash of its key, as for an [Agent]. Required.
	Key string `yaml:"key" json:"key,omitempty"`
	// Application is the namespace of the policy schema that its actions and
	// types are of. Empty: it asks about the catalogue's operations.
	Application string `yaml:"application,omitempty" json:"application,omitempty"`
	// Subjects are the types of subject that it speaks for, as it names them
	// ("user", "Agent").
	Subjects []string `yaml:"subjects,omitempty" json:"subjects,omitempty"`
	// Asserts are the attributes that it may supply, "<type>.<attribute>" or
	// "<type>.*", with types as it names them.
	Asserts []string `yaml:"asserts,omitempty" json:"asserts,omitempty"`
	// Relays: it may show the credentials of agents that call it, and report
	// outcomes. For gates in other processes, Envoy, nginx and Caddy.
	Relays bool `yaml:"relays,omitempty" json:"relays,omitempty"`
	// Prompts: it may say what the user asked for in a session. What it says is
	// trusted as the user's own word: it must be the program that the user types
	// into, never the agent.
	Prompts bool `yaml:"prompts,omitempty" json:"prompts,omitempty"`
}

// SpeaksFor reports whether the PEP may name subjects of a type.
func (p *PEP) SpeaksFor(subjectType string) bool { return slices.Contains(p.Subjects, subjectType) }

// MayAssert reports whether the PEP may supply an attribute of a type.
func (p *PEP) MayAssert(entityType, attribute string) bool {
	return slices.Contains(p.Asserts, entityType+"."+attribute) || slices.Contains(p.Asserts, entityType+".*")
}

// A Registry is an immutable set of agents and enforcement points.
type Registry struct {
	byID   map[string]Agent
	byHash map[string]Agent
	peps   map[string]*PEP // by the hash of the key
	pepIDs []string
}

var agentID = regexp.MustCompile(`^[^\s"\\/]{1,128}$`)

// NewRegistry checks and indexes agents and enforcement points.
func NewRegistry(agents []Agent, peps ...PEP) (*Registry, error) {
	r := &Registry{byID: map[string]Agent{}, byHash: map[string]Agent{}, peps: map[string]*PEP{}}
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
		digest, err := parseHash(a.Key)
		if err != nil {
			return nil, fmt.Errorf("agent %s: %w", a.ID, err)
		}
		if other, ok := r.byHash[digest]; ok {
			return nil, fmt.Errorf("agents %s and %s have the same key", other.ID, a.ID)
		}
		r.byHash[digest] = a
	}
	for _, p := range peps {
		if err := r.addPEP(p); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Registry) addPEP(p PEP) error {
	if !agentID.MatchString(p.ID) {
		return fmt.Errorf("pep %q: an id has 1 to 128 characters without space, quote, slash or backslash", p.ID)
	}
	if slices.Contains(r.pepIDs, p.ID) {
		return fmt.Errorf("pep %s is there twice", p.ID)
	}
	digest, err := parseHash(p.Key)
	if err != nil {
		return fmt.Errorf("pep %s: %w", p.ID, err)
	}
	for _, a := range p.Asserts {
		if t, attr, ok := strings.Cut(a, "."); !ok || t == "" || attr == "" {
			return fmt.Errorf("pep %s: asserts: %q is not \"<type>.<attribute>\" or \"<type>.*\"", p.ID, a)
		}
	}
	_, ofAgent := r.byHash[digest]
	_, ofPEP := r.peps[digest]
	if ofAgent || ofPEP {
		return fmt.Errorf("pep %s has the key of another: each needs its own", p.ID)
	}
	r.peps[digest], r.pepIDs = &p, append(r.pepIDs, p.ID)
	return nil
}

// parseHash reads what the agents file holds for a key.
func parseHash(hash string) (string, error) {
	digest, err := hex.DecodeString(strings.TrimPrefix(hash, hashPrefix))
	if err != nil || len(digest) != sha256.Size || !strings.HasPrefix(hash, hashPrefix) {
		return "", fmt.Errorf("the key must be %q and 64 hexadecimal digits: the hash of the key, never the key itself", hashPrefix)
	}
	return string(digest), nil
}

// ParseRegistry reads an agents file. Unknown keys are errors.
func ParseRegistry(text []byte) (*Registry, error) {
	var file struct {
		Agents []Agent `yaml:"agents"`
		PEPs   []PEP   `yaml:"peps"`
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return NewRegistry(nil)
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("parse agents: %s", yaml.FormatError(err, false, true))
	}
	return NewRegistry(file.Agents, file.PEPs...)
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
	return Subject{Agent: a.ID, Groups: a.Groups, Method: MethodKey, Level: LevelProven}, nil
}

// pepByKey finds the enforcement point by the digest of its key.
func (r *Registry) pepByKey(key string) (*PEP, error) {
	sum := sha256.Sum256([]byte(key))
	p, ok := r.peps[string(sum[:])]
	if !ok {
		return nil, fmt.Errorf("no enforcement point has this key: %w", ErrUnauthenticated)
	}
	return p, nil
}

// PEPs lists the enforcement points by id.
func (r *Registry) PEPs() []PEP {
	list := make([]PEP, 0, len(r.peps))
	for _, p := range r.peps {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b PEP) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// asserted is the subject of an agent that an enforcement point names, in the
// groups that the registry knows. An asserted subject has shown nothing itself,
// so its level is 0.
func (r *Registry) asserted(id string) Subject {
	return Subject{Agent: id, Groups: r.byID[id].Groups, Method: MethodAsserted}
}

// named is the subject of an agent whose id was proven by other means. An
// agent without an entry is in no group.
func (r *Registry) named(id, method string) Subject {
	s := Subject{Agent: id, Groups: r.byID[id].Groups, Method: method}
	if method == MethodLocal {
		s.Level = LevelProven
	}
	return s
}
