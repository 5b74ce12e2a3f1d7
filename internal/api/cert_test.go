package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/test/certify"
)

const pepKey = "key-of-the-pep"

// directory decides by the eight rules of the certification's fixture, over
// what it knows of the entities and what the PEP says of them.
type directory struct{}

func stored(e authz.Entity) map[string]any {
	switch e {
	case authz.Entity{Type: "user", ID: "alice"}:
		return map[string]any{}
	case authz.Entity{Type: "user", ID: "bob"}:
		return map[string]any{"role": "admin"}
	case authz.Entity{Type: "record", ID: "record-1"}:
		return map[string]any{"status": "active"}
	case authz.Entity{Type: "record", ID: "record-2"}:
		return map[string]any{"status": "archived"}
	}
	return nil
}

// known is what is stored of an entity, and what the PEP says on top of it.
// Nil: nobody knows it.
func known(e authz.Entity, said json.RawMessage) map[string]any {
	props := stored(e)
	if props != nil && len(said) > 0 {
		if json.Unmarshal(said, &props) != nil {
			return nil
		}
	}
	return props
}

func (directory) allows(a *authz.Assertion, action string, resource authz.Entity) bool {
	subject, record := known(a.Subject, a.SubjectProperties), known(resource, a.ResourceProperties)
	if subject == nil || record == nil {
		return false
	}
	act := map[string]any{}
	if len(a.ActionProperties) > 0 && json.Unmarshal(a.ActionProperties, &act) != nil {
		return false
	}
	alice, active := a.Subject.ID == "alice", resource.ID == "record-1"
	switch action {
	case "read":
		return active // 1, 3
	case "write":
		if record["status"] == "archived" {
			return subject["role"] == "admin" // 5, 6
		}
		return alice && active // 2, 4
	case "delete":
		return alice && active && act["soft"] == true // 7, 8
	}
	return false
}

func (d directory) Decide(_ context.Context, req authz.Request) (authz.Decision, error) {
	out := authz.Deny(authz.ReasonNoPermit, "No policy permits this here.")
	if req.PEP != (authz.Credential{Kind: authz.CredentialBearer, Value: pepKey}) {
		return authz.Deny(authz.ReasonUnauthenticated, "The credential does not prove who is asking."), nil
	}
	if d.allows(req.Asserted, req.Action, req.Resource) {
		out = authz.Decision{Allow: true, Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow}}}
	}
	out.ID, out.Time = "d-1", time.Unix(1_800_000_000, 0)
	return out, nil
}

func (d directory) Search(_ context.Context, req authz.Request, q pep.Query) (pep.Page, error) {
	if req.PEP.Value != pepKey {
		return pep.Page{}, fmt.Errorf("search: %w", pep.ErrRefused)
	}
	candidates := map[pep.Part][]string{
		pep.PartSubject: {"alice", "bob"}, pep.PartResource: {"record-1", "record-2"}, pep.PartAction: {"delete", "read", "write"},
	}[q.Want]
	var p pep.Page
	for _, id := range candidates {
		a, action, resource := *req.Asserted, req.Action, req.Resource
		switch q.Want {
		case pep.PartSubject:
			a.Subject.ID = id
		case pep.PartResource:
			resource.ID = id
		case pep.PartAction:
			action = id
		}
		if cmp.Compare(id, q.After) <= 0 || !d.allows(&a, action, resource) {
			continue
		}
		if len(p.IDs) == q.Limit {
			p.More = true
			break
		}
		p.IDs = append(p.IDs, id)
	}
	return p, nil
}

func (directory) Reachable(_ context.Context, _ authz.Request, ops []pep.Operation) ([]bool, error) {
	return slices.Repeat([]bool{true}, len(ops)), nil
}

func (directory) Report(context.Context, authz.Outcome) error { return nil }

// serveTLS serves an API under its own identifier.
func serveTLS(t *testing.T, path string, c api.Config) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	c.Identifier = "https://" + s.Listener.Addr().String() + path
	a, err := api.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Config.Handler = a
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, c.Identifier
}

// Every case of all seven levels, over real TLS.
func TestCertification(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/tenant1"} {
		s, id := serveTLS(t, path, api.Config{Decider: directory{}, AccessRequests: "https://pdp.example.com/access/v1/requests"})
		t.Run("path "+path, func(t *testing.T) {
			certify.Run(t, certify.Config{BaseURL: id, Client: s.Client(), Key: pepKey, CasesFile: "testdata/authzen-cert-cases.json"})
		})
	}
}
