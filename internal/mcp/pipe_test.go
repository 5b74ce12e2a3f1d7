package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// readAll reads a pipe to its end, and notes what came.
func readAll(p *Pipe) []string {
	var got []string
	for {
		m, err := p.Read()
		var bad *SyntaxError
		switch {
		case errors.As(err, &bad):
			got = append(got, fmt.Sprint(bad.Code))
		case err != nil:
			return append(got, err.Error())
		default:
			got = append(got, m.Method())
		}
	}
}

func note(method string) string { return `{"jsonrpc":"2.0","method":"` + method + `"}` }

func TestPipeRead(t *testing.T) {
	t.Parallel()
	long := note(strings.Repeat("x", 200<<10))
	for _, tt := range []struct {
		name, in string
		want     string
	}{
		{"nothing", "", "EOF"},
		{"blank lines", "\n \r\n\n", "EOF"},
		{"lines", note("a") + "\n\n" + note("b") + "\r\n", "a b EOF"},
		{"the last line has no end", note("a") + "\n" + note("b"), "a b EOF"},
		{"the last line is cut", note("a") + "\n" + note("b")[:10], "a -32700 EOF"},
		{"nonsense between", "Listening\n" + note("a") + "\n[]\n" + note("b") + "\n", "-32700 a -32600 b EOF"},
		{"a line that is too long", note("a") + "\n" + long + "\n" + note("b") + "\n", "a -32600 b EOF"},
		{"a last line that is too long", note("a") + "\n" + long, "a -32600 EOF"},
		{"the longest line", note(strings.Repeat("x", 1000-len(note("")))) + "\r\n" + note(strings.Repeat("x", 1001-len(note("")))) + "\n",
			strings.Repeat("x", 1000-len(note(""))) + " -32600 EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range map[string]io.Reader{"whole": strings.NewReader(tt.in), "bytewise": iotest.OneByteReader(strings.NewReader(tt.in))} {
				if got := strings.Join(readAll(NewPipe(r, nil, 1000)), " "); got != tt.want {
					t.Errorf("%s: got %s, want %s", name, got, tt.want)
				}
			}
		})
	}
}

// An endless reader repeats a text for ever, and counts.
type endless struct {
	text string
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text)
	e.n += n
	return n, nil
}

func TestPipeReportsAnEndlessLineAtOnce(t *testing.T) {
	t.Parallel()
	in := &endless{text: strings.Repeat("x", 4096)}
	_, err := NewPipe(in, nil, 1<<20).Read()
	var bad *SyntaxError
	if !errors.As(err, &bad) || in.n > 2<<20 {
		t.Errorf("got %v after %d bytes", err, in.n)
	}
}

func TestPipeReadsAGivenError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	p := NewPipe(io.MultiReader(strings.NewReader(note("a")+"\n"), iotest.ErrReader(broken)), nil, 0)
	if got := strings.Join(readAll(p), " "); got != "a broken" {
		t.Errorf("got %s", got)
	}
	if _, err := p.Read(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestPipeWrite(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := NewPipe(nil, &out, 0)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			m := mustParse(t, fmt.Sprintf("{\n\"jsonrpc\":\"2.0\",\r\n\"id\":%d,\"method\":\"a\\nb\"}", i))
			if err := p.Write(m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 50 {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		if m := mustParse(t, l); m.Method() != "a\nb" {
			t.Errorf("got %s", l)
		}
	}
}

func TestPipeWritesNothingAfterAFailure(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	writes := 0
	p := NewPipe(nil, writerFunc(func(b []byte) (int, error) {
		writes++
		return 3, broken
	}), 0)
	m := NewRequest(json.RawMessage("1"), "x", nil)
	if n, err := p.write(m); n != 3 || !errors.Is(err, broken) {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := p.write(m); n != 0 || !errors.Is(err, broken) || writes != 1 {
		t.Errorf("got %d, %v after %d writes", n, err, writes)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
