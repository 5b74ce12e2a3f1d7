// Package hostile sends the gateway what no honest client or server sends.
// Each gets a clear answer, nothing of it gets through, and the process lives
// on in bounded memory.
package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// TestMain runs the tests, or is the server that one of them configured.
func TestMain(m *testing.M) {
	if serveStdio() {
		return
	}
	os.Exit(rig.Main(m))
}

// maxResident is more than the gateway may ever need for all of this.
const maxResident = 400 << 20

// front is a gateway that permits everything, and what its server is sent.
type front struct {
	*rig.Deployment
	process *rig.Process
	counter *rig.Counter
	tap     *rig.Tap
	client  *rig.Raw
}

func newFront(t *testing.T) *front {
	t.Helper()
	counter := rig.Count(t, true)
	tap := rig.OpenTap(t, counter.URL)
	d := rig.Deploy(t, rig.Setup{
		Policies:  rig.PermitAll,
		Upstreams: map[string]rig.Upstream{"counter": {URL: tap.URL}},
	})
	d.Pin(t)
	f := &front{Deployment: d, process: d.Serve(t), counter: counter, tap: tap}
	f.client = rig.NewRaw(rig.Endpoint{URL: d.Endpoint("counter"), Token: d.Key}, 20*time.Second)
	f.checkWorks(t)
	tap.Reset()
	return f
}

// checkWorks makes an honest call.
func (f *front) checkWorks(t *testing.T) {
	t.Helper()
	id := fmt.Sprint("honest ", time.Now().UnixNano())
	reply, err := f.client.Call(t.Context(), "act", fmt.Sprintf(`{"id":%q}`, id))
	if err != nil {
		t.Fatalf("an honest call fails: %v", err)
	}
	if !reply.Done() || f.counter.Seen()[id] != 1 {
		t.Fatalf("an honest call fails: %d %s", reply.Status, reply.Body)
	}
}

func (f *front) checkAlive(t *testing.T) {
	t.Helper()
	if !f.process.Alive() {
		t.Fatalf("the gateway has died:\n%s", f.process.Log())
	}
	size, err := f.process.Peak()
	if err != nil {
		t.Fatal(err)
	}
	if size > maxResident {
		t.Errorf("the gateway had %d MiB resident", size>>20)
	}
}

// toolCall is a request with these params, after which come those that every
// request has.
func toolCall(params string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + params + `,` + rig.Meta + `}}`
}

