package identity

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	jsonv2 "github.com/go-json-experiment/json"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// Bounds of a DPoP proof.
const (
	// maxProof bounds its size in bytes.
	maxProof = 8 << 10
	// proofAge is how old it may be (RFC 9449 §11.1), and proofAhead how far in
	// the future.
	proofAge   = time.Minute
	proofAhead = 5 * time.Second
	maxJTI     = 256
)

// proofAlgorithms are those that a proof may be signed with.
var proofAlgorithms = algorithms(nil)

// ProofAlgorithms are the names of the algorithms that a DPoP proof may be
// signed with.
func ProofAlgorithms() []string {
	var out []string
	for _, a := range proofAlgorithms {
		out = append(out, string(a))
	}
	return out
}

// possesses checks that a request proves the key with this thumbprint (RFC 9449
// §4.3), in a proof that nobody has shown before.
func (v *Verifier) possesses(cred authz.Credential, thumbprint string) error {
	p, err := readProof(cred.Proof)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	now := v.now()
	if err := p.fits(cred, thumbprint, now); err != nil {
		return fmt.Errorf("the DPoP proof: %w: %w", ErrUnauthenticated, err)
	}
	return v.once(p, cred.Exchange, now)
}

// A dpopProof is a proof whose signature is right.
type dpopProof struct {
	thumbprint string
	JTI        string  `json:"jti"`
	Method     string  `json:"htm"`
	URI        string  `json:"htu"`
	Issued     float64 `json:"iat"`
	TokenHash  string  `json:"ath"`
}

// readProof checks the form and the signature of a proof.
func readProof(text string) (*dpopProof, error) {
	if text == "" || len(text) > maxProof {
		return nil, fmt.Errorf("there is not one DPoP proof of at most %d bytes", maxProof)
	}
	jws, err := jose.ParseSignedCompact(text, proofAlgorithms)
	if err != nil {
		return nil, fmt.Errorf("the DPoP proof is no JWT: %w", err)
	}
	head := jws.Signatures[0].Protected
	if typ, _ := head.ExtraHeaders[jose.HeaderType].(string); typ != "dpop+jwt" {
		return nil, fmt.Errorf("the DPoP proof is a JWT of another type")
	}
	key := head.JSONWebKey
	if key == nil || !key.IsPublic() || !signs(key) {
		return nil, fmt.Errorf("the DPoP proof has no public key that can be used")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, fmt.Errorf("the DPoP proof is not signed with its key")
	}
	var p dpopProof
	if err := jsonv2.Unmarshal(payload, &p); err != nil {
		return nil, fmt.Errorf("the DPoP proof cannot be read: %w", err)
	}
	if p.thumbprint, err = KeyThumbprint(key); err != nil {
		return nil, err
	}
	return &p, nil
}

// KeyThumbprint is the thumbprint of a key (RFC 7638).
func KeyThumbprint(key *jose.JSONWebKey) (string, error) {
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// fits checks that the proof is for this request and this token, made now with
// the key that the token is bound to.
func (p *dpopProof) fits(cred authz.Credential, thumbprint string, now time.Time) error {
	hash := sha256.Sum256([]byte(cred.Value))
	switch {
	case !same(p.thumbprint, thumbprint):
		return fmt.Errorf("it proves another key than the token is bound to")
	case !same(p.TokenHash, base64.RawURLEncoding.EncodeToString(hash[:])):
		return fmt.Errorf("it is for another token")
	default:
		return p.fitsRequest(cred, now)
	}
}

// fitsRequest checks that the proof was made now for this request.
func (p *dpopProof) fitsRequest(cred authz.Credential, now time.Time) error {
	switch {
	case p.JTI == "" || len(p.JTI) > maxJTI:
		return fmt.Errorf("it needs a jti of at most %d bytes", maxJTI)
	case cred.Method == "" || p.Method != cred.Method:
		return fmt.Errorf("it is for another method")
	case !sameURI(p.URI, cred.URL):
		return fmt.Errorf("it is for another URI")
	case p.Issued <= 0 || p.Issued >= 1<<40:
		return fmt.Errorf("it does not say when it was made")
	}
	at := time.Unix(int64(p.Issued), 0)
	if now.Sub(at) > proofAge || at.Sub(now) > proofAhead {
		return fmt.Errorf("it was not made within the last %s", proofAge)
	}
	return nil
}

// sameURI compares without query and fragment, after the normalizations that
// RFC 9449 §4.3 names.
func sameURI(a, b string) bool {
	x, okX := normalURI(a)
	y, okY := normalURI(b)
	return okX && okY && x == y
}

func normalURI(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return "", false
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	default:
		return "", false
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path, true
}
