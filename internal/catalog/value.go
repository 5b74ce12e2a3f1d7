package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// Bounds on one input.
const (
	// maxElements bounds an array. Cedar sets cost more than their elements
	// when hashes are made to collide.
	maxElements = 1 << 14
	// maxSteps bounds the values that are tried. Alternatives within
	// alternatives are tried again for each outer one.
	maxSteps = 1 << 18
	// maxInput bounds the bytes.
	maxInput = 16 << 20
)

// convert reads arguments as a shape says.
func convert(s *shape, round bool, raw json.RawMessage) (types.Record, types.EntityMap, error) {
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	if len(raw) > maxInput {
		return types.Record{}, nil, &InputError{Reason: "the arguments are too large"}
	}
	work := &work{round: round}
	c := converter{work: work, dec: jsontext.NewDecoder(bytes.NewBuffer(raw))}
	if c.dec.PeekKind() != '{' {
		if err := c.syntax(); err != nil {
			return types.Record{}, nil, err
		}
		return types.Record{}, nil, &InputError{Reason: "the arguments are not a JSON object"}
	}
	attrs, _, err := c.members(s, false)
	if err != nil {
		return types.Record{}, nil, err
	}
	if _, err := c.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return types.Record{}, nil, &InputError{Reason: "there is something after the arguments"}
	}
	return types.NewRecord(attrs), work.entities, nil
}

// work is what one input costs and brings forth.
type work struct {
	round    bool
	steps    int
	entities types.EntityMap
	path     []string
}

// A converter reads values from one decoder.
type converter struct {
	*work
	dec *jsontext.Decoder
}

func (w *work) errorf(format string, args ...any) error {
	return &InputError{Path: dotted(w.path), Reason: fmt.Sprintf(format, args...)}
}

func dotted(path []string) string { return strings.Join(path, ".") }

// pointer is a path as a JSON Pointer (RFC 6901), which no other path is.
func pointer(path []string) string {
	var b strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(escape.Replace(p))
	}
	return b.String()
}

// jsonError explains bytes that are no JSON.
func (w *work) jsonError(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &InputError{Path: dotted(w.path), Reason: "has a key twice"}
	}
	return &InputError{Reason: "the arguments are not valid JSON (RFC 8259, UTF-8)"}
}

// syntax reports whether the next value is broken.
func (c converter) syntax() error {
	if _, err := c.dec.ReadValue(); err != nil {
		return c.jsonError(err)
	}
	return nil
}

// value reads one value.
func (c converter) value(s *shape) (types.Value, error) {
	if c.steps++; c.steps > maxSteps {
		return nil, &InputError{Reason: "the arguments are too complex"}
	}
	s = s.resolve()
	switch s.kind {
	case kindObject:
		if c.dec.PeekKind() == '{' {
			return c.object(s)
		}
		return nil, c.wrongKind("an object")
	case kindSet, kindTuple:
		if c.dec.PeekKind() == '[' {
			return c.array(s)
		}
		return nil, c.wrongKind("an array")
	default:
		raw, err := c.dec.ReadValue()
		if err != nil {
			return nil, c.jsonError(err)
		}
		if s.kind == kindUnion {
			return c.union(s, raw)
		}
		return c.scalar(s, raw)
	}
}

func (c converter) wrongKind(want string) error {
	if err := c.syntax(); err != nil {
		return err
	}
	return c.errorf("is not %s", want)
}

func (c converter) object(s *shape) (types.Value, error) {
	attrs, tags, err := c.members(s, s.entity != "")
	if err != nil {
		return nil, err
	}
	if s.entity == "" {
		return types.NewRecord(attrs), nil
	}
	uid := types.NewEntityUID(s.entity, types.String(pointer(c.path)))
	if c.entities == nil {
		c.entities = types.EntityMap{}
	}
	c.entities[uid] = types.Entity{UID: uid, Attributes: types.NewRecord(attrs), Tags: types.NewRecord(tags)}
	return uid, nil
}

