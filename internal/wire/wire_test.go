package wire_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
	"github.com/bailiwick-dev/bailiwick/internal/wire"
)

// object draws an object, or nothing.
func object(t *rapid.T, label string) json.RawMessage {
	return json.RawMessage(rapid.SampledFrom([]string{"", `{}`, `{"a":[1,{"b":null}]}`, ` {"x" : "\u00e9"} `}).Draw(t, label))
}

func words() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", `"`, `\`, "</script>", "\u2028"}))
}

func entity(t *rapid.T, label string) authz.Entity {
	return authz.Entity{Type: words().Draw(t, label), ID: words().Draw(t, label)}
}

func request(t *rapid.T) authz.Request {
	s := func(label string) string { return words().Draw(t, label) }
	req := authz.Request{
		Action: s("action"), Server: s("server"), Resource: entity(t, "resource"), Input: object(t, "input"), Definition: s("definition"),
		Session: s("session"), Gate: s("gate"), Correlation: s("correlation"),
	}
	if rapid.Bool().Draw(t, "has credential") {
		req.Credential = authz.Credential{Kind: authz.CredentialBearer, Value: s("credential")}
	}
	if rapid.Bool().Draw(t, "asserts") {
		req.Asserted = &authz.Assertion{
			Subject: entity(t, "subject"), SubjectProperties: object(t, "subject properties"), ActionProperties: object(t, "action properties"),
			ResourceProperties: object(t, "resource properties"), Context: object(t, "context"),
		}
	}
	return req
}

// same compares messages, in which white space around an object is nothing.
func same(t *rapid.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(got, want, cmp.Transformer("trim", func(m json.RawMessage) string { return strings.TrimSpace(string(m)) }),
		cmp.Comparer(func(a, b authz.Credential) bool { return a == b })); d != "" {
		t.Errorf("got (-), want (+):\n%s", d)
	}
}

func TestWhatIsSaidIsHeard(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r ijson.Reader
		req := request(t)
		b, err := wire.AppendRequest(nil, &req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseRequest(&r, b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		same(t, got, req)

		var ops []pep.Operation
		for range rapid.IntRange(0, 3).Draw(t, "operations") {
			ops = append(ops, pep.Operation{Action: words().Draw(t, "action"), Definition: words().Draw(t, "definition")})
		}
		if b, err = wire.AppendReachable(nil, &req, ops); err != nil {
			t.Fatal(err)
		}
		got, heard, err := wire.ParseReachable(&r, b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		same(t, got, req)
		same(t, heard, ops)
	})
}

func decision(t *rapid.T) authz.Decision {
	d := authz.Decision{ID: "d1", Allow: rapid.Bool().Draw(t, "allow"), Version: words().Draw(t, "version")}
	d.Observed = d.Allow && rapid.Bool().Draw(t, "observed")
	if rapid.Bool().Draw(t, "has time") {
		d.Time = time.Unix(0, rapid.Int64().Draw(t, "time")).UTC()
	}
	d.Reasons = []authz.Reason{{Code: authz.ReasonForbidden, Message: words().Draw(t, "message")}}
	for range rapid.IntRange(0, 2).Draw(t, "obligations") {
		d.Obligations = append(d.Obligations, authz.Obligation{ID: words().Draw(t, "id"), Type: "t", Properties: object(t, "properties")})
	}
	for range rapid.IntRange(0, 2).Draw(t, "remedies") {
		var r authz.Remedy
		for range rapid.IntRange(1, 2).Draw(t, "facts") {
			r = append(r, authz.Fact{
				Kind: authz.FactKind(words().Draw(t, "kind")), Name: words().Draw(t, "name"),
				Level: rapid.Int64().Draw(t, "level"), MaxAge: rapid.Int64().Draw(t, "age"),
			})
		}
		d.Remedies = append(d.Remedies, r)
	}
	for range rapid.IntRange(0, 3).Draw(t, "scope") {
		d.Scope = append(d.Scope, authz.Entity{Type: words().Draw(t, "kind"), ID: words().Draw(t, "id")})
	}
	return d
}

func TestDecisionsArriveWithoutTheirPolicies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r ijson.Reader
		d := decision(t)
		sent := d
		sent.Policies = []authz.PolicyRef{{ID: "secret-policy"}}
		b, err := wire.AppendDecision(nil, &sent)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseDecision(&r, b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		same(t, got, d)
	})
}

func TestOutcomesArrive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r ijson.Reader
		out := authz.Outcome{
			Decision: rapid.StringN(1, 40, -1).Draw(t, "decision"), Bytes: rapid.Int64().Draw(t, "bytes"), Error: words().Draw(t, "error"),
			Status: rapid.SampledFrom([]authz.OutcomeStatus{authz.OutcomeSuccess, authz.OutcomeError, authz.OutcomeAmbiguous, authz.OutcomeNotRun}).Draw(t, "status"),
			Output: rapid.SampledFrom([][]string{nil, {""}, {`{"a":"\u00e9"}`, "plain \u2028 text"}}).Draw(t, "output"),
			Cut:    rapid.Bool().Draw(t, "cut"), Ours: rapid.Bool().Draw(t, "ours"),
		}
		b, err := wire.AppendOutcome(nil, &out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseOutcome(&r, b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		same(t, got, out)
		reach := rapid.SliceOf(rapid.Bool()).Draw(t, "reach")
		heard, err := wire.ParseReach(&r, wire.AppendReach(nil, reach), len(reach))
		if err != nil {
			t.Fatal(err)
		}
		if len(reach) > 0 {
			same(t, heard, reach)
		}
	})
}

func TestPromptsArrive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r ijson.Reader
		said := authz.Prompt{Session: rapid.StringN(1, 40, -1).Draw(t, "session"), Text: words().Draw(t, "text"), Subject: entity(t, "subject")}
		if rapid.Bool().Draw(t, "has credential") {
			said.Credential = authz.Credential{Kind: authz.CredentialBearer, Value: words().Draw(t, "credential")}
		}
		b, err := wire.AppendPrompt(nil, &said)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParsePrompt(&r, b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		same(t, got, said)
	})
	var r ijson.Reader
	for _, bad := range []string{`[]`, `{"session":"s","text":1}`, `{"session":"s","more":1}`, `{"session":"s","credential":{"kind":"local","value":"x"}}`,
		`{"session":"s","text":"` + strings.Repeat("x", authz.MaxPrompt+1) + `"}`} {
		if said, err := wire.ParsePrompt(&r, []byte(bad)); err == nil || said != (authz.Prompt{}) {
			t.Errorf("%.60s: %v", bad, err)
		}
	}
	if _, err := wire.AppendPrompt(nil, &authz.Prompt{Session: "s", Credential: authz.Credential{Kind: authz.CredentialLocal, Value: "x"}}); err == nil {
		t.Error("a local credential travels")
	}
}

// fill sets everything that v consists of.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte(`{"a":1}`))
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1_800_000_000, 5).UTC()))
	case v.Type() == reflect.TypeFor[authz.CredentialKind]():
		v.SetString(string(authz.CredentialDPoP))
	case v.Type() == reflect.TypeFor[authz.OutcomeStatus]():
		v.SetString(string(authz.OutcomeNotRun))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(7)
	default:
		panic("nobody knows how to fill a " + v.Type().String())
	}
}

// A field that is new in the vocabulary is not forgotten on the way.
func TestNothingIsLeftOut(t *testing.T) {
	t.Parallel()
	var r ijson.Reader
	var req authz.Request
	fill(reflect.ValueOf(&req).Elem())
	req.ID, req.PEP, req.Credential.OnBehalf = "", authz.Credential{}, "" // the PDP says these
	b, err := wire.AppendRequest(nil, &req)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wire.ParseRequest(&r, b); err != nil || !reflect.DeepEqual(got, req) {
		t.Errorf("request: got %+v, %v; want %+v", got, err, req)
	}
	var d authz.Decision
	fill(reflect.ValueOf(&d).Elem())
	d.Policies = nil // for operators only
	if b, err = wire.AppendDecision(nil, &d); err != nil {
		t.Fatal(err)
	}
	if got, err := wire.ParseDecision(&r, b); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("decision: got %+v, %v; want %+v", got, err, d)
	}
	var out authz.Outcome
	fill(reflect.ValueOf(&out).Elem())
	if b, err = wire.AppendOutcome(nil, &out); err != nil {
		t.Fatal(err)
	}
	if got, err := wire.ParseOutcome(&r, b); err != nil || !reflect.DeepEqual(got, out) {
		t.Errorf("outcome: got %+v, %v; want %+v", got, err, out)
	}
}

func TestDecisionThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty":                     ``,
		"nothing said":              `{}`,
		"no object":                 `true`,
		"an array":                  `[{"id":"1","allow":true}]`,
		"does not say allow":        `{"id":"1","reasons":[{"code":"allowed"}]}`,
		"allow is no boolean":       `{"id":"1","allow":"true"}`,
		"allow is a number":         `{"id":"1","allow":1}`,
		"an allow without an id":    `{"allow":true}`,
		"an allow with an empty id": `{"id":"","allow":true}`,
		"a denial without a reason": `{"id":"1","allow":false}`,
		"a reason without a code":   `{"id":"1","allow":false,"reasons":[{}]}`,
		"said twice":                `{"id":"1","allow":false,"allow":true}`,
		"said twice, escaped":       `{"id":"1","allow":true,"\u0061llow":true}`,
		"more than one":             `{"id":"1","allow":true}{}`,
		"cut off":                   `{"id":"1","allow":true`,
		"an unknown member":         `{"id":"1","allow":true,"except":"on mondays"}`,
		"an unknown member deeper":  `{"id":"1","allow":true,"obligations":[{"id":"1","type":"t","unless":1}]}`,
		"an obligation of no type":  `{"id":"1","allow":true,"obligations":[{"id":"1"}]}`,
		"obligations of null":       `{"id":"1","allow":true,"obligations":null}`,
		"an observed denial":        `{"id":"1","allow":false,"observed":true,"reasons":[{"code":"forbidden"}]}`,
		"a time that is none":       `{"id":"1","allow":true,"time":"yesterday"}`,
		"a level that is none":      `{"id":"1","allow":false,"reasons":[{"code":"x"}],"remedies":[[{"kind":"auth_level","level":1.5}]]}`,
		"invalid UTF-8":             "{\"id\":\"\xff\",\"allow\":true}",
	} {
		t.Run(name, func(t *testing.T) {
			var r ijson.Reader
			if d, err := wire.ParseDecision(&r, []byte(text)); err == nil || d.Allow {
				t.Errorf("got %+v, %v", d, err)
			}
		})
	}
	var r ijson.Reader
	if _, err := wire.ParseDecision(&r, []byte(`{"id":"1","allow":true}`)); err != nil {
		t.Errorf("the smallest allow: %v", err)
	}
}

func TestRequestThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a local credential":    `{"credential":{"kind":"local","value":"root"},"action":"a"}`,
		"an unknown credential": `{"credential":{"kind":"magic","value":"x"},"action":"a"}`,
		"no kind of credential": `{"credential":{"value":"x"},"action":"a"}`,
		"a null credential":     `{"credential":null,"action":"a"}`,
		"an unknown member":     `{"action":"a","pep":"b"}`,
		"an id":                 `{"action":"a","id":"b"}`,
		"said twice":            `{"action":"a","action":"b"}`,
		"input of a string":     `{"action":"a","input":"{}"}`,
		"a resource of a name":  `{"action":"a","resource":"r"}`,
		"an array":              `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			var r ijson.Reader
			if _, err := wire.ParseRequest(&r, []byte(text)); err == nil {
				t.Error("read")
			}
			if _, _, err := wire.ParseReachable(&r, []byte(`{"request":`+text+`,"operations":[]}`)); err == nil {
				t.Error("read as a question")
			}
		})
	}
	var r ijson.Reader
	for name, text := range map[string]string{
		"no status": `{"decision":"1"}`, "an unknown status": `{"decision":"1","status":"fine"}`, "no decision": `{"status":"success"}`,
		"bytes of a string": `{"decision":"1","status":"success","bytes":"1"}`, "an unknown member": `{"decision":"1","status":"success","x":1}`,
	} {
		if _, err := wire.ParseOutcome(&r, []byte(text)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	for name, text := range map[string]string{"too few": `{"reachable":[true]}`, "too many": `{"reachable":[true,true,true]}`, "none": `{}`, "no booleans": `{"reachable":[1,1]}`} {
		if _, err := wire.ParseReach(&r, []byte(text), 2); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// What cannot be said is not said as something else.
func TestWhatCannotBeSaidIsAnError(t *testing.T) {
	t.Parallel()
	for name, req := range map[string]authz.Request{
		"a token to be exchanged":  {Credential: authz.Credential{Kind: authz.CredentialBearer, Value: "x", OnBehalf: "y"}},
		"a local credential":       {Credential: authz.Credential{Kind: authz.CredentialLocal, Value: "root"}},
		"input that breaks out":    {Input: json.RawMessage(`{},"server":"other"`)},
		"input that goes on":       {Input: json.RawMessage(`{}{}`)},
		"input that is no text":    {Input: json.RawMessage("{\"a\":\"\xff\"}")},
		"input of an array":        {Input: json.RawMessage(`[]`)},
		"input that says it twice": {Input: json.RawMessage(`{"a":1,"a":2}`)},
		"white space":              {Input: json.RawMessage(` `)},
		"an action of bad bytes":   {Action: "\xff"},
		"asserted context":         {Asserted: &authz.Assertion{Context: json.RawMessage(`{}, "subject": {}`)}},
	} {
		if b, err := wire.AppendRequest(nil, &req); err == nil {
			t.Errorf("%s: said as %s", name, b)
		}
	}
	if b, err := wire.AppendDecision(nil, &authz.Decision{Obligations: []authz.Obligation{{Properties: json.RawMessage(`{}}],"allow":true`)}}}); err == nil {
		t.Errorf("an obligation that breaks out: said as %s", b)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"id":"1","allow":true,"obligations":[{"id":"1","type":"t","properties":{}}],"time":"2026-11-25T12:00:00Z"}`,
		`{"id":"1","allow":false,"reasons":[{"code":"no_permit","message":"m"}],"remedies":[[{"kind":"approval","name":"n"},{"kind":"auth_level","level":2}]]}`,
		`{"credential":{"kind":"bearer","value":"v"},"action":"a","resource":{"type":"t","id":"i"},"input":{"a":1},"asserted":{"subject":{"type":"t","id":"i"},"context":{}}}`,
		`{"request":{"action":"a"},"operations":[{"action":"a","definition":"d"}]}`, `{"decision":"1","status":"error","bytes":7,"error":"e"}`, `{"reachable":[true,false]}`,
		`{"allow":true}`, `[]`, `{`, `{"a":{"a":[]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var r ijson.Reader
		if d, err := wire.ParseDecision(&r, text); err != nil && d.Allow || err == nil && d.Allow && d.ID == "" {
			t.Errorf("%q: allowed: %+v, %v", text, d, err)
		}
		if req, err := wire.ParseRequest(&r, text); err == nil {
			if req.Credential.Kind == authz.CredentialLocal {
				t.Errorf("%q: a local credential", text)
			}
			b, err := wire.AppendRequest(nil, &req)
			if err != nil {
				t.Fatalf("%q: heard, but cannot be said: %v", text, err)
			}
			if _, err := wire.ParseRequest(&r, b); err != nil {
				t.Fatalf("%q: said as %q: %v", text, b, err)
			}
		}
		_, _, _ = wire.ParseReachable(&r, text)
		_, _ = wire.ParseOutcome(&r, text)
		_, _ = wire.ParseReach(&r, text, 2)
	})
}
