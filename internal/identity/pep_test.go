package identity

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bailiwick-dev/bailiwick/authz"
)

const pepsFile = `
agents:
  - {id: claude, groups: [staff], key: "HASH0"}
peps:
  - {id: edge, key: "HASH1", application: Records, subjects: [user], asserts: [user.role, "record.*"], relays: true}
`

// An enforcement point is known by its key and may say only what its entry
// says.
func TestPEPIsKnownByItsKey(t *testing.T) {
	agentKey, agentHash := NewKey()
	key, hash := NewKey()
	r, err := ParseRegistry([]byte(strings.NewReplacer("HASH0", agentHash, "HASH1", hash).Replace(pepsFile)))
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, Config{Agents: r})
	p, err := v.PEP(authz.Credential{Kind: authz.CredentialBearer, Value: key})
	if err != nil || p.ID != "edge" || p.Application != "Records" || !p.Relays {
		t.Fatalf("%+v, %v", p, err)
	}
	if !p.SpeaksFor("user") || p.SpeaksFor("Agent") || !p.MayAssert("user", "role") || p.MayAssert("user", "clearance") || !p.MayAssert("record", "status") {
		t.Errorf("%+v says more or less than its entry", p)
	}
	for name, cred := range map[string]authz.Credential{
		"nothing":      {},
		"empty bearer": {Kind: authz.CredentialBearer},
		"other key":    {Kind: authz.CredentialBearer, Value: "bwk_other"},
		"agent's key":  {Kind: authz.CredentialBearer, Value: agentKey},
		"its hash":     {Kind: authz.CredentialBearer, Value: hash},
		"local":        {Kind: authz.CredentialLocal, Value: "edge"},
	} {
		if p, err := v.PEP(cred); p != nil || !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if s, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: key}); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the PEP's key proves agent %+v", s)
	}
	if s, err := v.Asserted("claude"); err != nil || s.Level != 0 || s.Method != MethodAsserted || len(s.Groups) != 1 {
		t.Errorf("asserted: %+v, %v", s, err)
	}
	if _, err := v.Asserted("no such/agent"); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("asserted nonsense: %v", err)
	}
}

func TestPEPsFileIsChecked(t *testing.T) {
	_, hash := NewKey()
	for name, entry := range map[string]string{
		"no key":       `{id: a}`,
		"plain key":    `{id: a, key: bwk_secret}`,
		"bad id":       `{id: "a b", key: "` + hash + `"}`,
		"bad assert":   `{id: a, key: "` + hash + `", asserts: [role]}`,
		"unknown word": `{id: a, key: "` + hash + `", admin: true}`,
		"same key":     `{id: a, key: "` + hash + `"}, {id: b, key: "` + hash + `"}`,
		"same id":      `{id: a, key: "` + hash + `"}, {id: a, key: "` + HashKey("x") + `"}`,
	} {
		if _, err := ParseRegistry([]byte("peps: [" + entry + "]")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseRegistry([]byte("agents: [{id: a, key: \"" + hash + "\"}]\npeps: [{id: b, key: \"" + hash + "\"}]")); err == nil {
		t.Error("an agent and a pep share a key")
	}
}

// What the issuer says of the authentication reaches policy: its strength only
// through the operator's table.
func TestTokenSaysHowStrongAndWhen(t *testing.T) {
	o := newOP(t)
	v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub", Levels: map[string]int64{"phr": 3}}}})
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	for _, tt := range []struct {
		acr   any
		level int64
	}{{"phr", 3}, {"unheard-of", LevelProven}, {7, LevelProven}, {nil, LevelProven}} {
		token := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["acr"], c["auth_time"] = tt.acr, at.Unix() })
		s, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: token})
		if err != nil || s.Level != tt.level || !s.Authenticated.Equal(at) {
			t.Errorf("acr %v: %+v, %v", tt.acr, s, err)
		}
	}
}

// A token that was verified is not verified again for a while, but never
// beyond its own end, and another token is another matter.
func TestVerifiedTokenIsRememberedOnlyWhileItHolds(t *testing.T) {
	o := newOP(t)
	now := time.Now()
	v := newVerifier(t, Config{
		Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}},
		Now:     func() time.Time { return now },
	})
	verify := func(token string) error {
		_, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: token})
		return err
	}
	long := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["exp"] = now.Add(time.Hour).Unix() })
	short := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["exp"] = now.Add(10 * time.Second).Unix() })
	for _, token := range []string{long, short} {
		if err := verify(token); err != nil {
			t.Fatal(err)
		}
	}
	if err := verify(long[:len(long)-4] + "AAAA"); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a changed signature: %v", err)
	}
	// The issuer now signs with another key, so a token that is really verified
	// again is refused.
	v.issuers[o.URL].keys = (&keySet{issuer: o.URL, client: http.DefaultClient, now: time.Now}).find
	o.Close()
	if err := verify(long); err != nil {
		t.Errorf("within a minute: %v", err)
	}
	now = now.Add(11 * time.Second)
	if err := verify(short); err == nil {
		t.Error("a token was accepted beyond its end")
	}
	now = now.Add(rememberFor)
	if err := verify(long); err == nil {
		t.Error("a token was remembered for longer than promised")
	}
}

func BenchmarkVerifyToken(b *testing.B) {
	t := &testing.T{}
	o := newOP(t)
	defer o.Close()
	token := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["exp"] = time.Now().Add(time.Hour).Unix() })
	for _, remembered := range []bool{false, true} {
		b.Run(map[bool]string{false: "verified", true: "remembered"}[remembered], func(b *testing.B) {
			v, err := New(Config{Agents: &Registry{}, Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}}})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if !remembered {
					v.issuers[o.URL].memory.clear()
				}
				if _, err := v.Verify(b.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: token}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
