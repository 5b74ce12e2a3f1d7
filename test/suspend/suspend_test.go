// Package suspend_test suspends agents of the real program, with open streams
// and calls in flight, in one process and in several.
package suspend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const listen = `{"jsonrpc":"2.0","id":5,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` + rig.Meta + `}}`

// stream opens a subscription and returns a channel that says when it ended.
func stream(t testing.TB, url, key string) <-chan time.Time {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(listen))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"Authorization": "Bearer " + key, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen",
	} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream did not open: status %d, %v", resp.StatusCode, err)
		}
		if strings.Contains(line, "acknowledged") {
			break
		}
	}
	ended := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		ended <- time.Now()
		_ = resp.Body.Close()
	}()
	return ended
}

func within(t testing.TB, what string, ended <-chan time.Time) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Errorf("%s has not ended", what)
	}
}

func config(t testing.TB, d *rig.Deployment) *app.Config {
	t.Helper()
	c, err := app.LoadConfig(filepath.Join(d.Dir, "bailiwick.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func call(t testing.TB, url, key string) rig.Reply {
	t.Helper()
	reply, err := rig.NewRaw(rig.Endpoint{URL: url, Token: key}, 20*time.Second).Call(t.Context(), "act", `{"id":"x"}`)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// Killed by the command line, everything stops, in a gate of another process
// too, and stays stopped after a restart, until it is resumed. All of it is on
// the record.
func TestKillReachesEverything(t *testing.T) {
	rig.EndToEnd(t)
	counter := rig.Count(t, true)
	plane := rig.Deploy(t, rig.Setup{Policies: rig.PermitAll, Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}}})
	plane.Pin(t)
	key := strings.TrimSpace(plane.MustRun(t, "peps", "add", "edge", "--relay"))
	p := plane.Serve(t)
	gate := rig.Deploy(t, rig.Setup{
		Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}},
		Settings:  map[string]any{"pdp": map[string]string{"url": "http://" + plane.Addr, "key_file": "edge.key"}},
	})
	if err := gate.Write("edge.key", key); err != nil {
		t.Fatal(err)
	}
	g := gate.Serve(t)
	deadline := time.Now().Add(10 * time.Second)
	for !call(t, gate.Endpoint("counter"), plane.Key).Done() { // it has a lease soon
		if time.Now().After(deadline) {
			t.Fatal("the gate lets nothing through")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if r := call(t, plane.Endpoint("counter"), plane.Key); !r.Done() {
		t.Fatalf("before: %s", r.Body)
	}
	near, far := stream(t, plane.Endpoint("counter"), plane.Key), stream(t, gate.Endpoint("counter"), plane.Key)

	start := time.Now()
	plane.MustRun(t, "kill", "--reason", "incident 4711")
	t.Logf("kill took %v", time.Since(start).Round(time.Millisecond))
	within(t, "the plane's stream", near)
	within(t, "the gate's stream", far)
	for what, url := range map[string]string{"plane": plane.Endpoint("counter"), "gate": gate.Endpoint("counter")} {
		if r := call(t, url, plane.Key); r.Done() || r.Reason() != "killed" {
			t.Errorf("%s: %s", what, r.Body)
		}
	}
	var list []app.Suspension
	if err := json.Unmarshal([]byte(plane.MustRun(t, "suspensions", "--json")), &list); err != nil || len(list) != 1 || list[0].Type != "all" || list[0].Reason != "incident 4711" || list[0].By == "" {
		t.Errorf("listed: %+v, %v", list, err)
	}
	if out, err := gate.Run("kill", "--reason", "x"); err != nil || out.Code != 1 || !strings.Contains(out.Stderr, "where the PDP is") {
		t.Errorf("kill at a gate: %+v, %v", out, err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	p = plane.Serve(t)
	if r := call(t, plane.Endpoint("counter"), plane.Key); r.Reason() != "killed" {
		t.Errorf("after a restart: %s", r.Body)
	}
	plane.MustRun(t, "resume", "all")
	if r := call(t, plane.Endpoint("counter"), plane.Key); !r.Done() {
		t.Errorf("resumed: %s", r.Body)
	}
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}

	// With nothing running it works as well.
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	plane.MustRun(t, "agents", "suspend", rig.Agent, "--reason", "offline")
	p = plane.Serve(t)
	if r := call(t, plane.Endpoint("counter"), plane.Key); r.Reason() != "agent_suspended" {
		t.Errorf("suspended while nothing ran: %s", r.Body)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	var changes []string
	for _, r := range plane.Records(t) {
		if r.Kind == audit.KindSystem && (r.Effect == "suspended" || r.Effect == "resumed") {
			var c struct{ Type, ID, By, Reason string }
			if err := json.Unmarshal(r.System, &c); err != nil || c.By == "" {
				t.Errorf("record %s: %v", r.System, err)
			}
			changes = append(changes, strings.TrimSpace(r.Effect+" "+c.Type+" "+c.ID+" "+c.Reason))
		}
	}
	want := []string{"suspended all  incident 4711", "resumed all", "suspended agent " + rig.Agent + " offline"}
	if !slices.Equal(changes, want) {
		t.Errorf("recorded %q, want %q", changes, want)
	}
}

// A gate whose PDP cannot be reached cuts what is open, and denies, when its
// lease has run out.
func TestGateWithoutItsPDPCutsItsStreams(t *testing.T) {
	rig.EndToEnd(t)
	counter := rig.Count(t, true)
	plane := rig.Deploy(t, rig.Setup{Policies: rig.PermitAll, Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}}})
	plane.Pin(t)
	key := strings.TrimSpace(plane.MustRun(t, "peps", "add", "edge", "--relay"))
	p, err := rig.Start(plane.Command("serve"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Listening(ctx, plane.Addr); err != nil {
		t.Fatal(err)
	}
	gate := rig.Deploy(t, rig.Setup{
		Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}},
		Settings:  map[string]any{"pdp": map[string]string{"url": "http://" + plane.Addr, "key_file": "edge.key"}},
	})
	if err := gate.Write("edge.key", key); err != nil {
		t.Fatal(err)
	}
	g, err := rig.Start(gate.Command("serve")) // to be killed: it would wait for the PDP to report to
	if err != nil {
		t.Fatal(err)
	}
	defer g.Kill()
	if err := g.Listening(ctx, gate.Addr); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !call(t, gate.Endpoint("counter"), plane.Key).Done(); {
		if time.Now().After(end) {
			t.Fatal("the gate lets nothing through")
		}
		time.Sleep(20 * time.Millisecond)
	}
	ended := stream(t, gate.Endpoint("counter"), plane.Key)
	p.Kill()
	start := time.Now()
	within(t, "the stream", ended)
	t.Logf("cut %v after the PDP was killed", time.Since(start).Round(time.Millisecond))
}

// A server that a desktop client has wrapped ends with its agent, although it is
// a process of its own, and one that is started later denies.
func TestSuspensionReachesWrappedServers(t *testing.T) {
	rig.EndToEnd(t)
	counter := rig.Count(t, true)
	d := rig.Deploy(t, rig.Setup{Policies: rig.PermitAll, Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}}})
	start := func() (*bufio.Reader, io.Writer, func() error) {
		cmd := d.Command("run", "--server", "echo", "--", "true")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(out), in, func() error { _ = in.(io.Closer).Close(); return cmd.Wait() }
	}
	ask := func(out *bufio.Reader, in io.Writer) string {
		fmt.Fprintf(in, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{%s}}`+"\n", rig.Meta)
		line, err := out.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		return line
	}
	out, in, end := start()
	if got := ask(out, in); strings.Contains(got, "suspended") {
		t.Fatalf("before: %s", got)
	}
	d.MustRun(t, "suspend", "agent", "desktop", "--reason", "test")
	if got := ask(out, in); !strings.Contains(got, "agent_suspended") {
		t.Errorf("a wrapped server: %s", got)
	}
	_ = end() // however it ended
	out, in, end = start()
	if got := ask(out, in); !strings.Contains(got, "agent_suspended") {
		t.Errorf("one that is started later: %s", got)
	}
	_ = end()
}

// TestTimeToCut measures how long it takes until a stream is cut, from the
// beginning of the command, in a running node with other streams and traffic.
func TestTimeToCut(t *testing.T) {
	rig.EndToEnd(t)
	const rounds, others = 100, 50
	counter := rig.Count(t, true)
	d := rig.Deploy(t, rig.Setup{
		Policies: rig.PermitAll, Upstreams: map[string]rig.Upstream{"counter": {URL: counter.URL}}, Anonymous: true,
	})
	d.Pin(t)
	key := strings.TrimSpace(d.MustRun(t, "agents", "add", "victim"))
	d.Serve(t)
	for range others {
		stream(t, d.Endpoint("counter"), d.Key)
	}
	c := config(t, d)
	var acks, cuts []time.Duration
	for range rounds {
		ended := stream(t, d.Endpoint("counter"), key)
		start := time.Now()
		if err := app.Suspend(t.Context(), c, "agent", "victim", "test"); err != nil {
			t.Fatal(err)
		}
		acks = append(acks, time.Since(start))
		cuts = append(cuts, (<-ended).Sub(start))
		if err := app.Resume(t.Context(), c, "agent", "victim", "test"); err != nil {
			t.Fatal(err)
		}
	}
	at := func(list []time.Duration, share float64) time.Duration {
		slices.Sort(list)
		return list[int(share*float64(len(list)-1))].Round(10 * time.Microsecond)
	}
	t.Logf("until acknowledged: p50 %v, p99 %v; until the client saw its stream end: p50 %v, p99 %v", at(acks, .5), at(acks, .99), at(cuts, .5), at(cuts, .99))
	if p99 := at(cuts, .99); p99 > 100*time.Millisecond && os.Getenv("BAILIWICK_TIMED") != "" {
		t.Errorf("p99 %v, more than 100 ms", p99)
	}
}
