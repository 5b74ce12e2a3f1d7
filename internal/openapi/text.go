package openapi

import (
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// A scalar is what one text on the wire stands for.
type scalar string

// The scalars.
const (
	scalarString  scalar = "string"
	scalarInteger scalar = "integer"
	scalarNumber  scalar = "number"
	scalarBoolean scalar = "boolean"
	// scalarJSON is a text that is JSON itself.
	scalarJSON scalar = "json"
)

// cleanText reports whether a text can be told to a policy and is read to its
// end by every program.
func cleanText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

var (
	integerText = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)
	numberText  = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?$`)
)

// value is the JSON of a text. There is one way to write each integer and each
// boolean; others ("+1", "0x10", "yes") are refused, because who reads them
// decides what they are.
func (k scalar) value(text string) (jsontext.Value, error) {
	switch k {
	case scalarString:
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return nil, errors.New("is not text in UTF-8")
		}
		b, err := jsontext.AppendQuote(nil, text)
		return b, err
	case scalarInteger:
		if !integerText.MatchString(text) {
			return nil, errors.New("is not an integer")
		}
		return jsontext.Value(text), nil
	case scalarNumber:
		if !numberText.MatchString(text) {
			return nil, errors.New("is not a number in plain decimal form")
		}
		return jsontext.Value(text), nil
	case scalarBoolean:
		if text != "true" && text != "false" {
			return nil, errors.New("is neither true nor false")
		}
		return jsontext.Value(text), nil
	case scalarJSON:
		return iJSON([]byte(text))
	default:
		return nil, errors.New("has a type that cannot be read")
	}
}

// iJSON checks that bytes are one JSON value without duplicate names, in UTF-8
// (RFC 7493 §2).
func iJSON(b []byte) (jsontext.Value, error) {
	v := jsontext.Value(b)
	if !v.IsValid() {
		return nil, errors.New("is not JSON as it should be: UTF-8, no name twice, nothing after it")
	}
	return v, nil
}

// A pair is one name and value of a query or a form, decoded, and the value as
// it was sent.
type pair struct{ name, value, raw string }

// maxPairs bounds a query or form.
const maxPairs = 4096

// parsePairs reads a query (RFC 3986) or a form (the WHATWG's
// application/x-www-form-urlencoded), '+' being a space. It is strict where
// readers differ.
func parsePairs(s string) ([]pair, error) {
	if s == "" {
		return nil, nil
	}
	if strings.Count(s, "&") >= maxPairs {
		return nil, errors.New("there are too many parameters")
	}
	var out []pair
	for part := range strings.SplitSeq(s, "&") {
		rawName, rawValue, found := strings.Cut(part, "=")
		name, errName := url.QueryUnescape(rawName)
		value, errValue := url.QueryUnescape(rawValue)
		if errName != nil || errValue != nil || !printableASCII(part) {
			return nil, errors.New("the parameters are not percent-encoded as they should be")
		}
		// To some programs a ';' separates parameters, and a '#' ends them.
		if !found || strings.ContainsAny(part, ";#") {
			return nil, errors.New("the parameters must have the form name=value&name=value")
		}
		out = append(out, pair{name, value, rawValue})
	}
	return out, nil
}

func printableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r >= 0x7f })
}

// splitList takes apart a list with commas. An encoded comma is a part of an
// element to some programs and a separator to others.
func splitList(raw string, unescape func(string) (string, error)) ([]string, error) {
	if strings.Contains(strings.ToLower(raw), "%2c") {
		return nil, errors.New("has an encoded comma, which reads differently to different programs")
	}
	if raw == "" {
		return nil, errors.New("is empty")
	}
	parts := strings.Split(raw, ",")
	for i, p := range parts {
		var err error
		if parts[i], err = unescape(p); err != nil {
			return nil, errors.New("is not percent-encoded as it should be")
		}
	}
	return parts, nil
}

// verbatim is what stands in a header.
func verbatim(s string) (string, error) { return strings.TrimSpace(s), nil }

// object writes a JSON object, members in the order that they are added.
type object struct{ buf []byte }

func (o *object) add(name string, v jsontext.Value) {
	if len(o.buf) == 0 {
		o.buf = append(o.buf, '{')
	} else {
		o.buf = append(o.buf, ',')
	}
	quoted, err := jsontext.AppendQuote(o.buf, name)
	if err != nil {
		// Names are checked when the document is read; what is not UTF-8 would
		// be written with replacement characters.
		quoted = strconv.AppendQuoteToASCII(o.buf, name)
	}
	o.buf = append(append(quoted, ':'), v...)
}

func (o *object) json() json.RawMessage {
	if len(o.buf) == 0 {
		return json.RawMessage("{}")
	}
	return append(o.buf, '}')
}

// array is a JSON array.
func array(items []jsontext.Value) jsontext.Value {
	out := []byte{'['}
	for i, v := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, v...)
	}
	return append(out, ']')
}
