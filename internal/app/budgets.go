package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/budget"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// A Standing is how a budget stands.
type Standing = budget.Standing

func budgetsFile(c *Config) string { return filepath.Join(c.Data, "budgets.db") }

// checkBudgets checks the budgets against the catalogue.
func checkBudgets(c *Config, cat *catalog.Catalog) error {
	err := budget.Check(c.Budgets, func(action, argument string) (exists, number, required bool) {
		op, ok := cat.Operation(action)
		if !ok {
			return false, false, false
		}
		number, required = op.Number(argument)
		return true, number, required
	})
	if err != nil {
		return fmt.Errorf("check budgets: %w", err)
	}
	return nil
}

// openBudgets reads what was used up.
func (n *Node) openBudgets(ctx context.Context) error {
	var err error
	if n.spent, err = store.OpenBudgets(ctx, budgetsFile(n.config)); err != nil {
		return err
	}
	n.budgets, err = budget.Load(ctx, budget.Config{Budgets: n.config.Budgets, Store: n.spent})
	return err
}

// ListBudgets returns how the budgets in use stand: in the running node, or as
// they were saved last.
func ListBudgets(ctx context.Context, c *Config) ([]Standing, error) {
	var list []Standing
	err := command(ctx, c.Data, http.MethodGet, "/budgets", &list)
	if !errors.Is(err, errNotRunning) {
		return list, err
	}
	s, err := store.OpenBudgets(ctx, budgetsFile(c))
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // only read from
	l, err := budget.Load(ctx, budget.Config{Budgets: c.Budgets, Store: s})
	if err != nil {
		return nil, err
	}
	return l.Standings(time.Now()), nil
}
