package extauthz

import (
	"context"
	"encoding/pem"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// apiExtension is the context extension by which a route of Envoy names its API.
const apiExtension = "bailiwick.api"

// partialHeader says whether Envoy sends all of a body. Envoy removes it from
// what clients send.
const partialHeader = "X-Envoy-Auth-Partial-Body"

// Register adds Envoy's authorization service and gRPC's health service to a
// server that the caller starts. It registers no reflection.
func (g *Gate) Register(s grpc.ServiceRegistrar) {
	authv3.RegisterAuthorizationServer(s, &checker{gate: g})
	healthv1.RegisterHealthServer(s, &health{gate: g})
}

// A checker is envoy.service.auth.v3.Authorization. It answers every call, for
// Envoy can be told to let through what gets no answer (failure_mode_allow).
type checker struct {
	authv3.UnimplementedAuthorizationServer
	gate *Gate
}

// Check implements the service. The error is always nil.
func (c *checker) Check(ctx context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	var m *message
	a := c.gate.contained(func() answer {
		md, _ := metadata.FromIncomingContext(ctx)
		gateway, ok := bearer(md.Get("authorization"))
		if !ok {
			c.gate.Logger.Warn("gateway shows no key", "gate", gateEnvoy)
			return noGateway()
		}
		if m = read(in); m == nil {
			return refuse(reasonMalformed, "What the gateway says of the request contradicts itself.")
		}
		api := c.gate.located(m)
		if name, ok := in.GetAttributes().GetContextExtensions()[apiExtension]; ok {
			api = c.gate.named(name, m)
		}
		return c.gate.judge(ctx, gateway, api, m)
	})
	if !a.allow || m == nil {
		return refusedCheck(a), nil
	}
	return allowedCheck(a, m), nil
}

// read is the request that Envoy describes, or nil if the description is not
// one of a request.
func read(in *authv3.CheckRequest) *message {
	r := in.GetAttributes().GetRequest().GetHttp()
	if r == nil || r.GetQuery() != "" || r.GetFragment() != "" {
		return nil
	}
	m := &message{
		method: r.GetMethod(), target: r.GetPath(), host: r.GetHost(), body: r.GetRawBody(),
		peer: in.GetAttributes().GetSource().GetPrincipal(), gate: gateEnvoy, scheme: r.GetScheme(),
	}
	pseudo, ok := m.readHeaders(r)
	if !ok {
		return nil
	}
	if m.certificates, ok = peerCertificate(in.GetAttributes().GetSource().GetCertificate()); !ok {
		return nil
	}
	for name, want := range map[string]string{":method": m.method, ":path": m.target, ":authority": m.host} {
		if values := pseudo[name]; len(values) > 1 || len(values) == 1 && values[0] != want {
			return nil
		}
	}
	m.whole = wholeBody(m.header, m.body)
	if len(r.GetBody()) > 0 {
		// What is not UTF-8 in it has been replaced, so it may not be the body.
		m.body, m.whole = []byte(r.GetBody()), false
	}
	return m
}

// peerCertificate reads the client's certificate as Envoy sends it with
// include_peer_certificate: PEM, percent-encoded. It reports false for what is
// none.
func peerCertificate(encoded string) (der string, ok bool) {
	text, err := url.PathUnescape(encoded)
	if err != nil {
		return "", false
	}
	for rest := []byte(text); len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return "", false
		}
		der += string(block.Bytes)
	}
	return der, true
}

// readHeaders reads the headers and the pseudo-headers. It reports false for
// what no gateway sends.
func (m *message) readHeaders(r *authv3.AttributeContext_HttpRequest) (pseudo map[string][]string, ok bool) {
	m.header, pseudo = http.Header{}, map[string][]string{}
	raw := r.GetHeaderMap().GetHeaders()
	if len(raw) > 0 && len(r.GetHeaders()) > 0 {
		return nil, false
	}
	m.joined = len(raw) == 0
	ok = true
	add := func(name, value string) {
		switch {
		case strings.HasPrefix(name, ":"):
			pseudo[name] = append(pseudo[name], value)
		case !token(name) || name != strings.ToLower(name):
			ok = false
		default:
			key := textproto.CanonicalMIMEHeaderKey(name)
			m.header[key] = append(m.header[key], value)
		}
	}
	for name, value := range r.GetHeaders() {
		add(name, value)
	}
	for _, h := range raw {
		value := string(h.GetRawValue())
		if h.GetValue() != "" {
			if value != "" {
				return nil, false
			}
			value = h.GetValue()
		}
		add(h.GetKey(), value)
	}
	return pseudo, ok
}

// wholeBody reports whether a body that Envoy sends is all of it. No body at all
// is one only if the client said so: it may be that Envoy is not told to send it.
func wholeBody(h http.Header, body []byte) bool {
	lengths := h["Content-Length"]
	if len(lengths) > 1 || len(lengths) == 1 && lengths[0] != strconv.Itoa(len(body)) {
		return false
	}
	if len(body) == 0 {
		return len(lengths) == 1 && len(h["Transfer-Encoding"]) == 0
	}
	partial := h[partialHeader]
	return len(partial) == 1 && partial[0] == "false"
}

// token reports whether a text is a token (RFC 9110 §5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= 0x20 || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// refusedCheck tells Envoy to deny. A response without a status would be an
// allow.
func refusedCheck(a answer) *authv3.CheckResponse {
	f := a.known()
	code := codes.PermissionDenied
	if f.Status == http.StatusUnauthorized {
		code = codes.Unauthenticated
	}
	out := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(f.Status)}, Body: string(f.body())}
	headers := f.headers()
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		out.Headers = append(out.Headers, overwrite(name, headers[name]))
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(code), Message: f.Code},
		HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: out},
		DynamicMetadata: dynamic(a),
	}
}

// allowedCheck tells Envoy to let the request through, without what an upstream
// could take for a claim of the gateway.
func allowedCheck(a answer, m *message) *authv3.CheckResponse {
	out := &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{overwrite(decisionHeader, a.id)}}
	remove := map[string]bool{"authorization": true}
	for name := range m.header {
		// The decision's header is overwritten; removing comes after that.
		if lower := strings.ToLower(name); claims(lower) && name != decisionHeader && !slices.Contains(a.arguments, name) {
			remove[lower] = true
		}
	}
	out.HeadersToRemove = slices.Sorted(maps.Keys(remove))
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: out},
		DynamicMetadata: dynamic(a),
	}
}

func overwrite(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// dynamic is what other filters and the access log of Envoy may know.
func dynamic(a answer) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"decision_id": structpb.NewStringValue(a.id), "policy_version": structpb.NewStringValue(a.version),
	}}
}

// A health is grpc.health.v1.Health. It has no Watch: a stream would outlive
// the server's patience when it stops.
type health struct {
	healthv1.UnimplementedHealthServer
	gate *Gate
}

// Check implements the service for the whole server and for that of Envoy.
func (h *health) Check(_ context.Context, in *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	if s := in.GetService(); s != "" && s != authv3.Authorization_ServiceDesc.ServiceName {
		return nil, grpcstatus.Error(codes.NotFound, "unknown service")
	}
	if h.gate.Health != nil && h.gate.Health() != nil {
		return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_NOT_SERVING}, nil
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}
