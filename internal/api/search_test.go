package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// numbers finds 0000 to n-1, in order.
func numbers(n int) func(context.Context, authz.Request, pep.Query) (pep.Page, error) {
	return func(_ context.Context, _ authz.Request, q pep.Query) (pep.Page, error) {
		if q.Limit < 1 || q.Limit > 1000 {
			return pep.Page{}, fmt.Errorf("a limit of %d", q.Limit)
		}
		var p pep.Page
		for i := range n {
			id := fmt.Sprintf("%04d", i)
			if id <= q.After {
				continue
			}
			if len(p.IDs) == q.Limit {
				p.More = true
				break
			}
			p.IDs = append(p.IDs, id)
		}
		return p, nil
	}
}

// A found page is what a search answered.
type found struct {
	Page struct {
		NextToken *string `json:"next_token"`
		Count     int
	}
	Results []struct{ Type, ID, Name string }
}

func hunt(t *testing.T, h http.Handler, what, body string) found {
	t.Helper()
	w := post(t, h, search+what, body)
	var f found
	if object(t, w); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Page.NextToken == nil || f.Results == nil || len(f.Results) != f.Page.Count || !strings.HasPrefix(w.Body.String(), `{"page":`) {
		t.Fatalf("not a page: %s", w.Body)
	}
	return f
}

const wanted = `"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"record","id":"r1"}`

// asking is a subject search with a page object.
func asking(page string) string { return `{` + wanted + `,"page":{` + page + `}}` }

func TestSearchAsksForThePartThatIsMissing(t *testing.T) {
	t.Parallel()
	const body = `{"subject":{"type":"user","id":"alice","properties":{"s":1}},"action":{"name":"read","properties":{"a":1}},
		"resource":{"type":"record","id":"r1","properties":{"r":1}},"context":{"session":"s1","c":1}}`
	for what, want := range map[string]string{
		"subject":  `subject: user/ read record/r1  {"a":1} {"r":1} s1 0 100: {user 0000 }`,
		"resource": `resource: user/alice read record/ {"s":1} {"a":1}  s1 0 100: {record 0000 }`,
		"action":   `action: user/alice  record/r1 {"s":1}  {"r":1} s1 0 100: {  0000}`,
	} {
		var got string
		s := &script{search: func(_ context.Context, r authz.Request, q pep.Query) (pep.Page, error) {
			a := r.Asserted
			got = fmt.Sprintf("%s: %s/%s %s %s/%s %s %s %s %s %d %d", q.Want, a.Subject.Type, a.Subject.ID, r.Action, r.Resource.Type, r.Resource.ID,
				a.SubjectProperties, a.ActionProperties, a.ResourceProperties, r.Session, len(q.After), q.Limit)
			return pep.Page{IDs: []string{"0000"}}, nil
		}}
		f := hunt(t, newAPI(t, api.Config{Decider: s}), what, body)
		if got += fmt.Sprintf(": %v", f.Results[0]); got != want || *f.Page.NextToken != "" {
			t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
		}
	}
	// What is wanted may be said in any way, or not at all.
	a := newAPI(t, api.Config{Decider: &script{search: numbers(1)}})
	hunt(t, a, "subject", strings.Replace(asking(""), `"user"`, `"user","id":7`, 1))
	hunt(t, a, "action", `{"subject":{"type":"user","id":"a"},"resource":{"type":"record","id":"r1"},"action":7}`)
}

func TestPagesAreAllThereIsOnce(t *testing.T) {
	t.Parallel()
	a := newAPI(t, api.Config{Decider: &script{search: numbers(250)}})
	for limit, pages := range map[string]int{`"limit":100`: 3, `"limit":7`: 36, `"limit":250`: 1, `"limit":99999999999999999999`: 1, ``: 3} {
		var ids []string
		token, n := "", 0
		for {
			page := limit
			if token != "" {
				page = `"token":"` + token + `"` // the limit need not be said again
			}
			f := hunt(t, a, "subject", asking(page))
			for _, r := range f.Results {
				ids = append(ids, r.ID)
			}
			n++
			if token = *f.Page.NextToken; token == "" {
				break
			}
		}
		if n != pages || len(ids) != 250 || ids[0] != "0000" || ids[249] != "0249" {
			t.Errorf("%s: %d pages, %d results", limit, n, len(ids))
		}
	}
}

