package demo

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A Mail is one message.
type Mail struct {
	ID      string `json:"id"`
	From    string `json:"from"`
	To      string `json:"to"`
	Subject string `json:"subject"`
	Body    string `json:"body"`
}

// A Mailbox is the state of the mail server. It is safe for concurrent use.
type Mailbox struct {
	mu     sync.Mutex
	inbox  []Mail
	sent   []Mail
	nextID int
}

// Inbox returns a copy of the mails that have come in and not been deleted.
func (m *Mailbox) Inbox() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.inbox)
}

// Sent returns a copy of the mails that have gone out.
func (m *Mailbox) Sent() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sent)
}

type headline struct {
	ID      string `json:"id"`
	From    string `json:"from"`
	Subject string `json:"subject"`
}

type headlines struct {
	Mails []headline `json:"mails" jsonschema:"oldest first"`
}

type mailID struct {
	ID string `json:"id" jsonschema:"the mail's id, from list_mails"`
}

type draft struct {
	To      string `json:"to" jsonschema:"one mail address"`
	Subject string `json:"subject"`
	Body    string `json:"body"`
}

func (m *Mailbox) server() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "demo-mailbox", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "list_mails",
		Description: "Lists sender and subject of every mail in the inbox.",
		Annotations: readOnly(),
	}, m.list)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "read_mail",
		Description: "Returns one mail with its text.",
		Annotations: readOnly(),
	}, m.read)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "send_mail",
		Description: "Sends a mail.",
		Annotations: &mcp.ToolAnnotations{DestructiveHint: new(false)},
	}, m.send)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "delete_mail",
		Description: "Deletes a mail for good.",
		Annotations: &mcp.ToolAnnotations{DestructiveHint: new(true), OpenWorldHint: new(false)},
	}, m.delete)
	return s
}

func readOnly() *mcp.ToolAnnotations {
	return &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: new(false)}
}

func (m *Mailbox) list(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, headlines, error) {
	out := headlines{Mails: []headline{}}
	for _, mail := range m.Inbox() {
		out.Mails = append(out.Mails, headline{ID: mail.ID, From: mail.From, Subject: mail.Subject})
	}
	return nil, out, nil
}

func (m *Mailbox) read(_ context.Context, _ *mcp.CallToolRequest, in mailID) (*mcp.CallToolResult, Mail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(in.ID)
	if err != nil {
		return nil, Mail{}, err
	}
	return nil, m.inbox[i], nil
}

func (m *Mailbox) send(_ context.Context, _ *mcp.CallToolRequest, in draft) (*mcp.CallToolResult, mailID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nextID++
	mail := Mail{
		ID:      fmt.Sprintf("s-%d", m.nextID),
		From:    Owner,
		To:      in.To,
		Subject: in.Subject,
		Body:    in.Body,
	}
	m.sent = append(m.sent, mail)
	return nil, mailID{ID: mail.ID}, nil
}

func (m *Mailbox) delete(_ context.Context, _ *mcp.CallToolRequest, in mailID) (*mcp.CallToolResult, mailID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(in.ID)
	if err != nil {
		return nil, mailID{}, err
	}
	m.inbox = slices.Delete(m.inbox, i, i+1)
	return nil, in, nil
}

// find returns the index of a mail in the inbox. The caller holds m.mu.
func (m *Mailbox) find(id string) (int, error) {
	i := slices.IndexFunc(m.inbox, func(mail Mail) bool { return mail.ID == id })
	if i < 0 {
		return 0, fmt.Errorf("there is no mail %q: list_mails gives the ids", id)
	}
	return i, nil
}
