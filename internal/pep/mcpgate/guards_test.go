package mcpgate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A handle does not outlive its time, swept or not.
func TestParkedCallIsNotTakenLate(t *testing.T) {
	d := &downward{}
	p := newParkingLot(&Gate{limits: Limits{Answer: time.Nanosecond}})
	handle, err := p.put(&client{run: "r"}, &running{bridge: d, digest: "x"})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond)
	if p.take(&client{run: "r"}, d, handle, "x") != nil {
		t.Error("taken too late")
	}
}

// Calls that wait for input are bounded per run.
func TestParkedCallsAreBounded(t *testing.T) {
	p := newParkingLot(&Gate{limits: Limits{Answer: time.Hour}})
	for i := range maxParked + 1 {
		_, err := p.put(&client{run: "r"}, &running{})
		if (err != nil) != (i == maxParked) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if _, err := p.put(&client{run: "other"}, &running{}); err != nil {
		t.Errorf("another run: %v", err)
	}
}

// A handle of one server is nothing to another, even for the same tool.
func TestParkedCallIsForOneServer(t *testing.T) {
	acted := make(chan string, 10)
	r := newRig(t, nil, map[string]string{"a": newTap(t, legacyHTTP(asking(acted))).url, "b": newTap(t, legacyHTTP(asking(acted))).url})
	name := func(server, body string) string {
		return strings.Replace(body, `"name":"careful"`, `"name":"`+server+`__careful"`, 1)
	}
	first := r.modernCall("/mcp", alice, name("a", careful("delete", ""))).message(t)
	r.modernCall("/mcp", alice, name("b", careful("delete", "")))
	state := mcp.GetString(first.Result(), "requestState")
	retry := careful("delete", fmt.Sprintf(`,"requestState":%q,"inputResponses":{"q1":{"action":"accept"}}`, state))
	if m := r.modernCall("/mcp", alice, name("b", retry)).message(t); errorCode(m) != mcp.CodeInvalidParams || len(acted) != 0 {
		t.Errorf("other server: %s", m.Bytes())
	}
	if m := r.modernCall("/mcp", alice, name("a", retry)).message(t); firstText(m.Result()) != "accept" {
		t.Errorf("its own server: %s", m.Bytes())
	}
}

// What the gate will announce it declares, and what it does not know stays.
func TestListChangesAreDeclared(t *testing.T) {
	s, url := newScript(t)
	s.set(methodDiscover, `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{"x":1},"prompts":{"listChanged":false},"experimental":{"y":{}}},"ttlMs":1,"cacheScope":"public"}`)
	r := newRig(t, nil, map[string]string{"real": url})
	got := string(r.modernCall("/mcp/real", alice, `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+meta+`}}`).message(t).Result())
	want := `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{"x":1,"listChanged":true},"prompts":{"listChanged":true},"experimental":{"y":{}}},"ttlMs":1,"cacheScope":"private"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A legacy server that asks what the client has not offered gets a refusal, and
// the client is not bothered.
func TestRudeServerIsDeclined(t *testing.T) {
	refused, answered := make(chan string, 1), make(chan struct{})
	up := newTap(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m, err := mcp.Parse(body)
		if err != nil || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		switch {
		case m.IsResponse():
			refused <- string(m.Error())
			close(answered)
			w.WriteHeader(http.StatusAccepted)
		case m.IsNotification():
			w.WriteHeader(http.StatusAccepted)
		case m.Method() == methodCall:
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"sampling/createMessage\",\"params\":{}}\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-answered:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"content\":[]}}\n\n", m.ID())
		case m.Method() == methodInitialize:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"rude","version":"1"}}}`, m.ID())
		case m.Method() == methodTools:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}}`, m.ID())
		default:
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	r := newRig(t, nil, map[string]string{"real": up.url})
	m := r.modernCall("/mcp/real", alice, callT).message(t)
	if mcp.GetString(m.Result(), "resultType") != "complete" {
		t.Errorf("answer: %s", m.Bytes())
	}
	select {
	case e := <-refused:
		if !strings.Contains(e, "-32601") {
			t.Errorf("the server was answered %s", e)
		}
	case <-time.After(5 * time.Second):
		t.Error("the server got no answer")
	}
}

