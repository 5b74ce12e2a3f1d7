package typed

import (
	"regexp"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// An extension is how values of an extension type are written.
type extension struct {
	fn    string // the constructor
	want  string
	parse func(string) (types.Value, bool)
}

func extensionOf(t resolved.ExtensionType) (extension, bool) {
	switch t {
	case "decimal":
		return extension{"decimal", `a decimal number with one to four decimal places, like "1.5"`, parseDecimal}, true
	case "datetime":
		return extension{"datetime", `a date-time of RFC 3339, like "2026-01-31T12:00:00Z"`, parseDatetime}, true
	case "duration":
		return extension{"duration", `a duration, like "1h30m"`, parseDuration}, true
	case "ipaddr":
		return extension{"ip", `an IP address or range, like "10.0.0.0/8"`, parseIP}, true
	default:
		return extension{}, false
	}
}

// extension reads a string in the form of the type, Cedar's
// {"__extn":{"fn":…,"arg":…}}, or a number for a decimal.
func (r *reader) extension(t resolved.ExtensionType) (types.Value, error) {
	ext, ok := extensionOf(t)
	if !ok {
		return nil, r.errorf("has a type that is not known: %s", t)
	}
	switch kind := r.dec.PeekKind(); {
	case kind == '{':
		return r.explicit(ext)
	case kind == '0' && t == "decimal":
		tok, err := r.token(ext.want, '0')
		if err != nil {
			return nil, err
		}
		return r.parsed(ext, pointed(tok.String()))
	default:
		s, err := r.text(ext.want)
		if err != nil {
			return nil, err
		}
		return r.parsed(ext, s)
	}
}

func (r *reader) parsed(ext extension, s string) (types.Value, error) {
	v, ok := ext.parse(s)
	if !ok {
		return nil, r.errorf("is not %s", ext.want)
	}
	return v, nil
}

func (r *reader) explicit(ext extension) (types.Value, error) {
	var fn, arg string
	given := 0
	member := func(name string, to *string) error {
		given++
		return r.within(name, func() (err error) { *to, err = r.text("a string"); return err })
	}
	err := r.members(func(name string) error {
		if name != "__extn" {
			return r.beside(name)
		}
		if r.dec.PeekKind() != '{' {
			return r.wrong(ext.want)
		}
		return r.members(func(name string) error {
			switch name {
			case "fn":
				return member(name, &fn)
			case "arg":
				return member(name, &arg)
			default:
				return r.beside(name)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if given != 2 || fn != ext.fn {
		return nil, r.errorf("is not %s", ext.want)
	}
	return r.parsed(ext, arg)
}

// pointed makes a JSON number a decimal of Cedar, which always has a point. A
// number with an exponent stays what no decimal is: one that a decimal can hold
// needs none.
func pointed(n string) string {
	whole, places, _ := strings.Cut(n, ".")
	places = strings.TrimRight(places, "0")
	if places == "" {
		places = "0"
	}
	return whole + "." + places
}

func parseDecimal(s string) (types.Value, bool) {
	d, err := types.ParseDecimal(s)
	return d, err == nil
}

// rfc3339 is what time.Parse takes more than: "1:00:00,5" among others.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseDatetime reads Cedar's forms and RFC 3339. What is finer than a
// millisecond is cut off.
func parseDatetime(s string) (types.Value, bool) {
	if d, err := types.ParseDatetime(s); err == nil {
		return d, true
	}
	t, err := time.Parse(time.RFC3339, s)
	return types.NewDatetime(t), err == nil && rfc3339.MatchString(s)
}

func parseDuration(s string) (types.Value, bool) {
	d, err := types.ParseDuration(s)
	return d, err == nil
}

// parseIP refuses an IPv4 address in IPv6 clothes: it would slip out of the
// ranges that policies name.
func parseIP(s string) (types.Value, bool) {
	ip, err := types.ParseIPAddr(s)
	return ip, err == nil && !ip.Addr().Is4In6()
}
