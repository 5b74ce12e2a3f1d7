package engine

import (
	"fmt"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/policy"
)

// asFields returns a request that gives its context as fields.
func asFields(req *Request) *Request {
	q := *req
	q.Fields, q.Context = plain(req.Context), types.Record{}
	return &q
}

// plain returns a record as fields, nothing boxed that need not be.
func plain(r types.Record) Fields {
	fs := Fields{}
	for name, v := range r.All() {
		switch v := v.(type) {
		case types.Long:
			fs = append(fs, Long(name, int64(v)))
		case types.String:
			fs = append(fs, String(name, string(v)))
		case types.Record:
			fs = append(fs, Nested(name, plain(v)))
		case types.Set:
			list, _ := stringsOf(v) // only such are given
			fs = append(fs, Strings(name, list))
		}
	}
	return fs
}

func TestFieldsAreTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(11)
	for range 1000 {
		want := w.context()
		req := &Request{Fields: w.fields(want), Context: w.context()}
		if got := req.Record(); !got.Equal(want) {
			t.Fatalf("got %s, want %s", got, want)
		}
		req.Fields, req.Context = nil, want
		if got := req.Record(); !got.Equal(want) {
			t.Fatalf("without fields: got %s, want %s", got, want)
		}
	}
}

func TestNoFieldIsNotTheSameAsNoFields(t *testing.T) {
	t.Parallel()
	has := ast.Context().Has("n")
	for name, condition := range map[string]ast.Node{"compiled": has, "by cedar-go": has.And(ast.Principal().HasTag(ast.String("x"))).Or(has)} {
		p := compile([]*policy.Policy{{ID: "p", Effect: policy.Permit, AST: ast.Permit().When(condition)}}, nil)
		req := &Request{Context: types.NewRecord(types.RecordMap{"n": types.Long(1)})}
		if a := p.Authorize(req); !a.Allow {
			t.Errorf("%s: denied with a context: %v", name, a)
		}
		req.Fields = Fields{}
		if a := p.Authorize(req); a.Code != authz.ReasonNoPermit || req.Record().Len() != 0 {
			t.Errorf("%s: the context was looked at: %v", name, a)
		}
	}
}

// What takes the context whole builds it once for a request, and not again
// for the next policy; nothing of it is left for the next request.
func TestTheContextIsBuiltOnce(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, "")
	s := p.begin(asFields(bankRequest(1, types.String("a"))))
	first := s.req.Fields
	for range 3 {
		s.context()
		for _, of := range []types.String{"input", "labels"} {
			var v val
			s.req.Fields.get(of, &v)
			s.boxed(&v)
		}
		if len(s.built) != 2 || !s.whole {
			t.Fatalf("built %v, whole %v", s.built, s.whole)
		}
		s.req.Fields = Fields{} // not looked at again
		if s.context().Len() != 2 {
			t.Errorf("the context was built again: %s", s.context())
		}
		s.req.Fields = first
	}
	built := s.built
	p.end(s)
	if built[0].value != nil || s.record.Len() != 0 {
		t.Error("the pool keeps what was built for a request")
	}
	s.start(asFields(bankRequest(7)))
	if len(s.built) != 0 {
		t.Errorf("what was built for earlier requests adds up: %d", len(s.built))
	}
	want := bankRequest(7).Context
	if got := s.context(); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The explanation of a request does not depend on how its context is given.
func TestExplainReadsFields(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed < 40; seed++ {
		w := newWorld(seed)
		p := compile(w.policies, w.schema)
		for range 10 {
			req := w.request()
			fields := *req
			fields.Fields, fields.Context = w.fields(req.Context), w.context()
			if got, want := explained(p, &fields), explained(p, req); got != want {
				t.Fatalf("seed %d:\ngot  %s\nwant %s", seed, got, want)
			}
		}
	}
}

// explained writes an explanation down, pointers followed.
func explained(p *Program, req *Request) string {
	e := p.Explain(req)
	text := e.Answer.Code
	for _, c := range e.Considered {
		// cedar-go's message is left out: which element of a set it names is not
		// always the same.
		text += fmt.Sprintf("\n%s %s %v", c.Policy.ID, c.Outcome, c.Error == "")
		if c.Failed != nil {
			text += fmt.Sprintf(" %+v", *c.Failed)
		}
	}
	for _, n := range e.Near {
		text += fmt.Sprintf("\nnear %s %s %s", n.Policy.ID, n.Part, n.Outcome)
	}
	return text
}
