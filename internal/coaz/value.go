package coaz

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// Bounds on values.
const (
	// maxValues bounds the values in an input.
	maxValues = 1 << 16
	// maxOutput bounds the bytes of all that a mapping asks, and maxDepth how deep
	// it is nested.
	maxOutput = 256 << 10
	maxDepth  = 32
)

// readObject reads JSON as a value for expressions. Strings, booleans and null
// are what they are. A number is an int if it is integral and has 64 bits,
// however it is written (10, 10.0 and 1e1 are the same number), and a double
// otherwise. What neither holds to its last digit is an error: a policy that
// is asked about a rounded number is asked about another one.
func readObject(path string, text json.RawMessage, most int) (ref.Val, error) {
	if len(text) == 0 {
		text = json.RawMessage("{}")
	}
	if len(text) > most {
		return nil, &Error{Path: path, Reason: fmt.Sprintf("has more than %d bytes", most)}
	}
	var v valueReader
	v.Reset(text)
	if v.Kind() != '{' {
		return nil, &Error{Path: path, Reason: "is not a JSON object"}
	}
	val := v.value()
	if err := v.End(); err != nil {
		return nil, &Error{Path: path, Reason: "is not I-JSON: " + err.Error()}
	}
	if v.bad != "" {
		return nil, &Error{Path: path, Reason: v.bad}
	}
	return val, nil
}

// A valueReader makes values of JSON.
type valueReader struct {
	ijson.Reader
	values int
	bad    string // the first thing wrong, other than syntax
}

// value reads one value. Its recursion is bounded by [ijson.MaxDepth].
func (v *valueReader) value() ref.Val {
	if v.values++; v.values > maxValues {
		v.bad = fmt.Sprintf("has more than %d values in it", maxValues)
		v.Value()
		return types.NullValue
	}
	switch v.Kind() {
	case '{':
		return v.object()
	case '[':
		return v.list()
	case '"':
		s, _ := v.String() // an error ends the walk
		return types.String(s)
	case '0':
		n, ok := number(string(v.Value()))
		if !ok && v.bad == "" {
			v.bad = "has a number in it that neither 64 bits of integer nor a double hold to its last digit"
		}
		return n
	}
	switch string(v.Value()) {
	case "true":
		return types.True
	case "false":
		return types.False
	default: // null, or what End will say
		return types.NullValue
	}
}

func (v *valueReader) object() ref.Val {
	v.Object()
	m := map[string]any{}
	for name, ok := v.Next(); ok; name, ok = v.Next() {
		m[string(name)] = v.value()
	}
	return types.NewStringInterfaceMap(types.DefaultTypeAdapter, m)
}

func (v *valueReader) list() ref.Val {
	v.Array()
	var list []ref.Val
	for v.Element() {
		list = append(list, v.value())
	}
	return types.NewRefValList(types.DefaultTypeAdapter, list)
}

// number reads a JSON number.
func number(text string) (ref.Val, bool) {
	digits, exponent, ok := scientific(text)
	if !ok {
		return types.NullValue, false
	}
	sign := ""
	if text[0] == '-' {
		sign = "-"
	}
	if zeros := exponent; zeros >= 0 && len(digits)+zeros <= 19 {
		if n, err := strconv.ParseInt(sign+digits+strings.Repeat("0", zeros), 10, 64); err == nil {
			return types.Int(n), true
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return types.NullValue, false
	}
	held, heldExponent, ok := scientific(strconv.FormatFloat(f, 'e', -1, 64))
	return types.Double(f), ok && held == digits && heldExponent == exponent
}

// scientific takes a number without its sign apart: digits that neither begin
// nor end with a zero, times ten to the power of exponent. Zero is "0" and 0.
func scientific(text string) (digits string, exponent int, ok bool) {
	mantissa, power := strings.TrimPrefix(text, "-"), ""
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		mantissa, power = mantissa[:i], mantissa[i+1:]
		n, err := strconv.ParseInt(power, 10, 32)
		if err != nil {
			return "", 0, false
		}
		exponent = int(n)
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	exponent -= len(fraction)
	digits = strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0", 0, true
	}
	short := strings.TrimRight(digits, "0")
	return short, exponent + len(digits) - len(short), true
}

// errOutput is wrapped where the value of an expression is no JSON value.
var errOutput = errors.New("cannot be a JSON value")

// A valueWriter writes values as JSON, the members of an object by their
// names.
type valueWriter struct{ b []byte }

func (w *valueWriter) value(v ref.Val, depth int) error {
	if len(w.b) > maxOutput || depth > maxDepth {
		return fmt.Errorf("a value that is too large or too deep %w", errOutput)
	}
	switch v := v.(type) {
	case types.Null:
		w.b = append(w.b, "null"...)
	case types.Bool:
		w.b = strconv.AppendBool(w.b, bool(v))
	case types.Int:
		w.b = strconv.AppendInt(w.b, int64(v), 10)
	case types.Uint:
		w.b = strconv.AppendUint(w.b, uint64(v), 10)
	case types.Double:
		f := float64(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("a double that is no number %w", errOutput)
		}
		w.b = append(w.b, jsontext.Float(f).String()...)
	case types.String:
		return w.string(string(v))
	case traits.Mapper:
		return w.object(v, depth)
	case traits.Lister:
		return w.list(v, depth)
	default:
		return fmt.Errorf("a value of the type %s %w", v.Type().TypeName(), errOutput)
	}
	return nil
}

func (w *valueWriter) string(s string) error {
	b, err := appendString(w.b, s)
	if err != nil {
		return fmt.Errorf("a string that is not UTF-8 %w", errOutput)
	}
	w.b = b
	return nil
}

func (w *valueWriter) list(list traits.Lister, depth int) error {
	w.b = append(w.b, '[')
	for it, first := list.Iterator(), true; it.HasNext() == types.True; first = false {
		if !first {
			w.b = append(w.b, ',')
		}
		if err := w.value(it.Next(), depth+1); err != nil {
			return err
		}
	}
	w.b = append(w.b, ']')
	return nil
}

func (w *valueWriter) object(m traits.Mapper, depth int) error {
	var names []string
	for it := m.Iterator(); it.HasNext() == types.True; {
		name, ok := it.Next().(types.String)
		if !ok {
			return fmt.Errorf("a map with keys other than strings %w", errOutput)
		}
		names = append(names, string(name))
	}
	slices.Sort(names)
	w.b = append(w.b, '{')
	for i, name := range names {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		if err := w.string(name); err != nil {
			return err
		}
		w.b = append(w.b, ':')
		if err := w.value(m.Get(types.String(name)), depth+1); err != nil {
			return err
		}
	}
	w.b = append(w.b, '}')
	return nil
}

func appendString(b []byte, s string) ([]byte, error) { return jsontext.AppendQuote(b, s) }

// printable makes text of others fit for a message: short, and of one line.
func printable(s string) string {
	const most = 160
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
