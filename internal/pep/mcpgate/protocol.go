package mcpgate

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
)

// Methods that the gate treats specially.
const (
	methodInitialize  = "initialize"
	methodDiscover    = "server/discover"
	methodPing        = "ping"
	methodCall        = "tools/call"
	methodTools       = "tools/list"
	methodResources   = "resources/list"
	methodTemplates   = "resources/templates/list"
	methodRead        = "resources/read"
	methodSubscribe   = "resources/subscribe"
	methodUnsubscribe = "resources/unsubscribe"
	methodPrompts     = "prompts/list"
	methodPrompt      = "prompts/get"
	methodComplete    = "completion/complete"
	methodSetLevel    = "logging/setLevel"
	methodListen      = "subscriptions/listen"

	methodElicit = "elicitation/create"
	methodSample = "sampling/createMessage"
	methodRoots  = "roots/list"

	noteInitialized  = "notifications/initialized"
	noteCancelled    = "notifications/cancelled"
	noteProgress     = "notifications/progress"
	noteRoots        = "notifications/roots/list_changed"
	noteTaskStatus   = "notifications/tasks/status"
	noteLog          = "notifications/message"
	noteUpdated      = "notifications/resources/updated"
	noteAcknowledged = "notifications/subscriptions/acknowledged"
)

// JSON-RPC codes beyond those of package mcp.
const (
	codeDenied             = -32001 // COAZ-MCP, authorization denial
	codeNoResource         = -32002 // legacy eras only
	codeMissingCapability  = -32021
	codeUnsupportedVersion = -32022
)

// legacyVersions are the versions with sessions that the gate knows, the
// newest first.
var legacyVersions = []string{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}

// A method says how the gate treats a method of the protocol. The zero method
// is unknown: it exists in both eras, as far as the gate knows, touches the
// server as a whole, and is left to policy, which knows nothing about it
// either.
type method struct {
	only  *mcp.Era // nil: both
	free  bool     // passes without a decision (COAZ-MCP, pass-through operations)
	named string   // the member of params that names the target
	as    string   // decided under this name instead of its own
}

var (
	legacy = mcp.Legacy
	modern = mcp.Modern
)

var methods = map[string]method{
	methodInitialize:  {only: &legacy},
	methodDiscover:    {only: &modern, as: methodInitialize},
	methodPing:        {only: &legacy, free: true},
	methodCall:        {named: "name"},
	methodRead:        {named: "uri"},
	methodPrompt:      {named: "name"},
	methodSubscribe:   {only: &legacy, named: "uri"},
	methodUnsubscribe: {only: &legacy, named: "uri"},
	methodSetLevel:    {only: &legacy},
	methodListen:      {only: &modern},
	methodTools:       {},
	methodResources:   {},
	methodTemplates:   {},
	methodPrompts:     {},
	methodComplete:    {},
}

// clientNotes are the notifications that a client may send.
var clientNotes = []string{noteInitialized, noteCancelled, noteProgress, noteRoots, noteTaskStatus}

// A listKind is one of the lists whose change is notified.
type listKind struct {
	capability string // member of the server's capabilities
	note       string // notification
	filter     string // member of subscriptions/listen's filter
}

var listKinds = []listKind{
	{"tools", "notifications/tools/list_changed", "toolsListChanged"},
	{"prompts", "notifications/prompts/list_changed", "promptsListChanged"},
	{"resources", "notifications/resources/list_changed", "resourcesListChanged"},
}

func listKindOf(note string) (listKind, bool) {
	i := slices.IndexFunc(listKinds, func(k listKind) bool { return k.note == note })
	if i < 0 {
		return listKind{}, false
	}
	return listKinds[i], true
}

// maxName bounds a method, tool, prompt or resource name; what is longer names
// nothing that could have been pinned, and would only fill the record.
const maxName = 4096

// maxURI bounds a resource's URI, which may carry a query.
const maxURI = 32 << 10

// check refuses a request that cannot be judged: parts that are missing or of
// the wrong type, or a method of the other era. (That no member could be taken
// for another one is the parser's care.)
func check(m *mcp.Message, era mcp.Era) *refusal {
	name := m.Method()
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, isControl) {
		return refuse(reasonMalformed, "The method's name is not one that a server could have.")
	}
	known := methods[name]
	if known.only != nil && *known.only != era {
		return refuse(authz.ReasonMethodUnknown, "This version of the protocol has no method "+quote(name)+".")
	}
	params := m.Params()
	if params == nil {
		if known.named != "" {
			return refuse(reasonParams, "The request needs params.")
		}
		return nil
	}
	if params[0] != '{' {
		return refuse(reasonParams, "The params must be an object.")
	}
	if known.named != "" {
		most := maxName
		if known.named == "uri" {
			most = maxURI
		}
		if v, ok := getString(params, known.named); !ok || v == "" || len(v) > most {
			return refuse(reasonParams, "The params must name a target in "+quote(known.named)+".")
		}
	}
	if name == methodCall {
		if args, ok := mcp.Get(params, "arguments"); ok && args[0] != '{' && string(args) != "null" {
			return refuse(reasonParams, "The arguments must be an object.")
		}
	}
	return nil
}

// members returns the members of an object, or nothing if it is none.
func members(obj json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(obj, &m) != nil {
		return nil
	}
	return m
}

// getString returns a string member, and whether there is one.
func getString(obj json.RawMessage, path ...string) (string, bool) {
	raw, ok := mcp.Get(obj, path...)
	if !ok {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// quote makes a peer's word safe to repeat: short, printable, quoted.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	b, err := json.Marshal(s)
	if err != nil {
		return `"?"`
	}
	return string(b)
}

// raw marshals a value that cannot fail to marshal.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("mcpgate: " + err.Error()) // only our own plain values come here
	}
	return b
}

// set is mcp.Set for objects that are known to be well-formed; it returns obj
// unchanged when it is no object.
func set(obj json.RawMessage, value json.RawMessage, path ...string) json.RawMessage {
	if len(obj) == 0 {
		obj = json.RawMessage("{}")
	}
	out, err := mcp.Set(obj, value, path...)
	if err != nil {
		return obj
	}
	return out
}

func del(obj json.RawMessage, path ...string) json.RawMessage {
	if len(obj) == 0 {
		return obj
	}
	out, err := mcp.Delete(obj, path...)
	if err != nil {
		return obj
	}
	return out
}
