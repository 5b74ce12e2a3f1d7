package httpgate

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// decisionHeader names the decision in an answer.
const decisionHeader = "Bailiwick-Decision"

// passed are the request headers that reach an upstream, beside the arguments:
// they say how to answer, not what to do. What is not here may be a claim (who
// the caller is, where it comes from) that the upstream would believe of the
// gate.
var passed = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Language", "Content-Type", "If-Match", "If-Modified-Since",
	"If-None-Match", "If-Range", "If-Unmodified-Since", "Idempotency-Key", "Pragma", "Prefer", "Range", "Traceparent", "Tracestate",
	"User-Agent", "X-Request-Id",
}

// ownHeader reports headers that frame a message or are the gate's own, so that
// they can carry no credential.
func ownHeader(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	return slices.Contains(passed, name) || slices.Contains(hopByHop, name) || slices.Contains([]string{"Host", "Content-Length", "Expect", decisionHeader}, name)
}

// requestHeader is the header of the request to the upstream.
func requestHeader(in http.Header, arguments []string, body bool, c Credential) http.Header {
	out := http.Header{}
	for _, name := range slices.Concat(passed, arguments) {
		if values := in.Values(name); len(values) > 0 && (body || !strings.HasPrefix(name, "Content-")) {
			out[name] = slices.Clone(values)
		}
	}
	if c.Header != "" {
		out.Set(c.Header, c.Value)
	}
	return out
}

// hopByHop are the headers of one connection (RFC 9110 §7.6.1).
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// withheld are headers of an answer that are for the gate, or that would bind
// the agent to the upstream behind the gate's back: cookies, credentials it is
// asked for, other ways to reach the same server, who else may read the answer.
var withheld = []string{
	"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Authentication-Info", "Proxy-Authentication-Info", "Alt-Svc", "Strict-Transport-Security",
	"Public-Key-Pins", "Clear-Site-Data", "Refresh", "Nel", "Report-To", "Reporting-Endpoints", "Service-Worker-Allowed", decisionHeader,
}

// withhold removes from an answer what the agent must not get, and returns how
// many of the headers held a secret.
func withhold(h http.Header, secrets []string) (leaks int) {
	for _, name := range withheld {
		h.Del(name)
	}
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
			continue
		}
		for _, s := range secrets {
			if strings.Contains(strings.ToLower(name), strings.ToLower(s)) || slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, s) }) {
				delete(h, name)
				leaks++
				break
			}
		}
	}
	return leaks
}

// hasToken reports whether a list header has a token (RFC 9110 §5.6.1).
func hasToken(values []string, want string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), want) {
				return true
			}
		}
	}
	return false
}

// visible reports whether a text can stand in a header.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// token reports whether a text is a token (RFC 9110 §5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= 0x20 || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
