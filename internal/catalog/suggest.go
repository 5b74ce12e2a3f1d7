package catalog

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
)

// A Suggestion is a guess at what an operator might say about a tool. It is
// made from what an untrusted server says, so somebody has to look at it
// before it counts.
type Suggestion struct {
	// Effects is the guess; empty when there is none worth making.
	Effects []string
	// Authority are arguments that look as if they carried authority.
	Authority []string
	// Outsiders guesses that outsiders can write what the tool returns.
	Outsiders bool
	// Why says what the guess rests on, in a few words.
	Why string
}

// The words that tools are named with. The first group that has a word of the
// name decides, so the dangerous ones come first.
func effectWords() []struct {
	effects []string
	words   []string
} {
	return []struct {
		effects []string
		words   []string
	}{
		{unclassified(), []string{"run", "exec", "execute", "eval", "shell", "bash", "command", "call", "invoke", "script", "sql"}},
		{[]string{EffectDestructive, EffectExternal, EffectWrite}, []string{"pay", "transfer", "wire", "buy", "purchase", "order", "refund"}},
		{[]string{EffectDestructive, EffectWrite}, []string{
			"delete", "remove", "drop", "destroy", "purge", "erase", "truncate", "reset", "kill", "terminate",
			"revoke", "cancel", "overwrite", "wipe", "clear", "unlink", "archive", "move",
		}},
		{[]string{EffectExternal, EffectWrite}, []string{
			"send", "post", "publish", "share", "email", "mail", "message", "invite", "reply", "forward", "tweet",
			"notify", "upload", "push", "submit", "export", "reserve", "book",
		}},
		{[]string{EffectWrite}, []string{
			"create", "add", "write", "update", "edit", "set", "insert", "put", "patch", "rename", "modify", "append",
			"schedule", "assign", "mark", "save", "store", "copy", "mkdir", "merge", "approve", "enable", "disable", "change",
		}},
		{[]string{EffectExternal, EffectRead}, []string{"fetch", "browse", "crawl", "scrape", "download", "http", "web", "url", "visit"}},
		{[]string{EffectRead}, []string{
			"get", "list", "read", "search", "find", "show", "view", "describe", "lookup", "query", "count", "check",
			"status", "stat", "info", "tree", "echo", "history", "open", "directory", "allowed",
		}},
	}
}

// readWords begin the names of tools that read.
func readWords() []string {
	groups := effectWords()
	return groups[len(groups)-1].words
}

// thingWords are words of effectWords that name things as often as deeds:
// read_mail sends none.
func thingWords() []string {
	return []string{"book", "call", "change", "command", "email", "export", "mail", "message", "order", "post", "script", "share", "sql", "transfer", "url", "web"}
}

// authorityWords name arguments that decide who gets something or how much.
func authorityWords() []string {
	return []string{
		"amount", "attendees", "bcc", "beneficiary", "cc", "channel", "command", "destination", "email", "iban",
		"participants", "password", "path", "recipient", "recipients", "role", "sql", "target", "to", "url", "user",
	}
}

// outsiderWords name things that outsiders write.
func outsiderWords() []string {
	return []string{
		"browse", "comment", "comments", "email", "emails", "fetch", "inbox", "issue", "issues", "mail", "mails",
		"message", "messages", "news", "page", "review", "reviews", "rss", "search", "transaction", "transactions",
		"url", "web", "webpage", "website",
	}
}

// Suggest guesses from the name, the annotations and the arguments of a tool.
// The description is not believed: it is the likeliest place for a lie.
func Suggest(def json.RawMessage) Suggestion {
	d, err := parseDefinition(def)
	if err != nil {
		return Suggestion{Why: "the definition cannot be read"}
	}
	words := split(d.name)
	s := Suggestion{Why: "nothing in the name says"}
	deeds := words
	if len(words) > 0 && slices.Contains(readWords(), words[0]) {
		deeds = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(thingWords(), w) })
	}
	for _, group := range effectWords() {
		if w, ok := firstOf(deeds, group.words); ok {
			s.Effects, s.Why = slices.Clone(group.effects), "the name says "+w
			break
		}
	}
	if s.Effects != nil {
		tightened, conflicts := tighten(s.Effects, d.hints)
		if len(conflicts) > 0 {
			s.Effects, s.Why = tightened, s.Why+"; the annotations admit to more"
		}
	}
	for _, f := range d.input.root.fields {
		if _, ok := firstOf(split(f.name), authorityWords()); ok {
			s.Authority = append(s.Authority, f.name)
		}
	}
	slices.Sort(s.Effects)
	_, outsiders := firstOf(words, outsiderWords())
	s.Outsiders = outsiders && slices.Contains(s.Effects, EffectRead)
	return s
}

// split breaks a name into words: at case changes and whatever is no letter.
func split(name string) []string {
	var words []string
	var word []rune
	flush := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = nil
		}
	}
	prev := ' '
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r):
			flush()
		case unicode.IsUpper(r) && !unicode.IsUpper(prev):
			flush()
			word = append(word, r)
		default:
			word = append(word, r)
		}
		prev = r
	}
	flush()
	return words
}

func firstOf(words, known []string) (string, bool) {
	for _, w := range words {
		if slices.Contains(known, w) {
			return w, true
		}
	}
	return "", false
}
