package identity

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
)

func bearer(token string) authz.Credential {
	return authz.Credential{Kind: authz.CredentialBearer, Value: token}
}

// An issuer that has to give access tokens gives nothing else (RFC 9068), and
// from no issuer a JWT that was made for something else is taken (RFC 8725
// §3.11).
func TestOnlyTokensThatAreMeantForIt(t *testing.T) {
	o := newOP(t)
	lax := Issuer{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}
	strict := lax
	strict.AccessTokens = true
	whole := func(c map[string]any) {
		c["client_id"], c["jti"], c["iat"] = "billing-bot", "1", time.Now().Unix()
	}
	but := func(name string) func(map[string]any) {
		return func(c map[string]any) { whole(c); delete(c, name) }
	}
	typed := func(typ string, change func(map[string]any)) string {
		claims := map[string]any{"iss": o.URL, "aud": []string{"other", "bailiwick"}, "sub": "billing-bot", "exp": time.Now().Add(time.Minute).Unix()}
		if change != nil {
			change(claims)
		}
		var header map[jose.HeaderKey]any
		if typ != "" {
			header = map[jose.HeaderKey]any{"typ": typ}
		}
		return sign(t, jose.ES256, jose.JSONWebKey{Key: o.key, KeyID: "k1"}, header, claims)
	}
	for _, tt := range []struct {
		name           string
		token          string
		lax, onlyAtJWT bool
	}{
		{"access token", typed("at+jwt", whole), true, true},
		{"access token by its media type", typed("application/AT+JWT", whole), true, true},
		{"without a type", typed("", whole), true, false},
		{"JWT", typed("JWT", whole), true, false},
		{"DPoP proof", typed("dpop+jwt", whole), false, false},
		{"logout token", typed("logout+jwt", whole), false, false},
		{"security event", typed("secevent+jwt", whole), false, false},
		{"without client_id", typed("at+jwt", but("client_id")), true, false},
		{"without jti", typed("at+jwt", but("jti")), true, false},
		{"without iat", typed("at+jwt", but("iat")), true, false},
		{"made in the future", typed("at+jwt", func(c map[string]any) { whole(c); c["iat"] = time.Now().Add(time.Minute).Unix() }), false, false},
		{"clock a little ahead", typed("at+jwt", func(c map[string]any) {
			whole(c)
			c["iat"], c["nbf"] = time.Now().Add(clockSkew/2).Unix(), time.Now().Add(clockSkew/2).Unix()
		}), true, true},
		{"expired a moment ago", typed("at+jwt", func(c map[string]any) { whole(c); c["exp"] = time.Now().Unix() }), false, false},
		{"expiry of another shape", typed("at+jwt", func(c map[string]any) { whole(c); c["exp"] = "tomorrow" }), false, false},
		{"nbf of another shape", typed("at+jwt", func(c map[string]any) { whole(c); c["nbf"] = "now" }), false, false},
	} {
		for _, i := range []struct {
			issuer Issuer
			ok     bool
		}{{lax, tt.lax}, {strict, tt.onlyAtJWT}} {
			s, err := newVerifier(t, Config{Issuers: []Issuer{i.issuer}}).Verify(t.Context(), bearer(tt.token))
			if (err == nil) != i.ok || err != nil && !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("%s, access tokens only %t: %+v, %v", tt.name, i.issuer.AccessTokens, s, err)
			}
		}
	}
}

