package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	mcpsdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// BenchmarkGate puts one call of a tool through the gateway beside the same
// call made to the server directly, in one process over real HTTP.
//
//   - direct: client → server
//   - gateway: client → gateway → server, the record durable before the call
//   - gateway-memory: the same with the evidence on a memory file system, so
//     that fsync is free: what the gateway adds by itself
//   - fsync: one append of a kilobyte and fsync on the disk of the evidence
//
// Client, gateway and server share the machine's cores.
func BenchmarkGate(b *testing.B) {
	upstream := newEcho(b)
	disk := newGateway(b, upstream, b.TempDir())
	targets := []struct{ name, url string }{{"direct", upstream}, {"gateway", disk}}
	if dir, err := os.MkdirTemp("/dev/shm", "bailiwick-bench-"); err == nil {
		b.Cleanup(func() { os.RemoveAll(dir) })
		targets = append(targets, struct{ name, url string }{"gateway-memory", newGateway(b, upstream, dir)})
	}
	for _, clients := range []int{1, 32} {
		for _, target := range targets {
			b.Run(fmt.Sprintf("clients=%d/%s", clients, target.name), func(b *testing.B) { load(b, target.url, clients) })
		}
	}
	b.Run("fsync", fsync)
}

// newEcho starts a stateless MCP server with one tool.
func newEcho(b *testing.B) string {
	b.Helper()
	server := mcpsdk.NewServer(&mcpsdk.Implementation{Name: "echo", Version: "1"}, nil)
	type args struct {
		Text string `json:"text"`
	}
	mcpsdk.AddTool(server, &mcpsdk.Tool{Name: "echo", Description: "Say it again."}, func(_ context.Context, _ *mcpsdk.CallToolRequest, a args) (*mcpsdk.CallToolResult, any, error) {
		return &mcpsdk.CallToolResult{Content: []mcpsdk.Content{&mcpsdk.TextContent{Text: a.Text}}}, nil, nil
	})
	handler := mcpsdk.NewStreamableHTTPHandler(func(*http.Request) *mcpsdk.Server { return server }, &mcpsdk.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	ts := httptest.NewServer(handler)
	b.Cleanup(ts.Close)
	return ts.URL
}

// newGateway starts a node in front of the server, with its data in dir.
func newGateway(b *testing.B, upstream, dir string) string {
	b.Helper()
	tools, err := mcp.ListTools(b.Context(), mcp.Server{Name: "echo", URL: upstream})
	if err != nil {
		b.Fatal(err)
	}
	lock := &catalog.Lock{}
	for _, tool := range tools {
		if _, err := lock.Pin("echo", tool); err != nil {
			b.Fatal(err)
		}
	}
	pins, err := lock.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		app.DefaultConfigFile:  fmt.Sprintf("listen: 127.0.0.1:0\nanonymous: bench\nupstreams:\n  echo: {url: %q}\n", upstream),
		"catalog.lock.json":    string(pins),
		"policies/bench.cedar": `@id("bench") permit (principal == Agent::"bench", action == Action::"echo/echo", resource) when { context.input.text != "" };`,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	c, err := app.LoadConfig(filepath.Join(dir, app.DefaultConfigFile))
	if err != nil {
		b.Fatal(err)
	}
	n, err := app.Start(b.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	if err := n.Listen(); err != nil {
		b.Fatal(err)
	}
	return "http://" + n.Addr() + "/mcp/echo"
}

// load makes calls from several clients and reports the latency's quantiles.
func load(b *testing.B, url string, clients int) {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer c.CloseIdleConnections()
	for range clients { // connections, caches and the gateway's list of tools
		call(b, c, url)
	}
	var mu sync.Mutex
	var all []time.Duration
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range clients {
		share := b.N / clients
		if i < b.N%clients {
			share++
		}
		wg.Go(func() {
			took := make([]time.Duration, share)
			for j := range took {
				start := time.Now()
				call(b, c, url)
				took[j] = time.Since(start)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	b.StopTimer()
	reportQuantiles(b, all)
}

func reportQuantiles(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

const echoCall = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"},` +
	`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`

func call(b *testing.B, c *http.Client, url string) {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader([]byte(echoCall)))
	if err != nil {
		b.Error(err)
		return
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo",
	} {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Error(err)
		return
	}
	if i := bytes.IndexByte(body, '{'); i > 0 { // one server-sent event
		body = body[i:]
	}
	var answer struct {
		Result *struct {
			IsError bool `json:"isError"`
		} `json:"result"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(body), &answer); err != nil || resp.StatusCode != http.StatusOK || answer.Result == nil || answer.Result.IsError {
		b.Errorf("status %d: %s (%v)", resp.StatusCode, body, err)
	}
}

// fsync is the floor of a durable record: what the disk takes by itself.
func fsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1024)
	var all []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	reportQuantiles(b, all)
}
