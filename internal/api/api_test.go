package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// A script answers with what it is told to and keeps what it was asked.
type script struct {
	said   authz.Prompt
	refuse error // what prompts are answered with
	decide func(context.Context, authz.Request) (authz.Decision, error)
	search func(context.Context, authz.Request, pep.Query) (pep.Page, error)
	reach  func(context.Context, authz.Request, []pep.Operation) ([]bool, error)
	report func(context.Context, authz.Credential, authz.Outcome) error

	mu    sync.Mutex
	asked []authz.Request
}

func (s *script) Decide(ctx context.Context, req authz.Request) (authz.Decision, error) {
	s.mu.Lock()
	s.asked = append(s.asked, req)
	s.mu.Unlock()
	if s.decide == nil {
		return allowed(), nil
	}
	return s.decide(ctx, req)
}

func (s *script) Search(ctx context.Context, req authz.Request, q pep.Query) (pep.Page, error) {
	s.mu.Lock()
	s.asked = append(s.asked, req)
	s.mu.Unlock()
	return s.search(ctx, req, q)
}

func (s *script) Reachable(ctx context.Context, req authz.Request, ops []pep.Operation) ([]bool, error) {
	return s.reach(ctx, req, ops)
}

func (s *script) Report(context.Context, authz.Outcome) error {
	return errors.New("nobody proved who reports")
}

func (s *script) Prompt(_ context.Context, said authz.Prompt) error {
	s.said = said
	return s.refuse
}

func (s *script) ReportFrom(ctx context.Context, gate authz.Credential, out authz.Outcome) error {
	return s.report(ctx, gate, out)
}

var at = time.Date(2026, 11, 25, 12, 30, 0, 123456789, time.FixedZone("", 3600))

func allowed() authz.Decision {
	return authz.Decision{ID: "d1", Allow: true, Time: at, Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow}}, Version: "sha256:v"}
}

func denied(code string, remedies ...authz.Remedy) authz.Decision {
	d := authz.Deny(code, "A sentence.")
	d.ID, d.Time, d.Remedies = "d1", at, remedies
	d.Policies = []authz.PolicyRef{{ID: "secret-policy", File: "secret.cedar"}}
	return d
}

func newAPI(t testing.TB, c api.Config) *api.API {
	t.Helper()
	if c.Decider == nil {
		c.Decider = &script{}
	}
	a, err := api.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const (
	evaluation  = "/access/v1/evaluation"
	evaluations = "/access/v1/evaluations"
	search      = "/access/v1/search/"
	question    = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r1"}}`
)

// post asks an API and returns the answer. Headers come in pairs.
func post(t testing.TB, h http.Handler, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+pepKey)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// object is the answer as an object; every answer must be one.
func object(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("no JSON object: %d %q %v", w.Code, w.Body, err)
	}
	if n := w.Header().Get("Content-Length"); n != strconv.Itoa(w.Body.Len()) {
		t.Errorf("Content-Length %s of %d bytes", n, w.Body.Len())
	}
	return o
}

