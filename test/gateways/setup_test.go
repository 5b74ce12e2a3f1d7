// Package gateways puts real gateways, nginx and Caddy, in front of a real
// backend, configured by the very files in deploy/, and lets Bailiwick decide
// for them.
package gateways

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
)

const patience = 30 * time.Second

const document = `
openapi: 3.0.3
info: {title: Pet store, version: "1"}
paths:
  /pets:
    get:
      operationId: listPets
      parameters:
        - {name: tag, in: query, schema: {type: string}}
        - {name: X-Tenant, in: header, schema: {type: string}}
    post:
      operationId: addPet
      requestBody:
        content: {application/json: {schema: {type: object, properties: {name: {type: string}}}}}
  /pets/mine:
    get: {operationId: myPets}
  /pets/{petId}:
    parameters:
      - {name: petId, in: path, required: true, schema: {type: string}}
    get:
      operationId: getPet
      parameters:
        - {name: q, in: query, schema: {type: string}}
    delete: {operationId: deletePet}
    put: {operationId: touchPet}
`

func parse(t testing.TB) *openapi.Document {
	t.Helper()
	d, err := openapi.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// keys are what the parties show.
type keys struct{ agent, agentHash, gateway, gatewayHash string }

func newKeys() keys {
	var k keys
	k.agent, k.agentHash = identity.NewKey()
	k.gateway, k.gatewayHash = identity.NewKey()
	return k
}

// A plane decides, remembers what it decided, and can be told to fail. Whoever
// is known may do all but deletePet.
type plane struct {
	pep.Decider // nil: the script below
	keys
	hang atomic.Bool
	fail atomic.Bool

	mu      sync.Mutex
	asked   []authz.Request
	allowed []authz.Request
}

func (p *plane) Decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	p.mu.Lock()
	p.asked = append(p.asked, req)
	p.mu.Unlock()
	if p.hang.Load() {
		<-ctx.Done()
		return authz.Decision{}, ctx.Err()
	}
	if p.fail.Load() {
		return authz.Decision{Allow: true}, errors.New("the disk is full")
	}
	d, err := p.decide(ctx, req)
	if d.Allow {
		p.mu.Lock()
		p.allowed = append(p.allowed, req)
		p.mu.Unlock()
	}
	return d, err
}

func (p *plane) decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	if p.Decider != nil {
		return p.Decider.Decide(ctx, req)
	}
	d := authz.Deny(authz.ReasonForbidden, "A policy forbids it.")
	switch {
	case req.PEP.Kind != authz.CredentialBearer || req.PEP.Value != p.gateway || req.Credential.Value != p.agent:
		d = authz.Deny(authz.ReasonUnauthenticated, "The credential does not prove who is asking.")
	case strings.Contains(req.Action, " "):
		d = authz.Deny(authz.ReasonToolUnknown, "It is not in the catalogue.")
	case string(req.Input) == "null":
		d = authz.Deny(authz.ReasonInputInvalid, "It is not an input.")
	case req.Action != "pets/deletePet":
		d = authz.Decision{Allow: true}
	}
	d.ID = "decision-1"
	return d, nil
}

func (p *plane) Report(context.Context, authz.Outcome) error { return nil }

// last is what was allowed last.
func (p *plane) last() (authz.Request, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.allowed) == 0 {
		return authz.Request{}, 0
	}
	return p.allowed[len(p.allowed)-1], len(p.allowed)
}

// A backend keeps what reaches it.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

type seen struct {
	method, target, host string
	header               http.Header
	body                 string
}

func newBackend(t testing.TB) *backend {
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a body that is cut is what came of it
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen = append(b.seen, seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(body)})
		fmt.Fprint(w, "from the backend")
	}))
	t.Cleanup(b.Close)
	return b
}

// take is what has reached the backend since it was asked last.
func (b *backend) take() []seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.seen
	b.seen = nil
	return out
}

