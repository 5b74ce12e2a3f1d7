package mcp

import (
	"io"
	"time"
)

// An Event is one server-sent event.
type Event struct {
	ID    string
	Type  string
	Data  []byte
	Retry time.Duration
}

// WriteEvent writes one event in a single Write.
func WriteEvent(w io.Writer, id string, data []byte) error { return errTODO }

// An EventReader reads server-sent events.
type EventReader struct{}

func NewEventReader(r io.Reader, max int64) *EventReader { return &EventReader{} }
func (r *EventReader) Next() (Event, error)              { return Event{}, errTODO }