// A claim that is there twice is no claim.
func TestRepeatedClaims(t *testing.T) {
	o := newOP(t)
	v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}}})
	for name, format := range map[string]string{
		"once":  `{"iss":%q,"aud":"bailiwick","sub":"a","exp":%d}`,
		"twice": `{"iss":%q,"aud":"bailiwick","sub":"a","exp":%d,"sub":"b"}`,
	} {
		token := sign(t, jose.ES256, jose.JSONWebKey{Key: o.key, KeyID: "k1"}, nil, json.RawMessage(fmt.Sprintf(format, o.URL, time.Now().Add(time.Minute).Unix())))
		if _, err := v.Verify(t.Context(), bearer(token)); (err == nil) != (name == "once") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAlgorithmsAreTheOperators(t *testing.T) {
	o := newOP(t)
	token := o.token(t, jose.ES256, o.key, nil)
	for _, tt := range []struct {
		algorithms []string
		ok         bool
	}{{nil, true}, {[]string{"ES256"}, true}, {[]string{"RS256", "ES384"}, false}} {
		v := newVerifier(t, Config{Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub", Algorithms: tt.algorithms}}})
		if _, err := v.Verify(t.Context(), bearer(token)); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.algorithms, err)
		}
	}
	for _, wrong := range []string{"HS256", "none", "es256"} {
		if err := (Issuer{Issuer: "x", Audience: "x", AgentClaim: "x", Algorithms: []string{wrong}}).Check(); err == nil {
			t.Errorf("%s can be configured", wrong)
		}
	}
}

// An issuer serves keys, and is counted and told to fail.
type keyServer struct {
	*httptest.Server
	asked atomic.Int64
	down  atomic.Bool
	keys  atomic.Pointer[jose.JSONWebKeySet]
	meta  string
}

func newKeyServer(t *testing.T, keys ...jose.JSONWebKey) *keyServer {
	s := &keyServer{}
	s.keys.Store(&jose.JSONWebKeySet{Keys: keys})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/keys":
			s.asked.Add(1)
			json.NewEncoder(w).Encode(s.keys.Load()) //nolint:errcheck // a test's server
		case s.meta != "":
			w.Write([]byte(s.meta)) //nolint:errcheck // a test's server
		default:
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, s.URL+"/keys")
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func public(key *ecdsa.PrivateKey, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}
}

// A clock may be read while it is put forward: keys are asked for behind the
// decisions that need them.
type clock struct{ passed atomic.Int64 }

func (c *clock) now() time.Time {
	return time.Unix(1_790_000_000, 0).Add(time.Duration(c.passed.Load()))
}

func (c *clock) pass(d time.Duration) { c.passed.Add(int64(d)) }

// A new key is found when a token names it, a withdrawn one is forgotten, and
// nobody can make us ask more often than the bound.
func TestKeysRotateAndAreAskedForSeldom(t *testing.T) {
	old, new := newECKey(t), newECKey(t)
	s := newKeyServer(t, public(old, "old"))
	var at clock
	set := &keySet{issuer: s.URL, client: s.Client(), now: at.now}
	find := func(kid string) error {
		keys, err := set.find(t.Context(), kid, "ES256")
		if err == nil && len(keys) != 1 {
			t.Errorf("%s: %d keys", kid, len(keys))
		}
		return err
	}
	if err := find("old"); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := find(fmt.Sprint("made-up-", i)); !errors.Is(err, ErrUnauthenticated) {
			t.Fatal(err)
		}
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("made-up keys made us ask %d times", n)
	}
	s.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public(new, "new")}})
	at.pass(keysEvery)
	if err := find("new"); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if err := find("old"); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the old key: %v", err)
	}
	// While the issuer is away its keys hold for a while, and no longer.
	s.down.Store(true)
	at.pass(keysHeld - time.Second)
	if err := find("new"); err != nil {
		t.Errorf("issuer away: %v", err)
	}
	at.pass(time.Second)
	if err := find("new"); err == nil || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("issuer away for too long: %v", err)
	}
	s.down.Store(false)
	at.pass(keysEvery)
	if err := find("new"); err != nil {
		t.Errorf("issuer back: %v", err)
	}
}

