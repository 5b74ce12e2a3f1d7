package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A Payment is money that has left the account.
type Payment struct {
	ID          string `json:"id"`
	Recipient   string `json:"recipient" jsonschema:"the account that got the money"`
	AmountCents int64  `json:"amount_cents"`
	Reference   string `json:"reference"`
}

// A Bank is the state of the bank server: one account. It is safe for
// concurrent use.
type Bank struct {
	mu       sync.Mutex
	cents    int64
	payments []Payment
}

// Balance returns the account's balance in cents.
func (b *Bank) Balance() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cents
}

// Payments returns a copy of the payments made, oldest first.
func (b *Bank) Payments() []Payment {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.payments)
}

type balance struct {
	BalanceCents int64 `json:"balance_cents"`
}

type payments struct {
	Payments []Payment `json:"payments" jsonschema:"oldest first"`
}

type transfer struct {
	Recipient   string `json:"recipient" jsonschema:"the account to pay to"`
	AmountCents int64  `json:"amount_cents" jsonschema:"the amount in cents"`
	Reference   string `json:"reference" jsonschema:"what the payment is for"`
}

func (b *Bank) server() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "demo-bank", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "get_balance",
		Description: "Returns the balance of the account.",
		Annotations: readOnly(),
	}, b.getBalance)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "list_payments",
		Description: "Lists the payments made from the account.",
		Annotations: readOnly(),
	}, b.listPayments)
	mcp.AddTool(s, &mcp.Tool{
		Name:        "send_money",
		Description: "Pays an amount to another account. Cannot be undone.",
		Annotations: &mcp.ToolAnnotations{DestructiveHint: new(false)},
	}, b.sendMoney)
	return s
}

func (b *Bank) getBalance(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, balance, error) {
	return nil, balance{BalanceCents: b.Balance()}, nil
}

func (b *Bank) listPayments(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, payments, error) {
	return nil, payments{Payments: b.Payments()}, nil
}

func (b *Bank) sendMoney(_ context.Context, _ *mcp.CallToolRequest, in transfer) (*mcp.CallToolResult, Payment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case in.AmountCents <= 0:
		return nil, Payment{}, errors.New("amount_cents must be positive")
	case in.AmountCents > b.cents:
		return nil, Payment{}, fmt.Errorf("the account holds only %s", Euros(b.cents))
	}
	p := Payment{
		ID:          fmt.Sprintf("p-%d", len(b.payments)+1),
		Recipient:   in.Recipient,
		AmountCents: in.AmountCents,
		Reference:   in.Reference,
	}
	b.cents -= in.AmountCents
	b.payments = append(b.payments, p)
	return nil, p, nil
}

// Euros renders cents for people: "4,800.00 EUR".
func Euros(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	whole := fmt.Sprint(cents / 100)
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return fmt.Sprintf("%s%s.%02d EUR", sign, whole, cents%100)
}
