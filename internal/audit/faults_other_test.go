//go:build !linux

package audit_test

import "errors"

func full(string) error { return errors.New("only on Linux") }
