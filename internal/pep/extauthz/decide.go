package extauthz

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
)

// agentType is the type of the subject that a gateway names.
const agentType = "Agent"

// maxPath bounds what the record repeats of a path that is no operation.
const maxPath = 256

// notInput is recorded as the input of a request whose arguments cannot be
// read. It is JSON, and no object, so that no PDP takes it for an input.
var notInput = json.RawMessage("null")

// An answer is what a gateway is told. Its zero value denies.
type answer struct {
	allow     bool
	id        string   // of the decision
	version   string   // of the policies
	arguments []string // headers that were decided upon
	refusal   refusal  // unless allow
}

// contained answers, and denies when that fails in a way nobody thought of: no
// input may make a gateway take our fault for its own to judge.
func (g *Gate) contained(do func() answer) (out answer) {
	defer func() {
		if r := recover(); r != nil {
			// The value may repeat the request; its type and the stack do not.
			g.Logger.Error("request not decided", "panic", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			out = refuse(authz.ReasonInternal, "The request could not be decided for a fault of ours.")
		}
	}()
	return do()
}

// judge decides a request of the agent. A nil API is none.
func (g *Gate) judge(ctx context.Context, gateway string, a *API, m *message) answer {
	// Which API, and is it a request that can be decided?
	if a == nil {
		return refuse(reasonNotFound, "There is no such API here.")
	}
	if err := m.odd(); err != nil {
		return refuse(reasonMalformed, sentence(err))
	}

	// What would it do?
	call, unread := m.route(a)
	if errors.Is(unread, errTarget) {
		return refuse(reasonMalformed, sentence(unread))
	}

	// May it?
	q := g.question(gateway, a, m, call, unread)
	d := g.ask(ctx, q)
	switch {
	case unread != nil:
		// Not even a release lets through what could not be read.
		if d.Allow {
			g.withdraw(ctx, d, "the request is no operation of the API")
		}
		return unreadable(unread, d).door(g.Door, q.Credential.Kind, d)
	case !d.Allow:
		return denied(d).door(g.Door, q.Credential.Kind, d)
	default:
		return answer{allow: true, id: d.ID, version: d.Version, arguments: call.Headers}
	}
}

// question is what the PDP is asked. A request that could not be read is asked
// about too, so that the attempt is on the record.
func (g *Gate) question(gateway string, a *API, m *message, call openapi.Call, unread error) authz.Request {
	req := authz.Request{
		PEP:         authz.Credential{Kind: authz.CredentialBearer, Value: gateway},
		Credential:  m.credential(),
		Action:      a.Name + "/" + call.Tool,
		Server:      a.Name,
		Input:       call.Input,
		Definition:  call.Definition,
		Session:     m.header.Get(sessionHeader),
		Gate:        m.gate,
		Advisory:    true,
		Correlation: m.correlation(),
	}
	// A credential that is shown and proves nobody is not made up for by a
	// certificate.
	if agent := g.Peers[m.peer]; agent != "" && len(m.header["Authorization"]) == 0 {
		req.Asserted = &authz.Assertion{Subject: authz.Entity{Type: agentType, ID: agent}}
	}
	switch {
	case unread == nil:
	case errors.Is(unread, openapi.ErrUnknown):
		path, _, _ := strings.Cut(m.target, "?")
		req.Action = a.Name + "/" + clip(m.method, 16) + " " + clip(path, maxPath)
	default:
		req.Input = notInput
	}
	return req
}

// ask decides, and fails closed. These gateways carry out no obligation.
func (g *Gate) ask(ctx context.Context, req authz.Request) authz.Decision {
	bounded, cancel := context.WithTimeout(ctx, g.Deadline)
	defer cancel()
	d, err := g.Decider.Decide(bounded, req)
	if err != nil {
		g.Logger.Error("decision failed", "decision_id", d.ID, "action", req.Action, "error", err)
		if d.Allow || len(d.Reasons) == 0 {
			return authz.Deny(authz.ReasonPDPDown, "The request could not be decided; try again later.")
		}
		return d
	}
	if d.Allow && len(d.Obligations) > 0 {
		g.withdraw(ctx, d, "obligation not supported: "+d.Obligations[0].Type)
		denial := authz.Deny(authz.ReasonObligationUnmet, "The decision demands something that this gateway cannot do.")
		denial.ID = d.ID
		return denial
	}
	return d
}

// withdraw puts on the record that what was released is not let through.
func (g *Gate) withdraw(ctx context.Context, d authz.Decision, why string) {
	if err := g.Decider.Report(ctx, authz.Outcome{Decision: d.ID, Status: authz.OutcomeNotRun, Error: why, Ours: true}); err != nil {
		g.Logger.Error("outcome not reported", "decision_id", d.ID, "error", err)
	}
}

// sentence makes a clause fit to be read.
func sentence(err error) string {
	s := clip(err.Error(), 400)
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
