package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// A server that says one wrong thing has no numbers.
func TestLoadTakesNoWrongAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body, err string
		status          int
		chunked         bool
	}{
		{name: "right", body: `{"decision":true}`, status: 200},
		{name: "right in chunks", body: `{"decision":true}`, status: 200, chunked: true},
		{name: "wrong", body: `{"decision":false}`, status: 200, err: "wrong answer"},
		{name: "refused", body: `{"decision":true}`, status: 503, err: "wrong answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				for _, part := range strings.SplitAfter(tt.body, "{") {
					fmt.Fprint(w, part)
					if tt.chunked {
						w.(http.Flusher).Flush()
					}
				}
			}))
			defer srv.Close()
			s := &server{addr: srv.Listener.Addr().String(), ask: askAuthZEN, yes: `"decision":true`, no: `"decision":false`}
			w := &workload{questions: []question{{allow: true}, {allow: true}, {allow: true}}}
			if err := s.render(w); err != nil {
				t.Fatal(err)
			}
			_, err := drive(s.addr, os.Getpid(), s.wire, 2, 10*time.Millisecond, 50*time.Millisecond)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}
