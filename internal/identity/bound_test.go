package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// The example of RFC 9449 §7.1, figures 13 and 14, with the token of §5 and the
// thumbprint of §6.1.
func TestProofOfRFC9449(t *testing.T) {
	const (
		proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik" +
			"VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR" +
			"nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE" +
			"QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj" +
			"oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z" +
			"WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF" +
			"c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E" +
			"OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
		thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	)
	made := time.Unix(1562262618, 0)
	v := newVerifier(t, Config{Now: func() time.Time { return made.Add(time.Second) }})
	cred := authz.Credential{
		Kind: authz.CredentialDPoP, Value: "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", Proof: proof,
		Method: "GET", URL: "https://resource.example.org/protectedresource",
	}
	if err := v.possesses(cred, thumbprint); err != nil {
		t.Fatal(err)
	}
	if err := v.possesses(cred, thumbprint); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("replayed: %v", err)
	}
}

// RFC 8705 §3.1: the thumbprint is that of the DER encoding, base64url without
// padding.
func TestThumbprint(t *testing.T) {
	sum := sha256.Sum256([]byte("der"))
	if got := Thumbprint([]byte("der")); got != strings.TrimRight(base64.URLEncoding.EncodeToString(sum[:]), "=") {
		t.Error(got)
	}
}

// A token that is bound to a key is worth nothing without a fresh proof of that
// key, for this request and this token.
func TestBoundTokenNeedsItsKey(t *testing.T) {
	o := newOP(t)
	key, other := newECKey(t), newECKey(t)
	now := time.Now()
	v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}}, Now: func() time.Time { return now }})
	token := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["cnf"] = map[string]string{"jkt": jkt(t, key)} })
	free := o.token(t, jose.ES256, o.key, nil)
	type change = func(header map[jose.HeaderKey]any, claims map[string]any)
	with := func(name string, value any) change {
		return func(_ map[jose.HeaderKey]any, claims map[string]any) { claims[name] = value }
	}
	head := func(name jose.HeaderKey, value any) change {
		return func(header map[jose.HeaderKey]any, _ map[string]any) { header[name] = value }
	}
	ok := dpopProofOf(t, key, token, now, nil)
	if s, err := v.Verify(t.Context(), dpop(token, ok, "one")); err != nil || s.Agent != "billing-bot" || s.Method != MethodDPoP {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := v.Verify(t.Context(), dpop(token, ok, "one")); err != nil {
		t.Errorf("asked about again within one request: %v", err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakKey := jose.JSONWebKey{Key: &rsaKey.PublicKey}
	weakThumbprint, err := KeyThumbprint(&weakKey)
	if err != nil {
		t.Fatal(err)
	}
	weak := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["cnf"] = map[string]string{"jkt": weakThumbprint} })
	hash := sha256.Sum256([]byte(weak))
	weakProof := sign(t, jose.RS256, rsaKey, map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": weakKey}, map[string]any{
		"jti": "1", "htm": "POST", "htu": "https://gate.example/mcp", "iat": now.Unix(), "ath": base64.RawURLEncoding.EncodeToString(hash[:]),
	})
	get := dpop(token, dpopProofOf(t, key, token, now, nil), "")
	get.Method = "GET"
	elsewhere := dpop(token, dpopProofOf(t, key, token, now, nil), "")
	elsewhere.URL = "https://gate.example/mcp/other"
	unseen := dpop(token, dpopProofOf(t, key, token, now, nil), "")
	unseen.URL, unseen.Method = "", ""
	for name, cred := range map[string]authz.Credential{
		"replayed":                    dpop(token, ok, "two"),
		"replayed, exchange not said": dpop(token, ok, ""),
		"as a bearer token":           {Kind: authz.CredentialBearer, Value: token},
		"no proof":                    dpop(token, "", ""),
		"token that is not bound":     dpop(free, dpopProofOf(t, key, free, now, nil), ""),
		"proof of another key":        dpop(token, dpopProofOf(t, other, token, now, nil), ""),
		"proof for another token":     dpop(token, dpopProofOf(t, key, free, now, nil), ""),
		"another method":              get,
		"another path":                elsewhere,
		"gate that has seen nothing":  unseen,
		"too old":                     dpop(token, dpopProofOf(t, key, token, now.Add(-proofAge-time.Second), nil), ""),
		"from the future":             dpop(token, dpopProofOf(t, key, token, now.Add(proofAhead+2*time.Second), nil), ""),
		"no time":                     dpop(token, dpopProofOf(t, key, token, now, with("iat", 0)), ""),
		"time of another shape":       dpop(token, dpopProofOf(t, key, token, now, with("iat", "now")), ""),
		"no jti":                      dpop(token, dpopProofOf(t, key, token, now, with("jti", "")), ""),
		"over-long jti":               dpop(token, dpopProofOf(t, key, token, now, with("jti", strings.Repeat("x", maxJTI+1))), ""),
		"no ath":                      dpop(token, dpopProofOf(t, key, token, now, with("ath", "")), ""),
		"type":                        dpop(token, dpopProofOf(t, key, token, now, head("typ", "JWT")), ""),
		"private key in it":           dpop(token, dpopProofOf(t, key, token, now, head("jwk", jose.JSONWebKey{Key: key})), ""),
		"no key in it":                dpop(token, dpopProofOf(t, key, token, now, head("jwk", nil)), ""),
		"other key in it":             dpop(token, dpopProofOf(t, key, token, now, head("jwk", jose.JSONWebKey{Key: &other.PublicKey})), ""),
		"weak key":                    dpop(weak, weakProof, ""),
		"symmetric":                   dpop(token, sign(t, jose.HS256, []byte(strings.Repeat("k", 32)), map[jose.HeaderKey]any{"typ": "dpop+jwt"}, map[string]any{}), ""),
		"over-long":                   dpop(token, dpopProofOf(t, key, token, now, with("x", strings.Repeat("a", maxProof))), ""),
		"garbage":                     dpop(token, "a.b.c", ""),
		"agent key as a token":        {Kind: authz.CredentialDPoP, Value: "bwk_x", Proof: ok},
	} {
		if s, err := v.Verify(t.Context(), cred); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	// htu is compared as a URI, not as text (RFC 9449 §4.3).
	for _, htu := range []string{"HTTPS://Gate.Example:443/mcp", "https://gate.example/mcp?y=2#z"} {
		if _, err := v.Verify(t.Context(), dpop(token, dpopProofOf(t, key, token, now, with("htu", htu)), "")); err != nil {
			t.Errorf("htu %s: %v", htu, err)
		}
	}
}

