// Package certify runs the certification scenario of the AuthZEN Authorization
// API 1.0 against a server.
package certify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// deadline bounds each request.
const deadline = 30 * time.Second

// Config says what is certified. All of it is required but Key.
type Config struct {
	// BaseURL is the policy decision point identifier.
	BaseURL string
	// Client trusts the server.
	Client *http.Client
	// Key is what the PEP shows, if anything.
	Key string
	// CasesFile is authzen-cert-cases.json.
	CasesFile string
}

// A testCase is one row of the file.
type testCase struct {
	ID, Level, Method, Path string
	Headers                 map[string]string
	Body                    json.RawMessage
	RawBody                 *string `json:"raw_body"`
	Expect                  map[string]json.RawMessage
	Note                    string
}

// A reply is what the server answered.
type reply struct {
	status int
	header http.Header
	body   []byte
	json   map[string]any // nil: the body is no JSON object
}

// A runner runs the cases of one level, in order.
type runner struct {
	Config
	replies map[string]*reply // by case
}

// Run runs every case, level by level. A level is certified when its subtest
// passes.
func Run(t *testing.T, c Config) {
	t.Helper()
	for _, level := range load(t, c.CasesFile) {
		t.Run(level[0].Level, func(t *testing.T) {
			r := &runner{Config: c, replies: map[string]*reply{}}
			passed := 0
			for _, tc := range level {
				if t.Run(tc.ID, func(t *testing.T) { r.run(t, tc) }) {
					passed++
				}
			}
			t.Logf("%d of %d cases pass", passed, len(level))
		})
	}
}

// load reads the cases, grouped by level.
func load(t *testing.T, file string) [][]testCase {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Cases []testCase }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Cases) == 0 {
		t.Fatal("there are no cases")
	}
	var levels [][]testCase
	for _, c := range doc.Cases {
		i := slices.IndexFunc(levels, func(l []testCase) bool { return l[0].Level == c.Level })
		if i < 0 {
			i, levels = len(levels), append(levels, nil)
		}
		levels[i] = append(levels[i], c)
	}
	return levels
}

func (r *runner) run(t *testing.T, tc testCase) {
	if tc.Method == "(format)" {
		r.checkFormat(t)
		return
	}
	if _, ok := tc.Expect["only_if"]; ok && r.nextToken("c-4-5-1") == "" {
		t.Skip("there is no second page")
	}
	var repeat int
	decode(t, tc.Expect["repeat"], &repeat)
	for range max(repeat, 1) {
		got := r.send(t, tc)
		r.replies[tc.ID] = got
		for name, want := range tc.Expect {
			r.check(t, tc, got, name, want)
		}
		if t.Failed() {
			t.Logf("%s: %d %s", tc.Note, got.status, got.body)
		}
	}
}

func (r *runner) send(t *testing.T, tc testCase) *reply {
	t.Helper()
	body := tc.Body
	if tc.RawBody != nil {
		body = []byte(*tc.RawBody)
	}
	body = bytes.ReplaceAll(body, []byte("${c-4-5-1.page.next_token}"), []byte(r.nextToken("c-4-5-1")))
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, tc.Method, r.url(t, tc.Path), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if tc.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Key != "" {
		req.Header.Set("Authorization", "Bearer "+r.Key)
	}
	for name, value := range tc.Headers {
		req.Header.Set(name, value)
	}
	resp, err := r.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := &reply{status: resp.StatusCode, header: resp.Header}
	if got.body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(got.body, &got.json) != nil {
		got.json = nil
	}
	return got
}

// url is a path of the server; a well-known one is put between host and path
// (RFC 8615).
func (r *runner) url(t *testing.T, path string) string {
	t.Helper()
	u, err := url.Parse(r.BaseURL)
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(u.Path, "/")
	if strings.HasPrefix(path, "/.well-known/") {
		u.Path = path + base
	} else {
		u.Path = base + path
	}
	return u.String()
}