// A setup is a gateway that runs, with what is around it.
type setup struct {
	*plane
	*backend
	addr string // of the gateway
	gate string // URL of Bailiwick
	log  *buffer
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A gateway knows how to start one, at an address, with the addresses of
// Bailiwick and the backend and its key.
type gateway struct {
	name  string
	start func(t testing.TB, addr, bailiwick, backend, key string) *exec.Cmd
}

func gateways() []gateway { return []gateway{{"nginx", nginx}, {"caddy", caddy}} }

// serve starts everything. The deadline of a decision is short.
func serve(t testing.TB, g gateway, p *plane, key string) *setup {
	t.Helper()
	s := &setup{plane: p, backend: newBackend(t), log: &buffer{}}
	gate, err := extauthz.New(extauthz.Config{
		Decider: p, Logger: slog.New(slog.NewJSONHandler(s.log, nil)), Deadline: 500 * time.Millisecond,
		APIs: []extauthz.API{{Name: "pets", Router: parse(t).Router(), Hosts: []string{"pets.test"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gate)
	t.Cleanup(srv.Close)
	s.gate = srv.URL
	for attempt := range 3 {
		s.addr = freeAddr(t)
		if s.run(t, g.start(t, s.addr, srv.Listener.Addr().String(), s.backend.Listener.Addr().String(), key)) {
			return s
		}
		t.Logf("attempt %d: %s did not start: %s", attempt+1, g.name, s.log)
	}
	t.Fatalf("%s does not start", g.name)
	return nil
}

// run starts a gateway and waits until it listens. It reports false if the
// gateway ends instead, for another program may have taken its port.
func (s *setup) run(t testing.TB, cmd *exec.Cmd) bool {
	t.Helper()
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ends when it is killed means nothing
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		select {
		case <-ended:
			return false
		case <-limit:
			return false
		case <-tick.C:
			c, err := net.DialTimeout("tcp", s.addr, time.Second)
			if err == nil {
				c.Close()
				return true
			}
		}
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program finds a program. A machine without it fails the test: nobody would
// notice that it is skipped.
func program(t testing.TB, names ...string) string {
	t.Helper()
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing: .ci/deps installs it (apt-get install nginx-light caddy)", names[0])
	return ""
}

// example is a file of deploy/ with its addresses replaced.
func example(t testing.TB, file string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			t.Fatalf("deploy/%s no longer holds %q", file, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(string(text))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func nginx(t testing.TB, addr, bailiwick, backend, key string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "\t%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	write(t, filepath.Join(dir, "bailiwick-key.conf"), "proxy_set_header Bailiwick-PEP \"Bearer "+key+"\";\n")
	write(t, filepath.Join(dir, "nginx.conf"), example(t, "nginx.conf",
		"127.0.0.1:8080", addr, "127.0.0.1:8180", bailiwick, "127.0.0.1:9000", backend, "http {\n", "http {\n\taccess_log off;\n"+temp.String()))
	// One process, in the foreground: killing it ends it all.
	return exec.Command(program(t, "nginx", "/usr/sbin/nginx"), "-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"),
		"-g", "daemon off; master_process off; pid "+dir+"/pid;")
}

func caddy(t testing.TB, addr, bailiwick, backend, key string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(addr)
	write(t, filepath.Join(dir, "Caddyfile"), example(t, "Caddyfile", ":8080", ":"+port, "127.0.0.1:8180", bailiwick, "127.0.0.1:9000", backend))
	cmd := exec.Command(program(t, "caddy"), "run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "BAILIWICK_PEP_KEY="+key, "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	return cmd
}

// An exchange is what comes back for a request.
type exchange struct {
	status int
	header http.Header
	body   string
}

// send sends the very bytes of a request: lines of headers follow the first.
func (s *setup) send(t testing.TB, line string, headers ...string) exchange {
	t.Helper()
	return s.sendTo(t, "pets.test", "", line, headers...)
}

func (s *setup) sendBody(t testing.TB, body, line string, headers ...string) exchange {
	t.Helper()
	return s.sendTo(t, "pets.test", body, line, headers...)
}

func (s *setup) sendTo(t testing.TB, host, body, line string, headers ...string) exchange {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	lines := append([]string{line + " HTTP/1.1", "Host: " + host, "Connection: close"}, headers...)
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(line, " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return exchange{r.StatusCode, r.Header, string(text)}
}

func (s *setup) auth() string { return "Authorization: Bearer " + s.agent }
