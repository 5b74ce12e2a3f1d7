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

// A Tap is a proxy in front of an upstream that keeps what passes.
type Tap struct {
	URL string

	mu       sync.Mutex
	messages []Message
}

// OpenTap starts a Tap in front of an upstream.
func OpenTap(t testing.TB, upstream string) *Tap {
	t.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, // event streams must not be held back
	}
	p := &Tap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.keep(body, req.Header.Get("Authorization"))
		req.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(func() {
		// Streams that a gateway holds open would keep Close waiting.
		server.CloseClientConnections()
		server.Close()
	})
	p.URL = server.URL
	return p
}

func (p *Tap) keep(body []byte, authorization string) {
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, Message{m.Method, name, authorization})
}

// Messages are all messages so far.
func (p *Tap) Messages() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages)
}

// Reset forgets the messages.
func (p *Tap) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = nil
}
