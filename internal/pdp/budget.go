package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"slices"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/budget"
)

// reserve reserves what the action may use up. When it cannot, it returns the
// denial's reason.
func (c *inquiry) reserve() (authz.Reason, error) {
	if c.p.Budgets == nil || slices.Contains(c.op.Effects, discover) {
		return authz.Reason{}, nil
	}
	var arguments map[string]json.RawMessage
	r, err := c.p.Budgets.Reserve(budget.Call{
		Session: c.session, Agent: owner(c.who.Subject), Owner: c.who.For, Action: c.op.Action,
		Number: func(argument string) (int64, bool, error) {
			if arguments == nil && len(c.req.Input) > 0 {
				if err := json.Unmarshal(c.req.Input, &arguments); err != nil {
					return 0, false, err
				}
			}
			text, given := arguments[argument]
			if !given || string(text) == "null" {
				return 0, false, nil
			}
			n, err := whole(text)
			return n, true, err
		},
	}, c.now)
	var exhausted *budget.Exhausted
	switch {
	case err == nil:
		c.reserved = r
		c.why.Spends = spends(r)
		return authz.Reason{}, nil
	case errors.As(err, &exhausted):
		return authz.Reason{Code: authz.ReasonBudgetExhausted, Message: sentence(exhausted)}, nil
	case errors.Is(err, budget.ErrUncountable):
		return authz.Reason{Code: authz.ReasonInputInvalid, Message: sentence(err)}, nil
	default:
		return authz.Reason{Code: authz.ReasonBudgetDown, Message: "What was used up could not be counted; try again later."}, err
	}
}

// unaffordable denies what there is no budget for.
func (c *inquiry) unaffordable(ctx context.Context, why authz.Reason, fault error) (authz.Decision, error) {
	if fault != nil {
		return c.deny(ctx, why.Code, why.Message, fault)
	}
	return c.withhold(ctx, why.Code, why.Message)
}

// whole is a number of JSON as a whole one, a fraction counted as one more.
func whole(text json.RawMessage) (int64, error) {
	if len(text) > 64 {
		return 0, errors.New("the number is too long")
	}
	var n json.Number
	if err := json.Unmarshal(text, &n); err != nil {
		return 0, errors.New("it is no number")
	}
	f, _, err := big.ParseFloat(n.String(), 10, 256, big.ToPositiveInf)
	if err != nil {
		return 0, errors.New("it is no number that can be counted")
	}
	if f.Cmp(big.NewFloat(math.MaxInt64)) >= 0 || f.Cmp(big.NewFloat(math.MinInt64)) <= 0 {
		return 0, errors.New("it is too large")
	}
	i, exact := f.Int64()
	if exact == big.Below {
		i++
	}
	return i, nil
}

func spends(r *budget.Reservation) []audit.Spend {
	if r == nil {
		return nil
	}
	list := make([]audit.Spend, len(r.Spends))
	for i, s := range r.Spends {
		list[i] = audit.Spend(s)
	}
	return list
}

// ReplayBudgets lets budgets catch up with one record of the evidence.
func ReplayBudgets(l *budget.Ledger, index uint64, r audit.Record) {
	switch {
	case r.Kind == audit.KindDecision && r.Why != nil && r.Why.Released && len(r.Why.Spends) > 0:
		o := budget.Open{Decision: r.Decision, Time: r.Time}
		for _, s := range r.Why.Spends {
			o.Spends = append(o.Spends, budget.Spend(s))
		}
		l.Replay(index, o, r.Why.Advised)
	case r.Kind == audit.KindOutcome && r.Outcome != nil:
		settle(l, r.Decision, r.Outcome.Status, r.Outcome.Bytes)
	}
}

func settle(l *budget.Ledger, decision string, status authz.OutcomeStatus, bytes int64) {
	known := status == authz.OutcomeSuccess || status == authz.OutcomeError
	l.Settle(decision, status != authz.OutcomeNotRun, known, bytes)
}
