// Package traces replays recorded runs of real models, attacks among them,
// through the decision pipeline, and keeps count of what the policies beside
// it stop and let through.
package traces

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/internal/app"
)

var update = flag.Bool("update", false, "rewrite "+numbersFile)

// numbersFile holds the scores that no later change may worsen.
const numbersFile = "numbers.json"

// suites are the applications for which there are policies.
var suites = []string{"banking", "workspace"}

// TestRecordedRuns fails when fewer attacks are defeated, or fewer legitimate
// runs allowed, than numbers.json says.
func TestRecordedRuns(t *testing.T) {
	t.Parallel()
	c := openCorpus(t)
	nth := 1
	if raceEnabled || testing.Short() {
		nth = 10
	}
	ours := row{name: "the policies of this folder", scores: map[string]score{}}
	rows := []row{}
	for _, b := range baselines() {
		rows = append(rows, row{name: b.name, scores: map[string]score{}, published: b.published})
	}
	for _, suite := range suites {
		v := load(t, c, suite)
		runs := c.runs(t, suite, nth)
		verdicts := replay(t, open(t, v), suite, runs)
		if t.Failed() {
			return
		}

		// Everything is decided: only now does the answer key come out.
		labels := c.labels(t, suite, nth)
		rep := scoreRuns(t, runs, labels, verdicts)
		ours.scores[suite] = rep.score
		t.Logf("%s, attacks defeated, by the first denied call of a witness:\n%s", suite, causes(rep.By))
		t.Logf("%s, attacks that passed, by the attacker's task:\n%s", suite, causes(rep.Passed))
		t.Logf("%s, benign runs stopped, by the first denied call:\n%s", suite, causes(rep.Stopped))

		known := factsOf(v, c.tasks(t, suite))
		for i, b := range baselines() {
			rows[i].scores[suite] = scoreRuns(t, runs, labels, judgeAll(b.judge(known), runs)).score
		}
	}
	t.Log("\n" + render(append([]row{ours}, rows...)))
	if nth > 1 {
		t.Logf("only every %dth run was replayed: not compared with %s", nth, numbersFile)
		return
	}
	compare(t, ours.scores)
}

// compare holds the scores against those that are kept, or keeps them.
func compare(t *testing.T, got map[string]score) {
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
	var kept map[string]score
	if err := json.Unmarshal(readFile(t, numbersFile), &kept); err != nil {
		t.Fatalf("%s: %v", numbersFile, err)
	}
	for _, suite := range suites {
		lines := got[suite].worse(kept[suite])
		for _, line := range lines {
			t.Errorf("%s: %s", suite, line)
		}
		if len(lines) == 0 && got[suite] != kept[suite] {
			t.Logf("%s: better than the numbers kept; run with -update to keep these", suite)
		}
	}
}

// TestPoliciesKeepTheirPromises runs the tests beside the policies. Every policy
// has to decide one of them.
func TestPoliciesKeepTheirPromises(t *testing.T) {
	t.Parallel()
	c := openCorpus(t)
	for _, suite := range suites {
		report, err := app.TestPolicies(configure(t, c, suite))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Tests {
			if !r.Pass {
				t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, r.Failure)
			}
		}
		if len(report.Untested) > 0 {
			t.Errorf("%s: untested: %s", suite, strings.Join(report.Untested, ", "))
		}
	}
}

// TestPoliciesNameNoAttacker holds the policies to what an operator can know:
// nothing that an attacker chose occurs in them.
func TestPoliciesNameNoAttacker(t *testing.T) {
	t.Parallel()
	c := openCorpus(t)
	for _, suite := range suites {
		text := readFile(t, filepath.Join(suite, "catalog.yaml"))
		policies, err := filepath.Glob(filepath.Join(suite, "policies", "*.cedar"))
		if err != nil || len(policies) == 0 {
			t.Fatalf("%s: no policies (%v)", suite, err)
		}
		for _, file := range policies {
			text = append(text, readFile(t, file)...)
		}
		chosen := map[string]bool{}
		for _, l := range c.labels(t, suite, 1) {
			for _, s := range l.Steps {
				for _, literal := range s.AttackerLiteral {
					chosen[literal] = true
				}
			}
		}
		if len(chosen) == 0 {
			t.Errorf("%s: the labels hold nothing that an attacker chose", suite)
		}
		for literal := range chosen {
			if strings.Contains(string(text), literal) {
				t.Errorf("%s: %q stands in the policies or the catalogue, and an attacker chose it", suite, literal)
			}
		}
	}
}
