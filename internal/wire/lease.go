package wire

import (
	"fmt"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// PathLease is where a gate asks for a lease on what is suspended.
const PathLease = "/bailiwick/v1/lease"

// AppendLeaseRequest appends a request for a lease: which process asks, and the
// epoch that it has taken over.
func AppendLeaseRequest(b []byte, holder string, epoch uint64) ([]byte, error) {
	w := writer{b: b}
	w.open("")
	w.mustText("holder", holder)
	w.integer("epoch", int64(epoch))
	w.close()
	return w.end()
}

// ParseLeaseRequest reads what AppendLeaseRequest wrote.
func ParseLeaseRequest(r *ijson.Reader, text []byte) (holder string, epoch uint64, err error) {
	f := begin(r, text)
	f.object("the request", func(member string) bool {
		switch member {
		case "holder":
			holder = f.text(member)
		case "epoch":
			epoch = uint64(f.integer(member))
		default:
			return false
		}
		return true
	})
	if holder == "" || len(holder) > 64 {
		f.complain("holder must be 1 to 64 bytes")
	}
	if err := f.end(); err != nil {
		return "", 0, fmt.Errorf("read request for a lease: %w", err)
	}
	return holder, epoch, nil
}

// AppendLease appends a lease. Who suspended something and why stays with the
// PDP.
func AppendLease(b []byte, set *revoke.Set, term time.Duration) ([]byte, error) {
	w := writer{b: b}
	w.open("")
	w.integer("epoch", int64(set.Epoch()))
	w.integer("term_ms", term.Milliseconds())
	list(&w, "suspended", set.List(), func(s revoke.Suspension) {
		w.open("")
		w.mustText("type", s.Type)
		w.text("id", s.ID)
		w.close()
	})
	w.close()
	return w.end()
}

// ParseLease reads what AppendLease wrote. A lease without a term or an epoch is
// an error.
func ParseLease(r *ijson.Reader, text []byte) (*revoke.Set, time.Duration, error) {
	f := begin(r, text)
	var epoch, term int64
	var suspended []revoke.Suspension
	f.object("the lease", func(member string) bool {
		switch member {
		case "epoch":
			epoch = f.integer(member)
		case "term_ms":
			term = f.integer(member)
		case "suspended":
			f.array(member, func() { suspended = append(suspended, revoke.Suspension{Entity: f.entity("suspended")}) })
		default:
			return false
		}
		return true
	})
	if epoch <= 0 || term <= 0 {
		f.complain("epoch and term_ms must be positive")
	}
	if err := f.end(); err != nil {
		return nil, 0, fmt.Errorf("read lease: %w", err)
	}
	set, err := revoke.NewSet(uint64(epoch), suspended)
	if err != nil {
		return nil, 0, fmt.Errorf("read lease: %w", err)
	}
	return set, time.Duration(term) * time.Millisecond, nil
}
