package provenance

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// appendNormal appends text in the form in which values are compared: NFKC,
// lower case, without characters that show nothing.
func appendNormal(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return appendUnicode(b, s)
		}
	}
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

func appendUnicode(b []byte, s string) []byte {
	for _, r := range norm.NFKC.String(strings.ToLower(norm.NFKC.String(s))) {
		switch {
		case unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Mn, r):
		case r >= utf8.RuneSelf && (unicode.IsSpace(r) || unicode.IsPunct(r) || unicode.IsSymbol(r)):
			b = append(b, ' ')
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// A word is a part of a normal text between separators.
type word struct {
	text []byte
	// link: it is the host of a URL.
	link bool
}

// words calls yield for each word of a normal text, in order.
//
// Separators are white space and what encloses or joins words, so that a path
// or URL falls into its parts. Not '@', '.', '-' and '_', which would take
// addresses and names apart: a part of an address must not stand for it.
func words(text []byte, yield func(word)) {
	start, link := -1, false
	for i := 0; i <= len(text); i++ {
		if i < len(text) && !separates(text, i) {
			if start < 0 {
				start = i
			}
			continue
		}
		if start < 0 {
			continue
		}
		w := bytes.TrimFunc(text[start:i], isEdge)
		if len(w) > 0 {
			yield(word{text: number(w), link: link || bytes.HasPrefix(w, []byte("www."))})
		}
		link = i+2 < len(text) && text[i] == ':' && text[i+1] == '/' && text[i+2] == '/'
		start = -1
	}
}

func isEdge(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

func separates(text []byte, i int) bool {
	switch c := text[i]; c {
	case ';', '(', ')', '<', '>', '[', ']', '{', '}', '"', '\'', '`', '|', '\\', '/', '?', '&', '=', '#', '*', '!':
		return true
	case ':': // a time has it inside
		return i == 0 || i+1 == len(text) || !isDigit(text[i-1]) || !isDigit(text[i+1])
	case ',': // a large number has it inside
		return i == 0 || i+3 >= len(text) || !isDigit(text[i-1]) || !isDigit(text[i+1]) || !isDigit(text[i+2]) || !isDigit(text[i+3])
	default:
		return c <= ' ' || c == 0x7f
	}
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || c >= utf8.RuneSelf }

// number gives numbers one form: without thousands' commas and without zeros at
// the end of a fraction. Other words stay as they are. It may write over w.
func number(w []byte) []byte {
	dot := -1
	for i, c := range w {
		switch {
		case c == '.' && dot < 0 && i > 0:
			dot = i
		case c != ',' && !isDigit(c):
			return w
		}
	}
	if bytes.IndexByte(w, ',') >= 0 {
		n := 0
		for _, c := range w {
			if c != ',' {
				w[n] = c
				n++
			}
		}
		w = w[:n]
		dot = bytes.IndexByte(w, '.')
	}
	if dot > 0 {
		w = bytes.TrimRight(bytes.TrimRight(w, "0"), ".")
	}
	return w
}

// plain appends the letters and digits of a word, or reports false if it has
// something else in it than those and hyphens. In an address every character
// counts, so an address has no plain form.
func plain(b, w []byte) ([]byte, bool) {
	for _, c := range w {
		switch {
		case isDigit(c) || isLetter(c):
			b = append(b, c)
		case c != '-':
			return b, false
		}
	}
	return b, true
}

// isNumberLike reports whether a plain form is that of an account, card or
// telephone number, which people write with spaces in different places.
func isNumberLike(b []byte) bool {
	digits := 0
	for _, c := range b {
		if isDigit(c) {
			digits++
		}
	}
	return len(b) >= 8 && digits >= 4
}

// isWeak reports whether a word says so little that two sources may well hold
// it by chance: the 13 of "June 13" is not the file 13.
func isWeak(w []byte) bool {
	if len(w) <= 2 {
		return true
	}
	for _, c := range w {
		if !isDigit(c) && c != '.' {
			return false
		}
	}
	return len(w) <= 5
}

// isProper reports whether a word is no word of a language: a file's name, an
// address, a number of an account.
func isProper(w []byte) bool {
	if isWeak(w) {
		return false
	}
	for _, c := range w {
		if !isLetter(c) {
			return true
		}
	}
	return false
}

// isPointer reports whether a word leads somewhere by itself: an address, the
// host of a URL, an account.
func isPointer(w word) bool {
	if w.link || bytes.IndexByte(w.text, '@') > 0 {
		return true
	}
	return isAccount(w.text)
}

// isAccount reports whether a word is like the number of a bank account.
func isAccount(w []byte) bool {
	letters, digits := 0, 0
	for _, c := range w {
		switch {
		case isDigit(c):
			digits++
		case isLetter(c):
			letters++
		default:
			return false
		}
	}
	return letters >= 2 && digits >= 8
}

// decoded calls yield with what the parts of a text are in plain text, if they
// are written in percent or base64 encoding.
func decoded(s string, yield func(string)) {
	if strings.IndexByte(s, '%') >= 0 {
		if plain, err := url.PathUnescape(s); err == nil && plain != s && utf8.ValidString(plain) {
			yield(plain)
		}
	}
	for len(s) >= shortestBase64 {
		end := 0
		for end < len(s) && isBase64(s[end]) {
			end++
		}
		if end >= shortestBase64 {
			if plain, ok := fromBase64(s[:end]); ok {
				yield(plain)
			}
		}
		s = s[min(end+1, len(s)):]
	}
}

const shortestBase64 = 12

func isBase64(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '+' || c == '/' || c == '-' || c == '_' || c == '='
}

func fromBase64(s string) (string, bool) {
	s = strings.TrimRight(s, "=")
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		b, err = base64.RawURLEncoding.DecodeString(s)
	}
	if err != nil || !utf8.Valid(b) {
		return "", false
	}
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f {
			return "", false
		}
	}
	return string(b), true
}
