package telemetry

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
	sampled  = "00-" + traceID + "-" + parentID + "-01"
	ignored  = "00-" + traceID + "-" + parentID + "-00"
)

// A receiver is a collector that keeps what it is sent.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*tracepb.Span
	resource map[string]any
	raw      []byte
	header   http.Header
	path     string
}

func receive(t *testing.T, start func(http.Handler) *httptest.Server) *receiver {
	r := &receiver{}
	r.Server = start(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(b, &data)
		}
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raw, r.header, r.path = append(r.raw, b...), req.Header, req.URL.Path
		for _, rs := range data.GetResourceSpans() {
			r.resource = attributes(rs.GetResource().GetAttributes())
			for _, ss := range rs.GetScopeSpans() {
				r.spans = append(r.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func attributes(list []*commonpb.KeyValue) map[string]any {
	m := map[string]any{}
	for _, a := range list {
		if _, ok := a.GetValue().GetValue().(*commonpb.AnyValue_BoolValue); ok {
			m[a.GetKey()] = a.GetValue().GetBoolValue()
			continue
		}
		m[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return m
}

// closeNow delivers what waits, within a bound.
func closeNow(t *testing.T, tel *Telemetry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := tel.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// through is a decision on a request with these headers.
func through(tel *Telemetry, header http.Header, o pdp.Observation) {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header = header
	tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel() // the request may have ended
		tel.Decided(ctx, o)
	})).ServeHTTP(httptest.NewRecorder(), r)
}

func TestDecisionIsAChildOfTheCallersSpan(t *testing.T) {
	t.Parallel()
	r := receive(t, httptest.NewServer)
	tel := newTelemetry(t, Config{Version: "v1.2.3", Traces: TracesConfig{Endpoint: r.URL, Headers: map[string]string{"X-Key": "k 1"}}})
	o := observation()
	through(tel, http.Header{"Traceparent": {sampled}, "Tracestate": {"vendor=1"}}, o)
	closeNow(t, tel)
	if len(r.spans) != 1 {
		t.Fatalf("the collector has %d spans, want 1", len(r.spans))
	}
	s := r.spans[0]
	if got := fmt.Sprintf("%x %x", s.GetTraceId(), s.GetParentSpanId()); got != traceID+" "+parentID {
		t.Errorf("trace and parent are %s", got)
	}
	if s.GetName() != "authz.decide bank/send_money" || s.GetKind() != tracepb.Span_SPAN_KIND_INTERNAL || s.GetTraceState() != "vendor=1" {
		t.Errorf("the span is %v", s)
	}
	if s.GetStartTimeUnixNano() != uint64(o.Start.UnixNano()) || s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano() != 1_002_000 {
		t.Errorf("the span lasts from %d to %d", s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano())
	}
	want := map[string]any{
		"authz.decision": "deny", "authz.decision.id": "d1", "authz.reason": "forbidden", "authz.policy.version": "sha256:ab",
		"authz.gate": "mcp-http", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "send_money",
	}
	if diff := cmp.Diff(want, attributes(s.GetAttributes())); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	events := map[string]uint64{}
	for _, e := range s.GetEvents() {
		events[e.GetName()] = e.GetTimeUnixNano() - s.GetStartTimeUnixNano()
	}
	if diff := cmp.Diff(map[string]uint64{"policy": 2000, "record": 1_002_000}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if r.path != "/v1/traces" || r.header.Get("X-Key") != "k 1" || r.header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("posted to %s with %v", r.path, r.header)
	}
	if r.resource["service.name"] != "bailiwick" || r.resource["service.version"] != "v1.2.3" {
		t.Errorf("the resource is %v", r.resource)
	}
	if got := values(scrape(t, tel)["bailiwick_spans_sent_total"]); got[""] != 1 {
		t.Errorf("sent are %v, want 1", got)
	}
}

func TestSpansSayWhatWasAnswered(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, span string
		change     func(*pdp.Observation)
		want       map[string]any // nil: the attribute is absent
	}{
		{"observed", "authz.decide bank/send_money", func(o *pdp.Observation) { o.Decision.Allow, o.Decision.Observed = true, true },
			map[string]any{"authz.decision": "allow", "authz.observed": true}},
		{"nothing of the catalogue", "authz.decide", func(o *pdp.Observation) { o.Action = "" }, map[string]any{"gen_ai.tool.name": nil}},
		{"a method of MCP", "authz.decide mcp:tools/list", func(o *pdp.Observation) { o.Action = "mcp:tools/list" },
			map[string]any{"gen_ai.tool.name": nil, "gen_ai.operation.name": nil}},
		{"an API", "authz.decide shop/get", func(o *pdp.Observation) { o.Gate, o.Action = "http", "shop/get" },
			map[string]any{"gen_ai.tool.name": nil, "authz.gate": "http"}},
		{"a hostile gate", "authz.decide bank/send_money", func(o *pdp.Observation) { o.Gate = "alice's secret" },
			map[string]any{"authz.gate": "other"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, httptest.NewServer)
			tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: r.URL, SampleRatio: 1}})
			o := observation()
			tt.change(&o)
			tel.Decided(t.Context(), o)
			closeNow(t, tel)
			if len(r.spans) != 1 || r.spans[0].GetName() != tt.span {
				t.Fatalf("spans are %v, want %s", r.spans, tt.span)
			}
			got := attributes(r.spans[0].GetAttributes())
			for key, want := range tt.want {
				if got[key] != want {
					t.Errorf("%s is %v, want %v", key, got[key], want)
				}
			}
		})
	}
}

