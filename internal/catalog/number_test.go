package catalog

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"pgregory.net/rapid"
)

func TestParseNumber(t *testing.T) {
	for _, tt := range []struct {
		in          string
		want        string // as Cedar writes it; "" if it does not fit
		exact       bool
		wantRounded string
	}{
		{"0", "0.0", true, "0.0"},
		{"-0", "0.0", true, "0.0"},
		{"1", "1.0", true, "1.0"},
		{"-12.5", "-12.5", true, "-12.5"},
		{"0.0001", "0.0001", true, "0.0001"},
		{"1e2", "100.0", true, "100.0"},
		{"1.5E-3", "0.0015", true, "0.0015"},
		{"0.00000", "0.0", true, "0.0"},
		{"2.00004", "", false, "2.0"},
		{"2.00005", "", false, "2.0001"},
		{"-2.00005", "", false, "-2.0001"},
		{"0.00001", "", false, "0.0"},
		{"1e-400", "", false, "0.0"},
		{"922337203685477.5807", "922337203685477.5807", true, "922337203685477.5807"},
		{"922337203685477.5808", "", false, ""},
		{"1e400", "", false, ""},
		{"1e99999999999999999999", "", false, ""},
		{"1e-99999999999999999999", "", false, "0.0"},
		{"0e99999999999999999999", "0.0", true, "0.0"},
	} {
		d, fits, exact := parseNumber([]byte(tt.in), false)
		if got := fits && exact; got != (tt.want != "") || got && d.String() != tt.want {
			t.Errorf("%s: got %v, fits %t, exact %t; want %q", tt.in, d, fits, exact, tt.want)
		}
		d, fits, _ = parseNumber([]byte(tt.in), true)
		if fits != (tt.wantRounded != "") || fits && d.String() != tt.wantRounded {
			t.Errorf("%s rounded: got %v, fits %t; want %q", tt.in, d, fits, tt.wantRounded)
		}
	}
}

// numberText is any number of JSON.
func numberText() *rapid.Generator[string] {
	return rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?`)
}

func TestNumbersAreExactOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := numberText().Draw(t, "number")
		want, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%q is no number", text)
		}
		scaled := new(big.Rat).Mul(want, big.NewRat(10000, 1))
		representable := scaled.IsInt() && scaled.Num().IsInt64()
		d, fits, exact := parseNumber([]byte(text), false)
		if got := fits && exact; got != representable && scaled.Num().String() != "-9223372036854775808" {
			t.Fatalf("%s: accepted is %t, want %t", text, got, representable)
		}
		if fits && exact {
			if got, _ := new(big.Rat).SetString(d.String()); got.Cmp(want) != 0 {
				t.Fatalf("%s became %s", text, d)
			}
		}
		n, isLong := parseLong([]byte(text))
		if isLong && new(big.Rat).SetInt64(int64(n)).Cmp(want) != 0 {
			t.Fatalf("%s became the integer %d", text, n)
		}
		if plain := !strings.ContainsAny(text, ".eE"); plain && want.Num().IsInt64() != isLong {
			t.Fatalf("%s: integer is %t", text, isLong)
		}
	})
}

func TestParseDuration(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"P1D", 24 * time.Hour, true},
		{"P2W", 14 * 24 * time.Hour, true},
		{"PT1H30M", 90 * time.Minute, true},
		{"P1DT2H3M4S", 26*time.Hour + 3*time.Minute + 4*time.Second, true},
		{in: "P1Y"}, {in: "P1M"}, {in: "P"}, {in: "PT"}, {in: "P1DT"}, {in: "1D"}, {in: "PT1M1H"}, {in: "PTT1H"}, {in: "P1H"},
		{in: "PT99999999999999999999S"}, {in: "P99999999999999D"}, {in: "-P1D"}, {in: ""},
	} {
		got, ok := parseDuration(tt.in)
		if ok != tt.ok || ok && got != types.NewDuration(tt.want) {
			t.Errorf("%q: got %v, %t; want %v, %t", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}
