// Package authz is the vocabulary of Bailiwick: the request a policy
// enforcement point asks about, and the decision it gets.
//
// The words are those of the AuthZEN Authorization API 1.0. The package is
// pure: it reads no clock, file, network or environment.
package authz

import (
	"encoding/json"
	"time"
)

// An Entity is a subject or a resource (AuthZEN 1.0 §5.1, §5.2). The zero
// Entity means "not said".
type Entity struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// IsZero reports whether e names nothing.
func (e Entity) IsZero() bool { return e == Entity{} }

// A Credential is what a caller showed to prove who it is. It is verified by
// the PDP and never recorded, logged or forwarded.
type Credential struct {
	// Kind is one of the Credential constants; the zero Kind proves nothing.
	Kind CredentialKind
	// Value is the secret itself: a bearer token or an agent key. For
	// [CredentialLocal] it is the agent's id.
	Value string
	// Proof is the DPoP proof that came with a token (RFC 9449 §4), of a request
	// with this Method and URL as the gate received it.
	Proof, Method, URL string
	// Certificates is the certificate chain of the client, in DER, the leaf
	// first. It comes from the TLS connection that the gate itself ended: that
	// the client holds the leaf's key is proven, and nothing else. Empty: none.
	Certificates string
	// OnBehalf is the token of whoever has handed the task to the agent, which the
	// agent asks to exchange (RFC 8693). Empty but at the exchange itself.
	OnBehalf string
	// Exchange names the one request in which all this was shown, so that a
	// proof may be asked about several times within it and never in another.
	// Unguessable; empty for what is asked about once.
	Exchange string
}

// A CredentialKind says how a [Credential] is to be verified.
type CredentialKind string

// The kinds of credential.
const (
	// CredentialNone is a caller that showed nothing.
	CredentialNone CredentialKind = ""
	// CredentialBearer is an agent key or a JWT from an Authorization header.
	CredentialBearer CredentialKind = "bearer"
	// CredentialDPoP is a JWT that is bound to a key, and a proof of it (RFC
	// 9449).
	CredentialDPoP CredentialKind = "dpop"
	// CredentialCertificate is a client certificate and nothing else.
	CredentialCertificate CredentialKind = "certificate"
	// CredentialLocal is an agent named by the operator who started this very
	// process (bailiwick run). No network gate may produce it.
	CredentialLocal CredentialKind = "local"
)

// String hides the value, so that a credential that is printed by mistake
// leaks nothing.
func (c Credential) String() string { return "credential(" + string(c.Kind) + ")" }

// GoString hides the value.
func (c Credential) GoString() string { return c.String() }

// MarshalJSON hides the value too.
func (c Credential) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// A Request is one question: may this subject do this action to this
// resource, now?
type Request struct {
	// ID is the id of the decision. The PDP assigns one; a value set by a PEP
	// is ignored.
	ID string
	// Credential proves the acting agent. The PDP verifies it.
	Credential Credential
	// PEP proves the enforcement point that asks. Zero: the gate is a part of
	// the PDP's own process. A gate that passes on what somebody else's PEP
	// asks always sets its Kind, so that a PEP which shows nothing is refused.
	PEP Credential
	// Asserted is what a PEP says of the request and the PDP cannot prove. Nil
	// when there is nothing of the kind.
	Asserted *Assertion
	// Action is the name of a catalogue operation, "<server>/<tool>", or of a
	// method of the protocol itself, "mcp:<method>". With Asserted it may be the
	// name of an action of the PEP's application.
	Action string
	// Server is the upstream that would act, when the gate knows it.
	Server string
	// Resource is what is touched. Zero lets the catalogue map it from the
	// input, or name the server.
	Resource Entity
	// Input is the arguments, exactly as they will be sent to the upstream:
	// one JSON object, or empty for none.
	Input json.RawMessage
	// Definition is the digest ([Digest]) of the tool definition that the gate
	// is going to call. Empty when the PEP does not know it.
	Definition string
	// Session names the agent run, as the gate knows it. It belongs to the first
	// subject that comes with it.
	Session string
	// Run names one run among those of the subject, when the gate knows no
	// session: what another subject calls the same is another run.
	Run string
	// Gate names the enforcement point, for example "mcp-http".
	Gate string
	// Advisory says that whoever asks acts by itself and reports no outcome.
	Advisory bool
	// Correlation is the caller's own id of the request (a JSON-RPC id, an
	// X-Request-ID), kept in the record for joining logs. Bounded by the gate.
	Correlation string
}

// An Assertion is what a PEP says beside what is proven (AuthZEN 1.0 §5). What
// it says of an entity fills what the PDP does not know and never overrides
// what it knows, and only a PEP that may say it is believed.
type Assertion struct {
	// Subject is who acts. Zero: the agent that the credential proves.
	Subject Entity
	// SubjectProperties, ActionProperties, ResourceProperties and Context are
	// JSON objects (I-JSON), or empty.
	SubjectProperties  json.RawMessage
	ActionProperties   json.RawMessage
	ResourceProperties json.RawMessage
	Context            json.RawMessage
}

