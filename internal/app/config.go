package app

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/bailiwick-dev/bailiwick/internal/breaker"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/entity"
)

// DefaultConfigFile is where the configuration is looked for when no other
// file is named.
const DefaultConfigFile = "bailiwick.yaml"

// A Config is the whole of bailiwick.yaml. Unknown keys are errors. Relative
// paths are relative to the file.
type Config struct {
	// Mode is "enforce" (default) or "observe": decide and record everything,
	// but let through what policy denies.
	Mode string `yaml:"mode"`
	// Node names this log; it is part of every checkpoint's origin. Default
	// "bailiwick.local/log".
	Node string `yaml:"node"`
	// Data is the directory of the evidence and the state. Default ".bailiwick".
	Data string `yaml:"data"`
	// Policies is the directory of *.cedar files. Default "policies".
	Policies string `yaml:"policies"`
	// Catalog is the operator's catalogue file: effects, authority-bearing
	// arguments, outputs that outsiders can write. Default "catalog.yaml".
	Catalog string `yaml:"catalog"`
	// Lock is the file of pinned tool definitions. Default "catalog.lock.json".
	Lock string `yaml:"lock"`
	// Agents is the file of agents and their hashed keys. Default "agents.yaml".
	Agents string `yaml:"agents"`
	// Schema is the file of the applications that other people's enforcement
	// points ask about, in Cedar's schema syntax: a namespace for each. Default
	// "schema.cedarschema"; it may be missing.
	Schema string `yaml:"schema"`
	// Listen is the address of the gateway and of the decision API. Default
	// "127.0.0.1:7430".
	Listen string `yaml:"listen"`
	// TLS serves HTTPS. Empty: plain HTTP, for loopback or behind a proxy that
	// ends TLS.
	TLS TLS `yaml:"tls"`
	// PublicURL is the https URL under which enforcement points know the
	// decision API (the AuthZEN policy decision point identifier). Empty: there
	// is no metadata document.
	PublicURL string `yaml:"public_url"`
	// AccessRequests is the https URL of the service where a denial that people
	// may overturn can be brought before them (AuthZEN Access Request and
	// Approval Profile). Empty: no denial says so.
	AccessRequests string `yaml:"access_requests"`
	// Elevations are the groups whose membership may be offered as what would
	// turn a denial into an allow.
	Elevations []string `yaml:"elevations"`
	// MaxInFlight bounds how many decisions may be under way at once; more are
	// refused quickly. Default 4096.
	MaxInFlight int `yaml:"max_in_flight"`
	// Budgets bound what may be used up in a window of time.
	Budgets []budget.Budget `yaml:"budgets"`
	// Breakers stop what keeps failing, per agent and tool and per server.
	Breakers breaker.Settings `yaml:"breakers"`
	// Hosts are further host names under which clients may reach the gateway.
	// The listen address and localhost are always among them.
	Hosts []string `yaml:"hosts"`
	// Origins are the web origins that may call the gateway from a browser.
	Origins []string `yaml:"origins"`
	// Anonymous is the agent that callers without a credential act as. Policy
	// still decides what it may do. Only with a loopback listen address.
	Anonymous string `yaml:"anonymous"`
	// Issuers are the OIDC issuers whose JWTs name agents.
	Issuers []Issuer `yaml:"issuers"`
	// SPIFFE accepts the workloads of a trust domain; the agents file says which
	// agent each of them is.
	SPIFFE SPIFFE `yaml:"spiffe"`
	// RegisteredAgentsOnly refuses agents that the agents file does not know,
	// whoever vouches for them.
	RegisteredAgentsOnly bool `yaml:"registered_agents_only"`
	// MaxChain is how many agents may take part in one task, the acting one
	// included, when they hand it on (RFC 8693 act). Default 4.
	MaxChain int `yaml:"max_chain"`
	// TokenExchange issues tokens for the next hop of a task (RFC 8693).
	TokenExchange TokenExchange `yaml:"token_exchange"`
	// Telemetry is how operators see how the plane is doing.
	Telemetry Telemetry `yaml:"telemetry"`
	// Entities say where what is known of agents, groups, users and resources
	// comes from.
	Entities entity.Sources `yaml:"entities"`
	// Upstreams are the MCP servers behind the gateway, by name.
	Upstreams map[string]Upstream `yaml:"upstreams"`

	// APIs are HTTP APIs by name, each described by an OpenAPI document. Those
	// with a url are reached through the gateway at /api/<name>/.
	APIs map[string]API `yaml:"apis"`
	// PDP makes this process a gate only: it asks a PDP in another process, and
	// has no policies, no evidence and no decision API of its own.
	PDP RemotePDP `yaml:"pdp"`
	// ExtAuthz answers other people's gateways about the APIs.
	ExtAuthz ExtAuthz `yaml:"ext_authz"`

	// dir is the directory of the file.
	dir string
	// shared is the data directory of the installation, for a process that has one
	// of its own. Empty: Data.
	shared string
}

