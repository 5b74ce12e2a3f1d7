package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// An Endpoint is where a client finds a server: a URL with a token, or a
// command.
type Endpoint struct {
	URL, Token string
	Command    []string
}

// An Answer is what a client tells of a tool call.
type Answer struct {
	Text  string
	Error bool // the tool result has isError, or the call failed
	// Reason is the code of a denial.
	Reason string
}

// A Client is a real MCP client.
type Client interface {
	// Tools lists the names of the tools.
	Tools(ctx context.Context) ([]string, error)
	// Call calls a tool. A failed call is an Answer; an error is the client's.
	Call(ctx context.Context, tool string, args map[string]any) (Answer, error)
}

// answerOf reads the result of a tool call.
func answerOf(result []byte) (Answer, error) {
	var r struct {
		Content []struct{ Text string }
		IsError bool
		Meta    struct {
			Denial struct{ Code string } `json:"dev.bailiwick/denial"`
		} `json:"_meta"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return Answer{}, fmt.Errorf("read the result of a tool: %w", err)
	}
	a := Answer{Error: r.IsError, Reason: r.Meta.Denial.Code}
	for _, c := range r.Content {
		a.Text += c.Text
	}
	return a, nil
}

// An SDK is the client of the Go SDK.
type SDK struct{ Session *mcp.ClientSession }

// DialSDK connects the Go SDK's client in the era of a revision of the
// protocol. It is closed when the test ends.
func DialSDK(t testing.TB, e Endpoint, revision string) *SDK {
	t.Helper()
	var transport mcp.Transport = &mcp.StreamableClientTransport{
		Endpoint: e.URL, HTTPClient: &http.Client{Transport: Bearer(e.Token)},
	}
	if e.URL == "" {
		cmd := exec.Command(e.Command[0], e.Command[1:]...)
		cmd.Stderr = &testLog{t: t}
		transport = &mcp.CommandTransport{Command: cmd}
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "rig", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), transport, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		// What the server says when it is left does not matter here.
		_ = session.Close()
	})
	return &SDK{session}
}

// Tools implements [Client].
func (s *SDK) Tools(ctx context.Context) ([]string, error) {
	var names []string
	for tool, err := range s.Session.Tools(ctx, nil) {
		if err != nil {
			return nil, err
		}
		names = append(names, tool.Name)
	}
	return names, nil
}

// Call implements [Client].
func (s *SDK) Call(ctx context.Context, tool string, args map[string]any) (Answer, error) {
	res, err := s.Session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	var refused *jsonrpc.Error
	if errors.As(err, &refused) {
		var data struct{ Code string }
		// An error of another server need not have our data.
		_ = json.Unmarshal(refused.Data, &data)
		return Answer{Text: refused.Message, Error: true, Reason: data.Code}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	text, err := json.Marshal(res)
	if err != nil {
		return Answer{}, err
	}
	return answerOf(text)
}

// A Bearer is a token that goes with every request.
type Bearer string

// RoundTrip implements [http.RoundTripper].
func (b Bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if b != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+string(b))
	}
	return http.DefaultTransport.RoundTrip(req)
}

// A testLog shows lines in the log of a test.
type testLog struct{ t testing.TB }

func (l *testLog) Write(b []byte) (int, error) {
	// A process may write after its test; then nobody wants to read it.
	if l.t.Context().Err() == nil {
		l.t.Logf("%s", bytes.TrimRight(b, "\n"))
	}
	return len(b), nil
}

// An Inspector is the command line of the MCP Inspector. Each call is a
// process and a connection of its own.
type Inspector struct {
	node, script, config, home string
	era                        string
}

// NewInspector returns the Inspector for an endpoint, which it reads from a
// configuration file of the kind that desktop clients have. The era is
// "legacy" or "modern".
func NewInspector(t testing.TB, e Endpoint, era string) *Inspector {
	t.Helper()
	i, err := newInspector(t.TempDir(), e, era)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newInspector(dir string, e Endpoint, era string) (*Inspector, error) {
	node, err := Node()
	if err != nil {
		return nil, err
	}
	script, err := Script("@modelcontextprotocol/inspector/clients/launcher/build/index.js")
	if err != nil {
		return nil, err
	}
	server := map[string]any{"type": "streamable-http", "url": e.URL, "headers": map[string]string{"Authorization": "Bearer " + e.Token}}
	if e.URL == "" {
		server = map[string]any{"type": "stdio", "command": e.Command[0], "args": e.Command[1:]}
	}
	text, err := json.Marshal(map[string]any{"mcpServers": map[string]any{"it": server}})
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "mcp.json")
	return &Inspector{node, script, config, dir, era}, os.WriteFile(config, text, 0o600)
}

// Tools implements [Client].
func (i *Inspector) Tools(ctx context.Context) ([]string, error) {
	out, err := i.run(ctx, "--method", "tools/list")
	if err != nil {
		return nil, err
	}
	var list struct{ Tools []struct{ Name string } }
	if err := json.Unmarshal(unwrap(out), &list); err != nil {
		return nil, fmt.Errorf("read the Inspector's list: %w\n%s", err, out)
	}
	var names []string
	for _, t := range list.Tools {
		names = append(names, t.Name)
	}
	return names, nil
}

// Call implements [Client].
func (i *Inspector) Call(ctx context.Context, tool string, args map[string]any) (Answer, error) {
	text, err := json.Marshal(args)
	if err != nil {
		return Answer{}, err
	}
	out, err := i.run(ctx, "--method", "tools/call", "--tool-name", tool, "--tool-args-json", string(text))
	var failed *inspectorError
	if errors.As(err, &failed) {
		return Answer{Text: failed.text, Error: true}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	return answerOf(unwrap(out))
}

// An inspectorError is what the Inspector says when it ends with an error.
type inspectorError struct{ text string }

func (e *inspectorError) Error() string { return "inspector: " + e.text }

func (i *Inspector) run(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{i.script, "--cli", "--config", i.config, "--server", "it",
		"--protocol-era", i.era, "--format", "json", "-q"}, args...)
	cmd := exec.CommandContext(ctx, i.node, args...)
	cmd.Env = append(os.Environ(), "HOME="+i.home)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	// It ends with an error, too, when a tool's result is one.
	if errors.As(err, &exit) && stdout.Len() == 0 {
		return nil, &inspectorError{strings.TrimSpace(stderr.String())}
	}
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return stdout.Bytes(), nil
}

// unwrap takes the result out of the envelope that --format json puts around
// it.
func unwrap(out []byte) []byte {
	var envelope struct{ Result json.RawMessage }
	if json.Unmarshal(out, &envelope) == nil && envelope.Result != nil {
		return envelope.Result
	}
	return out
}
