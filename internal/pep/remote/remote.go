// Package remote is the client of a PDP in another process, for gates.
package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// Config configures a [Decider]. URL and Key are required.
type Config struct {
	// URL is where the PDP is: https, or http on this machine.
	URL string
	// Key proves this gate to the PDP.
	Key string
	// CAFile holds the certificates, in PEM, of who vouches for the PDP. Empty:
	// those of the system.
	CAFile string
	// Timeout bounds one question. Default 5 s.
	Timeout time.Duration
	// Client replaces the connections, and what they trust: CAFile must then be
	// empty. It follows no redirects.
	Client *http.Client
	// Logger is told of outcomes that were lost. Default: nobody is.
	Logger *slog.Logger
}

// A Decider asks a PDP in another process. Whatever goes wrong on the way is a
// denial. It is safe for concurrent use; [Decider.Close] ends it.
type Decider struct {
	base    string
	bearer  []string
	client  *http.Client
	timeout time.Duration
	logger  *slog.Logger
	outbox  *outbox
	holder  string // names this process to the PDP
}

var _ pep.Decider = (*Decider)(nil)

// New returns a Decider. It does not ask the PDP anything yet.
func New(c Config) (*Decider, error) {
	if c.Key == "" || !printable(c.Key) {
		return nil, errors.New("remote: the gate's key is required, in printable ASCII")
	}
	base, err := baseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("remote: the PDP's URL cannot be used: %w", err)
	}
	client, err := newClient(c)
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	d := &Decider{base: base, bearer: []string{"Bearer " + c.Key}, client: client, timeout: c.Timeout, logger: c.Logger, holder: rand.Text()}
	if d.timeout <= 0 {
		d.timeout = 5 * time.Second
	}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	d.outbox = open(d.send)
	return d, nil
}

// Decide implements [pep.Decider]. An allow always has the id of its record.
func (d *Decider) Decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	answer, err := d.decide(ctx, &req)
	if err != nil {
		return authz.Deny(authz.ReasonPDPDown, "The request could not be decided; try again later."), fmt.Errorf("ask PDP: %w", err)
	}
	return answer, nil
}

func (d *Decider) decide(ctx context.Context, req *authz.Request) (authz.Decision, error) {
	question, err := wire.AppendRequest(nil, req)
	if err != nil && req.Credential.Kind == authz.CredentialLocal {
		return authz.Decision{}, fmt.Errorf("write request: %w", err)
	}
	if errors.Is(err, wire.ErrInput) {
		// Not a fault of the plane: no PDP could read it either.
		return authz.Deny(authz.ReasonInputInvalid, "The arguments are not one JSON object without repeated keys."), nil
	}
	if err != nil {
		return authz.Decision{}, fmt.Errorf("write request: %w", err)
	}
	answer, err := d.post(ctx, wire.PathDecide, question, http.StatusOK)
	if err != nil {
		return authz.Decision{}, err
	}
	return wire.ParseDecision(new(ijson.Reader), answer)
}

// Reachable implements [pep.Decider]. With an error nothing is reachable.
func (d *Decider) Reachable(ctx context.Context, req authz.Request, ops []pep.Operation) ([]bool, error) {
	reach, err := d.reachable(ctx, &req, ops)
	if err != nil {
		return make([]bool, len(ops)), fmt.Errorf("ask PDP what is reachable: %w", err)
	}
	return reach, nil
}

func (d *Decider) reachable(ctx context.Context, req *authz.Request, ops []pep.Operation) ([]bool, error) {
	question, err := wire.AppendReachable(nil, req, ops)
	if err != nil {
		return nil, fmt.Errorf("write question: %w", err)
	}
	answer, err := d.post(ctx, wire.PathReachable, question, http.StatusOK)
	if errors.Is(err, statusError(http.StatusForbidden)) {
		err = fmt.Errorf("%w: %w", pep.ErrRefused, err)
	}
	if err != nil {
		return nil, err
	}
	return wire.ParseReach(new(ijson.Reader), answer, len(ops))
}

// Report implements [pep.Decider]. An outcome with what the agent is going to see
// is delivered before Report returns, or the PDP knows that it was not; any
// other one is queued. An outcome that is lost leaves its decision without one,
// which is what an ambiguous outcome looks like.
func (d *Decider) Report(ctx context.Context, out authz.Outcome) error {
	b, err := wire.AppendOutcome(nil, &out)
	if err == nil && len(out.Output) > 0 {
		if _, err = d.post(ctx, wire.PathReport, b, http.StatusNoContent); err == nil {
			return nil
		}
		// That the PDP has not learnt it makes it trust the session less. The
		// outcome itself must not be lost.
		out.Output, out.Cut = nil, true
		b, err = wire.AppendOutcome(nil, &out)
	}
	if err == nil {
		err = d.outbox.put(outcome{decision: out.Decision, text: b})
	}
	if err != nil {
		return fmt.Errorf("report outcome of %s: %w", out.Decision, err)
	}
	return nil
}

// Lease asks the PDP what is suspended: it is a [revoke.Lessor].
func (d *Decider) Lease(ctx context.Context, epoch uint64) (*revoke.Set, time.Duration, error) {
	question, err := wire.AppendLeaseRequest(nil, d.holder, epoch)
	if err != nil {
		return nil, 0, fmt.Errorf("write request for a lease: %w", err)
	}
	answer, err := d.post(ctx, wire.PathLease, question, http.StatusOK)
	if err != nil {
		return nil, 0, fmt.Errorf("ask PDP for a lease: %w", err)
	}
	return wire.ParseLease(new(ijson.Reader), answer)
}

// Close delivers the outcomes that are queued, until ctx ends, and ends the
// Decider. It says how many were lost.
func (d *Decider) Close(ctx context.Context) error {
	lost := d.outbox.close(ctx)
	d.client.CloseIdleConnections()
	if lost > 0 {
		return fmt.Errorf("close: %d outcomes were not reported", lost)
	}
	return nil
}
