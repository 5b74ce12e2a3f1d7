package audit

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-dev/bailiwick/authz"
)

// fill sets all that v holds to values that are not zero, or, with a chance of
// one in empty, to what is: nil, a list of none.
func fill(t *testing.T, r *rand.Rand, v reflect.Value, empty int) {
	if tm, ok := v.Addr().Interface().(*time.Time); ok {
		*tm = time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).In(time.FixedZone("", 60*r.IntN(600)))
		return
	}
	if empty > 0 && r.IntN(empty) == 0 {
		if v.Kind() == reflect.Slice && r.IntN(2) == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, r, v.Field(i), empty)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, r, v.Elem(), empty)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 3))
		for i := range v.Len() {
			fill(t, r, v.Index(i), empty)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + r.IntN(12) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, r, key, 0)
			fill(t, r, value, empty)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(text(r))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64() - r.Int64())
	default:
		t.Fatalf("a record holds a %s, which nobody has thought of", v.Type())
	}
}

// text is mostly plain, and often not.
func text(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(6) {
		switch r.IntN(4) {
		case 0:
			b.WriteByte(byte(r.IntN(256)))
		case 1:
			b.WriteRune([]rune{'<', '"', '\\', '\n', 0x7f, 0x80, 0x2028, 0x2029, '…', '🙂', 0xfffd}[r.IntN(11)])
		default:
			b.WriteString("plain text")
		}
	}
	return b.String()
}

// The groups are encoded as encoding/json would: all fields are there, under
// their names, in their order, and whatever they hold.
func TestGroupsAreEncodedAsByEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	compare := func(want any, encode func(*jsonWriter)) {
		t.Helper()
		text, err := json.Marshal(want)
		w := jsonWriter{}
		encode(&w)
		if err != nil || w.err != nil || string(w.b) != string(text) {
			t.Fatalf("encoded %s %v\nwant    %s %v", w.b, w.err, text, err)
		}
	}
	for i := range 5000 {
		empty := []int{0, 2, 5}[i%3]
		var (
			who     Who
			what    What
			why     Why
			outcome Outcome
		)
		for _, v := range []any{&who, &what, &why, &outcome} {
			fill(t, r, reflect.ValueOf(v).Elem(), empty)
		}
		compare(who, func(w *jsonWriter) { w.who(&who) })
		compare(what, func(w *jsonWriter) { w.what(&what) })
		compare(why, func(w *jsonWriter) { w.why(&why) })
		compare(outcome, func(w *jsonWriter) { w.outcome(&outcome) })
	}
	for c := range 256 { // each byte, alone and within
		for _, s := range []string{string([]byte{byte(c)}), fmt.Sprintf("a%cb", c), "a" + string([]byte{byte(c)}) + "b"} {
			compare(s, func(w *jsonWriter) { w.text(s) })
		}
	}
}

// What cannot be encoded is an error, not a record with a hole.
func TestGroupThatCannotBeEncodedIsInvalid(t *testing.T) {
	for name, started := range map[string]time.Time{
		"year 10000": time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		"year -1":    time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if _, err := seal(Record{Kind: KindDecision, Decision: "d", Why: &Why{Session: &Session{Started: started}}}); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

// No nonce is used twice, within a record or between two.
func TestNoncesAreFresh(t *testing.T) {
	seen := map[[nonceSize]byte]bool{}
	for range 100 {
		s, err := seal(Record{Kind: KindDecision, Decision: "d", Who: &Who{}, What: &What{}, Why: &Why{}, Input: []byte("{}"),
			Outcome: &Outcome{Status: authz.OutcomeSuccess}, System: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		os, err := parsePayload(s.payload)
		if err != nil {
			t.Fatal(err)
		}
		for g := range groupCount {
			if o := &os[g]; !o.has || seen[o.nonce] || o.nonce == [nonceSize]byte{} {
				t.Fatalf("group %s: there %t, nonce %x", g, o.has, o.nonce)
			}
			seen[os[g].nonce] = true
		}
	}
}

// The leaves of a commit share memory and not bytes: who appends to one does
// not write into the next.
func TestLeavesOfACommitAreApart(t *testing.T) {
	s, err := seal(Record{Kind: KindDecision, Decision: "d", Why: &Why{}})
	if err != nil {
		t.Fatal(err)
	}
	first, b := s.at(0, make([]byte, 0, 2*s.leafRoom()))
	second, _ := s.at(1, b)
	_ = append(first.Leaf, "something that is longer than a prefix"...)
	if hashLeaf(second.Leaf) != second.Hash {
		t.Errorf("the second leaf is %s", second.Leaf)
	}
}

// A record that is kept does not keep, or change with, what it was read from.
func TestRecordSharesNoMemoryWithItsEntry(t *testing.T) {
	want := Record{Kind: KindSystem, Effect: "tested", Input: []byte(`{"a":1}`), System: []byte(`{"b":2}`)}
	s, err := seal(want)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := s.at(0, nil)
	got, err := Decode(e)
	if err != nil {
		t.Fatal(err)
	}
	clear(e.Payload)
	if diff := cmp.Diff(want, got.Record, cmpopts.IgnoreFields(Record{}, "Time")); diff != "" {
		t.Errorf("after its entry was cleared (-want +got):\n%s", diff)
	}
}
