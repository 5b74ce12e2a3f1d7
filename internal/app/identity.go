package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/sts"
)

// verifier is who finds out who asks.
func (n *Node) verifier(agents *identity.Registry, tasks context.Context) (*identity.Verifier, error) {
	c := n.config
	ic := identity.Config{
		Agents: agents, Anonymous: c.Anonymous, RegisteredOnly: c.RegisteredAgentsOnly, MaxChain: c.MaxChain,
	}
	for _, i := range c.Issuers {
		ic.Issuers = append(ic.Issuers, i.issuer())
	}
	if c.SPIFFE.TrustDomain != "" {
		s, err := n.spiffe(tasks)
		if err != nil {
			return nil, fmt.Errorf("spiffe: %w", err)
		}
		ic.SPIFFE = s
	}
	if len(c.TokenExchange.Audiences) > 0 {
		own, err := n.ownIssuer()
		if err != nil {
			return nil, fmt.Errorf("token_exchange: %w", err)
		}
		ic.Issuers = append(ic.Issuers, own)
	}
	return identity.New(ic)
}

// ownIssuer makes the node accept the tokens that it issues for itself.
func (n *Node) ownIssuer() (identity.Issuer, error) {
	c := n.config
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return identity.Issuer{}, fmt.Errorf("make the data directory: %w", err)
	}
	var err error
	if n.tokenKey, err = sts.LoadKey(c.TokenExchange.KeyFile); err != nil {
		return identity.Issuer{}, err
	}
	keys, err := sts.PublicKeys(n.tokenKey)
	if err != nil {
		return identity.Issuer{}, err
	}
	// What an acr stands for was said of the issuer that it comes from. Where two
	// issuers mean different levels by one, it is the lower.
	levels := map[string]int64{}
	for _, i := range c.Issuers {
		for acr, level := range i.Levels {
			if l, ok := levels[acr]; !ok || level < l {
				levels[acr] = level
			}
		}
	}
	for acr := range levels {
		for _, i := range c.Issuers {
			if _, ok := i.Levels[acr]; !ok {
				delete(levels, acr) // from that issuer it means nothing
			}
		}
	}
	return identity.Issuer{
		Issuer: c.public(), Audience: c.public(), AgentClaim: "client_id", AccessTokens: true, Keys: keys, Levels: levels,
	}, nil
}

// openExchange prepares the token exchange, if there is to be one.
func (n *Node) openExchange(verifier *identity.Verifier) error {
	if n.tokenKey == nil {
		return nil
	}
	audiences := map[string]sts.Audience{}
	for name, a := range n.config.TokenExchange.Audiences {
		audiences[name] = sts.Audience(a)
	}
	var err error
	n.exchange, err = sts.New(sts.Config{
		Issuer: n.config.public(), Key: n.tokenKey, Audiences: audiences, Lifetime: n.config.TokenExchange.Lifetime,
		Identity: verifier, Decider: n.decider, Action: catalog.TokenExchange, Logger: n.logger,
	})
	return err
}

func (c *Config) checkExchange() error {
	t := c.TokenExchange
	switch {
	case len(t.Audiences) == 0:
		return nil
	case c.PublicURL == "":
		return errors.New("public_url is needed: it is the issuer that the tokens name")
	case c.PDP.URL != "":
		return errors.New("tokens are issued by the PDP, and this process is a gate only")
	case t.Lifetime != 0 && (t.Lifetime < 10*time.Second || t.Lifetime > time.Hour):
		return fmt.Errorf("lifetime: %s is not from 10s to 1h", t.Lifetime)
	}
	uris := map[string]string{}
	for name, a := range t.Audiences {
		if !serverName.MatchString(name) {
			return fmt.Errorf("audiences: %q is not a name: letters, digits, '-' and '_', at most 64", name)
		}
		if other, taken := uris[a.URI]; taken || a.URI == "" {
			return fmt.Errorf("audiences: %s needs a uri of its own (%s)", name, other)
		}
		uris[a.URI] = name
	}
	for _, i := range c.Issuers {
		if i.Issuer == c.public() {
			return fmt.Errorf("issuers: %s is this node itself, whose tokens are accepted anyway", i.Issuer)
		}
	}
	return nil
}

func (i Issuer) issuer() identity.Issuer {
	return identity.Issuer{
		Issuer: i.Issuer, Audience: i.Audience, AgentClaim: i.AgentClaim, SubjectClaim: i.SubjectClaim, GroupsClaim: i.GroupsClaim,
		Levels: i.Levels, AccessTokens: i.AccessTokens, SenderConstrained: i.SenderConstrained, Algorithms: i.Algorithms,
	}
}

func (s SPIFFE) check() error {
	if s == (SPIFFE{}) {
		return nil
	}
	if _, err := spiffeid.TrustDomainFromString(s.TrustDomain); err != nil {
		return fmt.Errorf("trust_domain: %w", err)
	}
	if (s.WorkloadAPI == "") == (s.Bundle == "") {
		return errors.New("the trust bundle comes from workload_api or from bundle, one of them")
	}
	if s.WorkloadAPI != "" {
		if err := workloadapi.ValidateAddress(s.WorkloadAPI); err != nil {
			return fmt.Errorf("workload_api: %w", err)
		}
	}
	return nil
}