// A TLS is a certificate and its key, PEM files that are read again when they
// change.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ClientCertificates asks clients for a certificate: for tokens that are bound
	// to one (RFC 8705), X.509-SVIDs, and certificates of the agents file. None is
	// demanded; what proves whom is found out with each request.
	ClientCertificates bool `yaml:"client_certificates"`
}

// A TokenExchange is where agents get tokens for other services, at
// /oauth/token below public_url. That an agent may have one is a decision:
// Action::"token:exchange".
type TokenExchange struct {
	// Audiences are the services that tokens may be for, by the name that policies
	// know them by: Server::"<name>". Empty: no token is issued.
	Audiences map[string]Audience `yaml:"audiences"`
	// Lifetime is how long a token holds at most, 10 s to 1 h. Default 5m.
	Lifetime time.Duration `yaml:"lifetime"`
	// KeyFile is the key that signs them, P-256 in PEM. Default "token.key" in the
	// data directory; it is made if it is not there.
	KeyFile string `yaml:"key_file"`
}

// An Audience is a service that tokens may be for.
type Audience struct {
	// URI is how the service names itself: the aud of its tokens. Required.
	URI string `yaml:"uri"`
	// Scopes are the scopes that a token for it may have.
	Scopes []string `yaml:"scopes"`
	// Bearer lets tokens be issued that are bound to nobody, for a service that
	// can neither check DPoP nor certificates.
	Bearer bool `yaml:"bearer"`
}

// A SPIFFE is a trust domain. Exactly one of WorkloadAPI and Bundle is set.
type SPIFFE struct {
	// TrustDomain is its name. Empty: no workload is accepted.
	TrustDomain string `yaml:"trust_domain"`
	// WorkloadAPI is the address of a SPIFFE Workload API, "unix:///…", which
	// supplies the trust bundle and keeps it up to date.
	WorkloadAPI string `yaml:"workload_api"`
	// Bundle is a file with the trust bundle in the form of the SPIFFE trust
	// bundle format. It is read again when it changes.
	Bundle string `yaml:"bundle"`
	// Audience must be among the audiences of a JWT-SVID. Empty: none is
	// accepted, only X.509-SVIDs.
	Audience string `yaml:"audience"`
}

// An Issuer is an OIDC issuer whose JWT access tokens are accepted.
type Issuer struct {
	// Issuer is the issuer's identifier (an https URL; http only on loopback).
	Issuer string `yaml:"issuer"`
	// Audience is the audience that tokens must carry. Required.
	Audience string `yaml:"audience"`
	// AgentClaim is the claim that names the agent. Default "sub".
	AgentClaim string `yaml:"agent_claim"`
	// SubjectClaim is the claim that names the person the agent acts for.
	// Empty: none.
	SubjectClaim string `yaml:"subject_claim"`
	// GroupsClaim is the claim that lists the agent's groups. Empty: none.
	GroupsClaim string `yaml:"groups_claim"`
	// Levels maps values of the acr claim to authentication levels (2 and
	// above), for policies that look at context.auth.level.
	Levels map[string]int64 `yaml:"levels"`
	// AccessTokens demands JWTs of type at+jwt with all claims that RFC 9068
	// requires. Without it an ID token proves an agent too.
	AccessTokens bool `yaml:"access_tokens"`
	// SenderConstrained refuses tokens that are bound neither to a key (DPoP, RFC
	// 9449) nor to a certificate (RFC 8705). One that is bound is always held to
	// it.
	SenderConstrained bool `yaml:"sender_constrained"`
	// Algorithms are the signature algorithms that are accepted. Default RS256,
	// PS256, ES256, ES384, EdDSA.
	Algorithms []string `yaml:"algorithms"`
}

