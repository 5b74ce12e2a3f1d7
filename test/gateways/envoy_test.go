package gateways

import (
	"os"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
)

// No Envoy runs here, so its example is held to Envoy's types and rules, and to
// the settings that make it fail closed.
func TestTheEnvoyExampleIsOfEnvoysTypesAndFailsClosed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(asJSON, &b); err != nil {
		t.Fatal(err)
	}
	if err := b.ValidateAll(); err != nil {
		t.Fatal(err)
	}
	var hcm hcmv3.HttpConnectionManager
	if err := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(&hcm); err != nil {
		t.Fatal(err)
	}
	if err := hcm.ValidateAll(); err != nil {
		t.Fatal(err)
	}
	filters := hcm.GetHttpFilters()
	var ext extauthzv3.ExtAuthz
	if len(filters) != 2 || filters[0].GetTypedConfig().UnmarshalTo(&ext) != nil {
		t.Fatal("ext_authz is not the last filter before the router")
	}
	if err := ext.ValidateAll(); err != nil {
		t.Fatal(err)
	}
	body := ext.GetWithRequestBody()
	if ext.GetFailureModeAllow() || !ext.GetEncodeRawHeaders() || body.GetAllowPartialMessage() || !body.GetPackAsBytes() || !hcm.GetNormalizePath().GetValue() {
		t.Error("the example would let through what was not decided, or decide what is not sent")
	}
	var route extauthzv3.ExtAuthzPerRoute
	perRoute := hcm.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetTypedPerFilterConfig()
	if err := perRoute[filters[0].GetName()].UnmarshalTo(&route); err != nil || route.GetCheckSettings().GetContextExtensions()["bailiwick.api"] != "pets" {
		t.Errorf("the route does not name its API: %v", err)
	}
}
