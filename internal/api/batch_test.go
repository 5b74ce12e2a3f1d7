package api_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/api"
)

// byName allows what is called so, and gives the decision the action's name.
func byName(_ context.Context, req authz.Request) (authz.Decision, error) {
	d := denied(authz.ReasonNoPermit)
	if strings.HasPrefix(req.Action, "allow") {
		d = allowed()
	}
	d.ID = req.Action
	return d, nil
}

// batchOf asks for several actions under one semantic.
func batchOf(semantic string, actions ...string) string {
	items := make([]string, len(actions))
	for i, a := range actions {
		items[i] = `{"action":{"name":"` + a + `"}}`
		if a == "" {
			items[i] = `{"action":{}}`
		}
	}
	return `{"subject":{"type":"user","id":"alice"},"resource":{"type":"record","id":"r1"},"evaluations":[` + strings.Join(items, ",") + `],"options":{"evaluations_semantic":"` + semantic + `","other":1}}`
}

// told are the decisions of an answer, in order, with what they are of.
func told(o map[string]any) (out []string) {
	items, _ := o["evaluations"].([]any)
	for _, e := range items {
		e := e.(map[string]any)
		ctx, _ := e["context"].(map[string]any)
		what := ctx["evaluation_id"]
		if bad, ok := ctx["error"].(map[string]any); ok {
			what = fmt.Sprint(bad["status"], " ", bad["message"])
		}
		out = append(out, fmt.Sprint(e["decision"], " ", what))
	}
	return out
}

func TestSemantics(t *testing.T) {
	t.Parallel()
	const broken = "false 400 action.name is missing."
	for name, tt := range map[string]struct {
		semantic string
		ask      []string
		want     []string
		asked    int
	}{
		"all":                        {"execute_all", []string{"allow1", "deny1", "allow2"}, []string{"true allow1", "false deny1", "true allow2"}, 3},
		"all, one broken":            {"execute_all", []string{"allow1", "", "allow2"}, []string{"true allow1", broken, "true allow2"}, 2},
		"deny first":                 {"deny_on_first_deny", []string{"allow1", "deny1", "allow2"}, []string{"true allow1", "false deny1"}, 2},
		"deny first, none denied":    {"deny_on_first_deny", []string{"allow1", "allow2"}, []string{"true allow1", "true allow2"}, 2},
		"deny first, one broken":     {"deny_on_first_deny", []string{"allow1", "", "allow2"}, []string{"true allow1", broken}, 1},
		"permit first":               {"permit_on_first_permit", []string{"deny1", "allow1", "allow2"}, []string{"false deny1", "true allow1"}, 2},
		"permit first, none allowed": {"permit_on_first_permit", []string{"deny1", "deny2"}, []string{"false deny1", "false deny2"}, 2},
		"permit first, one broken":   {"permit_on_first_permit", []string{"", "allow1", "deny1"}, []string{broken, "true allow1"}, 1},
	} {
		s := &script{decide: byName}
		w := post(t, newAPI(t, api.Config{Decider: s}), evaluations, batchOf(tt.semantic, tt.ask...))
		o := object(t, w)
		if d := cmp.Diff(told(o), tt.want); d != "" || w.Code != http.StatusOK || len(s.asked) != tt.asked || o["decision"] != nil {
			t.Errorf("%s: %d, %d asked: got (-), want (+):\n%s", name, w.Code, len(s.asked), d)
		}
	}
}

