package mcpgate

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A dialogue is a legacy server that follows a script during one tool call: it
// says lines, and waits for what the client sends back.
type dialogue struct {
	said func(say func(string), heard <-chan *mcp.Message)
	in   chan *mcp.Message
}

func newDialogue(t *testing.T, said func(say func(string), heard <-chan *mcp.Message)) string {
	t.Helper()
	d := &dialogue{said: said, in: make(chan *mcp.Message, 10)}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return srv.URL
}

func (d *dialogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m, err := mcp.Parse(body)
	if err != nil {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	answer := func(format string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,%s}`, m.ID(), format)
	}
	hear := func() {
		select {
		case d.in <- m:
		case <-r.Context().Done():
		}
	}
	switch m.Method() {
	case methodInitialize:
		answer(`"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{},"resources":{}},"serverInfo":{"name":"d","version":"1"}}`)
	case methodTools:
		answer(`"result":{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}`)
	case methodSetLevel:
		hear()
		answer(`"result":{}`)
	case methodRead:
		answer(`"error":{"code":-32002,"message":"no such thing","data":{"uri":"x"}}`)
	case methodDiscover:
		w.WriteHeader(http.StatusBadRequest)
	case methodCall:
		w.Header().Set("Content-Type", "text/event-stream")
		say := func(line string) {
			fmt.Fprintf(w, "data: %s\n\n", strings.ReplaceAll(line, "$ID", string(m.ID())))
			_ = http.NewResponseController(w).Flush()
		}
		d.said(say, d.in)
		say(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`)
	default:
		hear()
		w.WriteHeader(http.StatusAccepted)
	}
}

// hearing waits for a message of the client that is about method, or an answer
// if that is empty.
func hearing(t *testing.T, heard <-chan *mcp.Message, method string) *mcp.Message {
	t.Helper()
	for {
		select {
		case m := <-heard:
			if m.Method() == method {
				return m
			}
		case <-time.After(5 * time.Second):
			t.Errorf("the server has not heard %q", method)
			return mcp.NewResult(raw(0), nil)
		}
	}
}

const talkCall = `{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"name":"t","arguments":{}}}`

// Questions of a server have ids of the gate's; answers, progress and the
// server's change of mind find their way all the same.
func TestQuestionsFindTheirWay(t *testing.T) {
	url := newDialogue(t, func(say func(string), heard <-chan *mcp.Message) {
		say(`{"jsonrpc":"2.0","id":77,"method":"sampling/createMessage","params":{"x":1,"_meta":{"progressToken":"server-token"}}}`)
		if m := hearing(t, heard, noteProgress); mcp.GetString(m.Params(), "progressToken") != "server-token" {
			t.Errorf("progress: %s", m.Bytes())
		}
		if m := hearing(t, heard, ""); string(m.ID()) != "77" || string(m.Result()) != `{"y":2}` {
			t.Errorf("answer: %s", m.Bytes())
		}
		say(`{"jsonrpc":"2.0","id":"again","method":"elicitation/create","params":{}}`)
		say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"again","reason":"never mind"}}`)
		say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"unknown"}}`)
	})
	r := newRig(t, nil, map[string]string{"real": url})
	id := r.begin("/mcp/real", alice)
	_, next := readEvents(t, r, "/mcp/real", alice, "POST", talkCall, "Mcp-Session-Id", id, "MCP-Protocol-Version", old)
	read := func() *mcp.Message {
		for {
			_, data, ok := next()
			if !ok {
				t.Fatal("the stream has ended")
			}
			if data != "" {
				m, err := mcp.Parse([]byte(data))
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
		}
	}
	q := read()
	if q.Method() != methodSample || string(q.ID()) == "77" || !strings.Contains(string(q.Params()), `"x":1`) {
		t.Fatalf("question: %s", q.Bytes())
	}
	r.legacyCall("/mcp/real", alice, id, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"server-token","progress":1}}`)
	r.legacyCall("/mcp/real", alice, id, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"nobody's","progress":1}}`)
	if h := r.legacyCall("/mcp/real", alice, id, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"y":2}}`, q.ID())); h.status != http.StatusAccepted {
		t.Errorf("answer: %+v", h)
	}
	if h := r.legacyCall("/mcp/real", alice, id, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"y":2}}`, q.ID())); h.status != http.StatusBadRequest {
		t.Errorf("second answer: %+v", h)
	}
	second, note := read(), read()
	if note.Method() != noteCancelled || !strings.Contains(string(note.Params()), string(second.ID())) || !strings.Contains(string(note.Params()), "never mind") {
		t.Errorf("question %s, taken back by %s", second.Bytes(), note.Bytes())
	}
	if last := read(); string(last.ID()) != `"c"` || last.Result() == nil {
		t.Errorf("answer: %s", last.Bytes())
	}
}

// A modern request hears the log messages that it has asked for, and no others.
func TestLogMessagesAreAskedFor(t *testing.T) {
	asked := make(chan string, 1)
	var first sync.Once
	url := newDialogue(t, func(say func(string), heard <-chan *mcp.Message) {
		first.Do(func() { asked <- mcp.GetString(hearing(t, heard, methodSetLevel).Params(), "level") })
		for _, level := range []string{"debug", "warning", "error"} {
			say(`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"` + level + `","data":"x"}}`)
		}
	})
	r := newRig(t, nil, map[string]string{"real": url})
	loud := strings.Replace(callT, `"_meta":{`, `"_meta":{"io.modelcontextprotocol/logLevel":"warning",`, 1)
	h := r.modernCall("/mcp/real", alice, loud)
	if n := strings.Count(h.body, noteLog); n != 2 || strings.Contains(h.body, "debug") {
		t.Errorf("asked for warnings: %s\n%s", h.body, r.log)
	}
	select {
	case level := <-asked:
		if level != "warning" {
			t.Errorf("the server was asked for %q", level)
		}
	default:
		t.Error("the call has not come to the server")
	}
	if h := r.modernCall("/mcp/real", alice, callT); strings.Contains(h.body, noteLog) {
		t.Errorf("asked for nothing: %s", h.body)
	}
}

// A legacy server's code for a resource that is not there is one that modern
// clients know.
func TestMissingResourceCrossesEras(t *testing.T) {
	r := newRig(t, nil, map[string]string{"real": newDialogue(t, nil)})
	h := r.modernCall("/mcp/real", alice, `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x",`+meta+`}}`)
	if m := h.message(t); errorCode(m) != mcp.CodeInvalidParams || h.status != 400 || mcp.GetString(m.Error(), "message") != "no such thing" || mcp.GetString(m.Error(), "data", "uri") != "x" {
		t.Errorf("modern: %s", h.body)
	}
	id := r.begin("/mcp/real", bob)
	if m := r.legacyCall("/mcp/real", bob, id, `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x"}}`).message(t); errorCode(m) != codeNoResource {
		t.Errorf("legacy: %s", m.Bytes())
	}
}

// What a server has agreed to counts, even if it hung up before anybody looked.
func TestAgreementOutlivesItsStream(t *testing.T) {
	s := &listener{acked: make(chan struct{}), ended: make(chan struct{})}
	close(s.ended)
	if s.agreed(t.Context()) {
		t.Error("a stream that has brought nothing is an agreement")
	}
	s.take(mcp.NewNotification(noteAcknowledged, raw(map[string]any{"notifications": map[string]any{"toolsListChanged": true}})))
	for range 100 { // which of two things that are true is looked at is chance
		if !s.agreed(t.Context()) {
			t.Fatal("the acknowledgement was overlooked")
		}
	}
}

// A subscription that breaks off is taken up again, and what may have been
// missed is told.
func TestSubscriptionIsTakenUpAgain(t *testing.T) {
	s, url := newScript(t)
	s.on(methodListen, func(w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"notifications\":{\"toolsListChanged\":true},\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":%s}}}\n\n", m.ID())
		_ = http.NewResponseController(w).Flush()
		if s.count(methodListen) > 1 {
			<-r.Context().Done()
		}
	})
	r := newRig(t, nil, map[string]string{"real": url})
	body := `{"jsonrpc":"2.0","id":"sub-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` + meta + `}}`
	_, next := readEvents(t, r, "/mcp/real", alice, "POST", body, "MCP-Protocol-Version", now, "Mcp-Method", methodListen)
	next()
	if _, data, _ := next(); !strings.Contains(data, "tools/list_changed") {
		t.Errorf("heard %q", data)
	}
}
