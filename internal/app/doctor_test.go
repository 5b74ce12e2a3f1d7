package app

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// healthy makes a configuration with which nothing is wrong, and returns its
// file.
func healthy(t *testing.T) string {
	t.Helper()
	url := serveDemo(t, "")
	r, _ := initWith(t, map[string]any{"bank": map[string]any{"url": url + "/bank"}})
	file := filepath.Join(r.Dir, DefaultConfigFile)
	edit(t, file, "# listen: 127.0.0.1:7430", "listen: "+freeAddr(t))
	return file
}

// edit replaces a text in a file, which must hold it.
func edit(t *testing.T, file, was, is string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), was) {
		t.Fatalf("%s does not hold %q", file, was)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), was, is)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}

// complaints are the findings that are not ok, as "status check".
// examine runs the doctor and takes a slow disk for a good one: how fast it is
// while other tests use it is nobody's fault, and diskFinding has a test of its
// own.
func examine(t *testing.T, file string) []Finding {
	t.Helper()
	findings := Doctor(t.Context(), file)
	for i, f := range findings {
		if f.Check == "data directory" && strings.Contains(f.Next, "SSD") {
			findings[i].Status = FindingOK
		}
	}
	return findings
}

func complaints(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		if f.Status != FindingOK {
			out = append(out, f.Status+" "+f.Check)
		}
	}
	return out
}

func TestDoctorFindsNothingWrong(t *testing.T) {
	file := healthy(t)
	findings := examine(t, file)
	if got := complaints(findings); len(got) != 0 {
		t.Errorf("complaints: %q\n%+v", got, findings)
	}
	var checks []string
	for _, f := range findings {
		checks = append(checks, f.Check)
	}
	want := "configuration, catalogue, policies, agents, secrets, data directory, evidence, clock, upstream bank, port"
	if got := strings.Join(checks, ", "); got != want {
		t.Errorf("checks = %s, want %s", got, want)
	}
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(file), ".bailiwick"))
	if err != nil || len(entries) != 0 {
		t.Errorf("doctor left %v behind (%v)", entries, err)
	}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name string
		// spoil spoils what is in the directory of the configuration.
		spoil func(t *testing.T, dir string)
		want  []string
		says  string // in the detail of the first complaint
	}{
		{"no configuration", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, DefaultConfigFile)); err != nil {
				t.Fatal(err)
			}
		}, []string{"failed configuration"}, "bailiwick init"},
		{"observing", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, DefaultConfigFile), "mode: enforce", "mode: observe")
		}, []string{"warning mode"}, "let through"},
		{"policy that does not compile", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, initPolicies), `in Action::"read"`, `in Action::"raed"`)
		}, []string{"failed policies"}, "raed"},
		{"no policies", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, initPolicies)); err != nil {
				t.Fatal(err)
			}
		}, []string{"warning policies"}, "everything is denied"},
		{"catalogue that is wrong", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, initCatalog), `"get_balance"`, `"get_blance"`)
		}, []string{"failed catalogue", "failed policies"}, "get_blance"},
		{"tool that nobody classified", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, initCatalog), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"warning catalogue"}, "bank/get_balance"},
		{"nobody can authenticate", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, initAgents), []byte("agents: []\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"warning agents"}, "no agent has a key"},
		{"agents file that is wrong", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, initAgents), "sha256:", "md5:")
		}, []string{"failed agents"}, "sha256:"},
		{"secrets for all to read", func(t *testing.T, dir string) {
			file := filepath.Join(dir, DefaultConfigFile)
			edit(t, file, "\n  bank:\n", "\n  bank:\n    token_file: token\n")
			if err := os.WriteFile(filepath.Join(dir, "token"), []byte("t"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"warning secrets"}, "0644"},
		{"data directory that is a file", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, ".bailiwick"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"failed data directory", "failed evidence"}, ".bailiwick"},
		{"upstream that is down", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, DefaultConfigFile), "/bank\"", "/nothing\"")
		}, []string{"failed upstream bank"}, ""},
		{"tool that has changed", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, DefaultConfigFile), "/bank\"", "/mailbox\"")
		}, []string{"warning upstream bank"}, "4 new, 3 gone"},
		{"upstream without pins", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, initCatalog), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, initLock)); err != nil {
				t.Fatal(err)
			}
		}, []string{"warning catalogue", "warning upstream bank"}, "bank"},
		{"port of somebody else", func(t *testing.T, dir string) {
			other := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(other.Close)
			file := filepath.Join(dir, DefaultConfigFile)
			c, err := LoadConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			edit(t, file, c.Listen, other.Listener.Addr().String())
		}, []string{"failed port"}, "address already in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := healthy(t)
			tt.spoil(t, filepath.Dir(file))
			findings := examine(t, file)
			got := complaints(findings)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Fatalf("complaints = %q, want %q\n%+v", got, tt.want, findings)
			}
			for _, f := range findings {
				if f.Status == FindingOK {
					continue
				}
				if f.Next == "" {
					t.Errorf("%s: %s, and nothing about what to do next", f.Check, f.Detail)
				}
				if !strings.Contains(f.Detail, tt.says) {
					t.Errorf("%s: %s; want it to say %q", f.Check, f.Detail, tt.says)
				}
				return
			}
		})
	}
}

