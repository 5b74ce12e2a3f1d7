package app

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/breaker"
)

// A Breaker is a circuit breaker that is not closed.
type Breaker = breaker.Standing

// breakerChanged puts a breaker's change of state on the record.
func (n *Node) breakerChanged(c breaker.Change) {
	text, err := json.Marshal(c)
	if err == nil {
		err = n.log.Post(audit.Record{Kind: audit.KindSystem, Time: time.Now(), Effect: "breaker_" + string(c.To), System: text})
	}
	n.logger.Warn("a circuit breaker has changed its state", "agent", c.Agent, "tool", c.Tool, "server", c.Server, "state", string(c.To))
	if err != nil {
		n.logger.Error("the change of a circuit breaker was not recorded", "error", err)
	}
}

// ListBreakers returns the breakers of the running node that are not closed.
func ListBreakers(ctx context.Context, c *Config) ([]Breaker, error) {
	list := []Breaker{}
	err := command(ctx, c.Data, http.MethodGet, "/breakers", &list)
	if errors.Is(err, errNotRunning) {
		return list, errors.New("nothing is running, and breakers are closed at a start")
	}
	return list, err
}
