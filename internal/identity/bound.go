package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A Binding is what a token is bound to: who shows it has to prove that it has
// it (RFC 7800).
type Binding struct {
	// Key is the thumbprint of a key: cnf.jkt (RFC 9449 §6.1).
	Key string
	// Certificate is the thumbprint of a certificate: cnf.x5t#S256 (RFC 8705
	// §3.1).
	Certificate string
}

// IsZero reports whether the token is bound to nothing: whoever holds it can
// use it.
func (b Binding) IsZero() bool { return b == Binding{} }

// binding reads the cnf claim. A way to confirm that is not known here cannot
// be checked, so it is refused rather than left out.
func binding(claim any) (Binding, error) {
	if claim == nil {
		return Binding{}, nil
	}
	c, ok := claim.(map[string]any)
	if !ok || len(c) == 0 {
		return Binding{}, fmt.Errorf("the token is bound to nothing that can be read: %w", ErrUnauthenticated)
	}
	var b Binding
	for name, value := range c {
		s, _ := value.(string)
		if raw, err := base64.RawURLEncoding.DecodeString(s); err != nil || len(raw) != sha256.Size {
			return Binding{}, fmt.Errorf("the token is bound by %q, which cannot be checked: %w", clip(name, 64), ErrUnauthenticated)
		}
		switch name {
		case "jkt":
			b.Key = s
		case "x5t#S256":
			b.Certificate = s
		default:
			return Binding{}, fmt.Errorf("the token is bound by %q, which cannot be checked: %w", clip(name, 64), ErrUnauthenticated)
		}
	}
	return b, nil
}

// held checks that whoever shows a token has what it is bound to.
func (v *Verifier) held(cred authz.Credential, s Subject) (Subject, error) {
	if s.Bound.Certificate != "" {
		leaf, _, err := certificates(cred.Certificates)
		if err != nil {
			return Subject{}, err
		}
		if !same(Thumbprint(leaf.Raw), s.Bound.Certificate) {
			return Subject{}, fmt.Errorf("the token is bound to another certificate: %w", ErrUnauthenticated)
		}
		s.Method = MethodMTLS
	}
	switch {
	case s.Bound.Key != "" && cred.Kind == authz.CredentialDPoP:
		if err := v.possesses(cred, s.Bound.Key); err != nil {
			return Subject{}, err
		}
		s.Method = MethodDPoP
	case s.Bound.Key != "": // RFC 9449 §7.2
		return Subject{}, fmt.Errorf("the token is bound to a key and was shown as a bearer token: %w", ErrUnauthenticated)
	case cred.Kind == authz.CredentialDPoP: // RFC 9449 §7.1
		return Subject{}, fmt.Errorf("the token is not bound to a key and was shown as one that is: %w", ErrUnauthenticated)
	}
	return s, nil
}

// Thumbprint is the x5t#S256 of a certificate in DER (RFC 8705 §3.1).
func Thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// maxCertificates bounds a client's certificate chain, in bytes.
const maxCertificates = 32 << 10

// certificates reads the chain of a client, the leaf first. TLS has proven that
// the client holds the leaf's key, and nothing else.
func certificates(der string) (*x509.Certificate, []*x509.Certificate, error) {
	if der == "" || len(der) > maxCertificates {
		return nil, nil, fmt.Errorf("no client certificate was shown, or more than fits: %w", ErrUnauthenticated)
	}
	chain, err := x509.ParseCertificates([]byte(der))
	if err == nil && len(chain) == 0 {
		err = errors.New("none")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the client's certificate cannot be read: %w: %w", ErrUnauthenticated, err)
	}
	return chain[0], chain, nil
}

// byCertificate finds the agent of a client certificate: one that the registry
// names, or an X.509-SVID.
func (v *Verifier) byCertificate(agents *Registry, der string) (Subject, error) {
	leaf, chain, err := certificates(der)
	if err != nil {
		return Subject{}, err
	}
	now := v.now()
	sum := sha256.Sum256(leaf.Raw)
	s, err := agents.by("certificate "+string(sum[:]), MethodMTLS, now)
	if err == nil && (now.Before(leaf.NotBefore) || now.After(leaf.NotAfter)) {
		return Subject{}, fmt.Errorf("the certificate of agent %s is not valid now: %w", s.Agent, ErrUnauthenticated)
	}
	if err == nil || v.spiffe == nil {
		return s, err
	}
	return v.byX509SVID(agents, chain)
}
