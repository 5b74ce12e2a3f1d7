package extauthz_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep/extauthz"
)

func httpOf(req *authv3.CheckRequest) *authv3.AttributeContext_HttpRequest {
	return req.GetAttributes().GetRequest().GetHttp()
}

func headerValues(options []*corev3.HeaderValueOption) map[string]string {
	m := map[string]string{}
	for _, o := range options {
		if o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD && o.GetAppend() == nil {
			m[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
		}
	}
	return m
}

func TestAnAllowedRequestIsDecidedAsTheOperationItIs(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, nil)
	for _, tt := range []struct {
		name, action, input, session, correlation string
		remove                                    []string
	}{
		{"get", "pets/getPet", `{"petId":"7","q":"a b"}`, "run-1", "b1a9b4f2-6f1e-4a5b-9c57-0e3c8a1b2c3d",
			[]string{"authorization", "bailiwick-session", "x-forwarded-user"}},
		{"post", "pets/addPet", `{"body":{"name": "rex"}}`, "", "", []string{"authorization"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := e.check(t, sample(t, tt.name))
			if !allows(r) {
				t.Fatalf("denied: %s", r.GetDeniedResponse().GetBody())
			}
			got := e.last()
			if got.Definition == "" {
				t.Error("the definition is not said")
			}
			want := authz.Request{
				PEP:        authz.Credential{Kind: authz.CredentialBearer, Value: "gateway-key"},
				Credential: authz.Credential{Kind: authz.CredentialBearer, Value: "agent-key"},
				Action:     tt.action, Server: "pets", Input: json.RawMessage(tt.input), Definition: got.Definition,
				Session: tt.session, Gate: "ext_authz", Advisory: true, Correlation: tt.correlation,
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			ok := r.GetOkResponse()
			if d := cmp.Diff(map[string]string{"Bailiwick-Decision": "d1"}, headerValues(ok.GetHeaders())); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.remove, ok.GetHeadersToRemove()); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(map[string]any{"decision_id": "d1", "policy_version": "v1"}, r.GetDynamicMetadata().AsMap()); d != "" {
				t.Error(d)
			}
		})
	}
}

// Raw headers keep what joined ones lose, the API is found by the host, and a
// header given twice is none of the operation's.
func TestRawHeadersAreReadAsTheyAre(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, nil)
	req := sample(t, "raw")
	if r := e.check(t, req); allows(r) || !strings.Contains(r.GetDeniedResponse().GetBody(), "given twice") {
		t.Errorf("an argument given twice: %v", r)
	}
	list := httpOf(req).GetHeaderMap()
	list.Headers = list.GetHeaders()[:len(list.GetHeaders())-1]
	r := e.check(t, req)
	if got := string(e.last().Input); !allows(r) || got != `{"limit":2,"X-Tenant":"north, south!","X-User":"root"}` {
		t.Errorf("decided %s: %v", got, r)
	}
	// An argument that policy saw is not taken from the upstream.
	if d := cmp.Diff([]string{"authorization"}, r.GetOkResponse().GetHeadersToRemove()); d != "" {
		t.Error(d)
	}
}

