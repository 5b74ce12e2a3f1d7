package sts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
)

// The key is made once, is nobody else's to read, and one that is not fit is
// refused rather than replaced.
func TestKeyIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token.key")
	first, err := LoadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadKey(file)
	if err != nil || !again.Equal(first) {
		t.Fatalf("another key: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty": nil, "garbage": []byte("key"), "two": bytes.Repeat(good, 2), "another kind": bytes.ReplaceAll(good, []byte("PRIVATE KEY"), []byte("CERTIFICATE")),
		"for another algorithm": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(file); err == nil {
			t.Errorf("%s: read", name)
		}
		if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, text) {
			t.Errorf("%s: replaced", name)
		}
	}
}

// What is issued is what formats.md says, for each kind of subject, and our own
// verifier reads it as it was meant.
func TestTokenSaysWhoActsForWhom(t *testing.T) {
	key, err := LoadKey(filepath.Join(t.TempDir(), "token.key"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := PublicKeys(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: keys.Keys[0].KeyID}}, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	i := &Issuer{Config: Config{Issuer: "https://node.example", Lifetime: time.Minute, Now: func() time.Time { return now }}, signer: signer}
	for name, tt := range map[string]struct {
		subject identity.Subject
		sub     string
		act     string
	}{
		"an agent":              {identity.Subject{Agent: "a"}, "a", `{"sub":"a"}`},
		"for a person":          {identity.Subject{Agent: "a", For: "alice"}, "alice", `{"sub":"a"}`},
		"in a chain":            {identity.Subject{Agent: "a", For: "alice", Chain: []identity.Subject{{Agent: "b"}, {Agent: "c"}}}, "alice", `{"act":{"act":{"sub":"c"},"sub":"b"},"sub":"a"}`},
		"in a chain of its own": {identity.Subject{Agent: "a", Chain: []identity.Subject{{Agent: "b"}}}, "b", `{"act":{"sub":"b"},"sub":"a"}`},
	} {
		out, err := i.issue(&request{audience: Audience{URI: "https://next.example"}, mayAct: "m"}, tt.subject, []string{"s"}, identity.Binding{})
		if err != nil {
			t.Fatal(err)
		}
		jws, err := jose.ParseSignedCompact(out.Token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify(keys.Keys[0])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Sub   string
			Act   json.RawMessage
			Scope string
			Exp   int64
		}
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatal(err)
		}
		if claims.Sub != tt.sub || string(claims.Act) != tt.act || claims.Scope != "s" || claims.Exp > now.Add(time.Minute).Unix() {
			t.Errorf("%s: %s", name, payload)
		}
		registry, err := identity.NewRegistry(nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := identity.New(identity.Config{Agents: registry, Issuers: []identity.Issuer{{
			Issuer: "https://node.example", Audience: "https://next.example", AgentClaim: "client_id", AccessTokens: true, Keys: keys,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), bearer(out.Token))
		want := tt.subject
		if d := cmp.Diff([]any{want.Agent, want.For, want.Chain, "m"}, []any{got.Agent, got.For, got.Chain, got.MayAct}); err != nil || d != "" {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
}

// A form is read or refused, whatever it holds.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"grant_type=client_credentials&audience=a&scope=x+y",
		"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=t&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&resource=https%3A%2F%2Fa&may_act=b",
		"grant_type=a&grant_type=b", "%zz", "audience=;",
	} {
		f.Add(s, "Basic eDp5")
	}
	i := &Issuer{Config: Config{Issuer: "https://node.example", Audiences: map[string]Audience{"a": {URI: "https://a"}}}}
	f.Fuzz(func(t *testing.T, body, auth string) {
		r := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header["Authorization"] = []string{auth}
		q, refused := i.read(httptest.NewRecorder(), r)
		if refused == nil && (q.name != "a" || q.audience.URI != "https://a") {
			t.Errorf("%q: %+v", body, q)
		}
	})
}

func bearer(token string) authz.Credential {
	return authz.Credential{Kind: authz.CredentialBearer, Value: token}
}
