package policy

import (
	"fmt"
	"slices"
	"strings"
)

// suggest ends a message about an unknown name: the nearest known name if one
// is near, else the given advice.
func suggest(name string, known []string, prefix, otherwise string) string {
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %s%s?", prefix, near)
	}
	return otherwise
}

// nearest returns the known name that is most like name, or "" when none is
// like it. Among equally near names the first in order wins.
func nearest(name string, known []string) string {
	best, found := (len(name)+1)/3+1, ""
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k, best); d < best {
			best, found = d, k
		}
	}
	return found
}

// nearestAction is nearest for actions "<server>/<tool>", where forgetting the
// server is the commonest mistake.
func nearestAction(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return near
	}
	tool := func(action string) string { return action[strings.LastIndexByte(action, '/')+1:] }
	tools := map[string]string{}
	for _, k := range slices.Backward(slices.Sorted(slices.Values(known))) {
		tools[tool(k)] = k
	}
	names := make([]string, 0, len(tools))
	for t := range tools {
		names = append(names, t)
	}
	return tools[nearest(tool(name), names)]
}

// distance returns the number of characters to insert, delete, replace or
// swap with their neighbour to get from a to b, ignoring case; or limit, when
// it is at least that.
func distance(a, b string, limit int) int {
	x, y := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	if d := len(x) - len(y); d >= limit || -d >= limit {
		return limit
	}
	// Three rows of the table of Damerau's distance (optimal alignment).
	before, prev, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return min(prev[len(y)], limit)
}