// The refused requests are allowed but for the one thing that is wrong.
func TestWhatIsNotCertainIsDenied(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, nil)
	for _, tt := range []struct {
		name, sample string
		change       func(*authv3.CheckRequest)
	}{
		{"no attributes", "get", func(r *authv3.CheckRequest) { r.Attributes = nil }},
		{"no request", "get", func(r *authv3.CheckRequest) { r.Attributes.Request = nil }},
		{"no HTTP", "get", func(r *authv3.CheckRequest) { r.Attributes.Request.Http = nil }},
		{"no method", "get", func(r *authv3.CheckRequest) { httpOf(r).Method = ""; delete(httpOf(r).Headers, ":method") }},
		{"CONNECT", "get", func(r *authv3.CheckRequest) { httpOf(r).Method = "CONNECT"; delete(httpOf(r).Headers, ":method") }},
		{"TRACE", "get", func(r *authv3.CheckRequest) { httpOf(r).Method = "TRACE"; delete(httpOf(r).Headers, ":method") }},
		{"query apart", "get", func(r *authv3.CheckRequest) { httpOf(r).Query = "q=1" }},
		{"fragment", "get", func(r *authv3.CheckRequest) { httpOf(r).Fragment = "f" }},
		{"other path", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers[":path"] = "/v1/pets/8" }},
		{"other method", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers[":method"] = "DELETE" }},
		{"other host", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers[":authority"] = "x.test" }},
		{"unknown API", "get", func(r *authv3.CheckRequest) { r.Attributes.ContextExtensions["bailiwick.api"] = "other" }},
		{"empty API", "get", func(r *authv3.CheckRequest) { r.Attributes.ContextExtensions["bailiwick.api"] = "" }},
		{"not its host", "get", func(r *authv3.CheckRequest) {
			httpOf(r).Host, httpOf(r).Headers[":authority"] = "evil.test", "evil.test"
		}},
		{"not a port", "get", func(r *authv3.CheckRequest) {
			httpOf(r).Host, httpOf(r).Headers[":authority"] = "pets.test:x", "pets.test:x"
		}},
		{"not below the prefix", "get", path("/v2/pets/7")},
		{"prefix only", "get", path("/v1")},
		{"prefix of a name", "get", path("/v1pets/7")},
		{"dots", "get", path("/v1/pets/../pets/7")},
		{"double slash", "get", path("/v1//pets/7")},
		{"encoded slash", "get", path("/v1/pets/7%2F8")},
		{"encoded prefix", "get", path("/%761/pets/7")},
		{"fragment in the path", "get", path("/v1/pets/7#x")},
		{"space in the path", "get", path("/v1/pets/7 x")},
		{"bad escape", "get", path("/v1/pets/%zz")},
		{"absolute", "get", path("http://pets.test/v1/pets/7")},
		{"unknown parameter", "get", path("/v1/pets/7?other=1")},
		{"no such operation", "get", path("/v1/owners")},
		{"upper case header", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["Accept"] = "x" }},
		{"not a header", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["a b"] = "x" }},
		{"both kinds of header", "get", func(r *authv3.CheckRequest) {
			httpOf(r).HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "accept", RawValue: []byte("x")}}}
		}},
		{"both kinds of value", "raw", func(r *authv3.CheckRequest) {
			httpOf(r).HeaderMap.Headers = []*corev3.HeaderValue{{Key: "accept", RawValue: []byte("x"), Value: "y"}}
		}},
		{"two raw paths", "raw", func(r *authv3.CheckRequest) {
			httpOf(r).HeaderMap.Headers = []*corev3.HeaderValue{{Key: ":path", Value: httpOf(r).Path}, {Key: ":path", Value: httpOf(r).Path}}
		}},
		{"upgrade", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["upgrade"] = "websocket" }},
		{"override", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["x-http-method-override"] = "DELETE" }},
		{"rewrite", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["x-original-url"] = "/v1/pets/8" }},
		{"two sessions", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["bailiwick-session"] = "a,b" }},
		{"long session", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["bailiwick-session"] = strings.Repeat("a", 129) }},
		{"two raw sessions", "raw", func(r *authv3.CheckRequest) {
			h := &corev3.HeaderValue{Key: "bailiwick-session", RawValue: []byte("a")}
			httpOf(r).HeaderMap.Headers = append(httpOf(r).HeaderMap.Headers, h, h)
		}},
		{"joined argument", "raw", func(r *authv3.CheckRequest) {
			httpOf(r).HeaderMap, httpOf(r).Headers = nil, map[string]string{"x-tenant": "north,south"}
		}},
		{"replaced argument", "raw", func(r *authv3.CheckRequest) {
			httpOf(r).HeaderMap, httpOf(r).Headers = nil, map[string]string{"x-tenant": "n!rth"}
		}},
		{"partial body", "post", func(r *authv3.CheckRequest) { httpOf(r).Headers["x-envoy-auth-partial-body"] = "true" }},
		{"no word on the body", "post", func(r *authv3.CheckRequest) { delete(httpOf(r).Headers, "x-envoy-auth-partial-body") }},
		{"shorter body", "post", func(r *authv3.CheckRequest) { httpOf(r).Headers["content-length"] = "400" }},
		{"no body seen", "post", func(r *authv3.CheckRequest) { httpOf(r).RawBody = nil }},
		{"no body seen, length unknown", "post", func(r *authv3.CheckRequest) {
			httpOf(r).RawBody = nil
			delete(httpOf(r).Headers, "content-length")
			delete(httpOf(r).Headers, "content-type")
		}},
		{"body as text", "post", func(r *authv3.CheckRequest) { httpOf(r).Body, httpOf(r).RawBody = string(httpOf(r).RawBody), nil }},
		{"two bodies", "post", func(r *authv3.CheckRequest) { httpOf(r).Body = "x" }},
		{"joined content type", "post", func(r *authv3.CheckRequest) { httpOf(r).Headers["content-type"] = `application/json; a="x,y"` }},
		{"body of no operation", "get", func(r *authv3.CheckRequest) { httpOf(r).RawBody = []byte("x") }},
		{"body of no operation, whole", "get", func(r *authv3.CheckRequest) {
			httpOf(r).RawBody = []byte("x")
			httpOf(r).Headers["x-envoy-auth-partial-body"] = "false"
		}},
		{"length and coding", "get", func(r *authv3.CheckRequest) {
			httpOf(r).Headers["content-length"], httpOf(r).Headers["transfer-encoding"] = "0", "chunked"
		}},
		{"two words on the body", "post", func(r *authv3.CheckRequest) {
			var raw []*corev3.HeaderValue
			for name, value := range httpOf(r).Headers {
				raw = append(raw, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
			}
			raw = append(raw, &corev3.HeaderValue{Key: "x-envoy-auth-partial-body", RawValue: []byte("true")})
			httpOf(r).Headers, httpOf(r).HeaderMap = nil, &corev3.HeaderMap{Headers: raw}
		}},
		{"length of no operation", "get", func(r *authv3.CheckRequest) { httpOf(r).Headers["content-length"] = "5" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := sample(t, tt.sample)
			if tt.sample == "raw" {
				list := httpOf(req).GetHeaderMap()
				list.Headers = list.GetHeaders()[:len(list.GetHeaders())-1]
			}
			tt.change(req)
			r := e.check(t, req)
			if allows(r) || r.GetOkResponse() != nil || r.GetDeniedResponse() == nil {
				t.Errorf("got %v; decided %s %s", r, e.last().Action, e.last().Input)
			}
		})
	}
}

