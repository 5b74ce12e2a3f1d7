package mcpgate

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
)

// Reasons of the gate itself, beside those of package authz.
const (
	reasonMalformed     = "malformed"           // not a message of the protocol
	reasonSyntax        = "syntax"              // not JSON
	reasonMediaType     = "media_type"          // not application/json
	reasonTooLarge      = "too_large"           // more than the gate reads
	reasonParams        = "params_invalid"      // the params cannot be judged
	reasonVersion       = "version_unsupported" // a version that the gate does not speak
	reasonBusy          = "busy"                // no room for another call
	reasonDuplicate     = "duplicate_id"        // the id is in flight
	reasonState         = "state_invalid"       // a requestState that is not the gate's own, or not for this
	reasonNotFound      = "not_found"           // nothing of that name behind the gate
	reasonUninitialized = "not_initialized"     // the session has not been initialized
	reasonCancelled     = "cancelled"           // the client took the request back
	reasonUpstreamLost  = "upstream_lost"       // the server's answer was lost
)

// metaDenial is the member of a tool result's _meta that says why a call was
// not made.
const metaDenial = "dev.bailiwick/denial"

// A refusal is why the gate does not do what it was asked, as the client may
// know it.
type refusal struct {
	reason   string // code
	message  string // one sentence
	decision string // id of the decision, if there was one
	data     map[string]any
	better   *authz.Challenge // what another token would have to show
}

func (r *refusal) Error() string { return r.reason + ": " + r.message }

func refuse(reason, message string) *refusal { return &refusal{reason: reason, message: message} }

// denied turns a decision that denies into what the client is told of it.
func denied(d authz.Decision) *refusal {
	r := &refusal{reason: d.Code(), message: d.Message(), decision: d.ID, better: d.Challenge}
	if len(d.Remedies) > 0 { // what would change it
		r.data = map[string]any{"remedies": d.Remedies}
	}
	return r
}

// cutOff is what a client learns of a call that was under way when something of
// it was suspended.
func cutOff(why *revoke.Cut) *refusal {
	return refuse(why.Code, why.Message+" The call was cut off; what it asked may or may not have been done.")
}

// A mapping says how a refusal is told.
type mapping struct {
	code   int  // JSON-RPC error code
	status int  // HTTP status in the modern era, and of 401 in both
	result bool // a tools/call is told by a tool result, so that the model reads it
}

