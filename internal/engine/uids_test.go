package engine

import (
	"fmt"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
)

func TestUIDsAreNumberedInOrder(t *testing.T) {
	t.Parallel()
	u := newUIDs()
	for n := range int32(3000) {
		// One id under several types lies in one run of cells.
		uid := uidOf(types.EntityType(fmt.Sprint("T", n%3)), types.String(fmt.Sprint(n/3)))
		if _, ok := u.find(uid); ok {
			t.Fatalf("%s is there before it was added", uid)
		}
		for range 2 {
			if got := u.add(uid); got != n {
				t.Fatalf("%s has the number %d, want %d", uid, got, n)
			}
		}
	}
	for n, uid := range u.list {
		if got, ok := u.find(uid); !ok || int(got) != n {
			t.Fatalf("%s: %d %v, want %d", uid, got, ok, n)
		}
	}
	if len(u.list) != 3000 || 2*len(u.list) > len(u.cells) {
		t.Errorf("%d entities in %d cells", len(u.list), len(u.cells))
	}
}
