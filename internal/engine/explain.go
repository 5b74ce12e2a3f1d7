package engine

import (
	"cmp"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// Bounds of an explanation, which is read by a person.
const (
	maxConsidered = 20
	maxNear       = 5
	maxValues     = 6
	maxText       = 400 // bytes of one expression or value
)

// An Explanation says why an answer came out as it did. It is for operators:
// it quotes policies and values of the request.
type Explanation struct {
	Answer Answer
	// Considered are policies whose scope fits the request, those that decided
	// first.
	Considered []Considered
	// Omitted is how many more policies were considered.
	Omitted int
	// Near are policies that would have changed the answer if one part of their
	// scope had fitted: permits for a denial, forbids for an allow. There are
	// none when a forbid matched.
	Near []NearMiss
}

// A Considered is a policy whose scope fits the request.
type Considered struct {
	Policy  *policy.Policy
	Outcome Outcome
	// Failed is the first test of the condition that did not come out as the
	// policy wants, when the outcome is [Unsatisfied].
	Failed *Test
	// Error is cedar-go's message when the outcome is [Failed].
	Error string
}

// An Outcome is what a policy's condition came to.
type Outcome string

// The outcomes.
const (
	Satisfied   Outcome = "satisfied"
	Unsatisfied Outcome = "unsatisfied"
	Failed      Outcome = "error"
)

// A Test is one test of a condition that decided it.
type Test struct {
	// Text is the test as Cedar.
	Text string
	// Want is what the policy wants it to be.
	Want bool
	// Values are the values that the test looked at, where they are short.
	Values []Value
}

// A Value is what an expression was in the request.
type Value struct {
	Expression string `json:"expression"`
	Value      string `json:"value"`
}

// A NearMiss is a policy of which one part of the scope did not fit.
type NearMiss struct {
	Policy *policy.Policy
	// Part is "principal", "action" or "resource".
	Part string
	// Wants is that part of the scope as Cedar, and Has what the request has.
	Wants string
	Has   string
	// Outcome is what the condition came to.
	Outcome Outcome
}

// Explain answers a request and says why. It looks at every policy, so it is
// not for the path of a decision.
func (p *Program) Explain(req *Request) Explanation {
	e := Explanation{Answer: p.Authorize(req)}
	s := p.begin(req)
	defer p.end(s)
	s.candidates()
	considered := map[int32]bool{}
	for _, r := range s.found {
		i := p.index.rules[r].policy
		considered[i] = true
		e.Considered = append(e.Considered, s.consider(i))
	}
	slices.SortFunc(e.Considered, func(a, b Considered) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Policy.ID, b.Policy.ID))
	})
	if more := len(e.Considered) - maxConsidered; more > 0 {
		e.Considered, e.Omitted = e.Considered[:maxConsidered], more
	}
	if effect := wouldChange(e.Answer); effect != "" {
		e.Near = s.near(effect)
	}
	return e
}

// rank orders policies by how much they have to do with the answer.
func (c Considered) rank() int {
	switch {
	case c.Outcome == Satisfied && c.Policy.AST.Effect == ast.EffectForbid:
		return 0
	case c.Outcome == Failed:
		return 1
	case c.Outcome == Satisfied:
		return 2
	default:
		return 3
	}
}

// wouldChange returns the effect of the policies that would have changed the
// answer had they matched.
func wouldChange(a Answer) string {
	switch {
	case a.Allow:
		return policy.Forbid
	case a.Code == authz.ReasonNoPermit:
		return policy.Permit
	default:
		return ""
	}
}

func (s *scratch) consider(i int32) Considered {
	pol := s.p.policies[i]
	c := Considered{Policy: pol, Outcome: s.outcome(i)}
	switch c.Outcome {
	case Failed:
		c.Error = s.errorOf(pol)
	case Unsatisfied:
		c.Failed = s.firstFailed(pol.AST)
	}
	return c
}

// outcome evaluates the condition of a policy, whatever its scope.
func (s *scratch) outcome(i int32) Outcome {
	switch s.run(s.p.addresses[i]) {
	case yes:
		return Satisfied
	case no:
		return Unsatisfied
	default:
		return Failed
	}
}

// firstFailed returns the test that made a policy unsatisfied.
func (s *scratch) firstFailed(p *ast.Policy) *Test {
	var body ast.IsNode
	var want bool
	for _, c := range p.Conditions {
		body, want = c.Body, c.Condition == ast.ConditionWhen
		if s.holds(body) != want {
			break
		}
	}
	for {
		next, nextWant := s.descend(body, want)
		if next == nil {
			return &Test{Text: bounded(render(body)), Want: want, Values: s.values(body)}
		}
		body, want = next, nextWant
	}
}

// descend returns the operand of a connective that made it come out wrong, and
// what was wanted of it, or nil if n is not such a connective.
func (s *scratch) descend(n ast.IsNode, want bool) (ast.IsNode, bool) {
	switch n := n.(type) {
	case ast.NodeTypeNot:
		return n.Arg, !want
	case ast.NodeTypeAnd:
		if want {
			return s.firstNot(want, n.BinaryNode), want
		}
	case ast.NodeTypeOr:
		if !want {
			return s.firstNot(want, n.BinaryNode), want
		}
	}
	return nil, want
}

// firstNot returns the left operand unless it is as wanted, else the right.
func (s *scratch) firstNot(want bool, n ast.BinaryNode) ast.IsNode {
	if s.holds(n.Left) != want {
		return n.Left
	}
	return n.Right
}

// holds evaluates an expression that is known to be a truth value.
func (s *scratch) holds(n ast.IsNode) bool {
	v, err := s.eval(n)
	return err == nil && v == types.True
}

// values returns the values of the attributes and variables in an expression.
func (s *scratch) values(n ast.IsNode) []Value {
	var vs []Value
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if !isChain(n) {
			return true
		}
		v, err := s.eval(n)
		if err != nil || len(vs) == maxValues {
			return false
		}
		if _, isRecord := v.(types.Record); isRecord {
			return false // too long, and never what a test compares
		}
		value := Value{Expression: render(n), Value: string(v.MarshalCedar())}
		if len(value.Value) <= maxText && !slices.Contains(vs, value) {
			vs = append(vs, value)
		}
		return false
	})
	return vs
}

// isChain reports whether n is a variable or a chain of attributes from one.
func isChain(n ast.IsNode) bool {
	for {
		a, ok := n.(ast.NodeTypeAccess)
		if !ok {
			break
		}
		n = a.Arg
	}
	_, ok := n.(ast.NodeTypeVariable)
	return ok
}
