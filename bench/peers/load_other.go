//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

func drive(string, int, []wire, int, time.Duration, time.Duration) (sample, error) {
	return sample{}, errors.New("servers are measured on Linux only, by epoll and /proc")
}

func dieWithParent(*exec.Cmd) {}

func peakRSS(int) (int64, error) { return 0, errors.ErrUnsupported }
