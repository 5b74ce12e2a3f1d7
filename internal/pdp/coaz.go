package pdp

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/coaz"
	"github.com/bailiwick-dev/bailiwick/internal/engine"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
)

// NewVersion is a catalogue and the policies checked against it, with the
// mappings that tools of bound servers declare (docs/design/011-coaz.md).
func NewVersion(c *catalog.Catalog, p *engine.Program, card *risk.Scorecard) (*Version, error) {
	v := &Version{Catalog: c, Program: p, Scorecard: card, mappings: map[string]*coaz.Mapping{}}
	for _, op := range c.Operations() {
		if op.Tool == "" || c.Bound(op.Server) == "" {
			continue
		}
		raw, ok, err := coaz.Declared(op.Definition)
		if err == nil && ok {
			v.mappings[op.Action], err = coaz.Compile(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: x-authzen-mapping: %w (the server is bound by catalog.yaml: coaz)", op.Action, err)
		}
	}
	return v, nil
}

// mapping is how a message to a bound server is mapped: as its tool declares,
// or as the binding says.
func (v *Version) mapping(op *catalog.Operation) (*coaz.Mapping, bool) {
	if m, ok := v.mappings[op.Action]; ok {
		return m, true
	}
	if op.Tool != "" {
		return coaz.Default("tools/call")
	}
	return coaz.Default(op.Method)
}

// mapped asks what the mapping of a bound server asks, after what the plane
// asks by itself has been allowed. The answer is the first denial, if there is
// one: a mapping, which the server itself may have written, can only tighten.
func (c *inquiry) mapped(ctx context.Context, v *Version, view EntityView, who Caller, op *catalog.Operation, allowed engine.Answer) (engine.Answer, *engine.Request, error) {
	application := v.Catalog.Bound(c.req.Server)
	if application == "" || op.Application != "" {
		return allowed, nil, nil
	}
	m, ok := v.mapping(op)
	if !ok { // COAZ-MCP, Unknown Methods
		return engine.Answer{}, nil, &catalog.InputError{Reason: fmt.Sprintf("%s has no mapping", quoted(op.Action))}
	}
	params := c.req.Input
	var err error
	if op.Tool != "" {
		if params, err = coaz.ToolCall(op.Tool, c.req.Input); err != nil {
			return engine.Answer{}, nil, err
		}
	}
	all, err := m.Map(ctx, coaz.Input{
		Params: params, Token: claims(who.Subject, c.req.Server), Server: c.req.Server, SubjectClaim: who.SubjectClaim,
	})
	if err != nil {
		return engine.Answer{}, nil, err
	}
	for _, e := range all.Evaluations {
		req := e.Request()
		req.Gate = c.req.Gate
		// The mapping may say of the entities what it likes: whatever it says,
		// it cannot allow what was not allowed before.
		by := Caller{Subject: who.Subject, Asserted: e.Subject, PEP: &identity.PEP{
			ID: "coaz", Application: application, Subjects: []string{e.Subject.Type},
			Asserts: []string{e.Subject.Type + ".*", e.Resource.Type + ".*"},
		}}
		mappedOp, ok := v.Catalog.Find(application, req.Action)
		if !ok || mappedOp.Application != application {
			return engine.Answer{}, nil, &catalog.InputError{Reason: fmt.Sprintf("the mapping of %s asks for %s, which is no action of %s", quoted(op.Action), quoted(req.Action), application)}
		}
		m := new(memory)
		q, named, err := v.question(by, c.visit.Snapshot, &c.origins, mappedOp, req, view.World(), c.now, m)
		if err == nil {
			q.Fields = append(q.Fields, m.riskOf(c.risk.assessment.Score))
			err = inform(ctx, q, view, named)
		}
		if err == nil {
			err = v.fill(q, by, req)
		}
		if err != nil {
			return engine.Answer{}, nil, err
		}
		a := v.Program.Authorize(q)
		if !a.Allow {
			return a, q, nil
		}
		allowed.Determining = slices.Concat(allowed.Determining, a.Determining)
	}
	return allowed, nil, nil
}

// claims are what a mapping sees as the token. Who shows none is told apart by
// what was proven all the same.
func claims(who identity.Subject, server string) json.RawMessage {
	if len(who.Claims) > 0 {
		return who.Claims
	}
	subject := who.For
	if subject == "" {
		subject = who.Agent
	}
	text, err := json.Marshal(map[string]string{"sub": subject, "client_id": who.Agent, "aud": server})
	if err != nil {
		return nil // it cannot be; and without a subject nothing is mapped
	}
	return text
}
