package rig

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The clients work without a gateway between; else what they say with one
// would mean nothing.
func TestClientsReachServersDirectly(t *testing.T) {
	EndToEnd(t)
	for name, stateless := range map[string]bool{"with sessions": false, "without sessions": true} {
		server := Count(t, stateless)
		tap := OpenTap(t, server.URL)
		e := Endpoint{URL: tap.URL, Token: "token"}
		clients := map[string]func(*testing.T) Client{
			"sdk legacy":       func(t *testing.T) Client { return DialSDK(t, e, "2025-11-25") },
			"sdk modern":       func(t *testing.T) Client { return DialSDK(t, e, "2026-07-28") },
			"inspector legacy": func(t *testing.T) Client { return NewInspector(t, e, "legacy") },
		}
		if stateless {
			clients["inspector modern"] = func(t *testing.T) Client { return NewInspector(t, e, "modern") }
		}
		for client, dial := range clients {
			t.Run(client+" "+name, func(t *testing.T) {
				c := dial(t)
				tools, err := c.Tools(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{"act", "forbidden"}, tools); diff != "" {
					t.Errorf("tools (-want +got):\n%s", diff)
				}
				id := t.Name()
				got, err := c.Call(t.Context(), "act", map[string]any{"id": id})
				if diff := cmp.Diff(Answer{Text: "done " + id}, got); diff != "" || err != nil {
					t.Errorf("answer (-want +got), %v:\n%s", err, diff)
				}
				if n := server.Seen()[id]; n != 1 {
					t.Errorf("the server was called %d times", n)
				}
				if got, err := c.Call(t.Context(), "act", map[string]any{"id": 7}); err != nil || !got.Error {
					t.Errorf("a wrong argument: %+v, %v", got, err)
				}
			})
		}
		for _, m := range tap.Messages() {
			if m.Authorization != "Bearer token" {
				t.Errorf("%s came with the authorization %q", m.Method, m.Authorization)
			}
		}
	}
}

func TestRawReachesAServerDirectly(t *testing.T) {
	server := Count(t, true)
	raw := NewRaw(Endpoint{URL: server.URL}, 5*time.Second)
	reply, err := raw.Call(t.Context(), "act", `{"id":"x"}`)
	if err != nil || !reply.Done() || server.Seen()["x"] != 1 {
		t.Errorf("%v, %d %s", err, reply.Status, reply.Body)
	}
	reply, err = raw.Call(t.Context(), "act", `{"id":7}`)
	if err != nil || reply.Done() {
		t.Errorf("a wrong argument: %v, %d %s", err, reply.Status, reply.Body)
	}
}
