package catalog

// A method is a method of the Model Context Protocol as an operation. The
// mapping is that of the COAZ-MCP binding (Default Mappings); server/discover,
// subscriptions/listen, resources/templates/list and tasks/update, which the
// binding does not have, are mapped in the same spirit.
type method struct {
	name, effect string
	// ours says that it is the plane's own, and no method of the protocol: its
	// action is its name.
	ours bool
	// resources are the types of resource that it applies to.
	resources []string
	// picks are the params that policy sees.
	picks []pick
	// outputs says that it returns what a server's resources and prompts hold.
	outputs bool
	doc     string
}

// A pick is one string of the params.
type pick struct {
	attr     string
	path     []string
	required bool
}

// TokenExchange is the action of asking for a token.
const TokenExchange = "token:exchange"

func protocolMethods() []method {
	var (
		server   = []string{"Server"}
		resource = []string{"McpResource"}
		uri      = []pick{{"uri", []string{"uri"}, true}}
		task     = []pick{{"taskId", []string{"taskId"}, true}}
	)
	return []method{
		{name: "initialize", effect: EffectDiscover, resources: server, doc: "Open a session with a server, or ask what it can do (server/discover)."},
		{name: "tools/list", effect: EffectDiscover, resources: server, doc: "List tools."},
		{name: "resources/list", effect: EffectDiscover, resources: server, doc: "List resources."},
		{name: "resources/templates/list", effect: EffectDiscover, resources: server, doc: "List resource templates."},
		{name: "prompts/list", effect: EffectDiscover, resources: server, doc: "List prompts."},
		{name: "tasks/list", effect: EffectDiscover, resources: server, doc: "List tasks."},
		{name: "subscriptions/listen", effect: EffectDiscover, resources: server, doc: "Listen to notifications."},
		{
			name: "logging/setLevel", effect: EffectDiscover, resources: server,
			picks: []pick{{"level", []string{"level"}, true}}, doc: "Set the level of a server's log messages.",
		},
		{name: "resources/read", effect: EffectRead, resources: resource, picks: uri, outputs: true, doc: "Read a resource."},
		{name: "resources/subscribe", effect: EffectRead, resources: resource, picks: uri, doc: "Be told when a resource changes."},
		{name: "resources/unsubscribe", effect: EffectRead, resources: resource, picks: uri, doc: "Be told no longer when a resource changes."},
		{
			name: "prompts/get", effect: EffectRead, resources: []string{"McpPrompt"}, outputs: true,
			picks: []pick{{"name", []string{"name"}, true}}, doc: "Get a prompt.",
		},
		{
			// A server completes from what it holds, so this reads.
			name: "completion/complete", effect: EffectRead, resources: []string{"McpPrompt", "McpResource"}, outputs: true,
			picks: []pick{
				{"ref", []string{"ref", "type"}, true},
				{"name", []string{"ref", "name"}, false},
				{"uri", []string{"ref", "uri"}, false},
				{"argument", []string{"argument", "name"}, false},
			},
			doc: "Complete an argument of a prompt or a resource template.",
		},
		{
			// A token is what others act upon elsewhere, so it leaves the organisation
			// as far as anybody here can tell.
			name: TokenExchange, ours: true, effect: EffectExternal, resources: server,
			picks: []pick{{"scope", []string{"scope"}, true}, {"mayAct", []string{"may_act"}, false}},
			doc:   "Get a token for another service (RFC 8693). The resource is the service.",
		},
		{name: "tasks/get", effect: EffectRead, resources: server, picks: task, doc: "Ask how a task stands."},
		{name: "tasks/result", effect: EffectRead, resources: server, picks: task, doc: "Get the result of a task."},
		{name: "tasks/update", effect: EffectWrite, resources: server, picks: task, doc: "Give a task the input that it asked for."},
		{name: "tasks/cancel", effect: EffectWrite, resources: server, picks: task, doc: "Cancel a task."},
	}
}
