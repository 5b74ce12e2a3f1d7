//go:build unix

package mcp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// runStdioServer is the child's side: servers that behave, and servers that do
// not.
func runStdioServer(kind string) int {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 32<<20)
	answer := func(m *Message, result string) {
		fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", m.ID(), result)
	}
	// each calls f for every request.
	each := func(f func(m *Message)) int {
		for in.Scan() {
			if m, err := Parse(in.Bytes()); err == nil && m.IsRequest() {
				f(m)
			}
		}
		return 0
	}
	switch kind {
	case "sdk":
		if err := newSDKServer(nil).Run(context.Background(), &sdk.StdioTransport{}); err != nil {
			return 1
		}
		return 0
	case "sdk legacy", "sdk modern":
		o := &sdk.ServerOptions{SupportedProtocolVersions: []string{LegacyVersion}}
		if kind == "sdk modern" {
			o.SupportedProtocolVersions[0] = ModernVersion
		}
		if err := newSDKServer(o).Run(context.Background(), &sdk.StdioTransport{}); err != nil {
			return 1
		}
		return 0
	case "fragile": // does not survive what it does not know
		return each(func(m *Message) {
			if m.Method() != methodInitialize {
				os.Exit(3)
			}
			answer(m, `{"protocolVersion":"2024-11-05","capabilities":{}}`)
		})
	case "curious": // asks before it answers
		return each(func(m *Message) {
			switch m.Method() {
			case methodInitialize:
				answer(m, `{"protocolVersion":"2025-03-26","capabilities":{}}`)
			case "tools/list":
				fmt.Println(`{"jsonrpc":"2.0","id":"q1","method":"ping"}`)
				fmt.Println(`{"jsonrpc":"2.0","id":"q2","method":"sampling/createMessage","params":{}}`)
				var heard []string
				for len(heard) < 2 && in.Scan() {
					if h, err := Parse(in.Bytes()); err == nil && h.IsResponse() {
						heard = append(heard, string(h.Bytes()))
					}
				}
				b, _ := json.Marshal(strings.Join(heard, " "))
				answer(m, `{"tools":[{"name":"x","description":`+string(b)+`}]}`)
			default:
				fmt.Printf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}`+"\n", m.ID())
			}
		})
	case "raw": // answers with what it got, after it has said something
		return each(func(m *Message) {
			fmt.Println(`{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"before"}}`)
			b, _ := json.Marshal(string(m.Bytes()))
			answer(m, `{"got":`+string(b)+`}`)
		})
	case "liar": // answers others first, then the call, then the call again
		return each(func(m *Message) {
			fmt.Println("Listening on standard input ...")
			fmt.Println(`{"jsonrpc":"2.0","id":999,"result":{"from":"nobody"}}`)
			fmt.Println(`{"jsonrpc":"2.0","id":"` + string(m.ID()) + `","result":{"from":"a string"}}`)
			fmt.Println(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"who?"}}`)
			answer(m, `{"n":1}`)
			answer(m, `{"n":2}`)
		})
	case "long":
		return each(func(m *Message) { answer(m, `{"x":"`+strings.Repeat("x", 1<<20)+`"}`) })
	case "duplicate":
		return each(func(m *Message) { answer(m, `{"x":1,"x":2}`) })
	case "flood": // never stops talking, and answers in between
		each(func(m *Message) {
			for range 2000 {
				fmt.Println(`{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"` + strings.Repeat("x", 1000) + `"}}`)
			}
			answer(m, `{}`)
		})
		return 0
	case "mute": // closes its output, and lives on
		if err := os.Stdout.Close(); err != nil {
			return 1
		}
		return each(func(*Message) {})
	case "witness": // tells what it hears, and answers nothing
		for in.Scan() {
			fmt.Fprintln(os.Stderr, in.Text())
		}
		return 0
	case "silent":
		return each(func(*Message) {})
	case "deaf": // never reads
		time.Sleep(time.Minute)
		return 0
	case "dies":
		return each(func(*Message) { os.Exit(7) })
	case "answers and dies":
		return each(func(m *Message) { answer(m, `{}`); os.Exit(7) })
	case "stubborn": // hears no end of input and no SIGTERM
		signal.Ignore(syscall.SIGTERM)
		fmt.Fprintln(os.Stderr, "ready")
		time.Sleep(time.Minute)
		return 0
	case "forks": // leaves a helper behind that holds its output open
		cmd := exec.Command("/bin/sleep", "60")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			return 1
		}
		return each(func(m *Message) { answer(m, strconv.Itoa(cmd.Process.Pid)) })
	case "escapes": // leaves a helper behind in a session of its own
		cmd := exec.Command("/bin/sleep", "20")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			return 1
		}
		return each(func(m *Message) { answer(m, strconv.Itoa(cmd.Process.Pid)) })
	case "noisy":
		fmt.Fprint(os.Stderr, strings.Repeat("noise\n", 200_000))
		return each(func(m *Message) { answer(m, `{}`) })
	case "environment":
		return each(func(m *Message) {
			b, _ := json.Marshal(os.Environ())
			answer(m, `{"env":`+string(b)+`}`)
		})
	case "subscriptions": // acknowledges, notifies, and ends what it is told to
		return each(func(m *Message) {
			if m.Method() != methodListen {
				answer(m, `{}`)
				return
			}
			fmt.Printf(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s},"notifications":{}}}`+"\n", m.ID())
			fmt.Printf(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s}}}`+"\n", m.ID())
			if GetString(m.Params(), "end") == "cancel" {
				fmt.Printf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}`+"\n", m.ID())
				return
			}
			answer(m, fmt.Sprintf(`{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":%s}}`, m.ID()))
		})
	default:
		return 99
	}
}