// What a token is bound to is checked, or the token is refused.
func TestWhatATokenIsBoundTo(t *testing.T) {
	o := newOP(t)
	authority := newCA(t)
	cert, stranger := authority.leaf(t, "spiffe://example.org/a", time.Now().Add(time.Hour)), authority.leaf(t, "spiffe://example.org/a", time.Now().Add(time.Hour))
	thumb := Thumbprint([]byte(cert))
	issuer := Issuer{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}
	bound := issuer
	bound.SenderConstrained = true
	show := func(cnf any, certs string) authz.Credential {
		return authz.Credential{Kind: authz.CredentialBearer, Certificates: certs, Value: o.token(t, jose.ES256, o.key, func(c map[string]any) {
			if cnf != nil {
				c["cnf"] = cnf
			}
		})}
	}
	for _, tt := range []struct {
		name   string
		issuer Issuer
		cred   authz.Credential
		method string // empty: refused
	}{
		{"bound to nothing", issuer, show(nil, ""), MethodJWT},
		{"bound to nothing, where it has to be", bound, show(nil, cert), ""},
		{"its certificate", bound, show(map[string]any{"x5t#S256": thumb}, cert), MethodMTLS},
		{"its certificate, with others after it", bound, show(map[string]any{"x5t#S256": thumb}, cert+stranger), MethodMTLS},
		{"another certificate", issuer, show(map[string]any{"x5t#S256": thumb}, stranger), ""},
		{"another before it", issuer, show(map[string]any{"x5t#S256": thumb}, stranger+cert), ""},
		{"no certificate", issuer, show(map[string]any{"x5t#S256": thumb}, ""), ""},
		{"garbage for a certificate", issuer, show(map[string]any{"x5t#S256": thumb}, "garbage"), ""},
		{"key and certificate, one of them shown", issuer, show(map[string]any{"x5t#S256": thumb, "jkt": thumb}, cert), ""},
		{"another way", issuer, show(map[string]any{"jwk": map[string]any{}}, cert), ""},
		{"one more way", issuer, show(map[string]any{"x5t#S256": thumb, "kid": thumb}, cert), ""},
		{"no way", issuer, show(map[string]any{}, cert), ""},
		{"no object", issuer, show("jkt", cert), ""},
		{"short thumbprint", issuer, show(map[string]any{"x5t#S256": thumb[:20]}, cert), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVerifier(t, Config{Issuers: []Issuer{tt.issuer}})
			for range 2 { // the second time the token is remembered
				s, err := v.Verify(t.Context(), tt.cred)
				if s.Method != tt.method || (tt.method == "") != errors.Is(err, ErrUnauthenticated) {
					t.Errorf("%+v, %v", s, err)
				}
			}
		})
	}
}

