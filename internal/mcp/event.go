package mcp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// An Event is one server-sent event (WHATWG HTML §9.2).
type Event struct {
	// ID is the id that the event sets, or "" if it sets none.
	ID string
	// Type is "" for a message.
	Type string
	// Data is empty in an event that only sets an id or a delay.
	Data []byte
	// Retry is how long to wait before reconnecting; 0 if the event does not
	// say.
	Retry time.Duration
}

// isMessage reports whether the event carries a message of the protocol.
func (e Event) isMessage() bool {
	return len(e.Data) > 0 && (e.Type == "" || e.Type == "message")
}

// WriteEvent writes one event, in a single Write. The id may be empty; so may
// the data, which makes the event one that only primes the client to resume.
// Flushing is the caller's.
func WriteEvent(w io.Writer, id string, data []byte) error {
	if strings.ContainsAny(id, "\r\n\x00") {
		return fmt.Errorf("write an event: the id %q has a control character", id)
	}
	out := make([]byte, 0, len(id)+len(data)+16)
	if id != "" {
		out = append(append(append(out, "id: "...), id...), '\n')
	}
	out = append(append(append(out, "data: "...), oneLine(data)...), "\n\n"...)
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	return nil
}

// maxRetry bounds how long a server may make a client wait.
const maxRetry = time.Hour

// An EventReader reads server-sent events.
type EventReader struct {
	r     *bufio.Reader
	max   int64
	begun bool // the first bytes have been looked at
	lf    bool // a line feed that comes next belongs to the line before
	err   error
}

// NewEventReader returns a reader of events that are at most max bytes long
// ([DefaultMaxMessage] if max is not positive).
func NewEventReader(r io.Reader, max int64) *EventReader {
	return &EventReader{r: bufio.NewReaderSize(r, 16<<10), max: maxMessage(max)}
}

// Next returns the next event that says anything: data, an id or a delay. An
// event that the stream ends in is not one. All errors are final: io.EOF is
// the end, and a [*SyntaxError] an event that is too long.
func (r *EventReader) Next() (Event, error) {
	if r.err != nil {
		return Event{}, r.err
	}
	e, err := r.next()
	if err != nil {
		r.err = err
		return Event{}, err
	}
	return e, nil
}

func (r *EventReader) next() (Event, error) {
	if !r.begun {
		r.begun = true
		if b, _ := r.r.Peek(3); string(b) == "\xef\xbb\xbf" {
			// The peek has shown that three bytes are there.
			_, _ = r.r.Discard(3)
		}
	}
	var e Event
	hasData := false
	room := r.max
	for {
		line, err := r.line(room)
		if err != nil {
			return Event{}, err
		}
		room -= int64(len(line))
		if len(line) == 0 {
			if len(e.Data) > 0 || e.ID != "" || e.Retry != 0 {
				return e, nil
			}
			e, hasData, room = Event{}, false, r.max
			continue
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "data":
			if hasData {
				e.Data = append(e.Data, '\n')
			}
			e.Data = append(e.Data, value...)
			hasData = true
		case "event":
			e.Type = string(value)
		case "id":
			if !bytes.ContainsRune(value, 0) {
				e.ID = string(value)
			}
		case "retry":
			e.Retry = retryDelay(string(value))
		}
	}
}

// retryDelay reads the value of a retry field: digits only, milliseconds.
func retryDelay(s string) time.Duration {
	ms, err := strconv.ParseUint(s, 10, 64)
	switch {
	case err != nil && strings.Trim(s, "0123456789") != "" || s == "":
		return 0
	case err != nil || ms > uint64(maxRetry/time.Millisecond):
		return maxRetry
	default:
		return time.Duration(ms) * time.Millisecond
	}
}

// line returns the next line without its end, which is LF, CR or CRLF.
// Comments are skipped as they come, so that they take no memory.
func (r *EventReader) line(room int64) ([]byte, error) {
	var line []byte
	comment := false
	for started := false; ; {
		if _, err := r.r.Peek(1); err != nil {
			return nil, err
		}
		buf, _ := r.r.Peek(r.r.Buffered())
		if r.lf {
			r.lf = false
			if buf[0] == '\n' {
				_, _ = r.r.Discard(1) // it has been peeked
				continue
			}
		}
		if !started {
			started, comment = true, buf[0] == ':'
		}
		end := bytes.IndexAny(buf, "\r\n")
		part := buf
		if end >= 0 {
			part = buf[:end]
		}
		if !comment {
			if int64(len(line)+len(part)) > room {
				return nil, errTooLong(r.max)
			}
			line = append(line, part...)
		}
		if end < 0 {
			_, _ = r.r.Discard(len(buf)) // it has been peeked
			continue
		}
		r.lf = buf[end] == '\r'
		_, _ = r.r.Discard(end + 1) // it has been peeked
		if !comment {
			return line, nil
		}
		started, comment = false, false
	}
}
