package pdp_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/pdp"
)

// unrecorded takes every record for durable: what the pipeline costs apart
// from it.
type unrecorded struct{}

func (unrecorded) Append(context.Context, audit.Record) (audit.Receipt, error) {
	return audit.Receipt{}, nil
}
func (unrecorded) Post(audit.Record) error { return nil }

// BenchmarkDecide is one decision, all of it but the record.
func BenchmarkDecide(b *testing.B) {
	b.Run("application", func(b *testing.B) {
		p, _ := newRecords(b, func(c *pdp.Config) { c.Log, c.Now = unrecorded{}, nil })
		req := p.asks("records", "user/bob", "write", "record/record-2")
		benchmark(b, p, req)
	})
	b.Run("denied", func(b *testing.B) {
		p, _ := newRecords(b, func(c *pdp.Config) { c.Log, c.Now = unrecorded{}, nil })
		benchmark(b, p, p.asks("records", "user/bob", "write", "record/record-1"))
	})
	b.Run("tool", func(b *testing.B) {
		p := withPEPs(b, newDirectory(b, nil, nil), version(b, policies), func(c *pdp.Config) { c.Log, c.Now = unrecorded{}, nil })
		req := p.request("clerk", "bank/send_money", "")
		req.Input = json.RawMessage(`{"to":"bob","cents":5}`)
		benchmark(b, p, req)
	})
}

func benchmark(b *testing.B, p *plane, req authz.Request) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
