package rig

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A Process is a program that a test started.
type Process struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
	err  error // of Wait, once done is closed
}

// Start runs a command. What it writes is kept (the last 64 KiB) for the
// messages of failing tests.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, log: &tail{limit: 64 << 10}, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.log
	}
	// A child of a killed child may hold the pipes open; do not wait for it.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is the end of what the process wrote.
func (p *Process) Log() string { return p.log.String() }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Alive reports whether the process is running.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Code is the exit code of a process that has ended; -1 if a signal ended it.
func (p *Process) Code() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill() {
	// An error means that it has already ended, which is what is wanted.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop interrupts the process and waits for it; after ten seconds it is
// killed, and that is an error.
func (p *Process) Stop() error {
	if !p.Alive() {
		return nil
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && p.Alive() {
		return fmt.Errorf("interrupt %s: %w", p.cmd.Path, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		p.Kill()
		return fmt.Errorf("%s did not stop in 10 s\n%s", p.cmd.Path, p.Log())
	}
}

// Listening waits until a TCP address accepts a connection or the process
// ends.
func (p *Process) Listening(ctx context.Context, addr string) error {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it listened: %w\n%s", p.cmd.Path, p.err, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen at %s: %w\n%s", p.cmd.Path, addr, ctx.Err(), p.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// FreeAddr is a loopback address that nobody listens at just now.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// A tail is a writer that keeps the end of what was written.
type tail struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(b)
	if over := t.buf.Len() - t.limit; over > 0 {
		t.buf.Next(over)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
