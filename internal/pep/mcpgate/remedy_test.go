package mcpgate

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// A denied call says what would change it, in the words of authz.
func TestDenialSaysWhatWouldChangeIt(t *testing.T) {
	d := authz.Deny(authz.ReasonForbidden, "No.")
	d.Remedies = []authz.Remedy{{{Kind: authz.FactApproval, Name: "cfo"}, {Kind: authz.FactLevel, Level: 2}}}
	req, err := mcp.Parse([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}`))
	if err != nil {
		t.Fatal(err)
	}
	text := string(denied(d).answer(req, mcp.Modern, false).msg.Bytes())
	if !strings.Contains(text, `"remedies":[[{"kind":"approval","name":"cfo"},{"kind":"auth_level","level":2}]]`) {
		t.Errorf("%s", text)
	}
	d.Remedies = nil
	if text := string(denied(d).answer(req, mcp.Modern, false).msg.Bytes()); strings.Contains(text, "remedies") {
		t.Errorf("a final denial offers something: %s", text)
	}
	busy := denied(authz.Deny(authz.ReasonOverloaded, "Later.")).answer(req, mcp.Modern, false)
	if busy.status != http.StatusServiceUnavailable || !json.Valid(busy.msg.Bytes()) {
		t.Errorf("overloaded: %d %s", busy.status, busy.msg.Bytes())
	}
}
