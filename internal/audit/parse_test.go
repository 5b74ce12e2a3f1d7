package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"github.com/bailiwick-dev/bailiwick/authz"
)

func exampleLeaf() leaf {
	l := leaf{index: 17, kind: KindDecision, time: time.Date(2026, 11, 22, 20, 50, 9, 123e6, time.UTC), decision: "d-1", effect: "allow", version: "sha256:ab", released: true}
	for _, g := range []group{groupWho, groupWhat, groupWhy, groupInput} {
		l.commit.has[g] = true
		l.commit.hash[g][0] = byte(g)
	}
	return l
}

// The bytes that docs/formats.md shows.
func TestLeafEncoding(t *testing.T) {
	l := exampleLeaf()
	zeros := strings.Repeat("A", 41) + "="
	want := `{"commit":{"input":"Aw` + zeros + `","what":"AQ` + zeros + `","who":"AA` + zeros + `","why":"Ag` + zeros + `"},` +
		`"decision":"d-1","effect":"allow","index":17,"kind":"decision","released":true,"time":"2026-11-22T20:50:09.123Z","v":1,"version":"sha256:ab"}`
	if diff := cmp.Diff(want, string(l.encode())); diff != "" {
		t.Errorf("leaf (-want +got):\n%s", diff)
	}
	canonical, err := authz.Canonical(l.encode())
	if err != nil || !bytes.Equal(canonical, l.encode()) {
		t.Errorf("not canonical JSON: %v %s", err, canonical)
	}
	got, err := parseLeaf(l.encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, got, cmp.AllowUnexported(leaf{}, commitments{})); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestLeafHasOneSpelling(t *testing.T) {
	l := exampleLeaf()
	sound := string(l.encode())
	for _, tt := range []struct{ name, leaf string }{
		{"empty", ""},
		{"space", strings.Replace(sound, ",", ", ", 1)},
		{"trailing", sound + "\n"},
		{"leading zero", strings.Replace(sound, ":17", ":017", 1)},
		{"no index", strings.Replace(sound, ":17", ":", 1)},
		{"index too large", strings.Replace(sound, ":17", ":18446744073709551616", 1)},
		{"empty decision", strings.Replace(sound, `"d-1"`, `""`, 1)},
		{"escape", strings.Replace(sound, `"d-1"`, `"d\u002d1"`, 1)},
		{"not released", strings.Replace(sound, `"released":true`, `"released":false`, 1)},
		{"other version", strings.Replace(sound, `"v":1`, `"v":2`, 1)},
		{"other kind", strings.Replace(sound, `"kind":"decision"`, `"kind":"derision"`, 1)},
		{"unused bits", strings.Replace(sound, "A=", "B=", 1)},
		{"month 13", strings.Replace(sound, "2026-11", "2026-13", 1)},
		{"another zone", strings.Replace(sound, "123Z", "123+00:00", 1)},
		{"two decimals", strings.Replace(sound, ".123Z", ".12Z", 1)},
		{"key order", strings.Replace(sound, `"what":`, `"zhat":`, 1)},
		{"unknown key", strings.Replace(sound, `,"v":1`, `,"u":1,"v":1`, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := parseLeaf([]byte(tt.leaf)); err == nil {
				t.Errorf("parsed as %+v", got)
			}
		})
	}
}

func FuzzParseLeaf(f *testing.F) {
	l := exampleLeaf()
	f.Add(l.encode())
	f.Add([]byte(`{"commit":{},"index":0,"kind":"system","time":"2026-11-22T20:50:09.123Z","v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLeaf(b)
		if err == nil && !bytes.Equal(l.encode(), b) {
			t.Errorf("%q was read as %q", b, l.encode())
		}
	})
}

func FuzzParsePayload(f *testing.F) {
	s, err := seal(Record{Kind: KindDecision, Decision: "d", Why: &Why{}, Input: []byte("{}")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		os, err := parsePayload(b)
		if err == nil && !bytes.Equal(os.encode(), b) {
			t.Errorf("%x was read as %x", b, os.encode())
		}
		var all commitments
		_ = os.check(&all) // must not panic; what it says is tested elsewhere
		_, _ = Decode(Entry{Leaf: b, Payload: b})
	})
}

// newSigner makes the same key each time, so that the processes of a fuzz run
// agree.
func newSigner(t testing.TB) signer {
	t.Helper()
	const name = "test.example/log"
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	vkey, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Split(vkey, "+")[1]
	s, err := parseSigner("PRIVATE+KEY+" + name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed...)))
	if err != nil {
		t.Fatal(err)
	}
	if s.key.String() != vkey {
		t.Fatalf("derived the key %s, want %s", s.key, vkey)
	}
	return s
}

func FuzzCheckpoint(f *testing.F) {
	s := newSigner(f)
	sound, err := s.checkpoint(newTree())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add(bytes.Replace(sound, []byte("\n0\n"), []byte("\n00\n"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := s.key.checkpoint(b); err == nil && !bytes.Equal(b, sound) {
			t.Errorf("%q passed, and only %q was signed", b, sound)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(newSigner(f).key.String() + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err == nil && k.String() != strings.TrimSuffix(string(b), "\n") {
			t.Errorf("%q was read as %q", b, k)
		}
	})
}

func FuzzBundle(f *testing.F) {
	s := newSigner(f)
	tr := newTree()
	var bundle []byte
	add := func(v any) {
		line, err := encodeLine(v)
		if err != nil {
			f.Fatal(err)
		}
		bundle = append(bundle, line...)
	}
	add(bundleHeader{Format: bundleFormat, Origin: s.key.Origin(), Key: s.key.String()})
	l := leaf{kind: KindDecision, decision: "d"}
	os := openings{groupInput: {has: true, text: []byte("{}")}}
	l.commit.has[groupInput], l.commit.hash[groupInput] = true, commitment(groupInput, os[groupInput].nonce[:], os[groupInput].text)
	e := Entry{Leaf: l.encode(), Hash: hashLeaf(l.encode()), Payload: os.encode()}
	tr.append(e.Hash)
	var err error
	if e.Checkpoint, err = s.checkpoint(tr); err != nil {
		f.Fatal(err)
	}
	e.Frontier = tr.frontier()
	line, err := toBundle(e)
	if err != nil {
		f.Fatal(err)
	}
	add(line)
	add(bundleFooter{Size: 1, Checkpoint: string(e.Checkpoint)})
	f.Add(bundle)
	f.Add([]byte(fmt.Sprintf("%s\n{\"size\":0,\"checkpoint\":\"\"}\n", bundle[:bytes.IndexByte(bundle, '\n')])))
	f.Fuzz(func(t *testing.T, b []byte) {
		report, err := VerifyBundle(t.Context(), bytes.NewReader(b), Check{Key: s.key, Trusted: true})
		if err == nil && report.Verified != bytes.Equal(b, bundle) {
			t.Errorf("verified %t: %q", report.Verified, b)
		}
	})
}
