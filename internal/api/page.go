package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A page token says where a search stopped. PEPs keep it for us, so it is
// authenticated, together with the query it belongs to:
//
//	base64url( mac[16] limit[2] cursor )
//
// The mac is HMAC-SHA-256, cut to 128 bits, over limit, cursor and the
// canonical query. Whoever searches on is asked for the right to it anew.
const macSize = 16

func foreignToken() *problem {
	return badRequest("page.token does not belong to this query; send the query unchanged with it, or search anew without it.")
}

// resume returns where a search goes on, and settles its limit. A PEP that
// goes on without a limit goes on with the one it began with (certification,
// case 4.5.2).
func (a *API) resume(h *hunt) (after string, p *problem) {
	if h.token == "" {
		if h.limit < 0 {
			h.limit = defaultLimit
		}
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(h.token)
	if err != nil || len(b) < macSize+2 {
		return "", foreignToken()
	}
	limit := int(binary.BigEndian.Uint16(b[macSize:]))
	if h.limit >= 0 && h.limit != limit {
		return "", foreignToken()
	}
	h.limit, after = limit, string(b[macSize+2:])
	mac, err := a.pageMAC(h, after)
	if err != nil || !hmac.Equal(mac, b[:macSize]) {
		return "", foreignToken()
	}
	return after, nil
}

// suspend returns the token with which a search goes on after a result.
func (a *API) suspend(h *hunt, after string) (string, error) {
	b, err := a.pageMAC(h, after)
	if err != nil {
		return "", err
	}
	b = binary.BigEndian.AppendUint16(b, uint16(h.limit))
	return base64.RawURLEncoding.EncodeToString(append(b, after...)), nil
}

// pageMAC binds a place in the results to a query. Every part has its length
// in front, so no two queries are the same bytes; the one that is wanted is the
// one that is empty.
func (a *API) pageMAC(h *hunt, after string) ([]byte, error) {
	m := hmac.New(sha256.New, a.PageKey)
	part := func(b string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		m.Write(n[:])
		m.Write([]byte(b))
	}
	part("bailiwick page 1")
	part(string(binary.BigEndian.AppendUint16(nil, uint16(h.limit))))
	part(after)
	for _, s := range []string{h.subject.entity.Type, h.subject.entity.ID, h.action.name, h.resource.entity.Type, h.resource.entity.ID} {
		part(s)
	}
	for _, object := range [][]byte{h.subject.properties, h.action.properties, h.resource.properties, h.context.text} {
		if object == nil {
			part("")
			continue
		}
		c, err := authz.Canonical(object)
		if err != nil {
			return nil, fmt.Errorf("the query has no canonical form: %w", err)
		}
		part(string(c))
	}
	return m.Sum(nil)[:macSize], nil
}
