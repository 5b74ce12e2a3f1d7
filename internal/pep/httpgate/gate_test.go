package httpgate_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	agentKey = "agent-key-1"
	secret   = "upstream-secret-7Q"
	patience = 20 * time.Second
)

// script is a decider that answers as it is told and keeps what it is asked.
type script struct {
	pep.Decider
	decide func(authz.Request) (authz.Decision, error)

	mu       sync.Mutex
	asked    []authz.Request
	outcomes chan authz.Outcome
}

func allowAll(authz.Request) (authz.Decision, error) {
	return authz.Decision{ID: "d1", Allow: true}, nil
}

func (s *script) Decide(_ context.Context, req authz.Request) (authz.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req)
	return s.decide(req)
}

func (s *script) Report(_ context.Context, o authz.Outcome) error {
	select {
	case s.outcomes <- o:
	default: // more than a test looks at
	}
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

func (s *script) outcome(t *testing.T) authz.Outcome {
	t.Helper()
	select {
	case o := <-s.outcomes:
		return o
	case <-time.After(patience):
		t.Fatal("no outcome was reported")
		return authz.Outcome{}
	}
}

// A setup is a gate that serves on loopback.
type setup struct {
	*script
	gate *httpgate.Gate
	addr string // host:port
	log  *syncBuffer
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func document(t testing.TB) *openapi.Document {
	t.Helper()
	text, err := os.ReadFile("testdata/pets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := openapi.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func parseURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// serve starts a gate in front of an upstream.
func serve(t testing.TB, upstream string, decide func(authz.Request) (authz.Decision, error), change func(*httpgate.Config)) *setup {
	t.Helper()
	s := &setup{script: &script{decide: decide, outcomes: make(chan authz.Outcome, 1024)}, log: &syncBuffer{}}
	c := httpgate.Config{
		Decider: s.script,
		Logger:  slog.New(slog.NewJSONHandler(s.log, nil)),
		APIs: []httpgate.API{{
			Name: "pets", URL: parseURL(t, upstream), Document: document(t),
			Credential: httpgate.Credential{Header: "Authorization", Value: "Bearer " + secret},
		}},
		Limits: httpgate.Limits{Answer: patience},
	}
	if change != nil {
		change(&c)
	}
	g, err := httpgate.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.gate = g
	srv := httptest.NewUnstartedServer(g)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewJSONHandler(s.log, nil), slog.LevelWarn)
	srv.Start()
	s.addr = srv.Listener.Addr().String()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // whatever is left is cut
		_ = g.Close(ctx)
		srv.CloseClientConnections()
		srv.Close()
	})
	return s
}

// A fataler is a test, of the standard library or of rapid.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// raw sends bytes as they are and returns the answer.
func (s *setup) raw(t fataler, request string) (*http.Response, []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %q: %v", request, err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body) // what came is looked at; some tests cut it
	return res, body
}

// message writes a request.
func message(method, target, body string, headers ...string) string {
	var b strings.Builder
	b.WriteString(method + " " + target + " HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nAuthorization: Bearer " + agentKey + "\r\n")
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != "" {
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	return b.String() + "\r\n" + body
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A problem is what the gate says of a refusal.
type problem struct {
	Title, Detail, Code, Decision string
	Status                        int
	Remedies                      []authz.Remedy
}

func problemOf(t testing.TB, res *http.Response, body []byte) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || res.Header.Get("Content-Type") != "application/problem+json" || p.Status != res.StatusCode || p.Detail == "" {
		t.Fatalf("not a problem: %d %s: %v", res.StatusCode, body, err)
	}
	return p
}

// seen is a request as an upstream got it.
type seen struct {
	method, target, body string
	header               http.Header
}

// recorder is an upstream that keeps what it gets.
type recorder struct {
	mu  sync.Mutex
	got []seen
}

func (u *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a broken body shows as another one
	u.mu.Lock()
	u.got = append(u.got, seen{r.Method, r.RequestURI, string(body), r.Header.Clone()})
	u.mu.Unlock()
	_, _ = io.WriteString(w, "done") // to a gate that may be gone
}

func (u *recorder) take() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	got := u.got
	u.got = nil
	return got
}

func record(t testing.TB) (*recorder, string) {
	u := &recorder{}
	srv := httptest.NewServer(u)
	t.Cleanup(srv.Close)
	return u, srv.URL
}

func TestReleasedRequestReachesTheUpstream(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base+"/v1/", allowAll, nil)
	res, body := s.raw(t, message("POST", "/api/pets/pets", `{"name": "Tom"}`, "Content-Type: application/json", "Bailiwick-Session: s1", "X-Request-ID: r1"))
	if res.StatusCode != 200 || string(body) != "done" || res.Header.Get("Bailiwick-Decision") != "d1" {
		t.Errorf("got %d %s %v", res.StatusCode, body, res.Header)
	}
	want := authz.Request{
		Credential: authz.Credential{Kind: authz.CredentialBearer, Value: agentKey}, Action: "pets/addPet", Server: "pets",
		Input: json.RawMessage(`{"body":{"name": "Tom"}}`), Session: "s1", Gate: "http", Correlation: "r1",
	}
	got := s.last()
	for _, def := range document(t).Definitions() {
		if bytes.Contains(def, []byte(`"addPet"`)) {
			want.Definition = must(authz.Digest(def))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := u.take(); len(got) != 1 || got[0].target != "/v1/pets" || got[0].body != `{"name": "Tom"}` || got[0].header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("the upstream got %+v", got)
	}
	if d := cmp.Diff(authz.Outcome{Decision: "d1", Status: authz.OutcomeSuccess, Bytes: 4, Output: []string{"done"}}, s.outcome(t)); d != "" {
		t.Error(d)
	}
}

func TestDenialsAreTold(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	remedies := []authz.Remedy{{{Kind: authz.FactApproval, Name: "owner"}}}
	for _, tt := range []struct {
		code   string
		status int
	}{
		{authz.ReasonForbidden, 403}, {authz.ReasonNoPermit, 403}, {authz.ReasonToolUnknown, 403}, {authz.ReasonToolChanged, 403},
		{authz.ReasonSessionMismatch, 403}, {authz.ReasonPolicyError, 403}, {authz.ReasonObligationUnmet, 403}, {"unheard_of", 403},
		{authz.ReasonUnauthenticated, 401}, {authz.ReasonInputInvalid, 400}, {authz.ReasonOverloaded, 429},
		{authz.ReasonAuditDown, 503}, {authz.ReasonSessionDown, 503}, {authz.ReasonIdentityDown, 503}, {authz.ReasonPolicyUnavailable, 503},
		{authz.ReasonEntitiesDown, 503}, {authz.ReasonDeadline, 503}, {authz.ReasonPDPDown, 503}, {authz.ReasonInternal, 500},
	} {
		t.Run(tt.code, func(t *testing.T) {
			s := serve(t, base, func(authz.Request) (authz.Decision, error) {
				d := authz.Deny(tt.code, "It may not.")
				d.ID, d.Remedies = "d7", remedies
				d.Policies = []authz.PolicyRef{{ID: "secret-policy"}}
				return d, nil
			}, nil)
			res, body := s.raw(t, message("GET", "/api/pets/pets/7", ""))
			want := problem{Title: http.StatusText(tt.status), Detail: "It may not.", Code: tt.code, Decision: "d7", Status: tt.status, Remedies: remedies}
			if d := cmp.Diff(want, problemOf(t, res, body)); d != "" || strings.Contains(string(body), "secret-policy") {
				t.Errorf("%s%s", d, body)
			}
			if (tt.status == 401) != (res.Header.Get("WWW-Authenticate") != "") || (tt.status == 429 || tt.status == 503) != (res.Header.Get("Retry-After") != "") {
				t.Errorf("headers are %v", res.Header)
			}
		})
	}
	t.Run("fault", func(t *testing.T) {
		s := serve(t, base, func(authz.Request) (authz.Decision, error) {
			return authz.Decision{Allow: true}, errors.New("no disk")
		}, nil)
		res, body := s.raw(t, message("GET", "/api/pets/pets/7", ""))
		if p := problemOf(t, res, body); p.Status != 503 || strings.Contains(string(body), "disk") {
			t.Errorf("got %s", body)
		}
	})
	if got := u.take(); len(got) != 0 {
		t.Errorf("the upstream got %+v", got)
	}
}

// What is no operation is on the record, and does not pass even if the PDP lets
// it through, as it does in observe mode.
func TestWhatCannotBeReadIsAskedAndRefused(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, nil)
	for _, tt := range []struct {
		name, request, action, code string
		status                      int
	}{
		{"unknown path", message("GET", "/api/pets/cats/7?x=1", ""), "pets/GET /cats/7", authz.ReasonToolUnknown, 403},
		{"unknown method", message("PUT", "/api/pets/pets/7", ""), "pets/PUT /pets/7", authz.ReasonToolUnknown, 403},
		{"long path", message("GET", "/api/pets/"+strings.Repeat("x", 1000), ""), "pets/GET /" + strings.Repeat("x", 255) + "…", authz.ReasonToolUnknown, 403},
		{"dots", message("GET", "/api/pets/pets/..", ""), "pets/GET /pets/..", authz.ReasonToolUnknown, 403},
		{"unknown parameter", message("GET", "/api/pets/pets/7?admin=1", ""), "pets/getPet", authz.ReasonInputInvalid, 400},
		{"duplicate key", message("POST", "/api/pets/pets", `{"name":"a","name":"b"}`, "Content-Type: application/json"), "pets/addPet", authz.ReasonInputInvalid, 400},
		{"compressed", message("POST", "/api/pets/pets", `{}`, "Content-Type: application/json", "Content-Encoding: gzip"), "pets/addPet", authz.ReasonInputInvalid, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, body := s.raw(t, tt.request)
			p := problemOf(t, res, body)
			if p.Status != tt.status || p.Code != tt.code || p.Decision != "d1" {
				t.Errorf("got %s", body)
			}
			if got := s.last(); got.Action != tt.action || tt.status == 400 && string(got.Input) != "null" {
				t.Errorf("asked %+v", got)
			}
			if o := s.outcome(t); o.Status != authz.OutcomeNotRun {
				t.Errorf("outcome %+v", o)
			}
		})
	}
	if got := u.take(); len(got) != 0 {
		t.Errorf("the upstream got %+v", got)
	}
	// Who proves nothing learns nothing of the document.
	s = serve(t, base, func(authz.Request) (authz.Decision, error) {
		return authz.Deny(authz.ReasonUnauthenticated, "Who are you?"), nil
	}, nil)
	for _, target := range []string{"/api/pets/cats", "/api/pets/pets/7?admin=1"} {
		res, body := s.raw(t, message("GET", target, ""))
		if p := problemOf(t, res, body); p.Status != 401 || p.Detail != "Who are you?" {
			t.Errorf("got %s", body)
		}
	}
}