func jsonOf(t testing.TB, s string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestQuestionReachesThePDPAsItWasAsked(t *testing.T) {
	t.Parallel()
	s := &script{}
	body := `{"subject":{"type":"user","id":"\u0061lice","properties":{"role":"admin"}},"action":{"name":"read","properties":{"soft":true}},
		"resource":{"type":"record","id":"r1","properties":{ "n" : 12345678901234567890 }},"context":{"session":"run-1","input":{"a":[1]},"ip":"::1"},"extra":{"x":[]}}`
	w := post(t, newAPI(t, api.Config{Decider: s}), evaluation, body, "X-Request-ID", "q-1", "Authorization", "bearer  "+pepKey)
	if w.Code != http.StatusOK || w.Header().Get("X-Request-ID") != "q-1" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	want := authz.Request{
		PEP: authz.Credential{Kind: authz.CredentialBearer, Value: pepKey},
		Asserted: &authz.Assertion{
			Subject: authz.Entity{Type: "user", ID: "alice"}, SubjectProperties: json.RawMessage(`{"role":"admin"}`),
			ActionProperties: json.RawMessage(`{"soft":true}`), ResourceProperties: json.RawMessage(`{ "n" : 12345678901234567890 }`),
			Context: json.RawMessage(`{"session":"run-1","input":{"a":[1]},"ip":"::1"}`),
		},
		Action: "read", Resource: authz.Entity{Type: "record", ID: "r1"}, Input: json.RawMessage(`{"a":[1]}`),
		Session: "run-1", Gate: "authzen", Advisory: true, Correlation: "q-1",
	}
	if d := cmp.Diff(s.asked, []authz.Request{want}, cmp.Comparer(func(a, b authz.Credential) bool { return a == b })); d != "" {
		t.Errorf("the PDP was asked (-), want (+):\n%s", d)
	}
}

// What does not name a run, and what is no object of arguments, is context like
// the rest of it.
func TestContextOfAnotherKindIsNotOurs(t *testing.T) {
	t.Parallel()
	s := &script{}
	for _, ctx := range []string{`{"session":7,"input":"x"}`, `{"session":null,"input":[]}`, `{"Session":"s","Input":{}}`, `{"a":{"session":"s","input":{}}}`} {
		post(t, newAPI(t, api.Config{Decider: s}), evaluation, strings.Replace(question, `{`, `{"context":`+ctx+`,`, 1))
	}
	for _, req := range s.asked {
		if req.Session != "" || req.Input != nil || len(req.Asserted.Context) == 0 {
			t.Errorf("asked %+v", req)
		}
	}
	if len(s.asked) != 4 {
		t.Errorf("%d were asked", len(s.asked))
	}
}

// A PEP that shows nothing is not taken for a part of this process.
func TestPEPIsAlwaysToBeProven(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		headers []string
		want    string
	}{
		"a key":           {headers: []string{"Bearer k"}, want: "k"},
		"nothing":         {},
		"another scheme":  {headers: []string{"Basic k"}},
		"no scheme":       {headers: []string{"k"}},
		"an empty key":    {headers: []string{"Bearer "}},
		"two of them":     {headers: []string{"Bearer k", "Bearer l"}},
		"only the scheme": {headers: []string{"Bearer"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{
				search: func(context.Context, authz.Request, pep.Query) (pep.Page, error) { return pep.Page{}, nil },
				reach: func(_ context.Context, req authz.Request, _ []pep.Operation) ([]bool, error) {
					if req.PEP != (authz.Credential{Kind: authz.CredentialBearer, Value: tt.want}) {
						t.Errorf("reachable: PEP %q %q", req.PEP.Kind, req.PEP.Value)
					}
					return nil, nil
				},
				report: func(_ context.Context, gate authz.Credential, _ authz.Outcome) error {
					if gate != (authz.Credential{Kind: authz.CredentialBearer, Value: tt.want}) {
						t.Errorf("report: PEP %q %q", gate.Kind, gate.Value)
					}
					return nil
				},
			}
			a := newAPI(t, api.Config{Decider: s})
			for path, body := range map[string]string{
				evaluation: question, evaluations: `{"evaluations":[` + question + `]}`, search + "subject": question, "/bailiwick/v1/decide": `{"action":"a"}`,
				"/bailiwick/v1/reachable": `{"request":{"action":"a"},"operations":[]}`, "/bailiwick/v1/report": `{"decision":"1","status":"success"}`,
			} {
				r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				r.Header["Authorization"] = tt.headers
				w := httptest.NewRecorder()
				a.ServeHTTP(w, r)
				if w.Code/100 != 2 {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
			}
			if len(s.asked) != 4 {
				t.Errorf("%d questions", len(s.asked))
			}
			for _, req := range s.asked {
				if req.PEP != (authz.Credential{Kind: authz.CredentialBearer, Value: tt.want}) {
					t.Errorf("PEP %q %q", req.PEP.Kind, req.PEP.Value)
				}
			}
		})
	}
}

func TestBodyThatIsNoQuestionIsRefused(t *testing.T) {
	t.Parallel()
	s := &script{search: func(context.Context, authz.Request, pep.Query) (pep.Page, error) { return pep.Page{}, nil }}
	a := newAPI(t, api.Config{Decider: s})
	with := func(old, now string) string { return strings.Replace(question, old, now, 1) }
	for name, body := range map[string]string{
		"an array":                     `[` + question + `]`,
		"a string":                     `"x"`,
		"two bodies":                   question + question,
		"trailing bytes":               question + `x`,
		"a NUL behind":                 question + "\x00",
		"a byte order mark":            "\xef\xbb\xbf" + question,
		"white space":                  " \n",
		"subject twice":                with(`{`, `{"subject":{"type":"user","id":"bob"},`),
		"subject twice, escaped":       with(`{`, `{"\u0073ubject":{"type":"user","id":"bob"},`),
		"id twice":                     with(`"id":"alice"`, `"id":"alice","id":"bob"`),
		"twice in properties":          with(`"id":"alice"`, `"id":"alice","properties":{"a":{"b":1,"b":2}}`),
		"twice in the context":         with(`{`, `{"context":{"a":1,"a":2},`),
		"twice in what nobody knows":   with(`{`, `{"x":[{"a":1,"a":2}],`),
		"invalid UTF-8":                with(`alice`, "\xff"),
		"invalid UTF-8 in an unknown":  with(`{`, "{\"x\":\"\xc3\","),
		"half a surrogate pair":        with(`alice`, `\ud83d`),
		"nesting without end":          with(`{`, `{"context":{"a":`+strings.Repeat(`[`, 63)+strings.Repeat(`]`, 63)+`},`),
		"subject of null":              with(`{"type":"user","id":"alice"}`, `null`),
		"subject of an array":          with(`{"type":"user","id":"alice"}`, `[]`),
		"type of a number":             with(`"user"`, `1`),
		"type of null":                 with(`"user"`, `null`),
		"an empty type":                with(`"user"`, `""`),
		"an empty id":                  with(`"alice"`, `""`),
		"an empty action":              with(`"read"`, `""`),
		"an action of a string":        with(`{"name":"read"}`, `"read"`),
		"an action without name":       with(`"name"`, `"Name"`),
		"properties of an array":       with(`"id":"alice"`, `"id":"alice","properties":[]`),
		"properties of null":           with(`"id":"alice"`, `"id":"alice","properties":null`),
		"action properties of a text":  with(`"read"`, `"read","properties":"x"`),
		"resource properties of false": with(`"r1"`, `"r1","properties":false`),
		"context of a string":          with(`{`, `{"context":"x",`),
		"context of null":              with(`{`, `{"context":null,`),
	} {
		for _, path := range []string{evaluation, evaluations} {
			if w := post(t, a, path, body); w.Code != http.StatusBadRequest || object(t, w)["error"].(map[string]any)["message"] == "" {
				t.Errorf("%s: %s: %d %s", path, name, w.Code, w.Body)
			}
		}
	}
	for name, headers := range map[string][]string{
		"no type": {"Content-Type", ""}, "text": {"Content-Type", "text/plain"}, "JSON text": {"Content-Type", "application/json-seq"},
		"another charset": {"Content-Type", "application/json; charset=latin1"}, "parameters that are none": {"Content-Type", "application/json; x"},
	} {
		for _, path := range []string{evaluation, evaluations, search + "subject", search + "resource", search + "action", "/bailiwick/v1/decide"} {
			if w := post(t, a, path, question, headers...); w.Code != http.StatusBadRequest {
				t.Errorf("%s: %s: %d", path, name, w.Code)
			}
		}
	}
	r := httptest.NewRequest(http.MethodPost, evaluation, strings.NewReader(question))
	r.Header["Content-Type"] = []string{"application/json", "text/plain"}
	w := httptest.NewRecorder()
	if a.ServeHTTP(w, r); w.Code != http.StatusBadRequest {
		t.Errorf("two types: %d", w.Code)
	}
	if len(s.asked) > 0 {
		t.Errorf("the PDP was asked %v", s.asked[0])
	}
	for _, contentType := range []string{"application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\"", "application/json; v=1"} {
		if w := post(t, a, evaluation, question, "Content-Type", contentType); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", contentType, w.Code, w.Body)
		}
	}
}

