package mcpgate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Bounds of one stream. What a client has not read yet is never dropped while
// it is reading: the server is made to wait instead.
const (
	streamEvents = 256
	streamBytes  = 4 << 20
	slowReader   = 20 * time.Second // until a reader that does not read is cut
	keepAlive    = 15 * time.Second

	reconnectAfter = "500" // milliseconds
)

// errCutOff ends a reader that reads too slowly, or that another has replaced.
var errCutOff = errors.New("the reader was cut off")

// errGap means that the events after the one named are gone.
var errGap = errors.New("the events to resume after are no longer kept")

// A stream is what a client is told about one request, or outside of all
// requests, in order. Event 0 is empty and only names the stream.
type stream struct {
	id string // empty: the stream cannot be resumed and keeps nothing it has shown

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when anything below changes
	events  []*mcp.Message
	first   int // number of events[0]
	size    int // bytes in events
	shown   int // number of the last event that a reader has taken
	reader  int // counts readers: a new one takes over from the one before
	reading bool
	ended   bool
	final   answer
}

func newStream(id string) *stream {
	return &stream{id: id, first: 1, changed: make(chan struct{})}
}

func (s *stream) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// put adds a message. It waits while a reader has too much to read, and reports
// false when the stream has ended.
func (s *stream) put(m *mcp.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room()
	if s.ended {
		return false
	}
	s.add(m)
	return true
}

// room waits until there is room for one more event. It is called and returns
// with s.mu held.
func (s *stream) room() {
	timeout := time.NewTimer(slowReader)
	defer timeout.Stop()
	for s.reading && !s.ended && s.first+len(s.events)-1-s.shown >= streamEvents {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
		case <-timeout.C:
			s.mu.Lock()
			s.reading = false // next returns an error to the reader
			s.signal()
		}
	}
}

func (s *stream) add(m *mcp.Message) {
	s.events = append(s.events, m)
	s.size += len(m.Bytes())
	for len(s.events) > 1 && (len(s.events) > streamEvents || s.size > streamBytes) {
		if s.reading && s.shown < s.first {
			break // somebody is about to read it
		}
		s.drop()
	}
	s.signal()
}

func (s *stream) drop() {
	s.size -= len(s.events[0].Bytes())
	s.events[0] = nil
	s.events = s.events[1:]
	s.first++
}

// end adds the answer, after which nothing comes.
func (s *stream) end(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.final = true, a
	if a.msg != nil {
		s.add(a.msg)
	}
	s.signal()
}

// bytes is how much the stream holds.
func (s *stream) bytes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// onward, as the event to read after, means the last one that was read.
const onward = -1

// attach makes the caller the reader. A reader before it is cut off: a client
// that comes back knows better than we that its old connection is dead.
func (s *stream) attach(after int) (reader int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after == onward {
		after = max(s.shown, s.first-1)
	}
	if after+1 < s.first || after >= s.first+len(s.events) {
		return 0, errGap
	}
	s.reader++
	s.reading, s.shown = true, after
	s.signal()
	return s.reader, nil
}

func (s *stream) detach(reader int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == reader {
		s.reading = false
		s.signal()
	}
}

