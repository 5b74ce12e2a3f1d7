package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

func playDemo(t *testing.T, dir string) *DemoReport {
	t.Helper()
	r, err := Demo(t.Context(), DemoConfig{Dir: dir, Binary: `/opt/bin dir/"bailiwick"`})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// deniedSteps are the steps that policy denied, as "action code policy".
func deniedSteps(run DemoRun) []string {
	var out []string
	for _, s := range run.Steps {
		if s.Effect == "allow" {
			continue
		}
		line := s.Action + " " + s.Reasons[0].Code
		for _, p := range s.Policies {
			line += " " + p.ID
		}
		out = append(out, line)
	}
	return out
}

func TestDemoShowsWhatEnforcingSaves(t *testing.T) {
	r := playDemo(t, filepath.Join(t.TempDir(), "demo"))
	if len(r.Runs) != 2 {
		t.Fatalf("%d runs, want 2", len(r.Runs))
	}
	observed, enforced := r.Runs[0], r.Runs[1]

	denied := []string{
		"bank/send_money forbidden money-goes-to-known-payees",
		"mailbox/send_mail forbidden mail-stays-in-the-house",
		"mailbox/delete_mail no_permit",
	}
	done := []string{"the invoice is paid: 184.50 EUR to HOLM-4471", "the summary is sent to maya@harbour.example"}
	for _, run := range r.Runs {
		if diff := cmp.Diff(denied, deniedSteps(run)); diff != "" {
			t.Errorf("%s: denied (-want +got):\n%s", run.Mode, diff)
		}
		if diff := cmp.Diff(done, run.Done); diff != "" {
			t.Errorf("%s: done (-want +got):\n%s", run.Mode, diff)
		}
		if len(run.Steps) != 11 {
			t.Errorf("%s: %d steps, want 11", run.Mode, len(run.Steps))
		}
	}

	if got, want := observed.Opening-observed.Balance, int64(18450+480000); got != want {
		t.Errorf("observed: %d cents went away, want %d", got, want)
	}
	if len(observed.Lost) != 3 || len(observed.Hidden) != 0 {
		t.Errorf("observed: lost %q, hidden %q; want three losses and nothing hidden", observed.Lost, observed.Hidden)
	}
	if got, want := enforced.Opening-enforced.Balance, int64(18450); got != want {
		t.Errorf("enforced: %d cents went away, want %d", got, want)
	}
	if len(enforced.Lost) != 0 {
		t.Errorf("enforced: lost %q", enforced.Lost)
	}
	if diff := cmp.Diff([]string{"mailbox/delete_mail"}, enforced.Hidden); diff != "" {
		t.Errorf("hidden (-want +got):\n%s", diff)
	}
	for _, s := range enforced.Steps {
		if (s.Denial != nil) != (s.Effect != "allow") || s.Injected != (s.Effect != "allow") {
			t.Errorf("%s: injected %t, record says %s, the agent was told %+v", s.Action, s.Injected, s.Effect, s.Denial)
		}
		if s.Denial != nil && (s.Denial.Decision != s.Decision || s.Denial.Code != s.Reasons[0].Code) {
			t.Errorf("%s: the agent was told %+v, the record says %s %s", s.Action, s.Denial, s.Decision, s.Reasons[0].Code)
		}
	}
}

func TestDemoPointsAtThePolicy(t *testing.T) {
	r := playDemo(t, filepath.Join(t.TempDir(), "demo"))
	for _, s := range r.Runs[1].Steps {
		if s.Summary != "4,800.00 EUR to NEW-0042" {
			continue
		}
		want := []authz.PolicyRef{{ID: "money-goes-to-known-payees", Effect: "forbid", File: "policies/untrusted.cedar", Line: 5}}
		if diff := cmp.Diff(want, s.Policies); diff != "" {
			t.Errorf("policies (-want +got):\n%s", diff)
		}
		if !strings.HasPrefix(s.Text, `@id("money-goes-to-known-payees")`) || !strings.HasSuffix(strings.TrimSpace(s.Text), ";") {
			t.Errorf("text of the policy:\n%s", s.Text)
		}
		return
	}
	t.Error("the payment to the thief was not tried")
}

func TestDemoProvesTheLogAndNoticesOneByte(t *testing.T) {
	r := playDemo(t, filepath.Join(t.TempDir(), "demo"))
	if !r.Log.Verified || r.Log.Open != 0 || r.Log.Released == 0 {
		t.Errorf("log = %+v, want it verified with an outcome for each released call", r.Log)
	}
	tampered := r.Tampered.Report
	if tampered.Verified || tampered.FaultCount != 1 {
		t.Fatalf("tampered = %+v, want one fault", tampered)
	}
	fault := tampered.Faults[0]
	if fault.Code != audit.FaultPayload || fault.From != stolen(r).Index || fault.To != fault.From+1 {
		t.Errorf("fault = %+v, want entry %d", fault, stolen(r).Index)
	}
}

// stolen is the step that paid the thief while nothing was stopped.
func stolen(r *DemoReport) DemoStep {
	for _, s := range r.Runs[0].Steps {
		if s.Injected && s.Action == "bank/send_money" {
			return s
		}
	}
	return DemoStep{}
}

func TestDemoMissesWhatIsNotOnTheRecord(t *testing.T) {
	r := playDemo(t, filepath.Join(t.TempDir(), "demo"))
	c, err := LoadConfig(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	run := DemoRun{Steps: slices.Clone(r.Runs[1].Steps)}
	from := run.Steps[0].Index
	if err := run.explain(t.Context(), c, from); err != nil {
		t.Errorf("the run as it was: %v", err)
	}
	unrecorded := append(slices.Clone(run.Steps), DemoStep{Action: "bank/send_money"})
	if err := (&DemoRun{Steps: unrecorded}).explain(t.Context(), c, from); err == nil || !strings.Contains(err.Error(), "not on the record") {
		t.Errorf("explain = %v, want the step that is not on the record", err)
	}
	other := append([]DemoStep{{Action: "mailbox/delete_mail"}}, run.Steps[1:]...)
	if err := (&DemoRun{Steps: other}).explain(t.Context(), c, from); err == nil || !strings.Contains(err.Error(), "not what the agent did") {
		t.Errorf("explain = %v, want the record that does not fit", err)
	}
}

func TestDemoIsPlayedAgainWithEditedPolicies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	before := playDemo(t, dir)
	file := filepath.Join(dir, "policies/untrusted.cedar")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), `"RENT-0001"`, `"RENT-0001", "NEW-0042"`, 1)
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	r := playDemo(t, dir)
	if diff := cmp.Diff([]string{"4,800.00 EUR went to NEW-0042"}, r.Runs[1].Lost); diff != "" {
		t.Errorf("lost after the edit (-want +got):\n%s", diff)
	}
	if !r.Log.Verified || r.Log.Size <= before.Log.Size {
		t.Errorf("log = %+v, want one that continues after entry %d", r.Log, before.Log.Size)
	}
}

func TestDemoLeavesOtherDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, DefaultConfigFile), []byte("mode: enforce\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Demo(t.Context(), DemoConfig{Dir: dir, Binary: "bailiwick"})
	if err == nil || !strings.Contains(err.Error(), "no demo made it") {
		t.Errorf("Demo = %v, want a refusal", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want only what was there", entries, err)
	}
}

func TestDemoPoliciesAreTested(t *testing.T) {
	r := playDemo(t, filepath.Join(t.TempDir(), "demo"))
	c, err := LoadConfig(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	report, err := TestPolicies(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range report.Tests {
		if !test.Pass {
			t.Errorf("%s:%d: %s: %s", test.File, test.Line, test.Name, test.Failure)
		}
	}
	if report.Passed == 0 || len(report.Untested) != 0 {
		t.Errorf("%d tests pass, untested are %q; want every policy tested", report.Passed, report.Untested)
	}
}
