package extauthz_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
)

// A web is the handler behind a real server.
type web struct {
	*script
	url string
	log *bytes.Buffer
}

func serveHTTP(t testing.TB, decide func(context.Context, authz.Request) (authz.Decision, error)) *web {
	t.Helper()
	w := &web{script: &script{decide: decide}, log: &bytes.Buffer{}}
	c := config(t, w.script, w.log)
	c.Body = 1 << 16
	c.APIs = append(c.APIs, extauthz.API{Name: "open", Router: c.APIs[0].Router, Prefix: "/v1"})
	gate, err := extauthz.New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gate)
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

// do asks as a gateway; each header is "Name: value", and the API's host is
// pets.test.
func (w *web) do(t testing.TB, method, target, body string, headers ...string) (int, http.Header, string) {
	t.Helper()
	// The length of a body is not announced: that alone must not be trusted.
	var r io.Reader
	if body != "" {
		r = io.MultiReader(strings.NewReader(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), method, w.url, r)
	if err != nil {
		t.Fatal(err)
	}
	// The target as it is written: Opaque is not made up.
	req.URL.Opaque = target
	req.Host = "pets.test"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

const (
	asGateway = "Bailiwick-PEP: Bearer gateway-key"
	asAgent   = "Authorization: Bearer agent-key"
)

// Envoy over HTTP sends the request itself below a prefix.
func TestEnvoyOverHTTPIsDecidedOnTheOriginalPath(t *testing.T) {
	t.Parallel()
	w := serveHTTP(t, allowAll)
	status, h, _ := w.do(t, "GET", "/ext_authz/pets/v1/pets/7?q=a%20b", "", asGateway, asAgent)
	got := w.last()
	if status != 200 || h.Get("Bailiwick-Decision") != "d1" || got.Action != "pets/getPet" || string(got.Input) != `{"petId":"7","q":"a b"}` ||
		got.PEP.Value != "gateway-key" || got.Credential.Value != "agent-key" || got.Gate != "ext_authz" {
		t.Errorf("got %d %v, decided %+v", status, h, got)
	}
	body := []string{asGateway, asAgent, "Content-Type: application/json", "X-Envoy-Auth-Partial-Body: false"}
	if status, _, text := w.do(t, "POST", "/ext_authz/pets/v1/pets", `{"name":"rex"}`, body...); status != 200 || string(w.last().Input) != `{"body":{"name":"rex"}}` {
		t.Errorf("a whole body: %d %s, decided %s", status, text, w.last().Input)
	}
	for name, tt := range map[string]struct {
		method, target, body string
		headers              []string
		status               int
	}{
		"partial body":       {"POST", "/ext_authz/pets/v1/pets", "{}", []string{asGateway, asAgent, "Content-Type: application/json", "X-Envoy-Auth-Partial-Body: true"}, 403},
		"no word on it":      {"POST", "/ext_authz/pets/v1/pets", "{}", body[:3], 403},
		"both words":         {"POST", "/ext_authz/pets/v1/pets", "{}", append(body[:4:4], "X-Envoy-Auth-Partial-Body: true"), 403},
		"no body":            {"POST", "/ext_authz/pets/v1/pets", "", []string{asGateway, asAgent, "X-Envoy-Auth-Partial-Body: false"}, 403},
		"large body":         {"POST", "/ext_authz/pets/v1/pets", `"` + strings.Repeat("x", 1<<16) + `"`, body, 403},
		"body of none":       {"DELETE", "/ext_authz/pets/v1/pets/7", "x", []string{asGateway, asAgent}, 403},
		"dots":               {"GET", "/ext_authz/pets/v1/pets/../pets/7", "", body[:2], 403},
		"dots in the prefix": {"GET", "/ext_authz/other/../pets/v1/pets/7", "", body[:2], 403},
		"double slash":       {"GET", "/ext_authz/pets/v1//pets", "", body[:2], 403},
		"unknown API":        {"GET", "/ext_authz/other/v1/pets", "", body[:2], 403},
		"no path":            {"GET", "/ext_authz/pets", "", body[:2], 403},
		"elsewhere":          {"GET", "/v1/pets", "", body[:2], 403},
		"no gateway":         {"GET", "/ext_authz/pets/v1/pets", "", body[1:2], 401},
		"two gateways":       {"GET", "/ext_authz/pets/v1/pets", "", []string{asGateway, asGateway, asAgent}, 401},
	} {
		status, _, text := w.do(t, tt.method, tt.target, tt.body, tt.headers...)
		if status != tt.status {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}

// What a gateway says of a request in headers it says once, and all of it.
func TestWhatAGatewaySaysInHeadersIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := serveHTTP(t, allowAll)
	for _, g := range []struct{ at, method, uri, host string }{
		{"/auth/nginx/open", "X-Original-Method", "X-Original-URI", "X-Original-Host"},
		{"/auth/forward/open?q=appended", "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host"},
	} {
		said := []string{g.method + ": DELETE", g.uri + ": /v1/pets/7", g.host + ": pets.test"}
		all := append([]string{asGateway, asAgent}, said...)
		if status, h, text := w.do(t, "GET", g.at, "", all...); status != 200 || w.last().Action != "open/deletePet" || h.Get("Bailiwick-Decision") == "" {
			t.Errorf("%s: %d %s, decided %s", g.at, status, text, w.last().Action)
		}
		for i := range said {
			missing := append(append([]string{}, all[:2+i]...), all[3+i:]...)
			name, _, _ := strings.Cut(said[i], ":")
			for what, headers := range map[string][]string{
				"missing": missing, "twice": append(all[:len(all):len(all)], said[i]), "empty": append(missing[:len(missing):len(missing)], name+": "),
				"odd": append(missing[:len(missing):len(missing)], name+": /v1/pets/\xff"),
			} {
				if status, _, _ := w.do(t, "GET", g.at, "", headers...); status != 403 {
					t.Errorf("%s: %s %s: %d", g.at, name, what, status)
				}
			}
		}
		if status, _, _ := w.do(t, "POST", g.at, "", all...); status != 403 {
			t.Errorf("%s: asked by POST: %d", g.at, status)
		}
		if status, _, _ := w.do(t, "GET", g.at, "x", all...); status != 403 {
			t.Errorf("%s: asked with a body: %d", g.at, status)
		}
		if status, _, _ := w.do(t, "GET", g.at, "", all[1:]...); status != 401 {
			t.Errorf("%s: asked without a key: %d", g.at, status)
		}
	}
}

// nginx makes a 500 of any status it does not know; others pass it on.
func TestNginxIsToldOnly401And403(t *testing.T) {
	t.Parallel()
	for code, want := range map[string][2]int{
		authz.ReasonUnauthenticated: {401, 401}, authz.ReasonForbidden: {403, 403}, authz.ReasonOverloaded: {403, 429}, authz.ReasonAuditDown: {403, 503},
	} {
		w := serveHTTP(t, denies(code))
		nginx, h, _ := w.do(t, "GET", "/auth/nginx/pets", "", asGateway, asAgent, "X-Original-Method: GET", "X-Original-URI: /v1/pets", "X-Original-Host: pets.test")
		other, _, _ := w.do(t, "GET", "/auth/forward/pets", "", asGateway, asAgent, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /v1/pets", "X-Forwarded-Host: pets.test")
		if got := [2]int{nginx, other}; got != want || h.Get("Bailiwick-Decision") != "d9" || (nginx == 401) != (h.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %v, want %v; %v", code, got, want, h)
		}
	}
}

func TestAGateIsRefusedWhatWouldBeUnsafe(t *testing.T) {
	t.Parallel()
	r := router(t)
	api := func(change func(*extauthz.API)) func(*extauthz.Config) {
		return func(c *extauthz.Config) {
			a := extauthz.API{Name: "other", Router: r, Hosts: []string{"other.test"}}
			change(&a)
			c.APIs = append(c.APIs, a)
		}
	}
	for name, change := range map[string]func(*extauthz.Config){
		"no decider":       func(c *extauthz.Config) { c.Decider = nil },
		"no logger":        func(c *extauthz.Config) { c.Logger = nil },
		"no API":           func(c *extauthz.Config) { c.APIs = nil },
		"empty peer":       func(c *extauthz.Config) { c.Peers = map[string]string{"": "clerk"} },
		"peer of nobody":   func(c *extauthz.Config) { c.Peers = map[string]string{"spiffe://x/y": ""} },
		"name":             api(func(a *extauthz.API) { a.Name = "a/b" }),
		"name twice":       api(func(a *extauthz.API) { a.Name = "pets" }),
		"no router":        api(func(a *extauthz.API) { a.Router = nil }),
		"host with a port": api(func(a *extauthz.API) { a.Hosts = []string{"other.test:80"} }),
		"upper case host":  api(func(a *extauthz.API) { a.Hosts = []string{"Other.test"} }),
		"empty host":       api(func(a *extauthz.API) { a.Hosts = []string{""} }),
		"place twice":      api(func(a *extauthz.API) { a.Hosts, a.Prefix = []string{"pets.test"}, "/v1" }),
		"slash at the end": api(func(a *extauthz.API) { a.Prefix = "/v1/" }),
		"dots":             api(func(a *extauthz.API) { a.Prefix = "/.." }),
		"escape":           api(func(a *extauthz.API) { a.Prefix = "/%76" }),
	} {
		c := config(t, &script{decide: allowAll}, &bytes.Buffer{})
		c.Logger = slog.New(slog.DiscardHandler)
		change(&c)
		if _, err := extauthz.New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
