package authz_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bailiwick-dev/bailiwick/authz"
)

func TestZeroDecisionDenies(t *testing.T) {
	var d authz.Decision
	if d.Allow || d.Code() != authz.ReasonInternal || d.Message() == "" {
		t.Errorf("%+v", d)
	}
}

func TestCredentialIsNeverPrinted(t *testing.T) {
	c := authz.Credential{Kind: authz.CredentialBearer, Value: "hunter2"}
	j, err := json.Marshal(struct{ C authz.Credential }{c})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), string(j), fmt.Sprintf("%+v", authz.Request{Credential: c})} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("printed: %s", s)
		}
	}
}

// Digests are equal exactly when the values are (RFC 8785), also beyond 2^53.
func TestDigest(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[true,null]}`, ` { "b" : [ true , null ], "a" : 1.0 } `, true},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, true},
		{`"\u00e9"`, `"é"`, true},
		{`1.50`, `1.5`, true},
		{`9007199254740993`, `9007199254740992`, false},
		{`[1,2]`, `[2,1]`, false},
		{`{"a":""}`, `{"a":null}`, false},
	} {
		a, err := authz.Digest([]byte(tt.a))
		if err != nil {
			t.Fatal(err)
		}
		b, err := authz.Digest([]byte(tt.b))
		if err != nil {
			t.Fatal(err)
		}
		if (a == b) != tt.same {
			t.Errorf("%s and %s: same %v", tt.a, tt.b, a == b)
		}
	}
}

func TestDigestRefuses(t *testing.T) {
	for _, s := range []string{``, `{`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":1}}`, `1 2`, "\"\xff\"", `nul`, `01`} {
		if d, err := authz.Digest([]byte(s)); err == nil {
			t.Errorf("%q has digest %s", s, d)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"b":1,"a":[1.0,2e3,"\u00e9"]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		once, err := authz.Canonical(in)
		if err != nil {
			return
		}
		twice, err := authz.Canonical(once)
		if err != nil || string(once) != string(twice) {
			t.Errorf("%q → %q → %q, %v", in, once, twice, err)
		}
	})
}
