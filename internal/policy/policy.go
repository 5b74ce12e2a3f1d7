// Package policy is Cedar source and a schema, checked as one immutable,
// digested set.
//
// It is pure: no file, clock or network. The experimental packages of cedar-go
// (syntax tree, schema, validator) are used here and in package engine only.
package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A Source is one file of policies.
type Source struct {
	// File names the text in problems and records, as a person would look it
	// up. It is part of the digest, because records point at file and line: it
	// should not depend on the machine.
	File string
	// Text is Cedar.
	Text []byte
}

// A Config is everything a set is made of.
type Config struct {
	// Policies are the files, in any order. Each name may occur once.
	Policies []Source
	// Schema is the Cedar schema, in Cedar syntax, that every policy must
	// satisfy. Required.
	Schema []byte
	// Parts are further content that decides what the set means, by name. The
	// digest covers them, and nothing else looks at them.
	Parts map[string][]byte
}

// A Set is a checked set of policies. It is immutable.
type Set struct {
	policies []*Policy
	schema   *resolved.Schema
	digest   string
}

// A Policy is one policy of a set. It must not be modified.
type Policy struct {
	// ID is the policy's @id annotation, unique in its set.
	ID string
	// Effect is "permit" or "forbid".
	Effect string
	// Description and Owner are the annotations of these names, or empty.
	Description string
	Owner       string
	// File, Line and Column say where the policy begins, annotations included.
	// Line and Column count from 1, columns in characters.
	File   string
	Line   int
	Column int
	// AST is the parsed policy.
	AST *ast.Policy
}

// The effects of a policy.
const (
	Permit = "permit"
	Forbid = "forbid"
)

// Ref returns a pointer to the policy for records and answers.
func (p *Policy) Ref() authz.PolicyRef {
	return authz.PolicyRef{ID: p.ID, Effect: p.Effect, File: p.File, Line: p.Line}
}

// A Problem is one fault of a set, at a place. Line is 0 when the fault has
// no place in the file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
}

// String returns the problem as file:line:column: message.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems are all faults of a set, sorted by file and place.
type Problems []Problem

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sorted() Problems {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}

// New checks the policies against the schema and returns them as a set.
//
// Text is bounded in size and nesting before it is parsed. Every policy has a
// unique @id, no annotation is unknown, and every policy passes Cedar's strict
// validation. The error is a [Problems] that lists everything found.
func New(c Config) (*Set, error) {
	schema, problems := parseSchema(c.Schema)
	var parsed []parsedPolicy
	files := map[string]bool{}
	for _, src := range c.Policies {
		if files[src.File] {
			problems = append(problems, Problem{File: src.File, Message: "the file is given twice"})
			continue
		}
		files[src.File] = true
		ps, faults := parse(src)
		parsed = append(parsed, ps...)
		problems = append(problems, faults...)
	}
	problems = append(problems, checkIDs(parsed)...)
	if schema != nil {
		problems = append(problems, newChecker(schema).checkAll(parsed)...)
		problems = append(problems, checkTightens(parsed)...)
	}
	if len(problems) > 0 {
		return nil, problems.sorted()
	}
	s := &Set{schema: schema, digest: digest(c), policies: make([]*Policy, len(parsed))}
	for i, p := range parsed {
		s.policies[i] = p.policy
	}
	slices.SortFunc(s.policies, func(a, b *Policy) int { return cmp.Compare(a.ID, b.ID) })
	return s, nil
}

// Digest returns "sha256:" and a hash of everything the set was made of. It
// does not depend on the order of the files.
func (s *Set) Digest() string { return s.digest }

// Policies returns the policies sorted by ID. The slice must not be modified.
func (s *Set) Policies() []*Policy { return s.policies }

// Schema returns the resolved schema. It must not be modified.
func (s *Set) Schema() *resolved.Schema { return s.schema }

// digestDomain separates this hash from every other use of SHA-256, and names
// the layout of what is hashed.
const digestDomain = "bailiwick policy set v1\n"

// digest hashes every name and content behind its length, so that no two
// different configurations can run together into the same bytes.
func digest(c Config) string {
	h := sha256.New()
	field := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		// A hash.Hash never returns an error.
		_, _ = h.Write(n[:])
		_, _ = h.Write(b)
	}
	field([]byte(digestDomain))
	field(c.Schema)
	files := slices.Clone(c.Policies)
	slices.SortFunc(files, func(a, b Source) int { return cmp.Compare(a.File, b.File) })
	field(binary.BigEndian.AppendUint64(nil, uint64(len(files))))
	for _, f := range files {
		field([]byte(f.File))
		field(f.Text)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Parts)) {
		field([]byte(name))
		field(c.Parts[name])
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// maxID bounds an @id, which is copied into every record that the policy
// determines.
const maxID = 128

// checkIDs reports policies without an @id, with one that cannot be shown
// safely, or with another policy's.
func checkIDs(ps []parsedPolicy) Problems {
	var problems Problems
	first := map[string]*Policy{}
	for _, p := range ps {
		other, taken := first[p.policy.ID]
		switch {
		case !p.hasID:
			problems = append(problems, p.problem("the policy has no @id: every policy needs a unique @id(\"...\")"))
		case p.policy.ID == "" || len(p.policy.ID) > maxID || strings.ContainsFunc(p.policy.ID, unprintable):
			problems = append(problems, p.problem(fmt.Sprintf("@id must be 1 to %d bytes of printable text", maxID)))
		case taken:
			problems = append(problems, p.problem(fmt.Sprintf("the @id %q is taken by the policy at %s:%d", p.policy.ID, other.File, other.Line)))
		default:
			first[p.policy.ID] = p.policy
		}
	}
	return problems
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
