package mcp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Pipe frames messages by newlines, as the stdio transport does.
type Pipe struct {
	r    *bufio.Reader
	max  int64
	skip bool // the rest of the current line is to be thrown away

	mu  sync.Mutex // guards w and err
	w   io.Writer
	err error // the first failed write
}

// NewPipe returns a pipe whose messages are at most max bytes long
// ([DefaultMaxMessage] if max is not positive).
func NewPipe(r io.Reader, w io.Writer, max int64) *Pipe {
	return &Pipe{r: bufio.NewReaderSize(r, 64<<10), w: w, max: maxMessage(max)}
}

// Read returns the next message and skips blank lines. A [*SyntaxError] means
// that one line was no message, or too long for one; the next line can still
// be read. Every other error is final, and io.EOF is the end. Read is not for
// concurrent use.
func (p *Pipe) Read() (*Message, error) {
	for {
		line, err := p.line()
		if len(bytes.TrimSpace(line)) > 0 {
			return Parse(line)
		}
		if err != nil {
			return nil, err
		}
	}
}

// line returns the next line. At the end of the stream it may return a line
// and an error both.
func (p *Pipe) line() ([]byte, error) {
	var long []byte
	for {
		part, err := p.r.ReadSlice('\n')
		if p.skip {
			p.skip = errors.Is(err, bufio.ErrBufferFull)
			if err != nil && !p.skip {
				return nil, err
			}
			continue
		}
		if int64(len(long)+len(bytes.TrimRight(part, "\r\n"))) > p.max {
			p.skip = errors.Is(err, bufio.ErrBufferFull)
			return nil, errTooLong(p.max)
		}
		if err == nil && long == nil {
			return part, nil
		}
		long = append(long, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return long, err
		}
	}
}

// Write writes one message as one line, in a single Write. It is safe for
// concurrent use. After an error the stream may end within a line, so every
// later Write fails with the same error.
func (p *Pipe) Write(m *Message) error {
	_, err := p.write(m)
	return err
}

// write also returns how many bytes have gone out.
func (p *Pipe) write(m *Message) (int, error) {
	line := append(oneLine(m.Bytes()), '\n')
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.w.Write(line)
	if err != nil {
		p.err = fmt.Errorf("write a message: %w", err)
	}
	return n, p.err
}

// oneLine returns a copy of a JSON text with its line breaks made spaces. A
// line break within a JSON string is always escaped, so what is replaced is
// white space.
func oneLine(b []byte) []byte {
	out := append(make([]byte, 0, len(b)+1), b...)
	for i, c := range out {
		if c == '\n' || c == '\r' {
			out[i] = ' '
		}
	}
	return out
}

func maxMessage(max int64) int64 {
	if max <= 0 {
		return DefaultMaxMessage
	}
	return max
}

func errTooLong(max int64) error {
	return &SyntaxError{Code: CodeInvalidRequest, Message: fmt.Sprintf("the message is longer than %d bytes", max), long: true}
}
