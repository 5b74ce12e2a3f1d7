package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/httpgate"
	"github.com/bailiwick-dev/bailiwick/internal/sts"
)

// Listen begins to serve the gateway and the decision API over HTTP.
func (n *Node) Listen() error {
	handler, err := n.handler()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", n.config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w (is another bailiwick running? 'listen' in the configuration changes the address)", err)
	}
	n.listener = l
	if n.telemetry != nil {
		handler = n.telemetry.Middleware(handler)
	}
	n.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(n.logger.Handler(), slog.LevelWarn),
	}
	n.served = make(chan error, 3)
	if n.server.TLSConfig, err = n.tls("h2", "http/1.1"); err != nil {
		return err
	}
	if err := n.listenEnvoy(); err != nil {
		return err
	}
	if err := n.listenMetrics(); err != nil {
		return err
	}
	if n.server.TLSConfig != nil {
		l = tls.NewListener(l, n.server.TLSConfig)
	}
	go func() { n.served <- n.server.Serve(l) }()
	return nil
}

// tls is how to speak TLS, or nil if that is not wanted.
func (n *Node) tls(protocols ...string) (*tls.Config, error) {
	if n.config.TLS.Cert == "" {
		return nil, nil
	}
	c := &certificate{TLS: n.config.TLS}
	if _, err := c.get(nil); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: protocols}
	if n.config.TLS.ClientCertificates {
		// Whether it proves anybody is for the PDP to say, which may know it by its
		// digest or by a token that is bound to it. TLS proves that the client holds
		// its key.
		t.ClientAuth = tls.RequestClientCert
	}
	return t, nil
}

// handler is everything that is served on the one address.
func (n *Node) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	if n.PDP != nil {
		decisions, err := api.New(api.Config{
			Decider: n.PDP, Identifier: n.config.PublicURL, AccessRequests: n.config.AccessRequests, Logger: n.logger,
		})
		if err != nil {
			return nil, err
		}
		for _, path := range []string{"/access/v1/", "/bailiwick/v1/", "/.well-known/authzen-configuration", "/.well-known/authzen-configuration/"} {
			mux.Handle(path, decisions)
		}
	}
	if n.Gate != nil {
		mux.Handle("/mcp", n.Gate)
		mux.Handle("/mcp/", n.Gate)
	}
	if n.exchange != nil {
		for _, path := range []string{sts.TokenPath, sts.KeysPath, sts.MetadataPath} {
			mux.Handle(path, n.exchange)
		}
	}
	if n.config.takesTokens() {
		mux.HandleFunc("GET "+resourcePath, n.protectedResource)
		mux.HandleFunc("GET "+resourcePath+"/", n.protectedResource)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", n.ready)
	// A multiplexer cleans paths, and what is decided about is the path as it is.
	raw := map[string]http.Handler{}
	if n.apis != nil {
		raw[httpgate.Prefix] = n.apis
	}
	if n.gateways != nil {
		raw[extauthz.EnvoyPrefix], raw[extauthz.NginxPrefix], raw[extauthz.ForwardPrefix] = n.gateways, n.gateways, n.gateways
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for prefix, h := range raw {
			if strings.HasPrefix(r.RequestURI, prefix) {
				h.ServeHTTP(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// ready says whether a decision could be recorded and a policy is in force.
func (n *Node) ready(w http.ResponseWriter, _ *http.Request) {
	if err := n.health(); err != nil {
		http.Error(w, authz.ReasonAuditDown, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// health says why nothing can be released now. A gate of another PDP learns
// that from each question.
func (n *Node) health() error {
	if n.log == nil {
		return nil
	}
	return n.log.Health()
}

// Addr is the address that the node listens on.
func (n *Node) Addr() string { return n.listener.Addr().String() }

// URL is where the node is reached from this machine.
func (n *Node) URL() string {
	if n.config.TLS.Cert != "" {
		return "https://" + n.Addr()
	}
	return "http://" + n.Addr()
}

// A certificate is read again when its file has changed, so that a renewed one
// needs no restart.
type certificate struct {
	TLS

	mu     sync.Mutex
	looked time.Time // when the file was last looked at
	stamp  time.Time // of the file that was read
	pair   *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair != nil && time.Since(c.looked) < time.Second {
		return c.pair, nil
	}
	c.looked = time.Now()
	info, err := os.Stat(c.Cert)
	if err == nil && (c.pair == nil || !info.ModTime().Equal(c.stamp)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.Cert, c.Key); err == nil {
			c.pair, c.stamp = &pair, info.ModTime()
		}
	}
	if c.pair == nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return c.pair, nil // what was read last holds while its file is being replaced
}
