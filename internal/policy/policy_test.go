package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-dev/bailiwick/authz"
)

const testSchema = `
entity Group in [Group];
entity Agent in [Group] { clearance: Long, home: { city: String } };
entity Server;
entity McpResource in [Server];
entity Currency enum ["EUR", "USD"];
action "read", "write";
action "bank/send_money" in ["write"] appliesTo { principal: [Agent], resource: [Server],
  context: { input: { amount: Long, recipient: String, note?: String, details?: { "the note"?: String } }, now: datetime } };
action "bank/balance" in ["read"] appliesTo { principal: [Agent], resource: [Server], context: { input: {}, now: datetime } };
action "mail/search" in ["read"] appliesTo { principal: [Agent], resource: [Server],
  context: { input: { a: Long, b: Long, c: Long, d: Long, e: Long, f: Long, g: Long, h: Long, i: Long, j: Long, k: Long, l: Long, m: Long }, now: datetime } };
`

func source(text string) Config {
	return Config{Schema: []byte(testSchema), Policies: []Source{{File: "a.cedar", Text: []byte(text)}}}
}

// problems returns what New finds wrong, one line each.
func problems(t *testing.T, c Config) []string {
	t.Helper()
	s, err := New(c)
	if err == nil {
		return nil
	}
	if s != nil {
		t.Error("a set came with the problems")
	}
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("%T is not Problems", err)
	}
	return strings.Split(err.Error(), "\n")
}

func TestASetIsWhatItsFilesSay(t *testing.T) {
	t.Parallel()
	c := source(`// the rules of the bank
@id("send") @description("small sums") @owner("treasury")
permit (principal in Group::"staff", action == Action::"bank/send_money", resource)
when { context.input.amount < 100 }; /* and */ @id("a")
forbid (principal, action, resource) unless { principal.clearance >= 2 };`)
	c.Policies = append(c.Policies, Source{File: "b.cedar", Text: []byte(`@id("m") permit (principal, action in [Action::"read"], resource);`)})
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var refs []authz.PolicyRef
	for _, p := range s.Policies() {
		refs = append(refs, p.Ref())
		if p.AST == nil || p.AST.Position.Line != p.Line || p.AST.Position.Column != p.Column {
			t.Errorf("%s: position %+v, want line %d, column %d", p.ID, p.AST.Position, p.Line, p.Column)
		}
	}
	want := []authz.PolicyRef{
		{ID: "a", Effect: "forbid", File: "a.cedar", Line: 4},
		{ID: "m", Effect: "permit", File: "b.cedar", Line: 1},
		{ID: "send", Effect: "permit", File: "a.cedar", Line: 2},
	}
	if d := cmp.Diff(want, refs); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if p := s.Policies()[2]; p.Description != "small sums" || p.Owner != "treasury" {
		t.Errorf("annotations %+v", p)
	}
	if p := s.Policies()[0]; p.Column != 48 {
		t.Errorf("column %d", p.Column)
	}
	if len(s.Schema().Actions) != 5 {
		t.Errorf("%d actions in the schema", len(s.Schema().Actions))
	}
}

