package catalog

import (
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
)

const recordsSchema = `
entity Agent in [Group] { clearance?: Long };
namespace Records {
	entity team;
	entity user in [team] { role?: String };
	entity record { status?: String, owner?: user };
	type Where = { ip?: ipaddr, hour: Long };
	action reading;
	@name("read") action view in [reading, Action::"read"] appliesTo { principal: user, resource: record };
	@name("write") action change in [Action::"write"] appliesTo { principal: user, resource: record, context: Where };
	action delete appliesTo { principal: user, resource: record, context: { action?: { soft?: Bool } } };
	action "sign off" appliesTo { principal: [user, Agent], resource: record };
}
`

func withSchema(t *testing.T, text string) (*Catalog, error) {
	t.Helper()
	return New(Config{Lock: mustLock(t, "mail-box", mailTools), Schema: []byte(text)})
}

// An application's actions are operations beside the tools, under names that
// its enforcement points know.
func TestApplicationsAreOperations(t *testing.T) {
	c, err := withSchema(t, recordsSchema)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		application, name, uid, effects string
	}{
		{"Records", "read", `Records::Action::"view"`, "read"},
		{"Records", "write", `Records::Action::"change"`, "write"},
		{"Records", "delete", `Records::Action::"delete"`, "destructive external write"},
		{"Records", "sign off", `Records::Action::"sign off"`, "destructive external write"},
		{"Records", "mcp:tools/list", `Action::"mcp:tools/list"`, "discover"},
		{"", "Records::read", `Records::Action::"view"`, "read"},
	} {
		o, ok := c.Find(tt.application, tt.name)
		if !ok || o.UID().String() != tt.uid || strings.Join(o.Effects, " ") != tt.effects {
			t.Errorf("%s %s: %v, %+v", tt.application, tt.name, ok, o)
		}
	}
	for _, name := range []string{"reading", "erase", ""} {
		if o, ok := c.Find("Records", name); ok {
			t.Errorf("%q is %+v", name, o)
		}
	}
	if o, ok := c.Find("", "read"); ok {
		t.Errorf("read outside of the application is %+v", o)
	}
	o, _ := c.Find("Records", "sign off")
	if !c.Applies(o, "Records::user", "Records::record") || !c.Applies(o, "Agent", "Records::record") ||
		c.Applies(o, "Records::team", "Records::record") || c.Applies(o, "Records::user", "Server") {
		t.Error("the operation applies to other types than the schema says")
	}
	for name, want := range map[string]types.EntityType{"user": "Records::user", "Agent": "Agent", "Records::team": "Records::team", "ship": "", "Other::user": ""} {
		if got, ok := c.EntityType("Records", name); got != want || ok != (want != "") {
			t.Errorf("type %s is %q, %v", name, got, ok)
		}
	}
}

// What a PEP says becomes typed values; what no policy could look at is left
// out; what has the wrong type is refused.
func TestApplicationContextIsTyped(t *testing.T) {
	c, err := withSchema(t, recordsSchema)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, action, context string
		want                  string
		problem               string
	}{
		{name: "read", context: `{"ip":"10.0.0.1"}`, want: `{}`},
		{name: "write", context: `{"hour":7,"mood":"good"}`, want: `{"hour":7}`},
		{name: "write", context: `{"hour":7,"ip":"10.0.0.1"}`, want: `{"hour":7, "ip":ip("10.0.0.1")}`},
		{name: "write", problem: `argument "context.hour" is missing`},
		{name: "write", context: `{"hour":"7"}`, problem: `argument "context.hour" `},
		{name: "write", context: `{"hour":7,"hour":8}`, problem: "twice"},
		{name: "delete", action: `{"soft":true,"x":1}`, want: `{"action":{"soft":true}}`},
		{name: "delete", want: `{}`},
		{name: "delete", action: `{"soft":"yes"}`, problem: `argument "action.soft" `},
	} {
		o, _ := c.Find("Records", tt.name)
		got, err := o.Context(c, []byte(tt.action), []byte(tt.context))
		switch {
		case tt.problem != "":
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%s %s %s: %v, want %q", tt.name, tt.action, tt.context, err, tt.problem)
			}
		case err != nil || string(types.NewRecord(got).MarshalCedar()) != tt.want:
			t.Errorf("%s %s %s: %s, %v", tt.name, tt.action, tt.context, types.NewRecord(got).MarshalCedar(), err)
		}
	}
	attrs, err := c.Attributes("Records", "Records::record", []byte(`{"status":"active","owner":{"type":"user","id":"bob"},"colour":1}`))
	if err != nil || len(attrs) != 2 || attrs["owner"] != types.Value(types.NewEntityUID("Records::user", "bob")) {
		t.Errorf("attributes: %v, %v", attrs, err)
	}
}

// The plane's own words cannot be taken by an operator's schema.
func TestApplicationSchemaIsChecked(t *testing.T) {
	for name, tt := range map[string]struct{ schema, problem string }{
		"not Cedar":           {`namespace {`, "schema"},
		"action outside":      {`action read;`, "namespace"},
		"entity outside":      {`entity Robot;`, "namespace"},
		"context is ours":     {`namespace A { entity u; action x appliesTo { principal: u, resource: u, context: { session: String } }; }`, "context.session"},
		"type is ours":        {`namespace A { entity Agent; }`, "plane's own"},
		"context is missing":  {`namespace A { entity u; action x appliesTo { principal: u, resource: u, context: Nothing }; }`, "Nothing"},
		"effect is hidden":    {`namespace A { entity u; action read appliesTo { principal: u, resource: u }; }`, `@name("read")`},
		"known twice":         {`namespace A { entity u; @name("x") action y appliesTo { principal: u, resource: u }; action x appliesTo { principal: u, resource: u }; }`, "two actions"},
		"unknown parent type": {`namespace A { entity u in [v]; }`, "v"},
	} {
		if _, err := withSchema(t, tt.schema); err == nil || !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
