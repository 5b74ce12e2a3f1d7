package remote

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
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// Bounds of a conversation with a PDP.
const (
	maxAnswer   = 1 << 20
	maxLease    = 8 << 20 // ten thousand suspensions
	dialTimeout = 3 * time.Second
	// idleFor is shorter than our server keeps a connection, so that a question
	// does not meet its end.
	idleFor = 60 * time.Second
)

// baseURL checks where the PDP is. Keys and decisions do not cross a network
// in the clear.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", errors.New("it cannot be parsed")
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("it must have a host, and no user, query or fragment")
	case u.Scheme == "http" && !onThisMachine(u.Hostname()):
		return "", errors.New("it must be https: http is for this machine only")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("it must be https")
	}
	return strings.TrimSuffix(s, "/"), nil
}

func onThisMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// printable reports whether a header may have the value.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// newClient returns a client that follows no redirect: one would carry key and
// credentials to wherever the answer says.
func newClient(c Config) (*http.Client, error) {
	client := &http.Client{}
	switch {
	case c.Client != nil && c.CAFile != "":
		return nil, errors.New("a client and a CA file exclude each other")
	case c.Client != nil:
		*client = *c.Client
	default:
		roots, err := roots(c.CAFile)
		if err != nil {
			return nil, err
		}
		client.Transport = transport(roots)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, nil
}

func roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the PDP's certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read the PDP's certificate authorities: no certificate in %s", file)
	}
	return pool, nil
}

// transport keeps connections for as many questions as a busy gate has at
// once. Decisions are small and many: HTTP/1.1 answers them soonest.
func transport(roots *x509.CertPool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Protocols:              &protocols,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        idleFor,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}

// A statusError is an answer that is none.
type statusError int

func (s statusError) Error() string { return "the PDP answered with status " + strconv.Itoa(int(s)) }

// passing reports whether the same may be answered another time.
func (s statusError) passing() bool { return s == http.StatusTooManyRequests || s >= 500 }

// post sends a message and returns the answer, which must have a certain
// status, all within the timeout.
func (d *Decider) post(ctx context.Context, path string, body []byte, status int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header["Authorization"] = d.bearer
	req.Header["Content-Type"] = []string{"application/json"}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	most := maxAnswer
	if path == wire.PathLease {
		most = maxLease
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	switch {
	case ctx.Err() != nil:
		// What came while the connection was being closed may look whole.
		return nil, fmt.Errorf("read answer: %w", context.Cause(ctx))
	case resp.StatusCode != status:
		return nil, statusError(resp.StatusCode)
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case len(answer) > most:
		return nil, errors.New("read answer: it is too large")
	}
	return answer, nil
}