// An Upstream is one MCP server. Exactly one of Command and URL is set.
type Upstream struct {
	// Command starts a stdio server.
	Command string   `yaml:"command"`
	Args    []string `yaml:"args"`
	// Env adds to a minimal environment (PATH, HOME, LANG, TMPDIR, USER).
	Env map[string]string `yaml:"env"`
	// Cwd is the server's working directory. Default: the file's directory.
	Cwd string `yaml:"cwd"`
	// URL is a streamable HTTP server.
	URL string `yaml:"url"`
	// TokenFile holds a bearer token for the upstream. The client's token is
	// never forwarded.
	TokenFile string `yaml:"token_file"`
}

// An API is an HTTP API.
type API struct {
	// OpenAPI is the file of its OpenAPI 3 document. Required.
	OpenAPI string `yaml:"openapi"`
	// URL is where the document's paths begin. Empty: only other people's
	// gateways stand before it.
	URL string `yaml:"url"`
	// CredentialFile holds what the gateway shows the API, all of the header's
	// value ("Bearer …"). Agents never see it.
	CredentialFile string `yaml:"credential_file"`
	// Header is the header that it is shown in. Default "Authorization".
	Header string `yaml:"header"`
	// Hosts are the hosts by which other people's gateways know it, and Prefix
	// what precedes the document's paths there.
	Hosts  []string `yaml:"hosts"`
	Prefix string   `yaml:"prefix"`
}

// A Telemetry says where metrics and traces go.
type Telemetry struct {
	// Metrics is the address of Prometheus's metrics, at /metrics. It tells how
	// much is denied and why: keep it from agents. Empty: there are none.
	Metrics string `yaml:"metrics"`
	// Traces is the base URL of a collector that speaks OTLP over HTTP. Empty:
	// there are no traces.
	Traces string `yaml:"traces"`
	// CAFile holds the authorities that vouch for the collector. Empty: the
	// system's.
	CAFile string `yaml:"ca_file"`
	// Sample is the share, 0 to 1, of decisions that are traced when the caller
	// has no trace of its own. Default 0: only those whose caller has.
	Sample float64 `yaml:"sample"`
}

// A RemotePDP is a PDP in another process.
type RemotePDP struct {
	// URL is where it is: https, or http on this machine.
	URL string `yaml:"url"`
	// KeyFile holds the key of this gate, an enforcement point that relays.
	KeyFile string `yaml:"key_file"`
	// CAFile holds the certificates of who vouches for it. Empty: the system's.
	CAFile string `yaml:"ca_file"`
}

// An ExtAuthz is where Envoy asks (ext_authz v3 over gRPC). Gateways that ask
// over HTTP do so at the main address.
type ExtAuthz struct {
	// Listen is the gRPC address. Empty: there is none.
	Listen string `yaml:"listen"`
	// Peers are agents by the principal of their certificate, as Envoy gives it
	// (a SPIFFE id).
	Peers map[string]string `yaml:"peers"`
}

