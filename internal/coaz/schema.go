package coaz

import (
	_ "embed"
	"strings"
)

//go:embed mcp.cedarschema
var schema string

// Schema is a Cedar schema in which the requests of the default mappings are
// typed: the application of enforcement points that map as COAZ-MCP says. The
// operator puts it beside the policies, under a namespace, and may add
// attributes and parents to its types.
func Schema(namespace string) string {
	return strings.Replace(schema, "namespace Mcp ", "namespace "+namespace+" ", 1)
}
