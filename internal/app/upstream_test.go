package app

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStdioServersGetAMinimalEnvironment(t *testing.T) {
	t.Setenv("HOME", "/home/someone")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	c := &Config{Upstreams: map[string]Upstream{"notes": {Command: "notes", Env: map[string]string{"LEVEL": "1", "HOME": "/srv"}}}}
	s, err := c.Server("notes")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HOME=/srv", "LEVEL=1", "PATH=" + os.Getenv("PATH")} {
		if !slices.Contains(s.Env, want) {
			t.Errorf("the environment lacks %s: %q", want, s.Env)
		}
	}
	if strings.Contains(strings.Join(s.Env, "\n"), "AWS") {
		t.Errorf("the environment leaks: %q", s.Env)
	}
	if _, err := c.Server("nobody"); err == nil || !strings.Contains(err.Error(), "notes") {
		t.Errorf("got %v, want an error that names what there is", err)
	}
}

func TestTokenIsReadForEachRequestAndStaysWithItsServer(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
	}))
	t.Cleanup(srv.Close)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the token went to another server")
	}))
	t.Cleanup(elsewhere.Close)

	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	c := &Config{Upstreams: map[string]Upstream{"notes": {URL: srv.URL, TokenFile: file}}}
	s, err := c.Server("notes")
	if err != nil {
		t.Fatal(err)
	}
	get := func(url string) error {
		t.Helper()
		res, err := s.Client.Get(url)
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	if err := get(srv.URL); err != nil {
		t.Fatal(err)
	}
	write("two")
	if err := get(srv.URL); err != nil {
		t.Fatal(err)
	}
	if want := []string{"Bearer one", "Bearer two"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := get(elsewhere.URL); err == nil {
		t.Error("a request to another server was sent")
	}
	for _, bad := range []string{"", " \n", "a\nb", strings.Repeat("x", maxToken+1)} {
		write(bad)
		if err := get(srv.URL); err == nil {
			t.Errorf("a token file of %d bytes is accepted", len(bad))
		}
		if _, err := c.Server("notes"); err == nil {
			t.Errorf("a server with a token file of %d bytes is accepted", len(bad))
		}
	}
}
