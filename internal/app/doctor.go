package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
)

// A Finding is what [Doctor] found out about one thing.
type Finding struct {
	// Check names the thing.
	Check string `json:"check"`
	// Status is one of the Finding constants.
	Status string `json:"status"`
	// Detail is what was found, and Next what to do about it; for a finding
	// that is ok there is nothing to do.
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
}

// How findings can be.
const (
	FindingOK      = "ok"
	FindingWarning = "warning"
	FindingFailed  = "failed"
)

func fine(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: FindingOK, Detail: fmt.Sprintf(format, args...)}
}

// warn says that something works and should be different.
func warn(check, detail, next string) Finding {
	return Finding{Check: check, Status: FindingWarning, Detail: detail, Next: next}
}

// broken says that something keeps the plane from working.
func broken(check, detail, next string) Finding {
	return Finding{Check: check, Status: FindingFailed, Detail: detail, Next: next}
}

// Doctor looks at everything that a node needs: the files, the disk, the
// evidence, the upstreams, the clock and the port. It changes nothing but a
// file of its own in the data directory, which it removes again.
func Doctor(ctx context.Context, file string) []Finding {
	c, err := LoadConfig(file)
	if err != nil {
		return []Finding{broken("configuration", err.Error(), "correct it, or make one with 'bailiwick init'")}
	}
	findings := []Finding{fine("configuration", "%s: mode %s, %s", file, c.Mode, count(len(c.Upstreams), "upstream", "upstreams"))}
	if c.Mode != "enforce" {
		findings = append(findings, warn("mode", "what policy denies is let through", "set 'mode: enforce' when the policies are as you want them"))
	}
	for _, check := range []func(context.Context, *Config) []Finding{
		checkCatalog, checkPolicies, checkAgents, checkSecrets(file), checkData, checkEvidence, checkClock, checkUpstreams, checkListen,
	} {
		findings = append(findings, check(ctx, c)...)
	}
	return findings
}

func checkCatalog(_ context.Context, c *Config) []Finding {
	const check = "catalogue"
	list, err := ListCatalog(c)
	if err != nil {
		return []Finding{broken(check, err.Error(), "correct the file that it names")}
	}
	var out []Finding
	var unclassified []string
	tools := 0
	for _, o := range list.Operations {
		if o.Digest == "" {
			continue // a method of the protocol
		}
		tools++
		if !o.Classified {
			unclassified = append(unclassified, o.Action)
		}
		for _, conflict := range o.Conflicts {
			out = append(out, warn(check, o.Action+": "+conflict, "say in "+c.Catalog+" what is true"))
		}
	}
	out = append([]Finding{fine(check, "%s pinned", count(tools, "tool", "tools"))}, out...)
	if len(unclassified) > 0 {
		out = append(out, warn(check, "nobody has said what these do, so they count as destructive and external: "+someOf(unclassified),
			"give them effects in "+c.Catalog))
	}
	for _, name := range list.Unpinned {
		out = append(out, warn(check, "no tool of "+name+" is pinned, so all of them are denied", "bailiwick catalog pin "+name))
	}
	if len(list.Orphaned) > 0 {
		out = append(out, warn(check, "tools are pinned of servers that are no upstreams: "+someOf(list.Orphaned), "add the upstream, or remove the pins from "+c.Lock))
	}
	return out
}

func checkPolicies(_ context.Context, c *Config) []Finding {
	const check = "policies"
	v, err := LoadVersion(c)
	if err != nil {
		return []Finding{broken(check, err.Error(), "'bailiwick policy check' lists every mistake")}
	}
	n := len(v.Program.Set().Policies())
	if n == 0 {
		return []Finding{warn(check, "there are none, so everything is denied", "write one in "+c.Policies)}
	}
	return []Finding{fine(check, "%s, version %s", count(n, "policy", "policies"), v.Digest())}
}

