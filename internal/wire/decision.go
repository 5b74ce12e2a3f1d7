package wire

import (
	"fmt"
	"strconv"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
)

// AppendDecision appends a decision, without the policies that determined it.
func AppendDecision(b []byte, d *authz.Decision) ([]byte, error) {
	w := writer{b: b}
	w.open("")
	w.text("id", d.ID)
	w.bool("allow", d.Allow)
	if d.Observed {
		w.bool("observed", true)
	}
	list(&w, "reasons", d.Reasons, func(r authz.Reason) {
		w.open("")
		w.mustText("code", r.Code)
		w.text("message", r.Message)
		w.close()
	})
	list(&w, "obligations", d.Obligations, func(o authz.Obligation) {
		w.open("")
		w.mustText("id", o.ID)
		w.mustText("type", o.Type)
		w.raw("properties", o.Properties)
		w.close()
	})
	list(&w, "remedies", d.Remedies, func(r authz.Remedy) {
		w.b = append(w.b, '[')
		for _, f := range r {
			w.fact(f)
		}
		w.trim()
		w.b = append(w.b, "],"...)
	})
	list(&w, "scope", d.Scope, func(e authz.Entity) {
		w.open("")
		w.mustText("type", e.Type)
		w.mustText("id", e.ID)
		w.close()
	})
	if c := d.Challenge; c != nil {
		w.open("challenge")
		w.texts("acr", c.ACR)
		w.integer("max_age", c.MaxAge)
		w.texts("scopes", c.Scopes)
		w.close()
	}
	w.text("version", d.Version)
	if !d.Time.IsZero() {
		w.text("time", d.Time.UTC().Format(time.RFC3339Nano))
	}
	w.close()
	return w.end()
}

func (w *writer) fact(f authz.Fact) {
	w.open("")
	w.mustText("kind", string(f.Kind))
	w.text("name", f.Name)
	w.integer("level", f.Level)
	w.integer("max_age", f.MaxAge)
	w.close()
}

// list writes an array, unless it is empty.
func list[T any](w *writer, name string, values []T, write func(T)) {
	if len(values) == 0 {
		return
	}
	w.name(name)
	w.b = append(w.b, '[')
	for _, v := range values {
		write(v)
	}
	w.trim()
	w.b = append(w.b, "],"...)
}

// ParseDecision reads a decision. With an error it is the zero decision, which
// denies. An allow without the id of its record, a denial without a reason and
// a decision that does not say allow are errors.
func ParseDecision(r *ijson.Reader, text []byte) (authz.Decision, error) {
	f := begin(r, text)
	d := f.decision()
	if err := f.end(); err != nil {
		return authz.Decision{}, fmt.Errorf("read decision: %w", err)
	}
	return d, nil
}

func (f *form) decision() (d authz.Decision) {
	said := false
	f.object("the decision", func(member string) bool {
		switch member {
		case "id":
			d.ID = f.text(member)
		case "allow":
			d.Allow, said = f.bool(member), true
		case "observed":
			d.Observed = f.bool(member)
		case "reasons":
			f.array(member, func() { d.Reasons = append(d.Reasons, f.reason()) })
		case "obligations":
			f.array(member, func() { d.Obligations = append(d.Obligations, f.obligation()) })
		case "remedies":
			f.array(member, func() { d.Remedies = append(d.Remedies, f.remedy()) })
		case "scope":
			f.array(member, func() { d.Scope = append(d.Scope, f.entity("scope")) })
		case "challenge":
			d.Challenge = f.challenge()
		case "version":
			d.Version = f.text(member)
		case "time":
			d.Time = f.time(member)
		default:
			return false
		}
		return true
	})
	switch {
	case !said:
		f.complain("allow is missing")
	case d.Allow && d.ID == "":
		f.complain("an allow must have the id of its record")
	case !d.Allow && len(d.Reasons) == 0:
		f.complain("a denial must have a reason")
	case d.Observed && !d.Allow:
		f.complain("a denial that is observed must be an allow")
	}
	return d
}

func (f *form) reason() (r authz.Reason) {
	f.object("a reason", func(member string) bool {
		switch member {
		case "code":
			r.Code = f.text(member)
		case "message":
			r.Message = f.text(member)
		default:
			return false
		}
		return true
	})
	if r.Code == "" {
		f.complain("a reason must have a code")
	}
	return r
}

func (f *form) obligation() (o authz.Obligation) {
	f.object("an obligation", func(member string) bool {
		switch member {
		case "id":
			o.ID = f.text(member)
		case "type":
			o.Type = f.text(member)
		case "properties":
			o.Properties = f.raw(member)
		default:
			return false
		}
		return true
	})
	if o.Type == "" {
		f.complain("an obligation must have a type")
	}
	return o
}

func (f *form) challenge() *authz.Challenge {
	c := &authz.Challenge{}
	f.object("challenge", func(member string) bool {
		switch member {
		case "acr":
			f.array(member, func() { c.ACR = append(c.ACR, f.text("an acr")) })
		case "max_age":
			c.MaxAge = f.integer(member)
		case "scopes":
			f.array(member, func() { c.Scopes = append(c.Scopes, f.text("a scope")) })
		default:
			return false
		}
		return true
	})
	return c
}

func (f *form) remedy() (r authz.Remedy) {
	f.array("a remedy", func() { r = append(r, f.fact()) })
	return r
}

func (f *form) fact() (t authz.Fact) {
	f.object("a fact", func(member string) bool {
		switch member {
		case "kind":
			t.Kind = authz.FactKind(f.text(member))
		case "name":
			t.Name = f.text(member)
		case "level":
			t.Level = f.integer(member)
		case "max_age":
			t.MaxAge = f.integer(member)
		default:
			return false
		}
		return true
	})
	return t
}

func (f *form) time(what string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, f.text(what))
	if err != nil {
		f.complain(what + " must be an RFC 3339 time")
		return time.Time{}
	}
	return t.UTC()
}

// AppendReach appends which operations are reachable, in their order.
func AppendReach(b []byte, reach []bool) []byte {
	b = append(b, `{"reachable":[`...)
	for i, ok := range reach {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendBool(b, ok)
	}
	return append(b, "]}"...)
}

// ParseReach reads which of n operations are reachable.
func ParseReach(r *ijson.Reader, text []byte, n int) ([]bool, error) {
	f := begin(r, text)
	var reach []bool
	f.object("the answer", func(member string) bool {
		if member != "reachable" {
			return false
		}
		f.array(member, func() { reach = append(reach, f.bool(member)) })
		return true
	})
	if len(reach) != n {
		f.complain("reachable must have as many elements as there are operations")
	}
	if err := f.end(); err != nil {
		return nil, fmt.Errorf("read what is reachable: %w", err)
	}
	return reach, nil
}
