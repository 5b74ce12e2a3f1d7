package desk

import "bytes"

// withoutComments turns JSON with comments and trailing commas, as editors
// write it, into JSON. Lines stay where they are.
func withoutComments(text []byte) []byte {
	out := make([]byte, 0, len(text))
	comma := -1 // where a comma stands that nothing but space has followed
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			end := endOfString(text, i)
			out = append(out, text[i:end]...)
			i = end - 1
			comma = -1
		case c == '/' && i+1 < len(text) && text[i+1] == '/':
			for i < len(text) && text[i] != '\n' {
				i++
			}
			i-- // the line's end is kept
		case c == '/' && i+1 < len(text) && text[i+1] == '*':
			comment := text[i:]
			if end := bytes.Index(comment[2:], []byte("*/")); end >= 0 {
				comment = comment[:end+4]
			}
			out = append(out, bytes.Repeat([]byte("\n"), bytes.Count(comment, []byte("\n")))...)
			i += len(comment) - 1
		case c == ',':
			comma = len(out)
			out = append(out, c)
		case (c == '}' || c == ']') && comma >= 0:
			out[comma] = ' '
			out = append(out, c)
			comma = -1
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			out = append(out, c)
		default:
			out = append(out, c)
			comma = -1
		}
	}
	return out
}

// endOfString returns the index behind the string that starts at i.
func endOfString(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}