func TestHostileRequestsAreRefusedClearly(t *testing.T) {
	rig.EndToEnd(t)
	f := newFront(t)
	deep := func(open, end string, n int) string { return strings.Repeat(open, n) + strings.Repeat(end, n) }
	for _, tt := range []struct {
		name, body string
	}{
		{"empty", ``},
		{"no JSON", `hello`},
		{"cut off", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act"`},
		{"two values", toolCall(`"name":"act","arguments":{"id":"x"}`) + `{}`},
		{"a batch", `[` + toolCall(`"name":"act","arguments":{"id":"x"}`) + `]`},
		{"null", `null`},
		{"a number", `7`},
		{"bytes that are no UTF-8", toolCall("\"name\":\"act\",\"arguments\":{\"id\":\"\xff\xfe\"}")},
		{"half a surrogate pair", toolCall(`"name":"act","arguments":{"id":"\ud800"}`)},
		{"a NUL byte", toolCall("\"name\":\"act\",\"arguments\":{\"id\":\"a\x00b\"}")},
		{"a byte order mark", "\xef\xbb\xbf" + toolCall(`"name":"act","arguments":{"id":"x"}`)},
		{"a comment", toolCall(`/* */"name":"act","arguments":{"id":"x"}`)},

		{"name twice", toolCall(`"name":"act","name":"forbidden","arguments":{"id":"x"}`)},
		{"method twice", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"act","arguments":{"id":"x"},` + rig.Meta + `}}`},
		{"params twice", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{},"params":{"name":"act","arguments":{"id":"x"},` + rig.Meta + `}}`},
		{"an argument twice", toolCall(`"name":"act","arguments":{"id":"x","id":"y"}`)},
		{"an argument twice, once escaped", toolCall(`"name":"act","arguments":{"id":"x","\u0069d":"y"}`)},
		{"method in other letters", `{"jsonrpc":"2.0","id":1,"Method":"tools/call","params":{"name":"act","arguments":{"id":"x"},` + rig.Meta + `}}`},
		{"name in other letters", toolCall(`"Name":"act","arguments":{"id":"x"}`)},
		{"name in two spellings", toolCall(`"name":"act","NAME":"forbidden","arguments":{"id":"x"}`)},

		{"version 1.0", strings.Replace(toolCall(`"name":"act","arguments":{"id":"x"}`), `"2.0"`, `"1.0"`, 1)},
		{"no version", strings.Replace(toolCall(`"name":"act","arguments":{"id":"x"}`), `"jsonrpc":"2.0",`, ``, 1)},
		{"an object as id", strings.Replace(toolCall(`"name":"act","arguments":{"id":"x"}`), `"id":1,`, `"id":{},`, 1)},
		{"null as id", strings.Replace(toolCall(`"name":"act","arguments":{"id":"x"}`), `"id":1,`, `"id":null,`, 1)},
		{"a number as method", strings.Replace(toolCall(`"name":"act","arguments":{"id":"x"}`), `"tools/call"`, `5`, 1)},
		{"an array as params", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["act"]}`},
		{"a string as params", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":"act"}`},
		{"no params", `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`},
		{"a number as name", toolCall(`"name":5,"arguments":{"id":"x"}`)},
		{"no name", toolCall(`"arguments":{"id":"x"}`)},
		{"an array as arguments", toolCall(`"name":"act","arguments":["x"]`)},
		{"a string as arguments", toolCall(`"name":"act","arguments":"{\"id\":\"x\"}"`)},
		{"a number for a string", toolCall(`"name":"act","arguments":{"id":5}`)},
		{"null for a string", toolCall(`"name":"act","arguments":{"id":null}`)},
		{"a number that is too large", toolCall(`"name":"act","arguments":{"id":1e999999}`)},
		{"an argument that is missing", toolCall(`"name":"act","arguments":{}`)},
		{"an argument that does not exist", toolCall(`"name":"act","arguments":{"id":"x","extra":1}`)},
		{"a tool that does not exist", toolCall(`"name":"acted","arguments":{"id":"x"}`)},
		{"a tool of a longer path", toolCall(`"name":"../counter/act","arguments":{"id":"x"}`)},
		{"a tool with a quote", toolCall(`"name":"act\" || \"","arguments":{"id":"x"}`)},
		{"a tool of a very long name", toolCall(`"name":"` + strings.Repeat("a", 100_000) + `","arguments":{"id":"x"}`)},

		{"deep arrays", toolCall(`"name":"act","arguments":{"id":` + deep("[", "]", 500_000) + `}`)},
		{"deep objects", toolCall(`"name":"act","arguments":` + deep(`{"a":`, `}`, 200_000))},
		{"deep and cut off", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":` + strings.Repeat("[", 1_000_000)},
		{"deep _meta", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"act","arguments":{"id":"x"},"_meta":` + deep(`{"a":`, `}`, 100_000) + `}}`},
		{"200,000 arguments", toolCall(`"name":"act","arguments":{` + manyKeys(200_000) + `}`)},

		{"a method that is unknown", `{"jsonrpc":"2.0","id":1,"method":"tools/destroy","params":{` + rig.Meta + `}}`},
		{"a method of the server", `{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{` + rig.Meta + `}}`},
		{"a resource without a uri", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{` + rig.Meta + `}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply, err := f.client.Do(f.post(t, tt.body))
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			checkRefusal(t, reply)
			f.checkAlive(t)
		})
	}
	if diff := cmp.Diff([]rig.Message(nil), forwarded(f.tap)); diff != "" {
		t.Errorf("something got through (-want +got):\n%s", diff)
	}
	f.checkWorks(t)
}

// post is a request whose headers say what an honest client would say of a
// call to act, if the body were in order.
func (f *front) post(t *testing.T, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.client.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Content-Type":         {"application/json"},
		"Accept":               {"application/json, text/event-stream"},
		"Authorization":        {"Bearer " + f.client.Token},
		"Mcp-Protocol-Version": {"2026-07-28"},
	}
	var m struct {
		Method string
		Params struct{ Name, URI string }
	}
	// A body that cannot be read gets the headers of a call to act.
	_ = json.Unmarshal([]byte(body), &m)
	if m.Method == "" {
		m.Method, m.Params.Name = "tools/call", "act"
	}
	req.Header.Set("Mcp-Method", m.Method)
	if m.Method == "tools/call" && len(m.Params.Name) < 1000 {
		req.Header.Set("Mcp-Name", m.Params.Name)
	}
	return req
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":1,`, i)
	}
	return b.String() + `"id":"x"`
}

