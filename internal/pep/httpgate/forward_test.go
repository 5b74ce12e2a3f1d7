package httpgate_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
)

// For any request: if it reaches the upstream, then as the same path, query,
// arguments and body that were decided.
func TestDecidedRequestIsSentRequest(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base+"/base", allowAll, nil)
	router := document(t).Router()
	segment := rapid.OneOf(
		rapid.SampledFrom([]string{"pets", "mine", "photo", "7", "tom", "MINE", "%6dine", "a%20b", "a+b", "%e2%82%ac", "a:b", "a@b", "a,b", "a=b", "a&b", "'a'", "a%3Fb", "a%23b", "%41",
			"", ".", "..", "%2e%2e", "a%2fb", "a%5cb", "a;b", "a%3bb", "%25", "%252e", "%00", "%ff", "a#b", "a%", "*", "!$()~", "..%00"}),
		rapid.StringMatching(`[A-Za-z0-9%._~;@-]{1,8}`),
	)
	text := rapid.OneOf(
		rapid.SampledFrom([]string{"1", "a+b", "a%20b", "%26x%3D1", "%e2%82%ac", "1&q=2", "1;x=2", "1#f", "a%00", "\"<>`{}|\\^[]", "", "%", "1&admin=1"}),
		rapid.StringMatching(`[A-Za-z0-9%+&;=]{0,8}`),
	)
	query := rapid.Custom(func(t *rapid.T) string {
		name := rapid.SampledFrom([]string{"", "", "?", "?q=", "?q=", "?%71=", "?tag=a&tag=", "?limit=5&tag=", "?admin="}).Draw(t, "name")
		if !strings.HasSuffix(name, "=") {
			return name
		}
		return name + text.Draw(t, "value")
	})
	type content struct{ kind, text string }
	body := rapid.SampledFrom([]content{
		{"application/json", `{"name":"Tom"}`}, {"application/json", ` {"name" : "T\u006fm" }` + "\n"}, {"application/json", `{"name":"a","name":"b"}`}, {"application/json", `{}{}`},
		{"application/x-www-form-urlencoded", "food=a+b%26c"}, {"application/x-www-form-urlencoded", "food=1;x=2"}, {"image/png", "\x00\xff"}, {"text/plain", "x"}, {"", ""},
	})
	requests := []func(t *rapid.T) (method, path string, b content){
		func(t *rapid.T) (string, string, content) { return "GET", "/pets", content{} },
		func(t *rapid.T) (string, string, content) { return "POST", "/pets", body.Draw(t, "body") },
		func(t *rapid.T) (string, string, content) { return "GET", "/pets/" + segment.Draw(t, "id"), content{} },
		func(t *rapid.T) (string, string, content) { return "HEAD", "/pets/" + segment.Draw(t, "id"), content{} },
		func(t *rapid.T) (string, string, content) {
			return "PATCH", "/pets/" + segment.Draw(t, "id"), body.Draw(t, "body")
		},
		func(t *rapid.T) (string, string, content) {
			return "PUT", "/pets/" + segment.Draw(t, "id") + "/photo", body.Draw(t, "body")
		},
		func(t *rapid.T) (string, string, content) {
			return rapid.SampledFrom([]string{"GET", "DELETE", "OPTIONS", "get"}).Draw(t, "method"), "/" + strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(t, "segments"), "/"), body.Draw(t, "body")
		},
	}
	reached := 0
	rapid.Check(t, func(t *rapid.T) {
		method, path, b := rapid.SampledFrom(requests).Draw(t, "request")(t)
		target := "/api/pets" + path + query.Draw(t, "query")
		headers := []string{}
		if b.kind != "" {
			headers = append(headers, "Content-Type: "+b.kind)
		}
		s.raw(t, message(method, target, b.text, headers...))
		got := u.take()
		if len(got) == 0 {
			return
		}
		reached++
		want := seen{method: method, target: "/base" + strings.TrimPrefix(target, "/api/pets"), body: b.text}
		want.target = strings.TrimSuffix(want.target, "?") // an empty query is none
		if len(got) != 1 || got[0].method != want.method || !sameTarget(got[0].target, want.target) || got[0].body != want.body {
			t.Fatalf("sent %+v\ngot %+v", want, got)
		}
		// Who reads what the upstream got finds what was decided.
		up, err := url.ParseRequestURI(strings.TrimPrefix(got[0].target, "/base"))
		if err != nil {
			t.Fatal(err)
		}
		call, err := router.Route(got[0].method, up, got[0].header, []byte(got[0].body), true)
		if err != nil || string(call.Input) != string(s.last().Input) || "pets/"+call.Tool != s.last().Action {
			t.Fatalf("decided %s %s\nsent %+v: %v", s.last().Action, s.last().Input, call, err)
		}
	})
	if reached < 10 {
		t.Errorf("%d requests reached the upstream: the test says little", reached)
	}
}

