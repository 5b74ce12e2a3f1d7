package rig

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// A Record is a record of the audit log, as far as the tests look at it.
type Record struct {
	Kind     string
	Decision string
	Effect   string
	Who      struct{ Subject authz.Entity }
	What     struct{ Action string }
	Why      struct {
		Released bool
		Reasons  []authz.Reason
	}
	Input json.RawMessage
}

// Records reads the whole audit log of a deployment that is not running.
func (d *Deployment) Records(t testing.TB) []Record {
	t.Helper()
	var all []Record
	lines := bufio.NewScanner(strings.NewReader(d.MustRun(t, "audit", "export")))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(fmt.Errorf("read audit export: %w\n%s", err, lines.Bytes()))
		}
		all = append(all, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