func checkAgents(_ context.Context, c *Config) []Finding {
	const check = "agents"
	agents, err := ListAgents(c)
	if err != nil {
		return []Finding{broken(check, err.Error(), "correct "+c.Agents)}
	}
	keys := 0
	for _, a := range agents {
		if a.HasKey {
			keys++
		}
	}
	if keys == 0 && len(c.Issuers) == 0 && c.Anonymous == "" {
		return []Finding{warn(check, "nobody can prove who they are over HTTP: no agent has a key and no issuer is configured", "bailiwick agents add ID")}
	}
	out := []Finding{fine(check, "%s, %d with a key; %s", count(len(agents), "agent", "agents"), keys, count(len(c.Issuers), "issuer", "issuers"))}
	if c.Anonymous != "" {
		out = append(out, warn(check, "every local program may act as "+c.Anonymous, "remove 'anonymous' once clients have keys"))
	}
	return out
}

// checkSecrets looks for files with secrets that others can read.
func checkSecrets(file string) func(context.Context, *Config) []Finding {
	return func(_ context.Context, c *Config) []Finding {
		const check = "secrets"
		if runtime.GOOS == "windows" {
			return nil // modes say nothing there
		}
		files := []string{filepath.Join(evidenceDir(c), audit.KeyFile)}
		for _, name := range c.Servers() {
			u := c.Upstreams[name]
			if len(u.Env) > 0 {
				files = append(files, file)
			}
			if u.TokenFile != "" {
				files = append(files, u.TokenFile)
			}
		}
		slices.Sort(files)
		var out []Finding
		looked := 0
		for _, f := range slices.Compact(files) {
			info, err := os.Stat(f)
			if err != nil {
				continue // no evidence yet; a missing token shows at its upstream
			}
			looked++
			if info.Mode().Perm()&0o077 != 0 {
				out = append(out, warn(check, fmt.Sprintf("%s can be read by others (mode %#o)", f, info.Mode().Perm()), "chmod 600 "+f))
			}
		}
		if len(out) > 0 {
			return out
		}
		return []Finding{fine(check, "%s, not readable by others", count(looked, "file", "files"))}
	}
}

const (
	// slowSync is the time per fsync from which every decision is felt.
	slowSync = 20 * time.Millisecond
	// lowSpace is the free space below which it is time to act.
	lowSpace = 1 << 30
)

func checkData(_ context.Context, c *Config) []Finding {
	const check = "data directory"
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return []Finding{broken(check, err.Error(), "make it, or set 'data' to a directory that can be made")}
	}
	took, err := timeSync(c.Data)
	if err != nil {
		return []Finding{broken(check, err.Error(), "make "+c.Data+" writable for the user that runs bailiwick")}
	}
	free, known := freeSpace(c.Data)
	if !known {
		free = -1
	}
	return []Finding{diskFinding(c.Data, took, free)}
}

// diskFinding judges the time that a write takes, and the free space in bytes
// if it is not negative.
func diskFinding(dir string, took time.Duration, free int64) Finding {
	const check = "data directory"
	detail := fmt.Sprintf("%s: a write reaches the disk in %s", dir, took.Round(10*time.Microsecond))
	if free >= 0 {
		detail += fmt.Sprintf(", %.1f GB free", float64(free)/1e9)
	}
	switch {
	case free >= 0 && free < lowSpace:
		return warn(check, detail, "make room: nothing is released once the disk is nearly full")
	case took > slowSync:
		return warn(check, detail, "every decision waits for one such write: a local SSD is faster")
	default:
		return fine(check, "%s", detail)
	}
}

// timeSync measures how long a small durable write takes: the median of a few.
func timeSync(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = f.Close()           // it is thrown away
		_ = os.Remove(f.Name()) // a leftover file harms nobody
	}()
	took := make([]time.Duration, 11)
	block := make([]byte, 4096)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

func checkEvidence(ctx context.Context, c *Config) []Finding {
	const check = "evidence"
	size, err := evidenceSize(ctx, c)
	if err != nil {
		return []Finding{broken(check, err.Error(), "'bailiwick audit verify' says more")}
	}
	if size == 0 {
		return []Finding{fine(check, "none yet")}
	}
	r, err := VerifyEvidence(ctx, c)
	if err != nil {
		return []Finding{broken(check, err.Error(), "'bailiwick audit verify' says more")}
	}
	if !r.Verified {
		return []Finding{broken(check, fmt.Sprintf("%d faults; the first: %s", r.FaultCount, r.Faults[0]),
			"keep the directory as it is and look into who changed it: 'bailiwick audit verify' lists the faults")}
	}
	return []Finding{fine(check, "%d entries verified under %d signed checkpoints", r.Size, r.Checkpoints)}
}

