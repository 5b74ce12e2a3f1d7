package openapi

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A template is a path of the document, in segments.
type template struct {
	path     string
	segments []segment
}

// A segment is literal, or a parameter with literal text before and after it.
type segment struct {
	literal string // when it has no parameter
	param   string
	before  string
	after   string
}

// parseTemplate reads "/pets/{petId}/photos".
func parseTemplate(path string) (*template, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, errors.New("a path must begin with '/'")
	}
	if strings.ContainsAny(path, "?#\\") {
		return nil, errors.New("a path holds no '?', '#' or '\\'")
	}
	t := &template{path: path}
	names := map[string]bool{}
	for text := range strings.SplitSeq(rest, "/") {
		s, err := parseSegment(text)
		if err != nil {
			return nil, err
		}
		if s.param != "" && names[s.param] {
			return nil, fmt.Errorf("the parameter {%s} stands in the path twice", s.param)
		}
		names[s.param] = true
		t.segments = append(t.segments, s)
	}
	if len(t.segments) > maxSegments {
		return nil, fmt.Errorf("a path has at most %d segments", maxSegments)
	}
	return t, nil
}

func parseSegment(text string) (segment, error) {
	before, rest, found := strings.Cut(text, "{")
	if !found {
		if strings.Contains(text, "}") {
			return segment{}, errors.New("a '}' has no '{'")
		}
		return literalSegment(text)
	}
	name, after, closed := strings.Cut(rest, "}")
	if !closed || name == "" || strings.ContainsAny(before, "}") {
		return segment{}, errors.New("a '{' or '}' is not part of a {parameter}")
	}
	if strings.ContainsAny(after, "{}") {
		return segment{}, errors.New("one segment of a path can hold one parameter; where one ends and the next begins would be a guess")
	}
	for _, part := range []string{before, after} {
		if _, err := literalSegment(part); err != nil {
			return segment{}, err
		}
	}
	return segment{param: name, before: decodedLiteral(before), after: decodedLiteral(after)}, nil
}

// literalSegment is text that stands for itself. It may be percent-encoded.
func literalSegment(text string) (segment, error) {
	s := decodedLiteral(text)
	if s == "." || s == ".." || strings.ContainsAny(s, "/\\;%") {
		return segment{}, fmt.Errorf("%q in a path reads differently to different programs", text)
	}
	return segment{literal: s}, nil
}

func decodedLiteral(text string) string {
	if s, err := url.PathUnescape(text); err == nil {
		return s
	}
	return text
}

// A pathSegment is one segment of a request's path: as it is sent, and what it
// means.
type pathSegment struct{ raw, value string }

// splitPath takes apart an escaped path. It refuses whatever two programs could
// read as different paths: the upstream must see the path that was decided.
func splitPath(escaped string) ([]pathSegment, error) {
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok {
		return nil, errors.New("the path does not begin with '/'")
	}
	parts := strings.Split(rest, "/")
	out := make([]pathSegment, len(parts))
	for i, raw := range parts {
		value, err := url.PathUnescape(raw)
		if err != nil {
			return nil, errors.New("the path is not percent-encoded as it should be")
		}
		// An encoded '%' decodes to something else for who decodes twice; what
		// follows a ';' is a parameter to some and a part of the name to others.
		if value == "." || value == ".." || strings.ContainsAny(value, "/\\;%") || !cleanText(value) || strings.TrimSpace(value) != value {
			return nil, errors.New("a segment of the path reads differently to different programs")
		}
		if value == "" && i < len(parts)-1 {
			return nil, errors.New("the path has an empty segment")
		}
		out[i] = pathSegment{raw, value}
	}
	return out, nil
}

// rank orders the segments that match one value: the more of it is literal,
// the higher.
func (s segment) rank() int {
	if s.param == "" {
		return 1 << 20
	}
	return len(s.before) + len(s.after)
}

// covers reports whether t is at least as literal as o in every segment.
func (t *template) covers(o *template) bool {
	for i := range t.segments {
		if t.segments[i].rank() < o.segments[i].rank() {
			return false
		}
	}
	return true
}

// values are the parameters of a path that matches. It reports false if the
// literal parts are not written as the document has them.
func (t *template) values(path []pathSegment) (map[string]string, bool) {
	out := map[string]string{}
	for i, s := range t.segments {
		raw := path[i].raw
		if s.param == "" {
			if !writes(raw, s.literal) {
				return nil, false
			}
			continue
		}
		value := path[i].value
		if len(value) <= len(s.before)+len(s.after) {
			return nil, false // its letters in the other case are longer or shorter
		}
		end := len(raw) - len(escapeSegment(s.after))
		start := len(escapeSegment(s.before))
		if end < start || !writes(raw[:start], s.before) || !writes(raw[end:], s.after) {
			return nil, false
		}
		out[s.param] = value[len(s.before) : len(value)-len(s.after)]
	}
	return out, true
}

// writes reports whether raw is a way to write text without encoding what
// needs no encoding.
func writes(raw, text string) bool { return raw == text || raw == escapeSegment(text) }

// escapeSegment is how a segment is written in a request.
func escapeSegment(s string) string { return url.PathEscape(s) }

// sameShape reports whether two templates differ only in the names of their
// parameters.
func (t *template) sameShape(o *template) bool {
	if len(t.segments) != len(o.segments) {
		return false
	}
	for i, s := range t.segments {
		x := o.segments[i]
		if (s.param == "") != (x.param == "") || s.literal != x.literal || s.before != x.before || s.after != x.after {
			return false
		}
	}
	return true
}