// Every way in which a decider can fail, and every reason it can give, has the
// answer that is promised.
func TestFailuresFailClosed(t *testing.T) {
	t.Parallel()
	fault := errors.New("the disk is full")
	type promise struct {
		status int
		reason string
		user   string
	}
	rows := map[string]struct {
		decide func(context.Context, authz.Request) (authz.Decision, error)
		want   promise
	}{
		"an error":               {func(context.Context, authz.Request) (authz.Decision, error) { return authz.Decision{}, fault }, promise{200, "internal", "500"}},
		"an error with an allow": {func(context.Context, authz.Request) (authz.Decision, error) { return allowed(), fault }, promise{200, "internal", "500"}},
		"an error with its denial": {
			func(context.Context, authz.Request) (authz.Decision, error) {
				return denied(authz.ReasonAuditDown), fault
			}, promise{200, "audit_unavailable", "503"},
		},
		"an allow without a record": {
			func(context.Context, authz.Request) (authz.Decision, error) { return authz.Decision{Allow: true}, nil }, promise{200, "internal", "500"},
		},
		"nothing": {func(context.Context, authz.Request) (authz.Decision, error) { return authz.Decision{}, nil }, promise{200, "internal", "500"}},
		"a panic": {func(context.Context, authz.Request) (authz.Decision, error) { panic("input: secret") }, promise{200, "internal", "500"}},
		"an error of the runtime": {
			func(_ context.Context, req authz.Request) (authz.Decision, error) {
				return authz.Decision{ID: req.Definition[5:]}, nil
			}, promise{200, "internal", "500"},
		},
		"hanging": {func(ctx context.Context, _ authz.Request) (authz.Decision, error) {
			<-ctx.Done()
			return denied(authz.ReasonDeadline), ctx.Err()
		}, promise{200, "deadline_exceeded", "503"}},
	}
	for code, want := range map[string]promise{
		authz.ReasonNoPermit: {200, "", "403"}, authz.ReasonForbidden: {200, "", "403"}, authz.ReasonPolicyError: {200, "", "500"},
		authz.ReasonPolicyUnavailable: {200, "", "503"}, authz.ReasonUnauthenticated: {401, "unauthenticated", ""}, authz.ReasonIdentityDown: {200, "", "503"},
		authz.ReasonSessionDown: {200, "", "503"}, authz.ReasonSessionMismatch: {200, "", "403"}, authz.ReasonToolUnknown: {200, "", "404"},
		authz.ReasonToolChanged: {200, "", "403"}, authz.ReasonInputInvalid: {200, "", "400"}, authz.ReasonAuditDown: {200, "", "503"},
		authz.ReasonDeadline: {200, "", "503"}, authz.ReasonInternal: {200, "", "500"}, authz.ReasonObligationUnmet: {200, "", "403"},
		authz.ReasonMethodUnknown: {200, "", "404"}, authz.ReasonPDPDown: {200, "", "503"}, authz.ReasonHeaderMismatch: {200, "", "400"},
		authz.ReasonAssertion: {200, "", "403"}, authz.ReasonEntitiesDown: {200, "", "503"}, authz.ReasonOverloaded: {429, "overloaded", ""},
		"a new one": {200, "", "403"},
	} {
		if want.reason == "" {
			want.reason = code
		}
		for how, err := range map[string]error{"": nil, ", with an error": fault} {
			rows["denied: "+code+how] = struct {
				decide func(context.Context, authz.Request) (authz.Decision, error)
				want   promise
			}{func(context.Context, authz.Request) (authz.Decision, error) { return denied(code), err }, want}
		}
	}
	for name, tt := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			a := newAPI(t, api.Config{Decider: &script{decide: tt.decide}, Timeout: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			for path, body := range map[string]string{evaluation: question, evaluations: question} {
				w := post(t, a, path, body)
				o := object(t, w)
				if w.Code != tt.want.status {
					t.Fatalf("%s: %d %s", path, w.Code, w.Body)
				}
				if w.Code != http.StatusOK {
					if got := o["error"].(map[string]any); got["code"] != tt.want.reason || got["status"] != float64(w.Code) || o["decision"] != nil {
						t.Errorf("%s: %s", path, w.Body)
					}
					continue
				}
				ctx, _ := o["context"].(map[string]any)
				user, _ := ctx["reason_user"].(map[string]any)
				if o["decision"] != false || ctx["reason"] != tt.want.reason || user[tt.want.user] == nil || len(user) != 1 {
					t.Errorf("%s: %s", path, w.Body)
				}
				if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "disk") {
					t.Errorf("%s: says too much: %s", path, w.Body)
				}
			}
			if strings.Contains(log.String(), "input: secret") || strings.Contains(log.String(), pepKey) {
				t.Errorf("the log says too much: %s", log.String())
			}
		})
	}
}

