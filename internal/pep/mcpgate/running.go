package mcpgate

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// levels are the log levels, the least severe first.
var levels = []string{"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"}

// A running is a call to a legacy server that may take several requests of a
// modern client.
type running struct {
	bridge *downward
	cancel context.CancelCauseFunc
	digest string // of the request that began it
	token  string // progress token, raw

	mu        sync.Mutex
	by        *call // who follows it now
	level     string
	asked     int
	questions map[string]*mcp.Message // not answered yet, by our key
	after     []func(*reply, error)
	changed   chan struct{} // a question has come

	done chan struct{} // closed when rep and err are set
	rep  *reply
	err  error
}

// follow makes a request the one that hears about the call.
func (r *running) follow(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by = c
	r.level = mcp.GetString(c.msg.Params(), "_meta", mcp.MetaLogLevel)
}

func (r *running) unfollow(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == c {
		r.by = nil
	}
}

// heard takes what the server says during the call.
func (r *running) heard(m *mcp.Message) {
	if m.IsRequest() {
		r.question(m)
		return
	}
	if r.bridge.forListeners(m) {
		return
	}
	r.mu.Lock()
	by := r.by
	silent := m.Method() == noteLog && !loudEnough(r.level, mcp.GetString(m.Params(), "level"))
	r.mu.Unlock()
	if by == nil || silent || m.Method() == noteCancelled {
		return
	}
	by.tell(m)
}

// loudEnough reports whether a log message is one that a request wants. One
// that has named no level wants none (MCP 2026-07-28, Logging).
func loudEnough(wanted, level string) bool {
	w := slices.Index(levels, wanted)
	return w >= 0 && slices.Index(levels, level) >= w
}

// maxQuestions is how many questions of one call may be open. More are
// declined.
const maxQuestions = 16

// question keeps a question of the server for the client.
func (r *running) question(m *mcp.Message) {
	if !mayAsk(r.bridge.capabilities, m.Method()) || !canAsk(r.digest) {
		r.bridge.decline(m)
		return
	}
	r.mu.Lock()
	open := len(r.questions) < maxQuestions
	select {
	case <-r.done:
		open = false
	default:
	}
	if !open {
		r.mu.Unlock()
		r.bridge.decline(m)
		return
	}
	r.asked++
	r.questions["q"+strconv.Itoa(r.asked)] = m
	r.mu.Unlock()
	r.bridge.mu.Lock()
	r.bridge.questions[string(m.ID())] = m
	r.bridge.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// canAsk reports whether a request may be answered with one for input
// (MCP 2026-07-28, Multi Round-Trip Requests, Supported Requests).
func canAsk(digest string) bool {
	for _, m := range []string{methodCall, methodRead, methodPrompt} {
		if len(digest) > len(m) && digest[:len(m)+1] == m+" " {
			return true
		}
	}
	return false
}

// gatherFor is how long the gate waits for further questions after one.
const gatherFor = 20 * time.Millisecond

// gather waits a moment for the other questions of a server that asks several
// things at once, so that the client can answer them in one round.
func (r *running) gather(ctx context.Context) {
	for {
		select {
		case <-r.changed:
		case <-time.After(gatherFor):
			return
		case <-r.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// open returns the questions that wait for an answer.
func (r *running) open() map[string]*mcp.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]*mcp.Message, len(r.questions))
	for k, q := range r.questions {
		out[k] = q
	}
	return out
}

// answer passes the client's answers on. Questions without one are asked again.
func (r *running) answer(responses map[string]json.RawMessage) {
	r.mu.Lock()
	for key, q := range r.questions {
		if resp, ok := responses[key]; ok {
			delete(r.questions, key)
			r.bridge.respond(q, mcp.NewResult(q.ID(), resp))
		}
	}
	again := len(r.questions) > 0
	r.mu.Unlock()
	if again {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
}

// whenDone has f called with the call's end.
func (r *running) whenDone(f func(*reply, error)) {
	r.mu.Lock()
	select {
	case <-r.done:
		r.mu.Unlock()
		f(r.rep, r.err)
		return
	default:
	}
	r.after = append(r.after, f)
	r.mu.Unlock()
}

func (r *running) finish(rep *reply, err error) {
	r.mu.Lock()
	r.rep, r.err = rep, err
	close(r.done)
	after, open := r.after, r.questions
	r.questions = map[string]*mcp.Message{}
	r.mu.Unlock()
	// Nobody is going to answer these any more.
	for _, q := range open {
		r.bridge.decline(q)
	}
	for _, f := range after {
		f(rep, err)
	}
}
