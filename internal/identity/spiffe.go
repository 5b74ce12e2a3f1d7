package identity

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A SPIFFE is the trust domain whose workloads are accepted. Which agent a
// workload is, the registry says.
type SPIFFE struct {
	// TrustDomain is its name. Required.
	TrustDomain spiffeid.TrustDomain
	// Audience must be among the audiences of a JWT-SVID. Empty: none is
	// accepted.
	Audience string
	// Bundles are the keys and authorities of the trust domain. Required. A
	// bundle that cannot be had denies.
	Bundles SPIFFEBundles
}

// SPIFFEBundles supply the trust bundle of a trust domain.
type SPIFFEBundles interface {
	x509bundle.Source
	jwtbundle.Source
}

func (s *SPIFFE) check() error {
	if s.TrustDomain.IsZero() || s.Bundles == nil {
		return errors.New("SPIFFE needs a trust domain and its bundle")
	}
	return nil
}

// byJWTSVID finds the agent of a JWT-SVID (SPIFFE JWT-SVID §4, §5).
func (v *Verifier) byJWTSVID(agents *Registry, cred authz.Credential, claimed string) (Subject, error) {
	if v.spiffe.Audience == "" || cred.Kind != authz.CredentialBearer {
		return Subject{}, fmt.Errorf("a JWT-SVID is shown as a bearer token, and none is accepted without an audience: %w", ErrUnauthenticated)
	}
	id, err := spiffeid.FromString(claimed)
	if err != nil || id.TrustDomain() != v.spiffe.TrustDomain {
		return Subject{}, fmt.Errorf("the token is not of the trust domain %s: %w", v.spiffe.TrustDomain, ErrUnauthenticated)
	}
	bundle, err := v.spiffe.Bundles.GetJWTBundleForTrustDomain(v.spiffe.TrustDomain)
	if err != nil {
		return Subject{}, fmt.Errorf("get the trust bundle of %s: %w", v.spiffe.TrustDomain, err)
	}
	svid, err := jwtsvid.ParseAndValidate(cred.Value, bundle, []string{v.spiffe.Audience})
	if err != nil {
		return Subject{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	if _, bound := svid.Claims["cnf"]; bound || !v.now().Before(svid.Expiry) {
		return Subject{}, fmt.Errorf("the token is over, or bound in a way that cannot be checked: %w", ErrUnauthenticated)
	}
	s, err := agents.by("spiffe "+svid.ID.String(), MethodJWTSVID, v.now())
	s.Expires = svid.Expiry
	return s, err
}

// byX509SVID finds the agent of an X.509-SVID (SPIFFE X509-SVID §5). TLS has
// proven that the client holds its key.
func (v *Verifier) byX509SVID(agents *Registry, chain []*x509.Certificate) (Subject, error) {
	bundle, err := v.spiffe.Bundles.GetX509BundleForTrustDomain(v.spiffe.TrustDomain)
	if err != nil {
		return Subject{}, fmt.Errorf("get the trust bundle of %s: %w", v.spiffe.TrustDomain, err)
	}
	id, _, err := x509svid.Verify(chain, bundle, x509svid.WithTime(v.now()))
	if err != nil {
		return Subject{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return agents.by("spiffe "+id.String(), MethodX509SVID, v.now())
}
