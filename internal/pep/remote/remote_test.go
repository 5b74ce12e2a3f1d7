package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "key-of-the-gate"

// plane is a PDP that answers what it was told to and keeps what it heard.
type plane struct {
	decision authz.Decision
	reach    []bool
	broken   error

	mu       sync.Mutex
	requests []authz.Request
	ops      []pep.Operation
	gates    []authz.Credential
	outcomes []authz.Outcome
	refuse   int // so many reports fail first
}

func (p *plane) Decide(_ context.Context, req authz.Request) (authz.Decision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, req)
	return p.decision, p.broken
}

func (p *plane) Reachable(_ context.Context, req authz.Request, ops []pep.Operation) ([]bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.ops = append(p.requests, req), ops
	return p.reach, p.broken
}

func (p *plane) Report(context.Context, authz.Outcome) error {
	return errors.New("not for remote gates")
}

func (p *plane) ReportFrom(_ context.Context, gate authz.Credential, out authz.Outcome) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gates = append(p.gates, gate)
	if p.refuse > 0 {
		p.refuse--
		return errors.New("the disk is slow")
	}
	if p.broken == nil {
		p.outcomes = append(p.outcomes, out)
	}
	return p.broken
}

func (p *plane) Search(context.Context, authz.Request, pep.Query) (pep.Page, error) {
	return pep.Page{}, pep.ErrRefused
}

// serve serves a handler over real TLS and returns a client of it.
func serve(t *testing.T, h http.Handler, more func(*remote.Config)) *remote.Decider {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return dial(t, s.URL, func(c *remote.Config) {
		c.CAFile = file
		if more != nil {
			more(c)
		}
	})
}

func dial(t *testing.T, url string, more func(*remote.Config)) *remote.Decider {
	t.Helper()
	c := remote.Config{URL: url, Key: key, Timeout: 10 * time.Second}
	if more != nil {
		more(&c)
	}
	d, err := remote.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // a test that wants its outcomes delivered has closed before
		_ = d.Close(ctx)
	})
	return d
}

func servePlane(t *testing.T, p *plane, more func(*remote.Config)) *remote.Decider {
	t.Helper()
	a, err := api.New(api.Config{Decider: p})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, a, more)
}

func full() authz.Request {
	return authz.Request{
		ID: "ignored", Credential: authz.Credential{Kind: authz.CredentialBearer, Value: "key of the agent"},
		Action: "mail/send", Server: "mail", Resource: authz.Entity{Type: "Mailbox", ID: "a"}, Input: json.RawMessage(`{"to":"b","n":12345678901234567890}`),
		Definition: "sha256:x", Session: "s", Gate: "mcp-http", Correlation: "7",
		Asserted: &authz.Assertion{Subject: authz.Entity{Type: "User", ID: "u"}, Context: json.RawMessage(`{"ip":"::1"}`)},
	}
}

var credentials = cmp.Comparer(func(a, b authz.Credential) bool { return a == b })

