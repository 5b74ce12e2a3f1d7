package extauthz_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
)

func clientCertificate(t *testing.T) (der []byte, text string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	return der, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// The PDP is shown what Envoy says that the client has shown: token and proof
// with the request that the proof has to be for, and the client's certificate.
func TestWhatEnvoySaysWasShown(t *testing.T) {
	e := serve(t, denies(authz.ReasonForbidden), nil)
	der, text := clientCertificate(t)
	in := sample(t, "get")
	h := in.GetAttributes().GetRequest().GetHttp()
	h.Scheme = "https"
	h.Headers["authorization"], h.Headers["dpop"] = "DPoP token", "proof"
	in.Attributes.Source.Certificate = url.PathEscape(text)
	e.check(t, in)
	got := e.last().Credential
	path, _, _ := strings.Cut(h.GetPath(), "?")
	if got.Kind != authz.CredentialDPoP || got.Value != "token" || got.Proof != "proof" || got.Method != h.GetMethod() || got.URL != "https://"+h.GetHost()+path || got.Exchange == "" {
		t.Errorf("%#v: %q %q", got, got.Method, got.URL)
	}
	delete(h.Headers, "authorization")
	in.Attributes.Source.Certificate = url.PathEscape(text)
	e.check(t, in)
	if got := e.last().Credential; got.Kind != authz.CredentialCertificate || got.Certificates != string(der) {
		t.Errorf("%#v", got)
	}
	before := len(e.asked)
	for _, wrong := range []string{"%zz", "garbage", url.PathEscape(strings.ReplaceAll(text, "CERTIFICATE", "PRIVATE KEY"))} {
		in.Attributes.Source.Certificate = wrong
		if r := e.check(t, in); allows(r) || len(e.asked) != before {
			t.Errorf("%s: %v", wrong, r)
		}
	}
}

// An agent is told through Envoy what another token would have to show.
func TestBetterTokenIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		better *authz.Challenge
		status int32
		says   string
	}{
		{&authz.Challenge{ACR: []string{"phr"}}, 401, `acr_values="phr"`},
		{&authz.Challenge{Scopes: []string{"s"}}, 403, `scope="s"`},
		{nil, 403, ""},
	} {
		e := serve(t, func(context.Context, authz.Request) (authz.Decision, error) {
			d := authz.Deny(authz.ReasonForbidden, "It may not.")
			d.ID, d.Challenge = "d1", tt.better
			return d, nil
		}, func(c *extauthz.Config) { c.Door = pep.Door{Metadata: "https://g/meta"} })
		d := e.check(t, sample(t, "get")).GetDeniedResponse()
		c := headerValues(d.GetHeaders())["WWW-Authenticate"]
		if int32(d.GetStatus().GetCode()) != tt.status || !strings.Contains(c, tt.says) || (c != "") != (tt.better != nil) {
			t.Errorf("%d %s", d.GetStatus().GetCode(), c)
		}
	}
}