// checkRefusal wants an error of the protocol, or a denial, with a sentence.
func checkRefusal(t *testing.T, r rig.Reply) {
	t.Helper()
	if r.Done() {
		t.Fatalf("it was done: %d %s", r.Status, r.Body)
	}
	if r.Status >= 500 {
		t.Errorf("status %d", r.Status)
	}
	switch {
	case r.Error != nil && r.Error.Message != "":
	case r.Reason() != "":
	default:
		t.Errorf("the answer explains nothing: %d %.300s", r.Status, r.Body)
	}
	if len(r.Body) > 64<<10 {
		t.Errorf("the answer has %d bytes", len(r.Body))
	}
}

// forwarded is what reached a server, apart from what the gateway asks on its
// own behalf.
func forwarded(tap *rig.Tap) []rig.Message {
	var list []rig.Message
	for _, m := range tap.Messages() {
		switch m.Method {
		case "server/discover", "initialize", "notifications/initialized", "notifications/cancelled",
			"tools/list", "subscriptions/listen":
		default:
			list = append(list, m)
		}
	}
	return list
}

func TestHostileHTTPIsRefused(t *testing.T) {
	rig.EndToEnd(t)
	f := newFront(t)
	good := toolCall(`"name":"act","arguments":{"id":"http"}`)
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
	}{
		{"no token", func(r *http.Request) { r.Header.Del("Authorization") }},
		{"a wrong token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer bwk_wrong") }},
		{"a token that is no JWT", func(r *http.Request) { r.Header.Set("Authorization", "Bearer a.b.c") }},
		{"a JWT without a signature", func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0ZXIifQ.")
		}},
		{"basic authentication", func(r *http.Request) { r.SetBasicAuth("tester", "tester") }},
		{"two tokens", func(r *http.Request) { r.Header.Add("Authorization", "Bearer bwk_other") }},
		{"a host of somebody else", func(r *http.Request) { r.Host = "evil.example" }},
		{"an origin of somebody else", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }},
		{"the null origin", func(r *http.Request) { r.Header.Set("Origin", "null") }},
		{"a content type of a form", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }},
		{"a compressed body", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }},
		{"another method in the header", func(r *http.Request) { r.Header.Set("Mcp-Method", "tools/list") }},
		{"another name in the header", func(r *http.Request) { r.Header.Set("Mcp-Name", "forbidden") }},
		{"two names in the header", func(r *http.Request) { r.Header["Mcp-Name"] = []string{"act", "forbidden"} }},
		{"another version in the header", func(r *http.Request) { r.Header.Set("Mcp-Protocol-Version", "2025-11-25") }},
		{"a version that does not exist", func(r *http.Request) { r.Header.Set("Mcp-Protocol-Version", "2099-01-01") }},
		{"a server that does not exist", func(r *http.Request) { r.URL.Path = "/mcp/nobody" }},
		{"a path above", func(r *http.Request) { r.URL.Path = "/mcp/x/../../etc/passwd" }},
		{"PUT", func(r *http.Request) { r.Method = http.MethodPut }},
		{"a header of 1 MB", func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("a", 1<<20)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := f.post(t, good)
			tt.change(req)
			reply, err := f.client.Do(req)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if reply.Status < 400 || reply.Status >= 500 {
				t.Errorf("status %d, want one of 4xx: %s", reply.Status, reply.Body)
			}
			f.checkAlive(t)
		})
	}
	if diff := cmp.Diff([]rig.Message(nil), forwarded(f.tap)); diff != "" {
		t.Errorf("something got through (-want +got):\n%s", diff)
	}
	f.checkWorks(t)
}

