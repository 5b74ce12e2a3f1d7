//go:build !unix

package mcp

// runStdioServer is for the tests of processes, which need Unix signals.
func runStdioServer(string) int { return 99 }
