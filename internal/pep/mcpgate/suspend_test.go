package mcpgate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// authority is a real one, and a change of the configuration that has the gate
// follow it.
func authority(t *testing.T) (*revoke.Authority, func(*Config)) {
	t.Helper()
	s, err := store.OpenSuspensions(t.Context(), filepath.Join(t.TempDir(), "suspensions.db"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := revoke.NewAuthority(revoke.Config{Store: s, Node: "n", Record: func(context.Context, revoke.Change) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Follow(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		a.Watch().Close()
		s.Close()
	})
	return a, func(c *Config) {
		c.Watch = a.Watch()
		c.Decider.(*table).scoped = true
	}
}

func flip(t *testing.T, a *revoke.Authority, verb revoke.Verb, kind, id string) {
	t.Helper()
	c := revoke.Change{Time: time.Now(), Verb: verb, Entity: authz.Entity{Type: kind, ID: id}, By: "ann", Reason: "test"}
	if _, err := a.Change(t.Context(), c); err != nil {
		t.Error(err)
	}
}

// soon fails the test if f takes longer than something that is cut may.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		t.Errorf("%s is not cut", what)
		<-done
	}
}

// A call in flight is cut when anything of it is suspended, in all eras; the
// server is told, and the outcome is in doubt.
func TestCallInFlightIsCut(t *testing.T) {
	for _, pair := range pairings {
		for _, target := range []authz.Entity{
			{Type: revoke.KindAgent, ID: alice}, {Type: revoke.KindTool, ID: "real/hold"}, {Type: revoke.KindServer, ID: "real"}, {Type: revoke.KindAll},
		} {
			t.Run(pair.name+" "+target.Type, func(t *testing.T) {
				begun, cancelled := make(chan struct{}), make(chan struct{})
				s := server(pair.speaks...)
				sdk.AddTool(s, &sdk.Tool{Name: "hold"}, func(ctx context.Context, r *sdk.CallToolRequest, _ struct{}) (*sdk.CallToolResult, any, error) {
					close(begun)
					select {
					case <-ctx.Done():
						close(cancelled)
					case <-time.After(5 * time.Second):
					}
					return nil, nil, ctx.Err()
				})
				a, follow := authority(t)
				r := newRig(t, follow, map[string]string{"real": newTap(t, pair.server(s)).url})
				cs := r.connect("/mcp/real", alice, pair.client, nil)
				failed := make(chan error, 1)
				go func() {
					res, err := cs.CallTool(t.Context(), &sdk.CallToolParams{Name: "hold", Arguments: map[string]any{}})
					if err == nil && res.IsError {
						err = errors.New("tool error")
					}
					failed <- err
				}()
				<-begun
				flip(t, a, revoke.Suspend, target.Type, target.ID)
				soon(t, "the call", func() {
					if err := <-failed; err == nil {
						t.Error("the call has succeeded")
					}
				})
				soon(t, "the server's work", func() { <-cancelled })
				o := r.decider.outcomeOf(t, "real/hold")
				if len(o) != 1 || o[0].Status != authz.OutcomeAmbiguous || !strings.Contains(o[0].Error, "suspended") && o[0].Error != authz.ReasonKilled {
					t.Errorf("outcomes: %+v", o)
				}
			})
		}
	}
}

// The denial of a call that was cut says why.
func TestCutCallSaysWhy(t *testing.T) {
	a, follow := authority(t)
	r := newRig(t, follow, map[string]string{"real": newTap(t, modernHTTP(server())).url})
	done := make(chan struct{})
	go func() {
		defer close(done)
		eventually(t, "the call", func() bool { return len(r.decider.of("real/wait")) == 1 })
		time.Sleep(50 * time.Millisecond) // it is on its way
		flip(t, a, revoke.Suspend, revoke.KindTool, "real/wait")
	}()
	defer func() { <-done }()
	body := `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"wait","arguments":{},` + meta + `}}`
	h := r.modernCall("/mcp/real", alice, body)
	if !strings.Contains(h.body, authz.ReasonToolSuspended) || !strings.Contains(h.body, "may or may not") {
		t.Errorf("%d %s", h.status, h.body)
	}
}

// Streams that are open end: of sessions, and of subscriptions.
func TestOpenStreamsAreCut(t *testing.T) {
	for _, tt := range []struct {
		name   string
		target authz.Entity
		listen bool // a subscription of the modern era
		path   string
		cut    bool
	}{
		{"session of a suspended agent", authz.Entity{Type: revoke.KindAgent, ID: alice}, false, "/mcp/legacy", true},
		{"session of another agent", authz.Entity{Type: revoke.KindAgent, ID: bob}, false, "/mcp/legacy", false},
		{"session with a suspended server", authz.Entity{Type: revoke.KindServer, ID: "legacy"}, false, "/mcp/legacy", true},
		{"session with all servers, one of them suspended", authz.Entity{Type: revoke.KindServer, ID: "legacy"}, false, "/mcp", false},
		{"session with all servers", authz.Entity{Type: revoke.KindAll}, false, "/mcp", true},
		{"session when a tool is suspended", authz.Entity{Type: revoke.KindTool, ID: "legacy/echo"}, false, "/mcp/legacy", false},
		{"subscription of a suspended agent", authz.Entity{Type: revoke.KindAgent, ID: alice}, true, "/mcp/modern", true},
		{"subscription across eras", authz.Entity{Type: revoke.KindAgent, ID: alice}, true, "/mcp/legacy", true},
		{"subscription of another agent", authz.Entity{Type: revoke.KindAgent, ID: bob}, true, "/mcp/modern", false},
		{"subscription with all servers", authz.Entity{Type: revoke.KindServer, ID: "modern"}, true, "/mcp", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, follow := authority(t)
			r := newPlainRig(t, follow)
			var resp *http.Response
			var session string
			if tt.listen {
				body := `{"jsonrpc":"2.0","id":5,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` + meta + `}}`
				resp, _ = readEvents(t, r, tt.path, alice, "POST", body, "MCP-Protocol-Version", now, "Mcp-Method", "subscriptions/listen")
			} else {
				session = r.begin(tt.path, alice)
				resp, _ = readEvents(t, r, tt.path, alice, "Mcp-Session-Id", session)
			}
			if resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = io.Copy(io.Discard, resp.Body)
			}()
			time.Sleep(50 * time.Millisecond) // the stream is open
			flip(t, a, revoke.Suspend, tt.target.Type, tt.target.ID)
			if tt.cut {
				soon(t, "the stream", func() { <-ended })
			} else {
				select {
				case <-ended:
					t.Error("the stream was cut")
				case <-time.After(300 * time.Millisecond):
				}
			}
			if session != "" && tt.cut {
				eventually(t, "the end of the session", func() bool {
					return r.legacyCall(tt.path, alice, session, `{"jsonrpc":"2.0","id":9,"method":"ping"}`).status == http.StatusNotFound
				})
			}
			_ = resp.Body.Close()
			if n := a.Watch().Held(); tt.cut && n != 0 {
				t.Errorf("%d holds are left", n)
			}
		})
	}
}