// Keys that are no longer fresh are asked for behind the decision.
func TestKeysAreRefreshedBehindTheDecision(t *testing.T) {
	key := newECKey(t)
	s := newKeyServer(t, public(key, "k"))
	var at clock
	set := &keySet{issuer: s.URL, client: s.Client(), now: at.now}
	for range 2 {
		if _, err := set.find(t.Context(), "k", "ES256"); err != nil {
			t.Fatal(err)
		}
		at.pass(keysFresh)
	}
	for deadline := time.Now().Add(5 * time.Second); s.asked.Load() < 2; {
		if time.Now().After(deadline) {
			t.Fatal("nobody asked for the keys again")
		}
		time.Sleep(time.Millisecond)
	}
}

// What an issuer serves that cannot be believed is not.
func TestIssuerThatIsNotItself(t *testing.T) {
	key := newECKey(t)
	weak := jose.JSONWebKey{Key: []byte("symmetric"), KeyID: "k", Algorithm: "ES256"}
	for name, set := range map[string]func(*keyServer){
		"metadata of another":  func(s *keyServer) { s.meta = `{"issuer":"https://other.example","jwks_uri":"` + s.URL + `/keys"}` },
		"metadata is no JSON":  func(s *keyServer) { s.meta = "<html>" },
		"metadata without end": func(s *keyServer) { s.meta = `{"issuer":"` + strings.Repeat("x", maxDocument) + `"}` },
		"symmetric key":        func(s *keyServer) { s.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{weak}}) },
		"key for encryption": func(s *keyServer) {
			k := public(key, "k")
			k.Use = "enc"
			s.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k}})
		},
		"key for another algorithm": func(s *keyServer) {
			k := public(key, "k")
			k.Algorithm = "ES384"
			s.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k}})
		},
		"too many keys": func(s *keyServer) {
			many := make([]jose.JSONWebKey, maxKeys+1)
			for i := range many {
				many[i] = public(key, "k")
			}
			s.keys.Store(&jose.JSONWebKeySet{Keys: many})
		},
	} {
		s := newKeyServer(t, public(key, "k"))
		set(s)
		if keys, err := (&keySet{issuer: s.URL, client: s.Client(), now: time.Now}).find(t.Context(), "k", "ES256"); err == nil {
			t.Errorf("%s: %v", name, keys)
		}
	}
}

