package app

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
)

// resourcePath is where the metadata of a protected resource is; the path of the
// resource follows (RFC 9728 §3.1).
const resourcePath = "/.well-known/oauth-protected-resource"

// public is where clients reach the node, without a slash at the end; empty if
// the configuration does not say.
func (c *Config) public() string { return strings.TrimSuffix(c.PublicURL, "/") }

// reached is where the client of a request has reached the node.
func (c *Config) reached(r *http.Request) string {
	switch {
	case c.public() != "":
		return c.public()
	case r.TLS != nil:
		return "https://" + r.Host
	default:
		return "http://" + r.Host
	}
}

// takesTokens reports whether OAuth clients have anything to come with.
func (c *Config) takesTokens() bool { return len(c.Issuers)+len(c.TokenExchange.Audiences) > 0 }

// door is what clients of the MCP gateway are told that have to prove who they
// are.
func (c *Config) door(r *http.Request) pep.Door {
	if !c.takesTokens() {
		return pep.Door{}
	}
	return pep.Door{Metadata: c.reached(r) + resourcePath + r.URL.EscapedPath(), DPoP: identity.ProofAlgorithms()}
}

// plainDoor is what clients of HTTP APIs are told. Only where the configuration
// says where they reach the node is there something to refer them to.
func (c *Config) plainDoor() pep.Door {
	if !c.takesTokens() {
		return pep.Door{}
	}
	d := pep.Door{DPoP: identity.ProofAlgorithms()}
	if c.public() != "" {
		d.Metadata = c.public() + resourcePath
	}
	return d
}

// A protectedResource is what OAuth clients need to know of a resource (RFC
// 9728 §2, MCP 2026-07-28, Authorization).
type protectedResource struct {
	Resource        string   `json:"resource"`
	Name            string   `json:"resource_name"`
	Servers         []string `json:"authorization_servers"`
	Methods         []string `json:"bearer_methods_supported"`
	DPoPAlgorithms  []string `json:"dpop_signing_alg_values_supported"`
	DPoPRequired    bool     `json:"dpop_bound_access_tokens_required,omitempty"`
	ClientBoundMTLS bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
}

// protectedResource answers with the metadata of one of the node's resources:
// the MCP endpoints, the APIs, or the node as a whole.
func (n *Node) protectedResource(w http.ResponseWriter, r *http.Request) {
	c := n.config
	path := strings.TrimPrefix(r.URL.Path, resourcePath)
	known := path == "" || n.Gate != nil && (path == "/mcp" || strings.HasPrefix(path, "/mcp/")) ||
		n.apis != nil && strings.HasPrefix(path, httpgate.Prefix)
	if !known {
		http.NotFound(w, r)
		return
	}
	out := protectedResource{
		Resource: c.reached(r) + (&url.URL{Path: path}).EscapedPath(), Name: "Bailiwick", Methods: []string{"header"},
		DPoPAlgorithms: identity.ProofAlgorithms(), ClientBoundMTLS: c.TLS.ClientCertificates,
		DPoPRequired: !c.TLS.ClientCertificates,
	}
	for _, i := range c.Issuers {
		out.Servers = append(out.Servers, i.Issuer)
		out.DPoPRequired = out.DPoPRequired && i.SenderConstrained
	}
	if len(c.TokenExchange.Audiences) > 0 {
		out.Servers, out.DPoPRequired = append(out.Servers, c.public()), false
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Access-Control-Allow-Origin", "*") // it is for everybody, pages too
	// Nothing in it fails to be JSON, and a client that is gone needs none.
	_ = json.NewEncoder(w).Encode(out)
}
