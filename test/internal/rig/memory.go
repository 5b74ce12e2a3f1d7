package rig

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

var peak = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// Peak is the most memory that the process has had resident, in bytes.
func (p *Process) Peak() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read memory use: %w", err)
	}
	m := peak.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("read memory use: no VmHWM in\n%s", text)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	return kb << 10, err
}