// Defaults are taken whole, wherever they stand, and never mixed.
func TestDefaultsAreWholeObjects(t *testing.T) {
	t.Parallel()
	s := &script{}
	body := `{"evaluations":[{},{"subject":{"type":"user","id":"bob"}},{"resource":{"type":"record","id":"r2"},"context":{"b":2}}],
		"context":{"a":1,"session":"s1","input":{}},"resource":{"type":"record","id":"r1","properties":{"x":1}},"action":{"name":"read"},
		"subject":{"type":"user","id":"alice","properties":{"role":"admin"}},"options":{"evaluations_semantic":"deny_on_first_deny"}}`
	if w := post(t, newAPI(t, api.Config{Decider: s}), evaluations, body); w.Code != http.StatusOK || len(s.asked) != 3 {
		t.Fatalf("%d %s, %d asked", w.Code, w.Body, len(s.asked))
	}
	var got []string
	for _, r := range s.asked {
		got = append(got, fmt.Sprintf("%s%s %s %s%s %s %s%s", r.Asserted.Subject.ID, r.Asserted.SubjectProperties, r.Action, r.Resource.ID, r.Asserted.ResourceProperties, r.Asserted.Context, r.Session, r.Input))
	}
	want := []string{
		`alice{"role":"admin"} read r1{"x":1} {"a":1,"session":"s1","input":{}} s1{}`,
		`bob read r1{"x":1} {"a":1,"session":"s1","input":{}} s1{}`,
		`alice{"role":"admin"} read r2 {"b":2} `,
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("got (-), want (+):\n%s", d)
	}
}

func TestBatchThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	s := &script{}
	a := newAPI(t, api.Config{Decider: s, MaxEvaluations: 3})
	const item = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r1"}}`
	for name, body := range map[string]string{
		"an unknown semantic":  batchOf("execute_some", "a"),
		"an empty semantic":    batchOf("", "a"),
		"a semantic of null":   `{"evaluations":[` + item + `],"options":{"evaluations_semantic":null}}`,
		"a semantic of a list": `{"evaluations":[` + item + `],"options":{"evaluations_semantic":["execute_all"]}}`,
		"options of a string":  `{"evaluations":[` + item + `],"options":"execute_all"}`,
		"evaluations of null":  `{"evaluations":null}`,
		"evaluations, one":     `{"evaluations":` + item + `}`,
		"too many":             `{"evaluations":[` + strings.Repeat(item+",", 3) + item + `]}`,
		"a broken default":     `{"subject":"alice","evaluations":[` + item + `]}`,
		"an incomplete one":    `{"subject":{"type":"user"},"evaluations":[` + item + `]}`,
		"a name twice inside":  `{"evaluations":[{"subject":{"type":"user","id":"alice","id":"bob"}}]}`,
		"empty and incomplete": `{"evaluations":[]}`,
		"semantic, no items":   `{"options":{"evaluations_semantic":"x"},` + item[1:],
	} {
		if w := post(t, a, evaluations, body); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if len(s.asked) > 0 {
		t.Errorf("%d were asked", len(s.asked))
	}
	if w := post(t, a, evaluations, `{"evaluations":[`+strings.Repeat(item+",", 2)+item+`]}`); w.Code != http.StatusOK {
		t.Errorf("as many as there may be: %d %s", w.Code, w.Body)
	}
	// What is no evaluation is denied, each for itself.
	w := post(t, a, evaluations, `{"evaluations":[1,`+item+`,{"subject":"x"}]}`)
	if d := cmp.Diff(told(object(t, w)), []string{"false 400 An evaluation must be an object.", "true d1", "false 400 subject must be an object."}); d != "" {
		t.Errorf("got (-), want (+):\n%s", d)
	}
}

// Items are decided together, so that their records share commits; but not
// without bound. Nobody is let through while another could still come in.
func TestBatchIsDecidedTogetherInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inside atomic.Int64
		door := make(chan struct{})
		s := &script{decide: func(ctx context.Context, req authz.Request) (authz.Decision, error) {
			inside.Add(1)
			select {
			case <-door:
			case <-ctx.Done():
				return denied(authz.ReasonDeadline), ctx.Err()
			}
			return byName(ctx, req)
		}}
		var ask, want []string
		for i := range 100 {
			ask = append(ask, fmt.Sprintf("allow%d", i))
			want = append(want, fmt.Sprintf("true allow%d", i))
		}
		var answer *httptest.ResponseRecorder
		var asked sync.WaitGroup
		asked.Go(func() {
			answer = post(t, newAPI(t, api.Config{Decider: s}), evaluations, batchOf("execute_all", ask...))
		})
		synctest.Wait()
		if inside.Load() != 16 {
			t.Errorf("%d at the same time", inside.Load())
		}
		close(door)
		asked.Wait()
		if d := cmp.Diff(told(object(t, answer)), want); d != "" {
			t.Errorf("got (-), want (+):\n%s", d)
		}
	})
}

