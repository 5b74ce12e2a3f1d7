package main

import (
	"encoding/json"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// The reference that every server is held to is itself held to Cedar.
func TestReferenceAgreesWithCedar(t *testing.T) {
	t.Parallel()
	for _, n := range []int{20, 100, 1000} {
		w := newWorkload(n)
		decide, err := cedarDecider(w)
		if err != nil {
			t.Fatal(err)
		}
		allowed := 0
		for _, q := range w.questions {
			body, err := json.Marshal(q.authzen())
			if err != nil {
				t.Fatal(err)
			}
			allow, err := decide(body)
			if err != nil || allow != q.allow {
				t.Fatalf("%d policies: Cedar says %v, %v to %+v", n, allow, err, q)
			}
			if allow {
				allowed++
			}
		}
		if allowed != questions/2 {
			t.Errorf("%d policies: %d of %d questions are allowed, want half", n, allowed, questions)
		}
	}
}

// The policies are what their schema says, and as many as the table says.
func TestPoliciesFitTheirSchema(t *testing.T) {
	t.Parallel()
	w := newWorkload(200)
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(cedarSchema)); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	v := validate.New(resolved)
	policies, err := cedar.NewPolicySetFromBytes("policies.cedar", []byte(cedarPolicies(w)))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for id, p := range policies.All() {
		count++
		if err := v.Policy(string(id), (*ast.Policy)(p.AST())); err != nil {
			t.Errorf("policy %s: %v", id, err)
		}
	}
	if count != w.n {
		t.Errorf("%d policies, want %d", count, w.n)
	}
	if err := v.Entities(cedarEntities(w)); err != nil {
		t.Errorf("entities: %v", err)
	}
}
