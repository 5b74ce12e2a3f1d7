// Package extauthz is the enforcement point for other people's gateways: Envoy
// (ext_authz v3 over gRPC and HTTP), nginx (auth_request), Caddy and Traefik
// (forward_auth). They enforce; this package reads what they ask and answers.
//
// A request is an operation of an OpenAPI document, as for the gate of package
// httpgate, and a request that is none is denied. These gateways act by
// themselves and report nothing, so a decision that demands something is a
// denial.
package extauthz

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// The names under which decisions know these enforcement points.
const (
	gateEnvoy   = "ext_authz"
	gateForward = "forward_auth"
)

// A Config says what a [Gate] needs.
type Config struct {
	// Decider answers the questions. Required. It must give up when the context
	// ends.
	Decider pep.Decider
	// APIs are the APIs that gateways may ask about. Required; names are unique.
	APIs []API
	// Logger is told what operators should know. Required.
	Logger *slog.Logger
	// Peers are the agents that Envoy knows by their certificate: the principal
	// as Envoy gives it (a SPIFFE id) → the agent's id. A request that shows no
	// Authorization is that agent's, if the gateway may speak for agents. Empty:
	// certificates prove nothing.
	Peers map[string]string
	// Door is what agents are told that have to prove who they are.
	Door pep.Door
	// Health says why nothing can be decided now, or nil. For the gRPC health
	// service. Nil: there is never a reason.
	Health func() error
	// Deadline bounds one decision. Default 5 s. The gateway's own may be
	// shorter.
	Deadline time.Duration
	// Body bounds what is read of a request body over HTTP. Default 8 MiB.
	Body int64
}

// An API is one API behind gateways.
type API struct {
	// Name is the server of the catalogue: letters, digits, '-' and '_', at most
	// 64. Required.
	Name string
	// Router finds the operation of a request. Required.
	Router *openapi.Router
	// Hosts are the hosts that the API is reached by, in lower case and without a
	// port. A request to another host is denied. Empty: any host, and then the
	// gateway must say which API it asks about.
	Hosts []string
	// Prefix is what precedes the document's paths in the requests that gateways
	// get, "/v1". It is compared as it is written.
	Prefix string
}

// A Gate answers gateways. It is safe for concurrent use.
type Gate struct {
	Config
	apis  map[string]*API
	hosts map[string][]*API // the longest prefix first
}

var (
	apiName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	apiPrefix = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$`)
	hostName  = regexp.MustCompile(`^([a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])$`)
)

// New returns a gate for the given APIs.
func New(c Config) (*Gate, error) {
	switch {
	case c.Decider == nil:
		return nil, errors.New("extauthz: a gate needs a decider")
	case c.Logger == nil:
		return nil, errors.New("extauthz: a gate needs a logger")
	case len(c.APIs) == 0:
		return nil, errors.New("extauthz: a gate needs at least one API")
	}
	if c.Deadline <= 0 {
		c.Deadline = 5 * time.Second
	}
	if c.Body <= 0 {
		c.Body = 8 << 20
	}
	c.Peers = maps.Clone(c.Peers)
	g := &Gate{Config: c, apis: map[string]*API{}, hosts: map[string][]*API{}}
	for _, a := range c.APIs {
		if err := g.add(a); err != nil {
			return nil, fmt.Errorf("extauthz: API %q: %w", a.Name, err)
		}
	}
	for principal, agent := range c.Peers {
		if principal == "" || agent == "" {
			return nil, errors.New("extauthz: a peer has a principal and an agent")
		}
	}
	return g, nil
}

func (g *Gate) add(a API) error {
	switch {
	case !apiName.MatchString(a.Name):
		return errors.New("a name is letters, digits, '-' and '_', at most 64")
	case g.apis[a.Name] != nil:
		return errors.New("another API has this name")
	case a.Router == nil:
		return errors.New("it needs a router")
	case !apiPrefix.MatchString(a.Prefix):
		return errors.New("its prefix reads differently to different programs; write it as /v1, without dots, escapes and a slash at its end")
	}
	a.Hosts = slices.Clone(a.Hosts)
	g.apis[a.Name] = &a
	for _, h := range a.Hosts {
		if !hostName.MatchString(h) {
			return fmt.Errorf("host %q must be a name in lower case, without a port", h)
		}
		if slices.ContainsFunc(g.hosts[h], func(o *API) bool { return o.Prefix == a.Prefix }) {
			return fmt.Errorf("another API is at %s%s", h, a.Prefix)
		}
		g.hosts[h] = append(g.hosts[h], &a)
		slices.SortFunc(g.hosts[h], func(x, y *API) int { return cmp.Compare(len(y.Prefix), len(x.Prefix)) })
	}
	return nil
}

// named is the API that a gateway names, or nil.
func (g *Gate) named(name string, m *message) *API {
	a := g.apis[name]
	if a == nil || len(a.Hosts) > 0 && !slices.Contains(a.Hosts, hostOf(m.host)) {
		return nil
	}
	return a
}

// located is the API that a host and path belong to, or nil.
func (g *Gate) located(m *message) *API {
	path, _, _ := strings.Cut(m.target, "?")
	for _, a := range g.hosts[hostOf(m.host)] {
		if strings.HasPrefix(path, a.Prefix+"/") {
			return a
		}
	}
	return nil
}

// hostOf is the host of an authority, without its port. What is no authority
// is no host that an API has.
func hostOf(authority string) string {
	host := strings.ToLower(authority)
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		port := host[i+1:]
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return ""
		}
		host = host[:i]
	}
	return host
}
