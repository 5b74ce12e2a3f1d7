package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
)

// seeds are bodies that are questions, and that nearly are.
func seeds(f *testing.F) {
	f.Helper()
	for _, s := range []string{
		question, typical, `{"evaluations":[` + question + `,{}]}`, batchOf("deny_on_first_deny", "allow1", "", "deny1"), batchOf("execute_some", "a"),
		strings.Replace(question, `{`, `{"subject":{"type":"user","id":"bob"},`, 1), strings.Replace(question, `{`, `{"\u0073ubject":1,`, 1),
		strings.Replace(question, `{`, `{"context":{"session":"s","input":{"a":[{}]}},`, 1), strings.Replace(question, `{`, `{"context":{"a":1,"a":2},`, 1),
		strings.Replace(question, `alice`, `\ud83d\ude00`, 1), strings.Replace(question, `alice`, "\xff", 1), question + question, `[]`, `{}`, ``,
		`{"evaluations":[[],1,null,"x",{"subject":{}}],"options":{"evaluations_semantic":"permit_on_first_permit"}}`,
	} {
		f.Add([]byte(s))
	}
}

// fuzzAnswer posts a body. Whatever it is, it gets an answer in I-JSON, and a
// body that is not I-JSON is refused, and the decider never asked.
func fuzzAnswer(t *testing.T, path string, body []byte) (int, map[string]any, []authz.Request) {
	s := &script{decide: byName}
	w := post(t, newAPI(t, api.Config{Decider: s}), path, string(body))
	o := object(t, w)
	if !jsontext.Value(w.Body.Bytes()).IsValid() {
		t.Errorf("%q: the answer is not I-JSON: %q", body, w.Body)
	}
	if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
		t.Errorf("%q: %d", body, w.Code)
	}
	if !jsontext.Value(body).IsValid() && (w.Code != http.StatusBadRequest || len(s.asked) > 0) {
		t.Errorf("%q: answered, though it is not I-JSON: %d", body, w.Code)
	}
	for _, req := range s.asked {
		if req.Action == "" || req.Asserted.Subject.Type == "" || req.Asserted.Subject.ID == "" || req.Resource.Type == "" || req.Resource.ID == "" {
			t.Errorf("%q: asked for less than a question: %+v", body, req)
		}
		for _, part := range []json.RawMessage{req.Input, req.Asserted.Context, req.Asserted.SubjectProperties, req.Asserted.ActionProperties, req.Asserted.ResourceProperties} {
			if v := jsontext.Value(part); len(v) > 0 && (v.Kind() != '{' || !v.IsValid()) {
				t.Errorf("%q: asked with %q", body, part)
			}
		}
	}
	return w.Code, o, s.asked
}

func FuzzEvaluation(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		status, o, asked := fuzzAnswer(t, evaluation, body)
		if status != http.StatusOK {
			if len(asked) > 0 || o["decision"] != nil {
				t.Errorf("%q: refused and decided", body)
			}
			return
		}
		// Read by another parser, it is the same question.
		var q struct {
			Subject, Resource struct{ Type, ID string }
			Action            struct{ Name string }
		}
		if err := json.Unmarshal(exact(body), &q); err != nil || len(asked) != 1 {
			t.Fatalf("%q: %v, asked %d times", body, err, len(asked))
		}
		if got := asked[0]; got.Asserted.Subject != authz.Entity(q.Subject) || got.Resource != authz.Entity(q.Resource) || got.Action != q.Action.Name {
			t.Errorf("%q: asked %+v", body, got)
		}
		if o["decision"] != strings.HasPrefix(q.Action.Name, "allow") {
			t.Errorf("%q: decided %v", body, o["decision"])
		}
	})
}

// exact leaves only members whose names are those of the standard, for
// encoding/json takes other cases for the same.
func exact(body []byte) []byte {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(body, &all) // what is not there is missed by the caller
	parts := map[string]map[string]json.RawMessage{}
	for _, name := range []string{"subject", "action", "resource"} {
		var part map[string]json.RawMessage
		_ = json.Unmarshal(all[name], &part)
		parts[name] = map[string]json.RawMessage{"type": part["type"], "id": part["id"], "name": part["name"]}
	}
	b, err := json.Marshal(parts)
	if err != nil {
		return nil
	}
	return b
}

func FuzzEvaluations(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		status, o, asked := fuzzAnswer(t, evaluations, body)
		items, many := o["evaluations"].([]any)
		if status != http.StatusOK || !many {
			return
		}
		allows := 0
		for _, e := range items {
			allow, ok := e.(map[string]any)["decision"].(bool)
			if !ok {
				t.Errorf("%q: an item without a decision: %v", body, e)
			}
			if allow {
				allows++
			}
		}
		if len(items) == 0 || len(items) < len(asked) || allows > len(asked) {
			t.Errorf("%q: %d items, %d asked, %d allowed", body, len(items), len(asked), allows)
		}
	})
}

func FuzzSearch(f *testing.F) {
	s := &script{search: numbers(9)}
	a := newAPI(f, api.Config{Decider: s, PageKey: []byte("k")})
	w := post(f, a, search+"subject", asking(`"limit":4`))
	genuine := object(f, w)["page"].(map[string]any)["next_token"].(string)
	f.Add(genuine, asking(`"limit":4,"token":"TOKEN"`))
	for _, token := range []string{"", "x", genuine[1:], genuine + "A", strings.Repeat("A", 24)} {
		f.Add(token, asking(`"token":"TOKEN"`))
	}
	f.Fuzz(func(t *testing.T, token, body string) {
		s := &script{search: numbers(9)}
		a := newAPI(t, api.Config{Decider: s, PageKey: []byte("k")})
		quoted, err := json.Marshal(token)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{body, strings.ReplaceAll(body, `"TOKEN"`, string(quoted))} {
			w := post(t, a, search+"subject", body)
			o := object(t, w)
			if _, found := o["results"].([]any); found != (w.Code == http.StatusOK) || !found && w.Code != http.StatusBadRequest {
				t.Errorf("%q: %d %s", body, w.Code, w.Body)
			}
			if !jsontext.Value(body).IsValid() && w.Code == http.StatusOK {
				t.Errorf("%q: answered, though it is not I-JSON", body)
			}
		}
		// The query is fixed: only the genuine token, or none, goes with it.
		w := post(t, a, search+"subject", asking(`"token":`+string(quoted)))
		if ok := w.Code == http.StatusOK; ok != (token == genuine || token == "") {
			t.Errorf("token %q: %d", token, w.Code)
		}
	})
}
