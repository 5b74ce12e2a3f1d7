package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Server says how to reach the upstream of a name. A stdio server gets a
// minimal environment: what the gateway's own holds is none of its business.
func (c *Config) Server(name string) (mcp.Server, error) {
	u, ok := c.Upstreams[name]
	if !ok {
		return mcp.Server{}, fmt.Errorf("no upstream is named %q: %s", name, listOr(c.Servers(), "none is configured"))
	}
	s := mcp.Server{Name: name, Command: u.Command, Args: u.Args, URL: u.URL, Stderr: os.Stderr}
	if u.Command != "" {
		s.Dir, s.Env = u.Cwd, environment(u.Env)
		return s, nil
	}
	if u.TokenFile == "" {
		return s, nil
	}
	home, err := url.Parse(u.URL)
	if err != nil {
		return mcp.Server{}, fmt.Errorf("upstream %s: %w", name, err)
	}
	token := tokenTransport{file: u.TokenFile, home: home, next: newTransport()}
	if _, err := token.read(); err != nil {
		return mcp.Server{}, fmt.Errorf("upstream %s: %w", name, err)
	}
	s.Client = &http.Client{Transport: token}
	return s, nil
}

func listOr(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return "there are " + strings.Join(names, ", ")
}

// environment is what a stdio server needs to run at all, and what is
// configured for it.
func environment(configured map[string]string) []string {
	env := map[string]string{}
	for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR", "USER"} {
		if v, ok := os.LookupEnv(name); ok {
			env[name] = v
		}
	}
	for name, v := range configured {
		env[name] = v
	}
	out := make([]string, 0, len(env))
	for name, v := range env {
		out = append(out, name+"="+v)
	}
	slices.Sort(out)
	return out
}

// newTransport is a transport of its own, so that upstreams share nothing.
func newTransport() *http.Transport {
	dial := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// maxToken bounds a token file in bytes.
const maxToken = 64 << 10

// A tokenTransport puts the upstream's token on requests to it. The file is
// read for each, so that a rotated token is used at once.
type tokenTransport struct {
	file string
	home *url.URL
	next http.RoundTripper
}

func (t tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	// The token is for one origin, whatever the server answers.
	if r.URL.Scheme != t.home.Scheme || r.URL.Host != t.home.Host {
		return nil, closeBody(r, fmt.Errorf("a request to %s must not carry the token for %s", r.URL.Host, t.home.Host))
	}
	token, err := t.read()
	if err != nil {
		return nil, closeBody(r, err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return t.next.RoundTrip(r)
}

// closeBody closes the body of a request that is not sent, as a RoundTripper
// must.
func closeBody(r *http.Request, err error) error {
	if r.Body == nil {
		return err
	}
	return errors.Join(err, r.Body.Close())
}

func (t tokenTransport) read() (string, error) {
	f, err := os.Open(t.file)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	switch {
	case token == "":
		return "", fmt.Errorf("the token file %s is empty", t.file)
	case len(b) > maxToken:
		return "", fmt.Errorf("the token file %s is too large", t.file)
	case strings.ContainsAny(token, "\r\n\x00"):
		return "", errors.New("the token file holds more than one line")
	}
	return token, nil
}
