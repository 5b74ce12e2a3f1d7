package httpgate_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// An answer that is on its way is cut when the agent is suspended; so is a call
// that has none yet.
func TestAnswerOfASuspendedAgentIsCut(t *testing.T) {
	s, err := store.OpenSuspensions(t.Context(), filepath.Join(t.TempDir(), "suspensions.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, answers := range []bool{true, false} {
		a, err := revoke.NewAuthority(revoke.Config{Store: s, Node: "n", Record: func(context.Context, revoke.Change) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Watch().Close()
		flip := func(v revoke.Verb) {
			c := revoke.Change{Time: time.Now(), Verb: v, Entity: authz.Entity{Type: revoke.KindAgent, ID: "bot"}, By: "ann", Reason: "test"}
			if _, err := a.Change(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		entered := make(chan struct{})
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if answers {
				_, _ = io.WriteString(w, "first")
				_ = http.NewResponseController(w).Flush()
			}
			close(entered)
			<-r.Context().Done()
		}))
		gate := serve(t, up.URL, func(authz.Request) (authz.Decision, error) {
			return authz.Decision{ID: "d1", Allow: true, Scope: []authz.Entity{{Type: revoke.KindAgent, ID: "bot"}}}, nil
		}, func(c *httpgate.Config) { c.Watch = a.Watch() })
		conn, err := net.Dial("tcp", gate.addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, message("GET", "/api/pets/pets", "")); err != nil {
			t.Fatal(err)
		}
		<-entered
		flip(revoke.Suspend)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if answers && (err == nil || string(body) != "first") || !answers && !strings.Contains(string(body), authz.ReasonAgentSuspended) {
			t.Errorf("answers %v: got %q, %v", answers, body, err)
		}
		if o := gate.outcome(t); o.Status != authz.OutcomeAmbiguous || o.Error != authz.ReasonAgentSuspended {
			t.Errorf("answers %v: outcome %+v", answers, o)
		}
		_ = conn.Close()
		flip(revoke.Resume)
		up.Close()
	}
}
