package pep_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// What a client shows is one credential or none, with what it takes to check
// it.
func TestWhatAClientShows(t *testing.T) {
	const at = "http://gate.example/api/a%2Fb"
	dpop := func(proof string) authz.Credential {
		return authz.Credential{Kind: authz.CredentialDPoP, Value: "t", Proof: proof, Method: "PUT", URL: at}
	}
	for _, tt := range []struct {
		name    string
		headers []string
		cert    string
		public  string
		want    authz.Credential
	}{
		{name: "nothing"},
		{name: "bearer", headers: []string{"Authorization", "bEaReR  t "}, want: authz.Credential{Kind: authz.CredentialBearer, Value: "t"}},
		{name: "bearer and certificate", headers: []string{"Authorization", "Bearer t"}, cert: "c", want: authz.Credential{Kind: authz.CredentialBearer, Value: "t", Certificates: "cc"}},
		{name: "certificate", cert: "c", want: authz.Credential{Kind: authz.CredentialCertificate, Certificates: "cc"}},
		{name: "certificate and something else", headers: []string{"Authorization", "Basic eDp5"}, cert: "c"},
		{name: "two of them", headers: []string{"Authorization", "Bearer t", "Authorization", "Bearer u"}, cert: "c"},
		{name: "no token", headers: []string{"Authorization", "Bearer "}},
		{name: "no scheme", headers: []string{"Authorization", "t"}},
		{name: "DPoP", headers: []string{"Authorization", "DPoP t", "DPoP", "p"}, want: dpop("p")},
		{name: "DPoP without a proof", headers: []string{"Authorization", "DPoP t"}, want: dpop("")},
		{name: "DPoP with two proofs", headers: []string{"Authorization", "DPoP t", "DPoP", "p", "DPoP", "q"}, want: dpop("")},
		{name: "behind another name", headers: []string{"Authorization", "DPoP t", "DPoP", "p"}, public: "https://known.example", want: func() authz.Credential {
			c := dpop("p")
			c.URL = "https://known.example/api/a%2Fb"
			return c
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("PUT", at+"?q=1", nil)
			for i := 0; i < len(tt.headers); i += 2 {
				r.Header.Add(tt.headers[i], tt.headers[i+1])
			}
			if tt.cert != "" {
				r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(tt.cert)}, {Raw: []byte(tt.cert)}}}
			}
			got := pep.Shown(r, tt.public)
			if (got.Exchange != "") != (tt.want.Kind == authz.CredentialDPoP) {
				t.Errorf("exchange %q", got.Exchange)
			}
			// go-cmp would ask the credential to show itself.
			if d := cmp.Diff(bare(tt.want), bare(got), cmpopts.IgnoreFields(plain{}, "Exchange")); d != "" {
				t.Error(d)
			}
		})
	}
	r := httptest.NewRequest("GET", "https://gate.example/x", nil)
	r.Header.Set("Authorization", "DPoP t")
	if a, b := pep.Shown(r, ""), pep.Shown(r, ""); a.URL != "https://gate.example/x" || a.Exchange == b.Exchange {
		t.Errorf("%q, exchanges %q and %q", a.URL, a.Exchange, b.Exchange)
	}
}

type plain authz.Credential

func bare(c authz.Credential) plain { return plain(c) }

// Challenges are those of RFC 6750 §3, RFC 9449 §7.1 and RFC 9470 §3, each with
// its status.
func TestChallenges(t *testing.T) {
	door := pep.Door{Metadata: `https://g/.well-known/oauth-protected-resource`, DPoP: []string{"ES256", "EdDSA"}}
	const meta = `, resource_metadata="https://g/.well-known/oauth-protected-resource"`
	for _, tt := range []struct {
		name   string
		door   pep.Door
		shown  authz.CredentialKind
		code   string
		better *authz.Challenge
		status int
		want   []string
	}{
		{"denied for good", door, authz.CredentialBearer, authz.ReasonForbidden, nil, 0, nil},
		{"nothing shown", door, authz.CredentialNone, authz.ReasonUnauthenticated, nil, 401, []string{`Bearer realm="bailiwick"` + meta, `DPoP realm="bailiwick", algs="ES256 EdDSA"` + meta}},
		{"wrong token", door, authz.CredentialBearer, authz.ReasonUnauthenticated, nil, 401, []string{`Bearer realm="bailiwick", error="invalid_token"` + meta, `DPoP realm="bailiwick", algs="ES256 EdDSA"` + meta}},
		{"wrong proof", door, authz.CredentialDPoP, authz.ReasonUnauthenticated, nil, 401, []string{`Bearer realm="bailiwick"` + meta, `DPoP realm="bailiwick", error="invalid_token", algs="ES256 EdDSA"` + meta}},
		{"no tokens here", pep.Door{}, authz.CredentialBearer, authz.ReasonUnauthenticated, nil, 401, []string{`Bearer realm="bailiwick", error="invalid_token"`}},
		{"scope", door, authz.CredentialBearer, authz.ReasonNoPermit, &authz.Challenge{Scopes: []string{"a", "b"}}, 403, []string{`Bearer realm="bailiwick", error="insufficient_scope", scope="a b"` + meta}},
		{"stronger", door, authz.CredentialDPoP, authz.ReasonForbidden, &authz.Challenge{ACR: []string{"phr", "phrh"}}, 401, []string{`DPoP realm="bailiwick", error="insufficient_user_authentication", error_description="A stronger or more recent authentication is needed.", acr_values="phr phrh"` + meta}},
		{"fresher, and more scope", pep.Door{}, authz.CredentialBearer, authz.ReasonForbidden, &authz.Challenge{MaxAge: 60, Scopes: []string{"a"}}, 401, []string{`Bearer realm="bailiwick", error="insufficient_user_authentication", error_description="A stronger or more recent authentication is needed.", max_age="60", scope="a"`}},
		{"what breaks out of a header", pep.Door{Metadata: "x\r\nSet-Cookie: a\"\\é"}, authz.CredentialNone, authz.ReasonUnauthenticated, nil, 401, []string{`Bearer realm="bailiwick", resource_metadata="xSet-Cookie: a\"\\"`}},
	} {
		status, got := tt.door.Challenge(tt.shown, tt.code, tt.better)
		if d := cmp.Diff(tt.want, got); status != tt.status || d != "" {
			t.Errorf("%s: %d %s", tt.name, status, d)
		}
	}
}
