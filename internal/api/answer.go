package api

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// requestable is how long a denial can be taken to the access request
// endpoint.
const requestable = 10 * time.Minute

// stamp is RFC 3339 with milliseconds.
const stamp = "2006-01-02T15:04:05.000Z07:00"

// appendDecision appends a decision (AuthZEN 1.0 §5.5). Policies are not told:
// whoever may ask would learn them one question at a time.
func (a *API) appendDecision(b []byte, d *authz.Decision) []byte {
	b = append(b, `{"decision":`...)
	b = strconv.AppendBool(b, d.Allow)
	b = append(b, `,"context":{`...)
	if d.ID != "" {
		b = append(b, `"evaluation_id":`...)
		b = quote(b, d.ID)
		b = append(b, ',')
	}
	if !d.Time.IsZero() {
		b = append(b, `"evaluated_at":"`...)
		b = d.Time.UTC().AppendFormat(b, stamp)
		b = append(b, `",`...)
	}
	if !d.Allow || d.Observed {
		b = appendReason(b, d)
	}
	b = appendObligations(b, d.Obligations)
	if !d.Allow {
		b = a.appendWays(b, d)
	}
	return append(trimComma(b), "}}"...)
}

// appendReason appends the machine's and the user's reason (ARAP, Requestable
// Denial Context; AuthZEN 1.0 §5.5.2.1).
func appendReason(b []byte, d *authz.Decision) []byte {
	code := d.Code()
	if d.Observed {
		b = append(b, `"observed":true,`...)
	}
	b = append(b, `"reason":`...)
	b = quote(b, code)
	b = append(b, `,"reason_user":{"`...)
	b = strconv.AppendInt(b, int64(reasonStatus(code)), 10)
	b = append(b, `":`...)
	b = quote(b, d.Message())
	return append(b, `},`...)
}

func appendObligations(b []byte, obligations []authz.Obligation) []byte {
	if len(obligations) == 0 {
		return b
	}
	b = append(b, `"obligations":[`...)
	for _, o := range obligations {
		b = append(b, `{"id":`...)
		b = quote(b, o.ID)
		b = append(b, `,"type":`...)
		b = quote(b, o.Type)
		if len(o.Properties) > 0 {
			b = append(b, `,"properties":`...)
			b = append(b, o.Properties...)
		}
		b = append(b, `},`...)
	}
	return append(trimComma(b), `],`...)
}

// appendWays appends what would change a denial.
func (a *API) appendWays(b []byte, d *authz.Decision) []byte {
	if len(d.Remedies) == 0 {
		return b
	}
	b = append(b, `"remedies":[`...)
	for _, r := range d.Remedies {
		b = appendRemedy(b, r)
	}
	b = append(trimComma(b), `],`...)
	if i := slices.IndexFunc(d.Remedies, isStepUp); i >= 0 {
		b = appendStepUp(b, d.Remedies[i])
	}
	// ARAP: without the id there is nothing that binds the access request to the
	// denial.
	if i := slices.IndexFunc(d.Remedies, isGrant); i >= 0 && a.AccessRequests != "" && d.ID != "" && !d.Time.IsZero() {
		b = a.appendAccessRequest(b, d.Remedies[i], d.Time)
	}
	return b
}

func appendRemedy(b []byte, r authz.Remedy) []byte {
	b = append(b, '[')
	for _, f := range r {
		b = append(b, `{"kind":`...)
		b = quote(b, string(f.Kind))
		if f.Name != "" {
			b = append(b, `,"name":`...)
			b = quote(b, f.Name)
		}
		if f.Level != 0 {
			b = append(b, `,"level":`...)
			b = strconv.AppendInt(b, f.Level, 10)
		}
		if f.MaxAge != 0 {
			b = append(b, `,"max_age":`...)
			b = strconv.AppendInt(b, f.MaxAge, 10)
		}
		b = append(b, `},`...)
	}
	return append(trimComma(b), `],`...)
}

// isStepUp reports whether the subject alone can give the facts, by
// authenticating.
func isStepUp(r authz.Remedy) bool {
	return all(r, authz.FactLevel, authz.FactFresh)
}

// isGrant reports whether other people can give the facts.
func isGrant(r authz.Remedy) bool {
	return all(r, authz.FactApproval, authz.FactElevation)
}

func all(r authz.Remedy, kinds ...authz.FactKind) bool {
	return len(r) > 0 && !slices.ContainsFunc(r, func(f authz.Fact) bool { return !slices.Contains(kinds, f.Kind) })
}

// appendStepUp says which authentication is wanted, in the way of AuthZEN 1.0
// §5.5.2.3 and RFC 9470 §3. Levels are numbers here; which acr value reaches
// one is for the operator's token issuer to say.
func appendStepUp(b []byte, r authz.Remedy) []byte {
	b = append(b, `"step_up":{`...)
	for _, f := range r {
		if f.Kind == authz.FactLevel {
			b = append(b, `"acr_level":`...)
			b = strconv.AppendInt(b, f.Level, 10)
		} else {
			b = append(b, `"max_age":`...)
			b = strconv.AppendInt(b, f.MaxAge, 10)
		}
		b = append(b, ',')
	}
	return append(trimComma(b), `},`...)
}

// appendAccessRequest makes a denial requestable (ARAP, Requestable Denial
// Context). evaluation_id binds it.
func (a *API) appendAccessRequest(b []byte, r authz.Remedy, at time.Time) []byte {
	b = append(b, `"access_request":{"endpoint":`...)
	b = quote(b, a.AccessRequests)
	b = append(b, `,"template":`...)
	b = quote(b, template(r))
	b = append(b, `,"expires_at":"`...)
	b = at.Add(requestable).UTC().AppendFormat(b, stamp)
	b = append(b, `","display":{"title":"Request access","description":`...)
	b = quote(b, wish(r))
	return append(b, `}},`...)
}

// template names the kind of grant, so that the same one is always asked for
// by the same name.
func template(r authz.Remedy) string {
	names := make([]string, len(r))
	for i, f := range r {
		names[i] = string(f.Kind) + ":" + f.Name
	}
	return strings.Join(names, "+")
}

// wish is the grant in a sentence.
func wish(r authz.Remedy) string {
	parts := make([]string, len(r))
	for i, f := range r {
		parts[i] = "an approval by " + f.Name
		if f.Kind == authz.FactElevation {
			parts[i] = "a membership in " + f.Name
		}
	}
	s := strings.Join(parts, " and ")
	return strings.ToUpper(s[:1]) + s[1:] + " would allow this."
}

// trimComma takes a comma off the end.
func trimComma(b []byte) []byte {
	if b[len(b)-1] == ',' {
		return b[:len(b)-1]
	}
	return b
}
