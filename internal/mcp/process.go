package mcp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A process is a child that leads a process group.
type process struct {
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	stderr *os.File

	exited  chan struct{} // closed when the child has been reaped
	waitErr error         // set before exited is closed
	drained chan struct{} // closed when the standard error has ended
	stopErr error         // set by stop

	input sync.Once
}

// startProcess starts a server. The pipes are our own: those of exec.Cmd are
// closed when the child exits, and what it wrote last would be lost.
func startProcess(s Server) (_ *process, err error) {
	p := &process{cmd: exec.Command(s.Command, s.Args...), exited: make(chan struct{}), drained: make(chan struct{})}
	var theirs [3]*os.File
	defer func() {
		closeAll(theirs[:]...)
		if err != nil {
			closeAll(p.stdin, p.stdout, p.stderr)
		}
	}()
	if theirs[0], p.stdin, err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.stdout, theirs[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.stderr, theirs[2], err = os.Pipe(); err != nil {
		return nil, err
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	p.cmd.Dir = s.Dir
	// A nil Env would mean: inherit ours.
	p.cmd.Env = append([]string{}, s.Env...)
	leadGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.wait()
	go p.drain(s.Stderr)
	return p, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // a pipe has nothing left to flush
		}
	}
}

// wait reaps the child, and kills what it leaves behind in its group.
func (p *process) wait() {
	defer close(p.exited)
	p.waitErr = p.cmd.Wait()
	// The group's id cannot have been given away while a member lives, and
	// with none left this does nothing.
	_ = killGroup(p.cmd)
}

// drain copies the standard error, through a small buffer, for as long as it
// lasts: a child whose standard error is full stands still.
func (p *process) drain(w io.Writer) {
	defer close(p.drained)
	if w != nil {
		if _, err := io.Copy(w, p.stderr); err == nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, p.stderr) // it ends when the pipe does
}

// stop makes the process leave: by the end of its input, by a request, by
// force. It returns when the child has been reaped.
func (p *process) stop(grace time.Duration) {
	p.closeInput()
	if p.exits(grace) {
		return
	}
	if terminateGroup(p.cmd) == nil && p.exits(grace) {
		return
	}
	if err := killGroup(p.cmd); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.stopErr = fmt.Errorf("kill the server process: %w", err)
	}
	if !p.exits(grace) && p.stopErr == nil {
		p.stopErr = errors.New("the server process does not die")
	}
}

// exits reports whether the child is gone within a time.
func (p *process) exits(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-p.exited:
		return true
	case <-t.C:
		return false
	}
}

func (p *process) closeInput() { p.input.Do(func() { closeAll(p.stdin) }) }

func (p *process) closePipes() { closeAll(p.stdout, p.stderr) }

// exitError says how the child ended. The child must have exited.
func (p *process) exitError() error {
	if p.waitErr != nil {
		return fmt.Errorf("the server process ended: %w", p.waitErr)
	}
	return errors.New("the server process ended")
}
