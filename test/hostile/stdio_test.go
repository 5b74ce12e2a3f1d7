package hostile

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// Environment variables of this test program when the gateway starts it as a
// stdio server.
const (
	lieVar  = "HOSTILE_LIE"  // which lie
	fileVar = "HOSTILE_FILE" // it lies when this file exists
)

// stdioLies are what a stdio server may do instead of serving.
var stdioLies = map[string]func(){
	"ends at once":     func() {},
	"is silent":        func() { _, _ = io.Copy(io.Discard, os.Stdin) },
	"writes no JSON":   func() { repeat(os.Stdout, "Server started.\n") },
	"writes no lines":  func() { repeat(os.Stdout, "a") },
	"writes to stderr": func() { repeat(os.Stderr, "warning: something\n") },
	"asks for ever":    func() { repeat(os.Stdout, `{"jsonrpc":"2.0","id":"q","method":"roots/list"}`+"\n") },
	"answers what nobody asked": func() {
		repeat(os.Stdout, `{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}`+"\n")
	},
	"ends when it is called": func() { untilCall(func(json.RawMessage) {}) },
	"answers twice": func() {
		untilCall(func(id json.RawMessage) {
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":{"content":1}}`+"\n", id)
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"second"}]}}`+"\n", id)
			_, _ = io.Copy(io.Discard, os.Stdin)
		})
	},
}

// repeat writes until somebody closes the other end.
func repeat(w io.Writer, text string) {
	block := strings.Repeat(text, 32<<10/len(text))
	for {
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

// untilCall serves honestly until a tool is called.
func untilCall(then func(id json.RawMessage)) {
	in, out := io.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		transport := &mcp.IOTransport{Reader: in, Writer: struct {
			io.Writer
			io.Closer
		}{os.Stdout, io.NopCloser(nil)}}
		// It ends with the process.
		_ = honestServer().Run(ctx, transport)
	}()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var m struct {
			ID     json.RawMessage
			Method string
		}
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.Method == "tools/call" {
			then(m.ID)
			return
		}
		if _, err := out.Write(append(lines.Bytes(), '\n')); err != nil {
			return
		}
	}
}

// serveStdio is this test program as a server. It reports false when it is not
// one.
func serveStdio() bool {
	lie := os.Getenv(lieVar)
	if lie == "" {
		return false
	}
	if _, err := os.Stat(os.Getenv(fileVar)); err == nil {
		stdioLies[lie]()
		return true
	}
	if err := honestServer().Run(context.Background(), &mcp.StdioTransport{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}

func TestLyingStdioServersAreErrors(t *testing.T) {
	rig.EndToEnd(t)
	signal := filepath.Join(t.TempDir(), "lie")
	ups := map[string]rig.Upstream{}
	names := map[string]string{} // of upstreams, by lie
	for lie := range stdioLies {
		names[lie] = strings.ReplaceAll(lie, " ", "-")
		ups[names[lie]] = rig.Upstream{Command: os.Args[0], Env: map[string]string{lieVar: lie, fileVar: signal}}
	}
	d := rig.Deploy(t, rig.Setup{Policies: rig.PermitAll, Upstreams: ups})
	d.Pin(t)
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := d.Serve(t)
	for lie, name := range names {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			client := rig.NewRaw(rig.Endpoint{URL: d.Endpoint(name), Token: d.Key}, 45*time.Second)
			began := time.Now()
			reply, err := client.Call(t.Context(), "act", `{"id":"x"}`)
			if err != nil {
				t.Fatalf("no answer after %v: %v", time.Since(began), err)
			}
			if reply.Done() {
				t.Errorf("a success: %s", reply.Body)
			}
			if reply.Error == nil && reply.Reason() == "" && lie != "answers twice" {
				t.Errorf("the answer explains nothing: %d %.300s", reply.Status, reply.Body)
			}
		})
	}
	t.Cleanup(func() {
		if !p.Alive() {
			t.Fatalf("the gateway has died:\n%s", p.Log())
		}
		size, err := p.Peak()
		if err != nil {
			t.Fatal(err)
		}
		if size > maxResident {
			t.Errorf("the gateway had %d MiB resident", size>>20)
		}
	})
}