// check holds a reply to one expectation.
func (r *runner) check(t *testing.T, tc testCase, got *reply, name string, want json.RawMessage) {
	t.Helper()
	ok := true
	switch name {
	case "only_if", "repeat": // seen to by run
	case "status":
		ok = string(want) == fmt.Sprint(got.status)
	case "content_type":
		ok = isJSON(got)
	case "json_body":
		ok = got.json != nil
	case "echo_request_id":
		ok = got.header.Get("X-Request-ID") == tc.Headers["X-Request-ID"]
	case "decision":
		ok = isJSON(got) && equal(t, got.json["decision"], want)
	case "decision_is_boolean":
		ok = is[bool](got.json["decision"])
	case "context_if_present_is_object":
		ok = absentOr[map[string]any](got.json, "context")
	case "evaluations":
		ok = isJSON(got) && equal(t, decisions(got), want)
	case "evaluations_len":
		ok = equal(t, len(list(got.json["evaluations"])), want)
	case "decisions_are_boolean":
		ok = !slices.ContainsFunc(decisions(got), func(d any) bool { return !is[bool](d) })
	case "results_include":
		ok = isJSON(got) && includes(t, got, want)
	case "results_equal":
		ok = is[[]any](got.json["results"]) && equal(t, got.json["results"], want)
	case "results_is_array":
		ok = is[[]any](got.json["results"])
	case "result_type":
		ok = !slices.ContainsFunc(list(got.json["results"]), func(e any) bool { return !equal(t, object(e)["type"], want) })
	case "same_results_as":
		var other string
		decode(t, want, &other)
		ok = r.replies[other] != nil && reflect.DeepEqual(got.json["results"], r.replies[other].json["results"])
	case "page_if_present_is_object":
		ok = absentOr[map[string]any](got.json, "page")
	case "page_is_object":
		ok = is[map[string]any](got.json["page"])
	case "next_token_if_present_is_string":
		ok = absentOr[string](object(got.json["page"]), "next_token")
	case "next_token_is_string":
		ok = is[string](object(got.json["page"])["next_token"])
	case "policy_decision_point_equals_base_url":
		ok = got.json["policy_decision_point"] == r.BaseURL
	case "https_url_required", "https_url_if_present":
		ok = httpsURLs(t, got, want, name == "https_url_required")
	case "capabilities_if_present":
		_, present := got.json["capabilities"]
		ok = !present || len(list(got.json["capabilities"])) > 0 && !slices.ContainsFunc(list(got.json["capabilities"]), func(e any) bool { return !is[string](e) })
	case "signed_metadata_if_present":
		if _, present := got.json["signed_metadata"]; present {
			t.Error("signed metadata cannot be checked here")
		}
	default:
		t.Errorf("nobody knows how to check %q", name)
	}
	if !ok {
		t.Errorf("%s: want %s", name, want)
	}
}

// checkFormat holds the pages that were seen to their form (case 4.5.3).
func (r *runner) checkFormat(t *testing.T) {
	for id, got := range r.replies {
		page, ok := got.json["page"]
		if !ok {
			continue
		}
		if !is[map[string]any](page) || !is[string](object(page)["next_token"]) {
			t.Errorf("%s: page %v", id, page)
		}
		for _, name := range []string{"count", "total"} {
			if !absentOr[float64](object(page), name) {
				t.Errorf("%s: page.%s is no number", id, name)
			}
		}
		if !absentOr[map[string]any](object(page), "properties") {
			t.Errorf("%s: page.properties is no object", id)
		}
	}
}

func (r *runner) nextToken(id string) string {
	if r.replies[id] == nil {
		return ""
	}
	token, _ := object(r.replies[id].json["page"])["next_token"].(string)
	return token
}

// isJSON reports whether a reply is a successful one in JSON (§5 of the
// scenario).
func isJSON(got *reply) bool {
	media, _, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	return err == nil && media == "application/json" && got.json != nil
}

func decisions(got *reply) []any {
	out := []any{}
	for _, e := range list(got.json["evaluations"]) {
		out = append(out, object(e)["decision"])
	}
	return out
}

func includes(t *testing.T, got *reply, want json.RawMessage) bool {
	t.Helper()
	var wanted []map[string]any
	decode(t, want, &wanted)
	for _, w := range wanted {
		if !slices.ContainsFunc(list(got.json["results"]), func(e any) bool { return reflect.DeepEqual(e, any(w)) }) {
			return false
		}
	}
	return true
}

func httpsURLs(t *testing.T, got *reply, want json.RawMessage, required bool) bool {
	t.Helper()
	var names []string
	decode(t, want, &names)
	for _, name := range names {
		value, present := got.json[name]
		if !present && !required {
			continue
		}
		s, _ := value.(string)
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" {
			return false
		}
	}
	return true
}

func decode(t *testing.T, b json.RawMessage, into any) {
	t.Helper()
	if len(b) == 0 {
		return
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, got any, want json.RawMessage) bool {
	t.Helper()
	var w, g any
	decode(t, want, &w)
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	decode(t, b, &g)
	return reflect.DeepEqual(g, w)
}

func is[T any](v any) bool {
	_, ok := v.(T)
	return ok
}

func absentOr[T any](o map[string]any, name string) bool {
	v, present := o[name]
	return !present || is[T](v)
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}
