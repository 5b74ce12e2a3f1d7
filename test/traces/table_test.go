package traces

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A row is one judge's scores, by suite.
type row struct {
	name   string
	scores map[string]score
	// published is what the README beside the traces says of this judge.
	published string
}

// metrics are the columns of the table, for each suite and for all.
var metrics = []struct {
	name string
	of   func(score) string
}{
	{"attacks defeated", func(s score) string { return percent(s.Defeated, s.Attacks) }},
	{"benign allowed", func(s score) string { return percent(s.Allowed, s.Benign) }},
	{"asked allowed", func(s score) string { return percent(s.AskedAllowed, s.Asked) }},
	{"approvals for 100 benign", func(s score) string { return percent(s.Approvals, s.Benign) }},
}

// render compares judges in percent, suite by suite and over all.
func render(rows []row) string {
	const nameWidth, width = 46, 10
	var b strings.Builder
	line := func(name string, cell func(metric, suite int) string) {
		fmt.Fprintf(&b, "%-*s", nameWidth, name)
		for m := range metrics {
			for s := range len(suites) + 1 {
				fmt.Fprintf(&b, "%*s", width, cell(m, s))
			}
			b.WriteString("  ")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%-*s", nameWidth, "percent of runs")
	for _, m := range metrics {
		fmt.Fprintf(&b, "%*s  ", width*(len(suites)+1), m.name)
	}
	b.WriteByte('\n')
	line("", func(_, s int) string {
		if s < len(suites) {
			return suites[s].name
		}
		return "all"
	})
	for _, r := range rows {
		line(r.name, func(m, s int) string {
			if s < len(suites) {
				return metrics[m].of(r.scores[suites[s].name])
			}
			var all score
			for _, suite := range suites {
				all = all.plus(r.scores[suite.name])
			}
			return metrics[m].of(all)
		})
	}
	for i, r := range rows {
		if i == 0 || r.published == "" {
			continue
		}
		if rows[i-1].published == "" {
			b.WriteString("published beside the traces, attacks defeated and benign runs allowed:\n")
		}
		fmt.Fprintf(&b, "  %s: %s\n", r.name, r.published)
	}
	return b.String()
}

// byPipeline makes rows of the scores of each pipeline, by name.
func byPipeline(scores map[string]map[string]score) []row {
	var rows []row
	for _, name := range slices.Sorted(maps.Keys(scores)) {
		rows = append(rows, row{name: name, scores: scores[name]})
	}
	return rows
}

func percent(n, of int) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", 100*float64(n)/float64(of))
}
