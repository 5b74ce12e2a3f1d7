package openapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/catalog"
	"github.com/bailiwick-dev/bailiwick/internal/openapi"
)

var update = flag.Bool("update", false, "write golden files")

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, text []byte) *openapi.Document {
	t.Helper()
	d, err := openapi.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A digest is in every lock: a definition that is written differently by the
// next release would deny every operation of every API until it is pinned anew.
func TestDefinitionsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pets30.yaml", "pets31.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			for _, def := range parse(t, read(t, name)).Definitions() {
				if err := json.Indent(&got, def, "", "  "); err != nil {
					t.Fatal(err)
				}
				got.WriteByte('\n')
			}
			golden := name + ".golden"
			if *update {
				if err := os.WriteFile(filepath.Join("testdata", golden), got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(read(t, golden)), got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

// What is generated is what the catalogue can pin and type.
func TestDefinitionsMakeACatalogue(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pets30.yaml", "pets31.json"} {
		var lock catalog.Lock
		for _, def := range parse(t, read(t, name)).Definitions() {
			if _, err := lock.Pin("pets", def); err != nil {
				t.Fatal(err)
			}
		}
		cat, err := catalog.New(catalog.Config{Lock: &lock})
		if err != nil {
			t.Fatal(err)
		}
		if name == "pets31.json" {
			continue
		}
		for _, want := range []string{
			"limit?: Long", "type pets__addPet__Input__NewPet", "tag?: Set<String>", "body_digest: String", "owner: String",
		} {
			if !strings.Contains(string(cat.Schema()), want) {
				t.Errorf("the schema has no %q:\n%s", want, cat.Schema())
			}
		}
		// The body of an allOf is one record, with what it inherits.
		op, _ := cat.Operation("pets/replacePet")
		if _, _, err := op.Input("pets", json.RawMessage(`{"petId":1,"body":{"name":"Tom","price":1.5,"parents":[]}}`)); err != nil {
			t.Error(err)
		}
		if _, _, err := op.Input("pets", json.RawMessage(`{"petId":1,"body":{"name":"Tom","owner":"me"}}`)); err == nil {
			t.Error("a member that the body does not have was let through")
		}
	}
}

func TestJSONAndYAMLAreOneDocument(t *testing.T) {
	t.Parallel()
	const asJSON = `{"openapi":"3.1.0","info":{"title":"x","version":"1"},"paths":{"/a/{id}":{"get":{"operationId":"a","parameters":[
		{"name":"id","in":"path","required":true,"schema":{"type":"number","minimum":1.50,"maximum":1000,"multipleOf":5,"description":"a\nb"}}]}}}}`
	const asYAML = `
openapi: 3.1.0
info: {title: x, version: 1}
paths:
  /a/{id}:
    get:
      operationId: a
      parameters:
        - name: "id"
          in: path
          required: true
          schema:
            type: number
            minimum: 1.50
            maximum: 1000
            multipleOf: 5
            description: |-
              a
              b
`
	a, b := parse(t, []byte(asJSON)), parse(t, []byte(asYAML))
	if d := cmp.Diff(string(a.Definitions()[0]), string(b.Definitions()[0])); d != "" {
		t.Error(d)
	}
}

// The digest covers the request that is made, not only its arguments.
func TestDigestCoversWhereArgumentsStand(t *testing.T) {
	t.Parallel()
	base := string(read(t, "pets30.yaml"))
	digest := func(text, tool string) string {
		for _, def := range parse(t, []byte(text)).Definitions() {
			var d struct{ Name string }
			if err := json.Unmarshal(def, &d); err != nil {
				t.Fatal(err)
			}
			if d.Name == tool {
				digest, err := authz.Digest(def)
				if err != nil {
					t.Fatal(err)
				}
				return digest
			}
		}
		t.Fatalf("no tool %s", tool)
		return ""
	}
	for _, tt := range []struct{ name, tool, old, new string }{
		{"method", "deletePet", "    delete:\n", "    patch:\n"},
		{"path", "listPets", "  /pets:\n", "  /animals:\n"},
		{"place of an argument", "listPets", "name: X-Tenant\n          in: header", "name: X-Tenant\n          in: query"},
		{"how a list is written", "listPets", "explode: false", "explode: true"},
		{"content type", "addPet", "application/json:", "application/vnd.x+json:"},
		{"type of a referenced schema", "addPet", "price: {type: number", "price: {type: string"},
	} {
		if !strings.Contains(base, tt.old) {
			t.Fatalf("%s: the document has no %q", tt.name, tt.old)
		}
		if digest(base, tt.tool) == digest(strings.Replace(base, tt.old, tt.new, 1), tt.tool) {
			t.Errorf("%s: the digest is the same", tt.name)
		}
	}
}

func TestWhatCannotBeJudgedIsNamed(t *testing.T) {
	t.Parallel()
	var got []string
	for _, p := range parse(t, read(t, "pets30.yaml")).Problems() {
		got = append(got, p.String())
	}
	want := []string{
		`line 27: GET /pets: its parameter "where" in query is refused in requests: it has the style "deepObject"; only "form" can be judged`,
		`line 41: POST /pets: a body of the content type "application/xml" is refused in requests; application/json is taken`,
		`line 78: DELETE /pets/{petId}: its parameter "session" in cookie is refused in requests: it is a cookie, and no cookie reaches the upstream`,
		`line 107: POST /uploads: it cannot be called: its body of the content type "multipart/form-data" cannot be judged; JSON can`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// operation is a document with one operation.
func operation(method, path, members string) string {
	return fmt.Sprintf(`{"openapi":"3.1.0","info":{"title":"x","version":"1"},"paths":{%q:{%q:{%s}}},"components":{"schemas":{"Loop":{"$ref":"#/components/schemas/Loop"},
		"A":{"allOf":[{"$ref":"#/components/schemas/B"}]},"B":{"properties":{"a":{"allOf":[{"$ref":"#/components/schemas/A"}]}}}}}}`, path, method, members)
}

func TestUnusableOperationsAreLeftOut(t *testing.T) {
	t.Parallel()
	param := func(s string) string { return `"parameters":[` + s + `]` }
	for _, tt := range []struct{ name, doc, problem string }{
		{"trace", operation("trace", "/a", ``), "TRACE"},
		{"own servers", operation("get", "/a", `"servers":[{"url":"https://elsewhere.example"}]`), "servers of its own"},
		{"own servers of a path", strings.Replace(operation("get", "/a", ""), `"/a":{`, `"/a":{"servers":[{"url":"https://elsewhere.example"}],`, 1), "servers of its own"},
		{"too large to be pinned", operation("get", "/a", `"description":"`+strings.Repeat("x", 1<<20)+`"`), "can be pinned"},
		{"body of a GET", operation("get", "/a", `"requestBody":{"content":{"application/json":{}}}`), "means nothing"},
		{"body without a type", operation("post", "/a", `"requestBody":{}`), "of what content type"},
		{"required cookie", operation("get", "/a", param(`{"name":"c","in":"cookie","required":true}`)), "cookie"},
		{"required object", operation("get", "/a", param(`{"name":"c","in":"query","required":true,"schema":{"type":"object"}}`)), "neither a string"},
		{"two types", operation("get", "/a", param(`{"name":"c","in":"query","required":true,"schema":{"type":["integer","string"]}}`)), "neither a string"},
		{"list of lists", operation("get", "/a", param(`{"name":"c","in":"query","required":true,"schema":{"type":"array","items":{"type":"array"}}}`)), "neither a string"},
		{"identity header", operation("get", "/a", param(`{"name":"X-Forwarded-For","in":"header","required":true,"schema":{"type":"string"}}`)), "the gate itself"},
		{"method override", operation("get", "/a", param(`{"name":"X-HTTP-Method-Override","in":"header","required":true,"schema":{"type":"string"}}`)), "the gate itself"},
		{"header with an underscore", operation("get", "/a", param(`{"name":"X_Tenant","in":"header","required":true,"schema":{"type":"string"}}`)), "name of a header"},
		{"parameter with an odd name", operation("get", "/a", param(`{"name":"a\u0001","in":"query","required":true,"schema":{"type":"string"}}`)), "cannot be told"},
		{"matrix", operation("get", "/a/{id}", param(`{"name":"id","in":"path","style":"matrix","schema":{"type":"string"}}`)), "style"},
		{"path parameter that is not said", operation("get", "/a/{id}", ``), "does not say what {id}"},
		{"path parameter that is not there", operation("get", "/a", param(`{"name":"id","in":"path","schema":{"type":"string"}}`)), "does not stand in the path"},
		{"form of objects", operation("post", "/a", `"requestBody":{"content":{"application/x-www-form-urlencoded":{"schema":{"properties":{"a":{"type":"object"}},"required":["a"]}}}}`), "form whose field"},
		{"XML with parts", operation("post", "/a", `"requestBody":{"content":{"application/xml":{"schema":{"type":"object"}}}}`), "has parts"},
		{"schema without an end", operation("get", "/a", param(`{"name":"c","in":"query","required":true,"schema":{"$ref":"#/components/schemas/Loop"}}`)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := openapi.Parse([]byte(tt.doc))
			if tt.problem == "" {
				if err == nil || !strings.Contains(err.Error(), "without an end") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Definitions()) != 0 {
				t.Errorf("it was taken: %s", d.Definitions())
			}
			if len(d.Problems()) != 1 || !strings.Contains(d.Problems()[0].Message, tt.problem) {
				t.Errorf("problems are %v", d.Problems())
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const head = `{"openapi":"3.0.0","info":{"title":"x","version":"1"},"paths":`
	get := func(id string) string { return `{"get":{"operationId":"` + id + `"}}` }
	for _, tt := range []struct{ name, doc, want string }{
		{"nothing", "", "it is empty"},
		{"a list", "[1]", "must be an object"},
		{"a text", "hello", "must be an object"},
		{"Swagger", `{"swagger":"2.0"}`, "convert it to OpenAPI 3"},
		{"another version", `{"openapi":"4.0.0"}`, `"openapi" must be`},
		{"broken JSON", "{\n\n\"a\":", "line 3"},
		{"something after it", `{"openapi":"3.0.0"} x`, "it is not JSON"},
		{"a key twice", "{\n\"a\":1,\n\"a\":2}", "line 3: /a: a key stands there twice"},
		{"a key twice in YAML", "openapi: 3.0.0\npaths: {}\npaths: {}\n", "line 3"},
		{"two documents", "a: 1\n---\nb: 1\n", "second YAML document"},
		{"alias", "a: &x [1]\nb: *x\n", "anchors"},
		{"merge key", "a: {b: 1}\nc:\n  <<: {d: 1}\n", "merge keys"},
		{"tag", "a: !!binary aGk=\n", "plain value"},
		{"large YAML", "a: " + strings.Repeat("x", 9<<20), "convert it to JSON"},
		{"large JSON", "{" + strings.Repeat(" ", 33<<20), "at most"},
		{"deep JSON", strings.Repeat(`{"a":`, 200), "nested"},
		{"deep YAML", "a: " + strings.Repeat("[", 5000), "nested"},
		{"deep YAML over many lines", "a: " + strings.Repeat("[\n ", 5000), "line 1025: the document: values are nested"},
		{"deep dashes", strings.Repeat("- ", 5000) + "a", "nested"},
		{"reference elsewhere", head + `{"/a":{"$ref":"https://elsewhere.example/a.yaml"}}}`, "nothing is fetched"},
		{"reference to a file", head + `{},"components":{"schemas":{"A":{"$ref":"other.yaml#/A"}}}}`, "nothing is fetched"},
		{"reference to nowhere", head + `{"/a":{"$ref":"#/components/pathItems/a"}}}`, "leads nowhere"},
		{"endless reference", head + `{"/a":{"$ref":"#/paths/~1a"}}}`, "without an end"},
		{"schema of nowhere", head + `{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/No"}}}}}}}}`, "leads nowhere"},
		{"one name twice", head + `{"/a":` + get("x") + `,"/b":` + get("x") + `}}`, "another operationId"},
		{"one name twice once it is safe", head + `{"/a":` + get("x y") + `,"/b":` + get("x*y") + `}}`, "another operationId"},
		{"no name", head + `{"/a":` + get("***") + `}}`, "needs an operationId"},
		{"one path twice", head + `{"/a/{x}":` + get("x") + `,"/a/{y}":` + get("y") + `}}`, "the same path"},
		{"relative path", head + `{"a":` + get("x") + `}}`, "begin with '/'"},
		{"path with a query", head + `{"/a?b=c":` + get("x") + `}}`, "no '?'"},
		{"path with dots", head + `{"/a/../b":` + get("x") + `}}`, "reads differently"},
		{"two parameters in a segment", head + `{"/{a}-{b}":` + get("x") + `}}`, "one parameter"},
		{"half a parameter", head + `{"/{a":` + get("x") + `}}`, "not part of"},
		{"parameter twice in a path", head + `{"/{a}/{a}":` + get("x") + `}}`, "twice"},
		{"parameter twice in a list", head + `{"/a":{"get":{"parameters":[{"name":"q","in":"query"},{"name":"q","in":"query"}]}}}}`, "twice"},
		{"parameter without a place", head + `{"/a":{"get":{"parameters":[{"name":"q"}]}}}}`, `needs "name" and "in"`},
		{"parameters of another form", head + `{"/a":{"get":{"parameters":{}}}}}`, "must be an array"},
		{"operation of another form", head + `{"/a":{"get":[]}}}`, "must be an object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := openapi.Parse([]byte(tt.doc))
			var pe *openapi.ParseError
			if !errors.As(err, &pe) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A few schemas that use one another twice unfold to more than any memory.
func TestSchemasCannotUnfoldWithoutEnd(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"openapi":"3.0.0","info":{"title":"x","version":"1"},"paths":{"/a":{"post":{"operationId":"a","requestBody":{"content":{"application/json":
		{"schema":{"$ref":"#/components/schemas/S0"}}}}}},"/b":{"get":{"operationId":"b"}}},"components":{"schemas":{`)
	for i := range 60 {
		next := fmt.Sprintf(`{"allOf":[{"$ref":"#/components/schemas/S%d"}]}`, i+1)
		fmt.Fprintf(&b, `"S%d":{"type":"object","properties":{"l":%s,"r":%s}},`, i, next, next)
	}
	b.WriteString(`"S60":{"type":"object","properties":{"x":{"type":"string"}}}}}}`)
	d := parse(t, []byte(b.String()))
	if len(d.Definitions()) != 1 || len(d.Problems()) != 1 || !strings.Contains(d.Problems()[0].Message, "too large") {
		t.Errorf("%d definitions, problems %v", len(d.Definitions()), d.Problems())
	}
	// One that contains itself has an end.
	d = parse(t, []byte(operation("post", "/a", `"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}}`)))
	if len(d.Definitions()) != 1 {
		t.Errorf("problems %v", d.Problems())
	}
}

func FuzzParse(f *testing.F) {
	// Small seeds: the fuzzer spends its time on making large ones small.
	f.Add([]byte(operation("post", "/a/{b}", `"parameters":[{"name":"b","in":"path","schema":{"type":"integer"}}],"requestBody":{"content":{"application/json":{}}}`)))
	f.Add([]byte("openapi: 3.0.0\npaths:\n  /a:\n    get: {parameters: [{name: q, in: query, schema: {type: array, items: {type: string}}}]}\n"))
	f.Add([]byte("openapi: 3.1.0\npaths:\n  /a:\n    put:\n      requestBody: {content: {'*/*': {}}}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("? - ? - a\n"))
	f.Add([]byte("a: !!map {b: |\n  c\n}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		d, err := openapi.Parse(doc)
		if err != nil {
			var pe *openapi.ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		var lock catalog.Lock
		defs := d.Definitions()
		for _, def := range defs {
			pin, err := lock.Pin("api", def)
			if err != nil {
				t.Fatalf("%s: %v", def, err)
			}
			if _, err := lock.Marshal(); err != nil {
				t.Fatalf("%s: %v", pin.Tool, err)
			}
		}
		if len(lock.Pins()) != len(defs) {
			t.Fatal("two operations have one name")
		}
		again, err := openapi.Parse(doc)
		if err != nil || !cmp.Equal(defs, again.Definitions()) {
			t.Fatal("the same document gave other definitions")
		}
	})
}