var serverName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// LoadConfig reads and checks the configuration file.
func LoadConfig(file string) (*Config, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no configuration at %s: run 'bailiwick init' to make one, or name it with --config", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c := &Config{}
	if err := yaml.UnmarshalWithOptions(text, c, yaml.Strict(), yaml.DisallowUnknownField()); err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", file, err)
	}
	c.dir = filepath.Dir(abs)
	c.fillDefaults()
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c *Config) fillDefaults() {
	for _, d := range []struct {
		field *string
		value string
		path  bool
	}{
		{&c.Mode, "enforce", false},
		{&c.Node, "bailiwick.local/log", false},
		{&c.Listen, "127.0.0.1:7430", false},
		{&c.Data, ".bailiwick", true},
		{&c.Policies, "policies", true},
		{&c.Catalog, "catalog.yaml", true},
		{&c.Lock, "catalog.lock.json", true},
		{&c.Agents, "agents.yaml", true},
		{&c.Schema, "schema.cedarschema", true},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
		if d.path {
			*d.field = c.path(*d.field)
		}
	}
	for _, file := range []*string{&c.TLS.Cert, &c.TLS.Key, &c.PDP.KeyFile, &c.PDP.CAFile, &c.Telemetry.CAFile, &c.SPIFFE.Bundle} {
		if *file != "" {
			*file = c.path(*file)
		}
	}
	if t := &c.TokenExchange; len(t.Audiences) > 0 {
		if t.KeyFile == "" {
			t.KeyFile = filepath.Join(c.Data, "token.key")
		}
		t.KeyFile = c.path(t.KeyFile)
	}
	for i := range c.Entities.Files {
		c.Entities.Files[i] = c.path(c.Entities.Files[i])
	}
	for i := range c.Entities.SQL {
		for _, file := range []*string{&c.Entities.SQL[i].DSNFile, &c.Entities.SQL[i].File} {
			if *file != "" {
				*file = c.path(*file)
			}
		}
	}
	for i := range c.Issuers {
		if c.Issuers[i].AgentClaim == "" {
			c.Issuers[i].AgentClaim = "sub"
		}
	}
	for name, a := range c.APIs {
		a.OpenAPI = c.path(a.OpenAPI)
		if a.CredentialFile != "" {
			a.CredentialFile = c.path(a.CredentialFile)
		}
		if a.Header == "" {
			a.Header = "Authorization"
		}
		c.APIs[name] = a
	}
	for name, u := range c.Upstreams {
		if u.Command != "" && u.Cwd == "" {
			u.Cwd = c.dir
		}
		if u.Cwd != "" {
			u.Cwd = c.path(u.Cwd)
		}
		if u.TokenFile != "" {
			u.TokenFile = c.path(u.TokenFile)
		}
		c.Upstreams[name] = u
	}
}

func (c *Config) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

