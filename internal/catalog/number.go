package catalog

import (
	"math"
	"strconv"

	"github.com/cedar-policy/cedar-go/types"
)

// parseLong reads a JSON number as a Cedar Long. JSON Schema counts 5.0 and
// 5e2 among the integers.
func parseLong(s []byte) (types.Long, bool) {
	if n, err := strconv.ParseInt(string(s), 10, 64); err == nil {
		return types.Long(n), true
	}
	scaled, exact := parseScaled(s)
	if !exact || scaled%10000 != 0 {
		return 0, false
	}
	return types.Long(scaled / 10000), true
}

// parseNumber reads a JSON number as a Cedar decimal, which has four decimal
// places. It reports whether the number can be held, and whether without
// rounding.
func parseNumber(s []byte, round bool) (d types.Decimal, fits, exact bool) {
	scaled, exact := parseScaled(s)
	if !exact && (!round || scaled == overflow) {
		return types.Decimal{}, scaled != overflow, false
	}
	d, err := types.NewDecimal(scaled, -4)
	return d, err == nil, exact
}

// overflow is what parseScaled returns for a number that is too large.
const overflow = math.MinInt64

// parseScaled reads a JSON number times ten thousand, rounded to the nearest
// integer, halves away from zero. It takes time in proportion to the digits,
// whatever the exponent.
func parseScaled(s []byte) (scaled int64, exact bool) {
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	digits, point, exponent := splitNumber(s)
	// The value is 0.digits times ten to the power of point+exponent, and
	// so many digits are left of the point once it is scaled.
	keep := point + exponent + 4
	for len(digits) > 0 && digits[0] == '0' {
		digits, keep = digits[1:], keep-1
	}
	if len(digits) == 0 {
		return 0, true
	}
	if keep > 19 {
		return overflow, false
	}
	exact = true
	var n uint64
	for i := range max(keep, 0) {
		var d byte = '0'
		if i < len(digits) {
			d = digits[i]
		}
		if n > (math.MaxInt64-uint64(d-'0'))/10 {
			return overflow, false
		}
		n = n*10 + uint64(d-'0')
	}
	for i := max(keep, 0); i < len(digits); i++ {
		if digits[i] != '0' {
			exact = false
		}
	}
	if keep >= 0 && keep < len(digits) && digits[keep] >= '5' {
		n++
	}
	if n > math.MaxInt64 {
		return overflow, false
	}
	if negative {
		return -int64(n), exact
	}
	return int64(n), exact
}

// splitNumber returns the digits of a JSON number, how many of them are left
// of the point, and the exponent, bounded.
func splitNumber(s []byte) (digits []byte, point, exponent int) {
	point = -1
	digits = make([]byte, 0, 24)
	for i, c := range s {
		switch {
		case isDigit(c):
			digits = append(digits, c)
		case c == '.':
			point = len(digits)
		default: // 'e' or 'E'
			e, err := strconv.Atoi(string(s[i+1:]))
			if err != nil {
				// Out of the range of int: so far out that the sign decides.
				e = math.MaxInt32
				if i+1 < len(s) && s[i+1] == '-' {
					e = -e
				}
			}
			if point < 0 {
				point = len(digits)
			}
			return digits, point, max(-math.MaxInt32, min(e, math.MaxInt32))
		}
	}
	if point < 0 {
		point = len(digits)
	}
	return digits, point, 0
}