// A Decision is the answer to a request. Its zero value denies.
type Decision struct {
	// ID identifies the decision and its record.
	ID string
	// Allow says whether the action may run.
	Allow bool
	// Observed is set when policy denied and the action may run all the same
	// because the plane is in observe mode. Allow is then true, and Reasons
	// say why it would have been denied.
	Observed bool
	// Reasons say why, the most important first. A denial has at least one.
	Reasons []Reason
	// Policies are the determining policies. For operators: never shown to an
	// agent.
	Policies []PolicyRef
	// Obligations must be met for the decision to hold.
	Obligations []Obligation
	// Remedies are all smallest sets of facts under which the same policies
	// would allow the same request. A denial without any is final. An allow has
	// none.
	Remedies []Remedy
	// Scope is whom and what an allow concerns, under the names by which each can
	// be suspended. A gate that holds something open gives it up when any of them
	// is. For our own gates: never shown to an agent.
	Scope []Entity
	// Challenge is what another token would have to show for this to be allowed,
	// where that alone would do and the agent came with a token. Nil otherwise.
	Challenge *Challenge
	// Version is the digest of the policy set that decided.
	Version string
	// Time is when it was decided.
	Time time.Time
}

// A Remedy is a set of facts which together would turn a denial into an allow.
type Remedy []Fact

// A Challenge tells an OAuth client what to ask its authorization server for.
type Challenge struct {
	// ACR are the authentication contexts of which any will do, the weakest
	// first (RFC 9470 §3, acr_values).
	ACR []string
	// MaxAge is how long ago, in seconds, the authentication may have been (RFC
	// 9470 §3, max_age). Zero: it does not matter.
	MaxAge int64
	// Scopes are what the token needs besides (RFC 6750 §3, scope).
	Scopes []string
}

// A Fact is something that a person or the subject could still prove or give.
// It is an input to policy: policy decides again once it is there.
type Fact struct {
	// Kind is one of the Fact constants.
	Kind FactKind `json:"kind"`
	// Name is the role that approves, the group of an elevation, or the scope.
	Name string `json:"name,omitempty"`
	// Level is the authentication level that is needed at least.
	Level int64 `json:"level,omitempty"`
	// MaxAge is how long ago, in seconds, the authentication may have been.
	MaxAge int64 `json:"max_age,omitempty"`
}

// A FactKind says what a [Fact] is.
type FactKind string

// The kinds of fact.
const (
	// FactApproval: somebody of the role Name approves this very request.
	FactApproval FactKind = "approval"
	// FactLevel: the subject authenticates at the level Level or above.
	FactLevel FactKind = "auth_level"
	// FactFresh: the subject authenticates anew, not longer than MaxAge ago.
	FactFresh FactKind = "auth_age"
	// FactElevation: the agent becomes a member of the group Name.
	FactElevation FactKind = "elevation"
	// FactScope: the agent's token has the scope Name.
	FactScope FactKind = "scope"
)

// A Reason explains a decision to whoever is told of it.
type Reason struct {
	// Code is stable and machine-readable; see the Reason constants.
	Code string `json:"code"`
	// Message is one sentence without policy text and without secrets, fit for
	// the agent.
	Message string `json:"message"`
}

