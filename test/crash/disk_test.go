package crash

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/test/internal/rig"
)

// A plant is a deployment in front of a counter, and a client of it.
type plant struct {
	*rig.Deployment
	server *rig.Counter
	client *rig.Raw
	told   *told
	calls  int
}

func newPlant(t *testing.T, settings map[string]any) *plant {
	t.Helper()
	server := rig.Count(t, true)
	d := rig.Deploy(t, rig.Setup{
		Policies:  onlyAct,
		Upstreams: map[string]rig.Upstream{"counter": {URL: server.URL}},
		Settings:  settings,
	})
	d.Pin(t)
	return &plant{
		Deployment: d, server: server, told: &told{done: map[string]bool{}, denied: map[string]bool{}},
		client: rig.NewRaw(rig.Endpoint{URL: d.Endpoint("counter"), Token: d.Key}, 10*time.Second),
	}
}

// call calls the tool once and returns the reason if it was denied.
func (p *plant) call(t *testing.T, tool string) (done bool, reason string) {
	t.Helper()
	p.calls++
	id := fmt.Sprint("call ", p.calls)
	reply, err := p.client.Call(t.Context(), tool, fmt.Sprintf(`{"id":%q}`, id))
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	done, reason = reply.Done(), reply.Reason()
	p.told.note(id, done, reason)
	if !done && reason == "" {
		t.Fatalf("neither done nor denied: %d %s", reply.Status, reply.Body)
	}
	return done, reason
}

// works makes one call that is done and one that is denied.
func (p *plant) works(t *testing.T) {
	t.Helper()
	if done, reason := p.call(t, "act"); !done {
		t.Fatalf("a permitted call was denied: %s", reason)
	}
	if _, reason := p.call(t, "forbidden"); reason != "no_permit" {
		t.Fatalf("a forbidden call was denied for %q", reason)
	}
}

// until calls until a call is done, or denied for the reason that is wanted.
func (p *plant) until(t *testing.T, wantDone bool, wantReason string) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		done, reason := p.call(t, "act")
		if done == wantDone && reason == wantReason {
			return
		}
		if !done && reason != "audit_unavailable" {
			t.Fatalf("denied for %q", reason)
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute calls are still answered with done %t, reason %q", done, reason)
		}
		pause(t.Context(), 2*time.Millisecond)
	}
}

func TestFullDiskDeniesAndRecovers(t *testing.T) {
	rig.EndToEnd(t)
	data := filepath.Join(t.TempDir(), "small")
	disk := rig.NewDisk(t, data, 16)
	p := newPlant(t, map[string]any{"data": data})
	p.Within = disk.Within()
	serve := p.Serve(t)
	p.works(t)
	for range 3 {
		if err := disk.Fill(); err != nil {
			t.Fatal(err)
		}
		p.until(t, false, "audit_unavailable")
		before := p.server.Seen()
		for range 50 {
			if done, reason := p.call(t, "act"); done || reason != "audit_unavailable" {
				t.Fatalf("with a full disk a call was answered with done %t, reason %q", done, reason)
			}
		}
		if after := p.server.Seen(); !maps.Equal(before, after) {
			t.Error("with a full disk calls reached the server")
		}
		if got := p.ready(t); got != http.StatusServiceUnavailable {
			t.Errorf("/readyz says %d with a full disk", got)
		}
		if err := disk.Free(); err != nil {
			t.Fatal(err)
		}
		p.until(t, true, "")
		p.works(t)
	}
	if err := serve.Stop(); err != nil {
		t.Fatal(err)
	}
	check(t, p.Deployment, p.server.Seen(), p.told)
}

// A gateway that is killed while its disk is full says so when it is started,
// and goes on once there is room.
func TestKilledWithFullDisk(t *testing.T) {
	rig.EndToEnd(t)
	data := filepath.Join(t.TempDir(), "small")
	disk := rig.NewDisk(t, data, 16)
	p := newPlant(t, map[string]any{"data": data})
	p.Within = disk.Within()
	serve := p.Serve(t)
	p.works(t)
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	p.until(t, false, "audit_unavailable")
	serve.Kill()
	if out := p.refuses(t); !strings.Contains(out, "no space") && !strings.Contains(out, "full") {
		t.Errorf("the refusal to start does not say why:\n%s", out)
	}
	if err := disk.Free(); err != nil {
		t.Fatal(err)
	}
	serve = p.Serve(t)
	p.works(t)
	if err := serve.Stop(); err != nil {
		t.Fatal(err)
	}
	check(t, p.Deployment, p.server.Seen(), p.told)
}

