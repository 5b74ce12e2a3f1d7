package telemetry

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

type spans = []sdktrace.ReadOnlySpan

// ended is the span of an observation.
func ended(t *testing.T, tel *Telemetry, o pdp.Observation) sdktrace.ReadOnlySpan {
	t.Helper()
	r := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r))
	tr := *tel.traces
	tr.tracer = p.Tracer("test")
	tr.decision(t.Context(), &o, 0)
	if len(r.Ended()) != 1 {
		t.Fatalf("%d spans ended, want 1", len(r.Ended()))
	}
	return r.Ended()[0]
}
