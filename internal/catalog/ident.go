package catalog

import "strings"

// Escape turns any name into a Cedar identifier that is free to be declared as
// a type, and can be turned back by [Unescape]. A name that is such an
// identifier already stays as it is, with few exceptions:
//
//   - a byte that an identifier may not hold becomes "_x" and two hexadecimal
//     digits, and so does an underscore that would read as such an escape;
//   - of a word that Cedar keeps for itself the first letter is escaped;
//   - the first of two underscores and an underscore at the end are escaped.
//
// The last rule makes names that are joined by "__" unambiguous.
func Escape(name string) string {
	if name == "" {
		return emptyName
	}
	var b strings.Builder
	for i := range len(name) {
		if keepByte(name, i) {
			b.WriteByte(name[i])
			continue
		}
		const hex = "0123456789abcdef"
		b.WriteString("_x")
		b.WriteByte(hex[name[i]>>4])
		b.WriteByte(hex[name[i]&15])
	}
	return b.String()
}

// emptyName stands for the empty name. It is the escape of a letter that by
// itself is never escaped.
const emptyName = "_x65"

// keepByte reports whether name[i] can stand for itself.
func keepByte(name string, i int) bool {
	c := name[i]
	switch {
	case i == 0 && keptWord(name):
		return false
	case isLetter(c):
		return true
	case isDigit(c):
		return i > 0
	case c != '_' || i+1 == len(name):
		return false
	}
	// An underscore stays before a letter or digit, unless the result would
	// look like an escape. Anything else that follows begins with an
	// underscore once it is escaped.
	next := name[i+1]
	if !isLetter(next) && !isDigit(next) {
		return false
	}
	return next != 'x' || i+3 >= len(name) || !isHex(name[i+2]) || !isHex(name[i+3])
}

// Unescape undoes [Escape]. What Escape never writes comes back unchanged.
func Unescape(ident string) string {
	if ident == emptyName {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(ident); i++ {
		if ident[i] == '_' && i+3 < len(ident) && ident[i+1] == 'x' && isHex(ident[i+2]) && isHex(ident[i+3]) {
			b.WriteByte(unhex(ident[i+2])<<4 | unhex(ident[i+3]))
			i += 3
			continue
		}
		b.WriteByte(ident[i])
	}
	return b.String()
}

// keptWord reports whether Cedar gives a word a meaning that a declared type
// may not have, or that one would hide from its neighbours.
func keptWord(s string) bool {
	switch s {
	case "true", "false", "if", "then", "else", "in", "like", "has", "is", "__cedar",
		"Bool", "Boolean", "Entity", "Extension", "Long", "Record", "Set", "String",
		"decimal", "datetime", "duration", "ipaddr", "Action":
		return true
	default:
		return false
	}
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isHex(c byte) bool    { return isDigit(c) || 'a' <= c && c <= 'f' }

func unhex(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c - 'a' + 10
}
