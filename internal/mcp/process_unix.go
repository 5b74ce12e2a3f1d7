//go:build unix

package mcp

import (
	"os/exec"
	"syscall"
)

// leadGroup makes the child the leader of a new process group, so that the
// helpers it starts can be stopped with it, and a terminal's interrupt reaches
// it through us alone.
func leadGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

func terminateGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
