package pdp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// A mint issues tokens that a plane takes.
type mint struct {
	key *ecdsa.PrivateKey
	now time.Time
}

// withMint is a plane that takes tokens, with policies and agents of its own.
func withMint(t testing.TB, cedar string, agents []identity.Agent, change ...func(*pdp.Config)) (*plane, *mint) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &mint{key: key}
	p := newPlane(t, func(pc *pdp.Config, ic *identity.Config) {
		registry, err := identity.NewRegistry(agents)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range change {
			c(pc)
		}
		ic.Agents = registry
		ic.Issuers = []identity.Issuer{{
			Issuer: "https://mint.example", Audience: "here", AgentClaim: "sub", Levels: map[string]int64{"phr": 2, "phrh": 3},
			Keys: &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k"}}},
		}}
	})
	m.now = time.Now()
	p.version.Store(version(t, cedar))
	return p, m
}

func (m *mint) credential(t testing.TB, claims map[string]any) authz.Credential {
	t.Helper()
	all := map[string]any{"iss": "https://mint.example", "aud": "here", "exp": m.now.Add(time.Hour).Unix()}
	for k, v := range claims {
		all[k] = v
	}
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: m.key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return authz.Credential{Kind: authz.CredentialBearer, Value: token}
}

// chain is a credential of agents, the acting one first, that act for alice.
func (m *mint) chain(t testing.TB, ids []string, more map[string]any) authz.Credential {
	t.Helper()
	var act map[string]any
	for _, id := range slices.Backward(ids) {
		a := map[string]any{"sub": id}
		if act != nil {
			a["act"] = act
		}
		act = a
	}
	claims := map[string]any{"sub": "alice", "act": act}
	for k, v := range more {
		claims[k] = v
	}
	return m.credential(t, claims)
}

// Whatever the policies: a chain may do nothing that one of its agents may not,
// and what each of them may do, it may. Handing a task on only attenuates.
func TestChainMayWhatEachOfItMay(t *testing.T) {
	r := mrand.New(mrand.NewPCG(8693, 1))
	names := []string{"a", "b", "c", "d"}
	groups := []string{"g0", "g1", "g2"}
	allowed, denied := 0, 0
	for round := range 12 {
		var cedar strings.Builder
		for i := range 2 + r.IntN(5) {
			effect := []string{"permit", "permit", "permit", "forbid"}[r.IntN(4)]
			who := []string{
				"principal", fmt.Sprintf("principal == Agent::%q", names[r.IntN(4)]), fmt.Sprintf("principal in Group::%q", groups[r.IntN(3)]),
			}[r.IntN(3)]
			when := []string{
				"", `when { context has subject && context.subject == "alice" }`, fmt.Sprintf("when { context.input.cents < %d }", r.IntN(100)),
				`when { context.chain.isEmpty() }`, fmt.Sprintf("when { context.chain.contains(%q) }", names[r.IntN(4)]),
				`when { principal has owner && principal.owner == "o1" }`,
			}[r.IntN(6)]
			fmt.Fprintf(&cedar, "@id(\"p%d\")\n%s (%s, action == Action::\"bank/send_money\", resource) %s;\n", i, effect, who, when)
		}
		var agents []identity.Agent
		for i, name := range names {
			agents = append(agents, identity.Agent{ID: name, Groups: groups[:r.IntN(4)], Owner: fmt.Sprint("o", i%2)})
		}
		p, m := withMint(t, cedar.String(), agents)
		v := p.version.Load()
		for range 15 {
			ids := make([]string, 1+r.IntN(4))
			for i := range ids {
				ids[i] = names[r.IntN(4)]
			}
			input := fmt.Sprintf(`{"to":"x","cents":%d}`, r.IntN(100))
			d, err := p.Decide(t.Context(), authz.Request{Credential: m.chain(t, ids, nil), Action: "bank/send_money", Input: json.RawMessage(input), Gate: "test"})
			if err != nil {
				t.Fatal(err)
			}
			// Each alone, by another way: the same circumstances, asked of the engine.
			want := true
			op, _ := v.Catalog.Operation("bank/send_money")
			rs := p.records(t)
			rec := rs[len(rs)-1]
			for _, id := range ids {
				i := slices.IndexFunc(agents, func(a identity.Agent) bool { return a.ID == id })
				who := pdp.Caller{Subject: identity.Subject{Agent: id, Groups: agents[i].Groups, Owner: agents[i].Owner, For: "alice", Method: "jwt", Level: 1}}
				for _, earlier := range ids[1:] {
					who.Chain = append(who.Chain, identity.Subject{Agent: earlier})
				}
				q, err := v.Request(who, snapshot(rec), scored(rec.Why.Risk), pdp.OriginsOf(rec.Why.Origins), op, authz.Request{Action: "bank/send_money", Server: "bank", Input: json.RawMessage(input), Gate: "test"}, nil, rec.Time)
				if err != nil {
					t.Fatal(err)
				}
				want = want && v.Program.Authorize(q).Allow
			}
			if d.Allow != want {
				t.Fatalf("round %d, %v with %s: %v, want %v\n%s%+v", round, ids, input, d.Allow, want, &cedar, agents)
			}
			if want {
				allowed++
			} else {
				denied++
			}
		}
	}
	if allowed < 10 || denied < 10 {
		t.Errorf("%d allowed, %d denied: the test shows little", allowed, denied)
	}
}

