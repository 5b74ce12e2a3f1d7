package app

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/telemetry"
)

// observe opens the telemetry of a PDP.
func (n *Node) observe() error {
	c := n.config.Telemetry
	t, err := telemetry.New(telemetry.Config{
		Version: Version().Version, Logger: n.logger,
		Traces: telemetry.TracesConfig{Endpoint: c.Traces, CAFile: c.CAFile, SampleRatio: c.Sample},
	})
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	n.telemetry = t
	return nil
}

// publish has the numbers of the parts read at each scrape. The parts are all
// there.
func (n *Node) publish() error {
	down := func() (sources, down int) {
		for _, s := range n.entities.Stats() {
			sources++
			if s.Err != nil {
				down++
			}
		}
		return sources, down
	}
	var errs []error
	for _, g := range []struct {
		name, help string
		read       func() float64
	}{
		{telemetry.LogQueue, "Records that wait to be written.", func() float64 { return float64(n.log.Stats().Queue) }},
		{telemetry.LogLag, "How long the oldest of them has waited.", func() float64 { return n.log.Stats().Lag.Seconds() }},
		{telemetry.Sessions, "Sessions in memory.", func() float64 { return float64(n.sessions.Len()) }},
		{telemetry.InFlight, "Decisions under way.", func() float64 { return float64(n.PDP.InFlight()) }},
		{telemetry.BreakersOpen, "Circuit breakers that are open or half-open.", func() float64 { return float64(len(n.breakers.Standings())) }},
		{telemetry.Suspensions, "What is suspended.", func() float64 { return float64(len(n.authority.Watch().Set().List())) }},
		{telemetry.EntitySources, "Sources of entities.", func() float64 { s, _ := down(); return float64(s) }},
		{telemetry.EntitySourcesDown, "Sources of entities that could not be read last.", func() float64 { _, d := down(); return float64(d) }},
	} {
		errs = append(errs, n.telemetry.Gauge(g.name, g.help, g.read))
	}
	for _, c := range []struct {
		name, help string
		read       func() float64
	}{
		{telemetry.LogEntries, "Entries of the log.", func() float64 { return float64(n.log.Stats().Entries) }},
		{telemetry.BreakerChanges, "Changes of state of circuit breakers.", func() float64 { return float64(n.breakers.Transitions()) }},
		{telemetry.ShortcutHits, "Decisions that needed no look-up.", func() float64 { return float64(n.PDP.Shortcuts().Hits) }},
		{telemetry.ShortcutMisses, "Decisions that did.", func() float64 { return float64(n.PDP.Shortcuts().Misses) }},
		{telemetry.ShortcutMismatches, "Remembered answers that were wrong.", func() float64 { return float64(n.PDP.Shortcuts().Wrong) }},
	} {
		errs = append(errs, n.telemetry.Counter(c.name, c.help, c.read))
	}
	return errors.Join(errs...)
}

// listenMetrics begins to serve metrics, if they are wanted.
func (n *Node) listenMetrics() error {
	if n.telemetry == nil || n.config.Telemetry.Metrics == "" {
		return nil
	}
	l, err := net.Listen("tcp", n.config.Telemetry.Metrics)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", n.telemetry.Metrics())
	n.metrics = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { n.served <- n.metrics.Serve(l) }()
	return nil
}
