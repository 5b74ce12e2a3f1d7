//go:build !linux && !darwin

package audit

import (
	"errors"
	"os"
)

const privateFilesMatter = false

func lockDir(string) (*os.File, error) {
	return nil, errors.New("lock evidence directory: not supported on this platform yet")
}

func diskSpace(string) (free, total int64, err error) {
	return 0, 0, errors.New("free space: not supported on this platform yet")
}
