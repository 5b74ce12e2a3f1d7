//go:build unix

// Package postgres runs a real PostgreSQL for tests: a cluster of its own in a
// temporary directory, on a Unix socket that nobody else can reach.
package postgres

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"
)

// wait bounds everything that a test waits for.
const wait = time.Minute

// A Server is a running cluster.
type Server struct {
	dir  string
	bin  string
	cred *syscall.Credential
	cmd  *exec.Cmd
	// ended is closed when the process has ended.
	ended chan struct{}
	count int
}

// Start makes and starts a cluster that ends with the test. The quick loop leaves
// the test out; otherwise it fails the test if there is no PostgreSQL: Debian has it in the package postgresql-15, or
// whichever version the release has, and the server in /usr/lib/postgresql.
func Start(t testing.TB) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs PostgreSQL: run 'make test'")
	}
	s, err := newServer()
	if err != nil {
		t.Fatalf("make a PostgreSQL cluster: %v", err)
	}
	t.Cleanup(func() {
		s.Stop()
		if err := os.RemoveAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	if err := s.start(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return s
}

func newServer() (*Server, error) {
	bin, err := findBin()
	if err != nil {
		return nil, err
	}
	// Not the test's own directory: the server's user could not get through
	// its parent. And a short name, because names of sockets are short.
	dir, err := os.MkdirTemp("/tmp", "bwpg")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) init() error {
	if err := s.becomeSomebody(); err != nil {
		return err
	}
	cmd := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// findBin finds the newest server on this machine.
func findBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4]) // what is no number is 0
		return n
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("there is no initdb in /usr/lib/postgresql/*/bin or on PATH: install PostgreSQL, as .ci/deps does")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

// becomeSomebody makes the server run as another user if we are root, as whom it
// refuses to.
func (s *Server) becomeSomebody() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return fmt.Errorf("find a user to run the server as: %w", err)
		}
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if err := errors.Join(errU, errG); err != nil {
		return err
	}
	s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.dir, uid, gid)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	return cmd
}

// start starts the server and waits until it answers.
func (s *Server) start() error {
	s.cmd = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50",
		"-c", "unix_socket_permissions=0777", "-c", "log_min_messages=log", "-c", "shared_buffers=16MB")
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan struct{})
	s.ended = make(chan struct{})
	var log strings.Builder
	go func() {
		defer close(s.ended)
		told := false
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if log.Len() < 1<<16 {
				fmt.Fprintln(&log, lines.Text())
			}
			if !told && strings.Contains(lines.Text(), "ready to accept connections") {
				told = true
				close(ready)
			}
		}
		// A line that is too long ends the scanner; the pipe must not fill up.
		_, _ = io.Copy(io.Discard, stderr)
		_ = s.cmd.Wait() // that it ended is all that matters
	}()
	select {
	case <-ready:
		return nil
	case <-s.ended:
		return fmt.Errorf("it ended:\n%s", log.String())
	case <-time.After(wait):
		s.Stop()
		return fmt.Errorf("it is not ready after %s", wait)
	}
}

// Stop ends the server as a crash would: at once, without a word to its clients.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	// SIGQUIT: the children are told to quit too. Kill alone would leave them.
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(wait):
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.ended
	}
	s.cmd = nil
}

// Restart starts the server again after Stop.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatalf("start PostgreSQL again: %v", err)
	}
}

// DSN is the connection string for a database of the server.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s user=postgres dbname=%s", s.dir, database)
}

// Database makes a new database, runs statements in it, and returns its
// connection string. It may not be called concurrently.
func (s *Server) Database(t testing.TB, statements ...string) string {
	t.Helper()
	s.count++
	name := fmt.Sprintf("test%d", s.count)
	s.Exec(t, s.DSN("postgres"), "CREATE DATABASE "+name)
	s.Exec(t, s.DSN(name), statements...)
	return s.DSN(name)
}

// Exec runs statements in a database.
func (s *Server) Exec(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}
