package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
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
	// Owner is the person or team that answers for it.
	Owner string `yaml:"owner,omitempty"`
	// Purpose is what it is for, in words that an approver understands.
	Purpose string `yaml:"purpose,omitempty"`
	// Model is the model that drives it.
	Model string `yaml:"model,omitempty"`
	// Groups are the groups that the agent is in.
	Groups []string `yaml:"groups,omitempty"`
	// State says whether it may act. Default active.
	State State `yaml:"state,omitempty"`
	// Key is "sha256:" and the hexadecimal SHA-256 of the agent's key: the short
	// form of one key in Credentials that does not expire.
	Key string `yaml:"key,omitempty"`
	// Credentials are what proves the agent, besides the JWTs of issuers that
	// name it. Several at a time let one be replaced without a pause.
	Credentials []AgentCredential `yaml:"credentials,omitempty"`
}

// A State says whether an agent may act.
type State string

// The states of an agent.
const (
	// StateActive, or nothing: policy decides what it may do.
	StateActive State = "active"
	// StateSuspended: it may do nothing for now.
	StateSuspended State = "suspended"
	// StateRetired: it may never do anything again. The entry stays, so that
	// records keep their meaning and nobody takes its id.
	StateRetired State = "retired"
)

// An AgentCredential is one way to prove an agent. Exactly one of Key, SPIFFE
// and Certificate is set.
type AgentCredential struct {
	// Label tells the operator which it is; unique in the agent.
	Label string `yaml:"label,omitempty" json:"label,omitempty"`
	// Key is "sha256:" and the hexadecimal SHA-256 of an agent key. A key has
	// 256 random bits, so a plain hash is as good as a slow one.
	Key string `yaml:"key,omitempty" json:"-"`
	// SPIFFE is the SPIFFE ID of the workload that is the agent.
	SPIFFE string `yaml:"spiffe,omitempty" json:"spiffe,omitempty"`
	// Certificate is "sha256:" and the hexadecimal SHA-256 of the DER encoding
	// of a client certificate, which may be self-signed.
	Certificate string `yaml:"certificate,omitempty" json:"certificate,omitempty"`
	// Expires is from when on it proves nothing. Zero: never.
	Expires time.Time `yaml:"expires,omitempty" json:"expires,omitzero"`
}

// Kind is "key", "spiffe" or "certificate".
func (c AgentCredential) Kind() string {
	switch {
	case c.Key != "":
		return "key"
	case c.SPIFFE != "":
		return "spiffe"
	default:
		return "certificate"
	}
}

// All are the agent's credentials, the short form among them.
func (a Agent) All() []AgentCredential {
	if a.Key == "" {
		return a.Credentials
	}
	return append([]AgentCredential{{Key: a.Key}}, a.Credentials...)
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
	byID    map[string]Agent
	byProof map[string]proven // by kind and digest or name of the credential
	peps    map[string]*PEP   // by the hash of the key
	pepIDs  []string
}

// proven is whom a credential proves, and until when.
type proven struct {
	agent   string
	expires time.Time
}

var agentID = regexp.MustCompile(`^[^\s"\\/]{1,128}$`)

// maxText bounds what an agent's entry says of it, in bytes.
const maxText = 1024

// NewRegistry checks and indexes agents and enforcement points.
func NewRegistry(agents []Agent, peps ...PEP) (*Registry, error) {
	r := &Registry{byID: map[string]Agent{}, byProof: map[string]proven{}, peps: map[string]*PEP{}}
	for _, a := range agents {
		if err := r.addAgent(a); err != nil {
			return nil, err
		}
	}
	for _, p := range peps {
		if err := r.addPEP(p); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Registry) addAgent(a Agent) error {
	if !agentID.MatchString(a.ID) {
		return fmt.Errorf("agent %q: an id has 1 to 128 characters without space, quote, slash or backslash", a.ID)
	}
	if _, ok := r.byID[a.ID]; ok {
		return fmt.Errorf("agent %s is there twice", a.ID)
	}
	switch a.State {
	case "", StateActive, StateSuspended, StateRetired:
	default:
		return fmt.Errorf("agent %s: state: %q is none of active, suspended and retired", a.ID, a.State)
	}
	if len(a.Owner)+len(a.Purpose)+len(a.Model) > maxText {
		return fmt.Errorf("agent %s: owner, purpose and model have more than %d bytes", a.ID, maxText)
	}
	a.Groups = slices.Compact(slices.Sorted(slices.Values(a.Groups)))
	labels := map[string]bool{}
	for _, c := range a.All() {
		if c.Label != "" && labels[c.Label] {
			return fmt.Errorf("agent %s: two credentials are labelled %q", a.ID, c.Label)
		}
		labels[c.Label] = true
		name, err := c.proof()
		if err != nil {
			return fmt.Errorf("agent %s: %w", a.ID, err)
		}
		if other, ok := r.byProof[name]; ok {
			return fmt.Errorf("agents %s and %s have the same %s", other.agent, a.ID, c.Kind())
		}
		r.byProof[name] = proven{a.ID, c.Expires}
	}
	r.byID[a.ID] = a
	return nil
}

// proof is what the credential is found by.
func (c AgentCredential) proof() (string, error) {
	n := 0
	for _, s := range []string{c.Key, c.SPIFFE, c.Certificate} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return "", errors.New("a credential is one of key, spiffe and certificate")
	}
	if c.SPIFFE != "" {
		if _, err := spiffeid.FromString(c.SPIFFE); err != nil {
			return "", fmt.Errorf("spiffe: %q is not a SPIFFE ID: %w", c.SPIFFE, err)
		}
		return "spiffe " + c.SPIFFE, nil
	}
	digest, err := parseHash(c.Key + c.Certificate)
	if err != nil {
		return "", err
	}
	return c.Kind() + " " + digest, nil
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
	_, ofAgent := r.byProof["key "+digest]
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
func (r *Registry) byKey(key string, now time.Time) (Subject, error) {
	sum := sha256.Sum256([]byte(key))
	return r.by("key "+string(sum[:]), MethodKey, now)
}

// by finds the agent that a credential proves.
func (r *Registry) by(name, method string, now time.Time) (Subject, error) {
	p, ok := r.byProof[name]
	if !ok {
		return Subject{}, fmt.Errorf("no agent has this credential: %w", ErrUnauthenticated)
	}
	if !p.expires.IsZero() && !now.Before(p.expires) {
		return Subject{}, fmt.Errorf("this credential of agent %s has expired: %w", p.agent, ErrUnauthenticated)
	}
	return Subject{Agent: p.agent, Method: method, Level: LevelProven}, nil
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

// describe adds what the registry knows of the agents of a subject: groups, who
// answers for them, and whether they may act. An agent without an entry is in
// the groups that its issuer names, if in any.
func (r *Registry) describe(s *Subject) {
	a, ok := r.byID[s.Agent]
	if ok {
		s.Registered, s.State, s.Owner, s.Purpose, s.Model = true, a.State, a.Owner, a.Purpose, a.Model
		if len(s.Groups) == 0 {
			s.Groups = a.Groups
		} else if len(a.Groups) > 0 {
			s.Groups = slices.Compact(slices.Sorted(slices.Values(slices.Concat(s.Groups, a.Groups))))
		}
	}
	if len(s.Chain) > 0 {
		s.Chain = slices.Clone(s.Chain) // it may be remembered with the token
		for i := range s.Chain {
			r.describe(&s.Chain[i])
		}
	}
}
