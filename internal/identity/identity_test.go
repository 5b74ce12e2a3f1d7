package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// op is a real OIDC issuer over HTTP: metadata, keys, and tokens signed with
// them.
type op struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newOP(t *testing.T) *op {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &op{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"authorization_endpoint":%[1]q,"token_endpoint":%[1]q,"id_token_signing_alg_values_supported":["ES256"]}`, o.URL, o.URL+"/keys")
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &o.key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}}
		if err := json.NewEncoder(w).Encode(set); err != nil {
			t.Error(err)
		}
	})
	o.Server = httptest.NewServer(mux)
	t.Cleanup(o.Close)
	return o
}

func (o *op) token(t *testing.T, alg jose.SignatureAlgorithm, key any, change func(map[string]any)) string {
	t.Helper()
	claims := map[string]any{
		"iss": o.URL, "aud": "bailiwick", "sub": "billing-bot", "exp": time.Now().Add(time.Minute).Unix(),
		"user": "alice@example.com", "groups": []string{"staff", "billing", "staff"},
	}
	if change != nil {
		change(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newVerifier(t *testing.T, c Config) *Verifier {
	t.Helper()
	if c.Agents == nil {
		c.Agents, _ = NewRegistry(nil)
	}
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokenProvesTheAgent(t *testing.T) {
	o := newOP(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub", SubjectClaim: "user", GroupsClaim: "groups"}}})
	good := o.token(t, jose.ES256, o.key, nil)
	none := func(token string) string {
		p := strings.Split(token, ".")
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + p[1] + "."
	}
	// The attack of RFC 8725 §2.1: the public key used as an HMAC secret.
	pub, err := json.Marshal(jose.JSONWebKey{Key: &o.key.PublicKey, KeyID: "k1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, token string
		want        Subject
		ok          bool
	}{
		{name: "good", token: good, ok: true, want: Subject{Agent: "billing-bot", Groups: []string{"billing", "staff"}, For: "alice@example.com", Method: "jwt", Level: LevelProven}},
		{name: "expired", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() })},
		{name: "no expiry", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { delete(c, "exp") })},
		{name: "not yet valid", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() })},
		{name: "wrong audience", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["aud"] = "somebody-else" })},
		{name: "other issuer", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["iss"] = "https://evil.example" })},
		{name: "other key", token: o.token(t, jose.ES256, other, nil)},
		{name: "symmetric algorithm", token: o.token(t, jose.HS256, pub, nil)},
		{name: "alg none", token: none(good)},
		{name: "flipped payload", token: strings.Replace(good, ".", ".A", 1)},
		{name: "groups of another shape", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["groups"] = "staff" })},
		{name: "agent is not a string", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["sub"] = "" })},
		{name: "over-long", token: o.token(t, jose.ES256, o.key, func(c map[string]any) { c["x"] = strings.Repeat("a", maxToken) })},
		{name: "garbage", token: "hello"},
		{name: "three dots of garbage", token: "a.b.c"},
		{name: "empty", token: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: tt.token})
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok %v", err, tt.ok)
			}
			if err != nil && !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("error %v does not say unauthenticated", err)
			}
			if tt.ok && !strings.Contains(string(got.Claims), `"sub":"billing-bot"`) {
				t.Errorf("claims: %s", got.Claims)
			}
			got.Claims, got.SubjectClaim, got.ACR, got.Expires = nil, "", nil, time.Time{}
			if d := cmp.Diff(got, tt.want); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDeadOrHangingIssuerDeniesInTime(t *testing.T) {
	release := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hang.Close)
	t.Cleanup(func() { close(release) })
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	o := newOP(t)
	for name, url := range map[string]string{"dead": dead.URL, "hanging": hang.URL} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: url, Audience: "bailiwick", AgentClaim: "sub"}}})
			token := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["iss"] = url })
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			s, err := v.Verify(ctx, authz.Credential{Kind: authz.CredentialBearer, Value: token})
			if err == nil || errors.Is(err, ErrUnauthenticated) {
				t.Errorf("got %+v, %v; want an error that is not about the credential", s, err)
			}
		})
	}
}

func TestKeyIsHashedAtRest(t *testing.T) {
	key, hash := NewKey()
	r, err := ParseRegistry([]byte("agents:\n  - id: claude\n    groups: [staff, desktop, staff]\n    key: " + hash + "\n  - id: keyless\n"))
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, Config{Agents: r})
	got, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: key})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, Subject{Agent: "claude", Groups: []string{"desktop", "staff"}, Method: "key", Level: LevelProven, Registered: true}); d != "" {
		t.Error(d)
	}
	wrong, _ := NewKey()
	for _, k := range []string{wrong, keyPrefix, hash, key + "x", key[:len(key)-1]} {
		if s, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: k}); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("a wrong key proved %+v, %v", s, err)
		}
	}
	empty, _ := NewRegistry(nil)
	v.Publish(empty)
	if _, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: key}); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a removed agent's key still works: %v", err)
	}
}

func TestNobodyIsNotSomebody(t *testing.T) {
	for _, tt := range []struct {
		name, anonymous string
		cred            authz.Credential
		want            string
	}{
		{name: "nothing shown", cred: authz.Credential{}},
		{name: "nothing shown, anonymous allowed", anonymous: "guest", want: "guest"},
		{name: "a bad token is not anonymous", anonymous: "guest", cred: authz.Credential{Kind: authz.CredentialBearer, Value: "x"}},
		{name: "local", cred: authz.Credential{Kind: authz.CredentialLocal, Value: "desktop"}, want: "desktop"},
		{name: "local without a name", cred: authz.Credential{Kind: authz.CredentialLocal}},
		{name: "unknown kind", cred: authz.Credential{Kind: "telepathy", Value: "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newVerifier(t, Config{Anonymous: tt.anonymous}).Verify(t.Context(), tt.cred)
			if got.Agent != tt.want || (tt.want == "") != errors.Is(err, ErrUnauthenticated) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestRegistryRefuses(t *testing.T) {
	_, hash := NewKey()
	for name, text := range map[string]string{
		"unknown key":  "agents:\n  - id: a\n    admin: true\n",
		"plain key":    "agents:\n  - id: a\n    key: bwk_secret\n",
		"short hash":   "agents:\n  - id: a\n    key: sha256:abcd\n",
		"bare hash":    "agents:\n  - id: a\n    key: " + strings.TrimPrefix(hash, hashPrefix) + "\n",
		"same id":      "agents:\n  - id: a\n  - id: a\n",
		"same key":     "agents:\n  - id: a\n    key: " + hash + "\n  - id: b\n    key: " + hash + "\n",
		"empty id":     "agents:\n  - groups: [x]\n",
		"quote in id":  "agents:\n  - id: 'a\"b'\n",
		"not yaml":     "agents: [",
		"another root": "people: []\n",
	} {
		if _, err := ParseRegistry([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("a.eyJpc3MiOiJ4In0.c")
	f.Add("bwk_")
	v, err := New(Config{Agents: &Registry{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if s, err := v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialBearer, Value: token}); err == nil {
			t.Errorf("%q proved %+v", token, s)
		}
	})
}