func TestDecisionsComeFromThePDPWhole(t *testing.T) {
	t.Parallel()
	p := &plane{decision: authz.Decision{
		ID: "d1", Allow: true, Observed: true, Reasons: []authz.Reason{{Code: authz.ReasonForbidden, Message: "A policy forbids this."}},
		Policies:    []authz.PolicyRef{{ID: "p", File: "secret.cedar"}},
		Obligations: []authz.Obligation{{ID: "o", Type: "log", Properties: json.RawMessage(`{"to":"x"}`)}},
		Version:     "sha256:v", Time: time.Date(2026, 11, 25, 1, 2, 3, 4, time.UTC),
	}}
	d := servePlane(t, p, nil)
	got, err := d.Decide(t.Context(), full())
	if err != nil {
		t.Fatal(err)
	}
	want := p.decision
	want.Policies = nil
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got (-), want (+):\n%s", diff)
	}
	asked := full()
	asked.ID, asked.PEP = "", authz.Credential{Kind: authz.CredentialBearer, Value: key}
	if diff := cmp.Diff(p.requests, []authz.Request{asked}, credentials); diff != "" {
		t.Errorf("the PDP heard (-), want (+):\n%s", diff)
	}
	p.decision = authz.Deny(authz.ReasonUnauthenticated, "The credential does not prove who is asking.")
	p.decision.Remedies = []authz.Remedy{{{Kind: authz.FactApproval, Name: "owner"}}}
	if got, err := d.Decide(t.Context(), full()); err != nil || cmp.Diff(got, p.decision) != "" {
		t.Errorf("a denial: got %+v, %v", got, err)
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	p := &plane{reach: []bool{true, false}}
	d := servePlane(t, p, nil)
	ops := []pep.Operation{{Action: "a/b", Definition: "sha256:x"}, {Action: "a/c"}}
	got, err := d.Reachable(t.Context(), full(), ops)
	if err != nil || cmp.Diff(got, []bool{true, false}) != "" || cmp.Diff(p.ops, ops) != "" {
		t.Errorf("got %v, %v; the PDP heard %v", got, err, p.ops)
	}
	p.reach = []bool{true}
	if got, err := d.Reachable(t.Context(), full(), ops); err == nil || cmp.Diff(got, []bool{false, false}) != "" {
		t.Errorf("too few: got %v, %v", got, err)
	}
	p.broken = pep.ErrRefused
	if got, err := d.Reachable(t.Context(), full(), ops); err == nil || cmp.Diff(got, []bool{false, false}) != "" {
		t.Errorf("refused: got %v, %v", got, err)
	}
}

func TestOutcomesAreDeliveredByClose(t *testing.T) {
	t.Parallel()
	p := &plane{refuse: 3}
	d := servePlane(t, p, nil)
	for i := range 100 {
		if err := d.Report(t.Context(), authz.Outcome{Decision: fmt.Sprint(i), Status: authz.OutcomeError, Bytes: 5, Error: "e"}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range p.outcomes {
		seen[o.Decision] = o.Status == authz.OutcomeError && o.Bytes == 5 && o.Error == "e"
	}
	if len(p.outcomes) != 100 || len(seen) != 100 || seen["7"] != true {
		t.Errorf("%d outcomes arrived, %d different", len(p.outcomes), len(seen))
	}
	if p.gates[0] != (authz.Credential{Kind: authz.CredentialBearer, Value: key}) {
		t.Error("the gate did not say who it is")
	}
	if err := d.Report(t.Context(), authz.Outcome{Decision: "late", Status: authz.OutcomeSuccess}); err == nil {
		t.Error("an outcome was taken that nobody delivers")
	}
}

// What the agent is going to see is with the PDP when Report returns; if it does
// not get there, the outcome does, and says that there was more.
func TestWhatTheAgentSeesIsToldFirst(t *testing.T) {
	t.Parallel()
	p := &plane{}
	d := servePlane(t, p, nil)
	report := func() {
		t.Helper()
		if err := d.Report(t.Context(), authz.Outcome{Decision: "d", Status: authz.OutcomeSuccess, Bytes: 2, Output: []string{"hi"}}); err != nil {
			t.Fatal(err)
		}
	}
	last := func() authz.Outcome {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.outcomes) == 0 {
			return authz.Outcome{}
		}
		return p.outcomes[len(p.outcomes)-1]
	}
	report()
	if got := last(); len(got.Output) != 1 || got.Output[0] != "hi" || got.Cut {
		t.Errorf("at once: %+v", got)
	}
	p.mu.Lock()
	p.outcomes, p.refuse = nil, 1
	p.mu.Unlock()
	report()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := last(); got.Status != authz.OutcomeSuccess || len(got.Output) > 0 || !got.Cut {
		t.Errorf("afterwards: %+v", got)
	}
}

// What a PDP refuses for good is not sent again.
func TestRefusedOutcomeIsNotRepeated(t *testing.T) {
	t.Parallel()
	p := &plane{broken: fmt.Errorf("this gate: %w", pep.ErrRefused)}
	var log bytes.Buffer
	d := servePlane(t, p, func(c *remote.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := d.Report(t.Context(), authz.Outcome{Decision: "d1", Status: authz.OutcomeSuccess}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err == nil {
		t.Error("nobody said that an outcome was lost")
	}
	if len(p.gates) != 1 || !strings.Contains(log.String(), "decision_id=d1") || strings.Contains(log.String(), key) {
		t.Errorf("sent %d times, logged %s", len(p.gates), log.String())
	}
}

// A PDP that is away does not hold up the agent, and its outbox is bounded.
func TestReportDoesNotWait(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts nothing: whoever asks waits
	d := dial(t, "http://"+l.Addr().String(), func(c *remote.Config) { c.Timeout = time.Minute })
	full := 0
	for range 5000 {
		if d.Report(t.Context(), authz.Outcome{Decision: "d", Status: authz.OutcomeSuccess}) != nil {
			full++
		}
	}
	if full == 0 || full > 1000 {
		t.Errorf("%d of 5000 were refused", full)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := d.Close(ctx); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("close: %v after %v", err, time.Since(begun))
	}
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const allow = `{"id":"d1","allow":true}`

// Whatever goes wrong on the way to an answer denies, with an error.
func TestEveryFailureDenies(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"an allow without id": answering(200, `{"allow":true}`),
		"an unknown member":   answering(200, `{"id":"d1","allow":true,"unless":"x"}`),
		"nothing":             answering(200, ``),
		"garbage":             answering(200, `<html>login</html>`),
		"two answers":         answering(200, allow+allow),
		"allow twice":         answering(200, `{"id":"d1","allow":false,"allow":true}`),
		"too large":           answering(200, allow+strings.Repeat(" ", 1<<20)),
		"created":             answering(201, allow),
		"no content":          answering(204, ``),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"bad request":    answering(400, allow),
		"unauthorized":   answering(401, allow),
		"forbidden":      answering(403, allow),
		"too many":       answering(429, allow),
		"internal error": answering(500, allow),
		"unavailable":    answering(503, allow),
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, allow)
		},
		"the connection is lost": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("/", h)
			mux.HandleFunc("/elsewhere", answering(200, allow))
			denies(t, serve(t, mux, nil))
		})
	}
}

