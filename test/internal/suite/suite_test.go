package suite

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLostCountsChecksOfTheSameName(t *testing.T) {
	pass := func(scenario, id string) Check { return Check{Scenario: scenario, ID: id, Status: "SUCCESS"} }
	fail := func(scenario, id string) Check {
		return Check{Scenario: scenario, ID: id, Status: "FAILURE", Message: "no"}
	}
	for _, tt := range []struct {
		name        string
		direct, got []Check
		want        []Loss
	}{
		{name: "the same", direct: []Check{pass("a", "1"), fail("a", "2")}, got: []Check{pass("a", "1"), fail("a", "2")}},
		{name: "better", direct: []Check{fail("a", "1")}, got: []Check{pass("a", "1")}},
		{
			name:   "one of two of the same name",
			direct: []Check{pass("a", "1"), pass("a", "1")},
			got:    []Check{pass("a", "1"), fail("a", "1")},
			want:   []Loss{{"a", "1", 2, 1, []string{"no"}}},
		},
		{
			name:   "a scenario did not run",
			direct: []Check{pass("a", "1"), pass("b", "1")},
			got:    []Check{pass("a", "1")},
			want:   []Loss{{"b", "1", 1, 0, []string{"the check did not run"}}},
		},
		{
			name:   "a failure that was not there",
			direct: []Check{pass("a", "1")},
			got:    []Check{pass("a", "1"), fail("a", "crashed")},
			want:   []Loss{{"a", "crashed", 0, 0, []string{"no"}}},
		},
		{
			name:   "a success became a warning",
			direct: []Check{pass("a", "1")},
			got:    []Check{{Scenario: "a", ID: "1", Status: "WARNING", Message: "hm"}},
			want:   []Loss{{"a", "1", 1, 0, []string{"WARNING: hm"}}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Lost(tt.direct, tt.got)); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
		})
	}
}
