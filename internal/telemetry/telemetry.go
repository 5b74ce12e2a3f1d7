// Package telemetry tells operators how the plane is doing, in metrics and
// traces that name no subject and hold no value. It decides nothing, and what
// it tells may be lost.
package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// Config configures a [Telemetry]. Its zero value has metrics and no traces.
type Config struct {
	// Version is the version of the program. Empty: "unknown".
	Version string
	// Logger is told when traces cannot be delivered. Default: nobody is.
	Logger *slog.Logger
	// Traces says where traces go.
	Traces TracesConfig
}

// A Telemetry observes decisions. It is safe for concurrent use.
type Telemetry struct {
	metrics *metrics
	traces  *traces // nil: there are none
}

var _ pdp.Observer = (*Telemetry)(nil)

// New returns a Telemetry, which is to be closed. It does not wait for the
// collector of traces: one that is down is not an error.
func New(c Config) (*Telemetry, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Version = strings.ToValidUTF8(c.Version, "?"); c.Version == "" {
		c.Version = "unknown"
	}
	t := &Telemetry{metrics: newMetrics(c.Version)}
	if c.Traces.Endpoint == "" {
		return t, nil
	}
	var err error
	if t.traces, err = newTraces(c); err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	if err := t.countSpans(t.traces.queue); err != nil {
		return nil, err
	}
	return t, nil
}

// Decided implements [pdp.Observer].
func (t *Telemetry) Decided(ctx context.Context, o pdp.Observation) {
	took := t.metrics.decision(&o)
	if t.traces != nil {
		t.traces.decision(ctx, &o, took)
	}
}

// Refused implements [pdp.Observer].
func (t *Telemetry) Refused(gate string) { t.metrics.refused.of(gate).Inc() }

// SetVersion says which policy version is in force.
func (t *Telemetry) SetVersion(digest string) { t.metrics.version.Store(&digest) }

// Close delivers the spans that wait, until ctx ends; the error says that some
// may be lost. Decisions may still be observed, and are counted.
func (t *Telemetry) Close(ctx context.Context) error {
	if t.traces == nil {
		return nil
	}
	if err := t.traces.queue.Shutdown(ctx); err != nil {
		return fmt.Errorf("deliver the last traces: %w", err)
	}
	return nil
}
