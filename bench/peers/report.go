package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A sample is what one window has shown. Times are in seconds.
type sample struct {
	rate     float64 // answers per second
	p50, p99 float64
	cpu      float64 // of the server, per decision
	others   float64 // share of the machine's CPU that went elsewhere
}

// disturbed is the share of the machine from which on a window counts only if
// there is no better one.
const disturbed = 0.15

// A table is everything about one number of policies.
type table struct {
	n       int
	servers []*server
}

// A figure is a median over rounds, and the median of its ratio to the floor in
// the same round.
type figure struct{ value, ratio float64 }

// figures are a server's at a number of connections, and how many rounds were
// quiet for it and for the floor. With none, all count.
func figures(s, floor *server, conns int, values ...func(sample) float64) (figures []figure, quiet int) {
	all, floors := s.samples[conns], floor.samples[conns]
	var rounds []int
	for i := range min(len(all), len(floors)) {
		if all[i].others <= disturbed && floors[i].others <= disturbed {
			rounds = append(rounds, i)
		}
	}
	if quiet = len(rounds); quiet == 0 {
		for i := range min(len(all), len(floors)) {
			rounds = append(rounds, i)
		}
	}
	for _, value := range values {
		var v, r []float64
		for _, i := range rounds {
			v = append(v, value(all[i]))
			r = append(r, value(all[i])/value(floors[i]))
		}
		figures = append(figures, figure{median(v), median(r)})
	}
	return figures, quiet
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

var loopback = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// report writes the tables as Markdown.
func report(w io.Writer, tables []table, command string, conns []int, rounds int, window time.Duration) {
	out := func(format string, args ...any) { fmt.Fprintf(w, format, args...) } //nolint:errcheck // memory
	out("## Beside other decision servers (`%s`)\n\n", command)
	out("The same questions, each on the servers in turn in one run: %d rounds of %v for each server and number of connections, medians.\n", rounds, window)
	out("**×** is the ratio to the floor in the same round: a bare net/http server that reads the question and writes constant JSON.\n")
	out("Every server answered all %d questions correctly first, and every answer under load was checked. *quiet*: rounds in which\n", questions)
	out("others used less than %.0f %% of the machine; only these count, if there are any.\n\n", 100*disturbed)
	out("Machine: %s, %s. Load and server share it.\n", machine(), time.Now().Format(time.DateOnly))
	for _, t := range tables {
		out("\n### %s policies\n\n", thousands(float64(t.n)))
		out("| connections | server | requests/s | × | p50 | × | p99 | × | CPU per decision | × | quiet |\n")
		out("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
		floor := t.servers[0]
		for _, c := range conns {
			for _, s := range t.servers {
				n := min(len(s.samples[c]), len(floor.samples[c]))
				if n == 0 {
					continue
				}
				f, quiet := figures(s, floor, c,
					func(s sample) float64 { return s.rate }, func(s sample) float64 { return s.p50 },
					func(s sample) float64 { return s.p99 }, func(s sample) float64 { return s.cpu })
				out("| %d | %s | %s | %s | %s | %s | %s | %s | %s | **%s** | %d/%d |\n", c, s.name,
					thousands(f[0].value), ratio(f[0].ratio), span(f[1].value), ratio(f[1].ratio),
					span(f[2].value), ratio(f[2].ratio), span(f[3].value), ratio(f[3].ratio), quiet, n)
			}
		}
		for _, s := range t.servers {
			if s.failed != nil {
				out("\n%s: not measured: %s\n", s.name, strings.ReplaceAll(s.failed.Error(), "\n", " "))
			}
		}
	}
	out("\n### The servers\n\n| server | version | rules and questions | command | ready | peak RSS |\n|---|---|---|---|---:|---:|\n")
	if len(tables) == 0 {
		return
	}
	for i, s := range tables[0].servers {
		var ready, peak []string
		for _, t := range tables {
			for _, s := range t.servers {
				if s.name == tables[0].servers[i].name && s.peak > 0 {
					ready = append(ready, span(s.ready.Seconds()))
					peak = append(peak, fmt.Sprintf("%d MB", s.peak>>20))
				}
			}
		}
		line := "none"
		if s.cmd != nil {
			line = fmt.Sprintf("`%s %s`", s.name, loopback.ReplaceAllString(strings.Join(s.cmd.Args[1:], " "), "ADDR"))
		}
		out("| %s | %s | %s | %s | %s | %s |\n", s.name, s.version, s.layout, line, strings.Join(ready, ", "), strings.Join(peak, ", "))
	}
}

// machine describes where this runs.
func machine() string {
	cpu, err := field("/proc/cpuinfo", "model name")
	if err != nil {
		cpu = runtime.GOARCH
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte(runtime.GOOS)
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s", cpu, runtime.NumCPU(), bytes.TrimSpace(kernel), runtime.Version())
}

func ratio(r float64) string {
	switch {
	case r < 0.1:
		return fmt.Sprintf("%.3f", r)
	case r < 10:
		return fmt.Sprintf("%.2f", r)
	}
	return fmt.Sprintf("%.0f", r)
}

// span is a time with three digits.
func span(seconds float64) string {
	switch {
	case seconds < 1e-3:
		return fmt.Sprintf("%.3g µs", seconds*1e6)
	case seconds < 1:
		return fmt.Sprintf("%.3g ms", seconds*1e3)
	}
	return fmt.Sprintf("%.3g s", seconds)
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

const (
	begin = "<!-- peers:begin -->\n"
	end   = "<!-- peers:end -->\n"
)

// replace puts text between the markers of a file, or with them at its end.
func replace(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, there := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if there != closed {
		return fmt.Errorf("%s has only one of the markers", file)
	}
	if !there {
		before += "\n"
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}

// field is the value of the first line "name: value" of a file.
func field(file, name string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", file, name)
}
