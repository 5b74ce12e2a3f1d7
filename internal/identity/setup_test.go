package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bailiwick-dev/bailiwick/authz"
)

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a JWT with header and claims as given.
func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// jkt is the thumbprint of a key.
func jkt(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	s, err := KeyThumbprint(&jose.JSONWebKey{Key: &key.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// proof is a DPoP proof of a key for a token, with what change makes of it.
func dpopProofOf(t testing.TB, key *ecdsa.PrivateKey, token string, at time.Time, change func(header map[jose.HeaderKey]any, claims map[string]any)) string {
	t.Helper()
	hash := sha256.Sum256([]byte(token))
	header := map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": jose.JSONWebKey{Key: &key.PublicKey}}
	claims := map[string]any{
		"jti": rand.Text(), "htm": "POST", "htu": "https://gate.example/mcp", "iat": at.Unix(),
		"ath": base64.RawURLEncoding.EncodeToString(hash[:]),
	}
	if change != nil {
		change(header, claims)
	}
	return sign(t, jose.ES256, key, header, claims)
}

// dpop is a token shown with a proof.
func dpop(token, proof, exchange string) authz.Credential {
	return authz.Credential{
		Kind: authz.CredentialDPoP, Value: token, Proof: proof, Method: "POST", URL: "https://gate.example/mcp?x=1", Exchange: exchange,
	}
}

// A ca signs certificates.
type ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCA(t testing.TB) ca {
	t.Helper()
	key := newECKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org"}},
	}
	return ca{key, makeCert(t, template, template, &key.PublicKey, key)}
}

// leaf is a certificate for a workload, in DER.
func (c ca) leaf(t testing.TB, uri string, until time.Time) string {
	t.Helper()
	key := newECKey(t)
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	return string(makeCert(t, template, c.cert, &key.PublicKey, c.key).Raw)
}

func makeCert(t testing.TB, template, parent *x509.Certificate, pub, priv any) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
