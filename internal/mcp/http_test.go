package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// serveSDK serves a genuine server over streamable HTTP.
func serveSDK(t *testing.T, s *sdkServer, o *sdk.StreamableHTTPOptions) *httptest.Server {
	t.Helper()
	return serve(t, sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s.Server }, o))
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestHTTPLegacySpeaksToAGenuineServer(t *testing.T) {
	t.Parallel()
	for _, json := range []bool{false, true} {
		t.Run(fmt.Sprintf("json=%v", json), func(t *testing.T) {
			t.Parallel()
			var deleted, standing atomic.Int32
			inner := sdk.NewStreamableHTTPHandler(func() func(*http.Request) *sdk.Server {
				s := newSDKServer(nil)
				return func(*http.Request) *sdk.Server { return s.Server }
			}(), &sdk.StreamableHTTPOptions{JSONResponse: json})
			srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.Method {
				case http.MethodDelete:
					deleted.Add(1)
				case http.MethodGet:
					standing.Add(1)
				}
				inner.ServeHTTP(w, r)
			}))
			c := dial(t, Server{URL: srv.URL}, Legacy, nil)
			handshake(t, c)
			if c.Session() == "" {
				t.Error("no session")
			}
			var progress []string
			r, err := c.Call(t.Context(), toolCall("echo", `{"a":1}`), CallOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := resultText(t, r.Message); got != `{"a":1}` || string(r.Message.ID()) != `"caller-1"` || r.Status != 200 {
				t.Errorf("got %q in %s, status %d", got, r.Message.Bytes(), r.Status)
			}
			_, err = c.Call(t.Context(), toolCall("progress", `{}`), CallOptions{On: func(m *Message) {
				v, _ := Get(m.Params(), "progress")
				progress = append(progress, string(v))
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(progress, " "); got != "1 2 3" && !json {
				t.Errorf("progress before the reply: %q", got)
			}
			eventually(t, "the standing stream is opened", func() bool { return standing.Load() == 1 })
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if deleted.Load() != 1 {
				t.Errorf("the session was ended %d times", deleted.Load())
			}
			if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, ErrNotSent) || !errors.Is(err, ErrClosed) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func TestHTTPLegacyAnswersRequestsOfTheServer(t *testing.T) {
	t.Parallel()
	srv := serveSDK(t, newSDKServer(nil), nil)
	c := dial(t, Server{URL: srv.URL}, Legacy, nil)
	handshake(t, c)
	r, err := c.Call(t.Context(), toolCall("ask", `{}`), CallOptions{On: func(m *Message) {
		if !m.IsRequest() {
			return
		}
		if err := c.Send(t.Context(), NewResult(m.ID(), json.RawMessage(`{"roots":[{"uri":"file:///a"}]}`))); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := resultText(t, r.Message); got != "1" {
		t.Errorf("the server saw %s roots", got)
	}
}

func TestHTTPLegacyHearsTheStandingStream(t *testing.T) {
	t.Parallel()
	s := newSDKServer(nil)
	srv := serveSDK(t, s, nil)
	heard := make(chan string, 10)
	c := dial(t, Server{URL: srv.URL}, Legacy, func(m *Message) { heard <- m.Method() })
	handshake(t, c)
	eventually(t, "a list change is heard", func() bool {
		s.AddTool(&sdk.Tool{Name: "more", InputSchema: json.RawMessage(`{"type":"object"}`)}, nil)
		select {
		case m := <-heard:
			return m == "notifications/tools/list_changed"
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
}

func TestHTTPModernSpeaksToAGenuineServer(t *testing.T) {
	t.Parallel()
	srv := serveSDK(t, newSDKServer(nil), &sdk.StreamableHTTPOptions{Stateless: true})
	c := dial(t, Server{URL: srv.URL}, Modern, nil)
	r, err := c.Call(t.Context(), modernCall(t, "echo", `{"a":1}`), CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := resultText(t, r.Message); got != `{"a":1}` || string(r.Message.ID()) != `"caller-1"` {
		t.Errorf("got %q in %s", got, r.Message.Bytes())
	}
	var progress []string
	_, err = c.Call(t.Context(), modernCall(t, "progress", `{}`), CallOptions{On: func(m *Message) {
		v, _ := Get(m.Params(), "progress")
		progress = append(progress, string(v))
	}})
	if got := strings.Join(progress, " "); err != nil || got != "1 2 3" {
		t.Errorf("progress before the reply: %q, %v", got, err)
	}
	call := modernCall(t, "region", `{"region":"Zürich "}`)
	h, err := ParamHeaders(call, json.RawMessage(`{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err = c.Call(t.Context(), call, CallOptions{Header: h})
	if err != nil {
		t.Fatal(err)
	}
	if got := resultText(t, r.Message); got != EncodeHeaderValue("Zürich ") {
		t.Errorf("the server got the header %q", got)
	}
	// The server checks the mirrored headers, and says so in its own words.
	r, err = c.Call(t.Context(), call, CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := Get(r.Message.Error(), "code"); string(code) != "-32020" || r.Status != http.StatusBadRequest {
		t.Errorf("without the header: status %d, %s", r.Status, r.Message.Bytes())
	}
	if string(r.Message.ID()) != `"caller-1"` {
		t.Errorf("the error has id %s", r.Message.ID())
	}
}

func TestHTTPModernSubscribes(t *testing.T) {
	t.Parallel()
	s := newSDKServer(nil)
	srv := serveSDK(t, s, &sdk.StreamableHTTPOptions{Stateless: true})
	c := dial(t, Server{URL: srv.URL}, Modern, nil)
	if _, err := c.Call(t.Context(), modernCall(t, "echo", `{}`), CallOptions{}); err != nil { // so that the ids differ
		t.Fatal(err)
	}
	params, err := Set(json.RawMessage(modernParams("")), json.RawMessage(`{"toolsListChanged":true}`), "notifications")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Call(ctx, NewRequest(json.RawMessage(`"sub"`), methodListen, params), CallOptions{On: func(m *Message) {
			heard <- m.Method() + " " + GetString(m.Params(), "_meta", MetaSubscriptionID)
		}})
		ended <- err
	}()
	if got := <-heard; got != "notifications/subscriptions/acknowledged sub" {
		t.Errorf("heard %q", got)
	}
	s.AddTool(&sdk.Tool{Name: "more", InputSchema: json.RawMessage(`{"type":"object"}`)}, nil)
	if got := <-heard; got != "notifications/tools/list_changed sub" {
		t.Errorf("heard %q", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, ErrLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestHTTPCancels(t *testing.T) {
	t.Parallel()
	for _, era := range []Era{Legacy, Modern} {
		t.Run(era.String(), func(t *testing.T) {
			t.Parallel()
			s := newSDKServer(nil)
			srv := serveSDK(t, s, &sdk.StreamableHTTPOptions{Stateless: era == Modern, PropagateRequestCancellation: true})
			c := dial(t, Server{URL: srv.URL}, era, nil)
			req := toolCall("wait", `{}`)
			if era == Legacy {
				handshake(t, c)
			} else {
				req = modernCall(t, "wait", `{}`)
			}
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() {
				_, err := c.Call(ctx, req, CallOptions{})
				failed <- err
			}()
			<-s.waiting
			cancel()
			if err := <-failed; !errors.Is(err, ErrLost) || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want ErrLost and context.Canceled", err)
			}
			eventually(t, "the server hears of it", func() bool { return s.cancelled.Load() == 1 })
		})
	}
}

func TestInitializeIsNotCancelled(t *testing.T) {
	t.Parallel()
	// MCP 2025-11-25, Cancellation: a client must not cancel initialize.
	ctx, cancel := context.WithCancel(t.Context())
	s, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
		cancel()
		<-r.Context().Done()
	})
	overHTTP := dial(t, Server{URL: srv.URL}, Legacy, nil)
	req := NewRequest(json.RawMessage(`1`), methodInitialize, nil)
	if _, err := overHTTP.Call(ctx, req, CallOptions{}); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	// A cancellation would still be on its way: the server answers nothing.
	if n := len(overHTTP.link.(*httpLink).farewells); n != 0 || len(s.seen(http.MethodPost)) != 1 {
		t.Error("initialize was cancelled over HTTP")
	}
	l := &stdio{ending: &ending{done: make(chan struct{})}, writes: make(chan *write, 1), cancels: make(chan *Message, 1), pending: map[string]*stdioCall{}}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.call(ctx, &call{req: req, wire: req.ID(), own: req.ID()}); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if len(l.cancels) != 0 {
		t.Error("initialize was cancelled over stdio")
	}
}

// A scripted server answers requests by hand.
type scripted struct {
	t        *testing.T
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	answer   func(w http.ResponseWriter, r *http.Request, m *Message)
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, r)
	s.bodies = append(s.bodies, string(b))
	s.mu.Unlock()
	m, _ := Parse(b) // a GET has no message
	s.answer(w, r, m)
}

// seen returns the requests of a method so far.
func (s *scripted) seen(method string) []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.requests), func(r *http.Request) bool { return r.Method != method })
}

func script(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, m *Message)) (*scripted, *httptest.Server) {
	t.Helper()
	s := &scripted{t: t, answer: answer}
	return s, serve(t, s)
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

func stream(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, text)
	if err := http.NewResponseController(w).Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func answerTo(m *Message) string {
	return `{"jsonrpc":"2.0","id":` + string(m.ID()) + `,"result":{"protocolVersion":"2025-06-18"}}`
}

func TestHTTPHeaders(t *testing.T) {
	t.Parallel()
	t.Run("legacy", func(t *testing.T) {
		t.Parallel()
		s, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
			switch {
			case m != nil && m.Method() == "initialize":
				w.Header().Set(HeaderSession, "s-1")
				writeJSON(w, 200, answerTo(m))
			case m != nil && m.IsRequest():
				writeJSON(w, 200, answerTo(m))
			case r.Method == http.MethodPost:
				w.WriteHeader(http.StatusAccepted)
			default:
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
		})
		c := dial(t, Server{URL: srv.URL, Header: http.Header{"Authorization": {"Bearer ours"}, "Mcp-Session-Id": {"forged"}}}, Legacy, nil)
		handshake(t, c)
		forged := http.Header{HeaderSession: {"forged"}, "Authorization": {"Bearer theirs"}, "Mcp-Param-A": {"x"}}
		if _, err := c.Call(t.Context(), ping(`1`), CallOptions{Header: forged}); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for i, r := range append(s.seen(http.MethodPost), s.seen(http.MethodDelete)...) {
			if got := r.Header["Authorization"]; !slices.Equal(got, []string{"Bearer ours"}) {
				t.Errorf("%s %d: Authorization %q", r.Method, i, got)
			}
			session, version := "s-1", "2025-06-18"
			if i == 0 {
				session, version = "", ""
			}
			if got := r.Header.Get(HeaderSession); got != session {
				t.Errorf("%s %d: session %q, want %q", r.Method, i, got, session)
			}
			if got := r.Header.Get(HeaderProtocolVersion); got != version {
				t.Errorf("%s %d: version %q, want %q", r.Method, i, got, version)
			}
			if got := r.Header.Get("Mcp-Param-A"); got != "" {
				t.Errorf("%s %d: a modern header in the legacy era", r.Method, i)
			}
		}
		if n := len(s.seen(http.MethodDelete)); n != 1 {
			t.Errorf("%d DELETEs", n)
		}
	})
	t.Run("modern", func(t *testing.T) {
		t.Parallel()
		s, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
			w.Header().Set(HeaderSession, "unwanted")
			writeJSON(w, 200, answerTo(m))
		})
		c := dial(t, Server{URL: srv.URL, Header: http.Header{"authorization": {"Bearer ours"}}}, Modern, nil)
		forged := http.Header{
			"Mcp-Session-Id": {"forged"}, "Mcp-Method": {"forged"}, "Mcp-Name": {"forged"}, "MCP-Protocol-Version": {"forged"},
			"Authorization": {"Bearer theirs"}, "X-Other": {"x"}, "Mcp-Param-A": {"x"}, "mcp-param-b": {"y"},
		}
		if _, err := c.Call(t.Context(), modernCall(t, "tool", `{}`), CallOptions{Header: forged}); err != nil {
			t.Fatal(err)
		}
		h := s.seen(http.MethodPost)[0].Header
		want := map[string]string{
			"Authorization": "Bearer ours", "Mcp-Method": "tools/call", "Mcp-Name": "tool", "Mcp-Protocol-Version": ModernVersion,
			"Mcp-Param-A": "x", "Mcp-Param-B": "y", "Mcp-Session-Id": "", "X-Other": "",
			"Accept": "application/json, text/event-stream", "Content-Type": "application/json",
		}
		for name, value := range want {
			if got := strings.Join(h.Values(name), ","); got != value {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
		if c.Session() != "" {
			t.Error("a modern server gave a session")
		}
	})
}

func TestHTTPHostileAnswers(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 128<<10)
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, m *Message)
		want   error // nil: an answer
		status int   // of a StatusError
		hangs  bool
	}{
		{name: "huge JSON", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			writeJSON(w, 200, `{"jsonrpc":"2.0","id":`+string(m.ID())+`,"result":{"x":"`+big+`"}}`)
		}},
		{name: "huge event", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			stream(w, "data: "+big)
		}},
		{name: "endless event", want: ErrLost, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			for r.Context().Err() == nil {
				stream(w, "data: x\n")
			}
		}},
		{name: "endless comments", want: ErrLost, hangs: true, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			for r.Context().Err() == nil {
				stream(w, ": "+big)
			}
		}},
		{name: "endless notifications", want: ErrLost, hangs: true, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			for r.Context().Err() == nil {
				stream(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n")
			}
		}},
		{name: "answers to others", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			writeJSON(w, 200, `{"jsonrpc":"2.0","id":99,"result":{}}`)
		}},
		{name: "answers to others on a stream", answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			stream(w, "data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n\ndata: nonsense\n\nevent: other\ndata: "+answerTo(m)+"x\n\n")
			stream(w, "data: "+answerTo(m)+"\n\n"+"data: "+answerTo(m)+"\n\n")
		}},
		{name: "duplicate names", want: ErrLost, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			stream(w, `data: {"jsonrpc":"2.0","id":`+string(m.ID())+`,"result":{"a":1,"a":2}}`+"\n\n")
			<-r.Context().Done()
		}},
		{name: "a batch", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			writeJSON(w, 200, "["+answerTo(m)+"]")
		}},
		{name: "nothing", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) { w.WriteHeader(202) }},
		{name: "a page", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) { fmt.Fprint(w, "<html>") }},
		{name: "a broken stream", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			stream(w, "data: "+answerTo(m)) // no end of the event
		}},
		{name: "a cut connection", want: ErrLost, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			panic(http.ErrAbortHandler)
		}},
		{name: "silence", want: ErrLost, hangs: true, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			<-r.Context().Done()
		}},
		{name: "a silent stream", want: ErrLost, hangs: true, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			stream(w, ":\n\n")
			<-r.Context().Done()
		}},
		{name: "an error", answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			writeJSON(w, 400, `{"jsonrpc":"2.0","id":`+string(m.ID())+`,"error":{"code":-32022,"message":"no"}}`)
		}},
		{name: "an error without an id", answer: func(w http.ResponseWriter, _ *http.Request, m *Message) {
			writeJSON(w, 400, `{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}`)
		}},
		{name: "unauthorized", want: ErrLost, status: 401, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) { http.Error(w, "no", 401) }},
		{name: "unavailable", want: ErrLost, status: 503, answer: func(w http.ResponseWriter, _ *http.Request, m *Message) { writeJSON(w, 503, `{"error":"x"}`) }},
		{name: "a redirect", want: ErrLost, status: 307, answer: func(w http.ResponseWriter, r *http.Request, m *Message) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}},
	} {
		for _, era := range []Era{Legacy, Modern} {
			t.Run(tt.name+"/"+era.String(), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				s, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
					if m == nil || !m.IsRequest() {
						w.WriteHeader(http.StatusAccepted)
						return
					}
					if tt.hangs { // the caller loses patience a while after its call has arrived
						time.AfterFunc(100*time.Millisecond, cancel)
					}
					tt.answer(w, r, m)
				})
				c := dial(t, Server{URL: srv.URL, MaxMessage: 64 << 10}, era, nil)
				r, err := c.Call(ctx, ping(`"x"`), CallOptions{})
				if !errors.Is(err, tt.want) || errors.Is(err, ErrNotSent) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
				if !tt.hangs && ctx.Err() != nil {
					t.Error("the call had to wait for its deadline")
				}
				if err == nil && (string(r.Message.ID()) != `"x"` || r.Message.Error() == nil && GetString(r.Message.Result(), "protocolVersion") == "") {
					t.Errorf("got %s", r.Message.Bytes())
				}
				if strings.HasPrefix(tt.name, "huge") && !strings.Contains(err.Error(), "longer than") {
					t.Errorf("got %v", err)
				}
				var status *StatusError
				if errors.As(err, &status); tt.status != 0 && (status == nil || status.Status != tt.status) {
					t.Errorf("got %v, want status %d", err, tt.status)
				}
				// Cancellations aside, there was one request: nothing was repeated or redirected.
				if n := len(s.seen(http.MethodPost)); n > 1 && !tt.hangs {
					t.Errorf("%d requests", n)
				}
			})
		}
	}
}

func TestHTTPNotSentMeansNotSent(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	plain := serve(t, http.NotFoundHandler())
	for _, tt := range []struct {
		name, url string
		header    http.Header
		hangs     bool
	}{
		{name: "nobody listens", url: closed},
		{name: "TLS fails", url: strings.Replace(plain.URL, "http:", "https:", 1)},
		{name: "no connection in time", url: "http://example.test", hangs: true},
		{name: "a header that cannot be", url: plain.URL, header: http.Header{"X": {"a\nb"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			s := Server{URL: tt.url, Header: tt.header}
			dialled := make(chan struct{})
			if tt.hangs {
				s.Client = &http.Client{Transport: &http.Transport{DialContext: func(dial context.Context, _, _ string) (net.Conn, error) {
					cancel()
					<-dialled // the HTTP client lets a dial go on that nobody waits for any more
					return nil, errors.New("no route")
				}}}
			}
			c := dial(t, s, Modern, nil)
			_, err := c.Call(ctx, ping(`1`), CallOptions{})
			close(dialled)
			if !errors.Is(err, ErrNotSent) || errors.Is(err, ErrLost) {
				t.Errorf("got %v, want ErrNotSent", err)
			}
		})
	}
}

func TestHTTPDoubtMeansLost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		client *http.Client
	}{
		{name: "a connection that is closed unread"},
		{name: "a transport that does not tell", client: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("no route")}
		})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					_ = c.Close()
				}
			})
			c := dial(t, Server{URL: "http://" + ln.Addr().String(), Client: tt.client}, Modern, nil)
			_, err = c.Call(t.Context(), ping(`1`), CallOptions{})
			if !errors.Is(err, ErrLost) || errors.Is(err, ErrNotSent) {
				t.Errorf("got %v, want ErrLost", err)
			}
			_ = ln.Close()
			wg.Wait()
		})
	}
}

func TestHTTPErrorsHideTheURL(t *testing.T) {
	t.Parallel()
	c := dial(t, Server{Name: "n", URL: "http://user:secret@127.0.0.1:1/?key=secret"}, Modern, nil)
	_, err := c.Call(t.Context(), ping(`1`), CallOptions{})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestHTTPReusesConnections(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	inner := newSDKServer(nil)
	srv := httptest.NewUnstartedServer(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return inner.Server },
		&sdk.StreamableHTTPOptions{Stateless: true}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c := dial(t, Server{URL: srv.URL}, Modern, nil)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := c.Call(ctx, modernCall(t, "echo", `{}`), CallOptions{}); err != nil {
			t.Fatal(err)
		}
		cancel()                         // as callers do
		time.Sleep(2 * time.Millisecond) // the end of the stream comes after the answer
	}
	if n := opened.Load(); n > 10 {
		t.Errorf("%d connections for 20 calls in a row", n)
	}
}

func TestHTTPNeverSendsTwice(t *testing.T) {
	t.Parallel()
	s, srv := script(t, func(w http.ResponseWriter, _ *http.Request, m *Message) { writeJSON(w, 200, answerTo(m)) })
	c := dial(t, Server{URL: srv.URL}, Modern, nil)
	const calls = 50
	answered := 0
	for range calls {
		switch _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); {
		case err == nil:
			answered++
		case !errors.Is(err, ErrLost):
			// The connection that is used again may be closing: that is in doubt.
			t.Fatal(err)
		}
		srv.CloseClientConnections()
	}
	if n := len(s.seen(http.MethodPost)); n < answered || n > calls {
		t.Errorf("%d requests for %d calls, %d of them answered", n, calls, answered)
	}
}

func TestHTTPLegacySessionLost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		lost       bool
	}{
		{name: "plain", body: "session not found", lost: true},
		{name: "JSON", body: `{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}`, lost: true},
		{name: "no such method", body: `{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
				switch {
				case m != nil && m.Method() == "initialize":
					w.Header().Set(HeaderSession, "s")
					writeJSON(w, 200, answerTo(m))
				case m != nil && m.IsRequest() && strings.HasPrefix(tt.body, "{"):
					writeJSON(w, 404, tt.body)
				case m != nil && m.IsRequest():
					http.Error(w, tt.body, 404)
				default:
					w.WriteHeader(http.StatusMethodNotAllowed)
				}
			})
			c := dial(t, Server{URL: srv.URL}, Legacy, nil)
			if _, err := c.Call(t.Context(), NewRequest(json.RawMessage(`0`), "initialize", nil), CallOptions{}); err != nil {
				t.Fatal(err)
			}
			r, err := c.Call(t.Context(), ping(`1`), CallOptions{})
			if !tt.lost {
				if err != nil || r.Message.Error() == nil || r.Status != 404 || c.Err() != nil {
					t.Errorf("got %v, %v, and %v", r, err, c.Err())
				}
				return
			}
			if !errors.Is(err, ErrSessionLost) || !errors.Is(err, ErrLost) {
				t.Errorf("got %v, want ErrSessionLost", err)
			}
			<-c.Done()
			if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, ErrNotSent) || !errors.Is(err, ErrSessionLost) {
				t.Errorf("afterwards: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if n := len(s.seen(http.MethodDelete)); n != 0 {
				t.Errorf("a lost session was ended %d times", n)
			}
		})
	}
}

func TestHTTPLegacyRefusesSessionsThatAreNoHeader(t *testing.T) {
	t.Parallel()
	for _, session := range []string{"a b", strings.Repeat("x", 2000)} {
		_, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
			w.Header().Set(HeaderSession, session)
			writeJSON(w, 200, answerTo(m))
		})
		c := dial(t, Server{URL: srv.URL}, Legacy, nil)
		if _, err := c.Call(t.Context(), NewRequest(json.RawMessage(`0`), "initialize", nil), CallOptions{}); !errors.Is(err, ErrLost) {
			t.Errorf("session %.10q: got %v", session, err)
		}
	}
}

func TestHTTPLegacyResumes(t *testing.T) {
	t.Parallel()
	_, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
		switch r.Header.Get(HeaderLastEventID) {
		case "":
			stream(w, "id: 1\nretry: 60\ndata:\n\n") // primes, and closes
		case "1":
			stream(w, "id: 2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n")
		case "2":
			stream(w, "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n")
		}
	})
	c := dial(t, Server{URL: srv.URL}, Legacy, nil)
	var heard int
	begun := time.Now()
	r, err := c.Call(t.Context(), ping(`"x"`), CallOptions{On: func(*Message) { heard++ }})
	if err != nil || heard != 1 || string(r.Message.ID()) != `"x"` {
		t.Errorf("got %v, %v, %d messages", r, err, heard)
	}
	if d := time.Since(begun); d < 120*time.Millisecond {
		t.Errorf("resumed twice within %v, but the server asked for 60 ms each", d)
	}
}

func TestHTTPLegacyResumptionRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   error
	}{
		{name: "the session is lost", answer: func(w http.ResponseWriter) { w.WriteHeader(404) }, want: ErrSessionLost},
		{name: "no such method", answer: func(w http.ResponseWriter) { w.WriteHeader(405) }, want: ErrLost},
		{name: "no stream", answer: func(w http.ResponseWriter) { writeJSON(w, 200, `{}`) }, want: ErrLost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
				switch {
				case r.Method == http.MethodGet:
					tt.answer(w)
				case m != nil && m.Method() == methodInitialize:
					w.Header().Set(HeaderSession, "s")
					writeJSON(w, 200, answerTo(m))
				default:
					stream(w, "id: 1\nretry: 1\ndata:\n\n")
				}
			})
			c := dial(t, Server{URL: srv.URL}, Legacy, nil)
			if _, err := c.Call(t.Context(), NewRequest(json.RawMessage(`0`), methodInitialize, nil), CallOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, tt.want) || !errors.Is(err, ErrLost) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestHTTPSend(t *testing.T) {
	t.Parallel()
	m := NewNotification("notifications/x", nil)
	refused := dial(t, Server{URL: "http://127.0.0.1:1"}, Legacy, nil)
	if err := refused.Send(t.Context(), m); !errors.Is(err, ErrNotSent) {
		t.Errorf("nobody listens: %v", err)
	}
	_, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) { w.WriteHeader(400) })
	c := dial(t, Server{URL: srv.URL}, Legacy, nil)
	var status *StatusError
	if err := c.Send(t.Context(), m); !errors.Is(err, ErrLost) || !errors.As(err, &status) || status.Status != 400 {
		t.Errorf("refused: %v", err)
	}
}

func TestHTTPModernDoesNotResume(t *testing.T) {
	t.Parallel()
	s, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) { stream(w, "id: 1\nretry: 1\ndata:\n\n") })
	c := dial(t, Server{URL: srv.URL}, Modern, nil)
	if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if n := len(s.seen(http.MethodGet)); n != 0 {
		t.Errorf("%d streams were resumed", n)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, contentType, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}
}