func TestStatusCarriesWhatToDoNext(t *testing.T) {
	t.Parallel()
	a := newAPI(t, api.Config{MaxBody: 200, Decider: &script{decide: func(_ context.Context, req authz.Request) (authz.Decision, error) {
		return denied(req.Action), nil
	}}})
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Request-ID", "q-1")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w
	}
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		header, value      string
	}{
		"unauthenticated":          {"POST", evaluation, strings.Replace(question, "read", authz.ReasonUnauthenticated, 1), 401, "WWW-Authenticate", `Bearer realm="bailiwick"`},
		"overloaded":               {"POST", evaluation, strings.Replace(question, "read", authz.ReasonOverloaded, 1), 429, "Retry-After", "1"},
		"too large":                {"POST", evaluation, strings.Repeat(" ", 201), 413, "", ""},
		"GET":                      {"GET", evaluation, "", 405, "Allow", "POST"},
		"OPTIONS":                  {"OPTIONS", evaluations, "", 405, "Allow", "POST"},
		"DELETE":                   {"DELETE", search + "action", "", 405, "Allow", "POST"},
		"GET of ours":              {"GET", "/bailiwick/v1/decide", "", 405, "Allow", "POST"},
		"no such search":           {"POST", search + "policy", question, 404, "", ""},
		"no such version":          {"POST", "/access/v2/evaluation", question, 404, "", ""},
		"the bare prefix":          {"POST", "/access/", question, 404, "", ""},
		"a slash behind":           {"POST", evaluation + "/", question, 404, "", ""},
		"nothing of the kind":      {"GET", "/", "", 404, "", ""},
		"metadata without an id":   {"GET", "/.well-known/authzen-configuration", "", 404, "", ""},
		"no such endpoint of ours": {"POST", "/bailiwick/v1/allow", question, 404, "", ""},
	} {
		w := ask(tt.method, tt.path, tt.body)
		o := object(t, w)
		e, _ := o["error"].(map[string]any)
		if w.Code != tt.status || tt.header != "" && w.Header().Get(tt.header) != tt.value || e["message"] == nil || w.Header().Get("X-Request-ID") != "q-1" {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
	}
	// The length is not always known beforehand.
	r := httptest.NewRequest(http.MethodPost, evaluation, io.MultiReader(strings.NewReader(strings.Repeat(" ", 201))))
	r.ContentLength = -1
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("unknown length: %d", w.Code)
	}
	r = httptest.NewRequest(http.MethodPost, evaluation, io.MultiReader(strings.NewReader(question)))
	r.ContentLength = -1
	r.Header.Set("Content-Type", "application/json")
	w = httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("unknown length: %d %s", w.Code, w.Body)
	}
}