func TestSearchForNothing(t *testing.T) {
	t.Parallel()
	a := newAPI(t, api.Config{Decider: &script{search: numbers(2)}})
	f := hunt(t, a, "subject", asking(`"limit":0`))
	if len(f.Results) != 0 || *f.Page.NextToken == "" {
		t.Errorf("none of two: %+v", f)
	}
	if f = hunt(t, a, "subject", asking(`"token":"`+*f.Page.NextToken+`"`)); len(f.Results) != 0 || *f.Page.NextToken == "" {
		t.Errorf("none of two, again: %+v", f)
	}
	if w := post(t, newAPI(t, api.Config{Decider: &script{search: numbers(0)}}), search+"subject", asking(`"limit":0`)); w.Body.String() != `{"page":{"next_token":"","count":0},"results":[]}` {
		t.Errorf("none of none: %s", w.Body)
	}
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// A page token is for one query, and nobody can make one.
func TestPageTokenIsForItsQuery(t *testing.T) {
	t.Parallel()
	s := &script{search: numbers(250)}
	a := newAPI(t, api.Config{Decider: s})
	token := *hunt(t, a, "subject", `{"context":{"a":1,"b":2},`+wanted+`,"page":{"limit":2}}`).Page.NextToken
	with := func(body string) string { return strings.Replace(body, "TOKEN", token, 1) }
	const same = `{"context":{"a":1,"b":2},` + wanted + `,"page":{"token":"TOKEN"}}`
	for name, body := range map[string]string{
		"as it was":             same,
		"with its limit":        strings.Replace(same, `"token"`, `"limit":2,"token"`, 1),
		"the same in another":   `{"page":{"token":"TOKEN"}, ` + strings.ReplaceAll(wanted, ":", " : ") + `,"x":1,"context":{"b":2.0,"\u0061":1}}`,
		"another id is no part": strings.Replace(same, `"user"`, `"user","id":"bob","properties":{"x":1}`, 1),
	} {
		if f := hunt(t, a, "subject", with(body)); len(f.Results) != 2 || f.Results[0].ID != "0002" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	s.asked = nil
	refused := func(name string, h http.Handler, what, body string) {
		t.Helper()
		if w := post(t, h, search+what, body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "page.token") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for name, body := range map[string]string{
		"another limit":       strings.Replace(same, `"token"`, `"limit":3,"token"`, 1),
		"another context":     strings.Replace(same, `"b":2`, `"b":3`, 1),
		"no context":          strings.Replace(same, `"context":{"a":1,"b":2},`, ``, 1),
		"another action":      strings.Replace(same, `"read"`, `"write"`, 1),
		"another resource":    strings.Replace(same, `"r1"`, `"r2"`, 1),
		"another type":        strings.Replace(same, `"user"`, `"group"`, 1),
		"another record type": strings.Replace(same, `"record"`, `"file"`, 1),
		"more said of it":     strings.Replace(same, `"r1"`, `"r1","properties":{}`, 1),
		"more of the action":  strings.Replace(same, `"read"`, `"read","properties":{}`, 1),
		"parts that moved":    strings.Replace(strings.Replace(same, `"record"`, `"recordr"`, 1), `"r1"`, `"1"`, 1),
	} {
		refused(name, a, "subject", with(body))
	}
	refused("another search", a, "action", `{"subject":{"type":"user","id":"a"},"resource":{"type":"record","id":"r1"},"page":{"token":"`+token+`"}}`)
	// The subject is a part of the query when something else is wanted.
	const mine = `{"subject":{"type":"user","id":"alice","properties":{"x":1}},"action":{"name":"read"},"resource":{"type":"record"},"page":{"limit":2}}`
	onward := strings.Replace(mine, `"limit":2`, `"token":"`+*hunt(t, a, "resource", mine).Page.NextToken+`"`, 1)
	hunt(t, a, "resource", onward)
	s.asked = nil
	refused("another subject", a, "resource", strings.Replace(onward, "alice", "bob", 1))
	refused("another subject's properties", a, "resource", strings.Replace(onward, `"x":1`, `"x":2`, 1))
	refused("another process", newAPI(t, api.Config{Decider: s}), "subject", with(same))
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			forged := append([]byte(nil), raw...)
			forged[i] ^= 1 << bit
			refused(fmt.Sprintf("byte %d, bit %d", i, bit), a, "subject", strings.Replace(same, "TOKEN", base64.RawURLEncoding.EncodeToString(forged), 1))
		}
	}
	for n := range raw {
		refused(fmt.Sprintf("%d bytes", n+1), a, "subject", strings.Replace(same, "TOKEN", base64.RawURLEncoding.EncodeToString(raw[:n])+"AA", 1))
	}
	// Bits that no byte needs are not another way to write the same.
	last := strings.IndexByte(alphabet, token[len(token)-1])
	for spare := 1; len(raw)%3 != 0 && spare < 4; spare++ {
		refused("spare bits", a, "subject", strings.Replace(same, "TOKEN", token[:len(token)-1]+alphabet[last+spare:last+spare+1], 1))
	}
	for _, bad := range []string{"x", "!!!!", token + "=", token + "A", " " + token, token + token} {
		refused(bad, a, "subject", strings.Replace(same, "TOKEN", bad, 1))
	}
	if len(s.asked) > 0 {
		t.Errorf("%d were searched for", len(s.asked))
	}
}

// Nodes that share a key go on with each other's searches.
func TestPageTokensAreSharedByKey(t *testing.T) {
	t.Parallel()
	node := func(key string) http.Handler {
		return newAPI(t, api.Config{Decider: &script{search: numbers(9)}, PageKey: []byte(key)})
	}
	token := *hunt(t, node("k"), "subject", asking(`"limit":4`)).Page.NextToken
	if f := hunt(t, node("k"), "subject", asking(`"token":"`+token+`"`)); f.Results[0].ID != "0004" {
		t.Errorf("got %+v", f)
	}
	if w := post(t, node("l"), search+"subject", asking(`"token":"`+token+`"`)); w.Code != http.StatusBadRequest {
		t.Errorf("another key: %d", w.Code)
	}
}

func TestSearchThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	s := &script{search: numbers(1)}
	a := newAPI(t, api.Config{Decider: s})
	for name, body := range map[string]string{
		"page of null": `{` + wanted + `,"page":null}`, "token of a number": asking(`"token":1`), "limit of a string": asking(`"limit":"1"`), "limit of a fraction": asking(`"limit":1.5`),
		"a negative limit": asking(`"limit":-1`), "limit of null": asking(`"limit":null`), "an exponent": asking(`"limit":1e2`), "properties of a string": asking(`"properties":"x"`),
		"limit twice": asking(`"limit":1,"limit":2`), "no type": `{"subject":{},"action":{"name":"read"},"resource":{"type":"record","id":"r1"}}`,
		"an empty type": strings.Replace(asking(""), `"user"`, `""`, 1), "an array": `[]`, "trailing": asking("") + "{}",
	} {
		if w := post(t, a, search+"subject", body); w.Code != http.StatusBadRequest || object(t, w)["results"] != nil {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if len(s.asked) > 0 {
		t.Errorf("%d were searched for", len(s.asked))
	}
}

func TestSearchFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		search func(context.Context, authz.Request, pep.Query) (pep.Page, error)
		key    string
		status int
	}{
		"refused, with a key": {func(context.Context, authz.Request, pep.Query) (pep.Page, error) {
			return pep.Page{}, fmt.Errorf("search: %w", pep.ErrRefused)
		}, "k", 403},
		"refused, without": {func(context.Context, authz.Request, pep.Query) (pep.Page, error) {
			return pep.Page{}, fmt.Errorf("search: %w", pep.ErrRefused)
		}, "", 401},
		"an error with a page": {func(context.Context, authz.Request, pep.Query) (pep.Page, error) {
			return pep.Page{IDs: []string{"secret"}}, errors.New("secret")
		}, "k", 503},
		"a panic": {func(context.Context, authz.Request, pep.Query) (pep.Page, error) { panic("secret") }, "k", 500},
		"hanging": {func(ctx context.Context, _ authz.Request, _ pep.Query) (pep.Page, error) {
			<-ctx.Done()
			return pep.Page{}, ctx.Err()
		}, "k", 503},
		"refused, after a while": {func(context.Context, authz.Request, pep.Query) (pep.Page, error) {
			return pep.Page{IDs: []string{"secret"}}, pep.ErrRefused
		}, "k", 403},
	} {
		w := post(t, newAPI(t, api.Config{Decider: &script{search: tt.search}, Timeout: 100 * time.Millisecond}), search+"subject", asking(""), "Authorization", "Bearer "+tt.key)
		o := object(t, w)
		if w.Code != tt.status || o["results"] != nil || strings.Contains(w.Body.String(), "secret") || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") ||
			(w.Code == 503) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
	}
}