// members reads an object: the declared members, and the others if they are
// wanted as tags.
func (c converter) members(s *shape, tagged bool) (attrs, tags types.RecordMap, err error) {
	if _, err := c.dec.ReadToken(); err != nil {
		return nil, nil, c.jsonError(err)
	}
	attrs = make(types.RecordMap, len(s.fields))
	for c.dec.PeekKind() != '}' {
		raw, err := c.dec.ReadValue()
		if err != nil {
			return nil, nil, c.jsonError(err)
		}
		i, declared := s.findQuoted(raw)
		if declared {
			f := s.fields[i]
			c.path = append(c.path, f.name)
			v, err := c.value(f.shape)
			if err != nil {
				return nil, nil, err
			}
			attrs[types.String(f.name)] = v
			c.path = c.path[:len(c.path)-1]
			continue
		}
		name, _ := unquote(raw)
		switch {
		case tagged:
			c.path = append(c.path, name)
			v, err := c.value(s.elem)
			if err != nil {
				return nil, nil, err
			}
			if tags == nil {
				tags = types.RecordMap{}
			}
			tags[types.String(name)] = v
			c.path = c.path[:len(c.path)-1]
		case s.open || s.elem != nil:
			if err := c.dec.SkipValue(); err != nil {
				return nil, nil, c.jsonError(err)
			}
		default:
			return nil, nil, c.undeclared(s, name)
		}
	}
	if _, err := c.dec.ReadToken(); err != nil {
		return nil, nil, c.jsonError(err)
	}
	for _, f := range s.fields {
		if _, ok := attrs[types.String(f.name)]; f.required && !ok {
			c.path = append(c.path, f.name)
			return nil, nil, c.errorf("is missing")
		}
	}
	return attrs, tags, nil
}

func (c converter) undeclared(s *shape, name string) error {
	known := make([]string, len(s.fields))
	for i, f := range s.fields {
		known[i] = f.name
	}
	c.path = append(c.path, name)
	if len(known) == 0 {
		return c.errorf("is not known; there are none here")
	}
	return c.errorf("is not known%s", didYouMean(name, known))
}

func (c converter) array(s *shape) (types.Value, error) {
	if _, err := c.dec.ReadToken(); err != nil {
		return nil, c.jsonError(err)
	}
	var values []types.Value
	for n := 0; c.dec.PeekKind() != ']'; n++ {
		elem := s.elem
		if s.kind == kindTuple {
			if n >= len(s.items) {
				return nil, c.errorf("has more than %d elements", len(s.items))
			}
			elem = s.items[n]
		}
		if n >= maxElements {
			return nil, c.errorf("has more than %d elements", maxElements)
		}
		c.path = append(c.path, strconv.Itoa(n))
		v, err := c.value(elem)
		if err != nil {
			return nil, err
		}
		c.path = c.path[:len(c.path)-1]
		values = append(values, v)
	}
	if _, err := c.dec.ReadToken(); err != nil {
		return nil, c.jsonError(err)
	}
	if s.kind == kindSet {
		return types.NewSet(values...), nil
	}
	if len(values) < len(s.items) {
		return nil, c.errorf("has fewer than %d elements", len(s.items))
	}
	rec := make(types.RecordMap, len(values))
	for i, v := range values {
		rec[types.String("proj"+strconv.Itoa(i))] = v
	}
	return types.NewRecord(rec), nil
}

// union reads a value as the first alternative that it fits.
func (c converter) union(s *shape, raw jsontext.Value) (types.Value, error) {
	path, entities := len(c.path), c.entities
	for i, item := range s.items {
		item = item.resolve()
		if !item.accepts(raw.Kind()) {
			continue
		}
		c.entities = nil
		v, err := c.alternative(item, raw)
		c.path = c.path[:path]
		if c.steps > maxSteps {
			return nil, err
		}
		if err != nil {
			continue
		}
		for uid, e := range c.entities {
			if entities == nil {
				entities = types.EntityMap{}
			}
			entities[uid] = e
		}
		c.entities = entities
		return types.NewRecord(types.RecordMap{types.String("typeChoice" + strconv.Itoa(i)): v}), nil
	}
	c.entities = entities
	return nil, c.errorf("fits none of the %d forms that it may have", len(s.items))
}

