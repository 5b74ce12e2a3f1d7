package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// A Problem is a mistake in the overlay or the lock.
type Problem struct {
	// File is "catalog.yaml" or "catalog.lock.json".
	File string
	// Line counts from 1; 0 is unknown.
	Line int
	// Message says what is wrong and what to do.
	Message string
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// joinProblems makes one error of problems, in the order of the file. None
// are no error.
func joinProblems(ps []*Problem) error {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errors.Join(errs...)
}