// Each kind of fault, with its place and what was probably meant. The
// validator's own words are part of this: a cedar-go that words a message
// differently loses the place, and fails here.
func TestProblems(t *testing.T) {
	t.Parallel()
	const head = `@id("x") permit (principal, action == Action::"bank/send_money", resource) `
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"no id", `permit (principal, action, resource);`,
			[]string{`a.cedar:1:1: the policy has no @id: every policy needs a unique @id("...")`}},
		{"empty id", `@id("") permit (principal, action, resource);`,
			[]string{`a.cedar:1:1: @id must be 1 to 128 bytes of printable text`}},
		{"id of another line", `@id("a\nb") permit (principal, action, resource);`,
			[]string{`a.cedar:1:1: @id must be 1 to 128 bytes of printable text`}},
		{"long id", `@id("` + strings.Repeat("x", 129) + `") permit (principal, action, resource);`,
			[]string{`a.cedar:1:1: @id must be 1 to 128 bytes of printable text`}},
		{"id taken", "@id(\"x\") permit (principal, action, resource);\n  @id(\"x\") forbid (principal, action, resource);",
			[]string{`a.cedar:2:3: the @id "x" is taken by the policy at a.cedar:1`}},
		{"unknown annotation", `@id("x") @descripton("y") permit (principal, action, resource);`,
			[]string{`a.cedar:1:11: unknown annotation @descripton: did you mean @description?`}},
		{"annotation of another tool", `@id("x") @advice("y") permit (principal, action, resource);`,
			[]string{`a.cedar:1:11: unknown annotation @advice: the annotations are @id, @description and @owner`}},
		{"unknown action", "@id(\"x\") permit (principal,\n  action == Action::\"bank/send_mony\", resource);",
			[]string{`a.cedar:2:21: unknown action Action::"bank/send_mony": did you mean Action::"bank/send_money"?`}},
		{"forgotten server", `@id("x") permit (principal, action in [Action::"read", Action::"balanc"], resource);`,
			[]string{`a.cedar:1:64: unknown action Action::"balanc": did you mean Action::"bank/balance"?`}},
		{"other action", `@id("x") permit (principal, action in Action::"github/merge", resource);`,
			[]string{`a.cedar:1:47: unknown action Action::"github/merge": 'bailiwick catalog list' shows the actions`}},
		{"action in a condition", head + `when { action in Action::"wrote" };`,
			[]string{`a.cedar:1:101: unknown action Action::"wrote": did you mean Action::"write"?`}},
		{"unknown type in the scope", `@id("x") permit (principal is Agnt, action, resource == Sever::"bank");`,
			[]string{`a.cedar:1:31: unknown entity type Agnt: did you mean Agent?`, `a.cedar:1:57: unknown entity type Sever: did you mean Server?`}},
		{"unknown type in a condition", head + `when { principal in Org::Team::"x" };`,
			[]string{`a.cedar:1:96: unknown entity type Org::Team`}},
		{"unknown attribute of the input", head + "\nwhen { context.input.amont < 5 };",
			[]string{`a.cedar:2:22: unknown attribute context.input.amont for Action::"bank/send_money": did you mean amount?`}},
		{"the same, written otherwise", head + `when { context["input"]["amont"] < 5 };`,
			[]string{`a.cedar:1:100: unknown attribute context.input.amont for Action::"bank/send_money": did you mean amount?`}},
		{"action of another group", head + `when { action in Action::"read" || action == Action::"mail/search" };`, nil},
		{"has is not an access", head + `when { context.input has amont };`, nil},
		{"the first that is wrong", head + `when { context.input.amount < 5 && context.amount < 5 };`,
			[]string{`a.cedar:1:119: unknown attribute context.amount for Action::"bank/send_money": it has input, now`}},
		{"attribute of some actions", `@id("x") permit (principal, action, resource) when { context.input.amount < 5 };`,
			[]string{`a.cedar:1:68: unknown attribute context.input.amount for Action::"bank/balance" and 1 more`}},
		{"attribute of many", `@id("x") permit (principal, action == Action::"mail/search", resource) when { context.input.amount < 5 };`,
			[]string{`a.cedar:1:93: unknown attribute context.input.amount for Action::"mail/search"`}},
		{"attribute of a computed record", head + `when { (if true then context.input else context.input).amont < 5 };`,
			[]string{`a.cedar:1:76: unknown attribute amont in the context of Action::"bank/send_money"`}},
		{"unknown attribute of the principal", head + `when { principal.clearence < 5 };`,
			[]string{`a.cedar:1:93: unknown attribute clearence of Agent: did you mean clearance?`}},
		{"attribute in a record of it", head + `when { principal.home.town == "x" };`,
			[]string{`a.cedar:1:98: unknown attribute home.town of Agent: it has city`}},
		{"may be absent", head + `when { context.input.note == "x" };`,
			[]string{`a.cedar:1:97: context.input.note may be absent for Action::"bank/send_money": write context.input has note && ... before it`}},
		{"may be absent, deeper", head + `when { context.input has details && context.input.details["the note"] == "x" };`,
			[]string{`a.cedar:1:134: context.input.details["the note"] may be absent for Action::"bank/send_money": write context.input.details has "the note" && ... before it`}},
		{"no such value", head + `when { Currency::"EUR" == Currency::"GBP" };`,
			[]string{`a.cedar:1:112: Currency::"GBP" is not a value of its type`}},
		{"nearly a value", `@id("x") permit (principal, action, resource in Currency::"EUE");`,
			[]string{`a.cedar:1:1: no action can apply to this principal and resource`,
				`a.cedar:1:59: Currency::"EUE" is not a value of its type: did you mean Currency::"EUR"?`}},
		{"applies to nothing", `@id("x") permit (principal, action == Action::"bank/balance", resource is McpResource);`,
			[]string{`a.cedar:1:1: no action can apply to this principal and resource: Action::"bank/balance" has principals Agent and resources Server`}},
		{"applies to nothing of many", `@id("x") permit (principal, action in Action::"read", resource is McpResource in Server::"s");`,
			[]string{`a.cedar:1:1: no action can apply to this principal and resource`}},
		{"type error", "@id(\"x\") permit (principal, action, resource)\nwhen { true }\n  unless { 1 < \"x\" };",
			[]string{`a.cedar:3:3: unexpected type: expected datetime, or duration, or Long but saw String`}},
		{"syntax error", "@id(\"x\")\npermit (principal action, resource);",
			[]string{`a.cedar:2:19: syntax error: expected ",", found "action"`}},
		{"syntax error on the first line", `@id("x") permit (principal, action, resource) when { context.input.amount <> 5 };`,
			[]string{`a.cedar:1:78: syntax error: invalid primary`}},
		{"bad escape", head + `when { context.input.recipient == "\q" };`,
			[]string{`a.cedar:1:110: syntax error: invalid char escape`}},
		{"no such character", head + `when { context.input.recipient == "\u{110000}" };`,
			[]string{`a.cedar:1:1: syntax error: bad unicode escape sequence`}},
		{"an attribute twice wrong", head + `when { context.inptu.amont == 1 || context.input.amont == 1 };`,
			[]string{`a.cedar:1:91: unknown attribute context.inptu for Action::"bank/send_money": did you mean input?`,
				`a.cedar:1:125: unknown attribute context.input.amont for Action::"bank/send_money": did you mean amount?`}},
		{"not finished", `@id("x") permit (principal, action, resource)`,
			[]string{`a.cedar:1:1: the policy does not end: ';' is missing`}},
		{"a template", `@id("x") permit (principal == ?principal, action, resource);`,
			[]string{`a.cedar:1:31: policy templates (?principal, ?resource) are not supported: name a group and put the agents into it`}},
		{"open string", "@id(\"x) permit (principal,\n action, resource);",
			[]string{`a.cedar:1:5: the string is not closed on its line`}},
		{"string that ends in its escape", "@id(\"x\\\n",
			[]string{`a.cedar:1:5: the string is not closed on its line`}},
		{"open comment", "  /* @id(\"x\") permit (principal, action, resource);\n",
			[]string{`a.cedar:1:3: the comment is not closed: */ is missing`}},
		{"not UTF-8", "@id(\"\xff\")", []string{`a.cedar:1:6: the text is not valid UTF-8 or holds a NUL`}},
		{"not UTF-8 after a backslash", "@id(\"\\\xff\")", []string{`a.cedar:1:7: the text is not valid UTF-8 or holds a NUL`}},
		{"NUL", "\x00", []string{`a.cedar:1:1: the text is not valid UTF-8 or holds a NUL`}},
		{"NUL in a comment", "/*\x00*/", []string{`a.cedar:1:3: the text is not valid UTF-8 or holds a NUL`}},
		{"NUL in a line comment", "//\n//\x00", []string{`a.cedar:2:3: the text is not valid UTF-8 or holds a NUL`}},
		{"one fault does not hide the next", "@id(\"x\") permit;\n@id(\"y\") permit (principal, action, resource) when { context.nw == context.now };\nfoo;",
			[]string{`a.cedar:1:16: syntax error: expected "(", found ";"`,
				`a.cedar:2:62: unknown attribute context.nw for Action::"bank/balance" and 2 more: did you mean now?`,
				`a.cedar:3:4: syntax error: unexpected effect: foo`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, problems(t, source(tt.text))); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestProblemsOfTheSchema(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, schema, want string }{
		{"syntax", "entity A;\nentity B in;", "schema:2:12: expected identifier, got \";\""},
		{"not tokens", "entity A;\n\"", "schema:2:1: the string is not closed on its line"},
		{"unresolved", "entity A in [B];", `schema: entity "A": undefined entity type "B"`},
		{"deep", "entity A { x: " + strings.Repeat("Set<", 200) + "Long" + strings.Repeat(">", 200) + " };",
			"schema:1:414: the schema nests more than 100 deep"},
		{"large", strings.Repeat(" ", maxSchema+1), "schema: the schema is larger than 16 MiB"},
		{"ambiguous", `action "__cedar" appliesTo { principal: [X], resource: [X], context: {} };`, `schema: action "__cedar" principal: undefined entity type "X"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := source(`@id("x") permit (principal, action, resource);`)
			c.Schema = []byte(tt.schema)
			if d := cmp.Diff([]string{tt.want}, problems(t, c)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestAFileIsGivenOnce(t *testing.T) {
	t.Parallel()
	c := source("")
	c.Policies = append(c.Policies, c.Policies[0])
	if d := cmp.Diff([]string{"a.cedar: the file is given twice"}, problems(t, c)); d != "" {
		t.Error(d)
	}
}

// Without these caps the parser of cedar-go overflows its stack, which ends
// the process, or takes memory out of all proportion.
func TestDeepAndLargeTextIsRefused(t *testing.T) {
	t.Parallel()
	wrap := func(condition string) string {
		return `@id("x") permit (principal, action == Action::"bank/send_money", resource) when { ` + condition + " };"
	}
	rep := strings.Repeat
	const many = 3_000_000
	deep := fmt.Sprintf("the text nests more than %d deep: split the policy", maxNesting)
	chain := fmt.Sprintf("more than %d operators in a row: split the policy", maxChain)
	for _, tt := range []struct{ name, text, want string }{
		{"brackets", wrap(rep("(", 300) + "true" + rep(")", 300)), deep},
		{"sets", wrap(rep("[", 300) + rep("]", 300) + ".isEmpty()"), deep},
		{"records", wrap(rep("{a:", 300) + "1" + rep("}", 300) + " == 1"), deep},
		{"brackets that never close", "permit" + rep("(", 300_000), deep},
		{"ifs", wrap(rep("if true then ", 300) + "true" + rep(" else true", 300)), deep},
		{"else ifs", wrap(rep("if false then true else ", 300) + "true"), deep},
		{"nots", wrap(rep("!", 300) + "true"), deep},
		{"minuses", wrap(rep("-", 300) + "1 == 1"), deep},
		{"nots and brackets", wrap(rep("!(", 60) + "true" + rep(")", 60)), deep},
		{"accesses", wrap("context" + rep(".a", 300)), deep},
		{"indexes", wrap("context" + rep(`["a"]`, 300)), deep},
		{"method calls", wrap("context" + rep(`.contains(1)`, 300)), deep},
		{"ands", wrap("true" + rep(" && true", 5000)), chain},
		{"ors", wrap("true" + rep(" || true", 5000)), chain},
		{"sums", wrap("1" + rep("+1", 5000) + " == 1"), chain},
		{"path of a has", wrap("context has a" + rep(".a", 50)), "more than 20 names in one path after \"has\": split the policy"},
		{"large policy", wrap(`context.input.recipient == "` + rep("x", 70_000) + `"`), "the policy is larger than 64 KiB: split it"},
		{"large file", rep(" ", maxFile+1), "the file is larger than 1024 KiB: split it"},
		{"huge", rep("(", many), "the file is larger than 1024 KiB: split it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := problems(t, source(tt.text))
			if len(got) != 1 || !strings.HasSuffix(got[0], ": "+tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUsualTextIsNotRefused(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`@id("x") permit (principal, action == Action::"bank/send_money", resource) when { `)
	for i := range 300 {
		fmt.Fprintf(&b, `(context.input.amount == %d || !(context.input.recipient == "a" && context.input has details)) && `, i)
	}
	b.WriteString(`["a"` + strings.Repeat(`, "a"`, 5000) + `].contains(context.input.recipient) };`)
	if got := problems(t, source(b.String())); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestDigestCoversEverything(t *testing.T) {
	t.Parallel()
	base := func() Config {
		return Config{
			Schema: []byte(testSchema),
			Policies: []Source{
				{File: "a.cedar", Text: []byte(`@id("a") permit (principal, action, resource);`)},
				{File: "b.cedar", Text: []byte(`@id("b") permit (principal, action, resource);`)},
			},
			Parts: map[string][]byte{"catalog": []byte("x"), "overlay": []byte("y")},
		}
	}
	digest := func(change func(*Config)) string {
		t.Helper()
		c := base()
		change(&c)
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	want := digest(func(*Config) {})
	if !strings.HasPrefix(want, "sha256:") || len(want) != len("sha256:")+64 {
		t.Errorf("digest %q", want)
	}
	if got := digest(func(c *Config) { slices.Reverse(c.Policies) }); got != want {
		t.Error("the order of the files changes the digest")
	}
	zeros := strings.Repeat("\x00", 8)
	seen := map[string]string{want: "nothing"}
	for name, change := range map[string]func(*Config){
		"a comment":          func(c *Config) { c.Policies[0].Text = append(c.Policies[0].Text, "//"...) },
		"a file's name":      func(c *Config) { c.Policies[0].File = "c.cedar" },
		"a file less":        func(c *Config) { c.Policies = c.Policies[:1] },
		"an empty file more": func(c *Config) { c.Policies = append(c.Policies, Source{File: "c.cedar"}) },
		"the schema":         func(c *Config) { c.Schema = append(c.Schema, "entity X;"...) },
		"a part":             func(c *Config) { c.Parts["catalog"] = []byte("z") },
		"a part's name":      func(c *Config) { c.Parts = map[string][]byte{"catalog": []byte("x"), "overlaz": []byte("y")} },
		"a part less":        func(c *Config) { delete(c.Parts, "overlay") },
		"two parts in one":   func(c *Config) { c.Parts = map[string][]byte{"catalog": []byte("x" + zeros + "overlay" + zeros + "y")} },
	} {
		got := digest(change)
		if other, ok := seen[got]; ok {
			t.Errorf("%s changes the digest no differently than %s", name, other)
		}
		seen[got] = name
	}
}

// The nearest name costs time for each unknown one, so there is an end to it.
func TestSuggestionsAreBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 250 {
		fmt.Fprintf(&b, "@id(\"x%d\") permit (principal, action == Action::\"bank/balanc\", resource);\n", i)
		fmt.Fprintf(&b, "@id(\"y%d\") permit (principal, action, resource) when { principal.cleerance == 1 };\n", i)
	}
	with := 0
	got := problems(t, source(b.String()))
	for _, p := range got {
		if strings.Contains(p, "did you mean") {
			with++
		}
	}
	if len(got) != 500 || with != 200 {
		t.Errorf("%d problems, %d with a suggestion", len(got), with)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		known []string
		want  string
	}{
		{"amuont", []string{"account", "amount"}, "amount"},
		{"AMOUNT", []string{"amount"}, "amount"},
		{"x", []string{"yy"}, ""},
		{"recipient", nil, ""},
		{"ab", []string{"ac", "aa"}, "aa"},
		{"completely", []string{"different"}, ""},
	} {
		if got := nearest(tt.name, tt.known); got != tt.want {
			t.Errorf("nearest(%q, %q) = %q, want %q", tt.name, tt.known, got, tt.want)
		}
	}
}

// What is not found among the tokens is shown at the first of them.
func TestPlacesFallBackToTheStart(t *testing.T) {
	t.Parallel()
	tokens, err := tokenize("permit a")
	if err != nil {
		t.Fatal(err)
	}
	if got := findPath(tokens, "A::B"); got.text != "permit" {
		t.Errorf("findPath: %q", got.text)
	}
	if got := findPath(tokens, "b"); got.text != "permit" {
		t.Errorf("findPath: %q", got.text)
	}
	if got := findEntity(tokens, parseUID(`A::"b"`)); got.text != "permit" {
		t.Errorf("findEntity: %q", got.text)
	}
}
