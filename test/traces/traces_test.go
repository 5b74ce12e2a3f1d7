// Package traces replays recorded runs of real models, attacks among them,
// through the decision pipeline, and keeps count of what the policy pack stops
// and lets through.
package traces

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
)

var update = flag.Bool("update", false, "rewrite "+numbersFile)

// numbersFile holds the scores that no later change may worsen.
const numbersFile = "numbers.json"

// A suite is an application for which there is a catalogue file, of one of the
// corpora.
type suite struct{ name, corpus string }

var suites = []suite{{"banking", "agentdojo"}, {"workspace", "agentdojo"}, {"shopping", "agentdyn"}}

// presets of the policy pack, the strictest first.
var presets = []string{"strict", "balanced", "permissive"}

// shown is the preset of which everything is printed.
const shown = "balanced"

// TestRecordedRuns fails when fewer attacks are defeated, or fewer legitimate
// runs allowed, than numbers.json says.
func TestRecordedRuns(t *testing.T) {
	t.Parallel()
	c := openCorpus(t)
	nth := 1
	if raceEnabled || testing.Short() {
		nth = 10
	}
	got := map[string]map[string]score{} // by preset and suite
	rows := []row{}
	for _, p := range presets {
		got[p] = map[string]score{}
		rows = append(rows, row{name: "pack: " + p, scores: got[p]})
	}
	for _, b := range baselines() {
		rows = append(rows, row{name: b.name, scores: map[string]score{}, published: b.published})
	}
	pipelines := map[string]map[string]score{} // by pipeline and suite
	for _, s := range suites {
		runs, labels := c.runs(t, s, nth), c.labels(t, s, nth)
		for _, p := range presets {
			v := load(t, c, s, p)
			verdicts := replay(t, open(t, v), s, runs)
			if t.Failed() {
				return
			}
			// Everything is decided: only now does the answer key come out.
			rep := scoreRuns(t, runs, labels, verdicts)
			got[p][s.name] = rep.score
			if p != shown {
				continue
			}
			t.Logf("%s, attacks defeated, by the first denied call of a witness:\n%s", s.name, causes(rep.By))
			t.Logf("%s, attacks that passed, by the attacker's task and the user's:\n%s", s.name, causes(rep.Passed))
			t.Logf("%s, benign runs stopped, by the first denied call:\n%s", s.name, causes(rep.Stopped))
			t.Logf("%s, asked runs stopped, by the first denied call:\n%s", s.name, causes(rep.AskedStopped))
			for pipeline, of := range rep.Pipelines {
				if pipelines[pipeline] == nil {
					pipelines[pipeline] = map[string]score{}
				}
				pipelines[pipeline][s.name] = of
			}
			known := factsOf(v, c.tasks(t, s))
			for i, b := range baselines() {
				rows[len(presets)+i].scores[s.name] = scoreRuns(t, runs, labels, judgeAll(b.judge(known), runs)).score
			}
		}
	}
	t.Log("\n" + render(rows))
	t.Logf("pack: %s, by pipeline\n%s", shown, render(byPipeline(pipelines)))
	if nth > 1 {
		t.Logf("only every %dth run was replayed: not compared with %s", nth, numbersFile)
		return
	}
	compare(t, got)
}

// compare holds the scores against those that are kept, or keeps them.
func compare(t *testing.T, got map[string]map[string]score) {
	t.Helper()
	if *update {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(numbersFile, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	var kept map[string]map[string]score
	if err := json.Unmarshal(readFile(t, numbersFile), &kept); err != nil {
		t.Fatalf("%s: %v", numbersFile, err)
	}
	for _, p := range presets {
		for _, s := range suites {
			lines := got[p][s.name].worse(kept[p][s.name])
			for _, line := range lines {
				t.Errorf("%s, %s: %s", p, s.name, line)
			}
			if len(lines) == 0 && got[p][s.name] != kept[p][s.name] {
				t.Logf("%s, %s: better than the numbers kept; run with -update to keep these", p, s.name)
			}
		}
	}
}

// TestPackNamesNoSuite holds the pack to what every installation can use: no
// tool, no argument, no word of a suite occurs in it.
func TestPackNamesNoSuite(t *testing.T) {
	t.Parallel()
	c := openCorpus(t)
	for _, preset := range presets {
		pack, err := app.Pack(preset)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range suites {
			for _, tool := range c.tools(t, s) {
				if strings.Contains(string(pack), tool.Name) {
					t.Errorf("%s: the tool %s of %s stands in it", preset, tool.Name, s.name)
				}
			}
		}
	}
}

// TestCataloguesNameNoAttacker holds the catalogue files to what an operator can
// know before an attack: nothing that an attacker chose occurs in them, nor any
// value at all.
func TestCataloguesNameNoAttacker(t *testing.T) {
	t.Parallel()
	c := openCorpus(t)
	for _, s := range suites {
		text := readFile(t, filepath.Join(s.name, "catalog.yaml"))
		if _, err := catalog.ParseOverlay(text); err != nil {
			t.Fatal(err)
		}
		chosen := map[string]bool{}
		for _, l := range c.labels(t, s, 1) {
			for _, step := range l.Steps {
				for _, literal := range step.AttackerLiteral {
					chosen[literal] = true
				}
			}
		}
		if len(chosen) == 0 {
			t.Errorf("%s: the labels hold nothing that an attacker chose", s.name)
		}
		for literal := range chosen {
			if len(literal) > 3 && strings.Contains(string(text), literal) {
				t.Errorf("%s: %q stands in the catalogue, and an attacker chose it", s.name, literal)
			}
		}
	}
}