// alternative reads a value again, as one alternative of a union.
func (c converter) alternative(s *shape, raw jsontext.Value) (types.Value, error) {
	switch s.kind {
	case kindObject, kindSet, kindTuple, kindUnion:
		sub := converter{work: c.work, dec: jsontext.NewDecoder(bytes.NewBuffer(raw))}
		return sub.value(s)
	default:
		c.steps++
		return c.scalar(s, raw)
	}
}

// accepts reports whether JSON of a kind could be of a shape.
func (s *shape) accepts(k jsontext.Kind) bool {
	switch s.kind {
	case kindNull:
		return k == 'n'
	case kindBool:
		return k == 't' || k == 'f'
	case kindLong, kindNumber, kindFloat:
		return k == '0'
	case kindString, kindDecimal, kindDatetime, kindDuration, kindIPv4, kindIPv6, kindEnum:
		return k == '"'
	case kindSet, kindTuple:
		return k == '['
	case kindObject:
		return k == '{'
	default:
		return true
	}
}

// scalar reads a value that is neither object nor array, or that is opaque.
func (c converter) scalar(s *shape, raw jsontext.Value) (types.Value, error) {
	switch k := raw.Kind(); s.kind {
	case kindUnknown:
		digest, err := authz.Digest(raw)
		if err != nil {
			return nil, c.jsonError(err)
		}
		return types.NewEntityUID(s.entity, types.String(digest)), nil
	case kindNull:
		if k != 'n' {
			return nil, c.errorf("is not null")
		}
		return types.NewEntityUID(s.entity, "null"), nil
	case kindBool:
		if k != 't' && k != 'f' {
			return nil, c.errorf("is neither true nor false")
		}
		return types.Boolean(k == 't'), nil
	case kindLong:
		if k != '0' {
			return nil, c.errorf("is not an integer")
		}
		n, ok := parseLong(raw)
		if !ok {
			return nil, c.errorf("is not an integer of 64 bits")
		}
		return n, nil
	case kindNumber, kindFloat:
		if k != '0' {
			return nil, c.errorf("is not a number")
		}
		return c.number(raw)
	default:
		if k != '"' {
			return nil, c.errorf("is not a string")
		}
		str, ok := unquote(raw)
		if !ok {
			return nil, c.errorf("is not a string")
		}
		return c.text(s, str)
	}
}

func (c converter) number(raw jsontext.Value) (types.Value, error) {
	d, fits, exact := parseNumber(raw, c.round)
	switch {
	case !fits:
		return nil, c.errorf("is beyond the range of numbers that policies can compare (about ±922 trillion)")
	case !exact && !c.round:
		return nil, c.errorf("has more than four decimal places, and policies could not compare it exactly")
	default:
		return d, nil
	}
}

// text reads a string as a shape says.
func (c converter) text(s *shape, str string) (types.Value, error) {
	if s.values != nil && !slices.Contains(s.values, str) {
		return nil, c.errorf("is not one of the %d values allowed: %s", len(s.values), someOf(s.values))
	}
	switch s.kind {
	case kindEnum:
		return types.NewEntityUID(s.entity, types.String(str)), nil
	case kindDecimal:
		d, err := types.ParseDecimal(str)
		if err != nil {
			return nil, c.errorf("is not a decimal number with one to four decimal places")
		}
		return d, nil
	case kindDatetime:
		t, ok := parseDatetime(str)
		if !ok {
			return nil, c.errorf("is not a date-time of RFC 3339, like 2026-01-31T12:00:00Z")
		}
		return t, nil
	case kindDuration:
		d, ok := parseDuration(str)
		if !ok {
			return nil, c.errorf("is not an ISO 8601 duration in weeks, days, hours, minutes and seconds, like P1DT2H")
		}
		return d, nil
	case kindIPv4, kindIPv6:
		ip, err := netip.ParseAddr(str)
		// An IPv4 address in IPv6 clothes would slip out of the ranges that
		// policies name.
		if err != nil || ip.Zone() != "" || ip.Is4In6() || ip.Is4() != (s.kind == kindIPv4) {
			return nil, c.errorf("is not an IP address of version %s", map[kind]string{kindIPv4: "4", kindIPv6: "6"}[s.kind])
		}
		return types.IPAddr(netip.PrefixFrom(ip, ip.BitLen())), nil
	default:
		return types.String(str), nil
	}
}

