package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// probePause is how long a failed probe is believed.
const probePause = 2 * time.Second

// An upstream is one server behind the gate, and what is known about it.
type upstream struct {
	gate   *Gate
	server mcp.Server

	probing sync.Mutex // held while finding out, so that one caller does it for all
	mu      sync.Mutex
	shared  *modernLink // the one conversation of all modern clients with a modern HTTP server
	legacy  bool        // it does not speak the modern era
	failed  error       // why the last probe failed
	next    time.Time   // when to probe again
}

func newUpstream(g *Gate, s mcp.Server) *upstream { return &upstream{gate: g, server: s} }

func (up *upstream) name() string { return up.server.Name }

// stdio reports whether a conversation with the server is a process.
func (up *upstream) stdio() bool { return up.server.Command != "" }

// modern returns the conversation that modern clients share with a modern HTTP
// server, or nil if the server is not one. The protocol has no state between
// requests in this era, so there is nothing to keep apart.
func (up *upstream) modern(ctx context.Context) (*modernLink, error) {
	if l, known, err := up.known(); known {
		return l, err
	}
	up.probing.Lock()
	defer up.probing.Unlock()
	if l, known, err := up.known(); known {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, up.gate.limits.Connect)
	defer cancel()
	l, err := up.probe(ctx)
	up.mu.Lock()
	defer up.mu.Unlock()
	up.shared, up.legacy, up.failed, up.next = nil, false, nil, time.Now().Add(probePause)
	switch {
	case err == nil:
		up.shared = l
	case errors.Is(err, errNotModern):
		up.legacy = true
		return nil, nil
	case ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded):
		up.failed = err
	}
	return l, err
}

func (up *upstream) known() (l *modernLink, known bool, err error) {
	up.mu.Lock()
	defer up.mu.Unlock()
	switch {
	case up.shared != nil && up.shared.wire.alive():
		return up.shared, true, nil
	case up.legacy:
		return nil, true, nil
	case up.failed != nil && time.Now().Before(up.next):
		return nil, true, up.failed
	}
	return nil, false, nil
}

// forget makes the next client find out anew what the server speaks: it has
// not behaved as it did.
func (up *upstream) forget() {
	up.mu.Lock()
	defer up.mu.Unlock()
	up.legacy, up.failed = false, nil
}

var errNotModern = errors.New("the server does not speak the modern era")

// probe asks a server what it speaks and keeps the conversation if that is the
// modern era.
func (up *upstream) probe(ctx context.Context) (*modernLink, error) {
	l, err := up.dialModern(up.gate.life)
	if err != nil {
		return nil, err
	}
	if err := l.discover(ctx, ownMeta(nil, nil)); err != nil {
		l.wire.close()
		return nil, err
	}
	return l, nil
}

// discover asks the server about itself. [errNotModern] means that the server
// has answered as one of the other era does.
func (l *modernLink) discover(ctx context.Context, params []byte) error {
	rep, err := l.wire.own(ctx, mcp.NewRequest([]byte("0"), methodDiscover, params))
	var status *mcp.StatusError
	switch {
	case errors.Is(err, mcp.ErrNotSent):
		return err
	case errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden):
		return fmt.Errorf("%w: %w", mcp.ErrNotSent, err) // the other era would be refused as well
	case err != nil && ctx.Err() != nil && !l.wire.up.stdio():
		return fmt.Errorf("discover %s: %w: %w", l.wire.up.name(), mcp.ErrNotSent, err)
	case err != nil:
		// A legacy server may hang up on, or never answer, what it does not know.
		return fmt.Errorf("%w: %w", errNotModern, err)
	case rep.msg.Error() != nil:
		return errNotModern
	}
	l.wire.desc = describeDiscover(rep.msg.Result())
	if !slices.Contains(l.wire.desc.versions, mcp.ModernVersion) {
		return errNotModern
	}
	return nil
}

func (up *upstream) close() {
	up.mu.Lock()
	l := up.shared
	up.shared = nil
	up.mu.Unlock()
	if l != nil {
		l.wire.close()
	}
}

// isLegacy reports whether the server is known not to speak the modern era.
func (up *upstream) isLegacy() bool {
	up.mu.Lock()
	defer up.mu.Unlock()
	return up.legacy
}

func (up *upstream) setLegacy() {
	up.mu.Lock()
	defer up.mu.Unlock()
	up.legacy = true
}
