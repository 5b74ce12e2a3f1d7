package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// The groups of a record are encoded by hand: it is on the path of every
// decision, and reflection took most of the time that a record takes before it
// is queued. The bytes are those of encoding/json, field by field; a test
// compares the two, so that a field that is added above and forgotten here is
// found.

// A jsonWriter appends JSON. After its first error what it has is of no use.
type jsonWriter struct {
	b   []byte
	err error
}

func (w *jsonWriter) raw(s string) { w.b = append(w.b, s...) }

// plain says whether encoding/json writes a byte of a string as it is. What is
// not ASCII is left to it, because of U+2028, U+2029 and broken UTF-8.
func plain(c byte) bool {
	return c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func (w *jsonWriter) text(s string) {
	for i := range len(s) {
		if !plain(s[i]) {
			text, err := json.Marshal(s)
			if err != nil {
				w.err = err
			}
			w.b = append(w.b, text...)
			return
		}
	}
	w.b = append(append(append(w.b, '"'), s...), '"')
}

func (w *jsonWriter) number(n int64) { w.b = strconv.AppendInt(w.b, n, 10) }

// key appends what stands before a value: its key, after a comma if it is not
// the object's first.
func (w *jsonWriter) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

// The following append a member; those of "some" leave out what is empty.

func (w *jsonWriter) textOf(name, s string) {
	w.key(name)
	w.text(s)
}

func (w *jsonWriter) someText(name, s string) {
	if s != "" {
		w.textOf(name, s)
	}
}

func (w *jsonWriter) numberOf(name string, n int64) {
	w.key(name)
	w.number(n)
}

func (w *jsonWriter) someNumber(name string, n int64) {
	if n != 0 {
		w.numberOf(name, n)
	}
}

func (w *jsonWriter) someTexts(name string, list []string) {
	if len(list) == 0 {
		return
	}
	w.key(name)
	for i, s := range list {
		w.separate('[', i)
		w.text(s)
	}
	w.raw("]")
}

// separate appends what stands before the element with this number.
func (w *jsonWriter) separate(open byte, i int) {
	if i > 0 {
		open = ','
	}
	w.b = append(w.b, open)
}

func (w *jsonWriter) entity(name string, e authz.Entity) {
	w.key(name)
	w.raw("{")
	w.textOf("type", e.Type)
	w.textOf("id", e.ID)
	w.raw("}")
}

func (w *jsonWriter) who(o *Who) {
	w.raw("{")
	w.entity("subject", o.Subject)
	w.someText("for", o.For)
	w.someTexts("groups", o.Groups)
	w.chain(o.Chain)
	w.someText("owner", o.Owner)
	w.someText("purpose", o.Purpose)
	w.someText("model", o.Model)
	w.someText("auth", o.Auth)
	w.someNumber("level", o.Level)
	w.someNumber("authenticated", o.Authenticated)
	w.someTexts("scopes", o.Scopes)
	w.someText("pep", o.PEP)
	w.someText("session", o.Session)
	w.someText("gate", o.Gate)
	w.someText("correlation", o.Correlation)
	w.raw("}")
}

func (w *jsonWriter) chain(list []Actor) {
	if len(list) == 0 {
		return
	}
	w.key("chain")
	for i := range list {
		a := &list[i]
		w.separate('[', i)
		w.raw("{")
		w.textOf("id", a.ID)
		w.someTexts("groups", a.Groups)
		w.someText("owner", a.Owner)
		w.someText("purpose", a.Purpose)
		w.someText("model", a.Model)
		w.raw("}")
	}
	w.raw("]")
}

func (w *jsonWriter) what(o *What) {
	w.raw("{")
	w.textOf("action", o.Action)
	w.someText("server", o.Server)
	w.entity("resource", o.Resource)
	w.someText("definition", o.Definition)
	w.someTexts("effects", o.Effects)
	w.raw("}")
}

func (w *jsonWriter) why(o *Why) {
	w.raw("{")
	w.textOf("mode", o.Mode)
	w.key("released")
	w.b = strconv.AppendBool(w.b, o.Released)
	if o.Advised {
		w.key("advised")
		w.raw("true")
	}
	w.key("reasons")
	w.reasons(o.Reasons)
	w.policies(o.Policies)
	w.session(o.Session)
	w.risk(o.Risk)
	w.origins(o.Origins)
	w.someTexts("labels", o.Labels)
	w.spends(o.Spends)
	w.numbers("micros", o.Micros)
	w.raw("}")
}

func (w *jsonWriter) risk(o *Risk) {
	if o == nil {
		return
	}
	w.key("risk")
	w.raw("{")
	w.numberOf("score", o.Score)
	w.numbers("points", o.Points)
	w.raw("}")
}

func (w *jsonWriter) reasons(list []authz.Reason) {
	if list == nil {
		w.raw("null")
		return
	}
	w.raw("[")
	for i := range list {
		if i > 0 {
			w.raw(",")
		}
		w.raw("{")
		w.textOf("code", list[i].Code)
		w.textOf("message", list[i].Message)
		w.raw("}")
	}
	w.raw("]")
}

func (w *jsonWriter) policies(list []authz.PolicyRef) {
	if len(list) == 0 {
		return
	}
	w.key("policies")
	for i := range list {
		p := &list[i]
		w.separate('[', i)
		w.raw("{")
		w.textOf("id", p.ID)
		w.textOf("effect", p.Effect)
		w.textOf("file", p.File)
		w.numberOf("line", int64(p.Line))
		w.someText("error", p.Error)
		w.raw("}")
	}
	w.raw("]")
}

func (w *jsonWriter) session(o *Session) {
	if o == nil {
		return
	}
	w.key("session")
	w.raw("{")
	w.textOf("id", o.ID)
	w.someTexts("labels", o.Labels)
	w.numberOf("calls", o.Calls)
	w.numberOf("denials", o.Denials)
	w.timeOf("started", o.Started)
	w.raw("}")
}

func (w *jsonWriter) timeOf(name string, t time.Time) {
	w.key(name)
	w.raw(`"`)
	b, err := t.AppendText(w.b)
	if err != nil {
		w.err = fmt.Errorf("%s: %w", name, err)
		return
	}
	w.b = b
	w.raw(`"`)
}

func (w *jsonWriter) spends(list []Spend) {
	if len(list) == 0 {
		return
	}
	w.key("spends")
	for i := range list {
		s := &list[i]
		w.separate('[', i)
		w.raw("{")
		w.textOf("budget", s.Budget)
		w.textOf("subject", s.Subject)
		w.timeOf("window", s.Window)
		w.numberOf("amount", s.Amount)
		w.raw("}")
	}
	w.raw("]")
}

func (w *jsonWriter) origins(list []Origin) {
	if len(list) == 0 {
		return
	}
	w.key("origins")
	for i := range list {
		o := &list[i]
		w.separate('[', i)
		w.raw("{")
		w.textOf("of", o.Of)
		w.textOf("origin", o.Origin)
		w.someText("tool", o.Tool)
		w.numberOf("step", o.Step)
		w.someTrue("named", o.Named)
		w.someTrue("contested", o.Contested)
		w.raw("}")
	}
	w.raw("]")
}

// someTrue writes a truth value, unless it is false.
func (w *jsonWriter) someTrue(name string, value bool) {
	if value {
		w.key(name)
		w.raw("true")
	}
}

func (w *jsonWriter) numbers(name string, m map[string]int64) {
	if len(m) == 0 {
		return
	}
	var room [8]string
	keys := room[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	w.key(name)
	w.raw("{")
	for _, k := range keys {
		// Not key: it takes the names of fields, which need no escape.
		if w.b[len(w.b)-1] != '{' {
			w.raw(",")
		}
		w.text(k)
		w.raw(":")
		w.number(m[k])
	}
	w.raw("}")
}

func (w *jsonWriter) outcome(o *Outcome) {
	w.raw("{")
	w.textOf("status", string(o.Status))
	if o.Bytes != 0 {
		w.numberOf("bytes", o.Bytes)
	}
	w.someText("error", o.Error)
	w.raw("}")
}