// The agents file says who may act, whoever proves them.
func TestStatesOfAgents(t *testing.T) {
	key, hash := NewKey()
	r, err := ParseRegistry([]byte("agents:\n  - {id: billing-bot, state: suspended, key: '" + hash + "'}\n  - {id: old-bot, state: retired}\n  - {id: good-bot, state: active, owner: fin, purpose: p, model: m, groups: [b]}\npeps:\n  - {id: p, key: '" + HashKey("bwk_p") + "', subjects: [Agent]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := newOP(t)
	token := func(agent string) authz.Credential {
		return bearer(o.token(t, jose.ES256, o.key, func(c map[string]any) { c["sub"], c["groups"] = agent, []string{"a"} }))
	}
	for _, only := range []bool{false, true} {
		v := newVerifier(t, Config{Agents: r, RegisteredOnly: only, Anonymous: "nobody", Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub", GroupsClaim: "groups"}}})
		for name, tt := range map[string]struct {
			cred  authz.Credential
			state State
			free  bool // may act
		}{
			"by key":       {bearer(key), StateSuspended, false},
			"by token":     {token("billing-bot"), StateSuspended, false},
			"locally":      {authz.Credential{Kind: authz.CredentialLocal, Value: "billing-bot"}, StateSuspended, false},
			"retired":      {token("old-bot"), StateRetired, false},
			"active":       {token("good-bot"), "", true},
			"not known":    {token("new-bot"), "", !only},
			"anonymous":    {authz.Credential{}, "", !only},
			"other locals": {authz.Credential{Kind: authz.CredentialLocal, Value: "x"}, "", !only},
		} {
			s, err := v.Verify(t.Context(), tt.cred)
			var barred *BarredError
			switch {
			case tt.free != (err == nil), s.Agent == "":
				t.Errorf("%s, registered only %t: %+v, %v", name, only, s, err)
			case !tt.free && (!errors.As(err, &barred) || barred.State != tt.state || barred.Agent != s.Agent || errors.Is(err, ErrUnauthenticated)):
				t.Errorf("%s: %v", name, err)
			}
		}
		s, err := v.Verify(t.Context(), token("good-bot"))
		want := Subject{Agent: "good-bot", Groups: []string{"a", "b"}, Owner: "fin", Purpose: "p", Model: "m", State: StateActive, Registered: true}
		got := Subject{Agent: s.Agent, Groups: s.Groups, Owner: s.Owner, Purpose: s.Purpose, Model: s.Model, State: s.State, Registered: s.Registered}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v %s", err, d)
		}
		if _, err := v.Asserted("billing-bot"); err == nil {
			t.Error("a PEP speaks for a suspended agent")
		}
	}
	// Suspending takes effect at once, for a remembered token too.
	free, err := ParseRegistry([]byte("agents: [{id: billing-bot}]"))
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, Config{Agents: free, Issuers: []Issuer{{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}}})
	cred := token("billing-bot")
	if _, err := v.Verify(t.Context(), cred); err != nil {
		t.Fatal(err)
	}
	v.Publish(r)
	if _, err := v.Verify(t.Context(), cred); err == nil {
		t.Error("a remembered token outlives the suspension")
	}
}

// Several keys prove an agent, each until it expires, and an entry that could
// be read in two ways is refused.
func TestCredentialsOfAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, firstHash := NewKey()
		second, secondHash := NewKey()
		third, thirdHash := NewKey()
		r, err := NewRegistry([]Agent{{ID: "a", Key: firstHash, Credentials: []AgentCredential{
			{Label: "two", Key: secondHash, Expires: time.Now().Add(time.Hour)}, {Label: "three", Key: thirdHash, Expires: time.Now().Add(-time.Second)},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		v := newVerifier(t, Config{Agents: r})
		for i, key := range []string{first, second, third} {
			if _, err := v.Verify(t.Context(), bearer(key)); (err != nil) != (i == 2) {
				t.Errorf("key %d: %v", i, err)
			}
		}
		time.Sleep(time.Hour)
		if _, err := v.Verify(t.Context(), bearer(second)); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("at its end: %v", err)
		}
	})
	_, hash := NewKey()
	for name, entry := range map[string]string{
		"state":                 `{id: a, state: asleep}`,
		"two in one":            `{id: a, credentials: [{key: "` + hash + `", spiffe: "spiffe://x/y"}]}`,
		"empty":                 `{id: a, credentials: [{label: x}]}`,
		"no SPIFFE ID":          `{id: a, credentials: [{spiffe: "https://x/y"}]}`,
		"no digest":             `{id: a, credentials: [{certificate: "abc"}]}`,
		"same key twice":        `{id: a, key: "` + hash + `", credentials: [{key: "` + hash + `"}]}`,
		"same label":            `{id: a, credentials: [{label: x, spiffe: "spiffe://x/y"}, {label: x, spiffe: "spiffe://x/z"}]}`,
		"same SPIFFE ID as one": `{id: a, credentials: [{spiffe: "spiffe://x/y"}]}, {id: b, credentials: [{spiffe: "spiffe://x/y"}]}`,
		"long":                  `{id: a, purpose: "` + strings.Repeat("x", maxText+1) + `"}`,
	} {
		if _, err := ParseRegistry([]byte("agents: [" + entry + "]")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The chain of a token is read as RFC 8693 has it, or refused.
func TestChains(t *testing.T) {
	o := newOP(t)
	r, err := ParseRegistry([]byte("agents:\n  - {id: planner, groups: [p], owner: o}\n  - {id: off, state: suspended}\n"))
	if err != nil {
		t.Fatal(err)
	}
	issuer := Issuer{Issuer: o.URL, Audience: "bailiwick", AgentClaim: "sub"}
	act := func(ids ...string) any {
		var a any
		for i := len(ids) - 1; i >= 0; i-- {
			m := map[string]any{"sub": ids[i]}
			if a != nil {
				m["act"] = a
			}
			a = m
		}
		return a
	}
	for _, tt := range []struct {
		name string
		sub  string
		act  any
		want *Subject // nil: refused
	}{
		{"a person and an agent", "alice", act("worker"), &Subject{Agent: "worker", For: "alice"}},
		{"two agents", "alice", act("worker", "planner"), &Subject{Agent: "worker", For: "alice", Chain: []Subject{{Agent: "planner", Groups: []string{"p"}, Owner: "o", Registered: true}}}},
		{"nobody but agents", "first", act("worker", "first"), &Subject{Agent: "worker", Chain: []Subject{{Agent: "first"}}}},
		{"as many as may be", "alice", act("a", "b", "c", "d"), &Subject{Agent: "a", For: "alice", Chain: []Subject{{Agent: "b"}, {Agent: "c"}, {Agent: "d"}}}},
		{"one more", "alice", act("a", "b", "c", "d", "e"), nil},
		{"nobody for whom", "", act("worker"), nil},
		{"no object", "alice", "worker", nil},
		{"null", "alice", nil, nil},
		{"no id", "alice", map[string]any{"client_id": "worker"}, nil},
		{"no agent's id", "alice", act("spiffe://x/y"), nil},
		{"an inner one that is none", "alice", map[string]any{"sub": "a", "act": []any{}}, nil},
		{"of this issuer", "alice", map[string]any{"sub": "worker", "iss": o.URL}, &Subject{Agent: "worker", For: "alice"}},
		{"of another issuer", "alice", map[string]any{"sub": "worker", "iss": "https://other.example"}, nil},
		{"a suspended one in it", "alice", act("worker", "off"), nil},
		{"an inner null", "alice", map[string]any{"sub": "a", "act": nil}, nil},
		{"for an agent", "planner", act("worker"), &Subject{Agent: "worker", For: "planner", Chain: []Subject{{Agent: "planner", Groups: []string{"p"}, Owner: "o", Registered: true}}}},
		{"for a suspended agent", "off", act("worker"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVerifier(t, Config{Agents: r, Issuers: []Issuer{issuer}})
			token := o.token(t, jose.ES256, o.key, func(c map[string]any) { c["sub"], c["act"] = tt.sub, tt.act })
			for range 2 {
				s, err := v.Verify(t.Context(), bearer(token))
				if tt.want == nil {
					if err == nil {
						t.Errorf("%+v", s)
					}
					continue
				}
				got := Subject{Agent: s.Agent, For: s.For, Chain: s.Chain}
				if d := cmp.Diff(*tt.want, got); err != nil || d != "" {
					t.Errorf("%v %s", err, d)
				}
			}
		})
	}
}

// Whatever an issuer signs is read or refused, and what is read names an agent.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{
		`{"iss":"i","aud":"a","sub":"x","exp":9999999999}`,
		`{"iss":"i","aud":["a"],"sub":"x","exp":9999999999,"act":{"sub":"y","act":{"sub":"z"}},"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`,
		`{"iss":"i","aud":"a","sub":"x","exp":9999999999,"may_act":{"sub":"b"},"scope":"a b","acr":"x","auth_time":1.5e9,"groups":["g"]}`,
		`{"iss":"i","aud":"a","sub":"x","exp":9999999999,"act":null}`, `[]`, `null`,
	} {
		f.Add([]byte(s))
	}
	i := newIssuer(Issuer{Issuer: "i", Audience: "a", AgentClaim: "sub", GroupsClaim: "groups", Keys: &jose.JSONWebKeySet{}}, Config{Now: time.Now, MaxChain: 3})
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := i.read(payload)
		switch {
		case err != nil && !errors.Is(err, ErrUnauthenticated):
			t.Errorf("%q: %v", payload, err)
		case err == nil && (!agentID.MatchString(s.Agent) || len(s.Chain) >= 3 || s.Expires.IsZero()):
			t.Errorf("%q: %+v", payload, s)
		}
	})
}
