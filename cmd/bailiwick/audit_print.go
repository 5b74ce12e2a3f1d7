package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/app"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

const auditTime = "2006-01-02 15:04:05.000"

// hitLine is one record in one line.
func hitLine(p *page, h audit.Hit) string {
	r := h.Record
	line := fmt.Sprintf("%s  %s  ", p.in(dim, r.Time.UTC().Format(auditTime)+"Z"), pad(fmt.Sprintf("#%d", h.Index), 7))
	switch r.Kind {
	case audit.KindDecision:
		line += decisionWords(p, h)
	case audit.KindOutcome:
		line += p.in(dim, pad("outcome", 9)) + r.Effect + " of " + r.Decision
		if r.Outcome != nil && r.Outcome.Error != "" {
			line += ": " + printable(r.Outcome.Error)
		}
	default:
		line += p.in(dim, pad(string(r.Kind), 9)) + r.Effect + "  " + printable(string(r.System))
	}
	return line
}

func decisionWords(p *page, h audit.Hit) string {
	r := h.Record
	words := []string{p.in(effectStyle(r.Effect), pad(effectWord(r), 9)), pad(agentOf(r), 16), actionOf(r)}
	if r.Why != nil && len(r.Why.Reasons) > 0 && r.Effect != "allow" {
		words = append(words, r.Why.Reasons[0].Code)
	}
	if h.Outcome != "" {
		words = append(words, "→ "+h.Outcome)
	}
	return strings.Join(words, "  ")
}

// effectWord says when an action ran although policy denied it.
func effectWord(r audit.Record) string {
	if r.Effect == "deny" && r.Why != nil && r.Why.Released {
		return "observed"
	}
	return r.Effect
}

func effectStyle(effect string) style {
	switch effect {
	case "allow":
		return green
	case "deny":
		return red
	default:
		return yellow
	}
}

func agentOf(r audit.Record) string {
	if r.Who == nil || r.Who.Subject.IsZero() {
		return "(nobody)"
	}
	return printable(r.Who.Subject.ID)
}

func actionOf(r audit.Record) string {
	if r.What == nil {
		return "-"
	}
	return printable(r.What.Action)
}

// A sheet prints facts with their names in a column.
type sheet struct {
	*page
	err error
}

const sheetIndent = 13

func (s *sheet) line(name, value string) {
	if s.err != nil || value == "" {
		return
	}
	_, s.err = fmt.Fprintf(s, "%s%s\n", s.in(dim, pad(name, sheetIndent)), s.wrap(printable(value), sheetIndent))
}

// text prints a value that may have several lines.
func (s *sheet) text(name, value string) {
	for i, l := range strings.Split(value, "\n") {
		if i > 0 {
			name = ""
		}
		if s.err == nil {
			_, s.err = fmt.Fprintf(s, "%s%s\n", s.in(dim, pad(name, sheetIndent)), printable(l))
		}
	}
}

func (s *sheet) gap() {
	if s.err == nil {
		_, s.err = fmt.Fprintln(s)
	}
}

func printShown(p *page, s audit.Shown, e *app.Evidence) error {
	r := s.Record
	sh := &sheet{page: p}
	_, sh.err = fmt.Fprintln(p, hitLine(p, audit.Hit{Recorded: s.Recorded}))
	sh.gap()
	sh.line("decision", r.Decision)
	sh.who(r.Who)
	sh.what(r.What)
	sh.why(r)
	if len(r.Input) > 0 {
		sh.text("input", indentJSON(r.Input))
	}
	if len(r.System) > 0 {
		sh.text("details", indentJSON(r.System))
	}
	sh.outcome(s)
	sh.gap()
	sh.line("proof", fmt.Sprintf("verified: entry %d is in the tree of size %d that was signed with it", s.Index, s.Size))
	sh.line("log", e.Key.Origin())
	sh.line("key", e.Key.String())
	return sh.err
}

func (s *sheet) who(w *audit.Who) {
	if w == nil {
		return
	}
	s.line("who", entity(w.Subject)+note("in", strings.Join(w.Groups, ", "))+note("verified by", w.Auth))
	s.line("for", w.For)
	s.line("session", w.Session)
	s.line("gate", w.Gate+note("request", w.Correlation))
}

func (s *sheet) what(w *audit.What) {
	if w == nil {
		return
	}
	s.line("action", w.Action+note("effects", strings.Join(w.Effects, ", ")))
	s.line("resource", entity(w.Resource))
	s.line("definition", w.Definition)
}

