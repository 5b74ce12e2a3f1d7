package telemetry

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// The names of what other parts of the plane know and [Telemetry.Gauge] and
// [Telemetry.Counter] publish. The dashboard in deploy/grafana shows them.
const (
	LogQueue           = "bailiwick_log_queue_records"         // gauge: records that wait to be written
	LogLag             = "bailiwick_log_lag_seconds"           // gauge: how long the oldest of them has waited
	LogEntries         = "bailiwick_log_entries_total"         // counter: entries of the log
	Sessions           = "bailiwick_sessions"                  // gauge: sessions that are alive
	InFlight           = "bailiwick_decisions_in_flight"       // gauge: decisions under way
	EntitySources      = "bailiwick_entity_sources"            // gauge: sources of entities
	EntitySourcesDown  = "bailiwick_entity_sources_down"       // gauge: those that could not be read last
	BreakersOpen       = "bailiwick_breakers_open"             // gauge: breakers that are open or half-open
	BreakerChanges     = "bailiwick_breaker_transitions_total" // counter: changes of state of breakers
	Suspensions        = "bailiwick_suspensions"               // gauge: what is suspended
	ShortcutHits       = "bailiwick_shortcut_hits_total"       // counter: decisions that needed no look-up
	ShortcutMisses     = "bailiwick_shortcut_misses_total"     // counter: decisions that did
	ShortcutMismatches = "bailiwick_shortcut_mismatches_total" // counter: remembered answers that were wrong
)

// The effects of decisions.
const (
	effectAllow    = "allow"
	effectDeny     = "deny"
	effectObserved = "observed"
)

type metrics struct {
	registry *prometheus.Registry
	decided  *prometheus.CounterVec
	gates    closed[string]
	reasons  closed[string]
	took     closed[prometheus.Observer]
	steps    closed[prometheus.Observer]
	refused  closed[prometheus.Counter]
	offered  closed[prometheus.Counter]
	version  atomic.Pointer[string] // nil: none has been in force
}

func newMetrics(version string) *metrics {
	decided := counters("bailiwick_decisions_total", "Decisions, by the code of their first reason.", "gate", "effect", "reason")
	refused := counters("bailiwick_refused_total", "Requests refused unlooked at because there was more to decide than can be decided.", "gate")
	offered := counters("bailiwick_remedies_offered_total", "Facts that would have changed a denial and that the denial offered.", "kind")
	took := histograms("bailiwick_decision_seconds", "Time from the request to the recorded decision.", "gate",
		50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, .1, .25, .5, 1, 2.5, 5)
	stepped := histograms("bailiwick_decision_step_seconds", "Time of one step of a decision.", "step",
		1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, .1, .25, 1)
	m := &metrics{
		registry: prometheus.NewRegistry(), decided: decided,
		gates: newClosed(gates(), itself), reasons: newClosed(reasons(), itself),
		took:    newClosed(gates(), func(l string) prometheus.Observer { return took.WithLabelValues(l) }),
		steps:   newClosed(steps(), func(l string) prometheus.Observer { return stepped.WithLabelValues(l) }),
		refused: newClosed(gates(), func(l string) prometheus.Counter { return refused.WithLabelValues(l) }),
		offered: newClosed(kinds(), func(l string) prometheus.Counter { return offered.WithLabelValues(l) }),
	}
	m.registry.MustRegister(decided, refused, offered, took, stepped, build(version), inForce{&m.version, prometheus.NewDesc(
		"bailiwick_policy_info", "1 for the policy version in force.", []string{"version"}, nil)},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histograms(name, help, label string, buckets ...float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
}

func build(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bailiwick_build_info", Help: "1 for the program that runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

// inForce collects the version in force. There is one at a time, at every
// scrape.
type inForce struct {
	version *atomic.Pointer[string]
	desc    *prometheus.Desc
}

func (f inForce) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }

func (f inForce) Collect(ch chan<- prometheus.Metric) {
	v := f.version.Load()
	if v == nil {
		return
	}
	m, err := prometheus.NewConstMetric(f.desc, prometheus.GaugeValue, 1, *v)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	ch <- m
}

// decision counts a decision and returns how long it took.
func (m *metrics) decision(o *pdp.Observation) time.Duration {
	var took time.Duration
	for _, s := range o.Steps {
		took += s.Took
		m.steps.of(s.Name).Observe(s.Took.Seconds())
	}
	m.took.of(o.Gate).Observe(took.Seconds())
	m.decided.WithLabelValues(m.gates.of(o.Gate), effect(o), m.reasons.of(o.Decision.Code())).Inc()
	for _, remedy := range o.Decision.Remedies {
		for _, fact := range remedy {
			m.offered.of(string(fact.Kind)).Inc()
		}
	}
	return took
}

func effect(o *pdp.Observation) string {
	switch {
	case !o.Decision.Allow:
		return effectDeny
	case o.Decision.Observed:
		return effectObserved
	default:
		return effectAllow
	}
}

// Metrics serves the metrics as Prometheus's text or as OpenMetrics. Whoever
// may read them learns how much is denied and why; it is for the operator.
func (t *Telemetry) Metrics() http.Handler {
	return promhttp.HandlerFor(t.metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// Gauge publishes a number that is read at each scrape. The read must be quick
// and safe for concurrent use. Names are published once.
func (t *Telemetry) Gauge(name, help string, read func() float64) error {
	return t.publish(name, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Counter is Gauge for a number that never falls while the process runs. Its
// name ends in "_total".
func (t *Telemetry) Counter(name, help string, read func() float64) error {
	if !strings.HasSuffix(name, "_total") {
		return fmt.Errorf("publish %s: a counter's name ends in _total", name)
	}
	return t.publish(name, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

func (t *Telemetry) publish(name string, c prometheus.Collector) error {
	if err := t.metrics.registry.Register(c); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

func (t *Telemetry) countSpans(q *queue) error {
	if err := t.Counter("bailiwick_spans_sent_total", "Spans that the collector took.", func() float64 { return float64(q.sent.Load()) }); err != nil {
		return err
	}
	return t.Counter("bailiwick_spans_dropped_total", "Spans lost: the queue was full, or the collector did not take them.",
		func() float64 { return float64(q.dropped.Load()) })
}