// A server that is suspended says nothing more to a session with all servers.
func TestSuspendedServerFallsSilent(t *testing.T) {
	a, follow := authority(t)
	r := newPlainRig(t, follow)
	session := r.begin("/mcp", alice)
	s := r.gate.sessions.find(session)
	if !s.links["legacy"].ready() {
		t.Fatal("the server is not there")
	}
	flip(t, a, revoke.Suspend, revoke.KindServer, "legacy")
	eventually(t, "the end of the conversation", func() bool { return !s.links["legacy"].ready() })
	if s.life.Err() != nil {
		t.Error("the whole session has ended")
	}
}

// A call that waits for input does not outlive a suspension.
func TestParkedCallIsCut(t *testing.T) {
	a, follow := authority(t)
	r := newRig(t, follow, map[string]string{"real": newTap(t, legacyHTTP(asking(nil))).url})
	first := r.modernCall("/mcp/real", alice, careful("delete", "")).message(t)
	if mcp.GetString(first.Result(), "resultType") != "input_required" {
		t.Fatalf("%s", first.Bytes())
	}
	flip(t, a, revoke.Suspend, revoke.KindTool, "real/careful")
	o := r.decider.outcomeOf(t, "real/careful")
	if len(o) != 1 || o[0].Status != authz.OutcomeAmbiguous || o[0].Error != authz.ReasonToolSuspended {
		t.Errorf("outcomes: %+v", o)
	}
}

// What is suspended while the decision is on its way is not run, even if the
// decision allows.
func TestLateAllowDoesNotRun(t *testing.T) {
	a, follow := authority(t)
	tap := newTap(t, modernHTTP(server()))
	r := newRig(t, follow, map[string]string{"real": tap.url})
	r.decider.onDecide = func(q authz.Request) {
		if q.Action == "real/echo" {
			flip(t, a, revoke.Suspend, revoke.KindAgent, alice)
		}
	}
	h := r.modernCall("/mcp/real", alice, `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"},`+meta+`}}`)
	if !strings.Contains(h.body, authz.ReasonAgentSuspended) || strings.Contains(h.body, "may or may not") || len(tap.bodiesOf("tools/call")) != 0 {
		t.Errorf("%s; the server has got %q", h.body, tap.bodiesOf("tools/call"))
	}
	if o := r.decider.outcomeOf(t, "real/echo"); len(o) != 1 || o[0].Status != authz.OutcomeNotRun {
		t.Errorf("outcomes: %+v", o)
	}
}

// A wrapped process ends with its agent.
func TestStdioEndsWithItsAgent(t *testing.T) {
	a, follow := authority(t)
	d := &table{deny: map[string]string{}}
	c := Config{Decider: d, Upstreams: []mcp.Server{child(t, "real", old)}, Logger: newRig(t, nil, map[string]string{"x": "http://127.0.0.1:1"}).gate.log, Limits: bounded}
	follow(&c)
	g, err := New(c)
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
	client := sdk.NewClient(&sdk.Implementation{Name: "client", Version: "1"}, nil)
	cs, err := client.Connect(t.Context(), &sdk.IOTransport{Reader: outR, Writer: inW}, &sdk.ClientSessionOptions{ProtocolVersion: old})
	if err != nil {
		t.Fatal(err)
	}
	flip(t, a, revoke.Suspend, revoke.KindAgent, alice)
	soon(t, "the process", func() {
		var cut *revoke.Cut
		if err := <-served; !errors.As(err, &cut) || cut.Code != authz.ReasonAgentSuspended {
			t.Errorf("ended with %v", err)
		}
	})
	_ = inW.Close()
	_ = cs.Close()
	_ = g.Close(t.Context())
}
