package authz

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Canonical returns the canonical form of one JSON value: RFC 8785, except
// that integers keep their digits, so that two different integers beyond 2^53
// never become equal. Duplicate keys, invalid UTF-8 and trailing bytes are
// errors (I-JSON, RFC 7493 §2).
func Canonical(value []byte) ([]byte, error) {
	v := jsontext.Value(value).Clone()
	if err := v.Canonicalize(jsontext.CanonicalizeRawInts(false)); err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	return v, nil
}

// Digest returns "sha256:" and the hexadecimal SHA-256 of the canonical form
// of one JSON value.
func Digest(value []byte) (string, error) {
	c, err := Canonical(value)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(c)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
