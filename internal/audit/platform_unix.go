//go:build linux || darwin

package audit

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// privateFilesMatter says that file modes keep other users out.
const privateFilesMatter = true

// lockDir takes the directory for this process until the file is closed, which
// the kernel does when the process ends, however it ends.
func lockDir(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock evidence directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	// The file is only closed, not changed.
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w (lock file %s): stop that process, or use another data directory", ErrLocked, file)
	}
	return nil, fmt.Errorf("lock evidence directory: %w", err)
}

// diskSpace returns the bytes that this process may still write to the disk of
// dir, and the size of that disk.
func diskSpace(dir string) (free, total int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}