// sameTarget compares request targets byte by byte, but for a '#' in the path,
// which no client may send and the gate encodes.
func sameTarget(got, want string) bool {
	path, query, _ := strings.Cut(want, "?")
	path = strings.ReplaceAll(path, "#", "%23")
	if query != "" {
		path += "?" + query
	}
	return got == path
}

// hostile is an upstream that answers every connection with the same bytes, and
// hangs up, or does not.
func hostile(t testing.TB, answer string, hang bool) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = io.WriteString(conn, answer)
			}
			if hang {
				<-ctx.Done()
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		<-done
	})
	return "http://" + ln.Addr().String()
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	closed := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return "http://" + ln.Addr().String()
	}
	for _, tt := range []struct {
		name     string
		upstream func(t testing.TB) string
		status   int
		code     string
		outcome  authz.Outcome
	}{
		{"success", func(t testing.TB) string { return hostile(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false) }, 200, "",
			authz.Outcome{Status: authz.OutcomeSuccess, Bytes: 2, Output: []string{"hi"}}},
		{"no content", func(t testing.TB) string { return hostile(t, "HTTP/1.1 204 No Content\r\n\r\n", false) }, 204, "",
			authz.Outcome{Status: authz.OutcomeSuccess}},
		{"chunks", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false)
		}, 200, "", authz.Outcome{Status: authz.OutcomeSuccess, Bytes: 2, Output: []string{"hi"}}},
		{"error", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", false)
		}, 404, "",
			authz.Outcome{Status: authz.OutcomeError, Bytes: 2, Error: "status 404", Output: []string{"no"}}},
		{"nobody there", func(testing.TB) string { return closed() }, 502, authz.ReasonUpstreamDown,
			authz.Outcome{Status: authz.OutcomeNotRun, Error: "the upstream could not be reached"}},
		{"no answer", func(t testing.TB) string { return hostile(t, "", false) }, 502, "upstream_lost",
			authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"hangs", func(t testing.TB) string { return hostile(t, "", true) }, 504, "upstream_timeout",
			authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"garbage", func(t testing.TB) string { return hostile(t, "220 mail ready\r\n", false) }, 502, "upstream_lost",
			authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"endless header", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n", false)
		}, 502, "upstream_lost", authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"dies in its answer", func(t testing.TB) string { return hostile(t, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhi", false) }, 200, "",
			authz.Outcome{Status: authz.OutcomeAmbiguous, Bytes: 2, Error: "the answer was cut off", Output: []string{"hi"}}},
		{"dies between chunks", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", false)
		}, 200, "", authz.Outcome{Status: authz.OutcomeAmbiguous, Bytes: 2, Error: "the answer was cut off", Output: []string{"hi"}}},
		{"two lengths", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", false)
		}, 502, "upstream_lost", authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"another protocol", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw", false)
		}, 502, "upstream_lost", authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"another protocol without a name", func(t testing.TB) string { return hostile(t, "HTTP/1.1 101 Switching Protocols\r\n\r\nraw", false) }, 502,
			"upstream_lost", authz.Outcome{Status: authz.OutcomeAmbiguous, Error: "the upstream did not answer"}},
		{"does not know the gate", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"give it to me\"\r\nContent-Length: 2\r\n\r\nno", false)
		}, 502, "upstream_credentials", authz.Outcome{Status: authz.OutcomeError, Error: "status 401"}},
		{"takes the gate for a proxy's client", func(t testing.TB) string {
			return hostile(t, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n", false)
		}, 502, "upstream_credentials", authz.Outcome{Status: authz.OutcomeError, Error: "status 407"}},
		{"certificate of nobody", func(t testing.TB) string {
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Config.ErrorLog = discardLog()
			srv.StartTLS()
			t.Cleanup(srv.Close)
			return srv.URL
		}, 502, authz.ReasonUpstreamDown, authz.Outcome{Status: authz.OutcomeNotRun, Error: "the upstream could not be reached"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, tt.upstream(t), allowAll, func(c *httpgate.Config) {
				if tt.code == "upstream_timeout" {
					c.Limits.Answer = 50 * time.Millisecond
				}
			})
			res, body := s.raw(t, message("DELETE", "/api/pets/pets/7", ""))
			if res.StatusCode != tt.status || res.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if tt.code != "" {
				if p := problemOf(t, res, body); p.Code != tt.code || p.Decision != "d1" {
					t.Errorf("got %s", body)
				}
			}
			tt.outcome.Decision = "d1"
			if d := cmp.Diff(tt.outcome, s.outcome(t)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestUpstreamIsKnownByItsCertificate(t *testing.T) {
	t.Parallel()
	u := &recorder{}
	srv := httptest.NewUnstartedServer(u)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL, allowAll, func(c *httpgate.Config) {
		c.APIs[0].Roots = x509.NewCertPool()
		c.APIs[0].Roots.AddCert(srv.Certificate())
	})
	if res, body := s.raw(t, message("GET", "/api/pets/pets/a%20b?q=x+y", "")); res.StatusCode != 200 || string(body) != "done" {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	if got := u.take(); len(got) != 1 || got[0].target != "/pets/a%20b?q=x+y" {
		t.Errorf("the upstream got %+v", got)
	}
}

// An upstream that answers with everything it must not: the gate's credential
// in every kind of header, and headers that lead the agent past the gate.
func TestAgentNeverSeesUpstreamCredential(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 103 Early Hints\r\nX-Early: Bearer " + secret + "\r\nSet-Cookie: early=1\r\n\r\n" +
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n" +
		"X-Echo: Bearer " + secret + "\r\nX-Part: token=" + secret + "&x=1\r\nX-" + secret + ": 1\r\nX-Two: fine\r\nX-Two: " + secret + "\r\n" +
		"Set-Cookie: session=1\r\nWWW-Authenticate: Bearer\r\nAlt-Svc: h3=\":443\"\r\nRefresh: 0; url=/\r\nAccess-Control-Allow-Origin: *\r\n" +
		"Bailiwick-Decision: forged\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Fine: yes\r\nEtag: \"1\"\r\n\r\n" +
		"2\r\nhi\r\n0\r\nX-Trailer: Bearer " + secret + "\r\nX-Unannounced: " + secret + "\r\n\r\n"
	s := serve(t, hostile(t, answer, false), allowAll, nil)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, message("GET", "/api/pets/pets/7", "")); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(all), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Date:") })
	slices.Sort(lines)
	want := []string{"Bailiwick-Decision: d1", "Connection: close", "Etag: \"1\"", "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "X-Fine: yes"}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	if rest != "2\r\nhi\r\n0\r\n\r\n" {
		t.Errorf("the body is %q", rest)
	}
	if log := s.log.String(); strings.Contains(log, secret) || strings.Contains(log, agentKey) || !strings.Contains(log, `"headers":4`) {
		t.Errorf("the log is %s", log)
	}
	if o := s.outcome(t); o.Status != authz.OutcomeSuccess {
		t.Errorf("outcome %+v", o)
	}
}

func TestSecretsAreNotLoggedWhenThingsFail(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "HTTP/1.1 200 " + secret + "\r\nbroken " + secret, "Bearer " + secret} {
		s := serve(t, hostile(t, answer, false), allowAll, nil)
		s.raw(t, message("GET", "/api/pets/pets/7?q="+agentKey, "", "Cookie: "+agentKey))
		s.outcome(t)
		if log := s.log.String(); strings.Contains(log, agentKey) || strings.Contains(log, secret) && answer == "" {
			t.Errorf("%q: the log is %s", answer, log)
		}
	}
}

func TestRedirectsStayBehindTheGate(t *testing.T) {
	t.Parallel()
	hits := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		w.Header().Set("Location", strings.ReplaceAll(r.URL.Query().Get("q"), "SELF", "http://"+r.Host))
		w.WriteHeader(http.StatusFound)
	}))
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL+"/base", allowAll, nil)
	for i, tt := range []struct{ location, want string }{
		{"SELF/base/pets/8?q=1", "/api/pets/pets/8?q=1"},
		{"/base/pets/8", "/api/pets/pets/8"},
		{"8", "/api/pets/pets/8"},
		{"../pets/a%2fb", "/api/pets/pets/a%2fb"},
		{"SELF/other", ""},
		{"SELF/basement", ""},
		{"/base/../admin", ""},
		{"https://elsewhere.example/base/pets/8", ""},
		{"https://" + strings.TrimPrefix(srv.URL, "http://") + "/base/pets", ""},
		{"//elsewhere.example/base/pets", ""},
		{"http://user@" + strings.TrimPrefix(srv.URL, "http://") + "/base/pets", ""},
		{"javascript:alert(1)", ""},
	} {
		res, _ := s.raw(t, message("GET", "/api/pets/pets/7?q="+url.QueryEscape(tt.location), ""))
		if res.StatusCode != 302 || res.Header.Get("Location") != tt.want {
			t.Errorf("%s: got %d %q, want %q", tt.location, res.StatusCode, res.Header.Get("Location"), tt.want)
		}
		if hits != i+1 {
			t.Fatalf("%s: the gate followed it", tt.location)
		}
	}
}

