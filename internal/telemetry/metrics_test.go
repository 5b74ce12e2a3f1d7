package telemetry

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// observation is of a denial that took 1.002 ms.
func observation() pdp.Observation {
	return pdp.Observation{
		Decision: authz.Decision{
			ID: "d1", Version: "sha256:ab", Reasons: []authz.Reason{{Code: authz.ReasonForbidden}},
			Remedies: []authz.Remedy{{{Kind: authz.FactApproval, Name: "data-owner"}}, {{Kind: authz.FactLevel, Level: 2}, {Kind: authz.FactFresh}}},
		},
		Gate: "mcp-http", Action: "bank/send_money", Start: time.Unix(1_700_000_000, 0),
		Steps: []pdp.Step{{Name: pdp.StepPolicy, Took: 2 * time.Microsecond}, {Name: pdp.StepRecord, Took: time.Millisecond}},
	}
}

func newTelemetry(t testing.TB, c Config) *Telemetry {
	t.Helper()
	tel, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// scrape asks a real server, and parses what it says.
func scrape(t testing.TB, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	text, _ := get(t, tel, "")
	families, err := parse(text)
	if err != nil {
		t.Fatalf("parse the metrics: %v", err)
	}
	return families
}

func parse(text string) (map[string]*dto.MetricFamily, error) {
	p := expfmt.NewTextParser(model.LegacyValidation)
	return p.TextToMetricFamilies(strings.NewReader(text))
}

func get(t testing.TB, tel *Telemetry, accept string) (text, contentType string) {
	t.Helper()
	s := httptest.NewServer(tel.Metrics())
	defer s.Close()
	req, err := http.NewRequest(http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape: status %d, %v", resp.StatusCode, err)
	}
	return string(b), resp.Header.Get("Content-Type")
}

// values are the series of a metric that are not zero, by label values; of a
// histogram, how many it has counted.
func values(f *dto.MetricFamily) map[string]float64 {
	got := map[string]float64{}
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		if v != 0 {
			got[strings.Join(labels, " ")] = v
		}
	}
	return got
}

func TestDecisionsAreCounted(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, Config{Version: "v1"})
	denied := observation()
	allowed, observed := denied, denied
	allowed.Decision = authz.Decision{Allow: true, Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow}}}
	observed.Decision = authz.Decision{Allow: true, Observed: true, Reasons: denied.Decision.Reasons}
	for _, o := range []pdp.Observation{denied, denied, allowed, observed, {}} {
		tel.Decided(t.Context(), o)
	}
	tel.Refused("authzen")
	got := scrape(t, tel)
	for name, want := range map[string]map[string]float64{
		"bailiwick_decisions_total": { // labels in the order of their names: effect, gate, reason
			"deny mcp-http forbidden": 2, "allow mcp-http allowed": 1, "observed mcp-http forbidden": 1, "deny other internal": 1,
		},
		"bailiwick_decision_seconds":       {"mcp-http": 4, "other": 1},
		"bailiwick_decision_step_seconds":  {"policy": 4, "record": 4},
		"bailiwick_refused_total":          {"authzen": 1},
		"bailiwick_remedies_offered_total": {"approval": 2, "auth_level": 2, "auth_age": 2},
	} {
		if diff := cmp.Diff(want, values(got[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, m := range got["bailiwick_decision_seconds"].GetMetric() {
		if m.GetLabel()[0].GetValue() == "mcp-http" && math.Abs(m.GetHistogram().GetSampleSum()-4*1.002e-3) > 1e-9 {
			t.Errorf("4 decisions of 1.002 ms took %v s", m.GetHistogram().GetSampleSum())
		}
	}
}

func TestHostileNamesMakeNoSeries(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, Config{})
	hostile := func(name string) pdp.Observation {
		o := observation()
		o.Gate, o.Action, o.Steps = name, name, []pdp.Step{{Name: name}}
		o.Decision.Reasons = []authz.Reason{{Code: name}}
		o.Decision.Remedies = []authz.Remedy{{{Kind: authz.FactKind(name), Name: name}}}
		return o
	}
	tel.Decided(t.Context(), hostile("hostile"))
	before, _ := get(t, tel, "")
	for i := range 1000 {
		name := fmt.Sprint("hostile\xff\"\n", i)
		tel.Decided(t.Context(), hostile(name))
		tel.Refused(name)
	}
	after, _ := get(t, tel, "")
	if b, a := strings.Count(before, "\nbailiwick_"), strings.Count(after, "\nbailiwick_"); a != b {
		t.Errorf("1000 names made %d series of %d", a, b)
	}
	if strings.Contains(after, "hostile") {
		t.Error("a caller's name is in the metrics")
	}
	if got := values(scrape(t, tel)["bailiwick_decisions_total"]); got["deny other other"] != 1001 {
		t.Errorf("decisions are %v, want 1001 of others", got)
	}
}

// What is added elsewhere is not counted as "other" by oversight.
func TestEveryNameOfOursIsKnown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, files, prefix string
		known               []string
	}{
		{"reasons", "../../authz/authz.go", "Reason", reasons()},
		{"kinds of fact", "../../authz/authz.go", "Fact", kinds()},
		{"steps", "../pdp/observe.go", "Step", steps()},
		{"gates", "../pep/*gate/*.go", "gate", gates()},
		{"gates for others", "../pep/extauthz/extauthz.go", "gate", gates()},
	} {
		found := constants(t, tt.files, tt.prefix)
		if len(found) == 0 {
			t.Errorf("no %s in %s: they have moved", tt.name, tt.files)
		}
		for _, name := range found {
			if !slices.Contains(tt.known, name) {
				t.Errorf("%s: %q is not in labels.go", tt.name, name)
			}
		}
	}
}

