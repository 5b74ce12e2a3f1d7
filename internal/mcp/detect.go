package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Bounds of a look at a server.
const (
	probeTimeout = 10 * time.Second // a legacy server may never answer the probe
	maxPages     = 1000
	maxListBytes = 64 << 20
)

// Detect finds out which era a server speaks, and returns its discover or
// initialize result. A server that speaks both counts as modern. It uses a
// connection of its own, so a server with a command is started and stopped.
// The ctx should have a deadline.
func Detect(ctx context.Context, s Server) (Era, json.RawMessage, error) {
	p, err := negotiate(ctx, s)
	if err != nil {
		return Legacy, nil, fmt.Errorf("detect the protocol of %q: %w", s.Name, err)
	}
	// The answer is there; how the server takes the end does not change it.
	_ = p.conn.Close()
	return p.era, p.hello, nil
}

// ListTools returns every tool of a server, verbatim and in the server's
// order, whichever era it speaks. It follows cursors, within bounds of pages
// and bytes. The ctx should have a deadline.
func ListTools(ctx context.Context, s Server) ([]json.RawMessage, error) {
	p, err := negotiate(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("list the tools of %q: %w", s.Name, err)
	}
	// See Detect.
	defer func() { _ = p.conn.Close() }()
	tools, err := p.listTools(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the tools of %q: %w", s.Name, err)
	}
	return tools, nil
}

// A peer is a server that we speak to for ourselves.
type peer struct {
	conn  *Conn
	era   Era
	hello json.RawMessage
}

// negotiate probes with server/discover and falls back to initialize, as the
// protocol asks clients of both eras to do (MCP 2026-07-28, Versioning).
func negotiate(ctx context.Context, s Server) (*peer, error) {
	c, err := dialPeer(ctx, s, Modern)
	if err != nil {
		return nil, err
	}
	hello, err := discover(ctx, c)
	if err == nil {
		return &peer{conn: c, era: Modern, hello: hello}, nil
	}
	if !errors.Is(err, errLegacy) {
		_ = c.Close() // the first error is the one to tell
		return nil, err
	}
	// Over HTTP the headers depend on the era; and a process that has not
	// survived the probe deserves a second chance.
	if s.URL != "" || c.Err() != nil {
		_ = c.Close() // it held no session
		if c, err = dialPeer(ctx, s, Legacy); err != nil {
			return nil, err
		}
	}
	hello, err = initialize(ctx, c)
	if err != nil {
		_ = c.Close() // the first error is the one to tell
		return nil, err
	}
	return &peer{conn: c, era: Legacy, hello: hello}, nil
}

// dialPeer connects, offers nothing, and answers what the server asks all the
// same: a ping must be answered, and the rest refused.
func dialPeer(ctx context.Context, s Server, era Era) (*Conn, error) {
	var c *Conn
	ready := make(chan struct{})
	defer close(ready)
	conn, err := Dial(ctx, s, era, func(m *Message) {
		<-ready
		if !m.IsRequest() || c == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
		defer cancel()
		answer := NewError(m.ID(), CodeMethodNotFound, "this client offers nothing", nil)
		if m.Method() == "ping" {
			answer = NewResult(m.ID(), nil)
		}
		// A server that does not take the answer has to do without it.
		_ = c.Send(ctx, answer)
	})
	c = conn
	return conn, err
}

// errLegacy: the server is not one of the modern era.
var errLegacy = errors.New("the server speaks no modern version")

// discover returns what a modern server says of itself, or errLegacy.
func discover(ctx context.Context, c *Conn) (json.RawMessage, error) {
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r, err := c.Call(probe, NewRequest(json.RawMessage("1"), "server/discover", modernParams("")), CallOptions{})
	var status *StatusError
	switch {
	case err == nil:
	case errors.Is(err, ErrNotSent), ctx.Err() != nil:
		return nil, err
	case errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden):
		return nil, err // initialize would be refused just so
	default:
		return nil, errLegacy
	}
	if r.Message.Error() != nil {
		return nil, discoverError(r.Message)
	}
	versions, _ := Get(r.Message.Result(), "supportedVersions")
	return r.Message.Result(), commonEra(versions)
}

// discoverError tells a modern server's refusal from a legacy one's confusion.
func discoverError(m *Message) error {
	switch code, _ := Get(m.Error(), "code"); string(code) {
	case "-32022":
		versions, _ := Get(m.Error(), "data", "supported")
		if err := commonEra(versions); err != nil {
			return err
		}
		return fault(m)
	case "-32020", "-32021":
		return fault(m)
	default:
		return errLegacy
	}
}