// someOf lists values for people, not too many of them.
func someOf(values []string) string {
	var b strings.Builder
	for i, v := range values {
		if i == 10 || b.Len() > 200 {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(Printable(v)))
	}
	return b.String()
}

// findQuoted finds a field by its name as JSON has it.
func (s *shape) findQuoted(raw jsontext.Value) (int, bool) {
	if len(raw) < 2 {
		return 0, false
	}
	name := []byte(raw[1 : len(raw)-1])
	if bytes.IndexByte(name, '\\') >= 0 {
		text, ok := unquote(raw)
		if !ok {
			return 0, false
		}
		name = []byte(text)
	}
	lo, hi := 0, len(s.fields)
	for lo < hi {
		mid := (lo + hi) / 2
		if s.fields[mid].name < string(name) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(s.fields) && s.fields[lo].name == string(name)
}

func unquote(raw jsontext.Value) (string, bool) {
	b, err := jsontext.AppendUnquote(nil, raw)
	return string(b), err == nil
}

// valueAt finds a value in an object by its path, and checks the rest. It
// returns nil if there is none.
func valueAt(raw json.RawMessage, path []string) (jsontext.Value, error) {
	var w work
	if len(raw) == 0 {
		return nil, nil
	}
	if len(raw) > maxInput {
		return nil, &InputError{Reason: "the arguments are too large"}
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw))
	v, err := dec.ReadValue()
	if err != nil {
		return nil, w.jsonError(err)
	}
	v = v.Clone() // what follows reads on
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, &InputError{Reason: "there is something after the arguments"}
	}
	if v.Kind() != '{' {
		return nil, &InputError{Reason: "the arguments are not a JSON object"}
	}
	for _, name := range path {
		var ok bool
		if v, ok = memberOf(v, name); !ok {
			return nil, nil
		}
	}
	return v, nil
}

// memberOf finds a member of a valid object.
func memberOf(obj jsontext.Value, name string) (jsontext.Value, bool) {
	if obj.Kind() != '{' {
		return nil, false
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(obj))
	if _, err := dec.ReadToken(); err != nil {
		return nil, false
	}
	for dec.PeekKind() == '"' {
		tok, err := dec.ReadToken()
		if err != nil {
			return nil, false
		}
		found := tok.String() == name
		v, err := dec.ReadValue()
		if err != nil {
			return nil, false
		}
		if found {
			return v.Clone(), true
		}
	}
	return nil, false
}

// idAt reads the id of a resource from the arguments.
func idAt(raw json.RawMessage, path []string) (string, error) {
	v, err := valueAt(raw, path)
	if err != nil {
		return "", err
	}
	bad := func(reason string) (string, error) { return "", &InputError{Path: dotted(path), Reason: reason} }
	if v == nil {
		return bad("is missing; it says what is touched")
	}
	switch v.Kind() {
	case '"':
		s, _ := unquote(v)
		return s, nil
	case '0':
		n, ok := parseLong(v)
		if !ok {
			return bad("is not an integer of 64 bits")
		}
		return strconv.FormatInt(int64(n), 10), nil
	default:
		return bad("says what is touched, and is neither a string nor an integer")
	}
}