// constants are the values of the string constants whose names begin with
// prefix.
func constants(t *testing.T, pattern, prefix string) (found []string) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, prefix) {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, s)
			}
			return true
		})
	}
	return found
}

func TestOneVersionIsInForce(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, Config{Version: "v1.2.3"})
	if got := values(scrape(t, tel)["bailiwick_policy_info"]); len(got) != 0 {
		t.Errorf("before any version: %v", got)
	}
	tel.SetVersion("sha256:old")
	tel.SetVersion("sha256:new")
	got := scrape(t, tel)
	if diff := cmp.Diff(map[string]float64{"sha256:new": 1}, values(got["bailiwick_policy_info"])); diff != "" {
		t.Errorf("version (-want +got):\n%s", diff)
	}
	if b := values(got["bailiwick_build_info"]); len(b) != 1 || !strings.Contains(fmt.Sprint(b), " v1.2.3:1") {
		t.Errorf("build is %v", b)
	}
	if got["go_goroutines"] == nil {
		t.Error("the Go runtime is not told of")
	}
}

func TestNumbersAreReadAtEachScrape(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, Config{})
	n := 0.0
	next := func() float64 { n++; return n }
	if err := tel.Gauge(Sessions, "help", next); err != nil {
		t.Fatal(err)
	}
	if err := tel.Counter(LogEntries, "help", func() float64 { return 7 }); err != nil {
		t.Fatal(err)
	}
	for want := 1.0; want <= 2; want++ {
		if got := values(scrape(t, tel)[Sessions]); got[""] != want {
			t.Errorf("gauge is %v, want %v", got, want)
		}
	}
	f := scrape(t, tel)[LogEntries]
	if f.GetType() != dto.MetricType_COUNTER || values(f)[""] != 7 {
		t.Errorf("counter is %v", f)
	}
	for name, err := range map[string]error{
		"name that is taken":     tel.Gauge(Sessions, "help", next),
		"name of a decision":     tel.Counter("bailiwick_refused_total", "help", next),
		"name that is none":      tel.Gauge("", "help", next),
		"counter without _total": tel.Counter("bailiwick_things", "help", next),
	} {
		if err == nil {
			t.Errorf("%s was published", name)
		}
	}
}

func TestOpenMetricsForWhoAsks(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, Config{})
	tel.Decided(t.Context(), observation())
	text, contentType := get(t, tel, "application/openmetrics-text;version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("OpenMetrics came as %s, ending in %q", contentType, text[max(0, len(text)-20):])
	}
}

// all is everything that a node publishes.
func all(t *testing.T) *Telemetry {
	tel := newTelemetry(t, Config{Traces: TracesConfig{Endpoint: "http://127.0.0.1:1"}})
	t.Cleanup(func() { _ = tel.Close(t.Context()) }) // nothing waits
	for _, name := range constants(t, "metrics.go", "") {
		publish := tel.Gauge
		switch {
		case !strings.HasPrefix(name, "bailiwick_"):
			continue
		case strings.HasSuffix(name, "_total"):
			publish = tel.Counter
		}
		if err := publish(name, "Help.", func() float64 { return 1 }); err != nil {
			t.Fatal(err)
		}
	}
	tel.SetVersion("sha256:ab")
	tel.Decided(t.Context(), observation())
	return tel
}

func TestPromtoolLikesTheMetrics(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs promtool: run 'make test'")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("promtool is missing: .ci/deps installs it (apt-get install prometheus): %v", err)
	}
	text, _ := get(t, all(t), "")
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

func TestDocumentsNameEveryMetric(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "| `bailiwick_"); ok {
			name, _, _ = strings.Cut(name, "`")
			documented["bailiwick_"+name] = true
		}
	}
	published := map[string]bool{}
	for name := range scrape(t, all(t)) {
		if strings.HasPrefix(name, "bailiwick_") {
			published[name] = true
		}
	}
	if diff := cmp.Diff(published, documented); diff != "" {
		t.Errorf("docs/observability.md (-published +documented):\n%s", diff)
	}
}

func TestObservingAllocatesAtMostTwice(t *testing.T) {
	tel, o := newTelemetry(t, Config{}), observation()
	if n := testing.AllocsPerRun(1000, func() { tel.Decided(t.Context(), o) }); n > 2 {
		t.Errorf("Decided allocates %v times, want at most 2", n)
	}
}