func TestRequestIDIsEchoedWithinBounds(t *testing.T) {
	t.Parallel()
	s := &script{}
	a := newAPI(t, api.Config{Decider: s})
	long := strings.Repeat("x", 128)
	for id, want := range map[string]string{"q 1~": "q 1~", long: long, long + "x": "", "\x01": "", "é": "", "a\tb": "", "": ""} {
		s.asked = nil
		w := post(t, a, evaluation, question, "X-Request-ID", id)
		if got := w.Header().Get("X-Request-ID"); got != want || s.asked[0].Correlation != want {
			t.Errorf("%q: echoed %q, passed on %q", id, got, s.asked[0].Correlation)
		}
	}
	r := httptest.NewRequest(http.MethodPost, evaluation, strings.NewReader(question))
	r.Header = http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"a", "b"}}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if len(w.Header()["X-Request-Id"]) > 0 {
		t.Error("two ids were echoed")
	}
}

func TestDecisionContext(t *testing.T) {
	t.Parallel()
	approval := authz.Remedy{{Kind: authz.FactApproval, Name: "data-owner"}}
	both := authz.Remedy{{Kind: authz.FactApproval, Name: "data-owner"}, {Kind: authz.FactElevation, Name: "on-call"}}
	stepUp := authz.Remedy{{Kind: authz.FactLevel, Level: 2}, {Kind: authz.FactFresh, MaxAge: 300}}
	mixed := authz.Remedy{{Kind: authz.FactApproval, Name: "data-owner"}, {Kind: authz.FactLevel, Level: 2}}
	const head = `"evaluation_id":"d1","evaluated_at":"2026-11-25T11:30:00.123Z"`
	const no = head + `,"reason":"forbidden","reason_user":{"403":"A sentence."}`
	const endpoint = "https://pdp.example.com/access/v1/requests"
	request := func(template, wish string) string {
		return `"access_request":{"endpoint":"` + endpoint + `","template":"` + template + `","expires_at":"2026-11-25T11:40:00.123Z","display":{"title":"Request access","description":"` + wish + `"}}`
	}
	observed := allowed()
	observed.Observed, observed.Reasons = true, denied(authz.ReasonForbidden).Reasons
	obliged := allowed()
	obliged.Obligations = []authz.Obligation{{ID: "o1", Type: "notification", Properties: json.RawMessage(`{"to":"x"}`)}, {ID: "o2", Type: "log"}}
	busy := observed
	busy.Reasons = denied(authz.ReasonOverloaded).Reasons
	unbound := denied(authz.ReasonForbidden, approval)
	unbound.ID = ""
	for name, tt := range map[string]struct {
		d        authz.Decision
		requests string
		want     string
	}{
		"an allow":                  {d: allowed(), want: `{"decision":true,"context":{` + head + `}}`},
		"an observed denial":        {d: observed, want: `{"decision":true,"context":{` + head + `,"observed":true,"reason":"forbidden","reason_user":{"403":"A sentence."}}}`},
		"an allow, whatever reason": {d: busy, want: `{"decision":true,"context":{` + head + `,"observed":true,"reason":"overloaded","reason_user":{"429":"A sentence."}}}`},
		"obligations":               {d: obliged, want: `{"decision":true,"context":{` + head + `,"obligations":[{"id":"o1","type":"notification","properties":{"to":"x"}},{"id":"o2","type":"log"}]}}`},
		"a denial, final":           {d: denied(authz.ReasonForbidden), requests: endpoint, want: `{"decision":false,"context":{` + no + `}}`},
		"requestable":               {d: denied(authz.ReasonForbidden, approval), requests: endpoint, want: `{"decision":false,"context":{` + no + `,"remedies":[[{"kind":"approval","name":"data-owner"}]],` + request("approval:data-owner", "An approval by data-owner would allow this.") + `}}`},
		"nowhere to request":        {d: denied(authz.ReasonForbidden, approval), want: `{"decision":false,"context":{` + no + `,"remedies":[[{"kind":"approval","name":"data-owner"}]]}}`},
		"nothing that binds it":     {d: unbound, requests: endpoint, want: strings.Replace(`{"decision":false,"context":{`+no+`,"remedies":[[{"kind":"approval","name":"data-owner"}]]}}`, `"evaluation_id":"d1",`, "", 1)},
		"two grants together":       {d: denied(authz.ReasonForbidden, both), requests: endpoint, want: `{"decision":false,"context":{` + no + `,"remedies":[[{"kind":"approval","name":"data-owner"},{"kind":"elevation","name":"on-call"}]],` + request("approval:data-owner+elevation:on-call", "An approval by data-owner and a membership in on-call would allow this.") + `}}`},
		"step-up":                   {d: denied(authz.ReasonForbidden, stepUp), requests: endpoint, want: `{"decision":false,"context":{` + no + `,"remedies":[[{"kind":"auth_level","level":2},{"kind":"auth_age","max_age":300}]],"step_up":{"acr_level":2,"max_age":300}}}`},
		"a grant and more":          {d: denied(authz.ReasonForbidden, mixed), requests: endpoint, want: `{"decision":false,"context":{` + no + `,"remedies":[[{"kind":"approval","name":"data-owner"},{"kind":"auth_level","level":2}]]}}`},
		"one way or the other":      {d: denied(authz.ReasonForbidden, mixed, stepUp, approval), requests: endpoint, want: `{"decision":false,"context":{` + no + `,"remedies":[[{"kind":"approval","name":"data-owner"},{"kind":"auth_level","level":2}],[{"kind":"auth_level","level":2},{"kind":"auth_age","max_age":300}],[{"kind":"approval","name":"data-owner"}]],"step_up":{"acr_level":2,"max_age":300},` + request("approval:data-owner", "An approval by data-owner would allow this.") + `}}`},
		"a remedy of nothing":       {d: denied(authz.ReasonForbidden, authz.Remedy{}), requests: endpoint, want: `{"decision":false,"context":{` + no + `,"remedies":[[]]}}`},
		"nothing known of a denial": {d: authz.Decision{Reasons: []authz.Reason{{Code: "x\"y", Message: "\xff"}}}, want: `{"decision":false,"context":{"reason":"x\"y","reason_user":{"403":"�"}}}`},
	} {
		s := &script{decide: func(context.Context, authz.Request) (authz.Decision, error) { return tt.d, nil }}
		w := post(t, newAPI(t, api.Config{Decider: s, AccessRequests: tt.requests}), evaluation, question)
		object(t, w)
		if w.Code != http.StatusOK || w.Body.String() != tt.want {
			t.Errorf("%s:\ngot  %d %s\nwant %s", name, w.Code, w.Body, tt.want)
		}
	}
}

