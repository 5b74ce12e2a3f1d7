package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// A page is where a command writes for people: with colours and as wide as it
// is on a terminal, plain everywhere else.
type page struct {
	io.Writer
	width  int
	colour bool
	rich   bool // a terminal
}

// plainWidth is the width of a page that is no terminal.
const plainWidth = 100

// newPage looks at what w is. NO_COLOR (no-color.org) and TERM=dumb turn
// colours off.
func newPage(w io.Writer) *page {
	p := &page{Writer: w, width: plainWidth}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return p
	}
	p.rich = true
	p.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
		p.width = min(max(columns, 40), 120)
	}
	return p
}

// A style is an ANSI rendition. It never says what a word does not say too.
type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// in renders s in a style, where there are colours.
func (p *page) in(st style, s string) string {
	if !p.colour || s == "" {
		return s
	}
	return "\x1b[" + string(st) + "m" + s + "\x1b[0m"
}

// rule is a line across the page.
func (p *page) rule() string {
	if p.rich {
		return p.in(dim, strings.Repeat("─", p.width))
	}
	return strings.Repeat("-", p.width)
}

// wrap breaks text into lines that fit behind an indent of n columns. The
// first line has no indent, the others have. A word is never broken: a path or
// a digest has to survive being copied.
func (p *page) wrap(text string, n int) string {
	var b strings.Builder
	column := n
	for i, word := range strings.Fields(text) {
		w := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+w > p.width:
			b.WriteString("\n" + strings.Repeat(" ", n))
			column = n
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += w
	}
	return b.String()
}

// pad fills s with spaces up to n columns.
func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s)))
}

// clip cuts s to at most n columns.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(0, n-3)]) + "..."
}

// printable replaces control characters: what servers and agents say must not
// steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}
