package entity

import "github.com/cedar-policy/cedar-go/types"

// A Change counts how entities differ.
type Change struct{ Added, Removed, Changed int }

// Diff counts what has become of entities.
func Diff(before, after types.EntityMap) Change {
	var c Change
	for uid, e := range after {
		switch old, ok := before[uid]; {
		case !ok:
			c.Added++
		case !old.Equal(e):
			c.Changed++
		}
	}
	c.Removed = len(before) + c.Added - len(after)
	return c
}
