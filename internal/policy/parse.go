package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// A parsedPolicy is a policy with what is needed to point into its text.
type parsedPolicy struct {
	policy *Policy
	hasID  bool
	tokens []token
}

// problem returns a problem with the policy as a whole.
func (p parsedPolicy) problem(message string) Problem {
	return Problem{File: p.policy.File, Line: p.policy.Line, Column: p.policy.Column, Message: message}
}

// problemAt returns a problem with one token of the policy.
func (p parsedPolicy) problemAt(t token, message string) Problem {
	return Problem{File: p.policy.File, Line: t.line, Column: t.col, Message: message}
}

// parse splits a file into policies and parses each by itself, so that one
// fault does not hide the next.
func parse(src Source) ([]parsedPolicy, Problems) {
	if len(src.Text) > maxFile {
		return nil, Problems{{File: src.File, Message: fmt.Sprintf("the file is larger than %d KiB: split it", maxFile>>10)}}
	}
	text := string(src.Text)
	tokens, err := tokenize(text)
	if err != nil {
		return nil, Problems{{File: src.File, Line: err.line, Column: err.col, Message: err.message}}
	}
	var parsed []parsedPolicy
	var problems Problems
	for len(tokens) > 0 {
		var one []token
		one, tokens = splitPolicy(tokens)
		p, faults := parseOne(src.File, text, one)
		if len(faults) > 0 {
			problems = append(problems, faults...)
			continue
		}
		parsed = append(parsed, p)
	}
	return parsed, problems
}

// splitPolicy returns the tokens up to and with the first semicolon, which
// Cedar uses for nothing but the end of a policy.
func splitPolicy(tokens []token) (one, rest []token) {
	end := slices.IndexFunc(tokens, func(t token) bool { return t.text == ";" })
	if end < 0 {
		return tokens, nil
	}
	return tokens[:end+1], tokens[end+1:]
}

func parseOne(file, text string, tokens []token) (parsedPolicy, Problems) {
	first, last := tokens[0], tokens[len(tokens)-1]
	p := parsedPolicy{tokens: tokens, policy: &Policy{File: file, Line: first.line, Column: first.col}}
	if t, reason := tooDeep(tokens); reason != "" {
		return p, Problems{p.problemAt(t, reason+": split the policy")}
	}
	end := last.offset + len(last.text)
	switch {
	case end-first.offset > maxPolicy:
		return p, Problems{p.problem(fmt.Sprintf("the policy is larger than %d KiB: split it", maxPolicy>>10))}
	case last.text != ";":
		return p, Problems{p.problem("the policy does not end: ';' is missing")}
	}
	if i := slices.IndexFunc(tokens, func(t token) bool { return t.text == "?" }); i >= 0 {
		return p, Problems{p.problemAt(tokens[i],
			"policy templates (?principal, ?resource) are not supported: name a group and put the agents into it")}
	}
	var c cedar.Policy
	if err := c.UnmarshalCedar([]byte(text[first.offset:end])); err != nil {
		return p, Problems{p.syntaxProblem(err)}
	}
	tree := (*ast.Policy)(c.AST())
	tree.Position = ast.Position{Filename: file, Offset: first.offset, Line: first.line, Column: first.col}
	p.policy.AST = tree
	p.policy.Effect = Permit
	if tree.Effect == ast.EffectForbid {
		p.policy.Effect = Forbid
	}
	return p, p.readAnnotations(tree.Annotations)
}

// tooDeep returns the token at which a policy exceeds a cap, and why.
func tooDeep(tokens []token) (token, string) {
	var d depth
	for _, t := range tokens {
		if reason := d.add(t); reason != "" {
			return t, reason
		}
	}
	return token{}, ""
}

// annotations are the annotations that a policy may have. An unknown one is
// an error, because it is usually a known one, misspelt.
var annotations = []string{"id", "description", "owner"}