func TestDoctorVerifiesTheEvidence(t *testing.T) {
	r := playDemo(t, filepath.Join(t.TempDir(), "demo"))
	for _, f := range Doctor(t.Context(), r.Tampered.Config) {
		if f.Check != "evidence" {
			continue
		}
		if f.Status != FindingFailed || !strings.Contains(f.Detail, fmt.Sprintf("entry %d", stolen(r).Index)) {
			t.Errorf("evidence of the changed copy: %+v", f)
		}
		return
	}
	t.Error("the evidence was not looked at")
}

func TestDoctorKnowsItsOwnPort(t *testing.T) {
	file := healthy(t)
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	node, err := Start(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := node.Listen(); err != nil {
		t.Fatal(err)
	}
	findings := examine(t, file)
	if got := complaints(findings); len(got) != 0 {
		t.Errorf("complaints beside a running node: %q\n%+v", got, findings)
	}
	if last := findings[len(findings)-1]; !strings.Contains(last.Detail, "ready") {
		t.Errorf("port: %+v, want it to say that bailiwick is ready", last)
	}
}

func TestClockBehindTheRecord(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name string
		last time.Time
		now  time.Time
		want string
	}{
		{"no record", time.Time{}, now, FindingOK},
		{"after the record", now.Add(-time.Hour), now, FindingOK},
		{"a little behind", now.Add(500 * time.Millisecond), now, FindingOK},
		{"behind", now.Add(time.Hour), now, FindingFailed},
		{"never set", time.Time{}, time.Unix(0, 0), FindingFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := clockFinding(tt.last, tt.now); got.Status != tt.want {
				t.Errorf("finding = %+v, want %s", got, tt.want)
			}
		})
	}
}

func TestSlowAndFullDisks(t *testing.T) {
	for _, tt := range []struct {
		name string
		took time.Duration
		free int64
		want string
	}{
		{"good", time.Millisecond, 50 << 30, FindingOK},
		{"slow", 30 * time.Millisecond, 50 << 30, FindingWarning},
		{"nearly full", time.Millisecond, 1 << 29, FindingWarning},
		{"full", time.Millisecond, 0, FindingWarning},
		{"of unknown size", time.Millisecond, -1, FindingOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := diskFinding("/data", tt.took, tt.free); got.Status != tt.want {
				t.Errorf("finding = %+v, want %s", got, tt.want)
			}
		})
	}
}

func TestDialable(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", ":80": "localhost:80", "0.0.0.0:80": "localhost:80", "[::]:80": "localhost:80",
		"gateway.example:80": "gateway.example:80", "nonsense": "nonsense",
	} {
		if got := dialable(in); got != want {
			t.Errorf("dialable(%q) = %q, want %q", in, got, want)
		}
	}
}