// A body without an end is cut off soon, wherever it is huge.
func TestHugeBodiesAreCutOff(t *testing.T) {
	rig.EndToEnd(t)
	f := newFront(t)
	const size = 1 << 30
	for _, tt := range []struct{ name, start, repeat string }{
		{"spaces", ``, ` `},
		{"a string", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`, `a`},
		{"an array", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":[`, `1,`},
		{"messages", `[`, `{"jsonrpc":"2.0","id":1,"method":"ping"},`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := &endless{head: tt.start, repeat: []byte(strings.Repeat(tt.repeat, 32<<10/len(tt.repeat))), left: newCount(size)}
			reply, err := f.client.Post(t.Context(), "tools/call", "act", body)
			// The gateway may close the connection while the body is still being
			// written, and then the answer can get lost.
			if err == nil && (reply.Status < 400 || reply.Status >= 500) {
				t.Errorf("status %d: %.300s", reply.Status, reply.Body)
			}
			if sent := size - int(body.left.Load()); sent > 64<<20 {
				t.Errorf("the gateway took %d MiB before it refused", sent>>20)
			}
			f.checkAlive(t)
		})
	}
	f.checkWorks(t)
	if diff := cmp.Diff([]rig.Message(nil), notHonest(forwarded(f.tap))); diff != "" {
		t.Errorf("something got through (-want +got):\n%s", diff)
	}
}

func notHonest(messages []rig.Message) []rig.Message {
	var rest []rig.Message
	for _, m := range messages {
		if m.Method != "tools/call" || m.Name != "act" {
			rest = append(rest, m)
		}
	}
	return rest
}

// An endless reader repeats itself until left is used up.
type endless struct {
	head   string
	repeat []byte
	left   *atomic.Int64 // the transport may still be reading when the test looks
}

func newCount(n int64) *atomic.Int64 {
	var c atomic.Int64
	c.Store(n)
	return &c
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left.Load() <= 0 {
		return 0, io.EOF
	}
	src := e.repeat
	if e.head != "" {
		src, e.head = []byte(e.head), ""
	}
	n := copy(b, src)
	e.left.Add(int64(-n))
	return n, nil
}

// Clients that begin a request and never end it do not keep others out.
func TestSlowClientsKeepNobodyOut(t *testing.T) {
	rig.EndToEnd(t)
	f := newFront(t)
	var dialer net.Dialer
	for i := range 500 {
		conn, err := dialer.DialContext(t.Context(), "tcp", f.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		head := "POST /mcp/counter HTTP/1.1\r\nHost: " + f.Addr + "\r\n"
		if i%2 == 0 {
			head += "Content-Type: application/json\r\nAuthorization: Bearer " + f.Key + "\r\nContent-Length: 1000000\r\n\r\n{"
		}
		if _, err := conn.Write([]byte(head)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reply, err := f.client.Call(ctx, "act", `{"id":"between slow ones"}`)
	if err != nil || !reply.Done() {
		t.Errorf("an honest call among slow clients: %v %s", err, reply.Body)
	}
	f.checkAlive(t)
}

// Many clients with calls of 128 KiB each are served in bounded
// memory, or told that there is no room. (The SDK's server behind the gateway
// takes seconds for each megabyte under the race detector.)
func TestManyLargeCallsStayInBoundedMemory(t *testing.T) {
	rig.EndToEnd(t)
	f := newFront(t)
	body := []byte(toolCall(`"name":"act","arguments":{"id":"` + strings.Repeat("a", 1<<17) + `"}`))
	results := make(chan error)
	const n = 100 // more than one client may have in flight, so some are refused
	for range n {
		go func() {
			reply, err := f.client.Post(t.Context(), "tools/call", "act", bytes.NewReader(body))
			if err == nil && !reply.Done() && reply.Error == nil && reply.Reason() == "" {
				err = fmt.Errorf("neither done nor refused: %d %.200s", reply.Status, reply.Body)
			}
			results <- err
		}()
	}
	for range n {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	f.checkAlive(t)
	f.checkWorks(t)
}