func (p *parsedPolicy) readAnnotations(as []ast.AnnotationType) Problems {
	var problems Problems
	for _, a := range as {
		switch a.Key {
		case "id":
			p.policy.ID, p.hasID = string(a.Value), true
		case "description":
			p.policy.Description = string(a.Value)
		case "owner":
			p.policy.Owner = string(a.Value)
		default:
			at := p.tokens[slices.IndexFunc(p.tokens, func(t token) bool { return t.text == string(a.Key) })]
			problems = append(problems, p.problemAt(at, fmt.Sprintf("unknown annotation @%s: %s", a.Key,
				suggest(string(a.Key), annotations, "@", "the annotations are @id, @description and @owner"))))
		}
	}
	return problems
}

var (
	parserPlace = regexp.MustCompile(`(?s)^(?:parse error at )?<input>:(\d+):(\d+)(?: ".*?")?: (.*)$`)
	parserExact = regexp.MustCompile(`(?s)^exact got (.*) want (.*)$`)
)

// syntaxProblem places an error of cedar-go's parser in the file. The parser
// saw only this policy, so its lines count from the policy's first.
func (p parsedPolicy) syntaxProblem(err error) Problem {
	m := parserPlace.FindStringSubmatch(err.Error())
	if m == nil {
		// Faults inside a literal come without a place.
		return p.problem("syntax error: " + err.Error())
	}
	at := p.tokenAt(m[1], m[2])
	message := m[3]
	if e := parserExact.FindStringSubmatch(message); e != nil {
		message = fmt.Sprintf("expected %q, found %q", e[2], e[1])
		// By then the parser has stepped over the offending token.
		if at > 0 && p.tokens[at-1].text == e[1] {
			at--
		}
	}
	return p.problemAt(p.tokens[at], "syntax error: "+message)
}

// tokenAt returns the index of the last token that begins at or before a line
// and column counted from the start of the policy.
func (p parsedPolicy) tokenAt(line, col string) int {
	l, _ := strconv.Atoi(line) // digits only; out of range is after every token
	c, _ := strconv.Atoi(col)
	if l == 1 {
		c += p.policy.Column - 1
	}
	l += p.policy.Line - 1
	after := slices.IndexFunc(p.tokens, func(t token) bool { return t.line > l || t.line == l && t.col > c })
	if after < 0 {
		after = len(p.tokens)
	}
	return max(0, after-1)
}

// unquote returns the value of a string token that has been parsed before, so
// that it cannot fail.
func unquote(t token) string {
	return string(parseUID("T::" + t.text).ID)
}

// schemaFile is what problems call the schema, which has no file of its own.
const schemaFile = "schema"

var schemaPlace = regexp.MustCompile(`(?s)^schema:(\d+):(\d+): (.*)$`)

// parseSchema parses and resolves the schema. It is generated from tool
// definitions that come from outside, so it is bounded like any other input.
func parseSchema(text []byte) (*resolved.Schema, Problems) {
	fail := func(line, col int, message string) (*resolved.Schema, Problems) {
		return nil, Problems{{File: schemaFile, Line: line, Column: col, Message: message}}
	}
	if len(text) > maxSchema {
		return fail(0, 0, fmt.Sprintf("the schema is larger than %d MiB", maxSchema>>20))
	}
	tokens, scanErr := tokenize(string(text))
	if scanErr != nil {
		return fail(scanErr.line, scanErr.col, scanErr.message)
	}
	if t, deep := schemaTooDeep(tokens); deep {
		return fail(t.line, t.col, fmt.Sprintf("the schema nests more than %d deep", maxNesting))
	}
	var s schema.Schema
	s.SetFilename(schemaFile)
	if err := s.UnmarshalCedar(text); err != nil {
		line, col, message := 0, 0, err.Error()
		if m := schemaPlace.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1]) // digits only
			col, _ = strconv.Atoi(m[2])
			message = m[3]
		}
		return fail(line, col, message)
	}
	r, err := s.Resolve()
	if err != nil {
		return fail(0, 0, err.Error())
	}
	return r, nil
}

func schemaTooDeep(tokens []token) (token, bool) {
	n := 0
	for _, t := range tokens {
		// Other tokens that hold these characters are strings, with quotes.
		switch strings.Trim(t.text, "=") {
		case "(", "[", "{", "<":
			n++
		case ")", "]", "}", ">":
			n--
		}
		if n > maxNesting {
			return t, true
		}
	}
	return token{}, false
}
