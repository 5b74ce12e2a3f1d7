package mcpgate

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// playServer is a stdio server, in a child of the test.
func playServer(kind string) {
	switch kind {
	case "die":
		// Initializes, and dies on the first call.
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			m, err := mcp.Parse(in.Bytes())
			switch {
			case err != nil || !m.IsRequest():
			case m.Method() == "initialize":
				fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"d","version":"1"}}}`+"\n", m.ID())
			case m.Method() == "tools/list":
				fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"die","inputSchema":{"type":"object"}}]}}`+"\n", m.ID())
			case m.Method() == "tools/call":
				os.Exit(3)
			default:
				fmt.Printf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}`+"\n", m.ID())
			}
		}
	default:
		_ = server(kind).Run(context.Background(), &sdk.StdioTransport{})
	}
}

// child is a server that is a process.
func child(t *testing.T, name, kind string) mcp.Server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return mcp.Server{Name: name, Command: exe, Env: []string{"MCPGATE_TEST_SERVER=" + kind, "PATH=" + os.Getenv("PATH")}, Stderr: os.Stderr}
}

// pipes is a client's end of a gate that speaks over pipes.
func pipes(t *testing.T, d *table, upstreams ...mcp.Server) (*sdk.IOTransport, *Gate) {
	t.Helper()
	g, err := New(Config{Decider: d, Upstreams: upstreams, Logger: slog.New(slog.DiscardHandler), Limits: bounded})
	if err != nil {
		t.Fatal(err)
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- g.ServeStdio(t.Context(), inR, outW, authz.Credential{Kind: authz.CredentialLocal, Value: alice})
		_ = outW.Close()
	}()
	t.Cleanup(func() {
		_ = inW.Close()
		_ = outR.Close()
		if err := <-served; err != nil && t.Context().Err() == nil {
			t.Errorf("ServeStdio: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.Close(ctx)
	})
	return &sdk.IOTransport{Reader: outR, Writer: inW}, g
}

// A wrapped process works with clients of both eras, whichever it speaks.
func TestStdioInEveryPairingOfEras(t *testing.T) {
	for _, tt := range []struct{ client, server string }{{old, old}, {now, now}, {now, old}, {old, now}} {
		t.Run("client "+tt.client+", server "+tt.server, func(t *testing.T) {
			t.Parallel()
			d := &table{deny: map[string]string{"real/delete": authz.ReasonForbidden}}
			tr, _ := pipes(t, d, child(t, "real", tt.server))
			progress := make(chan string, 10)
			c := sdk.NewClient(&sdk.Implementation{Name: "c", Version: "1"}, &sdk.ClientOptions{
				ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
					return &sdk.ElicitResult{Action: "accept"}, nil
				},
				ProgressNotificationHandler: func(_ context.Context, n *sdk.ProgressNotificationClientRequest) {
					progress <- fmt.Sprint(n.Params.ProgressToken, n.Params.Progress)
				},
			})
			cs, err := c.Connect(t.Context(), tr, &sdk.ClientSessionOptions{ProtocolVersion: tt.client})
			if err != nil {
				t.Fatal(err)
			}
			defer cs.Close()
			if got := callText(t, cs, "echo", map[string]any{"text": "hi"}); got != "hi" {
				t.Errorf("echo said %q", got)
			}
			if got := callText(t, cs, "ask", map[string]any{"text": "it"}); got != "accept" {
				t.Errorf("ask said %q", got)
			}
			if got := callText(t, cs, "delete", nil); got != "Denied by the table." {
				t.Errorf("delete said %q", got)
			}
			p := &sdk.CallToolParams{Name: "progress"}
			p.SetProgressToken("tok")
			if _, err := cs.CallTool(t.Context(), p); err != nil {
				t.Error(err)
			}
			for i := range 3 {
				select {
				case got := <-progress:
					if got != fmt.Sprint("tok", i) {
						t.Errorf("progress %q, want %d", got, i)
					}
				case <-time.After(5 * time.Second):
					t.Error("no progress")
				}
			}
			tools, err := cs.ListTools(t.Context(), nil)
			if err != nil || len(tools.Tools) != 5 {
				t.Errorf("tools: %+v %v", tools, err)
			}
			q := d.of("real/echo")
			if len(q) != 1 || q[0].Gate != gateStdio || q[0].Credential.Kind != authz.CredentialLocal {
				t.Errorf("decision: %+v", q)
			}
		})
	}
}

// A process that dies midway leaves an ambiguous outcome, and a clear error.
func TestProcessThatDiesIsAmbiguous(t *testing.T) {
	d := &table{}
	tr, _ := pipes(t, d, child(t, "real", "die"))
	c := sdk.NewClient(&sdk.Implementation{Name: "c", Version: "1"}, nil)
	cs, err := c.Connect(t.Context(), tr, &sdk.ClientSessionOptions{ProtocolVersion: old})
	if err != nil {
		t.Fatal(err)
	}
	defer cs.Close()
	_, err = cs.CallTool(t.Context(), &sdk.CallToolParams{Name: "die"})
	if err == nil || !strings.Contains(err.Error(), "was lost") {
		t.Errorf("got %v", err)
	}
	if o := d.outcomeOf(t, "real/die"); len(o) != 1 || o[0].Status != authz.OutcomeAmbiguous {
		t.Errorf("outcomes: %+v", o)
	}
	_, err = cs.CallTool(t.Context(), &sdk.CallToolParams{Name: "die"})
	if err == nil || !strings.Contains(err.Error(), "could not be reached") {
		t.Errorf("afterwards: %v", err)
	}
}

// Requests that came before the end of the input are answered, and lines that
// are no messages do not stop the others.
func TestStdioAnswersWhatItHasRead(t *testing.T) {
	d := &table{}
	g, err := New(Config{Decider: d, Upstreams: []mcp.Server{child(t, "real", old)}, Logger: slog.New(slog.DiscardHandler), Limits: bounded})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(t.Context())
	in := strings.NewReader(strings.Join([]string{
		`not json`,
		`[{"jsonrpc":"2.0","id":1,"method":"ping"}]`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`,
		`{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`,
	}, "\n") + "\n")
	var out strings.Builder
	if err := g.ServeStdio(t.Context(), in, &out, authz.Credential{Kind: authz.CredentialLocal, Value: alice}); err != nil {
		t.Fatal(err)
	}
	codes, results := map[float64]int{}, 0
	for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var m struct {
			Error  *struct{ Code float64 }
			Result json.RawMessage
		}
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if m.Error != nil {
			codes[m.Error.Code]++
		} else if strings.Contains(string(m.Result), `"real"`) {
			results++
		}
	}
	if codes[-32700]+codes[-32600] != 3 || results != 1 {
		t.Errorf("answers: %s", out.String())
	}
}
