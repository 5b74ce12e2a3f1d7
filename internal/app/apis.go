package app

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
)

// document reads the API's OpenAPI document.
func (a API) document() (*openapi.Document, error) {
	text, err := os.ReadFile(a.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	doc, err := openapi.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.OpenAPI, err)
	}
	return doc, nil
}

// openAPIs prepares the gates before HTTP APIs. What it reads is read once: a
// document that changes takes effect at the next start, and what has changed in
// it must be pinned first.
func (n *Node) openAPIs() error {
	var own []httpgate.API
	var all []extauthz.API
	for _, name := range slices.Sorted(maps.Keys(n.config.APIs)) {
		a := n.config.APIs[name]
		doc, err := a.document()
		if err != nil {
			return fmt.Errorf("API %s: %w", name, err)
		}
		for _, p := range doc.Problems() {
			n.logger.Warn("a part of an API cannot be used; it is denied", "api", name, "problem", p.String())
		}
		all = append(all, extauthz.API{Name: name, Router: doc.Router(), Hosts: a.Hosts, Prefix: a.Prefix})
		if a.URL == "" {
			continue
		}
		behind, err := a.behind(name, doc)
		if err != nil {
			return fmt.Errorf("API %s: %w", name, err)
		}
		own = append(own, behind)
	}
	var err error
	if len(all) > 0 {
		n.gateways, err = extauthz.New(extauthz.Config{
			Decider: n.decider, APIs: all, Logger: n.logger, Peers: n.config.ExtAuthz.Peers, Health: n.health,
			Door: n.config.plainDoor(),
		})
	} else if n.config.ExtAuthz.Listen != "" {
		err = errors.New("ext_authz: there is no API that Envoy could ask about: see apis")
	}
	if err == nil && len(own) > 0 {
		n.apis, err = httpgate.New(httpgate.Config{
			Decider: n.decider, Watch: n.watch, APIs: own, Logger: n.logger, Public: n.config.public(), Door: n.config.plainDoor(),
		})
	}
	return err
}

// behind is the API as it is reached through the gateway.
func (a API) behind(name string, doc *openapi.Document) (httpgate.API, error) {
	u, err := url.Parse(a.URL)
	if err != nil {
		return httpgate.API{}, fmt.Errorf("url: %w", err)
	}
	out := httpgate.API{Name: name, URL: u, Document: doc}
	if a.CredentialFile == "" {
		return out, nil
	}
	secret, err := os.ReadFile(a.CredentialFile)
	if err != nil {
		return httpgate.API{}, fmt.Errorf("read credential: %w", err)
	}
	value := strings.TrimSpace(string(secret))
	if value == "" {
		return httpgate.API{}, fmt.Errorf("%s holds no credential", a.CredentialFile)
	}
	out.Credential = httpgate.Credential{Header: a.Header, Value: value}
	return out, nil
}

// listenEnvoy begins to answer Envoy over gRPC, if it is to.
func (n *Node) listenEnvoy() error {
	if n.gateways == nil || n.config.ExtAuthz.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", n.config.ExtAuthz.Listen)
	if err != nil {
		return fmt.Errorf("listen for Envoy: %w", err)
	}
	secure, err := n.tls("h2")
	if err != nil {
		return errors.Join(err, l.Close())
	}
	var options []grpc.ServerOption
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
	}
	n.envoy = grpc.NewServer(append(options, grpc.MaxRecvMsgSize(16<<20), grpc.ConnectionTimeout(10*time.Second))...)
	n.gateways.Register(n.envoy)
	go func() {
		if err := n.envoy.Serve(l); err != nil {
			n.served <- fmt.Errorf("serve ext_authz: %w", err)
		}
	}()
	return nil
}
