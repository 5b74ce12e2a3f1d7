package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// A PolicyCheck is what [CheckPolicies] found.
type PolicyCheck struct {
	Problems policy.Problems `json:"problems"`
	// Policies and Version are of a set without problems.
	Policies int    `json:"policies"`
	Version  string `json:"policy_version,omitempty"`
}

// CheckPolicies checks the policies against the catalogue.
func CheckPolicies(c *Config) (PolicyCheck, error) {
	check := PolicyCheck{Problems: policy.Problems{}}
	cat, err := LoadCatalog(c)
	if err != nil {
		return check, err
	}
	if _, err := LoadScorecard(c); err != nil {
		return check, err
	}
	set, err := LoadPolicies(c, cat)
	if errors.As(err, &check.Problems) {
		return check, nil
	}
	if err != nil {
		return check, err
	}
	check.Policies, check.Version = len(set.Policies()), set.Digest()
	return check, nil
}

// A PolicyTest is one entry of a *_test.yaml file: a request, and what policy
// must say to it.
type PolicyTest struct {
	// Name says what is being promised.
	Name     string `yaml:"name"`
	Question `yaml:",inline"`
	// Expect is "allow" or "deny". Required.
	Expect string `yaml:"expect"`
	// Code is the reason code that the answer must have; empty for any. A
	// request whose input does not fit the operation is denied with
	// "input_invalid", which must be expected by that code.
	Code string `yaml:"code"`
	// Policies are the ids of the policies that must determine the answer, in
	// any order; nil for any.
	Policies []string `yaml:"policies"`
}

// A PolicyTestResult is what came of one [PolicyTest].
type PolicyTestResult struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name"`
	Pass bool   `json:"pass"`
	// Answer is what policy said.
	Answer Answer `json:"answer"`
	// Failure says what was expected instead. Empty when the test passes.
	Failure string `json:"failure,omitempty"`
}

// A PolicyTestReport is what came of all tests.
type PolicyTestReport struct {
	Tests  []PolicyTestResult `json:"tests"`
	Passed int                `json:"passed"`
	Failed int                `json:"failed"`
	// Untested are the ids of policies that determined no answer.
	Untested []string `json:"untested"`
	Version  string   `json:"policy_version"`
}

// TestPolicies runs the tests beside the policies.
func TestPolicies(c *Config) (PolicyTestReport, error) {
	r := PolicyTestReport{Tests: []PolicyTestResult{}, Untested: []string{}}
	v, err := LoadVersion(c)
	if err != nil {
		return r, err
	}
	files, err := readSources(c, "_test.yaml")
	if err != nil {
		return r, err
	}
	r.Version = v.Digest()
	tested := map[string]bool{}
	for _, f := range files {
		tests, err := readPolicyTests(f)
		if err != nil {
			return r, err
		}
		for _, t := range tests {
			result := t.run(v)
			r.Tests = append(r.Tests, result)
			if result.Pass {
				r.Passed++
			} else {
				r.Failed++
			}
			for _, p := range result.Answer.Policies {
				tested[p.ID] = true
			}
		}
	}
	for _, p := range v.Program.Set().Policies() {
		if !tested[p.ID] {
			r.Untested = append(r.Untested, p.ID)
		}
	}
	return r, nil
}

// A placedTest is a test and where it stands.
type placedTest struct {
	PolicyTest
	file string
	line int
}

// readPolicyTests reads a file of tests: one list. The error names the place.
func readPolicyTests(f policy.Source) ([]placedTest, error) {
	var tests []PolicyTest
	dec := yaml.NewDecoder(bytes.NewReader(f.Text), yaml.Strict())
	if err := dec.Decode(&tests); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %s", f.File, yaml.FormatError(err, false, true))
	}
	lines := entryLines(f.Text)
	placed := make([]placedTest, len(tests))
	for i, t := range tests {
		placed[i] = placedTest{PolicyTest: t, file: f.File}
		if i < len(lines) {
			placed[i].line = lines[i]
		}
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.File, placed[i].line, err)
		}
	}
	return placed, nil
}

// entryLines returns the lines at which the entries of a YAML list begin.
func entryLines(text []byte) []int {
	file, err := parser.ParseBytes(text, 0)
	if err != nil || len(file.Docs) == 0 {
		return nil // it has been read before, so that there is nothing in it
	}
	list, ok := file.Docs[0].Body.(*ast.SequenceNode)
	if !ok {
		return nil
	}
	var lines []int
	for _, v := range list.Values {
		lines = append(lines, v.GetToken().Position.Line)
	}
	return lines
}