// next returns the event after the last one shown, waiting for it. It returns
// io.EOF after the last event of a stream that has ended, and
// context.DeadlineExceeded when there was none for the given time.
func (s *stream) next(ctx context.Context, reader int, patience time.Duration) (*mcp.Message, int, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		s.mu.Lock()
		switch n := s.shown + 1; {
		case !s.reading || s.reader != reader:
			s.mu.Unlock()
			return nil, 0, errCutOff
		case n < s.first+len(s.events):
			m := s.events[n-s.first]
			s.shown = n
			for s.id == "" && s.first < n {
				s.drop()
			}
			s.signal()
			s.mu.Unlock()
			return m, n, nil
		case s.ended:
			s.mu.Unlock()
			return nil, 0, io.EOF
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return nil, 0, context.DeadlineExceeded
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

// answeredAlone returns the answer if it is all that the stream has to say.
func (s *stream) answeredAlone(m *mcp.Message) (answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.final, s.ended && (m == nil || s.final.msg == m)
}

// eventID names event n of the stream.
func (s *stream) eventID(n int) string {
	if s.id == "" {
		return ""
	}
	return s.id + "_" + strconv.Itoa(n)
}

func parseEventID(id string) (stream string, n int, ok bool) {
	stream, num, ok := strings.Cut(id, "_")
	if !ok {
		return "", 0, false
	}
	n, err := strconv.Atoi(num)
	return stream, n, err == nil && n >= 0 && stream != ""
}

// A telling is how a stream is to be written as an HTTP response.
type telling struct {
	after   int           // the last event the client has
	prime   bool          // begin with an empty event, so that the client can resume
	patient time.Duration // how long to wait for an answer that can be told as JSON
	stream  bool          // tell only failures as JSON: what is streamed can be resumed
	json    bool          // the client takes application/json
	events  bool          // the client takes text/event-stream
}

// tell writes the stream until it ends or ctx does: as one JSON object if the
// answer is all there is to say and comes soon, as server-sent events
// otherwise.
func (s *stream) tell(ctx context.Context, w http.ResponseWriter, t telling) {
	reader, err := s.attach(t.after)
	if err != nil {
		httpError(w, http.StatusBadRequest, "The stream cannot be read on: "+err.Error()+".")
		return
	}
	defer s.detach(reader)
	var m *mcp.Message
	var n int
	if t.patient > 0 {
		m, n, err = s.next(ctx, reader, t.patient)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, io.EOF) {
			return // the client is gone, or we are
		}
		if a, alone := s.answeredAlone(m); alone && !(t.events && (a.status < 300 && (t.stream || a.events) || !t.json)) {
			writeAnswer(w, a)
			return
		}
	}
	if !t.events {
		if a, alone := s.answeredAlone(s.drain(ctx, reader, m)); alone {
			writeAnswer(w, a)
		}
		return
	}
	s.tellEvents(ctx, w, t, reader, m, n)
}

// drain skips to the last event.
func (s *stream) drain(ctx context.Context, reader int, last *mcp.Message) *mcp.Message {
	for {
		m, _, err := s.next(ctx, reader, keepAlive)
		switch {
		case err == nil:
			last = m
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		default:
			return last
		}
	}
}

func (s *stream) tellEvents(ctx context.Context, w http.ResponseWriter, t telling, reader int, m *mcp.Message, n int) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	// A writer that knows no deadlines has none to be held to.
	_ = rc.SetWriteDeadline(time.Now().Add(slowReader))
	defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	var err error
	if t.prime {
		// When to come back, for a client that loses the stream (SEP-1699).
		if _, err = io.WriteString(w, "retry: "+reconnectAfter+"\n"); err == nil {
			err = mcp.WriteEvent(w, s.eventID(t.after), nil)
		}
	} else {
		// Proxies hold headers back until there is something to go with them.
		_, err = io.WriteString(w, ": \n\n")
	}
	for err == nil {
		if m != nil {
			err = mcp.WriteEvent(w, s.eventID(n), m.Bytes())
		}
		if err == nil {
			err = rc.Flush()
		}
		if err != nil {
			return
		}
		m, n, err = s.next(ctx, reader, keepAlive)
		_ = rc.SetWriteDeadline(time.Now().Add(slowReader))
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			_, err = io.WriteString(w, ": \n\n")
		}
	}
}

func writeAnswer(w http.ResponseWriter, a answer) {
	if len(a.challenge) > 0 {
		w.Header()["Www-Authenticate"] = a.challenge
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if a.status == 0 {
		a.status = http.StatusOK
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.msg.Bytes()) // a client that is gone needs no answer
}
