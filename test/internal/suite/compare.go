package suite

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A Loss is a check that comes out worse than it should.
type Loss struct {
	Scenario, ID string
	// Want and Got count the checks of this id that succeed.
	Want, Got int
	// Messages are what the suite says of those that do not.
	Messages []string
}

func (l Loss) String() string {
	return fmt.Sprintf("%s: %s: %d of %d succeed: %q", l.Scenario, l.ID, l.Got, l.Want, l.Messages)
}

// Lost lists the checks of direct that succeed less often in got, and those
// that fail more often. An id may occur several times in a scenario, so they
// are counted.
func Lost(direct, got []Check) []Loss {
	type key struct{ scenario, id string }
	type count struct {
		success, failure int
		messages         []string
	}
	tally := func(checks []Check) map[key]*count {
		m := map[key]*count{}
		for _, c := range checks {
			k := key{c.Scenario, c.ID}
			if m[k] == nil {
				m[k] = &count{}
			}
			switch c.Status {
			case "SUCCESS":
				m[k].success++
			case "FAILURE":
				m[k].failure++
				m[k].messages = append(m[k].messages, c.Message)
			default:
				m[k].messages = append(m[k].messages, c.Status+": "+c.Message)
			}
		}
		return m
	}
	want, have := tally(direct), tally(got)
	for k := range have {
		if want[k] == nil {
			want[k] = &count{}
		}
	}
	var lost []Loss
	for k, w := range want {
		h := have[k]
		if h == nil {
			h = &count{messages: []string{"the check did not run"}}
		}
		if h.success < w.success || h.failure > w.failure {
			lost = append(lost, Loss{k.scenario, k.id, w.success, h.success, h.messages})
		}
	}
	slices.SortFunc(lost, func(a, b Loss) int {
		return slices.Compare([]string{a.Scenario, a.ID}, []string{b.Scenario, b.ID})
	})
	return lost
}

// Table prints how many checks of each scenario succeed and fail, directly
// and through the gateway.
func Table(w io.Writer, direct, got []Check) error {
	type row struct{ direct, got [2]int }
	rows := map[string]*row{}
	var names []string
	add := func(checks []Check, cell func(*row) *[2]int) {
		for _, c := range checks {
			r := rows[c.Scenario]
			if r == nil {
				r = &row{}
				rows[c.Scenario] = r
				names = append(names, c.Scenario)
			}
			switch c.Status {
			case "SUCCESS":
				cell(r)[0]++
			case "FAILURE":
				cell(r)[1]++
			}
		}
	}
	add(direct, func(r *row) *[2]int { return &r.direct })
	add(got, func(r *row) *[2]int { return &r.got })
	slices.Sort(names)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "passed\tfailed\tvia: passed\tfailed\t  scenario")
	var sum row
	for _, n := range names {
		r := rows[n]
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t  %s\n", r.direct[0], r.direct[1], r.got[0], r.got[1], n)
		for i := range 2 {
			sum.direct[i] += r.direct[i]
			sum.got[i] += r.got[i]
		}
	}
	fmt.Fprintf(t, "%d\t%d\t%d\t%d\t  total\n", sum.direct[0], sum.direct[1], sum.got[0], sum.got[1])
	return t.Flush()
}