// A closed gate begins nothing, not even to decide.
func TestClosedGateBeginsNothing(t *testing.T) {
	r := newPlainRig(t, nil)
	if err := r.gate.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := r.do("POST", "/mcp/legacy", alice, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	if h.status != http.StatusServiceUnavailable || h.header.Get("Mcp-Session-Id") != "" || len(r.decider.asked) != 0 {
		t.Errorf("initialize: %+v, %d decisions", h, len(r.decider.asked))
	}
}

// A server that stays away is not tried again at every request.
func TestAbsentServerIsLeftAlone(t *testing.T) {
	network := &failing{fail: true}
	r := newRig(t, func(c *Config) {
		c.Upstreams[0].Client = &http.Client{Transport: &http.Transport{DialContext: network.dial}}
	}, map[string]string{"gone": "http://127.0.0.1:1", "real": newTap(t, legacyHTTP(server(old))).url})
	id := r.begin("/mcp", alice)
	for range 5 {
		r.legacyCall("/mcp", alice, id, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
	}
	if n := len(r.decider.of("mcp:initialize")); n > 3 {
		t.Errorf("%d decisions about beginning: once per server at first, and once more for the one that was away", n)
	}
}

// A client's own look at the tools is a look of the gate's, too.
func TestListTeachesTheGate(t *testing.T) {
	s, url := newScript(t)
	r := newRig(t, func(c *Config) { c.Limits.Refresh = time.Hour }, map[string]string{"real": url})
	r.modernCall("/mcp/real", alice, callT)
	s.set(methodTools, `{"tools":[{"name":"t","inputSchema":{"type":"object"},"description":"now it steals"}]}`)
	r.modernCall("/mcp/real", alice, listTools)
	r.modernCall("/mcp/real", alice, callT)
	q := r.decider.of("real/t")
	if len(q) != 2 || q[0].Definition == q[1].Definition {
		t.Errorf("decisions: %+v", q)
	}
}

// An answer of the decider that does not fit the question shows nothing.
func TestShortAnswerShowsNothing(t *testing.T) {
	s, url := newScript(t)
	s.set(methodTools, `{"tools":[{"name":"t"},{"name":"u"}]}`)
	r := newRig(t, nil, map[string]string{"real": url})
	r.decider.short = true
	m := r.modernCall("/mcp/real", alice, listTools).message(t)
	if items, _ := listPage(m.Result(), "tools"); len(items) != 0 {
		t.Errorf("shown: %s", m.Result())
	}
}

// A reader that is slow misses nothing: the writer waits for it, and holds no
// more meanwhile.
func TestSlowReaderMissesNothing(t *testing.T) {
	s := newStream("")
	reader, err := s.attach(0)
	if err != nil {
		t.Fatal(err)
	}
	const n = 4 * streamEvents
	go func() {
		for i := range n {
			s.put(mcp.NewNotification("n", raw(map[string]int{"i": i})))
		}
		s.end(answer{msg: mcp.NewResult(raw(1), raw(struct{}{}))})
	}()
	var got []string
	for {
		m, _, err := s.next(t.Context(), reader, time.Second)
		if err != nil {
			break
		}
		if len(got)%100 == 0 {
			time.Sleep(time.Millisecond)
		}
		got = append(got, string(m.Params()))
		s.mu.Lock()
		if len(s.events) > streamEvents+1 {
			t.Fatalf("%d events are held", len(s.events))
		}
		s.mu.Unlock()
	}
	if len(got) != n+1 || got[0] != `{"i":0}` || got[n-1] != fmt.Sprintf(`{"i":%d}`, n-1) {
		t.Errorf("%d events, from %s", len(got), got[0])
	}
}

// A stream that nobody reads keeps the latest, and its answer.
func TestUnreadStreamIsBounded(t *testing.T) {
	s := newStream("s")
	for i := range 4 * streamEvents {
		s.put(mcp.NewNotification("n", raw(map[string]int{"i": i})))
	}
	s.end(answer{msg: mcp.NewResult(raw(1), raw(struct{}{}))})
	if len(s.events) > streamEvents || s.events[len(s.events)-1] != s.final.msg {
		t.Errorf("%d events are kept", len(s.events))
	}
	if _, err := s.attach(0); err == nil {
		t.Error("a gap goes unnoticed")
	}
}

// Streams that have ended are kept for a while only.
func TestEndedStreamsAreBounded(t *testing.T) {
	r := newPlainRig(t, nil)
	id := r.begin("/mcp/legacy", alice)
	for range 2 * keptStreams {
		r.legacyCall("/mcp/legacy", alice, id, echoLegacy)
	}
	s := r.gate.sessions.find(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) > keptStreams {
		t.Errorf("%d streams are kept", len(s.streams))
	}
}

// The acknowledgement comes first, whatever the server does.
func TestAcknowledgementComesFirst(t *testing.T) {
	s, url := newScript(t)
	s.on(methodListen, func(w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		w.Header().Set("Content-Type", "text/event-stream")
		tag := fmt.Sprintf(`"_meta":{"io.modelcontextprotocol/subscriptionId":%s}`, m.ID())
		fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"early\":1,%s}}\n\n", tag)
		fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"notifications\":{\"toolsListChanged\":true},%s}}\n\n", tag)
		fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"late\":1,%s}}\n\n", tag)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	r := newRig(t, nil, map[string]string{"real": url})
	body := `{"jsonrpc":"2.0","id":"sub-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` + meta + `}}`
	_, next := readEvents(t, r, "/mcp/real", alice, "POST", body, "MCP-Protocol-Version", now, "Mcp-Method", methodListen)
	var got []string
	for range 2 {
		_, data, _ := next()
		got = append(got, data)
	}
	if !strings.Contains(got[0], noteAcknowledged) || !strings.Contains(got[1], "late") {
		t.Errorf("events: %q", got)
	}
}

// A gate that cannot work is not made.
func TestNew(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	one := []mcp.Server{{Name: "a", URL: "http://localhost"}}
	for name, c := range map[string]Config{
		"no decider":   {Logger: log, Upstreams: one},
		"no logger":    {Decider: &table{}, Upstreams: one},
		"no upstream":  {Decider: &table{}, Logger: log},
		"twice":        {Decider: &table{}, Logger: log, Upstreams: slices.Concat(one, one)},
		"no name":      {Decider: &table{}, Logger: log, Upstreams: []mcp.Server{{URL: "http://localhost"}}},
		"separator":    {Decider: &table{}, Logger: log, Upstreams: []mcp.Server{{Name: "a__b", URL: "http://localhost"}}},
		"path in name": {Decider: &table{}, Logger: log, Upstreams: []mcp.Server{{Name: "a/b", URL: "http://localhost"}}},
	} {
		if g, err := New(c); err == nil {
			t.Errorf("%s: made", name)
			_ = g.Close(t.Context())
		}
	}
}

// A question that the client has not answered when its call ends is answered
// for it.
func TestServerIsNotLeftWaiting(t *testing.T) {
	told := make(chan error, 1)
	s := server(old)
	sdk.AddTool(s, &sdk.Tool{Name: "wonder"}, func(_ context.Context, r *sdk.CallToolRequest, _ struct{}) (*sdk.CallToolResult, any, error) {
		go func() {
			// Beyond the call, which is over before anybody answers.
			_, err := r.Session.Elicit(context.Background(), &sdk.ElicitParams{Message: "?", RequestedSchema: raw(map[string]any{"type": "object", "properties": map[string]any{}})})
			told <- err
		}()
		return &sdk.CallToolResult{}, nil, nil
	})
	r := newRig(t, nil, map[string]string{"real": newTap(t, legacyHTTP(s)).url})
	h := r.do("POST", "/mcp/real", alice, `{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}`)
	id := h.header.Get("Mcp-Session-Id")
	r.legacyCall("/mcp/real", alice, id, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	r.legacyCall("/mcp/real", alice, id, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wonder","arguments":{}}}`)
	time.Sleep(20 * time.Millisecond)
	r.do("DELETE", "/mcp/real", alice, "", "Mcp-Session-Id", id)
	select {
	case err := <-told:
		if err == nil {
			t.Error("somebody has answered")
		}
	case <-time.After(5 * time.Second):
		t.Error("the server still waits")
	}
}