// A slow sender is cut off, and half a body is none.
func TestHalfABodyIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, evaluation, strings.NewReader(question))
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(question)) + 1 // the rest never comes
	newAPI(t, api.Config{}).ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	// One whose length nobody said may look whole.
	w2 := httptest.NewRecorder()
	r = httptest.NewRequest(http.MethodPost, evaluation, io.MultiReader(strings.NewReader(question), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = -1
	if newAPI(t, api.Config{}).ServeHTTP(w2, r); w2.Code != http.StatusBadRequest {
		t.Errorf("a lost connection: %d %s", w2.Code, w2.Body)
	}
	if len(w.set) != 2 || w.set[0].IsZero() || time.Until(w.set[0]) > time.Minute || !w.set[1].IsZero() {
		t.Errorf("deadlines %v", w.set)
	}
}

type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// What was asked is never overwritten: a decider may look at it later.
func TestBodiesAreNotReused(t *testing.T) {
	t.Parallel()
	s := &script{}
	a := newAPI(t, api.Config{Decider: s})
	for i := range 50 {
		post(t, a, evaluation, strings.Replace(question, `{`, fmt.Sprintf(`{"context":{"n":"%03d"},`, i), 1))
	}
	for i, req := range s.asked {
		if got := string(req.Asserted.Context); got != fmt.Sprintf(`{"n":"%03d"}`, i) {
			t.Errorf("request %d became %s", i, got)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Config{}); err == nil {
		t.Error("no decider: accepted")
	}
	for _, u := range []string{"http://pdp.example.com", "pdp.example.com", "https://", "https://pdp.example.com?x", "https://pdp.example.com#", "https://pdp.example.com/#x", "https://a@pdp.example.com", "https://pdp.example.com?", ":"} {
		if _, err := api.New(api.Config{Decider: &script{}, Identifier: u}); err == nil {
			t.Errorf("identifier %s: accepted", u)
		}
		if _, err := api.New(api.Config{Decider: &script{}, AccessRequests: u}); err == nil {
			t.Errorf("access requests %s: accepted", u)
		}
	}
}

func TestMetadataSaysWhatIsOffered(t *testing.T) {
	t.Parallel()
	get := func(c api.Config, method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		newAPI(t, c).ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	const id = "https://pdp.example.com/tenant1/"
	w := get(api.Config{Identifier: id}, "GET", "/.well-known/authzen-configuration/tenant1")
	want := map[string]any{
		"policy_decision_point":       id,
		"access_evaluation_endpoint":  "https://pdp.example.com/tenant1/access/v1/evaluation",
		"access_evaluations_endpoint": "https://pdp.example.com/tenant1/access/v1/evaluations",
		"search_subject_endpoint":     "https://pdp.example.com/tenant1/access/v1/search/subject",
		"search_resource_endpoint":    "https://pdp.example.com/tenant1/access/v1/search/resource",
		"search_action_endpoint":      "https://pdp.example.com/tenant1/access/v1/search/action",
	}
	if d := cmp.Diff(object(t, w), want); d != "" || w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "max-age=300" {
		t.Errorf("%d %v: got (-), want (+):\n%s", w.Code, w.Header(), d)
	}
	const requests = "https://requests.example.com/new"
	want["access_request_endpoint"], want["capabilities"] = requests, []any{"urn:openid:authzen:capability:access-request"}
	if d := cmp.Diff(object(t, get(api.Config{Identifier: id, AccessRequests: requests}, "GET", "/.well-known/authzen-configuration")), want); d != "" {
		t.Errorf("got (-), want (+):\n%s", d)
	}
	for path, status := range map[string]int{"/.well-known/authzen-configuration/tenant2": 404, "/.well-known/authzen-configurationtenant1": 404, "/.well-known/openid-configuration": 404} {
		if w := get(api.Config{Identifier: id}, "GET", path); w.Code != status {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := get(api.Config{Identifier: id}, "POST", "/.well-known/authzen-configuration"); w.Code != 405 || w.Header().Get("Allow") != "GET" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
	if w := get(api.Config{Identifier: id}, "HEAD", "/.well-known/authzen-configuration"); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

// With its connections kept, a PEP can ask a thousand questions on few.
func TestAnswersKeepConnections(t *testing.T) {
	t.Parallel()
	var accepted atomic.Int64
	s := httptest.NewUnstartedServer(newAPI(t, api.Config{}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	for i := range 100 {
		body := question
		if i%3 == 0 {
			body = `{` // an error keeps it too
		}
		resp, err := s.Client().Post(s.URL+evaluation, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if accepted.Load() != 1 {
		t.Errorf("100 questions took %d connections", accepted.Load())
	}
}

// Questions of many PEPs at once do not get into each other.
func TestExchangesAreNotMixed(t *testing.T) {
	t.Parallel()
	s := &script{decide: func(_ context.Context, req authz.Request) (authz.Decision, error) {
		d := denied(authz.ReasonNoPermit)
		d.ID = req.Asserted.Subject.ID + req.Resource.ID
		return d, nil
	}}
	a := newAPI(t, api.Config{Decider: s})
	for worker := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := range 200 {
				id := strings.Repeat(string(rune('a'+worker)), i%50+1)
				w := post(t, a, evaluation, strings.ReplaceAll(strings.ReplaceAll(question, "alice", id), "r1", id))
				if ctx, _ := object(t, w)["context"].(map[string]any); ctx["evaluation_id"] != id+id {
					t.Errorf("asked for %s, got %s", id, w.Body)
				}
			}
		})
	}
}
