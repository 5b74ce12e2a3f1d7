package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// A line is one connection. It has at most one question under way.
type line struct {
	fd   int
	next int // the question that is under way
	sent time.Time
	buf  [16 << 10]byte
	n    int
}

// drive asks the questions over conns connections, each as soon as its last one
// is answered, for the time of window after that of warm. It is one thread
// around epoll, with requests that are ready to send and a reader that finds no
// more than the end of an answer and whether it is right, because what it
// spends is in everybody's numbers. It returns an error for any wrong answer.
func drive(addr string, pid int, wires []wire, conns int, warm, window time.Duration) (sample, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return sample{}, err
	}
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return sample{}, err
	}
	defer syscall.Close(ep) //nolint:errcheck // nothing is written to it
	lines := map[int32]*line{}
	for i := range conns {
		l := &line{next: i * len(wires) / conns}
		if l.fd, err = connect(ap); err != nil {
			return sample{}, fmt.Errorf("connect: %w", err)
		}
		defer syscall.Close(l.fd) //nolint:errcheck // every answer has been read
		lines[int32(l.fd)] = l
		if err := syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, l.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(l.fd)}); err != nil {
			return sample{}, err
		}
	}
	latencies := make([]time.Duration, 0, 1<<20)
	now := time.Now()
	for _, l := range lines {
		if err := l.send(wires, now); err != nil {
			return sample{}, err
		}
	}
	measureFrom, end, giveUp := now.Add(warm), now.Add(warm+window), now.Add(warm+window+10*time.Second)
	var from, to usage
	answered := 0 // between these two
	events := make([]syscall.EpollEvent, conns)
	for underWay := conns; underWay > 0; {
		n, err := syscall.EpollWait(ep, events, 10)
		if err != nil && err != syscall.EINTR {
			return sample{}, fmt.Errorf("wait: %w", err)
		}
		now = time.Now()
		if from.at.IsZero() && !now.Before(measureFrom) {
			if from, err = usageOf(pid); err != nil {
				return sample{}, err
			}
		}
		if to.at.IsZero() && !now.Before(end) {
			if to, err = usageOf(pid); err != nil {
				return sample{}, err
			}
		}
		if now.After(giveUp) {
			return sample{}, fmt.Errorf("%d of %d connections have no answer after %v", underWay, conns, now.Sub(end))
		}
		for _, e := range events[:max(0, n)] {
			l := lines[e.Fd]
			done, err := l.receive(wires)
			if err != nil {
				return sample{}, fmt.Errorf("question %d: %w", l.next, err)
			}
			if !done {
				continue
			}
			// Answers are counted when they come and timed if their question
			// was asked in the window: one that is still waiting at its end is
			// a slow one.
			if !from.at.IsZero() && !l.sent.Before(from.at) {
				latencies = append(latencies, now.Sub(l.sent))
			}
			if !to.at.IsZero() {
				underWay--
				continue
			}
			if !from.at.IsZero() {
				answered++
			}
			l.next = (l.next + 1) % len(wires)
			if err := l.send(wires, now); err != nil {
				return sample{}, err
			}
		}
	}
	return newSample(answered, latencies, from, to), nil
}

func connect(ap netip.AddrPort) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	return fd, err
}

func (l *line) send(wires []wire, now time.Time) error {
	l.sent, l.n = now, 0
	request := wires[l.next].request
	n, err := syscall.Write(l.fd, request)
	if err == nil && n < len(request) {
		err = fmt.Errorf("only %d of %d bytes fit into the socket", n, len(request))
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
	chunked       = []byte("\r\nTransfer-Encoding: chunked\r\n")
	lastChunk     = []byte("\r\n0\r\n\r\n")
	ok            = []byte("HTTP/1.1 200 ")
)

// receive reads what there is and says whether the answer is complete.
func (l *line) receive(wires []wire) (bool, error) {
	n, err := syscall.Read(l.fd, l.buf[l.n:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("receive: %w", err)
	case n == 0:
		return false, fmt.Errorf("the server closed the connection after %q", l.buf[:l.n])
	}
	l.n += n
	head := bytes.Index(l.buf[:l.n], headEnd)
	if head < 0 {
		return false, nil
	}
	body := l.buf[head+len(headEnd) : l.n]
	if i := bytes.Index(l.buf[:head+2], contentLength); i >= 0 {
		digits, _, _ := bytes.Cut(l.buf[i+len(contentLength):head+2], headEnd[:2])
		length, err := strconv.Atoi(string(digits))
		if err != nil || length > len(l.buf)-head-len(headEnd) {
			return false, fmt.Errorf("an answer of %q bytes", digits)
		}
		if len(body) < length {
			return false, nil
		}
	} else if !bytes.Contains(l.buf[:head+2], chunked) {
		return false, fmt.Errorf("an answer without an end: %q", l.buf[:l.n])
	} else if !bytes.HasSuffix(l.buf[:l.n], lastChunk) {
		return false, nil
	}
	if !bytes.HasPrefix(l.buf[:], ok) || !bytes.Contains(body, wires[l.next].answer) {
		return false, fmt.Errorf("wrong answer, not %s: %q", wires[l.next].answer, l.buf[:l.n])
	}
	return true, nil
}

// dieWithParent leaves no server behind when the benchmark is killed.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