func (c *Config) check() error {
	var errs []error
	if c.Mode != "enforce" && c.Mode != "observe" {
		errs = append(errs, fmt.Errorf("mode: %q is neither \"enforce\" nor \"observe\"", c.Mode))
	}
	if strings.ContainsAny(c.Node, " +\n\t") {
		errs = append(errs, fmt.Errorf("node: %q may not hold spaces or '+'", c.Node))
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		errs = append(errs, fmt.Errorf("listen: %q is not an address like 127.0.0.1:7430", c.Listen))
	} else if c.Anonymous != "" && !isLoopback(host) {
		errs = append(errs, fmt.Errorf("anonymous: callers without a credential are for a loopback address, not for %s", c.Listen))
	}
	if c.Telemetry.Metrics != "" {
		if _, _, err := net.SplitHostPort(c.Telemetry.Metrics); err != nil {
			errs = append(errs, fmt.Errorf("telemetry: metrics: %q is not an address like 127.0.0.1:7432", c.Telemetry.Metrics))
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		errs = append(errs, errors.New("tls: cert and key belong together"))
	}
	if (c.PDP.URL == "") != (c.PDP.KeyFile == "") {
		errs = append(errs, errors.New("pdp: url and key_file belong together"))
	}
	if c.PDP.URL != "" && len(c.Budgets) > 0 {
		errs = append(errs, errors.New("budgets: the PDP counts, not its gates"))
	}
	if c.PDP.URL != "" && c.Mode == "observe" {
		errs = append(errs, errors.New("pdp: the PDP says whether it only observes, not its gates"))
	}
	if c.MaxInFlight < 0 {
		errs = append(errs, fmt.Errorf("max_in_flight: %d is not a number of decisions", c.MaxInFlight))
	}
	if err := c.Breakers.Check(); err != nil {
		errs = append(errs, fmt.Errorf("breakers: %w", err))
	}
	if err := c.Entities.Check(); err != nil {
		errs = append(errs, fmt.Errorf("entities: %w", err))
	}
	for _, i := range c.Issuers {
		if err := checkIssuer(i); err != nil {
			errs = append(errs, err)
		}
	}
	if err := c.SPIFFE.check(); err != nil {
		errs = append(errs, fmt.Errorf("spiffe: %w", err))
	}
	if err := c.checkExchange(); err != nil {
		errs = append(errs, fmt.Errorf("token_exchange: %w", err))
	}
	if c.MaxChain < 0 || c.MaxChain > 16 {
		errs = append(errs, fmt.Errorf("max_chain: %d is not a number of agents from 1 to 16", c.MaxChain))
	}
	if c.TLS.ClientCertificates && c.TLS.Cert == "" {
		errs = append(errs, errors.New("tls: client_certificates needs cert and key: without TLS nobody shows one"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if err := checkUpstream(name, c.Upstreams[name]); err != nil {
			errs = append(errs, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.APIs)) {
		if err := c.checkAPI(name, c.APIs[name]); err != nil {
			errs = append(errs, err)
		}
	}
	if c.ExtAuthz.Listen != "" {
		if _, _, err := net.SplitHostPort(c.ExtAuthz.Listen); err != nil {
			errs = append(errs, fmt.Errorf("ext_authz: listen: %q is not an address like 127.0.0.1:7431", c.ExtAuthz.Listen))
		}
	}
	return errors.Join(errs...)
}

func checkIssuer(i Issuer) error {
	u, err := url.Parse(i.Issuer)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("issuers: %q is not a URL", i.Issuer)
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return fmt.Errorf("issuers: %q must be https (http is for loopback only)", i.Issuer)
	case hasLowLevel(i.Levels):
		return fmt.Errorf("issuers: %s: levels begin at 2; 1 is what every credential proves", i.Issuer)
	case i.Audience == "":
		return fmt.Errorf("issuers: %s needs an audience, or a token for any service would be accepted", i.Issuer)
	}
	if err := i.issuer().Check(); err != nil {
		return fmt.Errorf("issuers: %w", err)
	}
	return nil
}

func hasLowLevel(levels map[string]int64) bool {
	for _, l := range levels {
		if l < 2 {
			return true
		}
	}
	return false
}

func checkUpstream(name string, u Upstream) error {
	switch {
	case !serverName.MatchString(name):
		return fmt.Errorf("upstreams: %q is not a server name: letters, digits, '-' and '_', at most 64", name)
	case strings.Contains(name, "__"):
		return fmt.Errorf("upstreams: %q may not contain '__', which separates server and tool", name)
	case name == "mcp":
		return errors.New("upstreams: the name \"mcp\" is taken by the protocol's own methods")
	case (u.Command == "") == (u.URL == ""):
		return fmt.Errorf("upstreams: %s needs either a command or a url", name)
	}
	if u.URL != "" {
		p, err := url.Parse(u.URL)
		if err != nil || p.Host == "" || (p.Scheme != "http" && p.Scheme != "https") {
			return fmt.Errorf("upstreams: %s: %q is not an http(s) URL", name, u.URL)
		}
	}
	return nil
}

func (c *Config) checkAPI(name string, a API) error {
	_, taken := c.Upstreams[name]
	switch {
	case !serverName.MatchString(name) || strings.Contains(name, "__") || name == "mcp":
		return fmt.Errorf("apis: %q is not an API's name: letters, digits, '-' and '_', at most 64, without '__'", name)
	case taken:
		return fmt.Errorf("apis: %s is the name of an upstream too; policies could not tell them apart", name)
	case a.OpenAPI == c.dir:
		return fmt.Errorf("apis: %s needs an OpenAPI document: openapi", name)
	case a.URL == "" && a.CredentialFile != "":
		return fmt.Errorf("apis: %s: credential_file is shown to the url, and there is none", name)
	}
	return nil
}

func isLoopback(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1"
}

// Servers are the names of the upstreams and of the APIs, sorted: all that has
// operations to pin.
func (c *Config) Servers() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for n := range c.Upstreams {
			if !yield(n) {
				return
			}
		}
		for n := range c.APIs {
			if !yield(n) {
				return
			}
		}
	})
}