func path(p string) func(*authv3.CheckRequest) {
	return func(r *authv3.CheckRequest) { httpOf(r).Path, httpOf(r).Headers[":path"] = p, p }
}

// A denial tells the agent why, and Envoy with which status.
func TestADenialSaysWhy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		decide func(context.Context, authz.Request) (authz.Decision, error)
		status int
		code   string
		header string
	}{
		{"policy", denies(authz.ReasonForbidden), 403, authz.ReasonForbidden, ""},
		{"nobody", denies(authz.ReasonUnauthenticated), 401, authz.ReasonUnauthenticated, "WWW-Authenticate"},
		{"overloaded", denies(authz.ReasonOverloaded), 429, authz.ReasonOverloaded, "Retry-After"},
		{"record lost", denies(authz.ReasonAuditDown), 503, authz.ReasonAuditDown, "Retry-After"},
		{"unknown reason", denies("something_new"), 403, "something_new", ""},
		{"no reason", func(context.Context, authz.Request) (authz.Decision, error) { return authz.Decision{}, nil }, 403, authz.ReasonInternal, ""},
		{"error", func(context.Context, authz.Request) (authz.Decision, error) {
			return authz.Decision{ID: "d1", Allow: true}, errors.New("disk full")
		}, 503, authz.ReasonPDPDown, "Retry-After"},
		{"error with reasons", func(context.Context, authz.Request) (authz.Decision, error) {
			return authz.Decision{ID: "d1", Allow: true, Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow}}}, errors.New("disk full")
		}, 503, authz.ReasonPDPDown, "Retry-After"},
		{"obligation", func(context.Context, authz.Request) (authz.Decision, error) {
			return authz.Decision{ID: "d1", Allow: true, Obligations: []authz.Obligation{{Type: "redact"}}}, nil
		}, 403, authz.ReasonObligationUnmet, ""},
		{"panic", func(context.Context, authz.Request) (authz.Decision, error) { panic("agent-key") }, 403, authz.ReasonInternal, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := serve(t, tt.decide, nil)
			r := e.check(t, sample(t, "get"))
			d := r.GetDeniedResponse()
			if allows(r) || d == nil || int(d.GetStatus().GetCode()) != tt.status {
				t.Fatalf("got %v", r)
			}
			var body struct {
				Code, Detail string
				Decision     string
				Remedies     []authz.Remedy
			}
			if err := json.Unmarshal([]byte(d.GetBody()), &body); err != nil || body.Code != tt.code || body.Detail == "" {
				t.Errorf("body %s: %v", d.GetBody(), err)
			}
			h := headerValues(d.GetHeaders())
			if h["Content-Type"] != "application/problem+json" || tt.header != "" && h[tt.header] == "" {
				t.Errorf("headers %v", h)
			}
			if tt.name == "policy" && (h["Bailiwick-Decision"] != "d9" || body.Decision != "d9" || len(body.Remedies) != 1) {
				t.Errorf("the decision is not named: %v %s", h, d.GetBody())
			}
			if tt.name == "obligation" && (len(e.outcomes) != 1 || e.outcomes[0].Status != authz.OutcomeNotRun) {
				t.Errorf("outcomes %v", e.outcomes)
			}
			if strings.Contains(e.log.String(), "agent-key") || strings.Contains(e.log.String(), "gateway-key") {
				t.Errorf("a key is in the log: %s", e.log)
			}
		})
	}
}

