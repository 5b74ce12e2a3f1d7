package pdp

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/internal/catalog"
)

// Each of several recipients is one to know or not, wherever it stands.
func TestDestinations(t *testing.T) {
	args, ok := arguments(json.RawMessage(`{"to":["ann","bob"],"cents":5,"cc":[{"mail":"eve"},{"mail":"joe"}],"a.b":"dots","text":"hello"}`))
	if !ok {
		t.Fatal("the arguments are not read")
	}
	got := appendDestinations(nil, &catalog.Operation{Authority: []string{"to", "cents", "cc.mail", "a.b", "absent"}}, args)
	if d := cmp.Diff([]string{"to=ann", "to=bob", "cents=5", "cc.mail=eve", "cc.mail=joe", "a.b=dots"}, got); d != "" {
		t.Error(d)
	}
}