func TestOnlyWhatIsAllowedOfTheHeadersPasses(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, nil)
	res, body := s.raw(t, "GET /api/pets/pets HTTP/1.1\r\nHost: gate\r\n"+strings.Join([]string{
		"Authorization: Bearer " + agentKey, "Cookie: a=b", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-User: root", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4",
		"X-Remote-User: root", "Bailiwick-Session: s1", "X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "Proxy-Authorization: Basic eA==",
		"Te: trailers", "Via: x", "Origin: https://a.example", "Content-Type: text/plain", "X-Other: y",
		// An argument cannot be taken away by calling it a header of the connection.
		"Connection: close, X-Tenant, Authorization", "X-Tenant: acme",
		"Accept: application/json", "If-None-Match: \"x\"", "Traceparent: 00-x", "User-Agent: agent/1",
	}, "\r\n")+"\r\n\r\n")
	if res.StatusCode != 200 {
		t.Fatalf("got %d %s", res.StatusCode, body)
	}
	got := u.take()
	want := http.Header{
		"Authorization": {"Bearer " + secret}, "X-Tenant": {"acme"}, "Accept": {"application/json"}, "If-None-Match": {`"x"`},
		"Traceparent": {"00-x"}, "User-Agent": {"agent/1"},
	}
	if len(got) != 1 {
		t.Fatalf("the upstream got %+v", got)
	}
	if d := cmp.Diff(want, got[0].header); d != "" {
		t.Error(d)
	}
	if string(s.last().Input) != `{"X-Tenant":"acme"}` {
		t.Errorf("decided %s", s.last().Input)
	}
}