// timed serves a conversation in a synctest bubble and notes when each request
// came.
func timed(t *testing.T, answer func(r *http.Request, n int) (*http.Response, error)) (Server, func() []time.Duration) {
	begun := time.Now()
	var mu sync.Mutex
	var at []time.Duration
	return Server{URL: "http://example.test", Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Body != nil {
				if _, err := io.ReadAll(r.Body); err != nil {
					return nil, err
				}
			}
			mu.Lock()
			at = append(at, time.Since(begun))
			n := len(at)
			mu.Unlock()
			return answer(r, n)
		})}}, func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(at)
		}
}

func TestHTTPLegacyGivesUpResuming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, at := timed(t, func(r *http.Request, n int) (*http.Response, error) {
			switch {
			case n == 1:
				return response(200, "text/event-stream", "id: 1\ndata:\n\n"), nil
			case n%2 == 0:
				return nil, errors.New("no route")
			default:
				return response(502, "text/plain", "no"), nil
			}
		})
		c := dial(t, s, Legacy, nil)
		if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
		want := []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 61 * time.Second}
		if got := at(); !slices.Equal(got, want) {
			t.Errorf("attempts at %v, want %v", got, want)
		}
	})
}

func TestHTTPLegacyPollsSlowerWhenNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, at := timed(t, func(r *http.Request, n int) (*http.Response, error) {
			if n == 1 {
				return response(200, "text/event-stream", "id: 1\nretry: 1\ndata:\n\n"), nil
			}
			return response(200, "text/event-stream", ""), nil
		})
		c := dial(t, s, Legacy, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := c.Call(ctx, ping(`1`), CallOptions{}); !errors.Is(err, ErrLost) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrLost", err)
		}
		if n := len(at()); n > 140 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

func TestHTTPLegacyStandingStreamComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		var heard int
		s, at := timed(t, func(r *http.Request, n int) (*http.Response, error) {
			if r.Method != http.MethodGet {
				return response(202, "", ""), nil
			}
			ids = append(ids, r.Header.Get(HeaderLastEventID))
			switch len(ids) {
			case 1:
				return response(200, "text/event-stream", "id: 7\nretry: 3000\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n"), nil
			case 2:
				return nil, errors.New("no route")
			case 3:
				return response(503, "", ""), nil
			default:
				return response(405, "", ""), nil
			}
		})
		c := dial(t, s, Legacy, func(*Message) { heard++ })
		if err := c.Send(t.Context(), NewNotification(methodInitialized, nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []string{"", "7", "7", "7"}; !slices.Equal(ids, want) || heard != 1 {
			t.Errorf("streams behind %q, want %q; %d messages", ids, want, heard)
		}
		if got, want := at(), []time.Duration{0, 0, 3 * time.Second, 9 * time.Second, 21 * time.Second}; !slices.Equal(got, want) {
			t.Errorf("attempts at %v, want %v", got, want)
		}
	})
}

func TestHTTPLegacyStandingStreamTellsOfTheLostSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gets := 0
		s, _ := timed(t, func(r *http.Request, n int) (*http.Response, error) {
			switch {
			case n == 1:
				resp := response(200, "application/json", `{"jsonrpc":"2.0","id":1,"result":{}}`)
				resp.Header.Set(HeaderSession, "s")
				return resp, nil
			case r.Method == http.MethodGet && gets == 0:
				gets++
				return response(200, "text/event-stream", ""), nil
			case r.Method == http.MethodGet:
				return response(404, "", ""), nil
			default:
				return response(202, "", ""), nil
			}
		})
		c := dial(t, s, Legacy, nil)
		if _, err := c.Call(t.Context(), NewRequest(json.RawMessage(`1`), methodInitialize, nil), CallOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), NewNotification(methodInitialized, nil)); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if !errors.Is(c.Err(), ErrSessionLost) {
			t.Errorf("got %v, want ErrSessionLost", c.Err())
		}
	})
}

func TestHTTPModernSendsNoResponses(t *testing.T) {
	t.Parallel()
	c := dial(t, Server{URL: "http://127.0.0.1:1"}, Modern, nil)
	if err := c.Send(t.Context(), NewResult(json.RawMessage(`1`), nil)); !errors.Is(err, ErrNotSent) {
		t.Errorf("got %v, want ErrNotSent", err)
	}
}
