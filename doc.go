// Package bailiwick is the root of the authorization and governance plane for
// AI agents. It holds no code; see README.md and ARCHITECTURE.md.
package bailiwick
