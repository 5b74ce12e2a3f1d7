package pep

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// realm names what a challenge is for.
const realm = "bailiwick"

// A Door is where clients are asked to prove who they are.
type Door struct {
	// Metadata is the URL of the metadata of the protected resource (RFC 9728).
	// Empty: there is none.
	Metadata string
	// DPoP are the algorithms that proofs may be signed with, for clients that
	// can bind a token to a key. Empty: they are not told.
	DPoP []string
}

// Challenge is what a client is told that came with the wrong credential or
// none, or could be let through with a better token: the HTTP status, and the
// values of WWW-Authenticate. The status is 0 if another credential does not
// help.
func (d Door) Challenge(shown authz.CredentialKind, code string, better *authz.Challenge) (int, []string) {
	switch {
	case code == authz.ReasonUnauthenticated:
		return http.StatusUnauthorized, d.unproven(shown)
	case better == nil:
		return 0, nil
	case len(better.ACR) == 0 && better.MaxAge == 0: // RFC 6750 §3.1
		return http.StatusForbidden, []string{d.line(scheme(shown), param{"error", "insufficient_scope"},
			param{"scope", strings.Join(better.Scopes, " ")})}
	default: // RFC 9470 §3
		p := []param{
			{"error", "insufficient_user_authentication"},
			{"error_description", "A stronger or more recent authentication is needed."},
			{"acr_values", strings.Join(better.ACR, " ")},
		}
		if better.MaxAge > 0 {
			p = append(p, param{"max_age", strconv.FormatInt(better.MaxAge, 10)})
		}
		return http.StatusUnauthorized, []string{d.line(scheme(shown), append(p, param{"scope", strings.Join(better.Scopes, " ")})...)}
	}
}

// unproven asks for credentials. Who showed none learns of no error (RFC 6750
// §3.1).
func (d Door) unproven(shown authz.CredentialKind) []string {
	fault := param{"error", "invalid_token"}
	if shown == authz.CredentialNone {
		fault.value = ""
	}
	bearer, dpop := fault, param{}
	if shown == authz.CredentialDPoP {
		bearer, dpop = dpop, fault
	}
	lines := []string{d.line("Bearer", bearer)}
	if len(d.DPoP) > 0 || shown == authz.CredentialDPoP { // RFC 9449 §7.1
		lines = append(lines, d.line("DPoP", dpop, param{"algs", strings.Join(d.DPoP, " ")}))
	}
	return lines
}

func scheme(shown authz.CredentialKind) string {
	if shown == authz.CredentialDPoP {
		return "DPoP"
	}
	return "Bearer"
}

type param struct{ name, value string }

// line is one challenge (RFC 9110 §11.6.1).
func (d Door) line(scheme string, params ...param) string {
	out := scheme + ` realm="` + realm + `"`
	for _, p := range append(params, param{"resource_metadata", d.Metadata}) {
		if p.name != "" && p.value != "" {
			out += ", " + p.name + "=" + quoted(p.value)
		}
	}
	return out
}

// quoted is a quoted-string (RFC 9110 §5.6.4). What no header can hold is left
// out of it.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r < ' ' || r > '~':
			continue
		case r == '"' || r == '\\':
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	b.WriteByte('"')
	return b.String()
}
