//go:build linux || darwin

package app

import "syscall"

// freeSpace returns the bytes that this process may still write to the disk of
// dir.
func freeSpace(dir string) (int64, bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
