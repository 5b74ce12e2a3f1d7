package telemetry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A collector is a client of one that speaks OTLP over HTTP (OTLP 1.x
// §otlphttp, binary protobuf). It exists because OpenTelemetry's own brings
// gRPC's gateway and reads its settings from the environment.
type collector struct {
	url    string
	header http.Header
	client *http.Client
}

var _ otlptrace.Client = (*collector)(nil)

func newCollector(c TracesConfig) (*collector, error) {
	u, err := endpoint(c.Endpoint, len(c.Headers) > 0)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	roots, err := roots(c.CAFile)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	for name, value := range c.Headers {
		if name == "" || !printable(name) || strings.ContainsAny(name, ": ") || !printable(value) {
			return nil, fmt.Errorf("header %q cannot be sent", name) // never its value
		}
		header.Set(name, value)
	}
	header.Set("Content-Type", "application/x-protobuf")
	return &collector{url: u, header: header, client: &http.Client{
		// A redirect would carry the headers to wherever the answer says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSHandshakeTimeout: 3 * time.Second, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
	}}, nil
}

// endpoint is where traces are posted. A secret does not cross a network in
// the clear.
func endpoint(s string, secret bool) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", errors.New("it cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("it must be http or https")
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("it must have a host, and no user, query or fragment")
	case u.Scheme == "http" && secret && !onThisMachine(u.Hostname()):
		return "", errors.New("it must be https: headers are sent in the clear on this machine only")
	}
	return u.JoinPath("v1", "traces").String(), nil
}

func onThisMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read certificate authorities: no certificate in %s", file)
	}
	return pool, nil
}

// Start does nothing: a connection is made when there is something to send.
func (c *collector) Start(context.Context) error { return nil }

// Stop ends the connections that are idle.
func (c *collector) Stop(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// UploadTraces posts spans once.
func (c *collector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// TracesData has the bytes of an ExportTraceServiceRequest, whose package
	// would bring gRPC.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = c.header.Clone()
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again; if not, a new one is
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answered with status %d", resp.StatusCode)
	}
	return nil
}
