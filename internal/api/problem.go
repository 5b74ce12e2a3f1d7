package api

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// A problem is why a whole request is not answered (AuthZEN 1.0 §10.1.2). It
// says nothing of policy, and what to do next.
type problem struct {
	status  int
	code    string
	message string
	header  string // name of a header that belongs to it
	value   string
}

func badRequest(message string) *problem {
	return &problem{status: http.StatusBadRequest, code: "bad_request", message: message}
}

func tooLarge() *problem {
	return &problem{status: http.StatusRequestEntityTooLarge, code: "too_large", message: "The body is larger than this server reads; ask for less at once."}
}

func notFound() *problem {
	return &problem{status: http.StatusNotFound, code: "not_found", message: "There is no such endpoint; /.well-known/authzen-configuration lists those of AuthZEN."}
}

func wrongMethod(allow string) *problem {
	return &problem{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "Use " + allow + ".", header: "Allow", value: allow}
}

// unauthenticated is for a PEP that has not proven who it is (AuthZEN 1.0
// §11.3).
func unauthenticated() *problem {
	return &problem{
		status: http.StatusUnauthorized, code: authz.ReasonUnauthenticated,
		message: "The enforcement point did not prove who it is; send its key or token as 'Authorization: Bearer'.",
		header:  "WWW-Authenticate", value: `Bearer realm="bailiwick"`,
	}
}

func refused() *problem {
	return &problem{status: http.StatusForbidden, code: "refused", message: "This enforcement point may not ask this; an operator can grant it."}
}

func overloaded() *problem {
	return &problem{
		status: http.StatusTooManyRequests, code: authz.ReasonOverloaded,
		message: "There is more to decide than can be decided; try again after a pause.", header: "Retry-After", value: "1",
	}
}

func faulty() *problem {
	return &problem{status: http.StatusInternalServerError, code: authz.ReasonInternal, message: "This could not be answered; an operator finds the cause in the log."}
}

func unavailable() *problem {
	return &problem{
		status: http.StatusServiceUnavailable, code: "unavailable",
		message: "This could not be answered now; try again after a pause.", header: "Retry-After", value: "1",
	}
}

// errOurs is an error of the program, which asking again does not change. Any
// other error of the decider may pass.
var errOurs = errors.New("a fault of the program")

// fault says what a PEP is told of an error of the decider.
func (e *exchange) fault(what string, err error) *problem {
	if errors.Is(err, pep.ErrRefused) {
		if e.credential().Value == "" {
			return unauthenticated()
		}
		return refused()
	}
	e.api.Logger.Error("request failed", "request", what, "error", err)
	if errors.Is(err, errOurs) {
		return faulty()
	}
	return unavailable()
}

// fail answers with a problem.
func (e *exchange) fail(p *problem) {
	b := append(e.buf[:0], `{"error":{"status":`...)
	b = strconv.AppendInt(b, int64(p.status), 10)
	b = append(b, `,"code":`...)
	b = quote(b, p.code)
	b = append(b, `,"message":`...)
	b = quote(b, p.message)
	e.buf = append(b, "}}"...)
	if p.header != "" {
		e.w.Header().Set(p.header, p.value)
	}
	e.write(p.status)
}

// write sends the answer.
func (e *exchange) write(status int) {
	h := e.w.Header()
	h["Content-Type"] = e.api.typeJSON
	if h["Cache-Control"] == nil {
		h["Cache-Control"] = e.api.noStore
	}
	h["Content-Length"] = []string{strconv.Itoa(len(e.buf))}
	e.w.WriteHeader(status)
	// A PEP that has gone away has no answer, which is a denial.
	_, _ = e.w.Write(e.buf)
}

// quote appends a JSON string. What is not UTF-8 in it is replaced.
func quote(b []byte, s string) []byte {
	// The error says only that something was replaced.
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// reasonStatus is the HTTP status that corresponds to a reason, for PEPs that
// know those better (AuthZEN 1.0 §5.5.2.1, example 1). A PDP's fault is told
// apart from a denial that asking again does not change.
func reasonStatus(code string) int {
	switch code {
	case authz.ReasonInputInvalid, authz.ReasonHeaderMismatch:
		return http.StatusBadRequest
	case authz.ReasonToolUnknown, authz.ReasonMethodUnknown:
		return http.StatusNotFound
	case authz.ReasonOverloaded, authz.ReasonBudgetExhausted:
		return http.StatusTooManyRequests
	case authz.ReasonPolicyError, authz.ReasonInternal:
		return http.StatusInternalServerError
	case authz.ReasonPolicyUnavailable, authz.ReasonIdentityDown, authz.ReasonSessionDown, authz.ReasonAuditDown, authz.ReasonEntitiesDown,
		authz.ReasonPDPDown, authz.ReasonDeadline, authz.ReasonRevocationUnknown, authz.ReasonBudgetDown, authz.ReasonBreakerOpen:
		return http.StatusServiceUnavailable
	default:
		return http.StatusForbidden
	}
}
