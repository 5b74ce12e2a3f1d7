package catalog

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
)

const bankTools = `{"name":"pay","inputSchema":{"type":"object","properties":{"recipient":{"type":"string"},"amount":{"type":"number"},"from":{"type":"object","properties":{"iban":{"type":"string"},"no":{"type":"integer"}}}},"required":["recipient"]}}`

func TestOverlayMistakesNameTheLineAndTheNearestName(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "servers:\n  bank:\n    tools:\n      pay:\n        effect: [read]\n", `catalog.yaml:5: unknown field "effect"`},
		{"key twice", "servers:\n  bank: {}\n  bank: {}\n", `catalog.yaml:3: `},
		{"no YAML", "servers: [", `catalog.yaml:1: `},
		{"another type", "servers:\n  bank:\n    tools: [pay]\n", `catalog.yaml:3: `},
		{"effect", "servers:\n  bank:\n    tools:\n      pay:\n        effects: [reed]\n", `catalog.yaml:5: servers.bank.tools.pay: effects: "reed" is not one of read, write, destructive, external; did you mean "read"?`},
		{"read and write", "servers:\n  bank:\n    tools:\n      pay:\n        effects: [read, write]\n", `catalog.yaml:5: servers.bank.tools.pay: effects: read is for tools that only read`},
		{"server", "servers:\n  bnak: {}\n", `catalog.yaml:2: servers.bnak: no tool of a server of this name is pinned; did you mean "bank"?`},
		{"tool", "servers:\n  bank:\n    tools:\n      pya: {}\n", `catalog.yaml:4: servers.bank.tools: "pya" matches no pinned tool; did you mean "pay"?`},
		{"pattern", "servers:\n  bank:\n    tools:\n      \"x*\": {}\n", `catalog.yaml:4: servers.bank.tools: "x*" matches no pinned tool`},
		{"tool of any server", "servers:\n  \"*\":\n    tools:\n      pya: {}\n", `catalog.yaml:4: servers.*.tools: "pya" matches no pinned tool; did you mean "pay"?`},
		{"argument", "servers:\n  bank:\n    tools:\n      pay:\n        effects: [write]\n        authority: [recipent]\n", `catalog.yaml:6: servers.bank.tools.pay.authority: the tool has no argument "recipent"; did you mean "recipient"?`},
		{"inner argument", "servers:\n  bank:\n    tools:\n      pay: {authority: [from.bic]}\n", `the tool has no argument "from.bic"`},
		{"resource argument", "servers:\n  bank:\n    tools:\n      pay:\n        resource: {type: Account, id: recipiant}\n", `catalog.yaml:5: servers.bank.tools.pay.resource: bank/pay: the tool has no argument "recipiant"; did you mean "recipient"?`},
		{"resource of a number", "servers:\n  bank:\n    tools:\n      pay:\n        resource: {type: Account, id: amount}\n", `neither a string nor an integer`},
		{"resource without id", "servers:\n  bank:\n    tools:\n      pay:\n        resource: {type: Account}\n", `needs an id`},
		{"resource type of ours", "servers:\n  bank:\n    tools:\n      pay:\n        resource: {type: Agent, id: recipient}\n", `"Agent" cannot be the type`},
		{"resource type of Cedar", "servers:\n  bank:\n    tools:\n      pay:\n        resource: {type: Long, id: recipient}\n", `"Long" cannot be the type`},
		{"resource type like a tool's", "servers:\n  bank:\n    tools:\n      pay:\n        resource: {type: a__b, id: recipient}\n", `"a__b" cannot be the type`},
		{"group", "servers:\n  bank:\n    tools:\n      pay:\n        groups: [bank/pay]\n", `"bank/pay" cannot be a group`},
		{"group like an effect", "servers:\n  bank:\n    tools:\n      pay:\n        groups: [read]\n", `"read" cannot be a group`},
		{"label", "servers:\n  bank:\n    tools:\n      pay:\n        outputs: {labels: [\"a b\"]}\n", `"a b" cannot be a label`},
		{"label of a server", "servers:\n  bank:\n    outputs: {labels: [\"\"]}\n", `cannot be a label`},
		{"numbers", "servers:\n  bank:\n    tools:\n      pay: {numbers: floor}\n", `"floor" is neither "exact" nor "round"`},
		{"undeclared", "servers:\n  bank:\n    tools:\n      pay: {undeclared: deny}\n", `"deny" is neither "refuse" nor "allow"`},
		{"patterns that disagree", "servers:\n  bank:\n    tools:\n      \"pa*\": {effects: [read]}\n      \"*ay\": {effects: [write]}\n", `say different things about "pay"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, err := ParseOverlay([]byte(tt.text))
			if err == nil {
				_, err = New(Config{Lock: mustLock(t, "bank", bankTools), Overlay: o})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestAllMistakesAreReported(t *testing.T) {
	o, err := ParseOverlay([]byte("servers:\n  zzz: {}\n  bank:\n    tools:\n      pay: {authority: [x, y]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Lock: mustLock(t, "bank", bankTools), Overlay: o})
	var p *Problem
	if !errors.As(err, &p) || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v, want three problems", err)
	}
}

func TestTheClosestRuleWinsAndListsAddUp(t *testing.T) {
	l := mustLock(t, "bank", bankTools, `{"name":"payout"}`, `{"name":"list"}`)
	c := mustCatalog(t, l, `
servers:
  "*":
    outputs: {labels: [everywhere]}
    tools:
      "*": {effects: [write], groups: [all], numbers: round}
      "p*": {effects: [external], authority: [amount]}
  bank:
    outputs: {labels: [bank]}
    tools:
      "pay*": {effects: [destructive], groups: [paying]}
      pay: {effects: [read], outputs: {outsiders: true}, numbers: exact}
`)
	type word struct{ Effects, Groups, Labels, Authority []string }
	got := map[string]word{}
	for _, o := range c.Operations() {
		if o.Server != "" {
			got[o.Tool] = word{o.Effects, o.Groups, o.Labels, o.Authority}
		}
	}
	want := map[string]word{
		"pay":    {[]string{"read"}, []string{"all", "paying"}, []string{"bank", "everywhere", "untrusted"}, []string{"amount"}},
		"payout": {[]string{"destructive", "write"}, []string{"all", "paying"}, []string{"bank", "everywhere"}, nil},
		"list":   {[]string{"write"}, []string{"all"}, []string{"bank", "everywhere"}, nil},
	}
	for tool := range want {
		if w := got[tool]; len(w.Authority) == 0 {
			w.Authority = nil
			got[tool] = w
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	if mustOperation(t, c, "bank/pay").round || !mustOperation(t, c, "bank/list").round {
		t.Error("numbers: the closest rule does not win")
	}
}

// TestAToolCalledStarIsNotAPattern: a server cannot have what is said of one
// of its tools said of all by calling it "*".
func TestAToolCalledStarIsNotAPattern(t *testing.T) {
	l := mustLock(t, "bank", bankTools, `{"name":"*"}`)
	c := mustCatalog(t, l, "servers:\n  bank:\n    tools:\n      \"*\": {effects: [read]}\n")
	if o := mustOperation(t, c, "bank/pay"); o.Classified {
		t.Errorf("bank/pay is %v", o.Effects)
	}
	if o := mustOperation(t, c, "bank/*"); !o.Classified {
		t.Error("bank/* is not classified")
	}
}

func TestConflictsAreReported(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "bank", `{"name":"get","annotations":{"destructiveHint":true}}`), "servers:\n  bank:\n    tools:\n      get: {effects: [read]}\n")
	got := c.Conflicts()
	if len(got) != 1 || got[0].Action != "bank/get" || !strings.Contains(got[0].Message, "destructiveHint") {
		t.Errorf("conflicts: %v", got)
	}
	if diff := cmp.Diff([]string{"destructive", "write"}, mustOperation(t, c, "bank/get").Effects); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "x/y", true}, {"a*", "a", true}, {"a*", "ba", false},
		{"*a", "ba", true}, {"*a", "ab", false}, {"a*b*c", "a1b2c", true}, {"a*b*c", "acb", false}, {"a*a", "a", false}, {"a**b", "ab", true},
	} {
		if got := glob(tt.pattern, tt.name); got != tt.want {
			t.Errorf("glob(%q, %q) = %t", tt.pattern, tt.name, got)
		}
	}
}

func TestResource(t *testing.T) {
	lock := mustLock(t, "bank", bankTools)
	for _, tt := range []struct {
		name, id, args string
		given          authz.Entity
		want, wantErr  string
	}{
		{name: "mapped", id: "recipient", args: `{"recipient":"DE1"}`, want: `Account::"DE1"`},
		{name: "escaped", id: "recipient", args: `{"recipient":"\u0044\"1"}`, want: `Account::"D\"1"`},
		{name: "nested", id: "from.iban", args: `{"from":{"iban":"DE2"}}`, want: `Account::"DE2"`},
		{name: "integer", id: "from.no", args: `{"from":{"no":7.0}}`, want: `Account::"7"`},
		{name: "missing", id: "from.iban", args: `{"recipient":"x"}`, wantErr: `"from.iban" is missing`},
		{name: "no arguments", id: "recipient", args: ``, wantErr: `"recipient" is missing`},
		{name: "wrong type", id: "recipient", args: `{"recipient":null}`, wantErr: `neither a string nor an integer`},
		{name: "given and true", id: "recipient", args: `{"recipient":"DE1"}`, given: authz.Entity{Type: "Account", ID: "DE1"}, want: `Account::"DE1"`},
		{name: "given less precisely", id: "recipient", args: `{"recipient":"DE1"}`, given: authz.Entity{Type: "Server", ID: "bank"}, want: `Account::"DE1"`},
		{name: "given and false", id: "recipient", args: `{"recipient":"DE1"}`, given: authz.Entity{Type: "Account", ID: "DE9"}, wantErr: `the resource is not Account "DE9"`},
		{name: "not mapped", args: `{"recipient":"DE1"}`, want: `Server::"bank"`},
		{name: "not mapped, given", args: `{}`, given: authz.Entity{Type: "Account", ID: "DE1"}, wantErr: `the resource is not Account`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overlay := ""
			if tt.id != "" {
				overlay = "servers:\n  bank:\n    tools:\n      pay: {resource: {type: Account, id: " + tt.id + "}}\n"
			}
			c := mustCatalog(t, lock, overlay)
			o := mustOperation(t, c, "bank/pay")
			uid, ancestors, err := o.Resource("bank", tt.given, json.RawMessage(tt.args))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got %s and error %v, want an error with %q", uid, err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if uid.String() != tt.want {
				t.Errorf("got %s, want %s", uid, tt.want)
			}
			if _, ok := ancestors[uid]; !ok {
				t.Errorf("%s is not among its own ancestors %v", uid, ancestors)
			}
			input, entities, err := o.Input("bank", json.RawMessage(`{"recipient":"x"}`))
			if err != nil {
				t.Fatal(err)
			}
			checkRequest(t, c, o, input, uid, join(entities, ancestors))
		})
	}
	o := mustOperation(t, mustCatalog(t, lock, ""), "bank/pay")
	if _, _, err := o.Resource("other", authz.Entity{}, nil); err == nil {
		t.Error("a tool has a resource on a server that is not its own")
	}
	if _, _, err := o.Input("other", nil); err == nil {
		t.Error("a tool has an input on a server that is not its own")
	}
}