// A part of an answer arrives before the rest exists.
func TestAnswersAreStreamed(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
			_, _ = io.WriteString(w, "two")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL, allowAll, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/api/pets/pets/7", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "one" {
		t.Fatalf("got %q, %v", first, err)
	}
	close(next)
	rest, err := io.ReadAll(res.Body)
	if err != nil || string(rest) != "two" {
		t.Errorf("got %q, %v", rest, err)
	}
	if o := s.outcome(t); o.Status != authz.OutcomeSuccess || o.Bytes != 6 {
		t.Errorf("outcome %+v", o)
	}
}

// A client that goes away does not know what became of its request, and nor
// does the gate.
func TestClientThatGoesAwayIsAmbiguous(t *testing.T) {
	t.Parallel()
	entered, left := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	}))
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL, allowAll, nil)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, message("DELETE", "/api/pets/pets/7", "")); err != nil {
		t.Fatal(err)
	}
	<-entered
	_ = conn.Close()
	if o := s.outcome(t); o.Status != authz.OutcomeAmbiguous {
		t.Errorf("outcome %+v", o)
	}
	select {
	case <-left: // and the upstream is told
	case <-time.After(patience):
		t.Error("the upstream still works for nobody")
	}
}

// An answer without an end is cut.
func TestEndlessAnswerIsCut(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<16))
		}
	}))
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL, allowAll, func(c *httpgate.Config) { c.Limits.Call = 200 * time.Millisecond })
	if res, _ := s.raw(t, message("GET", "/api/pets/pets/7", "")); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
	if o := s.outcome(t); o.Status != authz.OutcomeAmbiguous || o.Bytes == 0 {
		t.Errorf("outcome %+v", o)
	}
	// So is one to a client that does not read it.
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, message("GET", "/api/pets/pets/7", "")); err != nil {
		t.Fatal(err)
	}
	if o := s.outcome(t); o.Status != authz.OutcomeAmbiguous {
		t.Errorf("outcome %+v", o)
	}
}