func TestTheCallerDecidesWhetherToSample(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		header http.Header
		ratio  float64
		want   int
	}{
		{"sampled by the caller", http.Header{"Traceparent": {sampled}}, 0, 1},
		{"not sampled by the caller", http.Header{"Traceparent": {ignored}}, 1, 0},
		{"no trace, all", http.Header{}, 1, 1},
		{"no trace, none", http.Header{}, 0, 0},
		{"two traces are none", http.Header{"Traceparent": {sampled, sampled}}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, httptest.NewServer)
			tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: r.URL, SampleRatio: tt.ratio}})
			through(tel, tt.header, observation())
			closeNow(t, tel)
			if len(r.spans) != tt.want {
				t.Errorf("the collector has %d spans, want %d", len(r.spans), tt.want)
			}
		})
	}
}

// Whatever a decision holds beside its code, id and version stays here.
func TestTelemetryTellsNoValue(t *testing.T) {
	t.Parallel()
	r := receive(t, httptest.NewServer)
	tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: r.URL}})
	o := observation()
	o.Effects = []string{"SECRET"}
	o.Decision.Reasons = []authz.Reason{{Code: authz.ReasonForbidden, Message: "SECRET"}, {Code: "SECRET", Message: "SECRET"}}
	o.Decision.Policies = []authz.PolicyRef{{ID: "SECRET", File: "SECRET", Error: "SECRET"}}
	o.Decision.Obligations = []authz.Obligation{{ID: "SECRET", Type: "SECRET", Properties: []byte(`"SECRET"`)}}
	o.Decision.Remedies = []authz.Remedy{{{Kind: authz.FactApproval, Name: "SECRET"}, {Kind: "SECRET"}}}
	o.Decision.Scope = []authz.Entity{{Type: "SECRET", ID: "SECRET"}}
	through(tel, http.Header{
		"Traceparent": {sampled}, "Tracestate": {"v=SECRET,w=" + strings.Repeat("x", 250) + ",y=" + strings.Repeat("x", 250)}, "Baggage": {"user=SECRET"}, "Authorization": {"Bearer SECRET"},
	}, o)
	closeNow(t, tel)
	if len(r.spans) != 1 {
		t.Fatalf("the collector has %d spans, want 1", len(r.spans))
	}
	text, _ := get(t, tel, "")
	if strings.Contains(text, "SECRET") || strings.Contains(string(r.raw), "SECRET") {
		t.Error("a value was told")
	}
}

// Who adds a field to what is observed looks at what telemetry does with it.
func TestObservationsHoldNoSubjectAndNoInput(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		of   reflect.Type
		want []string
	}{
		{reflect.TypeFor[pdp.Observation](), []string{"Decision", "Gate", "Action", "Effects", "Start", "Steps"}},
		{reflect.TypeFor[pdp.Step](), []string{"Name", "Took"}},
		{reflect.TypeFor[authz.Decision](), []string{"ID", "Allow", "Observed", "Reasons", "Policies", "Obligations", "Remedies", "Scope", "Challenge", "Version", "Time"}},
	} {
		var got []string
		for f := range tt.of.Fields() {
			got = append(got, f.Name)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.of, diff)
		}
	}
}

