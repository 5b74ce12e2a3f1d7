package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// unclassified is what a tool is taken to do when the operator says nothing.
func unclassified() []string { return []string{EffectDestructive, EffectExternal, EffectWrite} }

// tighten adds to the effects that an operator stated those that the server
// admits to. It also says where the two contradict each other. A server is
// never believed when it says that a tool does less.
func tighten(stated []string, h hints) (effects, conflicts []string) {
	has := map[string]bool{}
	for _, e := range stated {
		has[e] = true
	}
	admit := func(claim *bool, when bool, hint, effect string) {
		if claim == nil || *claim != when || has[effect] {
			return
		}
		has[effect] = true
		conflicts = append(conflicts, fmt.Sprintf("the server says %s: %t, the operator says effects: [%s]; it counts as %s too",
			hint, when, strings.Join(stated, ", "), effect))
	}
	admit(h.Destructive, true, "destructiveHint", EffectDestructive)
	admit(h.OpenWorld, true, "openWorldHint", EffectExternal)
	admit(h.ReadOnly, false, "readOnlyHint", EffectWrite)
	return normalEffects(has), conflicts
}

// normalEffects makes a set of effects consistent: what destroys writes, and
// what writes is not in the group of those that only read.
func normalEffects(has map[string]bool) []string {
	if has[EffectDestructive] {
		has[EffectWrite] = true
	}
	if has[EffectWrite] {
		delete(has, EffectRead)
	}
	out := make([]string, 0, len(has))
	for e := range has {
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}