func TestStdioSpeaksToAGenuineServer(t *testing.T) {
	t.Parallel()
	var progress []string
	c := dial(t, selfServer(t, "sdk"), Legacy, func(m *Message) {
		if m.Method() == "notifications/progress" {
			v, _ := Get(m.Params(), "progress")
			progress = append(progress, string(v))
		}
	})
	handshake(t, c)
	r, err := c.Call(t.Context(), toolCall("echo", `{"a":[1.50]}`), CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := resultText(t, r.Message); got != `{"a":[1.50]}` {
		t.Errorf("echo: %s", got)
	}
	if got := string(r.Message.ID()); got != `"caller-1"` {
		t.Errorf("the reply has id %s, not the caller's", got)
	}
	if _, err := c.Call(t.Context(), toolCall("progress", `{}`), CallOptions{}); err != nil {
		t.Fatal(err)
	}
	// Reading progress without a lock is the point: Call orders it.
	if got := strings.Join(progress, " "); got != "1 2 3" {
		t.Errorf("progress before the reply: %q", got)
	}
}

func TestStdioAnswersRequestsOfTheServer(t *testing.T) {
	t.Parallel()
	asked := make(chan *Message, 1)
	c := dial(t, selfServer(t, "sdk"), Legacy, func(m *Message) {
		if m.IsRequest() {
			asked <- m
		}
	})
	handshake(t, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		q := <-asked
		if err := c.Send(t.Context(), NewResult(q.ID(), json.RawMessage(`{"roots":[{"uri":"file:///a"}]}`))); err != nil {
			t.Error(err)
		}
	})
	r, err := c.Call(t.Context(), toolCall("ask", `{}`), CallOptions{})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got := resultText(t, r.Message); got != "1" {
		t.Errorf("the server saw %s roots", got)
	}
}

func TestStdioCallsAreIndependent(t *testing.T) {
	t.Parallel()
	c := dial(t, selfServer(t, "raw"), Legacy, nil)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			// All callers use the same id.
			r, err := c.Call(t.Context(), NewRequest(json.RawMessage(`7`), "ping", json.RawMessage(fmt.Sprintf(`{"i":%d}`, i))), CallOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			if want := fmt.Sprintf(`"i":%d}`, i); !strings.Contains(GetString(r.Message.Result(), "got"), want) {
				t.Errorf("call %d got %s", i, r.Message.Bytes())
			}
			if string(r.Message.ID()) != "7" {
				t.Errorf("id %s", r.Message.ID())
			}
		})
	}
	wg.Wait()
}

