// Package app is configuration, composition and lifecycle: the only package
// that knows all parts.
package app

import "runtime/debug"

// A Build says what binary this is.
type Build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// Version reads the version that the Go toolchain stamped into the binary.
func Version() Build {
	b := Build{Version: "devel"}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Go = info.GoVersion
		if v := info.Main.Version; v != "" && v != "(devel)" {
			b.Version = v
		}
	}
	return b
}
