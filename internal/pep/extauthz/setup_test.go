package extauthz_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// script is a decider that answers as it is told and keeps what it is asked.
type script struct {
	pep.Decider
	decide func(context.Context, authz.Request) (authz.Decision, error)

	mu       sync.Mutex
	asked    []authz.Request
	outcomes []authz.Outcome
}

func (s *script) Decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	s.mu.Lock()
	s.asked = append(s.asked, req)
	s.mu.Unlock()
	return s.decide(ctx, req)
}

func (s *script) Report(_ context.Context, o authz.Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes = append(s.outcomes, o)
	return nil
}

// last is the last request that was asked about.
func (s *script) last() authz.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		return authz.Request{}
	}
	return s.asked[len(s.asked)-1]
}

func allowAll(context.Context, authz.Request) (authz.Decision, error) {
	return authz.Decision{ID: "d1", Version: "v1", Allow: true}, nil
}

func router(t testing.TB) *openapi.Router {
	t.Helper()
	text, err := os.ReadFile("testdata/pets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := openapi.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d.Router()
}

func config(t testing.TB, s *script, log *bytes.Buffer) extauthz.Config {
	return extauthz.Config{
		Decider: s, Logger: slog.New(slog.NewJSONHandler(log, nil)),
		APIs: []extauthz.API{{Name: "pets", Router: router(t), Hosts: []string{"pets.test"}, Prefix: "/v1"}},
	}
}

// An envoy is a client of the service over a real connection.
type envoy struct {
	*script
	conn *grpc.ClientConn
	log  *bytes.Buffer // read only when no call is in flight
}

func serve(t testing.TB, decide func(context.Context, authz.Request) (authz.Decision, error), change func(*extauthz.Config)) *envoy {
	t.Helper()
	e := &envoy{script: &script{decide: decide}, log: &bytes.Buffer{}}
	c := config(t, e.script, e.log)
	if change != nil {
		change(&c)
	}
	gate, err := extauthz.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	gate.Register(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends when the server is stopped
	}()
	e.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.conn.Close()
		srv.Stop()
		<-done
	})
	return e
}

// check asks as Envoy does, with the gateway's key.
func (e *envoy) check(t testing.TB, req *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	return e.checkWith(t, req, "authorization", "Bearer gateway-key")
}

func (e *envoy) checkWith(t testing.TB, req *authv3.CheckRequest, md ...string) *authv3.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), md...), patience)
	defer cancel()
	r, err := authv3.NewAuthorizationClient(e.conn).Check(ctx, req)
	if err != nil {
		t.Fatalf("an answer must never be an error, which Envoy may take for an allow: %v", err)
	}
	return r
}

// sample is a CheckRequest as Envoy sends it.
func sample(t testing.TB, name string) *authv3.CheckRequest {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	req := &authv3.CheckRequest{}
	if err := protojson.Unmarshal(text, req); err != nil {
		t.Fatal(err)
	}
	return req
}

// allows is what Envoy makes of a response: a status that is not there is OK.
func allows(r *authv3.CheckResponse) bool { return r.GetStatus().GetCode() == 0 }