// mappings is the one table from reasons to protocol errors. A reason that is
// not listed is a denial by policy.
var mappings = map[string]mapping{
	authz.ReasonUnauthenticated: {code: codeDenied, status: http.StatusUnauthorized},
	authz.ReasonSessionMismatch: {code: codeDenied, status: http.StatusNotFound},

	authz.ReasonIdentityDown:      {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonPolicyUnavailable: {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonSessionDown:       {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonAuditDown:         {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonDeadline:          {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonEntitiesDown:      {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonBudgetDown:        {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonRevocationUnknown: {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonOverloaded:        {code: mcp.CodeInternalError, status: http.StatusServiceUnavailable},
	authz.ReasonInternal:          {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonPDPDown:           {code: mcp.CodeInternalError, status: http.StatusOK},
	authz.ReasonUpstreamDown:      {code: mcp.CodeInternalError, status: http.StatusOK},
	reasonUpstreamLost:            {code: mcp.CodeInternalError, status: http.StatusOK},
	reasonCancelled:               {code: mcp.CodeInternalError, status: http.StatusOK},
	reasonBusy:                    {code: mcp.CodeInternalError, status: http.StatusServiceUnavailable},

	authz.ReasonMethodUnknown:  {code: mcp.CodeMethodNotFound, status: http.StatusNotFound},
	authz.ReasonHeaderMismatch: {code: mcp.CodeHeaderMismatch, status: http.StatusBadRequest},
	reasonSyntax:               {code: mcp.CodeParseError, status: http.StatusBadRequest},
	reasonMediaType:            {code: mcp.CodeInvalidRequest, status: http.StatusUnsupportedMediaType},
	reasonTooLarge:             {code: mcp.CodeInvalidRequest, status: http.StatusRequestEntityTooLarge},
	reasonMalformed:            {code: mcp.CodeInvalidRequest, status: http.StatusBadRequest},
	reasonDuplicate:            {code: mcp.CodeInvalidRequest, status: http.StatusBadRequest},
	reasonUninitialized:        {code: mcp.CodeInvalidRequest, status: http.StatusBadRequest},
	reasonParams:               {code: mcp.CodeInvalidParams, status: http.StatusBadRequest},
	reasonState:                {code: mcp.CodeInvalidParams, status: http.StatusBadRequest},
	reasonNotFound:             {code: mcp.CodeInvalidParams, status: http.StatusBadRequest},
	reasonVersion:              {code: codeUnsupportedVersion, status: http.StatusBadRequest},
}

var denial = mapping{code: codeDenied, status: http.StatusOK, result: true}

// An answer is what a client gets for a request.
type answer struct {
	msg *mcp.Message
	// status is the HTTP status when msg is told as one JSON object.
	status int
	// refused is why, and better what another credential would have to show, for
	// asking for one.
	refused string
	better  *authz.Challenge
	// challenge are the values of WWW-Authenticate.
	challenge []string
	// events says that the server itself has answered with a stream.
	events bool
}

// tell tells a refusal of what is no message, to a client of either era.
func (r *refusal) tell(id json.RawMessage) answer {
	if id == nil {
		id = json.RawMessage("null")
	}
	m := mappings[r.reason]
	return answer{msg: mcp.NewError(id, m.code, r.message, map[string]any{"code": r.reason}), status: m.status}
}

// answer tells a refusal in the words of the protocol.
func (r *refusal) answer(req *mcp.Message, era mcp.Era, structured bool) answer {
	m, listed := mappings[r.reason]
	if !listed {
		m = denial
	}
	// COAZ-MCP, unknown methods, asks for a denial; MCP 2026-07-28 for "method
	// not found", which a client understands better. The record has both.
	if r.reason == authz.ReasonToolUnknown && req.Method() != methodCall {
		m = mappings[authz.ReasonMethodUnknown]
	}
	a := answer{status: http.StatusOK}
	a.refused, a.better = r.reason, r.better
	if m.status == http.StatusUnauthorized {
		a.status = m.status
	} else if era == mcp.Modern {
		a.status = m.status
	}
	why := map[string]any{"code": r.reason}
	if r.decision != "" {
		why["decision"] = r.decision
	}
	for k, v := range r.data {
		why[k] = v
	}
	if m.result && req.Method() == methodCall {
		a.msg = mcp.NewResult(req.ID(), toolDenial(r.message, why, era, structured))
		return a
	}
	a.msg = mcp.NewError(req.ID(), m.code, r.message, why)
	return a
}

// toolDenial is the result of a tool call that was not made. The reason is
// structured content as well, unless the tool promised a schema for that.
func toolDenial(message string, why map[string]any, era mcp.Era, structured bool) json.RawMessage {
	full := map[string]any{"message": message}
	for k, v := range why {
		full[k] = v
	}
	result := map[string]any{
		"content": []map[string]string{{"type": "text", "text": message}},
		"isError": true,
		"_meta":   map[string]any{metaDenial: full},
	}
	if structured {
		result["structuredContent"] = map[string]any{"denied": full}
	}
	if era == mcp.Modern {
		result["resultType"] = "complete"
	}
	return raw(result)
}

// upstreamFault is what a client learns when a server could not be reached or
// did not answer.
func upstreamFault(server string, err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	f := refuse(reasonUpstreamLost, "The answer of the server "+quote(server)+" was lost; what it was asked may or may not have been done.")
	if errors.Is(err, mcp.ErrNotSent) {
		f = refuse(authz.ReasonUpstreamDown, "The server "+quote(server)+" could not be reached; nothing was done.")
	}
	f.data = map[string]any{"server": server}
	return f
}
