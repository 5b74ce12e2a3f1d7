// Package demo is a story with a moral: a mailbox, a bank, and an agent that
// believes what it reads.
//
// The two servers are genuine MCP servers with state. The agent is a script,
// not a model, but what it does follows from what the servers answer: the
// payment that it is tricked into comes out of the text of a mail.
package demo

import (
	"context"
	"fmt"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// The names of the two servers, as operators name upstreams.
const (
	MailboxName = "mailbox"
	BankName    = "bank"
)

// A World is the state that both servers work on. Every World starts equal.
type World struct {
	Mailbox *Mailbox
	Bank    *Bank
}

// NewWorld returns the story's first page.
func NewWorld() *World {
	return &World{Mailbox: newMailbox(), Bank: newBank()}
}

// Server returns the MCP server of that name over w's state, or nil if the
// story has none of that name.
func (w *World) Server(name string) *mcp.Server {
	switch name {
	case MailboxName:
		return w.Mailbox.server()
	case BankName:
		return w.Bank.server()
	default:
		return nil
	}
}

// Handler serves both servers by streamable HTTP, each under "/" and its name.
func (w *World) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, name := range []string{MailboxName, BankName} {
		server := w.Server(name)
		mux.Handle("/"+name, mcp.NewStreamableHTTPHandler(
			func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true}))
	}
	return mux
}

// ServeStdio serves one of the servers on standard input and output until the
// client hangs up or ctx ends.
func (w *World) ServeStdio(ctx context.Context, name string) error {
	server := w.Server(name)
	if server == nil {
		return fmt.Errorf("no demo server %q: there are %s and %s", name, MailboxName, BankName)
	}
	return server.Run(ctx, &mcp.StdioTransport{})
}
