package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/provenance"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// Prompt lets a session learn what the user asked for. That it did is on the
// record when Prompt returns; what was asked is not. The error wraps
// [pep.ErrRefused] if the relay may not say it.
func (p *PDP) Prompt(ctx context.Context, said authz.Prompt) error {
	if err := p.prompt(ctx, said); err != nil {
		return fmt.Errorf("learn prompt: %w", refused(err))
	}
	return nil
}

func (p *PDP) prompt(ctx context.Context, said authz.Prompt) error {
	req := authz.Request{PEP: said.PEP, Credential: said.Credential, Session: said.Session, Run: said.Run}
	if !said.Subject.IsZero() {
		req.Asserted = &authz.Assertion{Subject: said.Subject}
	}
	who, err := p.identify(ctx, req)
	switch {
	case err != nil:
		return err
	case who.PEP == nil || !who.PEP.Prompts:
		return fmt.Errorf("whoever relays a prompt must be an enforcement point with \"prompts: true\": %w", errAssertion)
	case len(said.Text) > authz.MaxPrompt:
		return fmt.Errorf("a prompt has at most %d bytes: %w", authz.MaxPrompt, errAssertion)
	}
	subject, now := who.entity(), p.Now()
	id := sessionID(req, subject)
	visit, err := p.Sessions.Enter(ctx, id, owner(subject), now)
	if errors.Is(err, session.ErrOwner) {
		return fmt.Errorf("%w: %w", err, errAssertion)
	}
	if err != nil {
		return err
	}
	defer visit.Leave()
	details, err := json.Marshal(struct {
		PEP     string       `json:"pep"`
		Subject authz.Entity `json:"subject"`
		Session string       `json:"session"`
		Bytes   int          `json:"bytes"`
	}{who.PEP.ID, subject, id, len(said.Text)})
	if err != nil {
		return err
	}
	// On the record first: whoever later asks why a value was the user's finds
	// who said so.
	if _, err := p.Log.Append(ctx, audit.Record{Kind: audit.KindSystem, Time: now, Effect: "prompt", System: details}); err != nil {
		return fmt.Errorf("record prompt: %w", err)
	}
	p.Provenance.With(id, visit.Calls == 0 && visit.Denials == 0, func(x *provenance.Index) { x.LearnPrompt(said.Text) })
	return nil
}