// check reports a test that would promise nothing.
func (t PolicyTest) check() error {
	switch {
	case t.Name == "":
		return errors.New("the test has no name")
	case t.Expect != "allow" && t.Expect != "deny":
		return fmt.Errorf("test %q: expect is %q, want \"allow\" or \"deny\"", t.Name, t.Expect)
	default:
		return nil
	}
}

func (t placedTest) run(v *pdp.Version) PolicyTestResult {
	r := PolicyTestResult{File: t.file, Line: t.line, Name: t.Name}
	req, err := t.Ask(v)
	switch {
	case err == nil:
		r.Answer = answer(v.Program.Authorize(req), v.Digest())
		r.Failure = t.failure(r.Answer)
	case t.Expect == "deny" && t.Code == authz.ReasonInputInvalid && t.known(v):
		r.Answer = Answer{Code: authz.ReasonInputInvalid, Version: v.Digest()}
	default:
		// A request with a mistake in it would otherwise pass for a denial.
		r.Failure = "the request cannot be asked: " + err.Error()
	}
	r.Pass = r.Failure == ""
	return r
}

// known reports whether a failure to ask can only be the input's.
func (t PolicyTest) known(v *pdp.Version) bool {
	_, ok := v.Catalog.Operation(t.Action)
	return ok && t.Agent != ""
}

// failure says how an answer differs from what is expected, or nothing.
func (t PolicyTest) failure(a Answer) string {
	got := "deny"
	if a.Allow {
		got = "allow"
	}
	var determining []string
	for _, p := range a.Policies {
		determining = append(determining, p.ID)
	}
	want := slices.Sorted(slices.Values(t.Policies))
	slices.Sort(determining)
	switch {
	case got != t.Expect:
		return fmt.Sprintf("want %s, got %s (%s)", t.Expect, got, a.Code)
	case t.Code != "" && t.Code != a.Code:
		return fmt.Sprintf("want code %s, got %s", t.Code, a.Code)
	case t.Policies != nil && !slices.Equal(want, determining):
		return fmt.Sprintf("want policies %q, got %q", want, determining)
	default:
		return ""
	}
}

// A PolicyExplanation says why an answer came out as it did. It quotes policies
// and values: it is for operators.
type PolicyExplanation struct {
	Answer
	// Considered are policies whose scope fits the request, those that decided
	// first; Omitted is how many more there are.
	Considered []ConsideredPolicy `json:"considered"`
	Omitted    int                `json:"omitted,omitempty"`
	// Near are policies of whose scope one part does not fit.
	Near []NearPolicy `json:"near"`
}

// A ConsideredPolicy is a policy whose scope fits the request.
type ConsideredPolicy struct {
	authz.PolicyRef
	// Outcome is "satisfied", "unsatisfied" or "error".
	Outcome string `json:"outcome"`
	// Failed is the test that left the policy unsatisfied.
	Failed *FailedTest `json:"failed,omitempty"`
}

// A FailedTest is a part of a condition that did not come out as a policy
// wants.
type FailedTest struct {
	Text   string         `json:"text"`
	Want   bool           `json:"want"`
	Values []engine.Value `json:"values,omitempty"`
}

// A NearPolicy is a policy of whose scope one part does not fit.
type NearPolicy struct {
	authz.PolicyRef
	// Part is "principal", "action" or "resource".
	Part  string `json:"part"`
	Wants string `json:"wants"`
	Has   string `json:"has"`
	// Outcome is what the condition came to.
	Outcome string `json:"outcome"`
}

// ExplainPolicies asks the policies in the files, and says why they answer as
// they do.
func ExplainPolicies(c *Config, q Question) (PolicyExplanation, error) {
	v, err := LoadVersion(c)
	if err != nil {
		return PolicyExplanation{}, err
	}
	req, err := q.Ask(v)
	if err != nil {
		return PolicyExplanation{}, err
	}
	e := v.Program.Explain(req)
	out := PolicyExplanation{
		Answer: answer(e.Answer, v.Digest()), Omitted: e.Omitted,
		Considered: []ConsideredPolicy{}, Near: []NearPolicy{},
	}
	for _, p := range e.Considered {
		cp := ConsideredPolicy{PolicyRef: p.Policy.Ref(), Outcome: string(p.Outcome)}
		cp.Error = p.Error
		if p.Failed != nil {
			cp.Failed = &FailedTest{Text: p.Failed.Text, Want: p.Failed.Want, Values: p.Failed.Values}
		}
		out.Considered = append(out.Considered, cp)
	}
	for _, n := range e.Near {
		out.Near = append(out.Near, NearPolicy{PolicyRef: n.Policy.Ref(), Part: n.Part, Wants: n.Wants, Has: n.Has, Outcome: string(n.Outcome)})
	}
	return out, nil
}
