package mcpgate

import (
	"encoding/json"
	"strconv"
	"sync"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// maxAsks bounds the questions that wait for one client's answer.
const maxAsks = 64

// asks are the questions of servers that wait for a legacy client's answer.
// Several servers may use the same id, so each question gets one of the gate's.
type asks struct {
	mu      sync.Mutex
	next    int
	waiting map[string]*asked // by the gate's id, raw
}

// asked is one question.
type asked struct {
	wire  *wire
	id    json.RawMessage // the server's own
	token string          // of the server's own progress token, raw
	reply func(*mcp.Message)
}

// add registers a question and returns it with an id of the gate's. The answer
// goes to reply with the server's id restored. The returned function takes the
// question back, and reports whether it was still open.
func (a *asks) add(w *wire, q *mcp.Message, reply func(*mcp.Message)) (*mcp.Message, func() bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) >= maxAsks {
		return nil, nil, refuse(reasonBusy, "Too many questions wait for the client's answer.")
	}
	if a.waiting == nil {
		a.waiting = map[string]*asked{}
	}
	a.next++
	id := raw("gate-" + strconv.Itoa(a.next))
	e := &asked{wire: w, id: q.ID(), reply: reply}
	if t, ok := mcp.Get(q.Params(), "_meta", "progressToken"); ok {
		e.token = string(t)
	}
	a.waiting[string(id)] = e
	forget := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		open := a.waiting[string(id)] != nil
		delete(a.waiting, string(id))
		return open
	}
	return q.WithID(id), forget, nil
}

// answered takes a client's answer to a question, and reports whether there was
// one.
func (a *asks) answered(m *mcp.Message) bool {
	a.mu.Lock()
	e := a.waiting[string(m.ID())]
	delete(a.waiting, string(m.ID()))
	a.mu.Unlock()
	if e == nil {
		return false
	}
	e.reply(m.WithID(e.id))
	return true
}

// giveUp answers every question with an error: some servers wait for an answer
// even when the session has ended.
func (a *asks) giveUp() {
	a.mu.Lock()
	open := a.waiting
	a.waiting = nil
	a.mu.Unlock()
	for _, e := range open {
		e.reply(unanswered(e.id))
	}
}

func unanswered(id json.RawMessage) *mcp.Message {
	return mcp.NewError(id, mcp.CodeInternalError, "The client has not answered.", nil)
}

// withdrawn translates a server's cancellation of its own question.
func (a *asks) withdrawn(w *wire, note *mcp.Message) (*mcp.Message, bool) {
	id, ok := mcp.Get(note.Params(), "requestId")
	if !ok {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for gateID, e := range a.waiting {
		if e.wire == w && string(e.id) == string(id) {
			delete(a.waiting, gateID)
			return note.WithParams(set(note.Params(), json.RawMessage(gateID), "requestId")), true
		}
	}
	return nil, false
}

// progressOf returns the server whose question a client reports progress on.
func (a *asks) progressOf(note *mcp.Message) *wire {
	token, ok := mcp.Get(note.Params(), "progressToken")
	if !ok {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.waiting {
		if e.token == string(token) {
			return e.wire
		}
	}
	return nil
}
