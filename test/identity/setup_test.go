// Package identity proves who is asking to the real binary, in all the ways
// that it takes: keys, tokens of real issuers, proofs of possession,
// certificates, workload identities, chains of agents.
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const policies = `
@id("look")
permit (principal in Group::"clerks", action in Action::"discover", resource);
@id("read")
permit (principal in Group::"clerks", action == Action::"shop/getOrder", resource);
@id("write")
permit (principal in Group::"clerks", action == Action::"shop/placeOrder", resource) when { context.auth.scopes.contains("orders.write") };
@id("act")
permit (principal in Group::"clerks", action == Action::"counter/act", resource);
@id("strongly")
forbid (principal, action == Action::"counter/act", resource) unless { context.auth.level >= 2 && context.auth.age <= 600 };
@id("tokens")
permit (principal in Group::"clerks", action == Action::"token:exchange", resource) unless { resource == Server::"billing" && context.input.scope != "" };
`

const agents = `  - {id: planner, groups: [clerks], owner: ops@example.com, key: "PLANNER"}
  - {id: worker, groups: [clerks], key: "WORKER"}
  - {id: loner, key: "LONER"}
  - {id: sleeper, groups: [clerks], state: suspended, key: "SLEEPER"}
  - id: mill
    groups: [clerks]
    credentials: [{label: workload, spiffe: "spiffe://example.org/mill"}]
  - {id: sid1, groups: [clerks]}
peps:
  - {id: gate, key: "GATE", relays: true}
`

const document = `openapi: 3.1.0
info: {title: Shop, version: "1"}
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses: {"200": {description: ok}}
  /orders:
    post:
      operationId: placeOrder
      responses: {"200": {description: ok}}
`

// A world is a node behind TLS, with an API and an MCP server behind it, and the
// issuers that it trusts.
type world struct {
	*rig.Deployment
	t       *testing.T
	base    string
	shop    string
	counter *rig.Counter
	issuer  *issuer
	ca      ca
	keys    map[string]string // by agent
}

// newWorld deploys a node; settings are further keys of its configuration.
func newWorld(t *testing.T, settings map[string]any) *world {
	t.Helper()
	rig.EndToEnd(t)
	w := &world{t: t, counter: rig.Count(t, true), issuer: newIssuer(t), ca: newCA(t), keys: map[string]string{}}
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "the shop did it")
	}))
	t.Cleanup(shop.Close)
	w.shop = shop.URL
	text := agents
	for _, a := range []string{"planner", "worker", "loner", "sleeper", "gate"} {
		key, hash := identity.NewKey()
		w.keys[a], text = key, strings.ReplaceAll(text, strings.ToUpper(a), hash)
	}
	addr, err := rig.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	w.base = "https://" + addr
	all := map[string]any{
		"listen": addr, "public_url": w.base, "tls": map[string]any{"cert": "server.pem", "key": "server.key", "client_certificates": true},
		"issuers": []any{map[string]any{"issuer": w.issuer.URL, "audience": w.base, "levels": map[string]int{"phr": 2}, "access_tokens": true, "sender_constrained": false}},
		"apis":    map[string]any{"shop": map[string]any{"openapi": "shop.yaml", "url": shop.URL}},
		"token_exchange": map[string]any{"audiences": map[string]any{
			"self":    map[string]any{"uri": w.base, "scopes": []string{"orders.write"}},
			"billing": map[string]any{"uri": "https://billing.example", "scopes": []string{"invoices.read"}, "bearer": true},
		}},
	}
	for k, v := range settings {
		all[k] = v
	}
	w.Deployment = rig.Deploy(t, rig.Setup{
		Policies: policies, Agents: text, Upstreams: map[string]rig.Upstream{"counter": {URL: w.counter.URL}}, Settings: all,
	})
	w.Addr = addr
	cert, key := w.ca.server(t)
	for name, text := range map[string]string{
		"shop.yaml": document, "server.pem": cert, "server.key": key, "gate.key": w.keys["gate"],
		"ca.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.cert.Raw})),
	} {
		if err := w.Write(name, text); err != nil {
			t.Fatal(err)
		}
	}
	w.Pin(t)
	w.Serve(t)
	return w
}

// client is an HTTP client with a certificate of its own, or none.
func (w *world) client(cert *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	c := &tls.Config{RootCAs: roots}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: c}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// A shown is what a request shows.
type shown struct {
	auth, proof string
	cert        *tls.Certificate
}

type reply struct {
	status int
	body   string
	header http.Header
}

func (w *world) do(s shown, method, path, contentType, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	for name, value := range map[string]string{"Content-Type": contentType, "Authorization": s.auth, "DPoP": s.proof} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := w.client(s.cert).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{res.StatusCode, string(text), res.Header}
}

// order reads an order of the shop, which every clerk may.
func (w *world) order(s shown) reply {
	w.t.Helper()
	return w.do(s, "GET", "/api/shop/orders/1", "", "")
}

// exchange asks for a token.
func (w *world) exchange(s shown, form url.Values) (string, reply) {
	w.t.Helper()
	r := w.do(s, "POST", "/oauth/token", "application/x-www-form-urlencoded", form.Encode())
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		w.t.Fatalf("%d %s", r.status, r.body)
	}
	return out.Token, r
}

// An issuer signs whatever a test wants.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{key: newKey(t)}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.key.PublicKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}}}) //nolint:errcheck // a test's server
			return
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, i.URL, i.URL+"/keys")
	}))
	t.Cleanup(i.Close)
	return i
}

// token is an access token for an audience.
func (i *issuer) token(t *testing.T, audience, agent string, more map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": i.URL, "aud": audience, "sub": agent, "client_id": agent, "jti": rand.Text(), "iat": time.Now().Unix(), "exp": time.Now().Add(10 * time.Minute).Unix(),
	}
	for k, v := range more {
		claims[k] = v
	}
	return sign(t, jose.JSONWebKey{Key: i.key, KeyID: "k"}, map[jose.HeaderKey]any{"typ": "at+jwt"}, claims)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, key any, header map[jose.HeaderKey]any, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
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

func thumbprint(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	s, err := identity.KeyThumbprint(&jose.JSONWebKey{Key: &key.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// prove is a DPoP proof; without a token it is one for getting a token.
func prove(t testing.TB, key *ecdsa.PrivateKey, method, uri, token string) string {
	t.Helper()
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": uri, "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return sign(t, key, map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": jose.JSONWebKey{Key: &key.PublicKey}}, claims)
}

// A ca is the authority of everybody's certificates.
type ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCA(t testing.TB) ca {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca{key, cert}
}

func (c ca) issue(t testing.TB, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// workload is the certificate of a workload, its X.509-SVID.
func (c ca) workload(t testing.TB, id string) *tls.Certificate {
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return c.issue(t, &x509.Certificate{URIs: []*url.URL{u}})
}

// server is the node's certificate and key in PEM.
func (c ca) server(t testing.TB) (cert, key string) {
	t.Helper()
	pair := c.issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func basic(user, secret string) string {
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(user) + ":" + url.QueryEscape(secret)))
}
