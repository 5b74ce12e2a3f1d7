package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A Raw is a client that sends whatever bytes a test wants, by streamable
// HTTP as of 2026-07-28.
type Raw struct {
	Endpoint
	HTTP *http.Client
	// Run is what the client calls its run. Empty: it has no name.
	Run string
}

// NewRaw returns a Raw with connections of its own. No answer is waited for
// longer than patience.
func NewRaw(e Endpoint, patience time.Duration) *Raw {
	return &Raw{Endpoint: e, HTTP: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		Timeout:   patience,
	}}
}

// A Reply is the answer to a request.
type Reply struct {
	// Status is that of HTTP.
	Status int
	// Result and Error are those of JSON-RPC. Both are empty if the body holds
	// none.
	Result json.RawMessage
	Error  *struct {
		Code    int
		Message string
		Data    json.RawMessage
	}
	// Body is everything that came.
	Body []byte
}

// Reason is the code of the denial in a reply; empty if it is none.
func (r Reply) Reason() string {
	if r.Error != nil {
		var data struct{ Code string }
		// Data that are not ours hold no reason.
		_ = json.Unmarshal(r.Error.Data, &data)
		return data.Code
	}
	a, err := answerOf(r.Result)
	if err != nil {
		return ""
	}
	return a.Reason
}

// Done reports whether a tool was called and succeeded.
func (r Reply) Done() bool {
	if r.Error != nil || len(r.Result) == 0 {
		return false
	}
	a, err := answerOf(r.Result)
	return err == nil && !a.Error
}

// Meta is what the params of every request hold in the modern era.
const Meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"raw","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`

func (r *Raw) meta() string {
	if r.Run == "" {
		return Meta
	}
	return strings.Replace(Meta, "{", fmt.Sprintf(`{"dev.bailiwick/session":%q,`, r.Run), 1)
}

// Call calls a tool with arguments that are a JSON object.
func (r *Raw) Call(ctx context.Context, tool, args string) (Reply, error) {
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s,%s}}`, tool, args, r.meta())
	return r.Post(ctx, "tools/call", tool, strings.NewReader(body))
}

// Post sends a body, with the headers that a request of this method and name
// has.
func (r *Raw) Post(ctx context.Context, method, name string, body io.Reader) (Reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, body)
	if err != nil {
		return Reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("MCP-Protocol-Version", "2026-07-28")
	req.Header.Set("Mcp-Method", method)
	if name != "" {
		req.Header.Set("Mcp-Name", name)
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	return r.Do(req)
}

// Do sends a request and reads the last message of the answer, which is a
// JSON object or a stream of events.
func (r *Raw) Do(req *http.Request) (Reply, error) {
	res, err := r.HTTP.Do(req)
	if err != nil {
		return Reply{}, err
	}
	body, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	reply := Reply{Status: res.StatusCode, Body: body}
	text := body
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		text = lastEvent(body)
	}
	// A body that is no JSON is the test's to judge.
	_ = json.Unmarshal(text, &reply)
	return reply, err
}

// lastEvent is the data of the last event.
func lastEvent(stream []byte) []byte {
	var last []byte
	lines := bufio.NewScanner(bytes.NewReader(stream))
	lines.Buffer(nil, len(stream)+1)
	for lines.Scan() {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok && len(data) > 0 {
			last = bytes.Clone(data)
		}
	}
	return last
}
