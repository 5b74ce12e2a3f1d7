package extauthz

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// Reasons of these enforcement points, beside those of package authz.
const (
	reasonNotFound  = "not_found"               // no API of that name or host
	reasonMalformed = "malformed"               // not a request that can be decided
	reasonGateway   = "gateway_unauthenticated" // the gateway shows no key
)

// A refusal is why a request may not pass, as the agent may know it: RFC 9457.
type refusal struct {
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Code     string         `json:"code"`
	Decision string         `json:"decision,omitempty"`
	Remedies []authz.Remedy `json:"remedies,omitempty"`

	challenge string // WWW-Authenticate
}

// statusOf is the one table from reasons to HTTP. Gateways know how to pass on
// few statuses, so what is not listed is a denial.
func statusOf(code string) int {
	switch code {
	case authz.ReasonUnauthenticated, reasonGateway:
		return http.StatusUnauthorized
	case authz.ReasonOverloaded, authz.ReasonBudgetExhausted:
		return http.StatusTooManyRequests
	case authz.ReasonIdentityDown, authz.ReasonPolicyUnavailable, authz.ReasonSessionDown, authz.ReasonEntitiesDown, authz.ReasonAuditDown,
		authz.ReasonDeadline, authz.ReasonPDPDown, authz.ReasonRevocationUnknown, authz.ReasonBudgetDown, authz.ReasonBreakerOpen:
		return http.StatusServiceUnavailable
	default:
		return http.StatusForbidden
	}
}

func refuse(code, message string) answer {
	status := statusOf(code)
	return answer{refusal: refusal{Title: http.StatusText(status), Status: status, Detail: message, Code: code}}
}

// noGateway is for a gateway that shows no key.
func noGateway() answer {
	return refuse(reasonGateway, "The gateway did not show its key, so it is told nothing.")
}

// denied turns a decision that denies into what the agent is told of it.
func denied(d authz.Decision) answer {
	a := refuse(d.Code(), d.Message())
	a.id, a.version = d.ID, d.Version
	a.refusal.Decision, a.refusal.Remedies = d.ID, d.Remedies
	return a
}

// door adds how the agent could prove itself, or prove more, if that would
// help. Gateways set headers by name, so several challenges are one list (RFC
// 9110 §5.3).
func (a answer) door(at pep.Door, shown authz.CredentialKind, d authz.Decision) answer {
	if a.refusal.Code != d.Code() {
		return a // it is refused for another reason than the decision's
	}
	if status, lines := at.Challenge(shown, d.Code(), d.Challenge); status != 0 {
		a.refusal.Status, a.refusal.Title, a.refusal.challenge = status, http.StatusText(status), strings.Join(lines, ", ")
	}
	return a
}

// unreadable says what is wrong with a request that could not be read. A denial
// for another reason says more: who does not prove who it is learns nothing of
// the API.
func unreadable(err error, d authz.Decision) answer {
	code := authz.ReasonToolUnknown
	var in *openapi.InputError
	if errors.As(err, &in) || errors.Is(err, openapi.ErrNoBody) {
		code = authz.ReasonInputInvalid
	}
	if !d.Allow && d.Code() != code {
		return denied(d)
	}
	a := refuse(code, sentence(err))
	a.id, a.version, a.refusal.Decision = d.ID, d.Version, d.ID
	return a
}

// headers are the headers of the answer to the agent.
func (f *refusal) headers() map[string]string {
	h := map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	}
	if f.Decision != "" {
		h[decisionHeader] = f.Decision
	}
	if f.Status == http.StatusUnauthorized || f.challenge != "" {
		h["WWW-Authenticate"] = cmp.Or(f.challenge, `Bearer realm="bailiwick"`)
	}
	switch f.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h["Retry-After"] = "1"
	}
	return h
}

// body is the refusal as the agent reads it.
func (f *refusal) body() []byte {
	// Nothing in a refusal fails to be JSON.
	b, _ := json.Marshal(f)
	return append(b, '\n')
}

// known is the refusal of an answer that denies; the zero answer has a fault of
// ours behind it.
func (a answer) known() *refusal {
	if a.refusal.Status == 0 {
		a = refuse(authz.ReasonInternal, "The request could not be decided for a fault of ours.")
	}
	return &a.refusal
}
