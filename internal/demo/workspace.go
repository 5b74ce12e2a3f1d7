package demo

import (
	"embed"
	"io/fs"
)

//go:embed workspace
var workspace embed.FS

// BinaryMark stands in the workspace's bailiwick.yaml, inside double quotes,
// where the path of the binary belongs.
const BinaryMark = "{{bailiwick}}"

// Workspace is the operator's side of the story: configuration, catalogue and
// policies. Agents and pinned tools are not in it.
func Workspace() fs.FS {
	sub, err := fs.Sub(workspace, "workspace")
	if err != nil {
		panic(err) // a constant, valid path
	}
	return sub
}