func denies(t *testing.T, d *remote.Decider) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := d.Decide(ctx, full())
	if err == nil || got.Allow || got.Code() != authz.ReasonPDPDown {
		t.Errorf("got %+v, %v", got, err)
	}
	if err != nil && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "key of the agent")) {
		t.Errorf("the error has a credential in it: %v", err)
	}
	if reach, err := d.Reachable(ctx, full(), []pep.Operation{{Action: "a"}}); err == nil || cmp.Diff(reach, []bool{false}) != "" {
		t.Errorf("reachable: got %v, %v", reach, err)
	}
	if ctx.Err() != nil {
		t.Error("it took too long")
	}
}

func TestHangingPDPDeniesInTime(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the answer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, allow[:10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The server notices that the client has gone once the body is read.
			read := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); h(w, r) }
			denies(t, serve(t, http.HandlerFunc(read), func(c *remote.Config) { c.Timeout = 200 * time.Millisecond }))
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			d := serve(t, http.HandlerFunc(read), func(c *remote.Config) { c.Timeout = time.Hour })
			if got, err := d.Decide(ctx, full()); !errors.Is(err, context.DeadlineExceeded) || got.Allow {
				t.Errorf("the caller's deadline: got %+v, %v", got, err)
			}
		})
	}
}

