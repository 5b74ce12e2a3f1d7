package identity

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
	"google.golang.org/grpc"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

// store is the provider's example store, whose service users get JWTs.
type store struct{ *storage.Storage }

func (s store) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	c, err := s.Storage.ClientCredentials(ctx, id, secret)
	if err != nil {
		return nil, err
	}
	return jwtClient{c}, nil
}

type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// newProvider is an OpenID provider that others have written.
func newProvider(t *testing.T) string {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	handler = exampleop.SetupServer(server.URL, store{storage.NewStorage(storage.NewUserStore(server.URL))}, nil, false)
	return server.URL
}

// An agent comes with the token that an OpenID provider gave it.
func TestTokensOfAProvider(t *testing.T) {
	provider := newProvider(t)
	w := newWorld(t, map[string]any{"issuers": []any{map[string]any{"issuer": provider, "audience": "sid1"}}})
	res, err := http.PostForm(provider+"/oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || strings.Count(got.Token, ".") != 2 {
		t.Fatalf("%d %v %q", res.StatusCode, err, got.Token)
	}
	if r := w.order(shown{auth: "Bearer " + got.Token}); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.order(shown{auth: "Bearer " + got.Token[:len(got.Token)-8] + "AAAAAAAA"}); r.status != 401 {
		t.Errorf("forged: %d %s", r.status, r.body)
	}
}

// A workloadAPI supplies the trust bundle of example.org, as SPIRE's agent does.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	ca  ca
	jwt *ecdsa.PrivateKey
}

const domain = "spiffe://example.org"

func (a *workloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, s grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	if err := s.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{domain: a.ca.cert.Raw}}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (a *workloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, s grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &a.jwt.PublicKey, KeyID: "w"}}})
	if err != nil {
		return err
	}
	if err := s.Send(&workload.JWTBundlesResponse{Bundles: map[string][]byte{domain: keys}}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// A workload is an agent by what SPIFFE calls it, and nobody while the Workload
// API has not said whom to trust.
func TestWorkloads(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "w.sock")
	w := newWorld(t, map[string]any{"spiffe": map[string]any{"trust_domain": "example.org", "workload_api": "unix://" + socket, "audience": "bailiwick"}})
	api := &workloadAPI{ca: w.ca, jwt: newKey(t)}
	svid := func(key *ecdsa.PrivateKey, sub, aud string, exp time.Time, more map[string]any) shown {
		claims := map[string]any{"sub": sub, "aud": []string{aud}, "exp": exp.Unix(), "iat": time.Now().Unix()}
		for k, v := range more {
			claims[k] = v
		}
		return shown{auth: "Bearer " + sign(t, jose.JSONWebKey{Key: key, KeyID: "w"}, map[jose.HeaderKey]any{"typ": "JWT"}, claims)}
	}
	soon := time.Now().Add(5 * time.Minute)
	mill := shown{cert: w.ca.workload(t, domain+"/mill")}
	good := svid(api.jwt, domain+"/mill", "bailiwick", soon, nil)
	for name, s := range map[string]shown{"JWT-SVID": good, "X.509-SVID": mill} {
		began := time.Now()
		if r := w.order(s); r.status != 503 || !strings.Contains(r.body, "identity_unavailable") || time.Since(began) > 5*time.Second {
			t.Errorf("%s without a Workload API: %d %s", name, r.status, r.body)
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, api)
	go server.Serve(l) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	for deadline := time.Now().Add(60 * time.Second); w.order(mill).status == 503 || w.order(good).status == 503; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the Workload API was not found again")
		}
	}
	stranger := newCA(t)
	for _, tt := range []struct {
		name   string
		show   shown
		status int
	}{
		{"X.509-SVID", mill, 200},
		{"X.509-SVID of another authority", shown{cert: stranger.workload(t, domain+"/mill")}, 401},
		{"X.509-SVID of another workload", shown{cert: w.ca.workload(t, domain+"/other")}, 401},
		{"X.509-SVID of another domain", shown{cert: w.ca.workload(t, "spiffe://elsewhere.org/mill")}, 401},
		{"JWT-SVID", good, 200},
		{"forged JWT-SVID", svid(newKey(t), domain+"/mill", "bailiwick", soon, nil), 401},
		{"expired JWT-SVID", svid(api.jwt, domain+"/mill", "bailiwick", time.Now().Add(-2*time.Minute), nil), 401},
		{"JWT-SVID for another", svid(api.jwt, domain+"/mill", "other", soon, nil), 401},
		{"JWT-SVID of another domain", svid(api.jwt, "spiffe://elsewhere.org/mill", "bailiwick", soon, nil), 401},
		{"JWT-SVID of another workload", svid(api.jwt, domain+"/other", "bailiwick", soon, nil), 401},
		{"JWT-SVID that is bound", svid(api.jwt, domain+"/mill", "bailiwick", soon, map[string]any{"cnf": map[string]any{"jkt": "x"}}), 401},
		{"JWT-SVID with a proof", shown{auth: strings.Replace(good.auth, "Bearer", "DPoP", 1), proof: "x"}, 401},
	} {
		if r := w.order(tt.show); r.status != tt.status {
			t.Errorf("%s: %d %s", tt.name, r.status, r.body)
		}
	}
	methods := map[string]bool{}
	for _, r := range w.Records(t) {
		if r.Kind == audit.KindDecision && r.Effect == "allow" && r.Who.Subject.ID == "mill" {
			methods[r.Who.Auth] = true
		}
	}
	if !methods["x509-svid"] || !methods["jwt-svid"] {
		t.Errorf("proven by %v", methods)
	}
}

// A key of an issuer that does not answer is a fault of ours, in time.
func TestHangingIssuerDeniesInTime(t *testing.T) {
	release := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hang.Close)
	t.Cleanup(func() { close(release) })
	w := newWorld(t, map[string]any{"issuers": []any{map[string]any{"issuer": hang.URL, "audience": "x"}}})
	token := (&issuer{Server: hang, key: newKey(t)}).token(t, "x", "planner", nil)
	began := time.Now()
	if r := w.order(shown{auth: "Bearer " + token}); r.status != 503 || time.Since(began) > 10*time.Second {
		t.Errorf("after %s: %d %s", time.Since(began), r.status, r.body)
	}
}
