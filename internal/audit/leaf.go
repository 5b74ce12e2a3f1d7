package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"
)

// maxName bounds the strings of a leaf's header.
const maxName = 256

// timeLayout is RFC 3339 in UTC with exactly three decimals.
const timeLayout = "2006-01-02T15:04:05.000Z"

// A leaf is what the tree commits to: a header without personal data and one
// commitment for each group of the record. Its encoding is canonical
// (docs/formats.md): one leaf has one encoding, and parseLeaf takes no other.
type leaf struct {
	index    uint64
	kind     Kind
	time     time.Time
	decision string
	effect   string
	version  string
	released bool
	commit   commitments
}

// commitments holds one commitment for each group that a record has.
type commitments struct {
	has  [groupCount]bool
	hash [groupCount][sha256.Size]byte
}

// leafOrder lists the groups in the order of their names, which is the order
// of the keys in canonical JSON.
var leafOrder = [groupCount]group{groupInput, groupOutcome, groupSystem, groupWhat, groupWho, groupWhy}

// appendHead and appendTail encode all of a leaf but its index, which only the
// writer knows; all else can be encoded by the caller of Append.
func (l *leaf) appendHead(b []byte) []byte {
	b = append(b, `{"commit":{`...)
	comma := false
	for _, g := range leafOrder {
		if !l.commit.has[g] {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(b, '"')
		b = append(b, g.String()...)
		b = append(b, `":"`...)
		b = base64.StdEncoding.AppendEncode(b, l.commit.hash[g][:])
		b = append(b, '"')
	}
	b = append(b, '}')
	b = appendName(b, "decision", l.decision)
	b = appendName(b, "effect", l.effect)
	return append(b, `,"index":`...)
}

func (l *leaf) appendTail(b []byte) []byte {
	b = appendName(b, "kind", string(l.kind))
	if l.released {
		b = append(b, `,"released":true`...)
	}
	b = append(b, `,"time":"`...)
	b = l.time.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","v":1`...)
	b = appendName(b, "version", l.version)
	return append(b, '}')
}

// encode returns the whole leaf.
func (l *leaf) encode() []byte {
	b := strconv.AppendUint(l.appendHead(nil), l.index, 10)
	return l.appendTail(b)
}

func appendName(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, `":"`...)
	b = append(b, value...)
	return append(b, '"')
}

// checkName accepts what needs no escape in JSON, so that a header has one
// spelling only.
func checkName(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("longer than %d bytes", maxName)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return fmt.Errorf("byte %#02x is not allowed", c)
		}
	}
	return nil
}

func checkKind(k Kind) error {
	switch k {
	case KindDecision, KindOutcome, KindSystem:
		return nil
	default:
		return fmt.Errorf("unknown kind %q", string(k))
	}
}

// parseLeaf reads the canonical encoding of a leaf and nothing else.
func parseLeaf(b []byte) (leaf, error) {
	p := leafParser{rest: b}
	l := p.leaf()
	if p.err != nil {
		return leaf{}, fmt.Errorf("parse leaf at byte %d: %w", len(b)-len(p.rest), p.err)
	}
	return l, nil
}

// A leafParser walks over a leaf. After its first error it does nothing.
type leafParser struct {
	rest []byte
	err  error
}

func (p *leafParser) leaf() leaf {
	var l leaf
	p.want(`{"commit":{`)
	p.commitments(&l.commit)
	p.want(`}`)
	l.decision = p.optional("decision")
	l.effect = p.optional("effect")
	p.want(`,"index":`)
	l.index = p.number()
	p.want(`,"kind":"`)
	l.kind = Kind(p.text())
	if p.err == nil {
		p.err = checkKind(l.kind)
	}
	l.released = p.skip(`,"released":true`)
	p.want(`,"time":"`)
	l.time = p.time()
	p.want(`,"v":1`)
	l.version = p.optional("version")
	p.want(`}`)
	if p.err == nil && len(p.rest) > 0 {
		p.err = fmt.Errorf("%d bytes too many", len(p.rest))
	}
	return l
}

func (p *leafParser) commitments(c *commitments) {
	comma := false
	for _, g := range leafOrder {
		key := `"` + g.String() + `":"`
		if comma {
			key = "," + key
		}
		if !p.skip(key) {
			continue
		}
		comma = true
		c.has[g] = true
		c.hash[g] = p.hash()
		p.want(`"`)
	}
}

// hash reads 32 bytes in base64.
func (p *leafParser) hash() [sha256.Size]byte {
	var b [sha256.Size + 1]byte // 44 characters may stand for one byte more
	n, err := base64.StdEncoding.Strict().Decode(b[:], p.take(44))
	if p.err == nil && (err != nil || n != sha256.Size) {
		p.err = fmt.Errorf("a commitment is not 32 bytes in base64")
	}
	return [sha256.Size]byte(b[:sha256.Size])
}

func (p *leafParser) want(lit string) {
	if !p.skip(lit) && p.err == nil {
		p.err = fmt.Errorf("want %s", lit)
	}
}

func (p *leafParser) skip(lit string) bool {
	if p.err != nil || len(p.rest) < len(lit) || string(p.rest[:len(lit)]) != lit {
		return false
	}
	p.rest = p.rest[len(lit):]
	return true
}

// take returns the next n bytes, or none when there are fewer.
func (p *leafParser) take(n int) []byte {
	if p.err != nil || len(p.rest) < n {
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

// text returns what stands before the next quote, and skips the quote.
func (p *leafParser) text() string {
	n := bytes.IndexByte(p.rest, '"')
	if p.err == nil && n < 0 {
		p.err = fmt.Errorf("a string does not end")
	}
	if p.err != nil {
		return ""
	}
	s := string(p.rest[:n])
	if err := checkName(s); err != nil {
		p.err = err
		return ""
	}
	p.rest = p.rest[n+1:]
	return s
}

// optional returns the string of a key that may be absent. It is never empty
// when the key is present.
func (p *leafParser) optional(key string) string {
	if !p.skip(`,"` + key + `":"`) {
		return ""
	}
	s := p.text()
	if s == "" && p.err == nil {
		p.err = fmt.Errorf("%s is empty", key)
	}
	return s
}

func (p *leafParser) number() uint64 {
	n := 0
	for n < len(p.rest) && p.rest[n] >= '0' && p.rest[n] <= '9' {
		n++
	}
	digits := string(p.take(n))
	v, err := strconv.ParseUint(digits, 10, 64)
	if p.err == nil && (err != nil || (len(digits) > 1 && digits[0] == '0')) {
		p.err = fmt.Errorf("the index is not a number")
	}
	return v
}

func (p *leafParser) time() time.Time {
	s := p.text()
	if p.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(timeLayout, s)
	if err != nil || t.Format(timeLayout) != s {
		p.err = fmt.Errorf("%q is not a time", s)
	}
	return t
}
