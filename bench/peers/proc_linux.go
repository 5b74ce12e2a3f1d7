package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of /proc: sysconf(_SC_CLK_TCK) is 100 on every Linux that Go
// runs on.
const tick = 10 * time.Millisecond

// A usage is CPU time at one instant.
type usage struct {
	at                    time.Time
	server, load, machine time.Duration
}

// usageOf reads the CPU time of a process, of this one and of the machine.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The name, in parentheses, may hold spaces. After it utime and stime are
	// the 12th and 13th field.
	own := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(own) < 13 {
		return usage{}, fmt.Errorf("/proc/%d/stat: %q", pid, stat)
	}
	all, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	line, _, _ := strings.Cut(string(all), "\n")
	cpu := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal
	if len(cpu) < 9 {
		return usage{}, fmt.Errorf("/proc/stat: %q", line)
	}
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return usage{}, err
	}
	u := usage{at: time.Now(), load: time.Duration(ru.Utime.Nano() + ru.Stime.Nano())}
	// Interrupts are not counted for others: most are our packets.
	for into, fields := range map[*time.Duration][]string{
		&u.server: own[11:13], &u.machine: {cpu[1], cpu[2], cpu[3], cpu[8]},
	} {
		for _, f := range fields {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return usage{}, err
			}
			*into += time.Duration(n) * tick
		}
	}
	return u, nil
}

// newSample sums up a window.
func newSample(answered int, latencies []time.Duration, from, to usage) sample {
	slices.Sort(latencies)
	at := func(q float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[int(q*float64(len(latencies)-1))].Seconds()
	}
	took := to.at.Sub(from.at).Seconds()
	rest := (to.machine - from.machine) - (to.server - from.server) - (to.load - from.load)
	return sample{
		rate: float64(answered) / took, p50: at(0.5), p99: at(0.99),
		cpu:    (to.server - from.server).Seconds() / float64(max(1, answered)),
		others: max(0, rest.Seconds()/took/float64(runtime.NumCPU())),
	}
}

// peakRSS is the most memory that a process has had, in bytes.
func peakRSS(pid int) (int64, error) {
	kib, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(kib, " kB"), 10, 64)
	return n << 10, err
}
