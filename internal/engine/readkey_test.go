package engine

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	gocmp "github.com/google/go-cmp/cmp"
)

// A keyReader reads keys back, which shows that no two reads have the same.
type keyReader struct{ key []byte }

func (k *keyReader) byte() byte {
	b := k.key[0]
	k.key = k.key[1:]
	return b
}

func (k *keyReader) count() int {
	n, size := binary.Uvarint(k.key)
	k.key = k.key[size:]
	if n > 1<<10 {
		panic(fmt.Sprintf("a count of %d", n)) // rather than make room for it
	}
	return int(n)
}

func (k *keyReader) text() string {
	n := k.count()
	s := string(k.key[:n])
	k.key = k.key[n:]
	return s
}

func (k *keyReader) number() int64 {
	n := binary.BigEndian.Uint64(k.key)
	k.key = k.key[8:]
	return int64(n)
}

func (k *keyReader) entity() types.EntityUID {
	t := k.text()
	return types.NewEntityUID(types.EntityType(t), types.String(k.text()))
}

func (k *keyReader) reads() Reads {
	reads := make(Reads, k.count())
	for i := range reads {
		r := &reads[i]
		r.Kind = ReadKind(k.byte())
		r.Context = k.byte() == 1
		r.Entity = k.entity()
		for range k.count() {
			r.Path = append(r.Path, types.String(k.text()))
		}
		r.Other = k.entity()
		r.End = ReadEnd(k.byte())
		r.At = k.count()
		if r.End == Found {
			r.Value = k.value()
		}
	}
	return reads
}

func (k *keyReader) value() types.Value {
	switch t := k.byte(); t {
	case keyBool:
		return types.Boolean(k.byte() == 1)
	case keyLong:
		return types.Long(k.number())
	case keyString:
		return types.String(k.text())
	case keyEntity:
		return k.entity()
	case keySet:
		vs := make([]types.Value, k.count())
		for i := range vs {
			vs[i] = k.value()
		}
		return types.NewSet(vs...)
	case keyRecord:
		m := types.RecordMap{}
		for range k.count() {
			name := types.String(k.text())
			m[name] = k.value()
		}
		return types.NewRecord(m)
	case keyDecimal:
		d, err := types.ParseDecimal(k.text())
		if err != nil {
			panic(err)
		}
		return d
	case keyDatetime:
		return types.NewDatetimeFromMillis(k.number())
	case keyDuration:
		return types.NewDurationFromMillis(k.number())
	case keyIP:
		addr, err := netip.ParseAddr(k.text())
		bits := k.count() - 1
		if err != nil {
			return types.IPAddr{} // the only one without an address
		}
		return types.IPAddr(netip.PrefixFrom(addr, bits))
	default:
		panic(fmt.Sprintf("type %d", t))
	}
}

// sameReads compares by what Cedar holds equal.
func sameReads(a, b Reads) bool {
	return slices.EqualFunc(a, b, func(a, b Read) bool {
		same := a.Kind == b.Kind && a.Context == b.Context && a.Entity == b.Entity && a.Other == b.Other && slices.Equal(a.Path, b.Path) && a.End == b.End && a.At == b.At
		if a.Value == nil || b.Value == nil {
			return same && a.Value == nil && b.Value == nil
		}
		return same && a.Value.Equal(b.Value)
	})
}

// randomReads are reads such as none will ever be.
func randomReads(w *world, name string, n int64) Reads {
	reads := Reads{}
	text := func() types.String {
		return pick(w, types.String(name), types.String(name[:w.IntN(len(name)+1)]), "", "a", types.String(fmt.Sprint(n)))
	}
	var value func(depth int) types.Value
	value = func(depth int) types.Value {
		switch w.IntN(8) {
		case 0:
			return text()
		case 1:
			return types.Long(n)
		case 2:
			return types.NewEntityUID(types.EntityType(text()), text())
		case 3:
			if depth > 0 {
				vs := make([]types.Value, w.IntN(4))
				for i := range vs {
					vs[i] = value(depth - 1)
				}
				return types.NewSet(vs...)
			}
		case 4:
			if depth > 0 {
				return types.NewRecord(types.RecordMap{text(): value(depth - 1), text(): value(depth - 1)})
			}
		case 5:
			return pick[types.Value](w, types.NewDatetimeFromMillis(n), types.NewDurationFromMillis(n), types.IPAddr{},
				types.IPAddr(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n), 0, 0, 1}), int(n%40))))
		}
		return w.literal(pick(w, attributeNames...), depth)
	}
	for range w.IntN(4) {
		r := Read{ReadPath: ReadPath{Kind: ReadKind(w.IntN(7)), Context: w.one(2)}, End: ReadEnd(1 + w.IntN(4)), At: w.IntN(3)}
		if w.one(2) {
			r.Entity = types.NewEntityUID(types.EntityType(text()), text())
			r.Other = w.anyUID()
		}
		for range w.IntN(3) {
			r.Path = append(r.Path, text())
		}
		if r.End == Found {
			r.Value = value(2)
		}
		reads = append(reads, r)
	}
	return reads
}