func TestReadOnlyDirectory(t *testing.T) {
	rig.EndToEnd(t)
	data := filepath.Join(t.TempDir(), "small")
	disk := rig.NewDisk(t, data, 16)
	p := newPlant(t, map[string]any{"data": data})
	p.Within = disk.Within()
	serve := p.Serve(t)
	p.works(t)
	if err := serve.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := disk.ReadOnly(true); err != nil {
		t.Fatal(err)
	}
	if out := p.refuses(t); !strings.Contains(out, data) || !strings.Contains(out, "read-only") && !strings.Contains(out, "readonly") {
		t.Errorf("the refusal to start names no read-only directory:\n%s", out)
	}
	if err := disk.ReadOnly(false); err != nil {
		t.Fatal(err)
	}
	serve = p.Serve(t)
	p.works(t)
	if err := serve.Stop(); err != nil {
		t.Fatal(err)
	}
	check(t, p.Deployment, p.server.Seen(), p.told)
}

// refuses starts the gateway, which has to end with an error, and returns what
// it wrote.
func (p *plant) refuses(t *testing.T) string {
	t.Helper()
	serve, err := rig.Start(p.Command("serve"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-serve.Exited():
	case <-time.After(20 * time.Second):
		serve.Kill()
		t.Fatalf("the gateway starts:\n%s", serve.Log())
	}
	if serve.Code() != 1 {
		t.Errorf("the gateway ended with %d, want 1:\n%s", serve.Code(), serve.Log())
	}
	return serve.Log()
}

func (p *plant) ready(t *testing.T) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Addr+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

// What a kill, a loss of power or a hand does to the end of the journal is
// either repaired without losing a record that was acknowledged, or refused.
func TestDamagedTail(t *testing.T) {
	rig.EndToEnd(t)
	for _, tt := range []struct {
		name string
		// stop ends the gateway.
		stop func(*rig.Process) error
		// damage changes the journal's files; file is the journal.
		damage func(file string) error
		// refused says whether the gateway has to refuse to start.
		refused bool
	}{
		{
			name: "half a write at the end, killed", stop: killed,
			damage: func(file string) error { return appendTo(file+"-wal", bytes.Repeat([]byte{0x5a}, 1000)) },
		},
		{
			name: "zeros at the end, killed", stop: killed,
			damage: func(file string) error { return appendTo(file+"-wal", make([]byte, 8192)) },
		},
		{
			name: "the end cut off, killed", stop: killed, refused: true,
			damage: func(file string) error { return cut(file + "-wal") },
		},
		{
			name: "the write-ahead log gone, killed", stop: killed, refused: true,
			damage: func(file string) error { return os.Remove(file + "-wal") },
		},
		{
			name: "a byte of the newest records changed", stop: (*rig.Process).Stop, refused: true,
			damage: func(file string) error { return flip(file, []byte("call 1")) },
		},
		{
			name: "the end cut off", stop: (*rig.Process).Stop, refused: true,
			damage: cut,
		},
		{
			name: "the journal gone", stop: (*rig.Process).Stop, refused: true,
			damage: os.Remove,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, nil)
			serve := p.Serve(t)
			p.works(t)
			p.works(t)
			if err := tt.stop(serve); err != nil {
				t.Fatal(err)
			}
			data := filepath.Join(p.Dir, ".bailiwick")
			backup := filepath.Join(t.TempDir(), "backup")
			copyTree(t, data, backup)
			if err := tt.damage(journal(t, data)); err != nil {
				t.Fatal(err)
			}
			if tt.refused {
				if out := p.refuses(t); !strings.Contains(out, "audit") {
					t.Errorf("the refusal to start does not say what is wrong:\n%s", out)
				}
				if out, err := p.Run("audit", "verify"); err != nil || out.Code == 0 {
					t.Errorf("the damaged log verifies: %v\n%s", err, out.Stdout)
				}
				if err := os.RemoveAll(data); err != nil {
					t.Fatal(err)
				}
				copyTree(t, backup, data)
			}
			serve = p.Serve(t)
			p.works(t)
			if err := serve.Stop(); err != nil {
				t.Fatal(err)
			}
			check(t, p.Deployment, p.server.Seen(), p.told)
		})
	}
}

func killed(p *rig.Process) error {
	p.Kill()
	return nil
}

// journal finds the file of the newest records.
func journal(t *testing.T, data string) string {
	t.Helper()
	file := filepath.Join(data, "evidence", "journal.db")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	return file
}

func appendTo(file string, b []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// cut takes the last kilobytes of a file away.
func cut(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.Truncate(file, info.Size()-6000)
}

// flip changes one byte where the file holds some text for the last time.
func flip(file string, text []byte) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at := bytes.LastIndex(b, text)
	if at < 0 {
		return fmt.Errorf("%s does not hold %q", file, text)
	}
	b[at] ^= 1
	return os.WriteFile(file, b, 0o600)
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	// Modes matter: a key that others may read is refused.
	if text, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", from, err, text)
	}
}
