// Package wire is the JSON in which our gates in other processes talk to a
// PDP.
//
// Both ends are strict: a member that one does not know could be one that the
// decision depends on, so it is an error, and the gate denies. A change of
// the form is another version of the endpoints.
package wire

import (
	"errors"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// The endpoints. All are asked by POST.
const (
	PathDecide    = "/bailiwick/v1/decide"
	PathReachable = "/bailiwick/v1/reachable"
	PathReport    = "/bailiwick/v1/report"
	PathPrompt    = "/bailiwick/v1/prompt"
)

// errRaw is a part of a message which, put into it, would be more than a part.
var errRaw = errors.New("not one I-JSON object")

// A form reads one message.
type form struct {
	r   *ijson.Reader
	bad string // the first thing wrong, other than syntax
}

// begin reads the one object that a message is.
func begin(r *ijson.Reader, text []byte) *form {
	r.Reset(text)
	return &form{r: r}
}

// object reads an object; read reads the value of a member that it knows.
func (f *form) object(what string, read func(member string) bool) {
	if !f.r.Object() {
		f.expect(what, "an object")
		return
	}
	for name, ok := f.r.Next(); ok; name, ok = f.r.Next() {
		if !read(string(name)) {
			f.complain(what + " has a member that is not known here: " + strconv.Quote(string(name[:min(len(name), 64)])))
			f.r.Value()
		}
	}
}

func (f *form) array(what string, read func()) {
	if !f.r.Array() {
		f.expect(what, "an array")
		return
	}
	for f.r.Element() {
		read()
	}
}

func (f *form) text(what string) string {
	s, ok := f.r.String()
	if !ok {
		f.expect(what, "a string")
	}
	return s
}

func (f *form) bool(what string) bool {
	switch string(f.r.Value()) {
	case "true":
		return true
	case "false":
	default:
		f.complain(what + " must be a boolean")
	}
	return false
}

func (f *form) integer(what string) int64 {
	n, err := strconv.ParseInt(string(f.r.Value()), 10, 64)
	if err != nil {
		f.complain(what + " must be an integer")
	}
	return n
}

func (f *form) raw(what string) []byte {
	if f.r.Kind() != '{' {
		f.expect(what, "an object")
		return nil
	}
	return f.r.Value()
}

func (f *form) entity(what string) (e authz.Entity) {
	f.object(what, func(member string) bool {
		switch member {
		case "type":
			e.Type = f.text(what + ".type")
		case "id":
			e.ID = f.text(what + ".id")
		default:
			return false
		}
		return true
	})
	return e
}

func (f *form) expect(what, kind string) {
	f.complain(what + " must be " + kind)
	f.r.Value()
}

func (f *form) complain(what string) {
	if f.bad == "" {
		f.bad = what
	}
}

// end says whether the message was understood.
func (f *form) end() error {
	if err := f.r.End(); err != nil {
		return err
	}
	if f.bad != "" {
		return errors.New(f.bad)
	}
	return nil
}

// A writer writes the members of one object after the other.
type writer struct {
	b   []byte
	err error
}

// fail keeps the first error.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// open begins an object, as the value of a member unless name is empty.
func (w *writer) open(name string) {
	w.name(name)
	w.b = append(w.b, '{')
}

func (w *writer) close() {
	w.trim()
	w.b = append(w.b, "},"...)
}

func (w *writer) trim() {
	if w.b[len(w.b)-1] == ',' {
		w.b = w.b[:len(w.b)-1]
	}
}

func (w *writer) name(name string) {
	if name != "" {
		w.b = append(w.b, '"')
		w.b = append(w.b, name...)
		w.b = append(w.b, `":`...)
	}
}

// text writes a string, unless it is empty.
func (w *writer) text(name, value string) {
	if value != "" {
		w.mustText(name, value)
	}
}

// mustText writes a string. What is not UTF-8 would reach the other side as
// something else.
func (w *writer) mustText(name, value string) {
	w.name(name)
	b, err := jsontext.AppendQuote(w.b, value)
	if err != nil {
		w.fail(errors.New(name + " is not UTF-8"))
		return
	}
	w.b = append(b, ',')
}

// texts writes a list of strings, unless it is empty.
func (w *writer) texts(name string, values []string) {
	if len(values) == 0 {
		return
	}
	w.name(name)
	w.b = append(w.b, '[')
	for _, v := range values {
		w.mustText("", strings.ToValidUTF8(v, "\uFFFD"))
	}
	w.trim()
	w.b = append(w.b, "],"...)
}

func (w *writer) bool(name string, value bool) {
	w.name(name)
	w.b = strconv.AppendBool(w.b, value)
	w.b = append(w.b, ',')
}

// integer writes an integer, unless it is 0.
func (w *writer) integer(name string, value int64) {
	if value != 0 {
		w.name(name)
		w.b = strconv.AppendInt(w.b, value, 10)
		w.b = append(w.b, ',')
	}
}

// raw writes an object as it stands, unless there is none. It is checked, for
// it would otherwise bring its own members into the message.
func (w *writer) raw(name string, value []byte) {
	if len(value) == 0 {
		return
	}
	var r ijson.Reader
	r.Reset(value)
	if r.Kind() != '{' || len(r.Value()) == 0 || r.End() != nil {
		w.fail(errRaw)
		return
	}
	w.name(name)
	w.b = append(w.b, value...)
	w.b = append(w.b, ',')
}

func (w *writer) entity(name string, e authz.Entity) {
	if e.IsZero() {
		return
	}
	w.open(name)
	w.mustText("type", e.Type)
	w.mustText("id", e.ID)
	w.close()
}

// end returns the message.
func (w *writer) end() ([]byte, error) {
	w.trim()
	return w.b, w.err
}
