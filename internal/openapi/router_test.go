package openapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
)

// target parses a request target as a server does.
func target(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.ParseRequestURI(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestRequestsBecomeCalls(t *testing.T) {
	t.Parallel()
	routers := map[string]*openapi.Router{}
	digests := map[string][]string{}
	for _, name := range []string{"pets30.yaml", "pets31.json"} {
		d := parse(t, read(t, name))
		routers[name] = d.Router()
		for _, def := range d.Definitions() {
			digest, err := authz.Digest(def)
			if err != nil {
				t.Fatal(err)
			}
			digests[name] = append(digests[name], digest)
		}
	}
	tenant := header("X-Tenant", "acme")
	asJSON := header("Content-Type", "application/json; charset=UTF-8")
	form := header("Content-Type", "application/x-www-form-urlencoded")
	for _, tt := range []struct {
		name, doc, method, target string
		header                    http.Header
		body                      string
		tool, input               string
	}{
		{name: "header", method: "GET", target: "/pets", header: tenant, tool: "listPets", input: `{"X-Tenant":"acme"}`},
		{name: "lists", method: "GET", target: "/pets?tag=a+b&limit=5&tag=c%2Cd&kinds=cat,dog", header: tenant, tool: "listPets",
			input: `{"kinds":["cat","dog"],"limit":5,"tag":["a b","c,d"],"X-Tenant":"acme"}`},
		{name: "list of one", method: "GET", target: "/pets?tag=a", header: tenant, tool: "listPets", input: `{"tag":["a"],"X-Tenant":"acme"}`},
		{name: "literal beats parameter", method: "GET", target: "/pets/mine", tool: "myPets", input: `{}`},
		{name: "parameter in the path", method: "GET", target: "/pets/7?verbose=true&weight=-2.5", tool: "getPet", input: `{"petId":7,"verbose":true,"weight":-2.5}`},
		{name: "an encoded digit is a digit", method: "GET", target: "/pets/%37", tool: "getPet", input: `{"petId":7}`},
		{name: "HEAD", method: "HEAD", target: "/pets/7", tool: "hasPet", input: `{"petId":7}`},
		{name: "literal after a parameter", method: "POST", target: "/pets/7:adopt", header: form, body: "owner=Bob+B%C3%B6hm&visits=1&visits=2", tool: "adopt",
			input: `{"petId":7,"body":{"owner":"Bob Böhm","visits":[1,2]}}`},
		{name: "optional body left out", method: "POST", target: "/pets/7:adopt", tool: "adopt", input: `{"petId":7}`},
		{name: "JSON body as it is", method: "POST", target: "/pets", header: asJSON, body: ` {"name": "Tom", "price": 1.50} `, tool: "addPet",
			input: `{"body": {"name": "Tom", "price": 1.50} }`},
		{name: "opaque body", method: "PUT", target: "/pets/7/photo", header: header("Content-Type", "image/png"), body: "abc", tool: "put_pets_petId_photo",
			input: `{"petId":7,"body_digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","body_size":3}`},
		{name: "two arguments of one name", method: "GET", target: "/archive/a/b?id=c", tool: "archived", input: `{"id":"a","part":"b","id_query":"c"}`},
		{name: "JSON in the query", doc: "pets31.json", method: "GET", target: "/v2/pets/tom?since=2026-01-01&filter=%7B%22kind%22%3A%22cat%22%7D", tool: "getPet",
			input: `{"petId":"tom","filter":{"kind":"cat"},"since":"2026-01-01"}`},
		{name: "another type of JSON", doc: "pets31.json", method: "PATCH", target: "/v2/pets/tom%3F%20x", header: header("Content-Type", "application/merge-patch+json"), body: `null`,
			tool: "patch_v2_pets_petId", input: `{"petId":"tom? x","body":null}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc := tt.doc
			if doc == "" {
				doc = "pets30.yaml"
			}
			call, err := routers[doc].Route(tt.method, target(t, tt.target), tt.header, []byte(tt.body), true)
			if err != nil {
				t.Fatal(err)
			}
			if call.Tool != tt.tool || string(call.Input) != tt.input {
				t.Errorf("got %s %s\nwant %s %s", call.Tool, call.Input, tt.tool, tt.input)
			}
			if !slices.Contains(digests[doc], call.Definition) {
				t.Errorf("the digest %s is that of no definition", call.Definition)
			}
		})
	}
}

// Whatever two programs could read as different paths is no operation: the
// upstream must not see another request than the one that was decided.
func TestPathsHaveOneReading(t *testing.T) {
	t.Parallel()
	r := parse(t, read(t, "pets31.json")).Router() // its petId is any string
	pets := parse(t, read(t, "pets30.yaml")).Router()
	for _, tt := range []struct {
		name, target string
		router       *openapi.Router
	}{
		{"empty segment", "/v2//pets/tom", r},
		{"empty segment first", "//v2/pets/tom", r},
		{"empty parameter", "/v2/pets/", r},
		{"slash at the end", "/v2/pets/tom/", r},
		{"dot", "/v2/./pets/tom", r},
		{"dot as a parameter", "/v2/pets/.", r},
		{"dots", "/v2/pets/..", r},
		{"dots that lead out and in", "/v2/x/../pets/tom", r},
		{"encoded dots", "/v2/pets/%2e%2e", r},
		{"half encoded dots", "/v2/pets/.%2E", r},
		{"encoded slash", "/v2/pets/a%2fb", r},
		{"encoded slash in capitals", "/v2/pets/a%2Fb", r},
		{"encoded backslash", "/v2/pets/a%5cb", r},
		{"backslash", `/v2/pets/a\b`, r},
		{"encoded twice", "/v2/pets/a%252fb", r},
		{"matrix parameter", "/v2/pets/tom;admin=true", r},
		{"encoded semicolon", "/v2/pets/tom%3badmin", r},
		{"dots with a semicolon", "/v2/pets/..;", r},
		{"NUL", "/v2/pets/tom%00", r},
		{"line feed", "/v2/pets/tom%0a", r},
		{"not UTF-8", "/v2/pets/%ff", r},
		{"space at the end", "/v2/pets/tom%20", r},
		{"no-break space at the end", "/v2/pets/tom%c2%a0", r},
		{"other case", "/V2/pets/tom", r},
		{"encoded literal", "/v2/p%65ts/tom", r},
		{"encoded literal that is a sibling of a parameter", "/pets/%6dine", pets},
		{"literal in other case that is a sibling of a parameter", "/pets/MINE", pets},
		{"literal in another script's case", "/pets/m\u0131ne", pets},
		{"two templates, neither closer", "/archive/7/latest", pets},
		{"too many segments", strings.Repeat("/a", 100), r},
		{"root", "/", r},
		{"other path", "/v2/cats/tom", r},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			call, err := tt.router.Route("GET", target(t, tt.target), nil, nil, true)
			var in *openapi.InputError
			// pets30's petId is a number, so what is no sibling is a wrong one.
			if !errors.Is(err, openapi.ErrUnknown) && !errors.As(err, &in) {
				t.Errorf("got %+v, %v", call, err)
			}
			if tt.router == r && !errors.Is(err, openapi.ErrUnknown) {
				t.Errorf("got %v", err)
			}
		})
	}
	// Not even a document makes two slashes one path.
	odd := parse(t, []byte(operation("get", "/a//b", ""))).Router()
	if call, err := odd.Route("GET", target(t, "/a//b"), nil, nil, true); !errors.Is(err, openapi.ErrUnknown) {
		t.Errorf("got %+v, %v", call, err)
	}
	// The same where the sibling takes any text.
	text := strings.Replace(string(read(t, "pets30.yaml")), "type: integer, format: int64", "type: string", 1)
	lax := parse(t, []byte(text)).Router()
	for _, s := range []string{"/pets/MINE", "/pets/%6dine", "/pets/%6Dine"} {
		if call, err := lax.Route("GET", target(t, s), nil, nil, true); !errors.Is(err, openapi.ErrUnknown) {
			t.Errorf("%s: got %+v, %v", s, call, err)
		}
	}
	if _, err := lax.Route("GET", target(t, "/pets/tom"), nil, nil, true); err != nil {
		t.Error(err)
	}
}

func TestMethodsAreThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	r := parse(t, read(t, "pets30.yaml")).Router()
	for _, tt := range []struct{ method, target, why string }{
		{"HEAD", "/pets/mine", "no such method"}, // HEAD is not implied by GET
		{"OPTIONS", "/pets/7", "no such method"},
		{"DELETE", "/pets/mine", "no such method"}, // nor is the literal path an instance of the other
		{"get", "/pets/7", "no such method"},
		{"TRACE", "/pets/7", "no such method"},
		{"POST", "/uploads", "multipart"},
	} {
		_, err := r.Route(tt.method, target(t, tt.target), nil, nil, true)
		if !errors.Is(err, openapi.ErrUnknown) || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s %s: got %v", tt.method, tt.target, err)
		}
	}
}

func TestInputIsStrict(t *testing.T) {
	t.Parallel()
	r := parse(t, read(t, "pets30.yaml")).Router()
	r31 := parse(t, read(t, "pets31.json")).Router()
	asJSON := header("Content-Type", "application/json")
	form := header("Content-Type", "application/x-www-form-urlencoded")
	list := func(q string) string { return "/pets?" + q }
	for _, tt := range []struct {
		name, method, target string
		header               http.Header
		body, why            string
		router               *openapi.Router
	}{
		{name: "unknown parameter", method: "GET", target: "/pets/7?admin=1", why: `"admin" in the query is not known`},
		{name: "parameter in other case", method: "GET", target: "/pets/7?Verbose=true", why: "not known"},
		{name: "scalar twice", method: "GET", target: "/pets/7?verbose=true&verbose=false", why: "given twice"},
		{name: "no value", method: "GET", target: "/pets/7?verbose", why: "form name=value"},
		{name: "nothing between ampersands", method: "GET", target: "/pets/7?verbose=true&&weight=1", why: "form name=value"},
		{name: "semicolon", method: "GET", target: "/pets/7?verbose=true;weight=1", why: "form name=value"},
		{name: "fragment", target: "/pets/7?verbose=true#x", method: "GET", why: "form name=value"},
		{name: "bad escape", method: "GET", target: "/pets/7?verbose=%zz", why: "percent-encoded"},
		{name: "raw bytes", method: "GET", target: "/pets/7?verbose=\u00e4", why: "percent-encoded"},
		{name: "deep object", method: "GET", target: list("where[city]=Rome"), header: header("X-Tenant", "a"), why: "not known"},
		{name: "not a boolean", method: "GET", target: "/pets/7?verbose=1", why: "neither true nor false"},
		{name: "boolean in capitals", method: "GET", target: "/pets/7?verbose=True", why: "neither true nor false"},
		{name: "not an integer", method: "GET", target: "/pets/x", why: "not an integer"},
		{name: "integer with a sign", method: "GET", target: "/pets/+7", why: "not an integer"},
		{name: "integer with zeros", method: "GET", target: "/pets/007", why: "not an integer"},
		{name: "integer in hexadecimal", method: "GET", target: "/pets/0x7", why: "not an integer"},
		{name: "integer with a fraction", method: "GET", target: "/pets/7.0", why: "not an integer"},
		{name: "minus zero", method: "GET", target: "/pets/-0", why: "not an integer"},
		{name: "number with an exponent", method: "GET", target: "/pets/7?weight=1e3", why: "plain decimal"},
		{name: "not a number", method: "GET", target: "/pets/7?weight=NaN", why: "plain decimal"},
		{name: "commas where it is repeated", method: "GET", target: list("limit=1,2"), header: header("X-Tenant", "a"), why: "not an integer"},
		{name: "repeated where there are commas", method: "GET", target: list("kinds=cat&kinds=dog"), header: header("X-Tenant", "a"), why: "given twice"},
		{name: "encoded comma in a list", method: "GET", target: list("kinds=cat%2Cdog"), header: header("X-Tenant", "a"), why: "encoded comma"},
		{name: "empty list", method: "GET", target: list("kinds="), header: header("X-Tenant", "a"), why: "is empty"},
		{name: "missing header", method: "GET", target: "/pets", why: "missing from the headers"},
		{name: "header twice", method: "GET", target: "/pets", header: header("X-Tenant", "a", "X-Tenant", "b"), why: "given twice"},
		{name: "header that is not UTF-8", method: "GET", target: "/pets", header: header("X-Tenant", "\xff"), why: "UTF-8"},
		{name: "NUL in a text", method: "GET", target: "/archive/a/b?id=%00", why: "UTF-8"},

		{name: "body where there is none", method: "GET", target: "/pets/7", body: "{}", why: "takes no body"},
		{name: "required body missing", method: "POST", target: "/pets", why: `"body" is missing`},
		{name: "required body empty", method: "POST", target: "/pets", header: asJSON, why: "not JSON"},
		{name: "no content type", method: "POST", target: "/pets", body: "{}", why: "content type"},
		{name: "content type twice", method: "POST", target: "/pets", body: "{}", header: header("Content-Type", "application/json", "Content-Type", "text/plain"), why: "content type"},
		{name: "other content type", method: "POST", target: "/pets", body: "{}", header: header("Content-Type", "text/plain"), why: "content type"},
		{name: "declared content type that cannot be judged", method: "POST", target: "/pets", body: "{}", header: header("Content-Type", "application/xml"), why: "content type"},
		{name: "other charset", method: "POST", target: "/pets", body: "{}", header: header("Content-Type", "application/json; charset=utf-16"), why: "UTF-8"},
		{name: "compressed", method: "POST", target: "/pets", body: "{}", header: header("Content-Type", "application/json", "Content-Encoding", "gzip"), why: "compressed"},
		{name: "key twice", method: "POST", target: "/pets", body: `{"name":"a","name":"b"}`, header: asJSON, why: "not JSON"},
		{name: "key twice deep down", method: "POST", target: "/pets", body: `{"name":[{"a":1,"\u0061":2}]}`, header: asJSON, why: "not JSON"},
		{name: "something after it", method: "POST", target: "/pets", body: `{} {}`, header: asJSON, why: "not JSON"},
		{name: "not UTF-8", method: "POST", target: "/pets", body: "{\"name\":\"\xff\"}", header: asJSON, why: "not JSON"},
		{name: "deep", method: "POST", target: "/pets", body: strings.Repeat("[", 100_000), header: asJSON, why: "not JSON"},
		{name: "unknown field", method: "POST", target: "/pets/7:adopt", body: "owner=a&admin=1", header: form, why: "in the form is not known"},
		{name: "field that cannot be judged", method: "POST", target: "/pets/7:adopt", body: "owner=a&address=x", header: form, why: "in the form is not known"},
		{name: "required field missing", method: "POST", target: "/pets/7:adopt", body: "visits=1", header: form, why: `"owner" is missing`},
		{name: "field twice", method: "POST", target: "/pets/7:adopt", body: "owner=a&owner=b", header: form, why: "given twice"},
		{name: "too many fields", method: "POST", target: "/pets/7:adopt", body: "owner=a" + strings.Repeat("&visits=1", 5000), header: form, why: "too many"},
		{name: "field of another type", method: "POST", target: "/pets/7:adopt", body: "owner=a&visits=x", header: form, why: "not an integer"},
		{name: "multipart for anything", method: "PUT", target: "/pets/7/photo", body: "x", header: header("Content-Type", "multipart/form-data; boundary=x"), why: "content type"},
		{name: "not an image", method: "PUT", target: "/pets/7/photo", body: "x", header: header("Content-Type", "text/html"), why: "content type"},
		{name: "key twice in the query", method: "GET", target: "/v2/pets/tom?filter=%7B%22a%22%3A1%2C%22a%22%3A2%7D", why: "not JSON", router: r31},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			router := r
			if tt.router != nil {
				router = tt.router
			}
			call, err := router.Route(tt.method, target(t, tt.target), tt.header, []byte(tt.body), true)
			var in *openapi.InputError
			if call.Tool == "" || call.Definition == "" || call.Input != nil {
				t.Errorf("the call is %+v", call)
			}
			if !errors.As(err, &in) || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("got %v, want %q", err, tt.why)
			}
		})
	}
}

// Bytes that nobody describes may be anything but a form with files, which is
// arguments that nobody could see.
func TestOpaqueBodyIsNoMultipart(t *testing.T) {
	t.Parallel()
	r := parse(t, []byte(operation("post", "/a", `"requestBody":{"content":{"*/*":{}}}`))).Router()
	if call, err := r.Route("POST", target(t, "/a"), header("Content-Type", "application/zip"), []byte("x"), true); err != nil || !strings.Contains(string(call.Input), `"body_size":1`) {
		t.Errorf("got %+v, %v", call, err)
	}
	var in *openapi.InputError
	if call, err := r.Route("POST", target(t, "/a"), header("Content-Type", "multipart/form-data; boundary=x"), []byte("x"), true); !errors.As(err, &in) {
		t.Errorf("got %+v, %v", call, err)
	}
}

// Who does not see the body must not let a body through.
func TestWithoutTheBody(t *testing.T) {
	t.Parallel()
	r := parse(t, read(t, "pets30.yaml")).Router()
	if call, err := r.Route("GET", target(t, "/pets/7"), header("Content-Length", "0"), nil, false); err != nil || call.Tool != "getPet" {
		t.Errorf("got %+v, %v", call, err)
	}
	for _, s := range []string{"/pets", "/pets/7:adopt"} {
		if _, err := r.Route("POST", target(t, s), nil, nil, false); !errors.Is(err, openapi.ErrNoBody) {
			t.Errorf("%s: got %v", s, err)
		}
	}
	for _, h := range []http.Header{header("Content-Length", "2"), header("Transfer-Encoding", "chunked")} {
		var in *openapi.InputError
		if _, err := r.Route("GET", target(t, "/pets/7"), h, nil, false); !errors.As(err, &in) {
			t.Errorf("%v: got %v", h, err)
		}
	}
}

func TestErrorsQuoteNoValue(t *testing.T) {
	t.Parallel()
	r := parse(t, read(t, "pets30.yaml")).Router()
	const secret = "hunter2"
	for _, s := range []string{"/pets/" + secret, "/pets/7?verbose=" + secret, "/pets/7?weight=" + secret, "/" + secret, "/pets/7%2f" + secret} {
		if _, err := r.Route("GET", target(t, s), nil, nil, true); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", s, err)
		}
	}
}

// What was decided can be written as the request that was sent, and is then
// decided the same.
func FuzzRoute(f *testing.F) {
	for _, s := range []struct{ method, target, ct, body string }{
		{"GET", "/v2/pets/tom?since=2026-01-01", "", ""},
		{"GET", "/pets?tag=a+b&kinds=cat,dog&limit=3", "", ""},
		{"POST", "/pets/7:adopt", "application/x-www-form-urlencoded", "owner=a&visits=1"},
		{"POST", "/pets", "application/json", `{"name":"Tom"}`},
		{"PUT", "/pets/7/photo", "image/png", "x"},
		{"GET", "/archive/a%20b/..%2f?id=%00", "", ""},
		{"GET", "/pets/%6dine", "", ""},
	} {
		f.Add(s.method, s.target, s.ct, s.body)
	}
	text := strings.Replace(string(read(f, "pets30.yaml")), "type: integer, format: int64", "type: string", 1)
	routers := []*openapi.Router{parse(f, []byte(text)).Router(), parse(f, read(f, "pets31.json")).Router()}
	f.Fuzz(func(t *testing.T, method, rawTarget, ct, body string) {
		u, err := url.ParseRequestURI(rawTarget)
		if err != nil {
			return
		}
		h := header("X-Tenant", "acme")
		if ct != "" {
			h.Set("Content-Type", ct)
		}
		for _, r := range routers {
			call, err := r.Route(method, u, h, []byte(body), true)
			var in *openapi.InputError
			if err != nil {
				if !errors.Is(err, openapi.ErrUnknown) && !errors.As(err, &in) {
					t.Fatalf("%T: %v", err, err)
				}
				continue
			}
			if !jsontext.Value(call.Input).IsValid() {
				t.Fatalf("the input is no I-JSON: %s", call.Input)
			}
			// Nothing but the segments of the path is left in it once it is
			// decoded, however often it is cleaned.
			segments := strings.Split(u.Path, "/")
			for _, s := range segments[1:] {
				if s == "" || s == "." || s == ".." || strings.ContainsAny(s, `\;%`) {
					t.Fatalf("%q is %s", u.EscapedPath(), call.Tool)
				}
			}
			if strings.Count(u.EscapedPath(), "/") != len(segments)-1 {
				t.Fatalf("%q has a hidden slash", u.EscapedPath())
			}
			// A lenient reader of the query finds the same parameters.
			lenient, err := url.ParseQuery(u.RawQuery)
			if err != nil {
				t.Fatalf("%q: %v", u.RawQuery, err)
			}
			var args map[string]json.RawMessage
			if err := json.Unmarshal(call.Input, &args); err != nil {
				t.Fatal(err)
			}
			for name := range lenient {
				if args[name] == nil && args[name+"_query"] == nil {
					t.Fatalf("%q in the query is not among the arguments %s", name, call.Input)
				}
			}
			again, err := r.Route(method, u, h, []byte(body), true)
			if err != nil || !cmp.Equal(call, again) {
				t.Fatalf("decided otherwise the second time: %v", err)
			}
		}
	})
}

// The largest documents have a thousand paths.
func BenchmarkRoute(b *testing.B) {
	var doc strings.Builder
	doc.WriteString(`{"openapi":"3.0.0","info":{"title":"x","version":"1"},"paths":{"/":{}`)
	for i := range 1000 {
		fmt.Fprintf(&doc, `,"/v1/x%d/{id}":{"get":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"integer"}},
			{"name":"q","in":"query","schema":{"type":"string"}}]}}`, i)
	}
	doc.WriteString("}}")
	r := parse(b, []byte(doc.String())).Router()
	u := target(b, "/v1/x777/12?q=hello+world")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Route("GET", u, nil, nil, true); err != nil {
			b.Fatal(err)
		}
	}
}
