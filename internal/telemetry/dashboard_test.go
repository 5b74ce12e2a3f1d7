package telemetry

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

type dashboard struct {
	Title, UID    string
	SchemaVersion int
	Panels        []struct {
		ID          int
		Type, Title string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ RefID, Expr string }
	}
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b(?:bailiwick|go|process)_\w+`)
	byLabels   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcher    = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
)

// A query for what nobody publishes shows an empty panel, which looks like
// good news.
func TestDashboardShowsWhatIsPublished(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../deploy/grafana/bailiwick.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	published := scrape(t, all(t))
	ids, shown := map[int]bool{}, map[string]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Type == "" || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.H == 0 {
			t.Errorf("panel %d %q is not well formed", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			names := metricName.FindAllString(q.Expr, -1)
			if len(names) == 0 {
				t.Errorf("panel %q asks for no metric: %s", p.Title, q.Expr)
			}
			labels := []string{"instance", "le"} // the scrape's and the histogram's own
			for _, name := range names {
				family := published[strings.TrimSuffix(name, "_bucket")]
				if family == nil || strings.HasSuffix(name, "_bucket") != (family.GetType() == dto.MetricType_HISTOGRAM) {
					t.Errorf("panel %q asks for %s, which is not published so", p.Title, name)
					continue
				}
				shown[family.GetName()] = true
				for _, l := range family.GetMetric()[0].GetLabel() {
					labels = append(labels, l.GetName())
				}
			}
			for _, l := range labelsOf(q.Expr) {
				if !slices.Contains(labels, l) {
					t.Errorf("panel %q asks for the label %s, which %v do not have", p.Title, l, names)
				}
			}
		}
	}
	for _, name := range []string{
		"bailiwick_decisions_total", "bailiwick_decision_seconds", "bailiwick_decision_step_seconds", "bailiwick_refused_total", LogLag, ShortcutMismatches,
	} {
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion == 0 || len(d.Templating.List) == 0 {
		t.Errorf("the dashboard is not well formed: %+v", d)
	}
}

func labelsOf(expr string) (labels []string) {
	for _, m := range byLabels.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			labels = append(labels, strings.TrimSpace(l))
		}
	}
	for _, m := range matcher.FindAllStringSubmatch(expr, -1) {
		labels = append(labels, m[1])
	}
	return labels
}