func checkClock(ctx context.Context, c *Config) []Finding {
	last, err := lastRecord(ctx, c)
	if err != nil {
		return nil // the evidence has its own finding
	}
	return []Finding{clockFinding(last, time.Now())}
}

// lastRecord is the time of the newest record, zero if there is none.
func lastRecord(ctx context.Context, c *Config) (time.Time, error) {
	size, err := evidenceSize(ctx, c)
	if err != nil || size == 0 {
		return time.Time{}, err
	}
	var last time.Time
	err = eachRecord(ctx, c, size-1, func(r audit.Recorded) error {
		last = r.Record.Time
		return nil
	})
	return last, err
}

// clockFinding compares the clock with the time of the newest record, if there
// is one: a clock that has gone back makes records whose order contradicts
// their times.
func clockFinding(last, now time.Time) Finding {
	const check = "clock"
	switch ahead := last.Sub(now); {
	case ahead > time.Second:
		return broken(check, fmt.Sprintf("the newest record is %s ahead of it", ahead.Round(time.Second)), "set the clock: policies and sessions depend on it")
	case now.Year() < 2025:
		return broken(check, "it says "+now.UTC().Format(time.RFC3339), "set the clock: policies and tokens depend on it")
	default:
		return fine(check, "%s", now.UTC().Format(time.RFC3339))
	}
}

func checkUpstreams(ctx context.Context, c *Config) []Finding {
	diffs, err := DiffCatalog(ctx, c, nil)
	if err != nil {
		return []Finding{broken("upstreams", err.Error(), "correct the configuration")}
	}
	if len(diffs) == 0 {
		return []Finding{warn("upstreams", "there are none, so there is nothing to call", "add one under 'upstreams'")}
	}
	var out []Finding
	for _, d := range diffs {
		out = append(out, checkUpstreamDiff(d))
	}
	return out
}

func checkUpstreamDiff(d ServerDiff) Finding {
	check := "upstream " + d.Server
	if d.Error != "" {
		return broken(check, d.Error, "start it, or correct how it is reached under 'upstreams'")
	}
	counts := map[catalog.State]int{}
	for _, t := range d.Tools {
		counts[t.State]++
	}
	var differ []string
	for _, s := range []catalog.State{catalog.StateChanged, catalog.StateNew, catalog.StateGone} {
		if n := counts[s]; n > 0 {
			differ = append(differ, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(differ) == 0 {
		return fine(check, "reached; its %d tools are as pinned", counts[catalog.StatePinned])
	}
	return warn(check, "reached; tools that are not as pinned are denied: "+strings.Join(differ, ", "),
		"look at them with 'bailiwick catalog diff "+d.Server+"', then pin them")
}

func checkListen(ctx context.Context, c *Config) []Finding {
	const check = "port"
	l, err := net.Listen("tcp", c.Listen)
	if err == nil {
		if err := l.Close(); err != nil {
			return []Finding{broken(check, err.Error(), "")}
		}
		return []Finding{fine(check, "%s is free", c.Listen)}
	}
	state, isOurs := askReady(ctx, c.Listen)
	switch {
	case !isOurs:
		return []Finding{broken(check, err.Error(), "stop what uses the address, or set 'listen' to another")}
	case state != http.StatusOK:
		return []Finding{broken(check, "bailiwick serves "+c.Listen+" and is not ready: it releases nothing", "look at its log, and at the evidence above")}
	default:
		return []Finding{fine(check, "bailiwick serves %s and is ready", c.Listen)}
	}
}

// askReady asks whoever listens whether it is a node, and whether it is ready.
func askReady(ctx context.Context, addr string) (status int, isOurs bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialable(addr)+"/readyz", nil)
	if err != nil {
		return 0, false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(io.LimitReader(res.Body, 256))
	word := strings.TrimSpace(string(body))
	return res.StatusCode, err == nil && (word == "ready" || word == "audit_unavailable")
}

// dialable turns an address to listen on into one to call: ":80" and
// "0.0.0.0:80" are every interface, the loopback one among them.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// someOf lists the first few of many.
func someOf(list []string) string {
	const few = 5
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:few], ", "), len(list)-few)
}