func denies(code string) func(context.Context, authz.Request) (authz.Decision, error) {
	return func(context.Context, authz.Request) (authz.Decision, error) {
		d := authz.Deny(code, "It is denied.")
		d.ID, d.Remedies = "d9", []authz.Remedy{{{Kind: authz.FactApproval, Name: "owner"}}}
		return d, nil
	}
}

// A plane that does not answer is waited for no longer than the deadline,
// Envoy's or ours.
func TestAHangingPlaneIsADenial(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context, _ authz.Request) (authz.Decision, error) {
		<-ctx.Done()
		return authz.Decision{}, ctx.Err()
	}
	e := serve(t, hang, func(c *extauthz.Config) { c.Deadline = 50 * time.Millisecond })
	if r := e.check(t, sample(t, "get")); allows(r) || r.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("got %v", r)
	}
	slow := serve(t, hang, func(c *extauthz.Config) { c.Deadline = time.Hour })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, err := authv3.NewAuthorizationClient(slow.conn).Check(ctx, sample(t, "get"))
	if err == nil && allows(r) {
		t.Errorf("got %v", r)
	}
}

func TestAGatewayWithoutAKeyIsToldNothing(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, nil)
	for _, md := range [][]string{
		{}, {"authorization", ""}, {"authorization", "gateway-key"}, {"authorization", "Basic eDp5"}, {"authorization", "Bearer "},
		{"authorization", "Bearer a b"}, {"authorization", "Bearer a,Bearer b"}, {"authorization", "Bearer a", "authorization", "Bearer b"},
	} {
		if r := e.checkWith(t, sample(t, "get"), md...); allows(r) || r.GetDeniedResponse().GetStatus().GetCode() != 401 {
			t.Errorf("%v: got %v", md, r)
		}
	}
	if len(e.asked) > 0 {
		t.Errorf("%d questions were asked for nobody", len(e.asked))
	}
}

// What a client calls its request is kept only if it is fit for a record.
func TestAnIDThatCouldHarmARecordIsNotKept(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, nil)
	for _, id := range []string{strings.Repeat("a", 129), "a\nb", "ü"} {
		req := sample(t, "get")
		httpOf(req).Headers["x-request-id"] = id
		if r := e.check(t, req); !allows(r) || e.last().Correlation != "" {
			t.Errorf("%q: kept %q", id, e.last().Correlation)
		}
	}
}

// An Authorization that is not one bearer token proves nobody, and a
// certificate does not make up for it.
func TestOnlyOneBearerTokenIsACredential(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, func(c *extauthz.Config) {
		c.Peers = map[string]string{"spiffe://corp.example/agent/clerk": "clerk"}
	})
	for _, value := range []string{"", "agent-key", "Basic eDp5", "Bearer a,Bearer b", "Bearer a, b", "Bearer =", "Bearer a!"} {
		req := sample(t, "get")
		httpOf(req).Headers["authorization"] = value
		e.check(t, req)
		if got := e.last(); got.Credential != (authz.Credential{}) || got.Asserted != nil {
			t.Errorf("%q: %#v %v", value, got.Credential, got.Asserted)
		}
	}
}

