package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// atOnce allows everything at once.
type atOnce struct {
	pep.Decider
	pep.Searcher
	decision authz.Decision
}

func (a *atOnce) Decide(context.Context, authz.Request) (authz.Decision, error) {
	return a.decision, nil
}

// sink is a ResponseWriter without a network.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header             { return s.header }
func (s *sink) WriteHeader(status int)          { s.status = status }
func (s *sink) SetReadDeadline(time.Time) error { return nil }
func (s *sink) Write(b []byte) (int, error)     { s.bytes += len(b); return len(b), nil }

const typical = `{"subject":{"type":"user","id":"alice@example.com","properties":{"department":"Sales"}},"action":{"name":"can_read","properties":{"method":"GET"}},"resource":{"type":"account","id":"123"},"context":{"time":"1985-10-26T01:22-07:00"}}`

// BenchmarkEvaluation is what the HTTP API costs above net/http: from the
// header to the answer, with a decider that answers at once. On a busy machine
// cpu-ns/op is the figure.
func BenchmarkEvaluation(b *testing.B) {
	allow := authz.Decision{ID: "f2k7qzp5m3xw4vbn6yj8h9rtd", Allow: true, Time: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow}}}
	deny := authz.Deny(authz.ReasonForbidden, `A policy forbids "can_read" here.`)
	deny.ID, deny.Time = allow.ID, allow.Time
	deny.Remedies = []authz.Remedy{{{Kind: authz.FactApproval, Name: "data-owner"}}}
	for name, d := range map[string]authz.Decision{"allow": allow, "requestable denial": deny} {
		b.Run(name, func(b *testing.B) {
			a, err := api.New(api.Config{Decider: &atOnce{decision: d}, AccessRequests: "https://pdp.example.com/access/v1/requests"})
			if err != nil {
				b.Fatal(err)
			}
			body := bytes.NewReader(nil)
			r := httptest.NewRequest(http.MethodPost, "/access/v1/evaluation", nil)
			r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer key"}, "X-Request-Id": {"bfe9eb29-ab87-4ca3-be83-a1d5d8305716"}}
			r.Body, r.ContentLength = io.NopCloser(body), int64(len(typical))
			w := &sink{header: http.Header{}}
			text := []byte(typical)
			b.ReportAllocs()
			begun := cpu()
			for b.Loop() {
				clear(w.header)
				body.Reset(text)
				a.ServeHTTP(w, r)
			}
			b.ReportMetric(float64(cpu()-begun)/float64(b.N), "cpu-ns/op")
			if w.status != http.StatusOK {
				b.Fatalf("status %d", w.status)
			}
		})
	}
}

// cpu is the time that this process has computed.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
