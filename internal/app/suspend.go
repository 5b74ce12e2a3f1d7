package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/revoke"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

const (
	// suspensionsName is the file of what is suspended, in the data directory. All
	// processes of the installation share it, those of bailiwick run too.
	suspensionsName = "suspensions.db"
	// socketName is the socket on which a process takes commands, in the data
	// directory of that process.
	socketName = "admin.sock"
)

// A Suspension is one thing that is suspended.
type Suspension = revoke.Suspension

// suspensionsFile is where what is suspended is kept.
func suspensionsFile(c *Config) string {
	if c.shared != "" {
		return filepath.Join(c.shared, suspensionsName)
	}
	return filepath.Join(c.Data, suspensionsName)
}

// openSuspensions has the node know what is suspended before it decides
// anything. The socket comes first: whoever changes something later than that
// finds the node there, and what was changed before is in the file.
func (n *Node) openSuspensions(ctx context.Context) error {
	var err error
	if n.suspensions, err = store.OpenSuspensions(ctx, suspensionsFile(n.config)); err != nil {
		return err
	}
	n.authority, err = revoke.NewAuthority(revoke.Config{
		Store: n.suspensions, Node: n.config.Node, Record: n.recordChange, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	if err := n.listenAdmin(); err != nil {
		return err
	}
	if err := n.authority.Sync(ctx); err != nil {
		return fmt.Errorf("what is suspended is not known: %w", err)
	}
	return nil
}

// recordChange puts on the record who has suspended or resumed what, and why.
func (n *Node) recordChange(ctx context.Context, c revoke.Change) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	effect := "suspended"
	if c.Verb == revoke.Resume {
		effect = "resumed"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = n.log.Append(ctx, audit.Record{Kind: audit.KindSystem, Time: time.Now(), Effect: effect, System: text})
	return err
}

// listenAdmin begins to take commands from this machine. Only who may use the
// data directory may give them.
func (n *Node) listenAdmin() error {
	path, done, err := socket(n.config.Data)
	if err != nil {
		return err
	}
	defer done()
	// Nobody listens on one that is there: the evidence has one process at a time.
	if err := os.Remove(filepath.Join(n.config.Data, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("take the admin socket over: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by then the path may mean something else
	if err := os.Chmod(filepath.Join(n.config.Data, socketName), 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect the admin socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /suspensions/sync", n.syncSuspensions)
	mux.HandleFunc("GET /breakers", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, n.breakers.Standings()) })
	mux.HandleFunc("GET /budgets", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, n.budgets.Standings(time.Now())) })
	n.admin = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	n.tasks.Go(func() { _ = n.admin.Serve(l) }) // it ends when it is closed
	return nil
}

// syncSuspensions takes over what has changed, and answers once it holds here
// and at every gate that depends on this node.
func (n *Node) syncSuspensions(w http.ResponseWriter, r *http.Request) {
	err := n.authority.Sync(r.Context())
	if set := n.authority.Watch().Set(); set != nil {
		err = errors.Join(err, n.authority.Settle(r.Context(), set.Epoch()))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// socket is a path of the admin socket of a data directory that is short enough
// for one. done must be called when it has been used.
func socket(data string) (path string, done func(), err error) {
	const most = 100 // bytes; systems differ, from 104 on
	path = filepath.Join(data, socketName)
	if len(path) <= most {
		return path, func() {}, nil
	}
	dir, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	if _, err := os.Stat(short); err != nil {
		return "", nil, errors.Join(fmt.Errorf("the path of the data directory is too long for a socket in it: %s", path), dir.Close())
	}
	return filepath.Join(short, socketName), func() { _ = dir.Close() }, nil
}

// ListSuspensions returns what is suspended.
func ListSuspensions(ctx context.Context, c *Config) ([]Suspension, error) {
	if err := isPDP(c); err != nil {
		return nil, err
	}
	if _, err := os.Stat(suspensionsFile(c)); errors.Is(err, os.ErrNotExist) {
		return []Suspension{}, nil
	}
	s, err := store.OpenSuspensions(ctx, suspensionsFile(c))
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // only read from
	set, err := s.Suspensions(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("read suspensions: %w", err)
	}
	return set.List(), nil
}

// isPDP refuses a gate whose PDP is elsewhere, where nothing is suspended.
func isPDP(c *Config) error {
	if c.PDP.URL != "" {
		return fmt.Errorf("this is a gate: suspend and resume where the PDP is, %s", c.PDP.URL)
	}
	return nil
}

// Suspend suspends something. When it returns without an error, every running
// process of the installation, and every gate that depends on one, holds to it,
// and one that starts later will. An error that wraps [ErrUnconfirmed] says that
// it is saved, and that it may take [revoke.Term] until it holds everywhere.
func Suspend(ctx context.Context, c *Config, kind, id, reason string) error {
	return change(ctx, c, revoke.Change{Verb: revoke.Suspend, Entity: authz.Entity{Type: kind, ID: id}, Reason: reason})
}

// Resume resumes something, as Suspend suspends it.
func Resume(ctx context.Context, c *Config, kind, id, reason string) error {
	return change(ctx, c, revoke.Change{Verb: revoke.Resume, Entity: authz.Entity{Type: kind, ID: id}, Reason: reason})
}

// ErrUnconfirmed is wrapped when a process that may be running has not confirmed
// a change.
var ErrUnconfirmed = errors.New("not confirmed")

func change(ctx context.Context, c *Config, ch revoke.Change) error {
	if err := isPDP(c); err != nil {
		return err
	}
	ch.Time, ch.By = time.Now(), whoami()
	if err := ch.Check(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	s, err := store.OpenSuspensions(ctx, suspensionsFile(c))
	if err != nil {
		return err
	}
	_, err = s.Change(ctx, ch)
	if err := errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("%s %s %s: %w", ch.Verb, ch.Type, ch.ID, err)
	}
	return tell(ctx, c)
}

// whoami is who gives a command, for the record.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// tell has every process of the installation take a change over at once.
func tell(ctx context.Context, c *Config) error {
	dirs := []string{c.Data}
	runs, err := os.ReadDir(filepath.Join(c.Data, runDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("find running processes: %w: %w", ErrUnconfirmed, err)
	}
	for _, d := range runs {
		dirs = append(dirs, filepath.Join(c.Data, runDir, d.Name()))
	}
	errs := make([]error, len(dirs))
	var wg sync.WaitGroup
	for i, dir := range dirs {
		wg.Go(func() {
			if err := syncOne(ctx, dir); err != nil {
				errs[i] = fmt.Errorf("the process of %s: %w: %w", dir, ErrUnconfirmed, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// writeJSON answers a command.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked may be gone
}

// errNotRunning says that no process has the data directory.
var errNotRunning = errors.New("it is not running")

// syncOne has one process take a change over, if it is running.
func syncOne(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*revoke.Term)
	defer cancel()
	err := command(ctx, dir, http.MethodPost, "/suspensions/sync", nil)
	if errors.Is(err, errNotRunning) {
		return nil // it will read the file when it starts again
	}
	return err
}

// command gives a command to the process that has a data directory, and reads
// its answer into v. The error wraps errNotRunning if there is none.
func command(ctx context.Context, dir, method, path string, v any) error {
	if _, err := os.Stat(filepath.Join(dir, socketName)); errors.Is(err, os.ErrNotExist) {
		return errNotRunning
	}
	at, done, err := socket(dir)
	if err != nil {
		return err
	}
	defer done()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", at)
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return errNotRunning
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // all that is wanted is read
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // as much as there is of why
		return errors.New(strings.TrimSpace(string(b)))
	}
	if v == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(v)
}