func TestGatesInOtherProcesses(t *testing.T) {
	t.Parallel()
	credentials := cmp.Comparer(func(a, b authz.Credential) bool { return a == b })
	var outcome authz.Outcome
	var ops []pep.Operation
	s := &script{
		decide: func(context.Context, authz.Request) (authz.Decision, error) {
			return denied(authz.ReasonUnauthenticated), nil
		},
		reach: func(_ context.Context, _ authz.Request, o []pep.Operation) ([]bool, error) {
			ops = o
			return []bool{true, false}, nil
		},
		report: func(_ context.Context, _ authz.Credential, out authz.Outcome) error { outcome = out; return nil },
	}
	a := newAPI(t, api.Config{Decider: s})
	const request = `{"credential":{"kind":"bearer","value":"agent"},"action":"a/b"}`
	// That nobody knows the agent is an answer to the gate.
	w := post(t, a, "/bailiwick/v1/decide", request, "X-Request-ID", "q-1")
	if w.Code != http.StatusOK || w.Body.String() != `{"id":"d1","allow":false,"reasons":[{"code":"unauthenticated","message":"A sentence."}],"time":"2026-11-25T11:30:00.123456789Z"}` {
		t.Errorf("decide: %d %s", w.Code, w.Body)
	}
	want := authz.Request{Credential: authz.Credential{Kind: authz.CredentialBearer, Value: "agent"}, PEP: authz.Credential{Kind: authz.CredentialBearer, Value: pepKey}, Action: "a/b", Gate: "remote", Correlation: "q-1"}
	if d := cmp.Diff(s.asked, []authz.Request{want}, credentials); d != "" {
		t.Errorf("the PDP was asked (-), want (+):\n%s", d)
	}
	w = post(t, a, "/bailiwick/v1/reachable", `{"request":`+request+`,"operations":[{"action":"a/b","definition":"sha256:x"},{"action":"a/c"}]}`)
	if w.Body.String() != `{"reachable":[true,false]}` || cmp.Diff(ops, []pep.Operation{{Action: "a/b", Definition: "sha256:x"}, {Action: "a/c"}}) != "" {
		t.Errorf("reachable: %d %s, asked of %v", w.Code, w.Body, ops)
	}
	w = post(t, a, "/bailiwick/v1/report", `{"decision":"d1","status":"ambiguous","bytes":7,"error":"lost"}`)
	if w.Code != http.StatusNoContent || w.Body.Len() > 0 || !reflect.DeepEqual(outcome, authz.Outcome{Decision: "d1", Status: authz.OutcomeAmbiguous, Bytes: 7, Error: "lost"}) {
		t.Errorf("report: %d %s, %+v", w.Code, w.Body, outcome)
	}
	w = post(t, a, "/bailiwick/v1/report", `{"decision":"d1","status":"success","output":["seen"],"cut":true}`)
	if w.Code != http.StatusNoContent || !reflect.DeepEqual(outcome, authz.Outcome{Decision: "d1", Status: authz.OutcomeSuccess, Output: []string{"seen"}, Cut: true}) {
		t.Errorf("report: %d %s, %+v", w.Code, w.Body, outcome)
	}
	const prompt = `{"subject":{"type":"Agent","id":"a"},"session":"s","text":"pay"}`
	w = post(t, a, "/bailiwick/v1/prompt", prompt)
	if said := (authz.Prompt{PEP: want.PEP, Subject: authz.Entity{Type: "Agent", ID: "a"}, Session: "s", Text: "pay"}); w.Code != http.StatusNoContent || s.said != said {
		t.Errorf("prompt: %d %s, %+v", w.Code, w.Body, s.said)
	}
	s.refuse = pep.ErrRefused
	if w = post(t, a, "/bailiwick/v1/prompt", prompt); w.Code != http.StatusForbidden {
		t.Errorf("a prompt that is refused: %d %s", w.Code, w.Body)
	}
	// A local credential from elsewhere proves nothing, and is not even asked about.
	s.asked, ops = nil, nil
	local := strings.Replace(request, "bearer", "local", 1)
	for path, body := range map[string]string{
		"/bailiwick/v1/decide": local, "/bailiwick/v1/reachable": `{"request":` + local + `,"operations":[{"action":"a/b"}]}`,
	} {
		if w := post(t, a, path, body); w.Code != http.StatusBadRequest {
			t.Errorf("%s: a local credential: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/bailiwick/v1/decide", "/bailiwick/v1/reachable", "/bailiwick/v1/report", "/bailiwick/v1/prompt"} {
		for _, body := range []string{``, `[]`, `{"x":1}`, `{"action":"a","action":"b"}`} {
			if w := post(t, a, path, body); w.Code != http.StatusBadRequest {
				t.Errorf("%s: %s: %d %s", path, body, w.Code, w.Body)
			}
		}
	}
	if len(s.asked) > 0 || ops != nil {
		t.Error("the PDP was asked")
	}
}

func TestFailuresOfGates(t *testing.T) {
	t.Parallel()
	fault := errors.New("secret")
	for name, tt := range map[string]struct {
		err                   error
		panics, short         bool
		decide, reach, report int
	}{
		"refused":   {err: fmt.Errorf("x: %w", pep.ErrRefused), decide: 200, reach: 403, report: 403},
		"a fault":   {err: fault, decide: 200, reach: 503, report: 503},
		"a panic":   {panics: true, decide: 200, reach: 500, report: 500},
		"too short": {short: true, decide: 200, reach: 500, report: 204},
	} {
		fail := func() error {
			if tt.panics {
				panic("secret")
			}
			return tt.err
		}
		s := &script{
			decide: func(context.Context, authz.Request) (authz.Decision, error) {
				return authz.Decision{Allow: true, ID: "d1"}, fail()
			},
			reach:  func(context.Context, authz.Request, []pep.Operation) ([]bool, error) { return make([]bool, 1), fail() },
			report: func(context.Context, authz.Credential, authz.Outcome) error { return fail() },
		}
		if tt.short {
			s.reach = func(context.Context, authz.Request, []pep.Operation) ([]bool, error) { return nil, nil }
			s.decide = func(context.Context, authz.Request) (authz.Decision, error) { return authz.Decision{Allow: true}, nil }
		}
		a := newAPI(t, api.Config{Decider: s})
		d := post(t, a, "/bailiwick/v1/decide", `{"action":"a"}`)
		r := post(t, a, "/bailiwick/v1/reachable", `{"request":{"action":"a"},"operations":[{"action":"a"}]}`)
		o := post(t, a, "/bailiwick/v1/report", `{"decision":"d1","status":"success"}`)
		if d.Code != tt.decide || strings.Contains(d.Body.String(), `"allow":true`) || !strings.Contains(d.Body.String(), `"code":"internal"`) || r.Code != tt.reach || o.Code != tt.report ||
			strings.Contains(d.Body.String()+r.Body.String()+o.Body.String(), "secret") {
			t.Errorf("%s: %d %s; %d %s; %d %s", name, d.Code, d.Body, r.Code, r.Body, o.Code, o.Body)
		}
	}
	// Outcomes are for deciders that can tell who reports.
	blind := struct {
		pep.Decider
		pep.Searcher
	}{&script{}, &script{}}
	if w := post(t, newAPI(t, api.Config{Decider: blind}), "/bailiwick/v1/report", `{"decision":"d1","status":"success"}`); w.Code != http.StatusNotFound {
		t.Errorf("nobody takes outcomes: %d", w.Code)
	}
}