// spiffe is the trust domain of the configuration. A Workload API that does not
// answer holds up no start; until it does, its workloads are denied.
func (n *Node) spiffe(tasks context.Context) (*identity.SPIFFE, error) {
	c := n.config.SPIFFE
	domain, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return nil, err
	}
	out := &identity.SPIFFE{TrustDomain: domain, Audience: c.Audience}
	if c.Bundle != "" {
		b := &bundleFile{file: c.Bundle, domain: domain}
		if _, err := b.read(); err != nil {
			return nil, err
		}
		out.Bundles = b
		return out, nil
	}
	w := &workloadBundles{logger: n.logger}
	n.tasks.Go(func() { w.follow(tasks, c.WorkloadAPI) })
	out.Bundles = w
	return out, nil
}

// bundlesHeld is for how long the trust bundle is believed while the Workload
// API does not answer.
const bundlesHeld = time.Hour

// workloadBundles are the bundles that a Workload API supplies.
type workloadBundles struct {
	logger *slog.Logger
	x509   followed[x509bundle.Set]
	jwt    followed[jwtbundle.Set]
}

// A followed value is the last that came, and since when none could.
type followed[T any] struct {
	last atomic.Pointer[T]
	lost atomic.Pointer[time.Time]
}

func (f *followed[T]) update(v *T) {
	f.last.Store(v)
	f.lost.Store(nil)
}

func (f *followed[T]) fail(now time.Time) { f.lost.CompareAndSwap(nil, &now) }

func (f *followed[T]) get(now time.Time) (*T, error) {
	v, lost := f.last.Load(), f.lost.Load()
	if v == nil {
		return nil, errors.New("the Workload API has not supplied the trust bundle yet")
	}
	if lost != nil && now.Sub(*lost) >= bundlesHeld {
		return nil, fmt.Errorf("the Workload API has not answered for %s", bundlesHeld)
	}
	return v, nil
}

// follow gets the bundles and keeps them up to date until ctx ends.
func (w *workloadBundles) follow(ctx context.Context, address string) {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(address))
	if err != nil {
		w.OnX509BundlesWatchError(err) // and so it stays: nothing is accepted
		return
	}
	var watches sync.WaitGroup
	watches.Go(func() { w.watch(ctx, func() error { return client.WatchX509Bundles(ctx, w) }) })
	watches.Go(func() { w.watch(ctx, func() error { return client.WatchJWTBundles(ctx, w) }) })
	watches.Wait()
	if err := client.Close(); err != nil {
		w.logger.Error("SPIFFE Workload API not closed", "error", err)
	}
}

// watch begins again what ends before it should.
func (w *workloadBundles) watch(ctx context.Context, once func() error) {
	for ctx.Err() == nil {
		if err := once(); err != nil && ctx.Err() == nil {
			w.logger.Error("SPIFFE trust bundle not followed", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// OnX509BundlesUpdate implements workloadapi.X509BundleWatcher.
func (w *workloadBundles) OnX509BundlesUpdate(s *x509bundle.Set) { w.x509.update(s) }

// OnX509BundlesWatchError implements workloadapi.X509BundleWatcher.
func (w *workloadBundles) OnX509BundlesWatchError(err error) {
	w.x509.fail(time.Now())
	w.logger.Error("SPIFFE Workload API does not answer", "bundle", "x509", "error", err)
}

// OnJWTBundlesUpdate implements workloadapi.JWTBundleWatcher.
func (w *workloadBundles) OnJWTBundlesUpdate(s *jwtbundle.Set) { w.jwt.update(s) }

// OnJWTBundlesWatchError implements workloadapi.JWTBundleWatcher.
func (w *workloadBundles) OnJWTBundlesWatchError(err error) {
	w.jwt.fail(time.Now())
	w.logger.Error("SPIFFE Workload API does not answer", "bundle", "jwt", "error", err)
}

// GetX509BundleForTrustDomain implements identity.SPIFFEBundles.
func (w *workloadBundles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s, err := w.x509.get(time.Now())
	if err != nil {
		return nil, err
	}
	return s.GetX509BundleForTrustDomain(td)
}

// GetJWTBundleForTrustDomain implements identity.SPIFFEBundles.
func (w *workloadBundles) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	s, err := w.jwt.get(time.Now())
	if err != nil {
		return nil, err
	}
	return s.GetJWTBundleForTrustDomain(td)
}

// A bundleFile is a trust bundle that is read again when its file has changed.
type bundleFile struct {
	file   string
	domain spiffeid.TrustDomain

	mu     sync.Mutex
	looked time.Time
	stamp  time.Time
	bundle *spiffebundle.Bundle
}

func (b *bundleFile) read() (*spiffebundle.Bundle, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bundle != nil && time.Since(b.looked) < time.Second {
		return b.bundle, nil
	}
	b.looked = time.Now()
	info, err := os.Stat(b.file)
	if err == nil && (b.bundle == nil || !info.ModTime().Equal(b.stamp)) {
		var read *spiffebundle.Bundle
		if read, err = spiffebundle.Load(b.domain, b.file); err == nil {
			b.bundle, b.stamp = read, info.ModTime()
		}
	}
	if b.bundle == nil {
		return nil, fmt.Errorf("read trust bundle: %w", err)
	}
	return b.bundle, nil // what was read last holds while its file is being replaced
}

func (b *bundleFile) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	bundle, err := b.read()
	if err != nil {
		return nil, err
	}
	return bundle.GetX509BundleForTrustDomain(td)
}

func (b *bundleFile) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	bundle, err := b.read()
	if err != nil {
		return nil, err
	}
	return bundle.GetJWTBundleForTrustDomain(td)
}