// commonEra returns nil if a list of versions has the modern one, errLegacy if
// it has a legacy one, and another error if it has neither.
func commonEra(versions json.RawMessage) error {
	var list []string
	err := elements(versions, func(v []byte) error {
		s, _ := unquote(v)
		list = append(list, s)
		return nil
	})
	if err != nil {
		return errLegacy // a modern server would have named its versions
	}
	legacy := false
	for _, v := range list {
		if v == ModernVersion {
			return nil
		}
		legacy = legacy || isLegacyVersion(v)
	}
	if legacy {
		return errLegacy
	}
	return fmt.Errorf("the server speaks none of the versions that we do (%s, %s)", ModernVersion, LegacyVersion)
}

// initialize shakes hands with a legacy server.
func initialize(ctx context.Context, c *Conn) (json.RawMessage, error) {
	params := json.RawMessage(`{"protocolVersion":"` + LegacyVersion + `","capabilities":{},"clientInfo":` + clientInfo + `}`)
	r, err := c.Call(ctx, NewRequest(json.RawMessage("1"), methodInitialize, params), CallOptions{})
	if err != nil {
		return nil, err
	}
	if r.Message.Error() != nil {
		return nil, fault(r.Message)
	}
	if v := GetString(r.Message.Result(), "protocolVersion"); !isLegacyVersion(v) {
		return nil, fmt.Errorf("the server chose protocol version %.32q, which we do not speak", v)
	}
	return r.Message.Result(), c.Send(ctx, NewNotification(methodInitialized, nil))
}

func (p *peer) listTools(ctx context.Context) ([]json.RawMessage, error) {
	var tools []json.RawMessage
	var size int
	seen := map[string]bool{}
	for cursor := ""; len(seen) < maxPages; {
		seen[cursor] = true
		page, err := p.list(ctx, "tools/list", cursor)
		if err != nil || page == nil {
			return tools, err
		}
		if size += len(page); size > maxListBytes {
			return nil, fmt.Errorf("the list is longer than %d bytes", maxListBytes)
		}
		list, _ := Get(page, "tools")
		err = elements(list, func(tool []byte) error {
			if kind(tool) != '{' {
				return errors.New("a tool is not an object")
			}
			tools = append(tools, tool)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the list: %w", err)
		}
		if cursor = GetString(page, "nextCursor"); cursor == "" {
			return tools, nil
		}
		if seen[cursor] {
			return nil, errors.New("the list comes back to a page that it has had")
		}
	}
	return nil, fmt.Errorf("the list has more than %d pages", maxPages)
}

// list fetches one page, or nil if the server does not know the method.
func (p *peer) list(ctx context.Context, method, cursor string) (json.RawMessage, error) {
	r, err := p.conn.Call(ctx, NewRequest(json.RawMessage("1"), method, p.params(cursor)), CallOptions{})
	if err != nil {
		return nil, err
	}
	if r.Message.Error() == nil {
		return r.Message.Result(), nil
	}
	if code, _ := Get(r.Message.Error(), "code"); string(code) == "-32601" {
		return nil, nil
	}
	return nil, fault(r.Message)
}

func (p *peer) params(cursor string) json.RawMessage {
	if p.era == Modern {
		return modernParams(cursor)
	}
	if cursor == "" {
		return json.RawMessage("{}")
	}
	return json.RawMessage(`{"cursor":` + string(quote(cursor)) + `}`)
}

// clientInfo names us where we speak for ourselves.
const clientInfo = `{"name":"bailiwick","version":"1"}`

func modernParams(cursor string) json.RawMessage {
	p := `{"_meta":{"` + MetaProtocolVersion + `":"` + ModernVersion + `","` +
		MetaClientInfo + `":` + clientInfo + `,"` + MetaClientCapabilities + `":{}}`
	if cursor != "" {
		p += `,"cursor":` + string(quote(cursor))
	}
	return json.RawMessage(p + "}")
}

// fault returns the error of a response as a Go error. The text is the
// server's, so it is quoted and cut.
func fault(m *Message) error {
	code, _ := Get(m.Error(), "code")
	return fmt.Errorf("the server answered with error %.16s: %.200q", code, GetString(m.Error(), "message"))
}
