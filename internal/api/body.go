package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// body reads the request body, which must be JSON. It is never reused: the
// decision points into it.
func (e *exchange) body() ([]byte, *problem) {
	if !e.sentJSON() {
		// AuthZEN certification, case 2.4.3: 400 and not 415.
		return nil, badRequest("Content-Type must be application/json.")
	}
	if e.r.ContentLength > e.api.MaxBody {
		return nil, tooLarge()
	}
	rc := http.NewResponseController(e.w)
	// A writer that knows no deadlines has none to be held to.
	_ = rc.SetReadDeadline(time.Now().Add(slowReader))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	b, err := e.read()
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, tooLarge()
	case err != nil:
		return nil, badRequest("The body could not be read in time.")
	case len(b) == 0:
		return nil, badRequest("The body is empty; it must be one JSON object.")
	}
	return b, nil
}

func (e *exchange) read() ([]byte, error) {
	if e.r.ContentLength < 0 {
		return io.ReadAll(http.MaxBytesReader(e.w, e.r.Body, e.api.MaxBody))
	}
	b := make([]byte, e.r.ContentLength)
	_, err := io.ReadFull(e.r.Body, b)
	return b, err
}

func (e *exchange) sentJSON() bool {
	values := e.r.Header["Content-Type"]
	if len(values) != 1 {
		return false
	}
	if values[0] == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(values[0])
	charset, ok := params["charset"]
	return err == nil && media == "application/json" && (!ok || strings.EqualFold(charset, "utf-8"))
}