// An argument in the very header that the gate sets would be decided and not
// sent.
func TestArgumentCannotStandWhereTheCredentialStands(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, func(c *httpgate.Config) {
		c.APIs[0].Credential = httpgate.Credential{Header: "X-API-Key", Value: secret}
	})
	res, body := s.raw(t, message("GET", "/api/pets/keyed", "", "X-Api-Key: mine"))
	if p := problemOf(t, res, body); p.Code != authz.ReasonInputInvalid || len(u.take()) != 0 {
		t.Errorf("got %s", body)
	}
	if res, _ := s.raw(t, message("GET", "/api/pets/keyed", "")); res.StatusCode != 200 || u.take()[0].header.Get("X-Api-Key") != secret {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestCredentialOfTheAgent(t *testing.T) {
	t.Parallel()
	_, base := record(t)
	s := serve(t, base, allowAll, nil)
	for _, tt := range []struct {
		name    string
		headers string
		want    authz.Credential
	}{
		{"none", "", authz.Credential{}},
		{"bearer", "Authorization: bearer  k \r\n", authz.Credential{Kind: authz.CredentialBearer, Value: "k"}},
		{"basic", "Authorization: Basic k\r\n", authz.Credential{}},
		{"two", "Authorization: Bearer k\r\nAuthorization: Bearer l\r\n", authz.Credential{}},
		{"empty", "Authorization: Bearer \r\n", authz.Credential{}},
	} {
		s.raw(t, "GET /api/pets/pets/7 HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n"+tt.headers+"\r\n")
		if got := s.last().Credential; got != tt.want {
			t.Errorf("%s: got %#v", tt.name, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	u := parseURL(t, "https://pets.example/v1")
	good := func() httpgate.Config {
		return httpgate.Config{
			Decider: &script{}, Logger: slog.New(slog.DiscardHandler),
			APIs: []httpgate.API{{Name: "pets", URL: u, Document: document(t), Credential: httpgate.Credential{Header: "Authorization", Value: "Bearer " + secret}}},
		}
	}
	if _, err := httpgate.New(good()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*httpgate.Config)
	}{
		{"no decider", func(c *httpgate.Config) { c.Decider = nil }},
		{"no logger", func(c *httpgate.Config) { c.Logger = nil }},
		{"no API", func(c *httpgate.Config) { c.APIs = nil }},
		{"name twice", func(c *httpgate.Config) { c.APIs = append(c.APIs, c.APIs[0]) }},
		{"name with a slash", func(c *httpgate.Config) { c.APIs[0].Name = "a/b" }},
		{"no document", func(c *httpgate.Config) { c.APIs[0].Document = nil }},
		{"no URL", func(c *httpgate.Config) { c.APIs[0].URL = nil }},
		{"other scheme", func(c *httpgate.Config) { c.APIs[0].URL = parseURL(t, "ftp://x/") }},
		{"no host", func(c *httpgate.Config) { c.APIs[0].URL = parseURL(t, "http:///x") }},
		{"user", func(c *httpgate.Config) { c.APIs[0].URL = parseURL(t, "http://a:b@x/") }},
		{"query", func(c *httpgate.Config) { c.APIs[0].URL = parseURL(t, "http://x/?a=b") }},
		{"dots", func(c *httpgate.Config) { c.APIs[0].URL = parseURL(t, "http://x/a/..") }},
		{"double slash", func(c *httpgate.Config) { c.APIs[0].URL = parseURL(t, "http://x//a") }},
		{"credential without a header", func(c *httpgate.Config) { c.APIs[0].Credential.Header = "" }},
		{"credential without a value", func(c *httpgate.Config) { c.APIs[0].Credential.Value = "" }},
		{"credential in a header of the message", func(c *httpgate.Config) { c.APIs[0].Credential.Header = "Content-length" }},
		{"credential in what is no header", func(c *httpgate.Config) { c.APIs[0].Credential.Header = "A B" }},
		{"credential with a line feed", func(c *httpgate.Config) { c.APIs[0].Credential.Value = secret + "\n" }},
		{"credential with a space at its end", func(c *httpgate.Config) { c.APIs[0].Credential.Value = secret + " " }},
	} {
		c := good()
		tt.change(&c)
		if _, err := httpgate.New(c); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestCredentialIsNeverPrinted(t *testing.T) {
	t.Parallel()
	c := httpgate.Credential{Header: "Authorization", Value: secret}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "c", c, "api", httpgate.API{Credential: c})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "c", c, "api", httpgate.API{Credential: c})
	b.Write(must(json.Marshal(c)))
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		b.WriteString(fmt.Sprintf(format, c) + fmt.Sprintf(format, []httpgate.Credential{c}))
	}
	if strings.Contains(b.String(), secret) {
		t.Error(b.String())
	}
}

func TestCloseCutsWhatIsLeft(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL, allowAll, func(c *httpgate.Config) { c.Limits.Calls = 1 })
	done := make(chan int, 1)
	go func() {
		res, err := http.Get("http://" + s.addr + "/api/pets/pets/7")
		if err != nil {
			done <- 0
			return
		}
		_ = res.Body.Close()
		done <- res.StatusCode
	}()
	<-entered
	// There is room for one.
	res, body := s.raw(t, message("GET", "/api/pets/pets/7", ""))
	if p := problemOf(t, res, body); p.Code != "busy" || p.Status != 503 {
		t.Errorf("got %s", body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.gate.Close(ctx); err == nil {
		t.Error("a call was cut and nothing said")
	}
	if status := <-done; status != http.StatusBadGateway {
		t.Errorf("got %d", status)
	}
	if o := s.outcome(t); o.Status != authz.OutcomeAmbiguous {
		t.Errorf("outcome %+v", o)
	}
	if res, _ := s.raw(t, message("GET", "/api/pets/pets/7", "")); res.StatusCode != 503 {
		t.Errorf("a closed gate answered %d", res.StatusCode)
	}
	if err := s.gate.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestUnknownAPI(t *testing.T) {
	t.Parallel()
	_, base := record(t)
	s := serve(t, base, allowAll, nil)
	for _, target := range []string{"/", "/api", "/api/", "/api/pets", "/api/cats/pets", "/api//pets/pets", "/API/pets/pets", "/api/p%65ts/pets", "/api/pets%2fpets", "/x/../api/pets/pets"} {
		res, body := s.raw(t, message("GET", target, ""))
		if p := problemOf(t, res, body); p.Status != 404 {
			t.Errorf("%s: got %s", target, body)
		}
	}
	if len(s.asked) != 0 {
		t.Errorf("asked %+v", s.asked)
	}
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
