package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// TracesConfig says where traces go. Its zero value makes none.
type TracesConfig struct {
	// Endpoint is the base URL of a collector that speaks OTLP over HTTP, for
	// example "http://localhost:4318". Empty: there are no traces.
	Endpoint string
	// Headers go with each delivery; a credential of the collector, say. With
	// any, a collector on another machine must be https.
	Headers map[string]string
	// CAFile holds the authorities that vouch for the collector, PEM. Empty: the
	// system's.
	CAFile string
	// SampleRatio is the share, 0 to 1, of the decisions that are traced when
	// the caller has no trace. A caller that has one says so itself.
	SampleRatio float64
}

// maxTraceState is how much of the caller's tracestate is passed on (W3C Trace
// Context §3.3.1.5 asks for 512 characters at least).
const maxTraceState = 512

type traces struct {
	tracer  trace.Tracer
	queue   *queue
	gates   closed[string]
	reasons closed[string]
}

func newTraces(c Config) (*traces, error) {
	if r := c.Traces.SampleRatio; !(r >= 0 && r <= 1) { // so that NaN is refused too
		return nil, errors.New("the sample ratio must be 0 to 1")
	}
	collector, err := newCollector(c.Traces)
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	exporter, err := otlptrace.New(context.Background(), collector)
	if err != nil {
		return nil, err
	}
	q := newQueue(exporter, c.Logger)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(q),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Traces.SampleRatio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "bailiwick"), attribute.String("service.version", c.Version))),
	)
	return &traces{
		queue: q, gates: newClosed(gates(), itself), reasons: newClosed(reasons(), itself),
		tracer: provider.Tracer("github.com/bailiwick-dev/bailiwick", trace.WithInstrumentationVersion(c.Version)),
	}, nil
}

// decision makes the span of a decision, as a child of the caller's.
func (t *traces) decision(ctx context.Context, o *pdp.Observation, took time.Duration) {
	name := "authz.decide"
	if o.Action != "" {
		name += " " + o.Action
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(o.Start), trace.WithSpanKind(trace.SpanKindInternal))
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(t.attributes(o)...)
	at := o.Start
	for _, s := range o.Steps {
		at = at.Add(s.Took)
		span.AddEvent(s.Name, trace.WithTimestamp(at))
	}
	span.End(trace.WithTimestamp(o.Start.Add(took)))
}

func (t *traces) attributes(o *pdp.Observation) []attribute.KeyValue {
	decision := effectDeny
	if o.Decision.Allow {
		decision = effectAllow
	}
	list := make([]attribute.KeyValue, 0, 8)
	list = append(list, keyDecision.String(decision), keyID.String(o.Decision.ID), keyReason.String(t.reasons.of(o.Decision.Code())),
		keyVersion.String(o.Decision.Version), keyGate.String(t.gates.of(o.Gate)))
	if o.Decision.Observed {
		list = append(list, keyObserved.Bool(true))
	}
	if tool, ok := tool(o); ok {
		list = append(list, keyOperation.String(executeTool), keyTool.String(tool))
	}
	return list
}

// tool is the MCP tool that was asked for. Methods of the protocol itself are
// not called "<server>/<tool>".
func tool(o *pdp.Observation) (string, bool) {
	if o.Gate != gateMCP && o.Gate != gateStdio || strings.HasPrefix(o.Action, "mcp:") {
		return "", false
	}
	_, tool, ok := strings.Cut(o.Action, "/")
	return tool, ok
}

// Middleware takes the caller's trace (W3C Trace Context: traceparent and
// tracestate, no baggage) into the context of each request. What is malformed
// is ignored. Without traces it changes nothing.
func (t *Telemetry) Middleware(next http.Handler) http.Handler {
	if t.traces == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Traceparent"]) > 0 {
			r = r.WithContext(propagation.TraceContext{}.Extract(r.Context(), carrier{propagation.HeaderCarrier(r.Header)}))
		}
		next.ServeHTTP(w, r)
	})
}

// A carrier holds back what is said twice, and a tracestate beyond the bound:
// it would be kept with every span that waits.
type carrier struct{ propagation.HeaderCarrier }

func (c carrier) Get(key string) string {
	values := http.Header(c.HeaderCarrier).Values(key)
	if len(values) != 1 || len(values[0]) > maxTraceState {
		return ""
	}
	return values[0]
}