func (s *sheet) why(r audit.Record) {
	w := r.Why
	if w == nil {
		return
	}
	for _, reason := range w.Reasons {
		s.line("why", reason.Code+": "+reason.Message)
	}
	for _, p := range w.Policies {
		s.line("policy", fmt.Sprintf("%s %s at %s:%d%s", p.Effect, p.ID, p.File, p.Line, note("error", p.Error)))
	}
	s.line("version", r.Version)
	if !w.Released {
		s.line("released", "no")
	} else if r.Effect == "deny" {
		s.line("released", "yes, although policy denied it: mode "+w.Mode)
	} else {
		s.line("released", "yes")
	}
	if x := w.Session; x != nil {
		s.line("state", fmt.Sprintf("%d calls and %d denials before%s", x.Calls, x.Denials, note("labels", strings.Join(x.Labels, ", "))))
	}
	for _, o := range w.Origins {
		s.line("origin", originLine(o))
	}
	s.line("learnt", strings.Join(w.Labels, ", "))
}

// originLine says where a part of the arguments was from.
func originLine(o audit.Origin) string {
	line := o.Of + ": " + o.Origin
	if o.Tool != "" {
		line += fmt.Sprintf(", returned by %s in call %d", o.Tool, o.Step)
	}
	if o.Named {
		line += ", named by the user"
	}
	if o.Contested {
		line += ", named by an outsider too"
	}
	return line
}

func (s *sheet) outcome(x audit.Shown) {
	o, at := x.Record.Outcome, ""
	switch {
	case x.Outcome != nil:
		o, at = x.Outcome.Record.Outcome, fmt.Sprintf(" (entry %d)", x.Outcome.Index)
	case x.Record.Kind == audit.KindDecision && x.Record.Why != nil && x.Record.Why.Released:
		s.line("outcome", "none is recorded yet")
	}
	if o != nil {
		s.line("outcome", string(o.Status)+note("bytes", fmt.Sprint(o.Bytes))+note("error", o.Error)+at)
	}
}

func note(name, value string) string {
	if value == "" {
		return ""
	}
	return ", " + name + " " + value
}

func entity(e authz.Entity) string {
	if e.IsZero() {
		return ""
	}
	return e.Type + " " + e.ID
}

func indentJSON(raw json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return string(raw)
	}
	return b.String()
}

// printReport says what was verified and, as plainly, what was not.
func printReport(p *page, r audit.Report) error {
	s := &sheet{page: p}
	entries := fmt.Sprintf("entries %d to %d", r.First, int64(r.Size)-1)
	if r.Size == r.First {
		entries = "no entries"
	}
	if r.Verified {
		_, s.err = fmt.Fprintf(p, "%s  %s of %s\n\n", p.in(green, "verified"), entries, r.Origin)
	} else {
		_, s.err = fmt.Fprintf(p, "%s  %s of %s, %s\n\n", p.in(red, "NOT VERIFIED"), entries, r.Origin, number(r.FaultCount, "fault"))
	}
	for _, f := range r.Faults {
		s.line("fault", f.String()+" ("+f.Code+")")
	}
	if n := r.FaultCount - len(r.Faults); n > 0 {
		s.line("", fmt.Sprintf("and %d more", n))
	}
	s.line("signed", number(r.Checkpoints, "checkpoint"))
	s.line("root", r.Root)
	s.line("key", r.Key)
	if !r.KeyGiven {
		s.line("", "The key came with the evidence, so this shows only that the two fit. Keep checkpoint.pub elsewhere and pass it with --key.")
	}
	s.end(r)
	s.line("decisions", fmt.Sprintf("%d released, %d with an outcome, %d without%s", r.Released, r.Outcomes, r.Open, note("the first:", strings.Join(r.OpenIDs, " "))))
	if r.Stray > 0 {
		s.line("", number(int(r.Stray), "outcome")+" of a decision that is not among these entries, or a second outcome of one")
	}
	return s.err
}

// end says what is known about what may follow the last entry.
func (s *sheet) end(r audit.Report) {
	if !r.Verified {
		return
	}
	var sizes []string
	for _, n := range r.Known {
		sizes = append(sizes, fmt.Sprint(n))
	}
	if len(sizes) > 0 {
		s.line("compared", "with checkpoints kept elsewhere, of size "+strings.Join(sizes, ", "))
	}
	s.line("end", fmt.Sprintf("This is a prefix of the log. Whether entries follow %d cannot be told from it: compare with a later checkpoint (--checkpoint).", int64(r.Size)-1))
}

func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
