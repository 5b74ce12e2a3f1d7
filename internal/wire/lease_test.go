package wire_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// A lease arrives as it was granted, but for who suspended something and why.
func TestLeasesArrive(t *testing.T) {
	var r ijson.Reader
	b, err := wire.AppendLeaseRequest(nil, "holder-1", 7)
	if err != nil {
		t.Fatal(err)
	}
	if holder, epoch, err := wire.ParseLeaseRequest(&r, b); err != nil || holder != "holder-1" || epoch != 7 {
		t.Errorf("%s: %q, %d, %v", b, holder, epoch, err)
	}
	list := []revoke.Suspension{
		{Entity: authz.Entity{Type: revoke.KindAgent, ID: "a \"b\""}, By: "ann", Reason: "secret"},
		{Entity: authz.Entity{Type: revoke.KindAll}, By: "ann", Reason: "secret"},
	}
	set, err := revoke.NewSet(9, list)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = wire.AppendLease(nil, set, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	got, term, err := wire.ParseLease(&r, b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		list[i].By, list[i].Reason = "", ""
	}
	if diff := cmp.Diff(list, got.List()); diff != "" || got.Epoch() != 9 || term != 5*time.Second {
		t.Errorf("epoch %d, term %v (-want +got):\n%s", got.Epoch(), term, diff)
	}
}

// What is no lease is an error, so that the gate goes on knowing nothing.
func TestWhatIsNoLease(t *testing.T) {
	var r ijson.Reader
	for _, text := range []string{
		``, `{}`, `[]`, `{"epoch":1}`, `{"epoch":0,"term_ms":5000}`, `{"epoch":1,"term_ms":0}`, `{"epoch":-1,"term_ms":5000}`,
		`{"epoch":1,"term_ms":5000,"suspended":[{"type":"planet","id":"x"}]}`, `{"epoch":1,"term_ms":5000,"suspended":[{"type":"agent"}]}`,
		`{"epoch":1,"term_ms":5000,"more":1}`, `{"epoch":1,"term_ms":5000,"suspended":{}}`, `{"epoch":1,"epoch":2,"term_ms":5000}`,
	} {
		if set, _, err := wire.ParseLease(&r, []byte(text)); err == nil || set != nil {
			t.Errorf("%s is a lease: %v", text, set)
		}
	}
	for _, text := range []string{``, `{}`, `{"holder":""}`, `{"holder":"h","epoch":"x"}`, `{"holder":"h","more":1}`} {
		if holder, _, err := wire.ParseLeaseRequest(&r, []byte(text)); err == nil {
			t.Errorf("%s is a request: %q", text, holder)
		}
	}
}
