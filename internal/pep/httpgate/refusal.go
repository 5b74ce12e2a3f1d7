package httpgate

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// Reasons of the gate itself, beside those of package authz.
const (
	reasonNotFound       = "not_found"            // no API of that name
	reasonMalformed      = "malformed"            // not a request that can be passed on
	reasonMethod         = "method_not_allowed"   // a method that is never passed on
	reasonTooLarge       = "too_large"            // more than the gate reads
	reasonBusy           = "busy"                 // no room for another call
	reasonUpstreamLost   = "upstream_lost"        // the upstream's answer was lost
	reasonUpstreamSlow   = "upstream_timeout"     // the upstream did not answer in time
	reasonUpstreamDenies = "upstream_credentials" // the upstream does not accept the gate's credential
)

// A refusal is why the gate does not do what it was asked, as the agent may
// know it: RFC 9457.
type refusal struct {
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Code     string         `json:"code"`
	Decision string         `json:"decision,omitempty"`
	Remedies []authz.Remedy `json:"remedies,omitempty"`

	challenge []string // WWW-Authenticate
}

// statuses is the one table from reasons to HTTP. A reason that is not listed
// is a denial by policy.
var statuses = map[string]int{
	authz.ReasonUnauthenticated: http.StatusUnauthorized,
	authz.ReasonInputInvalid:    http.StatusBadRequest,

	authz.ReasonOverloaded:        http.StatusTooManyRequests,
	authz.ReasonIdentityDown:      http.StatusServiceUnavailable,
	authz.ReasonPolicyUnavailable: http.StatusServiceUnavailable,
	authz.ReasonSessionDown:       http.StatusServiceUnavailable,
	authz.ReasonBudgetExhausted:   http.StatusTooManyRequests,
	authz.ReasonBreakerOpen:       http.StatusServiceUnavailable,
	authz.ReasonBudgetDown:        http.StatusServiceUnavailable,
	authz.ReasonRevocationUnknown: http.StatusServiceUnavailable,
	authz.ReasonEntitiesDown:      http.StatusServiceUnavailable,
	authz.ReasonAuditDown:         http.StatusServiceUnavailable,
	authz.ReasonDeadline:          http.StatusServiceUnavailable,
	authz.ReasonPDPDown:           http.StatusServiceUnavailable,
	authz.ReasonInternal:          http.StatusInternalServerError,
	authz.ReasonUpstreamDown:      http.StatusBadGateway,

	reasonNotFound:       http.StatusNotFound,
	reasonMalformed:      http.StatusBadRequest,
	reasonMethod:         http.StatusMethodNotAllowed,
	reasonTooLarge:       http.StatusRequestEntityTooLarge,
	reasonBusy:           http.StatusServiceUnavailable,
	reasonUpstreamLost:   http.StatusBadGateway,
	reasonUpstreamSlow:   http.StatusGatewayTimeout,
	reasonUpstreamDenies: http.StatusBadGateway,
}

func refuse(code, message string) *refusal {
	status, listed := statuses[code]
	if !listed {
		status = http.StatusForbidden
	}
	return &refusal{Title: http.StatusText(status), Status: status, Detail: message, Code: code}
}

// denied turns a decision that denies into what the agent is told of it.
func denied(d authz.Decision) *refusal {
	f := refuse(d.Code(), d.Message())
	f.Decision, f.Remedies = d.ID, d.Remedies
	return f
}

// door adds how the agent could prove itself, or prove more, if that would help.
func (f *refusal) door(at pep.Door, shown authz.CredentialKind, d authz.Decision) {
	if f.Code != d.Code() {
		return // it is refused for another reason than the decision's
	}
	if status, lines := at.Challenge(shown, f.Code, d.Challenge); status != 0 {
		f.Status, f.Title, f.challenge = status, http.StatusText(status), lines
	}
}

// unreadable says what is wrong with a request that could not be read. A denial
// for another reason says more: who does not prove who it is learns nothing of
// the API.
func unreadable(err error, d authz.Decision) *refusal {
	code := authz.ReasonToolUnknown
	var in *openapi.InputError
	if errors.As(err, &in) {
		code = authz.ReasonInputInvalid
	}
	if !d.Allow && d.Code() != code {
		return denied(d)
	}
	f := refuse(code, sentence(err))
	f.Decision = d.ID
	return f
}

// sentence makes a clause fit to be read.
func sentence(err error) string {
	s := clip(err.Error(), 400)
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// write answers with a refusal.
func (f *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if f.Decision != "" {
		h.Set(decisionHeader, f.Decision)
	}
	if len(f.challenge) > 0 {
		h["Www-Authenticate"] = f.challenge
	}
	switch f.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	case http.StatusMethodNotAllowed:
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	w.WriteHeader(f.Status)
	// A client that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(f)
}