// An answer that begins and does not go on is cut.
func TestHangingAnswerIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, hostile(t, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", true), allowAll, func(c *httpgate.Config) { c.Limits.Call = 200 * time.Millisecond })
	start := time.Now()
	s.raw(t, message("GET", "/api/pets/pets/7", ""))
	if o := s.outcome(t); o.Status != authz.OutcomeAmbiguous || o.Bytes != 2 || time.Since(start) > patience/2 {
		t.Errorf("outcome %+v after %v", o, time.Since(start))
	}
}

// The time to read a request is not the time to answer it.
func TestUpstreamMayTakeLongerThanTheBody(t *testing.T) {
	t.Parallel()
	const read = 50 * time.Millisecond
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(4 * read)
		defer timer.Stop()
		select {
		case <-timer.C:
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	s := serve(t, srv.URL, allowAll, func(c *httpgate.Config) { c.Limits.Read = read })
	if res, body := s.raw(t, message("GET", "/api/pets/pets/7", "")); res.StatusCode != 200 || string(body) != "done" {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

// A connection that has carried one call carries the next one after the time of
// the first is over.
func TestDeadlinesAreForOneCall(t *testing.T) {
	t.Parallel()
	_, base := record(t)
	const call = 300 * time.Millisecond
	s := serve(t, base, allowAll, func(c *httpgate.Config) { c.Limits.Call, c.Limits.Read = call, call })
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for range 2 {
		if _, err := io.WriteString(conn, strings.Replace(message("GET", "/api/pets/pets/7", ""), "Connection: close\r\n", "", 1)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
			t.Fatalf("got %q, %v", body, err)
		}
		_ = res.Body.Close()
		timer := time.NewTimer(2 * call)
		<-timer.C
	}
}

// Requests that two programs could take for different ones, or for more than
// one, reach no upstream.
func TestShapesOfRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, func(c *httpgate.Config) { c.Limits.Body = 1000; c.Limits.Read = 100 * time.Millisecond })
	const head = "Host: gate\r\nConnection: close\r\nAuthorization: Bearer " + agentKey + "\r\n"
	post := "POST /api/pets/pets HTTP/1.1\r\n" + head + "Content-Type: application/json\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"WebSocket", message("GET", "/api/pets/pets/7", "", "Upgrade: websocket", "Connection: Upgrade"), 400},
		{"upgrade without a name", message("GET", "/api/pets/pets/7", "", "Connection: upgrade"), 400},
		{"HTTP/2 by upgrade", message("GET", "/api/pets/pets/7", "", "Upgrade: h2c", "HTTP2-Settings: x"), 400},
		{"CONNECT", "CONNECT /api/pets/pets/7 HTTP/1.1\r\n" + head + "\r\n", 405},
		{"TRACE", message("TRACE", "/api/pets/pets/7", ""), 405},
		{"two sessions", message("GET", "/api/pets/pets/7", "", "Bailiwick-Session: a", "Bailiwick-Session: b"), 400},
		{"long session", message("GET", "/api/pets/pets/7", "", "Bailiwick-Session: "+strings.Repeat("x", 129)), 400},
		{"session with odd bytes", message("GET", "/api/pets/pets/7", "", "Bailiwick-Session: \xff"), 400},
		{"large", message("POST", "/api/pets/pets", `{"name":"`+strings.Repeat("x", 1000)+`"}`, "Content-Type: application/json"), 413},
		{"large in chunks", post + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + strings.Repeat("x", 1000) + "\r\n3e8\r\n" + strings.Repeat("x", 1000) + "\r\n0\r\n\r\n", 413},
		{"large that is only announced", post + "Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n", 413},
		{"body that does not come", post + "Content-Length: 10\r\n\r\n{", 400},
		{"trailers", post + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\n{}\r\n0\r\nX-T: 1\r\n\r\n", 400},
		{"two lengths", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		{"length that is none", post + "Content-Length: +2\r\n\r\n{}", 400},
		{"unknown transfer coding", post + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501},
		{"chunk of no size", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400},
		{"space before the colon", message("GET", "/api/pets/pets/7", "", "Content-Length : 2"), 400},
		{"body of a GET", message("GET", "/api/pets/pets/7", "x"), 400},
		{"no host", "GET /api/pets/pets/7 HTTP/1.1\r\n\r\n", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, body := s.raw(t, tt.request)
			if res.StatusCode != tt.status {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if got := u.take(); len(got) != 0 {
				t.Errorf("the upstream got %+v", got)
			}
		})
	}
}

// Where a length and chunks are both given, chunks count (RFC 9112 §6.3), and
// what follows is not a second request to the upstream.
func TestSmuggledRequestIsNotSent(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, nil)
	s.raw(t, "POST /api/pets/pets HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"e\r\n{\"name\":\"Tom\"}\r\n0\r\n\r\nDELETE /pets/7 HTTP/1.1\r\nHost: x\r\n\r\n")
	for _, got := range u.take() {
		if got.method != "POST" || got.body != `{"name":"Tom"}` || got.header.Get("Transfer-Encoding") != "" {
			t.Errorf("the upstream got %+v", got)
		}
	}
}

func TestExpectedContinueIsTheGatesOwn(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, nil)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	const body = `{"name":"Tom"}`
	fmt.Fprintf(conn, "POST /api/pets/pets HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %s\r\n\r\n", strconv.Itoa(len(body)))
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if len(s.asked) != 0 {
		t.Error("it was decided without its body")
	}
	if _, err := io.WriteString(conn, body); err != nil {
		t.Fatal(err)
	}
	s.outcome(t)
	if got := u.take(); len(got) != 1 || got[0].body != body || got[0].header.Get("Expect") != "" {
		t.Errorf("the upstream got %+v", got)
	}
}

// A chunked body is sent with its length, as the bytes that were decided.
func TestChunksBecomeOneBody(t *testing.T) {
	t.Parallel()
	u, base := record(t)
	s := serve(t, base, allowAll, nil)
	res, body := s.raw(t, "POST /api/pets/pets HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"7\r\n{\"name\"\r\n7;x=y\r\n:\"Tom\"}\r\n0\r\n\r\n")
	if got := u.take(); res.StatusCode != 200 || len(got) != 1 || got[0].body != `{"name":"Tom"}` || got[0].header.Get("Content-Length") != "14" {
		t.Errorf("got %d %s; the upstream got %+v", res.StatusCode, body, got)
	}
}