func TestCollectorThatTakesNothingDelaysNothing(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer refusing.Close()
	const decisions = 3 * queueSize
	for name, url := range map[string]string{"dead": "http://127.0.0.1:1", "hanging": hanging.URL, "refusing": refusing.URL} {
		tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: url, SampleRatio: 1}})
		began := time.Now()
		for range decisions {
			tel.Decided(t.Context(), observation())
		}
		if took := time.Since(began); took > sendWithin/2 { // a decision that waited once would take sendWithin
			t.Errorf("%s: %d decisions took %v", name, decisions, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_ = tel.Close(ctx) // whether in time or not
		cancel()
		got := scrape(t, tel)
		if d := values(got["bailiwick_spans_dropped_total"])[""]; d != decisions {
			t.Errorf("%s: %v spans dropped, want %d", name, d, decisions)
		}
		tel.Decided(t.Context(), observation())
		if d := values(scrape(t, tel)["bailiwick_spans_dropped_total"])[""]; d != decisions+1 {
			t.Errorf("%s: a span after the end was not dropped", name)
		}
	}
}

func TestCloseSaysThatSpansMayBeLost(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: hanging.URL, SampleRatio: 1}})
	tel.Decided(t.Context(), observation())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tel.Close(ctx); err == nil {
		t.Error("closed without a word")
	}
}

func TestDeliveryIsToldOfOnceEachWay(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	q := &queue{logger: slog.New(slog.NewTextHandler(&log, nil))}
	var up atomic.Bool
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer answers.Close()
	tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: answers.URL, SampleRatio: 1}})
	defer closeNow(t, tel)
	q.exporter = tel.traces.queue.exporter
	span := ended(t, tel, observation())
	for _, now := range []bool{false, false, true, true} {
		up.Store(now)
		if rest := q.send(t.Context(), append(spans(nil), span)); len(rest) != 0 {
			t.Errorf("%d spans are sent twice", len(rest))
		}
	}
	got := log.String()
	if strings.Count(got, "traces are not delivered") != 1 || strings.Count(got, "traces are delivered again") != 1 || !strings.Contains(got, "status 502") {
		t.Errorf("the log says:\n%s", got)
	}
	if q.sent.Load() != 2 || q.dropped.Load() != 2 {
		t.Errorf("%d sent and %d dropped, want 2 and 2", q.sent.Load(), q.dropped.Load())
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := receive(t, httptest.NewServer)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		s := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		defer s.Close()
		tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: s.URL, SampleRatio: 1, Headers: map[string]string{"X-Key": "k"}}})
		tel.Decided(t.Context(), observation())
		closeNow(t, tel)
		if d := values(scrape(t, tel)["bailiwick_spans_dropped_total"]); d[""] != 1 {
			t.Errorf("%d: dropped are %v, want 1", status, d)
		}
	}
	if elsewhere.header != nil {
		t.Error("the headers went elsewhere")
	}
}

func TestCollectorProvesItself(t *testing.T) {
	t.Parallel()
	r := receive(t, func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that fail, as they should
		s.StartTLS()
		return s
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, sent := range map[string]float64{ca: 1, "": 0} {
		tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: r.URL + "/", CAFile: file, SampleRatio: 1}})
		tel.Decided(t.Context(), observation())
		closeNow(t, tel)
		if got := values(scrape(t, tel)["bailiwick_spans_sent_total"])[""]; got != sent {
			t.Errorf("with authorities %q %v spans were sent, want %v", file, got, sent)
		}
	}
}

