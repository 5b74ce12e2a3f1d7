package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/internal/audit"
)

// Records reads the whole audit log of a deployment, as an auditor does.
func (d *Deployment) Records(t testing.TB) []audit.Record {
	t.Helper()
	text := d.MustRun(t, "audit", "tail", "--lines", "100000000", "--json")
	var all []audit.Record
	for dec := json.NewDecoder(strings.NewReader(text)); ; {
		var r audit.Recorded
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(fmt.Errorf("read the records: %w", err))
		}
		all = append(all, r.Record)
	}
}
