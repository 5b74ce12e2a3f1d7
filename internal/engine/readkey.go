package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
)

// The types of a value in a key. They are compared within one process only and
// may change.
const (
	keyBool byte = iota + 1
	keyLong
	keyString
	keyEntity
	keySet
	keyRecord
	keyDecimal
	keyDatetime
	keyDuration
	keyIP
	keyOther
)

// AppendKey appends a key of the reads, such that different reads never have the
// same: everything is behind its type, and behind its length or count, so it
// could be read back.
func (r Reads) AppendKey(dst []byte) []byte {
	dst = appendCount(dst, len(r))
	for i := range r {
		dst = r[i].appendKey(dst)
	}
	return dst
}

func (r *Read) appendKey(dst []byte) []byte {
	dst = r.ReadPath.appendKey(dst)
	dst = append(dst, byte(r.End))
	dst = appendCount(dst, r.At)
	if r.End == Found {
		dst = appendValue(dst, r.Value)
	}
	return dst
}

func (p *ReadPath) appendKey(dst []byte) []byte {
	dst = append(dst, byte(p.Kind))
	dst = appendBool(dst, p.Context)
	dst = appendEntity(dst, p.Entity)
	dst = appendCount(dst, len(p.Path))
	for _, name := range p.Path {
		dst = appendText(dst, string(name))
	}
	return appendEntity(dst, p.Other)
}

func appendCount(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)) }

func appendText(dst []byte, s string) []byte { return append(appendCount(dst, len(s)), s...) }

func appendEntity(dst []byte, e types.EntityUID) []byte {
	return appendText(appendText(dst, string(e.Type)), string(e.ID))
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendNumber(dst []byte, n int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }

// appendValue appends a value: the same bytes for equal values, and for no
// others.
func appendValue(dst []byte, v types.Value) []byte {
	switch v := v.(type) {
	case types.Boolean:
		return appendBool(append(dst, keyBool), bool(v))
	case types.Long:
		return appendNumber(append(dst, keyLong), int64(v))
	case types.String:
		return appendText(append(dst, keyString), string(v))
	case types.EntityUID:
		return appendEntity(append(dst, keyEntity), v)
	case types.Set:
		return appendSet(append(dst, keySet), v)
	case types.Record:
		dst = appendCount(append(dst, keyRecord), v.Len())
		for _, name := range slices.Sorted(maps.Keys(v.Map())) {
			element, _ := v.Get(name)
			dst = appendValue(appendText(dst, string(name)), element)
		}
		return dst
	case types.Decimal:
		return appendText(append(dst, keyDecimal), v.String())
	case types.Datetime:
		return appendNumber(append(dst, keyDatetime), v.Milliseconds())
	case types.Duration:
		return appendNumber(append(dst, keyDuration), v.ToMilliseconds())
	case types.IPAddr:
		dst = appendText(append(dst, keyIP), v.Addr().String())
		return appendCount(dst, v.Prefix().Bits()+1) // 0 for what is no prefix
	default:
		dst = appendText(append(dst, keyOther), fmt.Sprintf("%T", v))
		return appendText(dst, fmt.Sprint(v))
	}
}

// appendSet appends the elements sorted, because a set has no order.
func appendSet(dst []byte, set types.Set) []byte {
	elements := make([][]byte, 0, set.Len())
	for e := range set.All() {
		elements = append(elements, appendValue(nil, e))
	}
	slices.SortFunc(elements, bytes.Compare)
	dst = appendCount(dst, len(elements))
	for _, e := range elements {
		dst = append(dst, e...)
	}
	return dst
}
