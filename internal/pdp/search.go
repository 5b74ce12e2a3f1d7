package pdp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/risk"
	"github.com/bailiwick-dev/bailiwick/internal/session"
)

// searchBatch is how many entities are listed, and looked up, at once.
const searchBatch = 256

// Search implements [pep.Searcher] by deciding for every candidate, in their
// order, until the page is full. What is found would be allowed in a session
// that has done nothing yet. The search itself is recorded.
func (p *PDP) Search(ctx context.Context, req authz.Request, q pep.Query) (pep.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Deadline)
	defer cancel()
	page, who, v, err := p.search(ctx, req, q)
	if err != nil {
		return pep.Page{}, fmt.Errorf("search for %s: %w", q.Want, refused(err))
	}
	if err := p.searched(ctx, req, q, who, v, len(page.IDs)); err != nil {
		return pep.Page{}, fmt.Errorf("record search: %w", err)
	}
	return page, nil
}

func (p *PDP) search(ctx context.Context, req authz.Request, q pep.Query) (pep.Page, *identity.PEP, *Version, error) {
	if req.Asserted == nil || q.Limit <= 0 {
		return pep.Page{}, nil, nil, errors.New("a search needs what the PEP asserts, and a limit")
	}
	who, err := p.Identity.PEP(req.PEP)
	if err != nil {
		return pep.Page{}, nil, nil, err
	}
	v := p.Policies.Version("")
	if v == nil {
		return pep.Page{}, nil, nil, errors.New("no policies are in force")
	}
	s := search{p: p, v: v, view: p.view(), pep: who, req: req, query: q}
	page, err := s.run(ctx)
	return page, who, v, err
}

// searched records that a search was answered.
func (p *PDP) searched(ctx context.Context, req authz.Request, q pep.Query, who *identity.PEP, v *Version, found int) error {
	_, err := p.Log.Append(ctx, audit.Record{
		Kind: audit.KindDecision, Time: p.Now(), Decision: newID(), Effect: "allow", Version: v.Digest(),
		Who: &audit.Who{Subject: authz.Entity{Type: "PEP", ID: who.ID}, Auth: identity.MethodKey, Gate: req.Gate, Correlation: clip(req.Correlation, 128)},
		What: &audit.What{
			Action: "search:" + string(q.Want), Resource: req.Resource, Effects: []string{catalog.EffectDiscover},
		},
		Why: &audit.Why{Reasons: []authz.Reason{{
			Code: authz.ReasonPolicyAllow, Message: fmt.Sprintf("A search for the %s of %s, with %d results.", q.Want, quoted(req.Action), found),
		}}},
		Input: input(req),
	})
	return err
}

// A search is one page of one search on its way.
type search struct {
	p     *PDP
	v     *Version
	view  EntityView
	pep   *identity.PEP
	req   authz.Request
	query pep.Query
	page  pep.Page
}

func (s *search) run(ctx context.Context) (pep.Page, error) {
	s.page.IDs = []string{}
	var err error
	switch s.query.Want {
	case pep.PartAction:
		err = s.actions(ctx)
	case pep.PartSubject:
		err = s.entities(ctx, s.req.Asserted.Subject.Type, func(id string) authz.Request {
			return s.with(func(r *authz.Request) { r.Asserted.Subject.ID = id })
		})
	case pep.PartResource:
		err = s.entities(ctx, s.req.Resource.Type, func(id string) authz.Request {
			return s.with(func(r *authz.Request) { r.Resource.ID = id })
		})
	default:
		err = fmt.Errorf("nothing is known of the part %q", s.query.Want)
	}
	return s.page, err
}

// with is the request with a candidate in it.
func (s *search) with(set func(*authz.Request)) authz.Request {
	r, asserted := s.req, *s.req.Asserted
	r.Asserted = &asserted
	set(&r)
	return r
}

// found adds a result, and reports whether the page is full.
func (s *search) found(id string) bool {
	if len(s.page.IDs) == s.query.Limit {
		s.page.More = true
		return true
	}
	s.page.IDs = append(s.page.IDs, id)
	return false
}

// actions tries the actions of the application, or of the catalogue.
func (s *search) actions(ctx context.Context) error {
	var names []string
	for _, op := range s.v.Catalog.Operations() {
		switch {
		case op.Application != s.pep.Application:
		case op.Application != "":
			names = append(names, op.Name)
		default:
			names = append(names, op.Action)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if name <= s.query.After {
			continue
		}
		allowed, err := s.allowed(ctx, s.with(func(r *authz.Request) { r.Action = name }))
		if err != nil {
			return err
		}
		if allowed && s.found(name) {
			return nil
		}
	}
	return nil
}

// entities tries the known entities of a type.
func (s *search) entities(ctx context.Context, named string, with func(id string) authz.Request) error {
	t, ok := s.v.Catalog.EntityType(s.pep.Application, named)
	if !ok {
		return nil // of an unknown type there are none
	}
	for after := s.query.After; ; {
		batch, err := s.view.List(ctx, t, after, searchBatch)
		if err != nil {
			return fmt.Errorf("list entities of type %s: %w", t, err)
		}
		for _, uid := range batch {
			allowed, err := s.allowed(ctx, with(string(uid.ID)))
			if err != nil {
				return err
			}
			if allowed && s.found(string(uid.ID)) {
				return nil
			}
			after = string(uid.ID)
		}
		if len(batch) < searchBatch {
			return nil
		}
	}
}

// allowed says whether policy would allow a request in a fresh session. A
// request that makes no sense is not allowed; an error is ours.
func (s *search) allowed(ctx context.Context, req authz.Request) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	who, err := s.p.named(s.pep, req.Asserted.Subject)
	if err != nil {
		return false, nil
	}
	op, ok := s.v.Catalog.Find(s.pep.Application, req.Action)
	if !ok {
		return false, nil
	}
	if req.Server == "" {
		req.Server = op.Server
	}
	w := s.p.Suspensions.Watch()
	scope := touches(concerns(make([]authz.Entity, 0, 8), &who, ""), op.Action, req.Server)
	if w.Check(scope) != nil {
		return false, nil
	}
	now := s.p.Now()
	m := new(memory)
	q, named, err := s.v.question(who, session.Snapshot{ID: "search", Started: now}, &Origins{}, op, req, s.view.World(), now, m)
	if err != nil {
		return false, nil
	}
	q.Fields = append(q.Fields, m.riskOf(risk.Score{})) // nothing is done yet
	if err := inform(ctx, q, s.view, named); err != nil {
		return false, err
	}
	if err := s.v.fill(q, who, req); err != nil {
		return false, nil
	}
	if w.Set().Groups() && w.Check(within(scope, q)) != nil {
		return false, nil
	}
	return s.v.Program.Authorize(q).Allow, nil
}
