package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// cache is where the peers are built, once for each version.
const cache = "bench/peers/.bin"

// errNotBuilt is a peer's, and no failure of the run: there may be no network.
var errNotBuilt = errors.New("not built")

// install builds a program of a module at a version, in the module's own
// versions of everything, which never touch ours.
func install(ctx context.Context, module, version, pkg string) (string, error) {
	return built(module, version, func(bin string) error {
		path := module + strings.TrimPrefix(pkg, ".")
		return run(ctx, os.TempDir(), bin, "go", "install", path+"@"+version)
	})
}

// installReplaced builds a program of a module whose go.mod replaces others,
// which "go install" refuses: from a copy of its source.
func installReplaced(ctx context.Context, module, version, pkg string) (string, error) {
	return built(module, version, func(bin string) error {
		out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version).Output()
		var m struct{ Dir, Error string }
		if jsonErr := json.Unmarshal(out, &m); err == nil {
			err = jsonErr
		}
		if m.Error != "" {
			err = errors.New(m.Error)
		}
		if err != nil {
			return fmt.Errorf("download %s@%s: %w", module, version, err)
		}
		src, err := os.MkdirTemp("", "peer-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(src)
		if err := os.CopyFS(src, os.DirFS(m.Dir)); err != nil {
			return err
		}
		return run(ctx, src, bin, "go", "build", "-o", bin, pkg)
	})
}

// built returns the program of a module, from the cache or from build, which
// leaves it in the directory bin. It returns [errNotBuilt] if build fails.
func built(module, version string, build func(bin string) error) (string, error) {
	dir, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	name := filepath.Base(module)
	program := filepath.Join(dir, name+"-"+version)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	progress("building %s %s, once; this may take ten minutes", name, version)
	bin := filepath.Join(dir, "build-"+name)
	defer os.RemoveAll(bin)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	if err := build(bin); err != nil {
		return "", fmt.Errorf("%w: %w", errNotBuilt, err)
	}
	return program, os.Rename(filepath.Join(bin, name), program)
}

// run runs a build whose programs go to the directory bin.
func run(ctx context.Context, dir, bin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	// No cgo, as in the programs that the peers and we release.
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOBIN="+bin)
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(out, nil))), "\n")
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.Join(lines[max(0, len(lines)-3):], " / "))
	}
	return nil
}

// module is the version of a module in this program.
func module(path string) string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}
