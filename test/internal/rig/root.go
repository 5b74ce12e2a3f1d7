// Package rig runs the real binary, real servers and real clients for the
// end-to-end tests: it builds, configures, starts, watches and stops them.
package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// Root is the folder of the repository.
func Root() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		panic("rig: no caller information")
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Node is the Node binary that make test installs from npm. It is not looked
// for in .bin, which older versions of npm leave without it.
func Node() (string, error) {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return npm("node-linux-" + arch + "/bin/node")
}

// Script is a file of an npm package that make test installs, for example
// "@modelcontextprotocol/server-memory/dist/index.js".
func Script(name string) (string, error) { return npm(name) }

func npm(name string) (string, error) {
	p := filepath.Join(Root(), "test", "npm", "node_modules", filepath.FromSlash(name))
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("%s is not installed: run 'make test' (or 'make deps')", name)
	}
	return p, nil
}

// bin is where this process puts the programs it builds.
var bin = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "bailiwick-rig-*") })

// Binary builds cmd/bailiwick as it is released, once for this process.
var Binary = sync.OnceValues(func() (string, error) {
	return build("bailiwick", "./cmd/bailiwick", nil, "CGO_ENABLED=0")
})

// RaceBinary builds cmd/bailiwick with the race detector.
var RaceBinary = sync.OnceValues(func() (string, error) {
	return build("bailiwick-race", "./cmd/bailiwick", []string{"-race"}, "CGO_ENABLED=1")
})

// Everything builds the SDK's everything-server, which the conformance suite
// is written against.
var Everything = sync.OnceValues(func() (string, error) {
	return build("everything-server", "github.com/modelcontextprotocol/go-sdk/conformance/everything-server", nil)
})

func build(name, pkg string, flags []string, env ...string) (string, error) {
	dir, err := bin()
	if err != nil {
		return "", fmt.Errorf("make a folder for programs: %w", err)
	}
	out := filepath.Join(dir, name)
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out}, flags...)
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return out, nil
}

// Clean removes the programs that this process built. TestMain calls it.
func Clean() error {
	dir, err := bin()
	return errors.Join(err, os.RemoveAll(dir))
}