// A cache of proofs that is full refuses new ones rather than forgetting old
// ones, says that it is not the client's fault, and has room again in time.
func TestFullReplayCacheDenies(t *testing.T) {
	o := newOP(t)
	key := newECKey(t)
	now := time.Now()
	v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}}, Replays: 3, Now: func() time.Time { return now }})
	token := o.token(t, jose.ES256, o.key, func(c map[string]any) {
		c["cnf"], c["exp"] = map[string]string{"jkt": jkt(t, key)}, now.Add(time.Hour).Unix()
	})
	first := dpop(token, dpopProofOf(t, key, token, now, nil), "")
	for i := range 3 {
		cred := first
		if i > 0 {
			cred = dpop(token, dpopProofOf(t, key, token, now, nil), "")
		}
		if _, err := v.Verify(t.Context(), cred); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := v.Verify(t.Context(), dpop(token, dpopProofOf(t, key, token, now, nil), "")); !errors.Is(err, errReplaysFull) || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("full: %+v, %v", s, err)
	}
	if _, err := v.Verify(t.Context(), first); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("replayed while full: %v", err)
	}
	now = now.Add(proofAge + proofAhead)
	if _, err := v.Verify(t.Context(), first); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("replayed as soon as it was forgotten: %v", err)
	}
	if _, err := v.Verify(t.Context(), dpop(token, dpopProofOf(t, key, token, now, nil), "")); err != nil {
		t.Errorf("later: %v", err)
	}
	if n := len(v.proofs.seen); n != 1 || len(v.proofs.order) != 1 {
		t.Errorf("%d proofs are remembered", n)
	}
}

// A certificate of the registry proves its agent while it is valid.
func TestCertificateOfTheRegistry(t *testing.T) {
	authority := newCA(t)
	cert := authority.leaf(t, "urn:x:1", time.Now().Add(time.Hour))
	sum := sha256.Sum256([]byte(cert))
	r, err := ParseRegistry(fmt.Appendf(nil, "agents:\n  - id: mill\n    credentials: [{certificate: 'sha256:%s'}]\n", hex.EncodeToString(sum[:])))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	v := newVerifier(t, Config{Agents: r, Now: func() time.Time { return now }})
	show := func(der string) (Subject, error) {
		return v.Verify(t.Context(), authz.Credential{Kind: authz.CredentialCertificate, Certificates: der})
	}
	if s, err := show(cert); err != nil || s.Agent != "mill" || s.Method != MethodMTLS {
		t.Errorf("%+v, %v", s, err)
	}
	for name, der := range map[string]string{
		"another of the same authority": authority.leaf(t, "urn:x:1", time.Now().Add(time.Hour)), "none": "", "garbage": "x",
		"over-long": strings.Repeat(cert, maxCertificates/len(cert)+1),
	} {
		if s, err := show(der); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	now = now.Add(2 * time.Hour)
	if s, err := show(cert); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("over: %+v, %v", s, err)
	}
}

func FuzzProof(f *testing.F) {
	key := newECKey(f)
	f.Add(dpopProofOf(f, key, "token", time.Now(), nil))
	f.Add("e30.e30.e30")
	other, err := ecdsa.GenerateKey(key.Curve, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	want := jkt(f, other)
	v, err := New(Config{Agents: &Registry{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, proof string) {
		if err := v.possesses(dpop("token", proof, ""), want); err == nil {
			t.Errorf("%q proves a key that signed nothing", proof)
		}
	})
}
