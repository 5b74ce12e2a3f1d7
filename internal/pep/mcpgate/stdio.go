package mcpgate

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// ServeStdio serves one client over a pair of pipes, in either era, until in
// ends, ctx does, or the gate is closed. With one upstream the client sees that
// server as it is, with several all of them as one. The operator who started
// the process says who the agent is.
//
// Requests that are in flight when in ends are still answered. A read of in
// that is pending when ctx ends is left behind; close in to end it.
func (g *Gate) ServeStdio(ctx context.Context, in io.Reader, out io.Writer, agent authz.Credential) error {
	end := g.whole
	if len(g.upstreams) == 1 {
		end = g.endpoints[g.upstreams[0].name()]
	}
	c := &stdioClient{gate: g, pipe: mcp.NewPipe(in, out, g.limits.Body)}
	c.session = newSession(g, end, agent, gateStdio)
	c.session.write = c.write
	defer c.session.close()

	lines := make(chan line)
	go c.read(ctx, lines) // ends with in, or with ctx when a line comes
	for {
		select {
		case l := <-lines:
			if l.err != nil {
				c.session.work.Wait()
				if errors.Is(l.err, io.EOF) {
					return nil
				}
				return fmt.Errorf("read from the client: %w", l.err)
			}
			c.take(l.msg)
		case <-ctx.Done():
			return ctx.Err()
		case <-c.session.life.Done():
			c.session.work.Wait()
			if g.taking.Err() != nil {
				return nil
			}
			return context.Cause(c.session.life)
		case <-g.taking.Done():
			c.session.work.Wait()
			return nil
		}
	}
}

// A stdioClient is the client at the other end of the pipes.
type stdioClient struct {
	gate    *Gate
	pipe    *mcp.Pipe
	session *session
}

type line struct {
	msg *mcp.Message
	err error
}

// read reads messages until there are no more. What is no message is answered
// and skipped.
func (c *stdioClient) read(ctx context.Context, lines chan<- line) {
	for {
		m, err := c.pipe.Read()
		var bad *mcp.SyntaxError
		if errors.As(err, &bad) {
			id := bad.ID
			if id == nil {
				id = []byte("null")
			}
			c.write(mcp.NewError(id, bad.Code, bad.Message, nil))
			continue
		}
		select {
		case lines <- line{m, err}:
		case <-ctx.Done():
			return
		case <-c.session.life.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// take handles one message. Notifications and answers keep their order;
// requests are answered side by side.
func (c *stdioClient) take(m *mcp.Message) {
	s := c.session
	if !m.IsRequest() {
		if !s.take(s.life, m) {
			c.gate.log.Info("message of the client dropped", "method", quote(m.Method()))
		}
		return
	}
	isModern := mcp.GetString(m.Params(), "_meta", mcp.MetaProtocolVersion) >= mcp.ModernVersion
	era := mcp.Legacy
	if isModern {
		era = mcp.Modern
	}
	call, f := s.begin(m, s.as.credential, c.write)
	if f != nil {
		c.write(f.answer(m, era, false).msg)
		return
	}
	ok := c.gate.goDo(func() {
		var a answer
		if isModern {
			a = c.modern(call.ctx, m)
		} else {
			a = call.serve()
		}
		call.end(func() { c.write(a.msg) })
	})
	if !ok {
		call.end(func() {})
	}
}

// modern answers a request of the modern era.
func (c *stdioClient) modern(ctx context.Context, m *mcp.Message) answer {
	if f := checkModern(nil, m); f != nil {
		return f.answer(m, mcp.Modern, false)
	}
	cl := c.gate.modernClient(c.session.as.credential, gateStdio, m)
	// One process is one run, unless the client says otherwise.
	cl.run = "m-" + fingerprint(c.session.as.run, cl.run)
	cl.session, cl.named = cl.run, ""
	return c.gate.answer(ctx, &request{client: cl, end: c.session.end, msg: m, tell: c.write})
}

func (c *stdioClient) write(m *mcp.Message) {
	if err := c.pipe.Write(m); err != nil {
		// A client that does not take its answers is gone; in will end, too.
		c.gate.log.Warn("answer not written", "error", err)
	}
}