func TestStdioForwardsTheBytes(t *testing.T) {
	t.Parallel()
	c := dial(t, selfServer(t, "raw"), Legacy, nil)
	m := mustParse(t, "{ \"jsonrpc\": \"2.0\",\n \"x-unknown\" : [1.0, 1e2],\r\n\"method\":\"ping\" , \"id\" :\"A\", \"params\":{\"\\u0061\": 12345678901234567890} }")
	r, err := c.Call(t.Context(), m, CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{ "jsonrpc": "2.0",  "x-unknown" : [1.0, 1e2],  "method":"ping" , "id" :1, "params":{"\u0061": 12345678901234567890} }`
	if got := GetString(r.Message.Result(), "got"); got != want {
		t.Errorf("the server got\n%s\nwant\n%s", got, want)
	}
}

func TestStdioSurvivesHostileServers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind string
		want error // nil: an answer
	}{
		{kind: "liar"},
		{kind: "flood"},
		{kind: "noisy"},
		{kind: "answers and dies"},
		{kind: "long", want: ErrLost},
		{kind: "duplicate", want: ErrLost},
		{kind: "dies", want: ErrLost},
		{kind: "silent", want: ErrLost},
		{kind: "deaf", want: ErrLost},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			s := selfServer(t, tt.kind)
			s.MaxMessage = 64 << 10
			c := dial(t, s, Legacy, nil)
			limit := 5 * time.Second
			if tt.kind == "silent" || tt.kind == "deaf" {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			r, err := c.Call(ctx, ping(`"x"`), CallOptions{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if limit == 5*time.Second && ctx.Err() != nil {
				t.Error("the call had to wait for its deadline")
			}
			if tt.kind == "liar" && string(r.Message.Result()) != `{"n":1}` {
				t.Errorf("got %s", r.Message.Bytes())
			}
		})
	}
}

func TestStdioConnectionGoesOnAfterALongLine(t *testing.T) {
	t.Parallel()
	s := selfServer(t, "raw")
	s.MaxMessage = 1 << 10
	c := dial(t, s, Legacy, nil)
	big := NewRequest(json.RawMessage(`1`), "ping", json.RawMessage(`{"x":"`+strings.Repeat("x", 2<<10)+`"}`))
	if _, err := c.Call(t.Context(), big, CallOptions{}); !errors.Is(err, ErrLost) {
		t.Fatalf("got %v, want ErrLost", err)
	}
	if _, err := c.Call(t.Context(), ping(`2`), CallOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestStdioNotSentMeansNotSent(t *testing.T) {
	t.Parallel()
	t.Run("after the end", func(t *testing.T) {
		t.Parallel()
		c := dial(t, selfServer(t, "dies"), Legacy, nil)
		if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, ErrLost) || errors.Is(err, ErrNotSent) {
			t.Fatalf("got %v, want ErrLost", err)
		}
		<-c.Done()
		if got := c.Err(); got == nil || !strings.Contains(got.Error(), "exit status 7") {
			t.Errorf("the connection ended with %v", got)
		}
		if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); !errors.Is(err, ErrNotSent) || errors.Is(err, ErrLost) {
			t.Fatalf("got %v, want ErrNotSent", err)
		}
	})
	t.Run("behind a message that is stuck", func(t *testing.T) {
		t.Parallel()
		c := dial(t, selfServer(t, "deaf"), Legacy, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		big := NewRequest(json.RawMessage(`1`), "ping", json.RawMessage(`{"x":"`+strings.Repeat("x", 1<<20)+`"}`))
		stuck := make(chan error, 1)
		go func() {
			_, err := c.Call(ctx, big, CallOptions{})
			stuck <- err
		}()
		eventually(t, "the writer is stuck", func() bool {
			mu := &c.link.(*stdio).pipe.mu
			if !mu.TryLock() {
				return true
			}
			mu.Unlock()
			return false
		})
		cancel()
		if err := <-stuck; !errors.Is(err, ErrLost) {
			t.Errorf("the message that is partly written: %v, want ErrLost", err)
		}
		behind, cancel2 := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel2()
		if _, err := c.Call(behind, ping(`2`), CallOptions{}); !errors.Is(err, ErrNotSent) {
			t.Errorf("the message behind it: %v, want ErrNotSent", err)
		}
	})
	t.Run("no process", func(t *testing.T) {
		t.Parallel()
		_, err := Dial(t.Context(), Server{Command: "/nonexistent/server"}, Legacy, nil)
		if !errors.Is(err, ErrNotSent) {
			t.Errorf("got %v, want ErrNotSent", err)
		}
	})
	t.Run("cancelled before", func(t *testing.T) {
		t.Parallel()
		c := dial(t, selfServer(t, "raw"), Legacy, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Call(ctx, ping(`1`), CallOptions{}); !errors.Is(err, ErrNotSent) {
			t.Errorf("got %v, want ErrNotSent", err)
		}
	})
}

// brokenLink is a link whose every write fails after n bytes.
func brokenLink(t *testing.T, n int) *stdio {
	t.Helper()
	l := &stdio{
		ending:  &ending{done: make(chan struct{})},
		pipe:    NewPipe(nil, writerFunc(func([]byte) (int, error) { return n, syscall.EPIPE }), 0),
		writes:  make(chan *write),
		cancels: make(chan *Message),
		pending: make(map[string]*stdioCall),
	}
	var wg sync.WaitGroup
	wg.Go(l.write)
	t.Cleanup(wg.Wait)
	return l
}

func TestStdioFailedWrites(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]error{0: ErrNotSent, 3: ErrLost} {
		req := ping(`1`)
		if _, err := brokenLink(t, n).call(t.Context(), &call{req: req, wire: req.ID(), own: req.ID()}); !errors.Is(err, want) || !errors.Is(err, syscall.EPIPE) {
			t.Errorf("call after %d bytes: %v, want %v", n, err, want)
		}
		l := brokenLink(t, n)
		if err := l.send(t.Context(), NewNotification("x", nil)); !errors.Is(err, want) {
			t.Errorf("send after %d bytes: %v, want %v", n, err, want)
		}
		if err := l.send(t.Context(), NewNotification("x", nil)); !errors.Is(err, ErrNotSent) {
			t.Errorf("send after the end: %v, want ErrNotSent", err)
		}
	}
}

func TestStdioServerThatClosesItsOutputIsDone(t *testing.T) {
	t.Parallel()
	c := dial(t, selfServer(t, "mute"), Legacy, nil)
	<-c.Done()
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "closed its output") {
		t.Errorf("got %v", err)
	}
}

func TestStdioCancelsByTheIDOnTheWire(t *testing.T) {
	t.Parallel()
	seen := make(chan *Message, 10)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { closeAll(w) })
	wg.Go(func() {
		defer closeAll(r)
		for in := NewPipe(r, nil, 0); ; {
			m, err := in.Read()
			if err != nil {
				return
			}
			seen <- m
		}
	})
	s := selfServer(t, "witness")
	s.Stderr = w
	c := dial(t, s, Legacy, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.Call(ctx, ping(`"mine"`), CallOptions{})
		failed <- err
	}()
	q := <-seen
	reason := errors.New("had enough")
	cancel(reason)
	if err := <-failed; !errors.Is(err, ErrLost) || !errors.Is(err, reason) {
		t.Errorf("got %v, want ErrLost and its cause", err)
	}
	note := <-seen
	if id, _ := Get(note.Params(), "requestId"); note.Method() != "notifications/cancelled" || string(id) != string(q.ID()) {
		t.Errorf("after %s came %s", q.Bytes(), note.Bytes())
	}
}

func TestStdioSubscriptionBelongsToItsCall(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"answer", "cancel"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			c := dial(t, selfServer(t, "subscriptions"), Modern, func(m *Message) { t.Errorf("outside of the call: %s", m.Bytes()) })
			if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); err != nil { // so that the ids differ
				t.Fatal(err)
			}
			var got []string
			r, err := c.Call(t.Context(), NewRequest(json.RawMessage(`"sub"`), methodListen, json.RawMessage(`{"end":"`+end+`"}`)), CallOptions{On: func(m *Message) {
				got = append(got, m.Method()+" "+GetString(m.Params(), "_meta", MetaSubscriptionID)+GetString(m.Params(), "requestId"))
			}})
			want := []string{"notifications/subscriptions/acknowledged sub", "notifications/tools/list_changed sub"}
			if end == "cancel" {
				want = append(want, "notifications/cancelled sub")
				if !errors.Is(err, ErrLost) {
					t.Errorf("got %v, want ErrLost", err)
				}
			} else if err != nil || GetString(r.Message.Result(), "_meta", MetaSubscriptionID) != "sub" {
				t.Errorf("got %v, %v", r, err)
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestStdioCloseLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	t.Run("a stubborn server is killed", func(t *testing.T) {
		t.Parallel()
		ready := make(chan struct{})
		var once sync.Once
		s := selfServer(t, "stubborn")
		s.Stderr = writerFunc(func(b []byte) (int, error) { once.Do(func() { close(ready) }); return len(b), nil })
		c := dial(t, s, Legacy, nil)
		<-ready
		pid := c.link.(*stdio).proc.cmd.Process.Pid
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("the process lives: %v", err)
		}
		if !errors.Is(c.Err(), ErrClosed) {
			t.Errorf("got %v, want ErrClosed", c.Err())
		}
	})
	t.Run("a helper dies with its server", func(t *testing.T) {
		t.Parallel()
		c := dial(t, selfServer(t, "forks"), Legacy, nil)
		r, err := c.Call(t.Context(), ping(`1`), CallOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(string(r.Message.Result()))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		// Its new parent has to reap it, so it may be a zombie for a while.
		eventually(t, "the helper dies", func() bool {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || bytes.Contains(b, []byte(") Z "))
		})
	})
	t.Run("a helper that escapes does not hold up", func(t *testing.T) {
		t.Parallel()
		c := dial(t, selfServer(t, "escapes"), Legacy, nil)
		if _, err := c.Call(t.Context(), ping(`1`), CallOptions{}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d > 15*time.Second {
			t.Errorf("close took %v", d)
		}
	})
	t.Run("calls in flight fail", func(t *testing.T) {
		t.Parallel()
		c := dial(t, selfServer(t, "silent"), Legacy, nil)
		failed := make(chan error, 1)
		go func() {
			_, err := c.Call(t.Context(), ping(`1`), CallOptions{})
			failed <- err
		}()
		eventually(t, "the call is pending", func() bool {
			l := c.link.(*stdio)
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.pending) == 1
		})
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

func TestStdioChildGetsOnlyItsEnvironment(t *testing.T) {
	t.Parallel()
	s := selfServer(t, "environment")
	c := dial(t, s, Legacy, nil)
	r, err := c.Call(t.Context(), ping(`1`), CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if env, _ := Get(r.Message.Result(), "env"); string(env) != `["`+serverVariable+`=environment"]` {
		t.Errorf("the server's environment is %s", env)
	}
}

func TestConnRefusesWhatItCannotSend(t *testing.T) {
	t.Parallel()
	c := dial(t, selfServer(t, "raw"), Legacy, nil)
	if _, err := c.Call(t.Context(), NewNotification("x", nil), CallOptions{}); !errors.Is(err, ErrNotSent) {
		t.Errorf("a notification was called: %v", err)
	}
	for _, m := range []*Message{ping(`1`), cancelled(json.RawMessage(`1`))} {
		if err := c.Send(t.Context(), m); !errors.Is(err, ErrNotSent) {
			t.Errorf("%s was sent: %v", m.Bytes(), err)
		}
	}
	for _, s := range []Server{{}, {Command: "x", URL: "http://x"}, {URL: "x"}, {URL: "ftp://x"}, {URL: "http:"}, {URL: "http://[::1"}} {
		if _, err := Dial(t.Context(), s, Legacy, nil); !errors.Is(err, ErrNotSent) {
			t.Errorf("dialled %+v: %v", s, err)
		}
	}
}
