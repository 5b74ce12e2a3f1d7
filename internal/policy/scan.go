package policy

import (
	"fmt"
	"unicode/utf8"
)

// Caps on text, enforced before anything is parsed. The parser of cedar-go
// recurses without limit, and a Go stack overflow cannot be recovered: it
// would end the process.
const (
	maxFile   = 1 << 20  // bytes of one file of policies
	maxPolicy = 64 << 10 // bytes of one policy
	maxSchema = 16 << 20 // bytes of the schema, which grows with the catalogue
	// maxNesting bounds brackets, if-expressions, runs of ! and -, and chains
	// of accesses, added up along the way down.
	maxNesting = 100
	// maxChain bounds the binary operators in one pair of brackets. They nest
	// in the syntax tree although they do not in the text.
	maxChain = 1000
	// maxHasPath bounds "has a.b.c", whose tree grows with its square.
	maxHasPath = 20
)

type tokenKind uint8

const (
	tokenIdent tokenKind = iota
	tokenInt
	tokenString
	tokenOp // punctuation, also such as Cedar does not know
)

// A token is one token of Cedar text, as cedar-go would see it.
type token struct {
	kind      tokenKind
	text      string // a string keeps its quotes and escapes
	offset    int
	line, col int
}

// A scanError is text that is not even tokens.
type scanError struct {
	line, col int
	message   string
}

// A scanner splits Cedar text into tokens, with the rules of cedar-go for
// strings, comments and columns.
type scanner struct {
	text      string
	pos       int
	line, col int
}

// tokenize returns the tokens of text.
func tokenize(text string) ([]token, *scanError) {
	s := &scanner{text: text, line: 1, col: 1}
	var tokens []token
	for {
		if err := s.skipSpace(); err != nil {
			return nil, err
		}
		if s.pos == len(s.text) {
			return tokens, nil
		}
		t, err := s.next()
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
	}
}

func (s *scanner) fail(line, col int, message string) *scanError {
	return &scanError{line: line, col: col, message: message}
}

func (s *scanner) at(prefix string) bool {
	return len(s.text)-s.pos >= len(prefix) && s.text[s.pos:s.pos+len(prefix)] == prefix
}

// advance moves over one character.
func (s *scanner) advance() *scanError {
	r, n := utf8.DecodeRuneInString(s.text[s.pos:])
	if r == 0 || r == utf8.RuneError && n == 1 {
		return s.fail(s.line, s.col, "the text is not valid UTF-8 or holds a NUL")
	}
	s.pos += n
	s.col++
	if r == '\n' {
		s.line++
		s.col = 1
	}
	return nil
}

