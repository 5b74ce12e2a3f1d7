package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

// How long an issuer's keys are believed, and how often it is asked.
const (
	// keysFresh is for how long keys are used without asking again. A key that
	// is withdrawn is used for little longer, while the issuer answers.
	keysFresh = 5 * time.Minute
	// keysHeld is for how long keys are used while the issuer does not answer.
	keysHeld = time.Hour
	// keysEvery bounds how often an issuer is asked, whatever tokens name: a
	// token with an unknown key costs anybody nothing to make.
	keysEvery = 5 * time.Second
	// maxDocument bounds what is read of an issuer, in bytes.
	maxDocument = 1 << 20
	// maxKeys bounds the keys of an issuer.
	maxKeys = 64
)

// A keySet is the keys of an issuer, fetched when they are first needed.
type keySet struct {
	issuer string
	client *http.Client
	now    func() time.Time

	flight singleflight.Group
	held   atomic.Pointer[heldKeys]
}

// heldKeys are the keys as last fetched. It is immutable.
type heldKeys struct {
	keys    []jose.JSONWebKey
	fetched time.Time // when the keys came
	asked   time.Time // when they were last asked for
	err     error     // why that failed
}

// find returns the keys that may have signed a token with this kid and
// algorithm. It returns when ctx ends, whatever the issuer does. An error that
// wraps ErrUnauthenticated says that the issuer has no such key.
func (s *keySet) find(ctx context.Context, kid, alg string) ([]jose.JSONWebKey, error) {
	h := s.held.Load()
	now := s.now()
	if h == nil || now.Sub(h.fetched) >= keysHeld {
		var err error
		if h, err = s.refresh(ctx, h); err != nil {
			return nil, err
		}
	} else if now.Sub(h.fetched) >= keysFresh && now.Sub(h.asked) >= keysEvery {
		s.flight.DoChan("", func() (any, error) { return s.ask(h) }) // for those to come
	}
	if keys := h.match(kid, alg); len(keys) > 0 {
		return keys, nil
	}
	// A new key, or a made-up one; the issuer is not asked too often for that.
	h, err := s.refresh(ctx, h)
	if err != nil {
		return nil, err
	}
	if keys := h.match(kid, alg); len(keys) > 0 {
		return keys, nil
	}
	return nil, fmt.Errorf("issuer %s has no key for this token: %w", s.issuer, ErrUnauthenticated)
}

// refresh asks the issuer, unless somebody has just done so.
func (s *keySet) refresh(ctx context.Context, before *heldKeys) (*heldKeys, error) {
	select {
	case r := <-s.flight.DoChan("", func() (any, error) { return s.ask(before) }):
		h, _ := r.Val.(*heldKeys)
		return h, r.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("fetch the keys of %s: %w", s.issuer, ctx.Err())
	}
}

// ask fetches the keys. One call runs at a time, and outlives the request that
// began it: the client's timeout bounds it.
func (s *keySet) ask(before *heldKeys) (any, error) {
	if h := s.held.Load(); h != before && h != nil && s.now().Sub(h.asked) < keysEvery {
		return usable(h, s.now()) // somebody else was faster
	}
	if before != nil && s.now().Sub(before.asked) < keysEvery {
		return usable(before, s.now())
	}
	h := &heldKeys{asked: s.now()}
	h.keys, h.err = s.fetch()
	if h.err == nil {
		h.fetched = h.asked
	} else if before != nil {
		h.keys, h.fetched = before.keys, before.fetched
	}
	s.held.Store(h)
	return usable(h, s.now())
}

// usable are keys that are not too old, or why there are none.
func usable(h *heldKeys, now time.Time) (*heldKeys, error) {
	if h.err != nil && (h.fetched.IsZero() || now.Sub(h.fetched) >= keysHeld) {
		return nil, h.err
	}
	return h, nil
}

func (h *heldKeys) match(kid, alg string) []jose.JSONWebKey {
	var out []jose.JSONWebKey
	for _, k := range h.keys {
		if (kid == "" || k.KeyID == kid) && (k.Algorithm == "" || k.Algorithm == alg) {
			out = append(out, k)
		}
	}
	return out
}

// fetch does the discovery (OIDC Discovery §4, RFC 8414 §3) and reads the keys
// (RFC 7517 §5).
func (s *keySet) fetch() ([]jose.JSONWebKey, error) {
	var meta struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	err := errors.New("no metadata")
	for _, u := range metadataURLs(s.issuer) {
		if err = s.get(u, &meta); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("discover issuer %s: %w", s.issuer, err)
	}
	if meta.Issuer != s.issuer { // RFC 8414 §3.3
		return nil, fmt.Errorf("discover issuer %s: its metadata is that of %q", s.issuer, meta.Issuer)
	}
	if strings.HasPrefix(s.issuer, "https:") && !strings.HasPrefix(meta.Keys, "https:") {
		return nil, fmt.Errorf("discover issuer %s: its keys are not served over https", s.issuer)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := s.get(meta.Keys, &set); err != nil {
		return nil, fmt.Errorf("fetch the keys of %s: %w", s.issuer, err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("fetch the keys of %s: there are more than %d", s.issuer, maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		// A key of a kind that is not known here signs nothing that is accepted
		// here (RFC 7517 §5).
		if k.UnmarshalJSON(raw) == nil && signs(&k) {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// signs reports whether a key is a public one that is fit to verify with.
func signs(k *jose.JSONWebKey) bool {
	if !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= 2048 // RFC 7518 §3.3
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	default:
		return false
	}
}

func metadataURLs(issuer string) []string {
	urls := []string{strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"}
	if u, err := url.Parse(issuer); err == nil {
		u.Path = "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/")
		urls = append(urls, u.String())
	}
	return urls
}

func (s *keySet) get(from string, to any) error {
	r, err := http.NewRequest(http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	res, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", from, res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return err
	}
	if len(body) > maxDocument {
		return fmt.Errorf("%s answers more than %d bytes", from, maxDocument)
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}
