// Package authzen holds the decision API of the real binary to the standard.
package authzen

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/test/certify"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const pep = `peps:
  - {id: records, key: "HASH", application: Records, subjects: [user], asserts: [user.role, record.status]}
`

// A server is a running PDP with the certification fixture.
type server struct {
	*rig.Deployment
	url, key string
	metrics  string // address
	client   *http.Client
}

func serve(t *testing.T) *server {
	t.Helper()
	rig.EndToEnd(t)
	policies, err := os.ReadFile("fixture/policies/records.cedar")
	if err != nil {
		t.Fatal(err)
	}
	key, hash := identity.NewKey()
	addr, err := rig.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := rig.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{url: "https://" + addr, key: key, metrics: metrics}
	s.Deployment = rig.Deploy(t, rig.Setup{
		Policies: string(policies), Agents: strings.Replace(pep, "HASH", hash, 1),
		Settings: map[string]any{
			"listen": addr, "public_url": s.url, "entities": map[string]any{"files": []string{"entities.yaml"}},
			"telemetry": map[string]string{"metrics": metrics},
			"tls":       map[string]string{"cert": "tls/cert.pem", "key": "tls/key.pem"},
		},
	})
	s.Addr = addr
	for _, name := range []string{"schema.cedarschema", "entities.yaml"} {
		text, err := os.ReadFile("fixture/" + name)
		if err == nil {
			err = s.Write(name, string(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.client = s.certificate(t)
	s.Serve(t)
	return s
}

// certificate writes a key pair for the server and returns a client that
// trusts it.
func (s *server) certificate(t *testing.T) *http.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pdp"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"tls/cert.pem": cert, "tls/key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := s.Write(name, string(text)); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// ask posts a body and returns status and answer.
func (s *server) ask(t *testing.T, path, key, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(bytes.TrimSpace(text), &answer); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return resp.StatusCode, answer
}

const (
	aliceReads = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`
	bobWrites  = `{"subject":{"type":"user","id":"bob"},"action":{"name":"write"},"resource":{"type":"record","id":"record-1"}}`
)

// All cases of the certification scenario, over TLS, against the real binary.
func TestCertification(t *testing.T) {
	s := serve(t)
	certify.Run(t, certify.Config{BaseURL: s.url, Client: s.client, Key: s.key, CasesFile: "../../internal/api/testdata/authzen-cert-cases.json"})
}

// What was answered is on the record, who asked and for whom, and the log can
// be verified.
func TestAnswersAreOnTheRecord(t *testing.T) {
	s := serve(t)
	if status, answer := s.ask(t, "/access/v1/evaluation", "", aliceReads); status != http.StatusUnauthorized {
		t.Errorf("without a key: %d %v", status, answer)
	}
	_, allowed := s.ask(t, "/access/v1/evaluation", s.key, aliceReads)
	_, denied := s.ask(t, "/access/v1/evaluation", s.key, bobWrites)
	if allowed["decision"] != true || denied["decision"] != false {
		t.Fatalf("%v %v", allowed, denied)
	}
	id, _ := denied["context"].(map[string]any)["evaluation_id"].(string)
	shown := s.MustRun(t, "audit", "show", id, "--json")
	for _, want := range []string{"Records::user", "bob", "records", "Records::record", "record-1", "no_permit"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the record does not say %q:\n%s", want, shown)
		}
	}
	// Those who asked report no outcome, so none is missing.
	if verified := s.MustRun(t, "audit", "verify", "--json"); !strings.Contains(verified, `"open": 0`) {
		t.Errorf("%s", verified)
	}
}

// What was decided can be scraped, and is not told where agents are.
func TestMetrics(t *testing.T) {
	s := serve(t)
	for range 3 {
		s.ask(t, "/access/v1/evaluation", s.key, aliceReads)
	}
	s.ask(t, "/access/v1/evaluation", s.key, bobWrites)
	_, text := call(t, "GET", "http://"+s.metrics+"/metrics", "", "")
	for _, want := range []string{
		`bailiwick_decisions_total{effect="allow",gate="authzen",reason="allowed"} 3`,
		`bailiwick_decisions_total{effect="deny",gate="authzen",reason="no_permit"} 1`,
		`bailiwick_decision_step_seconds_count{step="record"} 4`,
		"bailiwick_entity_sources 1", "bailiwick_sessions 2", "bailiwick_log_queue_records 0", "bailiwick_shortcut_mismatches_total 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	resp, err := s.client.Get(s.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the address of the agents answers %d for metrics", resp.StatusCode)
	}
}

// Entities, policies and enforcement points are taken over while the server
// runs.
func TestChangesAreTakenOver(t *testing.T) {
	s := serve(t)
	carol := strings.Replace(strings.Replace(bobWrites, "bob", "carol", 1), "record-1", "record-2", 1)
	if _, answer := s.ask(t, "/access/v1/evaluation", s.key, carol); answer["decision"] != false {
		t.Fatalf("%v", answer)
	}
	entities, err := os.ReadFile("fixture/entities.yaml")
	if err == nil {
		err = s.Write("entities.yaml", string(entities)+"  - {type: Records::user, id: carol, attributes: {role: admin}}\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, func() bool {
		_, answer := s.ask(t, "/access/v1/evaluation", s.key, carol)
		return answer["decision"] == true
	})
	key := strings.TrimSpace(s.MustRun(t, "peps", "add", "second", "--application", "Records", "--subject", "user"))
	s.until(t, func() bool {
		status, _ := s.ask(t, "/access/v1/evaluation", key, aliceReads)
		return status == http.StatusOK
	})
}

func (s *server) until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("the change was not taken over in 20 s")
		}
		time.Sleep(50 * time.Millisecond)
	}
}
