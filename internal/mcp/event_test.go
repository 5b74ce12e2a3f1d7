package mcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func readEvents(r io.Reader, max int64) ([]Event, error) {
	er := NewEventReader(r, max)
	var got []Event
	for {
		e, err := er.Next()
		if err != nil {
			return got, err
		}
		got = append(got, e)
	}
}

func TestEventReader(t *testing.T) {
	t.Parallel()
	data := func(s string) Event { return Event{Data: []byte(s)} }
	for _, tt := range []struct {
		name, in string
		want     []Event
	}{
		{"nothing", "", nil},
		{"one", "data: a\n\n", []Event{data("a")}},
		{"no space, and two", "data:a\n\ndata:  b\n\n", []Event{data("a"), data(" b")}},
		{"carriage returns", "data: a\r\rdata: b\r\n\r\ndata: c\n\r\n", []Event{data("a"), data("b"), data("c")}},
		{"lines join", "data: a\ndata\ndata: b\n\n", []Event{data("a\n\nb")}},
		{"all fields", "event: message\nid: 7\nretry: 1500\ndata: a\n\n", []Event{{ID: "7", Type: "message", Data: []byte("a"), Retry: 1500 * time.Millisecond}}},
		{"priming", "id: 1\ndata:\n\n", []Event{{ID: "1"}}},
		{"only a delay", "retry: 5\n\n", []Event{{Retry: 5 * time.Millisecond}}},
		{"a type alone is nothing", "event: x\n\ndata: a\n\n", []Event{data("a")}},
		{"comments", ":\n: hello\ndata: a\n:x\n\n:\n\n", []Event{data("a")}},
		{"unknown fields", "foo: 1\nbar\ndata: a\n\n", []Event{data("a")}},
		{"a byte order mark", "\xef\xbb\xbfdata: a\n\n", []Event{data("a")}},
		{"cut", "data: a\n\ndata: b\n", []Event{data("a")}},
		{"a null in the id", "id: a\x00b\ndata: a\n\n", []Event{data("a")}},
		{"odd delays", "retry: -1\nretry: 1s\nretry:\ndata: a\n\nretry: 99999999999999999999\n\n", []Event{data("a"), {Retry: maxRetry}}},
		{"long comments take no room", ":" + strings.Repeat("x", 5000) + "\ndata: a\n\n", []Event{data("a")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range map[string]io.Reader{"whole": strings.NewReader(tt.in), "bytewise": iotest.OneByteReader(strings.NewReader(tt.in))} {
				got, err := readEvents(r, 1000)
				if diff := cmp.Diff(tt.want, got); diff != "" || err != io.EOF {
					t.Errorf("%s: %v %s", name, err, diff)
				}
			}
		})
	}
}

func TestEventReaderDoesNotWaitForMore(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"data: a\n\n", "data: a\r\r", "data: a\r\n\r\n"} {
		r, w := io.Pipe()
		go func() {
			_, err := io.WriteString(w, in)
			if err != nil {
				t.Error(err)
			}
		}()
		// The writer says nothing more, and does not close.
		e, err := NewEventReader(r, 0).Next()
		if err != nil || string(e.Data) != "a" {
			t.Errorf("%q: got %q, %v", in, e.Data, err)
		}
		_ = r.Close()
	}
}

func TestEventReaderIsBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"x", "data: x\n", "id: x\nid: y\n", "foo\n", "data:\n"} {
		in := &endless{text: text}
		er := NewEventReader(in, 64<<10)
		_, err := er.Next()
		var bad *SyntaxError
		if !errors.As(err, &bad) || in.n > 1<<20 {
			t.Errorf("%q: got %v after %d bytes", text, err, in.n)
		}
		if _, again := er.Next(); again != err {
			t.Errorf("%q: then %v", text, again)
		}
	}
}

func TestEventsOfOneLimitAreIndependent(t *testing.T) {
	t.Parallel()
	got, err := readEvents(strings.NewReader(strings.Repeat("data: 0123456789\n\n", 100)), 20)
	if len(got) != 100 || err != io.EOF {
		t.Errorf("%d events, %v", len(got), err)
	}
}

func TestWriteEvent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	writes := 0
	w := writerFunc(func(b []byte) (int, error) { writes++; return out.Write(b) })
	for _, e := range []struct{ id, data string }{{"", `{"a":"x\n"}`}, {"7", "{\r\n \"a\":1}"}, {"8", ""}} {
		if err := WriteEvent(w, e.id, []byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	want := "data: {\"a\":\"x\\n\"}\n\nid: 7\ndata: {   \"a\":1}\n\nid: 8\ndata: \n\n"
	if out.String() != want || writes != 3 {
		t.Errorf("%d writes: %q", writes, out.String())
	}
	got, err := readEvents(&out, 0)
	if len(got) != 3 || err != io.EOF || string(got[1].Data) != `{   "a":1}` || got[2].ID != "8" {
		t.Errorf("read back %q, %v", got, err)
	}
	for _, id := range []string{"a\nb", "a\rb", "a\x00b"} {
		if err := WriteEvent(w, id, nil); err == nil {
			t.Errorf("id %q was written", id)
		}
	}
	if err := WriteEvent(writerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }), "", nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

func ExampleWriteEvent() {
	var out strings.Builder
	_ = WriteEvent(&out, "41", NewNotification("notifications/tools/list_changed", nil).Bytes())
	fmt.Print(out.String())
	// Output:
	// id: 41
	// data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}
}