// Reason codes. A gate maps each to its protocol's error.
const (
	ReasonPolicyAllow       = "allowed"              // a permit matched and no forbid
	ReasonNoPermit          = "no_permit"            // nothing permits this
	ReasonForbidden         = "forbidden"            // a forbid matched
	ReasonPolicyError       = "policy_error"         // a policy could not be evaluated
	ReasonPolicyUnavailable = "policy_unavailable"   // no policy set is loaded
	ReasonUnauthenticated   = "unauthenticated"      // the credential proves nobody
	ReasonIdentityDown      = "identity_unavailable" // the credential could not be checked
	ReasonSessionDown       = "session_unavailable"  // the session's state could not be read
	ReasonSessionMismatch   = "session_mismatch"     // the session belongs to another subject
	ReasonToolUnknown       = "tool_unknown"         // the operation is not in the pinned catalogue
	ReasonToolChanged       = "tool_changed"         // the server changed the tool's definition
	ReasonInputInvalid      = "input_invalid"        // the arguments do not fit the operation's type
	ReasonAuditDown         = "audit_unavailable"    // the decision could not be recorded
	ReasonDeadline          = "deadline_exceeded"    // the decision took too long
	ReasonInternal          = "internal"             // a fault of ours
	ReasonObligationUnmet   = "obligation_unmet"     // the gate could not carry out an obligation
	ReasonMethodUnknown     = "method_unknown"       // the protocol method is not one the gate knows
	ReasonPDPDown           = "pdp_unavailable"      // the gate could not reach a PDP
	ReasonUpstreamDown      = "upstream_unavailable" // the upstream could not be reached (outcome, not decision)
	ReasonHeaderMismatch    = "header_mismatch"      // mirrored headers disagree with the body
	ReasonAssertion         = "assertion_refused"    // the PEP says what it may not say
	ReasonEntitiesDown      = "entities_unavailable" // what is known of the entities could not be read
	ReasonOverloaded        = "overloaded"           // there is more to decide than can be decided
	ReasonAgentSuspended    = "agent_suspended"      // an agent is suspended, by the registry or at run time
	ReasonSessionSuspended  = "session_suspended"    // the session is suspended
	ReasonOwnerSuspended    = "owner_suspended"      // the person acted for, or who owns the agent, is suspended
	ReasonToolSuspended     = "tool_suspended"       // the tool is suspended
	ReasonServerSuspended   = "server_suspended"     // the server is suspended
	ReasonGroupSuspended    = "group_suspended"      // a group of the agent is suspended
	ReasonKilled            = "killed"               // everything is suspended
	ReasonBudgetExhausted   = "budget_exhausted"     // a budget does not have what the action may use up
	ReasonBreakerOpen       = "breaker_open"         // it has failed too often lately
	ReasonBudgetDown        = "budget_unavailable"   // what is used up could not be counted
	ReasonRevocationUnknown = "revocation_unknown"   // what is suspended could not be found out
	ReasonAgentRetired      = "agent_retired"        // the registry says that an agent may never act again
	ReasonAgentUnknown      = "agent_unknown"        // the agent is not in the registry, and has to be
)

// A PolicyRef points at one policy.
type PolicyRef struct {
	// ID is the policy's @id annotation.
	ID string `json:"id"`
	// Effect is "permit" or "forbid".
	Effect string `json:"effect"`
	// File and Line say where it stands; Line counts from 1.
	File string `json:"file"`
	Line int    `json:"line"`
	// Error is set when the policy could not be evaluated.
	Error string `json:"error,omitempty"`
}

// An Obligation is what a PEP must do for a decision to hold (AuthZEN
// Obligations profile, draft 1).
type Obligation struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Properties json.RawMessage `json:"properties,omitempty"`
}

// A Prompt is what the user said to the agent in a session, as the program that
// the user talks to relays it.
type Prompt struct {
	// PEP proves the program.
	PEP Credential
	// Credential proves the agent, or Subject names it, as far as the program may.
	Credential Credential
	Subject    Entity
	// Session or Run names the session as in the agent's requests. Neither: the
	// one that all requests of the agent share that name none.
	Session, Run string
	// Text is what the user said, at most [MaxPrompt] bytes. It is not recorded.
	Text string
}

// MaxPrompt is how many bytes one [Prompt] may have.
const MaxPrompt = 64 << 10

// An Outcome is what became of an action that a decision released.
type Outcome struct {
	// Decision is the id of the decision.
	Decision string
	// Status is one of the Outcome constants.
	Status OutcomeStatus
	// Bytes is the size of the upstream's answer.
	Bytes int64
	// Error is a short, secret-free description when Status is not success.
	Error string
	// Ours says that the agent's side, the gate or the plane ended the action, so
	// that the outcome says nothing of the upstream.
	Ours bool
	// Output is what the agent gets to see, part by part, each a JSON document or
	// plain text: the session learns from it which values are from where. It is
	// reported before the agent sees it, and not recorded. At most [MaxOutput]
	// bytes in all; Cut says that there was more.
	Output []string
	Cut    bool
}

// MaxOutput is how many bytes of [Outcome.Output] a PDP takes.
const MaxOutput = 256 << 10

// An OutcomeStatus classifies an [Outcome].
type OutcomeStatus string

// The outcomes.
const (
	// OutcomeSuccess: the upstream answered without an error.
	OutcomeSuccess OutcomeStatus = "success"
	// OutcomeError: the upstream answered with an error.
	OutcomeError OutcomeStatus = "error"
	// OutcomeAmbiguous: the request may have reached the upstream and its
	// answer was lost.
	OutcomeAmbiguous OutcomeStatus = "ambiguous"
	// OutcomeNotRun: the request certainly never reached the upstream.
	OutcomeNotRun OutcomeStatus = "not_run"
)

// Deny returns a denial for one reason.
func Deny(code, message string) Decision {
	return Decision{Reasons: []Reason{{Code: code, Message: message}}}
}

// Code returns the code of the first reason, or "internal" for a denial that
// gives none.
func (d Decision) Code() string {
	if len(d.Reasons) == 0 {
		return ReasonInternal
	}
	return d.Reasons[0].Code
}

// Message returns the sentence of the first reason.
func (d Decision) Message() string {
	if len(d.Reasons) == 0 {
		return "The request was denied."
	}
	return d.Reasons[0].Message
}
