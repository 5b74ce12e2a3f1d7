package catalog

import (
	"math"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

// parseDatetime reads RFC 3339 (JSON Schema "date-time") or its full-date
// ("date", midnight UTC). What is finer than a Cedar millisecond is cut off.
func parseDatetime(s string) (types.Datetime, bool) {
	layout := time.RFC3339Nano
	if len(s) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	t, err := time.Parse(layout, s)
	return types.NewDatetime(t), err == nil
}

// parseDuration reads an ISO 8601 duration (RFC 3339 appendix A) of weeks,
// days and smaller. Years and months have no fixed length, and milliseconds
// are the finest that Cedar has.
func parseDuration(s string) (types.Duration, bool) {
	if len(s) < 3 || s[0] != 'P' {
		return types.Duration{}, false
	}
	units := []durationUnit{{'W', 7 * 24 * time.Hour}, {'D', 24 * time.Hour}}
	var total int64
	inTime, some := false, false
	for s = s[1:]; len(s) > 0; {
		if s[0] == 'T' && !inTime {
			inTime, some = true, false
			units = []durationUnit{{'H', time.Hour}, {'M', time.Minute}, {'S', time.Second}}
			s = s[1:]
			continue
		}
		n, rest, ok := leadingNumber(s)
		if !ok || len(rest) == 0 {
			return types.Duration{}, false
		}
		for len(units) > 0 && units[0].name != rest[0] {
			units = units[1:]
		}
		if len(units) == 0 {
			return types.Duration{}, false
		}
		per := units[0].length.Milliseconds()
		if n > (math.MaxInt64-total)/per {
			return types.Duration{}, false
		}
		total += n * per
		units, s, some = units[1:], rest[1:], true
	}
	return types.NewDurationFromMillis(total), some
}

type durationUnit struct {
	name   byte
	length time.Duration
}

func leadingNumber(s string) (n int64, rest string, ok bool) {
	i := 0
	for ; i < len(s) && isDigit(s[i]); i++ {
		if n > (math.MaxInt64-9)/10 {
			return 0, "", false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, s[i:], i > 0
}