const chainPolicies = `
@id("clerks")
permit (principal in Group::"clerks", action == Action::"bank/send_money", resource);
@id("strong")
forbid (principal == Agent::"first", action == Action::"bank/send_money", resource) unless { context.auth.level >= 3 };
@id("fresh")
forbid (principal == Agent::"second", action == Action::"bank/send_money", resource) unless { context.auth.age <= 60 };
`

var chainAgents = []identity.Agent{
	{ID: "first", Groups: []string{"clerks"}, Owner: "o", Purpose: "p", Model: "m"}, {ID: "second", Groups: []string{"clerks"}}, {ID: "other"},
}

// What is offered to a chain is enough for every agent of it.
func TestRemediesOfAChainAreEnough(t *testing.T) {
	p, m := withMint(t, chainPolicies, chainAgents)
	ask := func(ids []string, more map[string]any) authz.Decision {
		d, err := p.Decide(t.Context(), authz.Request{Credential: m.chain(t, ids, more), Action: "bank/send_money", Input: json.RawMessage(`{"to":"x","cents":1}`)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	level, fresh := authz.Fact{Kind: authz.FactLevel, Level: 3}, authz.Fact{Kind: authz.FactFresh, MaxAge: 60}
	for _, tt := range []struct {
		ids       []string
		want      []authz.Remedy
		challenge *authz.Challenge
	}{
		{[]string{"first"}, []authz.Remedy{{level}}, &authz.Challenge{ACR: []string{"phrh"}}},
		{[]string{"second", "first"}, []authz.Remedy{{fresh, level}}, &authz.Challenge{ACR: []string{"phrh"}, MaxAge: 60}},
		{[]string{"first", "second"}, []authz.Remedy{{level, fresh}}, &authz.Challenge{ACR: []string{"phrh"}, MaxAge: 60}},
		{[]string{"first", "other"}, nil, nil},
		{[]string{"other", "first"}, nil, nil},
	} {
		d := ask(tt.ids, nil)
		if diff := cmp.Diff(tt.want, d.Remedies); diff != "" || d.Allow {
			t.Errorf("%v: %v %s", tt.ids, d.Allow, diff)
		}
		if diff := cmp.Diff(tt.challenge, d.Challenge); diff != "" {
			t.Errorf("%v: %s", tt.ids, diff)
		}
	}
	if d := ask([]string{"second", "first"}, map[string]any{"acr": "phrh", "auth_time": time.Now().Unix()}); !d.Allow {
		// The plane's clock stands still in 2026; the age is not negative.
		t.Errorf("with what was offered: %+v", d)
	}
	if d := ask([]string{"first", "other"}, map[string]any{"acr": "phrh"}); d.Allow || !strings.Contains(d.Message(), `"other"`) {
		t.Errorf("who it is that may not: %+v", d)
	}
	rs := p.records(t)
	last := rs[len(rs)-1]
	if last.Who.Subject.ID != "first" || last.Who.For != "alice" || len(last.Who.Chain) != 1 || last.Who.Chain[0].ID != "other" || last.Who.Owner != "o" || last.Who.Purpose != "p" || last.Who.Model != "m" || last.Who.Level != 3 {
		t.Errorf("%+v", last.Who)
	}
}

// Lists show what every agent of the chain could reach, to whoever's session it
// is.
func TestReachableIsForAllOfTheChain(t *testing.T) {
	p, m := withMint(t, chainPolicies, chainAgents)
	ops := []pep.Operation{{Action: "bank/send_money"}}
	reach := func(ids ...string) bool {
		got, err := p.Reachable(t.Context(), authz.Request{Credential: m.chain(t, ids, nil)}, ops)
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	if !reach("second", "first") || reach("second", "other") || reach("other", "second") {
		t.Error("reachable is not for all of the chain")
	}
	if _, err := p.Decide(t.Context(), authz.Request{Credential: m.chain(t, []string{"second"}, nil), Action: "bank/send_money", Session: "s", Input: json.RawMessage(`{"to":"x","cents":1}`)}); err != nil {
		t.Fatal(err)
	}
	for id, mine := range map[string]bool{"second": true, "first": false} {
		_, err := p.Reachable(t.Context(), authz.Request{Credential: m.chain(t, []string{id}, nil), Session: "s"}, nil)
		if (err == nil) != mine {
			t.Errorf("the session is %s's: %v", id, err)
		}
	}
}

// An agent that may not act is denied with a reason of its own, on the record,
// wherever it stands in the chain.
func TestBarredAgents(t *testing.T) {
	p, m := withMint(t, chainPolicies, []identity.Agent{
		{ID: "first", Groups: []string{"clerks"}}, {ID: "asleep", Groups: []string{"clerks"}, State: identity.StateSuspended}, {ID: "gone", State: identity.StateRetired},
	})
	for name, tt := range map[string]struct {
		ids  []string
		code string
	}{
		"suspended":                      {[]string{"asleep"}, authz.ReasonAgentSuspended},
		"on behalf of a suspended agent": {[]string{"first", "asleep"}, authz.ReasonAgentSuspended},
		"retired":                        {[]string{"gone"}, authz.ReasonAgentRetired},
	} {
		cred := m.chain(t, tt.ids, map[string]any{"acr": "phrh"})
		d, err := p.Decide(t.Context(), authz.Request{Credential: cred, Action: "bank/send_money", Input: json.RawMessage(`{"to":"x","cents":1}`)})
		if err != nil || d.Allow || d.Code() != tt.code {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		rs := p.records(t)
		if last := rs[len(rs)-1]; last.Who.Subject.ID != tt.ids[0] || last.Decision != d.ID {
			t.Errorf("%s: recorded as %+v", name, last.Who)
		}
		if _, err := p.Reachable(t.Context(), authz.Request{Credential: cred}, nil); err == nil {
			t.Errorf("%s: lists are shown", name)
		}
	}
}

// What the registry says of an agent wins over the directory, in memory or looked
// up, and over what an enforcement point says; what it does not say stays.
func TestRegistryWins(t *testing.T) {
	const owned = `
@id("owned")
permit (principal, action == Action::"bank/send_money", resource)
when { principal has owner && principal.owner == "registry" && principal has model && principal.model == "directory" };
`
	said := types.RecordMap{"owner": types.String("directory"), "model": types.String("directory")}
	for name, d := range map[string]*directory{
		"in memory": newDirectory(t, things(a("Agent", "first", said)), nil),
		"looked up": newDirectory(t, nil, things(a("Agent", "first", said))),
	} {
		for owner, allow := range map[string]bool{"registry": true, "": false} {
			key, hash := identity.NewKey()
			p := newPlane(t, func(pc *pdp.Config, ic *identity.Config) {
				registry, err := identity.NewRegistry([]identity.Agent{{ID: "first", Key: hash, Owner: owner}})
				if err != nil {
					t.Fatal(err)
				}
				ic.Agents, pc.Entities = registry, d
			})
			p.version.Store(version(t, owned))
			got, err := p.Decide(t.Context(), authz.Request{Credential: authz.Credential{Kind: authz.CredentialBearer, Value: key}, Action: "bank/send_money", Input: json.RawMessage(`{"to":"x","cents":1}`)})
			if err != nil || got.Allow != allow {
				t.Errorf("%s, owner %q: %+v, %v", name, owner, got, err)
			}
		}
	}
	// Nor is an answer found without looking anything up that the directory alone
	// would give.
	said["owner"] = types.String("registry")
	d := newDirectory(t, things(a("Agent", "first", said)), things(a("Server", "bank", nil)))
	key, hash := identity.NewKey()
	p := newPlane(t, func(pc *pdp.Config, ic *identity.Config) {
		registry, err := identity.NewRegistry([]identity.Agent{{ID: "first", Key: hash, Owner: "somebody else"}})
		if err != nil {
			t.Fatal(err)
		}
		ic.Agents, pc.Entities = registry, d
	})
	p.version.Store(version(t, owned))
	for range 2 {
		got, err := p.Decide(t.Context(), authz.Request{Credential: authz.Credential{Kind: authz.CredentialBearer, Value: key}, Action: "bank/send_money", Input: json.RawMessage(`{"to":"x","cents":1}`)})
		if err != nil || got.Allow {
			t.Errorf("by a shortcut: %+v, %v", got, err)
		}
	}
}

// Whoever has handed a task on ends it by being suspended, as does who answers for
// an agent of the chain, and a group of it.
func TestSuspendingAnyOfAChainEndsIt(t *testing.T) {
	const all = `@id("all")
permit (principal, action == Action::"bank/send_money", resource);`
	for _, tt := range []struct{ kind, id, code string }{
		{revoke.KindAgent, "acting", authz.ReasonAgentSuspended}, {revoke.KindAgent, "earlier", authz.ReasonAgentSuspended},
		{revoke.KindOwner, "o1", authz.ReasonOwnerSuspended}, {revoke.KindOwner, "o2", authz.ReasonOwnerSuspended}, {revoke.KindOwner, "alice", authz.ReasonOwnerSuspended},
		{revoke.KindGroup, "g2", authz.ReasonGroupSuspended},
	} {
		a := suspensions(t)
		p, m := withMint(t, all, []identity.Agent{{ID: "acting", Owner: "o1"}, {ID: "earlier", Owner: "o2", Groups: []string{"g2"}}}, func(c *pdp.Config) { c.Suspensions = a })
		req := authz.Request{Credential: m.chain(t, []string{"acting", "earlier"}, nil), Action: "bank/send_money", Input: json.RawMessage(`{"to":"x","cents":1}`)}
		if d, err := p.Decide(t.Context(), req); err != nil || !d.Allow {
			t.Fatalf("before: %+v, %v", d, err)
		}
		flip(t, a, revoke.Suspend, tt.kind, tt.id)
		if d, err := p.Decide(t.Context(), req); err != nil || d.Allow || d.Code() != tt.code {
			t.Errorf("%s %s: %+v, %v", tt.kind, tt.id, d, err)
		}
	}
}