// FuzzKeysCanBeReadBack shows that a key says everything about the reads.
func FuzzKeysCanBeReadBack(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, "a\x00\x01b", int64(seed))
	}
	f.Add(uint64(1), "\x03\x01a", int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, seed uint64, name string, n int64) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 8))}
		reads := randomReads(w, name, n)
		k := keyReader{key: reads.AppendKey(nil)}
		if back := k.reads(); len(k.key) > 0 || !sameReads(reads, back) {
			t.Errorf("%+v\nread back as\n%+v\nand left %q", reads, back, k.key)
		}
	})
}

// Equal values have one key, however they came about, and others have others.
func TestKeysAreOfValues(t *testing.T) {
	t.Parallel()
	long := types.Long(1)
	set := func(vs ...types.Value) types.Value { return types.NewSet(vs...) }
	record := func(name types.String, v types.Value) types.Value { return types.NewRecord(types.RecordMap{name: v}) }
	ip := func(s string) types.Value {
		v, err := types.ParseIPAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	decimal := func(s string) types.Value {
		v, err := types.ParseDecimal(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	values := []types.Value{
		types.True, types.False, long, types.Long(0), types.String("1"), types.String(""), types.String("true"), types.String("\x00\x00\x00\x00\x00\x00\x00\x01"),
		types.NewEntityUID("A", "b"), types.NewEntityUID("Ab", ""), types.NewEntityUID("", "Ab"), types.EntityUID{}, types.String(`A::"b"`),
		set(), set(long), set(long, types.True), set(types.True, long, types.True), set(set(long)), set(set(), long), set(types.String("a"), types.String("b")), set(types.String("ab")),
		record("a", long), record("b", long), record("a", set(long)), record("a", record("b", long)), types.NewRecord(nil), types.Record{},
		decimal("1.0"), decimal("1.00"), decimal("-0.5"), decimal("0.5"),
		types.NewDatetimeFromMillis(1), types.NewDurationFromMillis(1),
		ip("1.2.3.4"), ip("1.2.3.4/32"), ip("1.2.3.4/31"), ip("::102:304"), types.IPAddr{},
		types.IPAddr(netip.PrefixFrom(netip.MustParseAddr("1.2.3.4"), 99)), types.IPAddr(netip.PrefixFrom(netip.MustParseAddr("1.2.3.5"), 99)),
		&long,
	}
	for _, a := range values {
		for _, b := range values {
			want := a.Equal(b)
			if _, pointer := a.(*types.Long); pointer {
				want = a == b // it is no value of Cedar's, and not taken for one
			} else if _, pointer := b.(*types.Long); pointer {
				want = false
			}
			if got := string(appendValue(nil, a)) == string(appendValue(nil, b)); got != want {
				t.Errorf("%T %v and %T %v: the same key is %v", a, a, b, b, got)
			}
		}
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	p := unchecked(t, "")
	db := types.NewEntityUID("Server", "db")
	req := deletion(types.RecordMap{"n": types.Long(1), "e": db, "r": types.NewRecord(types.RecordMap{"n": types.Long(2)})})
	context := func(kind ReadKind, path ...types.String) ReadPath {
		return ReadPath{Kind: kind, Context: true, Path: path}
	}
	of := func(kind ReadKind, uid types.EntityUID, path ...types.String) ReadPath {
		return ReadPath{Kind: kind, Entity: uid, Path: path}
	}
	for _, tt := range []struct {
		path  ReadPath
		value types.Value
		end   ReadEnd
		at    int
	}{
		{context(ReadAttribute, "n"), types.Long(1), Found, 0},
		{context(ReadAttribute, "r", "n"), types.Long(2), Found, 0},
		{context(ReadAttribute, "r", "x"), nil, NoAttribute, 1},
		{context(ReadAttribute, "x", "n"), nil, NoAttribute, 0},
		{context(ReadAttribute, "n", "n"), nil, NoRecord, 1},
		{context(ReadAttribute, "e", "owner"), nil, NoRecord, 1},
		{context(ReadAttribute), req.Context, Found, 0},
		{context(ReadHas, "n"), types.True, Found, 0},
		{context(ReadHas, "x"), types.False, Found, 0},
		{context(ReadHas, "x", "n"), nil, NoAttribute, 0},
		{context(ReadHas, "n", "n"), nil, NoRecord, 1},
		{of(ReadAttribute, db, "owner"), types.String("acme"), Found, 0},
		{of(ReadAttribute, db, "x"), nil, NoAttribute, 0},
		{of(ReadAttribute, group("none"), "x"), nil, NoEntity, 0},
		{of(ReadHas, db, "owner"), types.True, Found, 0},
		{of(ReadHas, group("none"), "x"), types.False, Found, 0},
		{of(ReadHas, group("none"), "x", "y"), nil, NoEntity, 0},
		{of(ReadTag, db, "x"), nil, NoAttribute, 0},
		{of(ReadTag, group("none"), "x"), nil, NoEntity, 0},
		{of(ReadHasTag, group("none"), "x"), types.False, Found, 0},
		{ReadPath{Kind: ReadIn, Entity: group("oncall"), Other: group("staff")}, types.True, Found, 0},
		{ReadPath{Kind: ReadIn, Entity: group("oncall"), Other: group("bots")}, types.False, Found, 0},
		{ReadPath{Kind: ReadAncestors, Entity: group("oncall")}, types.NewSet(group("staff")), Found, 0},
	} {
		want := Reads{{ReadPath: tt.path, Value: tt.value, End: tt.end, At: tt.at}}
		key, ok := p.Key(req, Unknown{}, []ReadPath{tt.path}, []byte("before"))
		if d := gocmp.Diff(string(want.AppendKey([]byte("before"))), string(key)); !ok || d != "" {
			t.Errorf("%+v: ok %v (-want +got)\n%s", tt.path, ok, d)
		}
	}
	for _, path := range []ReadPath{{}, {Kind: 99}, {Kind: ReadAttribute}, {Kind: ReadHas}, context(ReadHas), {Kind: ReadTag}, context(ReadTag, "x"), of(ReadHasTag, db, "a", "b")} {
		if key, ok := p.Key(req, Unknown{}, []ReadPath{context(ReadAttribute, "n"), path}, []byte("before")); ok || string(key) != "before" {
			t.Errorf("%+v has the key %q", path, key)
		}
	}
}

// BenchmarkPartial tells what deciding costs with and without what is unknown,
// and what a key costs.
func BenchmarkPartial(b *testing.B) {
	p := unchecked(b, `
permit (principal in Group::"bots", action, resource) when { resource.owner == "acme" && context.input.amount < 5 };
permit (principal in Group::"bots", action == Action::"read", resource);
forbid (principal, action, resource) when { context.input has force && context.risk > 3 };
forbid (principal, action, resource) when { resource.owner == "nobody" };`)
	req := deletion(types.RecordMap{"input": types.NewRecord(types.RecordMap{"amount": types.Long(3)}), "risk": types.Long(1)})
	for name, u := range map[string]Unknown{"all known": {}, "risk and time unknown": {Context: paths("risk", "now")}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := p.Partial(req, u); !got.Decided {
					b.Fatal("undecided")
				}
			}
		})
	}
	a := p.Partial(req, Unknown{})
	paths := a.Reads.Paths()
	b.Run("key", func(b *testing.B) {
		b.ReportAllocs()
		var key []byte
		for b.Loop() {
			key, _ = p.Key(req, Unknown{}, paths, key[:0])
		}
	})
	b.Run("authorize", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Authorize(req)
		}
	})
}
