package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A server is one thing to measure.
type server struct {
	name    string
	version string
	// layout says how it was given the rules.
	layout string
	// binary builds the program and returns its path.
	binary func(ctx context.Context) (string, error)
	// write puts the workload's files in dir, for a server at addr, and
	// returns the program's arguments.
	write func(dir, addr string, w *workload) ([]string, error)
	// load gives the running server what it cannot read from files. Nil: nothing.
	load func(ctx context.Context, addr string, w *workload) error
	// ask renders a question.
	ask func(w *workload, q question) (path string, body any)
	// header is added to each request: "Name: value\r\n" or nothing.
	header string
	// yes and no mark an answer. Exactly one of them must be in it.
	yes, no string

	addr    string
	cmd     *exec.Cmd
	exited  chan error
	log     string
	wire    []wire
	ready   time.Duration
	peak    int64            // RSS in bytes
	samples map[int][]sample // by connections, one a round
	// failed says why there are no numbers, or no more.
	failed error
}

// A wire is a question as the bytes that are sent, and what the answer must hold.
type wire struct {
	request []byte
	answer  []byte
}

// start runs the server with the workload in a process of its own, and returns
// when it has answered one question with 200.
func (s *server) start(ctx context.Context, dir string, w *workload) error {
	binary, err := s.binary(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if s.addr, err = freeAddr(); err != nil {
		return err
	}
	args, err := s.write(dir, s.addr, w)
	if err != nil {
		return fmt.Errorf("write the workload: %w", err)
	}
	s.log = filepath.Join(dir, "log")
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.CommandContext(ctx, binary, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, log, log
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 5 * time.Second
	dieWithParent(s.cmd)
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := s.retry(ctx, func() error {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		return err
	}
	if s.load != nil {
		if err := s.retry(ctx, func() error { return s.load(ctx, s.addr, w) }); err != nil {
			return err
		}
	}
	if err := s.render(w); err != nil {
		return err
	}
	err = s.retry(ctx, func() error { _, err := s.answer(ctx, w, w.questions[0]); return err })
	s.ready = time.Since(began)
	return err
}

// retry does it until it succeeds. It gives up after ten seconds of the same
// refusal, when the context ends, and when the server does.
func (s *server) retry(ctx context.Context, do func() error) error {
	last, since := "", time.Now()
	for {
		err := do()
		if err == nil {
			return nil
		}
		if refused := (*refusal)(nil); !errors.As(err, &refused) || err.Error() != last {
			last, since = err.Error(), time.Now()
		} else if time.Since(since) > 10*time.Second {
			return err
		}
		select {
		case end := <-s.exited:
			s.exited <- end
			return fmt.Errorf("it ended (%v): %s", end, tail(s.log))
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the process and waits for it.
func (s *server) stop() {
	if s.exited == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill() // the same
		<-s.exited
	}
	s.exited = nil
}

// render makes the bytes of each question, once.
func (s *server) render(w *workload) error {
	s.wire = nil
	for _, q := range w.questions {
		path, v := s.ask(w, q)
		body, err := json.Marshal(v)
		if err != nil {
			return err
		}
		answer := s.no
		if q.allow {
			answer = s.yes
		}
		request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
			path, s.addr, s.header, len(body), body)
		s.wire = append(s.wire, wire{[]byte(request), []byte(answer)})
	}
	return nil
}

// examine asks every question once and holds the answers to the reference.
func (s *server) examine(ctx context.Context, w *workload) error {
	if s.yes == s.no {
		return nil // the floor has one answer to everything
	}
	for i, q := range w.questions {
		allow, err := s.answer(ctx, w, q)
		if err != nil {
			return fmt.Errorf("question %d: %w", i, err)
		}
		if allow != q.allow {
			return fmt.Errorf("question %d: %s says %v to %+v", i, s.name, allow, q)
		}
	}
	return nil
}

// answer asks one question, with care and not for speed.
func (s *server) answer(ctx context.Context, w *workload, q question) (bool, error) {
	path, v := s.ask(w, q)
	text, err := post(ctx, "http://"+s.addr+path, s.header, v)
	if err != nil {
		return false, err
	}
	yes, no := bytes.Contains(text, []byte(s.yes)), bytes.Contains(text, []byte(s.no))
	if !json.Valid(text) || yes == no && s.yes != s.no {
		return false, fmt.Errorf("neither a yes nor a no: %s", text)
	}
	return yes, nil
}

// A refusal is an HTTP answer other than a 2xx.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// post sends JSON and returns the body of a 2xx answer.
func post(ctx context.Context, url, header string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if name, value, ok := strings.Cut(strings.TrimSpace(header), ": "); ok {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = &refusal{fmt.Sprintf("POST %s: %s: %.300s", req.URL.Path, res.Status, text)}
	}
	return text, err
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tail is the end of a log file.
func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return strings.ReplaceAll(string(text[max(0, len(text)-600):]), "\n", " / ")
}