// An answer that ends with the caller's time may have been cut off where it
// looks whole.
func TestAnswerAfterTheEndIsNone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	late := roundTrip(func(*http.Request) (*http.Response, error) {
		cancel()
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(allow))}, nil
	})
	d := dial(t, "https://pdp.example.com", func(c *remote.Config) { c.Client = &http.Client{Transport: late} })
	if got, err := d.Decide(ctx, full()); !errors.Is(err, context.Canceled) || got.Allow {
		t.Errorf("got %+v, %v", got, err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNobodyThereDenies(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	denies(t, dial(t, "http://"+l.Addr().String(), nil))
	// A server that the gate has no reason to trust.
	s := httptest.NewUnstartedServer(answering(200, allow))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	denies(t, dial(t, s.URL, nil))
}

func TestWhatCannotBeAskedIsDenied(t *testing.T) {
	t.Parallel()
	p := &plane{decision: authz.Decision{ID: "d1", Allow: true}}
	d := servePlane(t, p, nil)
	local := full()
	local.Credential = authz.Credential{Kind: authz.CredentialLocal, Value: "root"}
	both := local
	both.Input = json.RawMessage(`{"a":1,"a":2}`)
	asserted := full()
	asserted.Asserted.Context = json.RawMessage(`[]`)
	for _, req := range []authz.Request{local, both, asserted} {
		if got, err := d.Decide(t.Context(), req); err == nil || got.Allow || got.Code() != authz.ReasonPDPDown {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	// Arguments that nobody could read are the agent's fault, and it is told.
	for _, input := range []string{`{},"server":"x"`, `{"a":1,"a":2}`, `[]`, ` `} {
		req := full()
		req.Input = json.RawMessage(input)
		if got, err := d.Decide(t.Context(), req); err != nil || got.Allow || got.Code() != authz.ReasonInputInvalid {
			t.Errorf("%s: got %+v, %v", input, got, err)
		}
	}
	if len(p.requests) > 0 {
		t.Errorf("the PDP was asked %v", p.requests)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]remote.Config{
		"no key":           {URL: "https://pdp.example.com"},
		"a key of lines":   {URL: "https://pdp.example.com", Key: "a\r\nX: b"},
		"no URL":           {Key: key},
		"clear text":       {URL: "http://pdp.example.com", Key: key},
		"clear, like home": {URL: "http://127.0.0.1.example.com", Key: key},
		"clear, unmapped":  {URL: "http://0.0.0.0", Key: key},
		"another protocol": {URL: "ftp://pdp.example.com", Key: key},
		"no host":          {URL: "https:///x", Key: key},
		"a user":           {URL: "https://a:b@pdp.example.com", Key: key},
		"a query":          {URL: "https://pdp.example.com?x", Key: key},
		"no such CA file":  {URL: "https://pdp.example.com", Key: key, CAFile: "/nonexistent"},
		"no CA in it":      {URL: "https://pdp.example.com", Key: key, CAFile: "remote_test.go"},
		"two who trust":    {URL: "https://pdp.example.com", Key: key, CAFile: "remote_test.go", Client: http.DefaultClient},
	} {
		if _, err := remote.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: the error has a secret in it: %v", name, err)
		}
	}
	for _, u := range []string{"http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1/", "https://pdp.example.com/tenant1/"} {
		dial(t, u, nil)
	}
}

// A busy gate keeps its connections.
func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	a, err := api.New(api.Config{Decider: &plane{decision: authz.Decision{ID: "d1", Allow: true}}})
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int64
	s := httptest.NewUnstartedServer(a)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	d := dial(t, s.URL, nil)
	const gates, each = 8, 125
	var work sync.WaitGroup
	for range gates {
		work.Go(func() {
			for range each {
				if got, err := d.Decide(t.Context(), full()); err != nil || !got.Allow {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		})
	}
	work.Wait()
	t.Logf("%d questions on %d connections", gates*each, accepted.Load())
	// A connection that is being dialled while another becomes free is one more.
	if n := accepted.Load(); n > 2*gates {
		t.Errorf("%d questions took %d connections", gates*each, n)
	}
}

func BenchmarkDecide(b *testing.B) {
	a, err := api.New(api.Config{Decider: &plane{decision: authz.Decision{ID: "d1", Allow: true}}})
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()
	d, err := remote.New(remote.Config{URL: s.URL, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close(b.Context())
	req := full()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decide(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
