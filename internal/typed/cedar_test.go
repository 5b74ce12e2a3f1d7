package typed_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"pgregory.net/rapid"

	"github.com/bailiwick-dev/bailiwick/internal/typed"
)

// conforms reports whether a value is of a type. It is written apart from the
// code under test.
func conforms(v types.Value, t resolved.IsType) bool {
	switch t := t.(type) {
	case resolved.RecordType:
		r, ok := v.(types.Record)
		if !ok {
			return false
		}
		for name, a := range t {
			m, there := r.Get(name)
			if there && !conforms(m, a.Type) || !there && !a.Optional {
				return false
			}
		}
		for name := range r.All() {
			if _, ok := t[name]; !ok {
				return false
			}
		}
		return true
	case resolved.SetType:
		s, ok := v.(types.Set)
		if !ok {
			return false
		}
		for e := range s.All() {
			if !conforms(e, t.Element) {
				return false
			}
		}
		return true
	case resolved.EntityType:
		uid, ok := v.(types.EntityUID)
		return ok && uid.Type == types.EntityType(t)
	default:
		return kindOf(v) == t
	}
}

func kindOf(v types.Value) resolved.IsType {
	switch v.(type) {
	case types.String:
		return resolved.StringType{}
	case types.Long:
		return resolved.LongType{}
	case types.Boolean:
		return resolved.BoolType{}
	case types.Decimal:
		return resolved.ExtensionType("decimal")
	case types.Datetime:
		return resolved.ExtensionType("datetime")
	case types.Duration:
		return resolved.ExtensionType("duration")
	case types.IPAddr:
		return resolved.ExtensionType("ipaddr")
	default:
		return nil
	}
}

// What cedar-go writes and reads of any type has the same value here.
func TestAgreesWithCedar(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		typ := drawType(t, 3)
		want := drawValue(t, typ)
		raw, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		read, ok := cedarReads(raw)
		if !ok || !conforms(read, typ) {
			t.Fatalf("cedar-go does not read what it wrote: %s", raw)
		}
		got, err := typed.Value(typ, raw, typed.Options{RefuseExtra: true})
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if !got.Equal(read) {
			t.Fatalf("%s: got %v, want %v", raw, got, read)
		}
	})
}

func drawType(t *rapid.T, depth int) resolved.IsType {
	last := 8
	if depth > 0 {
		last = 10
	}
	switch rapid.IntRange(1, last).Draw(t, "type") {
	case 1:
		return resolved.StringType{}
	case 2:
		return resolved.LongType{}
	case 3:
		return resolved.BoolType{}
	case 4:
		return resolved.ExtensionType("decimal")
	case 5:
		return resolved.ExtensionType("datetime")
	case 6:
		return resolved.ExtensionType("duration")
	case 7:
		return resolved.ExtensionType("ipaddr")
	case 8:
		return resolved.EntityType("NS::thing")
	case 9:
		return resolved.SetType{Element: drawType(t, depth-1)}
	default:
		r := resolved.RecordType{}
		for _, name := range rapid.SliceOfN(rapid.StringMatching(`[a-z ".é]{0,4}`), 0, 4).Draw(t, "names") {
			r[types.String(name)] = resolved.Attribute{Type: drawType(t, depth-1), Optional: rapid.Bool().Draw(t, "optional")}
		}
		return r
	}
}

func drawValue(t *rapid.T, typ resolved.IsType) types.Value {
	switch typ := typ.(type) {
	case resolved.StringType:
		return types.String(rapid.String().Draw(t, "string"))
	case resolved.LongType:
		return types.Long(rapid.Int64().Draw(t, "long"))
	case resolved.BoolType:
		return types.Boolean(rapid.Bool().Draw(t, "bool"))
	case resolved.EntityType:
		return types.NewEntityUID(types.EntityType(typ), types.String(rapid.String().Draw(t, "id")))
	case resolved.SetType:
		var vs []types.Value
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			vs = append(vs, drawValue(t, typ.Element))
		}
		return types.NewSet(vs...)
	case resolved.RecordType:
		m := types.RecordMap{}
		for name, a := range typ {
			if !a.Optional || rapid.Bool().Draw(t, "there") {
				m[name] = drawValue(t, a.Type)
			}
		}
		return types.NewRecord(m)
	case resolved.ExtensionType:
		return drawExtension(t, typ)
	default:
		t.Fatalf("type %T", typ)
		return nil
	}
}

func drawExtension(t *rapid.T, typ resolved.ExtensionType) types.Value {
	switch typ {
	case "decimal":
		d, err := types.NewDecimal(rapid.Int64().Draw(t, "decimal"), -4)
		if err != nil {
			t.Skip(err)
		}
		return d
	case "datetime":
		return types.NewDatetimeFromMillis(rapid.Int64Range(-62167219200000, 253402300799999).Draw(t, "datetime"))
	case "duration":
		// cedar-go writes the least of all as "-" (v1.9.0).
		return types.NewDurationFromMillis(rapid.Int64Range(math.MinInt64+1, math.MaxInt64).Draw(t, "duration"))
	default:
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")
		addr, _ := netip.AddrFromSlice(b)
		return types.IPAddr(netip.PrefixFrom(addr, rapid.IntRange(0, 32).Draw(t, "bits")))
	}
}
