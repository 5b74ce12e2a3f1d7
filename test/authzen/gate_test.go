package authzen

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/internal/identity"
	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

const shopDocument = `openapi: 3.1.0
info: {title: Shop, version: "1"}
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses: {"200": {description: ok}}
  /orders:
    post:
      operationId: placeOrder
      requestBody:
        required: true
        content:
          application/json:
            schema: {type: object, properties: {cents: {type: integer}}, required: [cents], additionalProperties: false}
      responses: {"200": {description: ok}}
`

const shopPolicies = `
@id("orders-are-read")
permit (principal == Agent::"tester", action == Action::"shop/getOrder", resource) when { context.input.id > 10 };
@id("small-orders")
permit (principal == Agent::"tester", action == Action::"shop/placeOrder", resource) when { context.input.body.cents <= 500 };
`

// A shop is a real API that counts its requests.
type shop struct {
	*httptest.Server
	requests atomic.Int64
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.Header.Get("Authorization") != "Bearer of-the-shop" {
			t.Errorf("the shop was shown %q", r.Header.Get("Authorization"))
		}
		body, _ := io.ReadAll(r.Body) // what is missing shows in the answer
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+string(body))
	}))
	t.Cleanup(s.Close)
	return s
}

// get asks an address as an agent does.
func call(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// shopIsGuarded asks what is allowed and what is not, and what the shop saw.
func shopIsGuarded(t *testing.T, s *shop, base, key string) {
	t.Helper()
	for _, tt := range []struct {
		name, method, path, key, body string
		status                        int
		says                          string
	}{
		{"allowed", "GET", "/orders/11", key, "", 200, "GET /orders/11"},
		{"denied by its path", "GET", "/orders/9", key, "", 403, "no_permit"},
		{"allowed by its body", "POST", "/orders", key, `{"cents":500}`, 200, `POST /orders {"cents":500}`},
		{"denied by its body", "POST", "/orders", key, `{"cents":501}`, 403, "no_permit"},
		{"two readings", "POST", "/orders", key, `{"cents":1,"cents":9999}`, 400, ""},
		{"nobody", "GET", "/orders/11", "", "", 401, "unauthenticated"},
		{"an operation that is not there", "DELETE", "/orders/11", key, "", 403, "tool_unknown"},
		{"another way to write it", "GET", "/orders/../orders/11", key, "", 0, ""},
	} {
		before := s.requests.Load()
		status, text := call(t, tt.method, base+"/api/shop"+tt.path, tt.key, tt.body)
		if tt.status != 0 && status != tt.status || status == 200 != (tt.status == 200) || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %d %s", tt.name, status, text)
		}
		if saw := s.requests.Load() - before; saw != 0 != (tt.status == 200) {
			t.Errorf("%s: the shop saw %d requests", tt.name, saw)
		}
	}
}

func deployShop(t *testing.T, s *shop, setup rig.Setup) *rig.Deployment {
	t.Helper()
	rig.EndToEnd(t)
	api := map[string]any{"openapi": "shop.yaml"}
	if s != nil {
		api["url"], api["credential_file"] = s.URL, "shop.secret"
	}
	if setup.Settings == nil {
		setup.Settings = map[string]any{}
	}
	setup.Settings["apis"] = map[string]any{"shop": api}
	d := rig.Deploy(t, setup)
	for name, text := range map[string]string{"shop.yaml": shopDocument, "shop.secret": "Bearer of-the-shop\n"} {
		if err := d.Write(name, text); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// An HTTP API behind the gateway is called as policy allows, with a credential
// that agents never see, and all of it is on the record.
func TestAPIBehindTheGateway(t *testing.T) {
	s := newShop(t)
	d := deployShop(t, s, rig.Setup{Policies: shopPolicies})
	d.Pin(t)
	d.Serve(t)
	shopIsGuarded(t, s, "http://"+d.Addr, d.Key)
	if verified := d.MustRun(t, "audit", "verify", "--json"); !strings.Contains(verified, `"released": 2`) || !strings.Contains(verified, `"outcomes": 2`) {
		t.Errorf("%s", verified)
	}
}

// A gate in another process is as strict, and lets nothing through when the PDP
// cannot be reached.
func TestGateInAnotherProcess(t *testing.T) {
	s := newShop(t)
	gateKey, gateHash := identity.NewKey()
	pdp := deployShop(t, nil, rig.Setup{Policies: shopPolicies, Agents: "peps:\n  - {id: gate, key: \"" + gateHash + "\", relays: true}\n"})
	pdp.Pin(t)
	running := pdp.Serve(t)
	gate := deployShop(t, s, rig.Setup{Settings: map[string]any{"pdp": map[string]string{"url": "http://" + pdp.Addr, "key_file": "gate.key"}}})
	if err := gate.Write("gate.key", gateKey+"\n"); err != nil {
		t.Fatal(err)
	}
	gate.Serve(t)
	shopIsGuarded(t, s, "http://"+gate.Addr, pdp.Key)
	running.Kill()
	before := s.requests.Load()
	if status, text := call(t, "GET", "http://"+gate.Addr+"/api/shop/orders/11", pdp.Key, ""); status != 503 || !strings.Contains(text, "pdp_unavailable") {
		t.Errorf("without a PDP: %d %s", status, text)
	}
	if s.requests.Load() != before {
		t.Error("a request passed without a decision")
	}
}