func TestACertificateIsAnAgentOnlyWhenConfigured(t *testing.T) {
	t.Parallel()
	req := sample(t, "get")
	delete(httpOf(req).Headers, "authorization")
	clerk := authz.Entity{Type: "Agent", ID: "clerk"}
	for _, tt := range []struct {
		name, principal string
		peers           map[string]string
		want            authz.Entity
	}{
		{"not configured", "spiffe://corp.example/agent/clerk", nil, authz.Entity{}},
		{"configured", "spiffe://corp.example/agent/clerk", map[string]string{"spiffe://corp.example/agent/clerk": "clerk"}, clerk},
		{"another", "spiffe://corp.example/agent/clerk/x", map[string]string{"spiffe://corp.example/agent/clerk": "clerk"}, authz.Entity{}},
		{"none", "", map[string]string{"spiffe://corp.example/agent/clerk": "clerk"}, authz.Entity{}},
	} {
		e := serve(t, allowAll, func(c *extauthz.Config) { c.Peers = tt.peers })
		req.Attributes.Source.Principal = tt.principal
		e.check(t, req)
		got := authz.Entity{}
		if a := e.last().Asserted; a != nil {
			got = a.Subject
		}
		if got != tt.want || e.last().Credential != (authz.Credential{}) {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestHealthSaysWhetherItCanDecide(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	e := serve(t, allowAll, func(c *extauthz.Config) {
		c.Health = func() error {
			if full.Load() {
				return errors.New("the disk is full")
			}
			return nil
		}
	})
	check := func(service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := healthv1.NewHealthClient(e.conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
		return r.GetStatus(), err
	}
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		if s, err := check(service); err != nil || s != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v %v", service, s, err)
		}
	}
	if _, err := check("other"); status.Code(err) != codes.NotFound {
		t.Errorf("another service: %v", err)
	}
	full.Store(true)
	if s, err := check(""); err != nil || s != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("with a fault: %v %v", s, err)
	}
}

// What could not be read is asked about all the same: the attempt is on the
// record, an allow of it is withdrawn, and who is denied for another reason
// learns nothing of the API.
func TestWhatCannotBeReadIsOnTheRecordAndTellsStrangersNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*authv3.CheckRequest)
		action string
		input  string
		detail string
	}{
		{"no operation", path("/v1/" + strings.Repeat("a", 300)), "pets/GET /v1/" + strings.Repeat("a", 252) + "…", "", "No operation"},
		{"no argument", path("/v1/pets/7?other=1"), "pets/getPet", "null", "not known to the operation"},
	} {
		req := sample(t, "get")
		tt.change(req)
		e := serve(t, allowAll, nil)
		r := e.check(t, req)
		if got := e.last(); allows(r) || got.Action != tt.action || string(got.Input) != tt.input {
			t.Errorf("%s: decided %s %s: %v", tt.name, got.Action, got.Input, r)
		}
		if len(e.outcomes) != 1 || e.outcomes[0].Status != authz.OutcomeNotRun || e.outcomes[0].Decision != "d1" {
			t.Errorf("%s: outcomes %v", tt.name, e.outcomes)
		}
		if body := r.GetDeniedResponse().GetBody(); !strings.Contains(body, tt.detail) {
			t.Errorf("%s: %s", tt.name, body)
		}
		e = serve(t, denies(authz.ReasonUnauthenticated), nil)
		if d := e.check(t, req).GetDeniedResponse(); d.GetStatus().GetCode() != 401 || strings.Contains(d.GetBody(), tt.detail) {
			t.Errorf("%s: a stranger is told %v", tt.name, d)
		}
	}
}

// A fault that comes with a denial is told as that denial.
func TestAFaultKeepsItsDenial(t *testing.T) {
	t.Parallel()
	e := serve(t, func(context.Context, authz.Request) (authz.Decision, error) {
		return authz.Deny(authz.ReasonAuditDown, "It could not be recorded."), errors.New("disk full")
	}, nil)
	if d := e.check(t, sample(t, "get")).GetDeniedResponse(); d.GetStatus().GetCode() != 503 || !strings.Contains(d.GetBody(), authz.ReasonAuditDown) {
		t.Errorf("got %v", d)
	}
}

// The API with the longest prefix is meant where hosts are shared.
func TestAnAPIIsFoundByHostAndPrefix(t *testing.T) {
	t.Parallel()
	e := serve(t, allowAll, func(c *extauthz.Config) {
		r := c.APIs[0].Router
		c.APIs = []extauthz.API{
			{Name: "all", Router: r, Hosts: []string{"pets.test"}}, {Name: "v1", Router: r, Hosts: []string{"pets.test"}, Prefix: "/v1"},
			{Name: "nowhere", Router: r},
		}
	})
	for target, want := range map[string]string{"/v1/pets/7": "v1/getPet", "/pets/7": "all/getPet", "/v1x/pets": "all/GET /v1x/pets"} {
		req := sample(t, "get")
		delete(req.Attributes.ContextExtensions, "bailiwick.api")
		path(target)(req)
		e.check(t, req)
		if got := e.last().Action; got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	req := sample(t, "get")
	delete(req.Attributes.ContextExtensions, "bailiwick.api")
	httpOf(req).Host = "other.test"
	delete(httpOf(req).Headers, ":authority")
	if r := e.check(t, req); allows(r) || !strings.Contains(r.GetDeniedResponse().GetBody(), "not_found") {
		t.Errorf("a host of no API: %v", r)
	}
}
