package catalog

import (
	"encoding/json"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
)

func parse(t *testing.T, text []byte) *schema.Schema {
	t.Helper()
	var s schema.Schema
	if err := s.UnmarshalCedar(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &s
}

// mustLock pins tools of one server.
func mustLock(t testing.TB, server string, defs ...string) *Lock {
	t.Helper()
	l := &Lock{}
	for _, d := range defs {
		if _, err := l.Pin(server, json.RawMessage(d)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func mustCatalog(t testing.TB, l *Lock, overlay string) *Catalog {
	t.Helper()
	o, err := ParseOverlay([]byte(overlay))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Lock: l, Overlay: o})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestX(t *testing.T) {
	c := mustCatalog(t, mustLock(t, "mail-box", `{"name":"send mail","inputSchema":{"type":"object","properties":{"to":{"type":"array","items":{"type":"string"}},"mode":{"type":"string","enum":["a","b"]},"n":{"type":"number"},"free":{"type":"object"},"hdr":{"type":"object","additionalProperties":{"type":"string"}},"o":{"type":"object","properties":{"x":{"type":["integer","null"]}}}},"required":["to"]}}`), "servers:\n  mail-box:\n    tools:\n      send*:\n        effects: [write, external]\n        groups: [messaging]\n        authority: [to]\n        outputs: {outsiders: true}\n        resource: {type: Mode, id: mode}\n")
	t.Logf("%s", c.Schema())
	resolve(t, parse(t, c.Schema()))
	op, _ := c.Operation("mail-box/send mail")
	r, e, err := op.Input("mail-box", json.RawMessage(`{"to":["x","y"],"n":3.5,"mode":"a","free":{"a":1},"hdr":{"X":"y"},"o":{"x":null}}`))
	t.Log(r, e, err)
	t.Log(op.Resource("mail-box", entityOf(op.UID()), json.RawMessage(`{"to":["x","y"],"mode":"a"}`)))
}

func BenchmarkInput(b *testing.B) {
	c := mustCatalog(b, mustLock(b, "bank", `{"name":"pay","inputSchema":{"type":"object","properties":{"recipient":{"type":"string"},"amount":{"type":"number"},"subject":{"type":"string"},"date":{"type":"string","format":"date"},"urgent":{"type":"boolean"},"count":{"type":"integer"},"note":{"anyOf":[{"type":"string"},{"type":"null"}]}},"required":["recipient","amount"]}}`), "")
	op, _ := c.Operation("bank/pay")
	raw := json.RawMessage(`{"recipient":"GB29NWBK60161331926819","amount":100.25,"subject":"Rent for the flat in the Long Street, month of November 2026, thank you very much and see you soon, yours truly","date":"2026-11-22","urgent":false,"count":3,"note":"this is a note of about sixty characters in length, or so it is"}`)
	b.Log(len(raw))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := op.Input("bank", raw); err != nil {
			b.Fatal(err)
		}
	}
}