// skipSpace moves over white space and comments.
func (s *scanner) skipSpace() *scanError {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			_ = s.advance() // ASCII is always valid
		case s.at("//"):
			if err := s.skipLine(); err != nil {
				return err
			}
		case s.at("/*"):
			if err := s.skipComment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

func (s *scanner) skipLine() *scanError {
	for s.pos < len(s.text) && s.text[s.pos] != '\n' {
		if err := s.advance(); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) skipComment() *scanError {
	line, col := s.line, s.col
	s.pos += len("/*")
	s.col += len("/*")
	for !s.at("*/") {
		if s.pos == len(s.text) {
			return s.fail(line, col, "the comment is not closed: */ is missing")
		}
		if err := s.advance(); err != nil {
			return err
		}
	}
	s.pos += len("*/")
	s.col += len("*/")
	return nil
}

// operators of two characters.
var operators = [...]string{"::", "!=", "<=", ">=", "==", "||", "&&"}

func (s *scanner) next() (token, *scanError) {
	t := token{kind: tokenOp, offset: s.pos, line: s.line, col: s.col}
	c := s.text[s.pos]
	switch {
	case isIdent(c):
		t.kind = tokenIdent
		s.run(func(c byte) bool { return isIdent(c) || isDigit(c) })
	case isDigit(c):
		t.kind = tokenInt
		s.run(isDigit)
	case c == '"':
		t.kind = tokenString
		if err := s.skipString(); err != nil {
			return t, err
		}
	default:
		if err := s.skipOperator(); err != nil {
			return t, err
		}
	}
	t.text = s.text[t.offset:s.pos]
	return t, nil
}

func (s *scanner) run(in func(byte) bool) {
	for s.pos < len(s.text) && in(s.text[s.pos]) {
		s.pos++
		s.col++
	}
}

func (s *scanner) skipString() *scanError {
	line, col := s.line, s.col
	unfinished := s.fail(line, col, "the string is not closed on its line")
	s.pos++
	s.col++
	for {
		if s.pos == len(s.text) || s.text[s.pos] == '\n' {
			return unfinished
		}
		c := s.text[s.pos]
		if err := s.advance(); err != nil {
			return err
		}
		switch c {
		case '"':
			return nil
		case '\\':
			if s.pos == len(s.text) || s.text[s.pos] == '\n' {
				return unfinished
			}
			if err := s.advance(); err != nil {
				return err
			}
		}
	}
}

func (s *scanner) skipOperator() *scanError {
	for _, op := range operators {
		if s.at(op) {
			s.pos += len(op)
			s.col += len(op)
			return nil
		}
	}
	return s.advance()
}

func isIdent(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// A depth follows the nesting of the syntax tree while tokens go by. It may
// think that text nests deeper than it does, never that it is flatter.
type depth struct {
	level level
	open  []level // the levels outside each open bracket
	unary int     // length of the current run of ! and -
}

// A level is the nesting at one place.
type level struct {
	nesting int // brackets, ifs and unary operators around it
	member  int // accesses before it in one chain
	chain   int // binary operators before it in its bracket
	hasPath int // names before it in the path of a has
	base    int // nesting where its bracket began
}

// add takes the next token and reports why the text is too deep, or "".
func (d *depth) add(t token) string {
	run := 0
	switch {
	case t.kind == tokenIdent:
		d.word(t.text)
	case t.kind != tokenOp:
		d.level.hasPath = 0
	default:
		if t.text == "!" || t.text == "-" {
			run = d.unary + 1
		}
		d.punctuation(t.text)
	}
	d.unary = run
	switch {
	case d.level.nesting+d.level.member+d.unary > maxNesting:
		return fmt.Sprintf("the text nests more than %d deep", maxNesting)
	case d.level.chain > maxChain:
		return fmt.Sprintf("more than %d operators in a row", maxChain)
	case d.level.hasPath > maxHasPath:
		return fmt.Sprintf("more than %d names in one path after \"has\"", maxHasPath)
	}
	return ""
}

func (d *depth) word(word string) {
	switch word {
	case "if":
		d.level.nesting++
		d.level.member = 0
	case "then", "else":
		d.level.member = 0
	case "has":
		d.operator()
		d.level.hasPath = 1
	case "in", "is", "like":
		d.operator()
	}
}

func (d *depth) punctuation(op string) {
	if op != "." {
		d.level.hasPath = 0
	}
	switch op {
	case "(", "[", "{":
		// A bracket after an operand is a link in its chain of accesses.
		d.level.member++
		d.open = append(d.open, d.level)
		nesting := d.level.nesting + d.unary + 1
		d.level = level{nesting: nesting, base: nesting}
	case ")", "]", "}":
		if n := len(d.open); n > 0 {
			d.level, d.open = d.open[n-1], d.open[:n-1]
		}
	case ",":
		d.level = level{nesting: d.level.base, base: d.level.base}
	case ".":
		d.level.member++
		if d.level.hasPath > 0 {
			d.level.hasPath++
		}
	case "!", ":", "::", "@":
	default:
		d.operator()
	}
}

// operator begins the next operand of a chain.
func (d *depth) operator() {
	d.level.chain++
	d.level.member = 0
	d.level.hasPath = 0
}
