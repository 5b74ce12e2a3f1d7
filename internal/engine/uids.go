package engine

import (
	"hash/maphash"

	"github.com/cedar-policy/cedar-go/types"
)

// uids numbers entities from 0 in the order in which they are added.
//
// Finding three entities was a quarter of a decision with Go's maps: by two
// strings they hash both, and by type and then id they look twice. Types are
// few, so it is enough to hash the id and to compare both.
type uids struct {
	seed  maphash.Seed // so that nobody can choose ids that collide
	list  []types.EntityUID
	cells []int32 // 1 + a number, or 0; a power of two, at most half full
}

func newUIDs(list ...types.EntityUID) uids {
	u := uids{seed: maphash.MakeSeed(), cells: make([]int32, 8)}
	for _, uid := range list {
		u.add(uid)
	}
	return u
}

// add returns the number of an entity, a new one if need be.
func (u *uids) add(uid types.EntityUID) int32 {
	n, ok := u.find(uid)
	if ok {
		return n
	}
	n = int32(len(u.list))
	u.list = append(u.list, uid)
	if 2*len(u.list) > len(u.cells) {
		u.cells = make([]int32, 2*len(u.cells))
		for i := range u.list {
			u.place(int32(i))
		}
		return n
	}
	u.place(n)
	return n
}

func (u *uids) place(n int32) {
	i := u.start(u.list[n])
	for u.cells[i] != 0 {
		i = u.after(i)
	}
	u.cells[i] = n + 1
}

// find returns the number of an entity.
func (u *uids) find(uid types.EntityUID) (int32, bool) {
	for i := u.start(uid); ; i = u.after(i) {
		c := u.cells[i]
		if c == 0 {
			return 0, false
		}
		if at := &u.list[c-1]; at.ID == uid.ID && at.Type == uid.Type {
			return c - 1, true
		}
	}
}

// start is the cell where the search for an entity starts, and after the one
// to look at after i.
func (u *uids) start(uid types.EntityUID) int {
	return int(maphash.String(u.seed, string(uid.ID))) & (len(u.cells) - 1)
}

func (u *uids) after(i int) int { return (i + 1) & (len(u.cells) - 1) }
