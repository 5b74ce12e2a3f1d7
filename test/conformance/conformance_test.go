// Package conformance holds the gateway to the MCP conformance suite: a client
// must not be able to tell, by what the suite looks at, that a gateway stands
// between.
package conformance

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
	"github.com/bailiwick-dev/bailiwick/test/internal/suite"
)

var update = flag.Bool("update", false, "write what passes between the eras to testdata")

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

var eras = []struct {
	revision  string
	stateless bool // how the everything-server speaks the revision
}{
	{suite.Legacy, false},
	{suite.Modern, true},
}

// Every check that succeeds against the server itself succeeds through the
// gateway.
func TestGatewayLosesNoScenario(t *testing.T) {
	rig.EndToEnd(t)
	for _, era := range eras {
		t.Run(era.revision, func(t *testing.T) {
			direct := run(t, era.revision, everything(t, era.stateless))
			if len(direct) < 40 {
				t.Fatalf("only %d checks ran directly: the suite or the server is broken", len(direct))
			}
			endpoint, _ := gateway(t, era.stateless, rig.PermitAll)
			got := run(t, era.revision, endpoint)
			var table strings.Builder
			if err := suite.Table(&table, direct, got); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s, directly and through the gateway:\n%s", era.revision, &table)
			for _, l := range suite.Lost(direct, got) {
				t.Errorf("lost: %s", l)
			}
		})
	}
}

// A client and a server of different eras meet through the gateway. How
// each check comes out is kept in testdata, because there is no direct run to
// compare with; -update writes it.
func TestBridgeBetweenEras(t *testing.T) {
	rig.EndToEnd(t)
	for _, era := range eras {
		t.Run(era.revision+" client", func(t *testing.T) {
			endpoint, _ := gateway(t, !era.stateless, rig.PermitAll)
			got := run(t, era.revision, endpoint)
			file := filepath.Join("testdata", "bridge-"+era.revision+".json")
			if *update {
				writeChecks(t, file, got)
			}
			want := readChecks(t, file)
			var table strings.Builder
			if err := suite.Table(&table, want, got); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s client, server of the other era, kept and now:\n%s", era.revision, &table)
			for _, l := range suite.Lost(want, got) {
				t.Errorf("lost: %s", l)
			}
		})
	}
}

// writeChecks keeps how each check came out, without what the suite says of
// it.
func writeChecks(t *testing.T, file string, checks []suite.Check) {
	t.Helper()
	kept := slices.Clone(checks)
	for i := range kept {
		kept[i].Message = ""
	}
	text, err := json.MarshalIndent(kept, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readChecks(t *testing.T, file string) []suite.Check {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var checks []suite.Check
	if err := json.Unmarshal(text, &checks); err != nil {
		t.Fatal(err)
	}
	return checks
}

// onlySimpleText permits one tool and looking around.
const onlySimpleText = `@id("look-around")
permit (principal, action in Action::"discover", resource);

@id("one-tool")
permit (principal, action == Action::"everything/test_simple_text", resource);
`

// Whatever the suite tries, the server is sent only what policy permits.
func TestNothingForbiddenReachesTheServer(t *testing.T) {
	rig.EndToEnd(t)
	// What the group "discover" holds, and what it takes to be connected.
	harmless := []string{
		"initialize", "server/discover", "ping", "logging/setLevel", "subscriptions/listen",
		"tools/list", "resources/list", "resources/templates/list", "prompts/list", "tasks/list",
	}
	for _, era := range eras {
		t.Run(era.revision, func(t *testing.T) {
			endpoint, upstream := gateway(t, era.stateless, onlySimpleText)
			got := run(t, era.revision, endpoint)
			if !slices.ContainsFunc(got, func(c suite.Check) bool {
				return c.Scenario == "tools-call-simple-text" && c.Status == "SUCCESS"
			}) {
				t.Error("the permitted tool does not pass: the test shows nothing")
			}
			called := false
			for _, m := range upstream.Messages() {
				switch {
				case m.Method == "tools/call" && m.Name == "test_simple_text":
					called = true
				case slices.Contains(harmless, m.Method), strings.HasPrefix(m.Method, "notifications/"):
				default:
					t.Errorf("the server was sent %q %q", m.Method, m.Name)
				}
			}
			if !called {
				t.Error("the permitted call did not reach the server")
			}
		})
	}
}

// gateway starts a fresh everything-server behind a fresh gateway with these
// policies, and returns the gateway's endpoint and what the server is sent.
func gateway(t *testing.T, stateless bool, policies string) (string, *rig.Tap) {
	t.Helper()
	upstream := rig.OpenTap(t, everything(t, stateless))
	d := rig.Deploy(t, rig.Setup{
		Policies:  policies,
		Upstreams: map[string]rig.Upstream{"everything": {URL: upstream.URL}},
		Anonymous: true, // the suite shows no token
		Race:      true,
	})
	d.Pin(t)
	d.Serve(t)
	upstream.Reset()
	return d.Endpoint("everything"), upstream
}

func everything(t *testing.T, stateless bool) string {
	t.Helper()
	p, url, err := rig.StartEverything(t.Context(), "", stateless)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return url
}

func run(t *testing.T, revision, url string) []suite.Check {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	checks, err := suite.Run(ctx, suite.Config{URL: url, Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	return checks
}