// An allow is one, whatever reason it gives.
func TestAllowIsNoRefusal(t *testing.T) {
	t.Parallel()
	for _, semantic := range []string{"execute_all", "deny_on_first_deny"} {
		s := &script{decide: func(context.Context, authz.Request) (authz.Decision, error) {
			d := denied(authz.ReasonUnauthenticated)
			d.Allow, d.Observed = true, true
			return d, nil
		}}
		w := post(t, newAPI(t, api.Config{Decider: s}), evaluations, batchOf(semantic, "a", "b"))
		if d := cmp.Diff(told(object(t, w)), []string{"true d1", "true d1"}); d != "" {
			t.Errorf("%s: %d: got (-), want (+):\n%s", semantic, w.Code, d)
		}
	}
}

// A fault of one item is the denial of that item.
func TestFaultOfAnItemStaysThere(t *testing.T) {
	t.Parallel()
	for _, semantic := range []string{"execute_all", "permit_on_first_permit"} {
		s := &script{decide: func(ctx context.Context, req authz.Request) (authz.Decision, error) {
			switch req.Action {
			case "panic":
				panic("at the disco")
			case "overloaded":
				return denied(authz.ReasonOverloaded), nil
			}
			return byName(ctx, req)
		}}
		w := post(t, newAPI(t, api.Config{Decider: s}), evaluations, batchOf(semantic, "panic", "overloaded", "allow1"))
		if d := cmp.Diff(told(object(t, w)), []string{"false <nil>", "false d1", "true allow1"}); d != "" || w.Code != http.StatusOK {
			t.Errorf("%s: %d: got (-), want (+):\n%s", semantic, w.Code, d)
		}
	}
}

// A PEP that nobody knows gets one answer, and does not fill the record with
// all of its items.
func TestUnknownPEPIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, semantic := range []string{"execute_all", "deny_on_first_deny", "permit_on_first_permit"} {
		s := &script{decide: func(context.Context, authz.Request) (authz.Decision, error) {
			return denied(authz.ReasonUnauthenticated), nil
		}}
		w := post(t, newAPI(t, api.Config{Decider: s}), evaluations, batchOf(semantic, strings.Split(strings.Repeat("a", 100), "")...))
		if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" || object(t, w)["evaluations"] != nil {
			t.Errorf("%s: %d %s", semantic, w.Code, w.Body)
		}
		if len(s.asked) > 16 {
			t.Errorf("%s: %d were asked", semantic, len(s.asked))
		}
	}
}

// The time of a request is that of all its evaluations together.
func TestBatchEndsInTime(t *testing.T) {
	t.Parallel()
	s := &script{decide: func(ctx context.Context, _ authz.Request) (authz.Decision, error) {
		<-ctx.Done()
		return denied(authz.ReasonDeadline), ctx.Err()
	}}
	begun := time.Now()
	w := post(t, newAPI(t, api.Config{Decider: s, Timeout: 100 * time.Millisecond}), evaluations, batchOf("permit_on_first_permit", strings.Split(strings.Repeat("a", 100), "")...))
	if w.Code != http.StatusOK || len(told(object(t, w))) != 100 || strings.Contains(w.Body.String(), "true") || time.Since(begun) > 8*time.Second {
		t.Errorf("%d after %v: %.200s", w.Code, time.Since(begun), w.Body)
	}
}
