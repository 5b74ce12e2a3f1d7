package extauthz

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// yes is a decider that allows all, and keeps the last question.
type yes struct {
	pep.Decider
	last *authz.Request
}

func (y *yes) Decide(_ context.Context, req authz.Request) (authz.Decision, error) {
	y.last = &req
	return authz.Decision{ID: "d1", Allow: true}, nil
}

func (y *yes) Report(context.Context, authz.Outcome) error { return nil }

func fuzzed(f *testing.F) (*Gate, *yes) {
	text, err := os.ReadFile("testdata/pets.yaml")
	if err != nil {
		f.Fatal(err)
	}
	d, err := openapi.Parse(text)
	if err != nil {
		f.Fatal(err)
	}
	y := &yes{}
	g, err := New(Config{Decider: y, Logger: slog.New(slog.DiscardHandler), APIs: []API{{Name: "pets", Router: d.Router(), Hosts: []string{"pets.test"}, Prefix: "/v1"}}})
	if err != nil {
		f.Fatal(err)
	}
	return g, y
}

// sound holds an allow to having been decided as an operation with its input.
func sound(t *testing.T, y *yes) {
	t.Helper()
	if y.last == nil || y.last.Definition == "" || !strings.HasPrefix(string(y.last.Input), "{") {
		t.Errorf("allowed, and decided was %+v", y.last)
	}
}

func FuzzCheck(f *testing.F) {
	for _, name := range []string{"get", "post", "raw"} {
		text, err := os.ReadFile("testdata/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		req := &authv3.CheckRequest{}
		if err := protojson.Unmarshal(text, req); err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	g, y := fuzzed(f)
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", "Bearer key"))
	f.Fuzz(func(t *testing.T, b []byte) {
		req := &authv3.CheckRequest{}
		if proto.Unmarshal(b, req) != nil {
			return
		}
		y.last = nil
		r, err := (&checker{gate: g}).Check(ctx, req)
		if err != nil || r.GetStatus() == nil {
			t.Fatalf("no answer: %v %v", r, err)
		}
		if _, err := proto.Marshal(r); err != nil {
			t.Fatalf("the answer cannot be sent: %v", err)
		}
		if allowed := r.GetStatus().GetCode() == 0; allowed != (r.GetOkResponse() != nil) || allowed == (r.GetDeniedResponse() != nil) {
			t.Errorf("a response of two minds: %v", r)
		} else if allowed {
			sound(t, y)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	for _, s := range [][4]string{
		{"/auth/nginx/pets", "GET", "/v1/pets/7?q=a", "pets.test"}, {"/auth/forward/pets?x", "DELETE", "/v1/pets/7", "pets.test:80"},
		{"/ext_authz/pets/v1/pets", "GET", "//", "x"}, {"/auth/nginx/", "", "", ""}, {"/auth/nginx/pets", "GET", "/v1/../v1/pets", "pets.test"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	g, y := fuzzed(f)
	f.Fuzz(func(t *testing.T, at, method, target, host string) {
		y.last = nil
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RequestURI, r.Host = at, host
		r.Header = http.Header{"Bailiwick-Pep": {"Bearer key"}}
		for _, kind := range []string{"Original", "Forwarded"} {
			r.Header["X-"+kind+"-Method"], r.Header["X-"+kind+"-Uri"], r.Header["X-"+kind+"-Host"] = []string{method}, []string{target}, []string{host}
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			sound(t, y)
		} else if w.Code < 400 {
			t.Errorf("got %d", w.Code)
		}
	})
}
