//go:build !unix

package mcp

import (
	"errors"
	"os/exec"
)

func leadGroup(*exec.Cmd) {}

// terminateGroup fails: there is no portable way to ask.
func terminateGroup(*exec.Cmd) error { return errors.ErrUnsupported }

func killGroup(cmd *exec.Cmd) error { return cmd.Process.Kill() }
