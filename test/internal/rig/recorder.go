package rig

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// A Message is what an upstream was sent, as far as a test wants to know it.
type Message struct {
	Method string
	// Name is params.name, or params.uri.
	Name string
	// Authorization is the header of the request that carried it.
	Authorization string
}

// A Recorder is a proxy in front of an upstream that keeps what passes.
type Recorder struct {
	URL string

	mu       sync.Mutex
	messages []Message
}

// Record starts a Recorder in front of an upstream.
func Record(t testing.TB, upstream string) *Recorder {
	t.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, // event streams must not be held back
	}
	r := &Recorder{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.keep(body, req.Header.Get("Authorization"))
		req.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(func() {
		// Streams that a gateway holds open would keep Close waiting.
		server.CloseClientConnections()
		server.Close()
	})
	r.URL = server.URL
	return r
}

func (r *Recorder) keep(body []byte, authorization string) {
	var m struct {
		Method string
		Params struct{ Name, URI string }
	}
	// What cannot be read is kept as a message without a method.
	_ = json.Unmarshal(body, &m)
	if len(body) == 0 {
		return
	}
	name := m.Params.Name
	if name == "" {
		name = m.Params.URI
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, Message{m.Method, name, authorization})
}

// Messages are all messages so far.
func (r *Recorder) Messages() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

// Reset forgets the messages.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = nil
}