func TestWrongSettingsAreRefused(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	key := map[string]string{"X-Key": "SECRET"}
	for _, tt := range []struct {
		name string
		c    TracesConfig
		ok   bool
	}{
		{"plain", TracesConfig{Endpoint: "http://collector:4318"}, true},
		{"headers over TLS", TracesConfig{Endpoint: "https://collector/base", Headers: key}, true},
		{"headers on this machine", TracesConfig{Endpoint: "http://127.0.0.1:4318", Headers: key}, true},
		{"headers in the clear", TracesConfig{Endpoint: "http://collector:4318", Headers: key}, false},
		{"no scheme", TracesConfig{Endpoint: "collector:4318"}, false},
		{"another scheme", TracesConfig{Endpoint: "grpc://collector"}, false},
		{"no host", TracesConfig{Endpoint: "http://"}, false},
		{"user", TracesConfig{Endpoint: "https://u:SECRET@collector"}, false},
		{"query", TracesConfig{Endpoint: "https://collector?key=SECRET"}, false},
		{"not a URL", TracesConfig{Endpoint: "https://SECRET\x7f"}, false},
		{"name of a header", TracesConfig{Endpoint: "https://c", Headers: map[string]string{"a b": "SECRET"}}, false},
		{"no name of a header", TracesConfig{Endpoint: "https://c", Headers: map[string]string{"": "SECRET"}}, false},
		{"value of a header", TracesConfig{Endpoint: "https://c", Headers: map[string]string{"a": "SECRET\n"}}, false},
		{"ratio below", TracesConfig{Endpoint: "https://c", SampleRatio: -0.1}, false},
		{"ratio above", TracesConfig{Endpoint: "https://c", SampleRatio: 1.1}, false},
		{"no ratio", TracesConfig{Endpoint: "https://c", SampleRatio: math.NaN()}, false},
		{"no authorities", TracesConfig{Endpoint: "https://c", CAFile: empty}, false},
		{"no file", TracesConfig{Endpoint: "https://c", CAFile: empty + "x"}, false},
	} {
		tel, err := New(Config{Traces: tt.c})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error tells a secret: %v", tt.name, err)
		}
		if tel != nil {
			closeNow(t, tel)
		}
	}
}

func TestRequestWithoutTraceCostsNothing(t *testing.T) {
	tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: "http://127.0.0.1:1"}})
	defer closeNow(t, tel)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	h := tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
		if got != r {
			t.Error("the request was copied")
		}
	}))
	w := httptest.NewRecorder()
	if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func TestBaggageIsNotTaken(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: "http://127.0.0.1:1"}})
	defer closeNow(t, tel)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{"Traceparent": {sampled}, "Baggage": {"user=alice"}, "Tracestate": {"a=1", "b=2"}}
	tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sc := trace.SpanContextFromContext(r.Context())
		if sc.TraceID().String() != traceID || !sc.IsRemote() || sc.TraceState().Len() != 0 || baggage.FromContext(r.Context()).Len() != 0 {
			t.Errorf("taken are %v and %v", sc, baggage.FromContext(r.Context()))
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
}

// Whatever a caller sends as its trace, the request is served, and what is
// taken is a whole trace or none.
func FuzzTraceContext(f *testing.F) {
	for _, s := range [][2]string{
		{sampled, ""}, {ignored, "a=1,b=2"}, {"", "a=1"}, {"00-" + traceID, ""}, {"ff" + sampled[2:], "a"}, {"01" + sampled[2:] + "-more", "a=\x00"},
		{"00-00000000000000000000000000000000-0000000000000000-01", strings.Repeat("a=1,", 200)},
	} {
		f.Add(s[0], s[1])
	}
	tel := newTelemetry(f, Config{Traces: TracesConfig{Endpoint: "http://127.0.0.1:1"}})
	f.Cleanup(func() { _ = tel.Close(context.Background()) }) // nothing waits
	f.Fuzz(func(t *testing.T, parent, state string) {
		served := false
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = http.Header{"Traceparent": {parent}, "Tracestate": {state}}
		tel.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			served = true
			sc := trace.SpanContextFromContext(r.Context())
			if sc.IsValid() && !strings.Contains(strings.ToLower(parent), sc.TraceID().String()) {
				t.Errorf("%q became %v", parent, sc)
			}
			if s := sc.TraceState().String(); len(s) > maxTraceState || sc.HasTraceID() != sc.HasSpanID() {
				t.Errorf("%q and %q became %v", parent, state, sc)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if !served {
			t.Error("the request was not served")
		}
	})
}

func BenchmarkDecided(b *testing.B) {
	for name, c := range map[string]Config{
		"metrics": {}, "not sampled": {Traces: TracesConfig{Endpoint: "http://127.0.0.1:1"}},
		"sampled": {Traces: TracesConfig{Endpoint: "http://127.0.0.1:1", SampleRatio: 1}},
	} {
		b.Run(name, func(b *testing.B) {
			tel, o, ctx := newTelemetry(b, c), observation(), context.Background()
			o.Steps = nil
			for _, s := range steps() {
				o.Steps = append(o.Steps, pdp.Step{Name: s, Took: 3 * time.Microsecond})
			}
			b.ReportAllocs()
			for b.Loop() {
				tel.Decided(ctx, o)
			}
			_ = tel.Close(ctx) // nobody listens
		})
	}
}
