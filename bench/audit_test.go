package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/audit"
	"github.com/bailiwick-dev/bailiwick/internal/store"
)

// auditPeriod is how long each measurement of the record lasts.
const auditPeriod = time.Second

// BenchmarkRecord measures durable records, with their checkpoints, beside the
// floor: the same bytes appended to a file and synced, with the same grouping
// of those who wait, in the same run on the same disk.
//
//	go test -run '^$' -bench '^BenchmarkRecord$' -benchtime 1x ./bench
//
// p50_µs and p99_µs are from calling Append to its return; of_floor is the
// throughput as a share of the floor's; cpu_µs/record is all the processor time
// of the process, building the record and those who wait included.
func BenchmarkRecord(b *testing.B) {
	for _, writers := range []int{1, 64, 512} {
		var floor float64
		b.Run(fmt.Sprintf("floor/writers=%d", writers), func(b *testing.B) {
			for b.Loop() {
				g := newGroupFile(b)
				floor = measureRecords(b, writers, g.append)
				g.close(b)
			}
		})
		for _, proofs := range []bool{false, true} {
			name := "log"
			if proofs {
				name = "log+proof"
			}
			b.Run(fmt.Sprintf("%s/writers=%d", name, writers), func(b *testing.B) {
				for b.Loop() {
					l := openBenchLog(b)
					rate := measureRecords(b, writers, func() error {
						r, err := l.Append(context.Background(), benchRecord())
						if err == nil && proofs {
							_, err = r.Proof()
						}
						return err
					})
					if floor > 0 {
						b.ReportMetric(rate/floor, "of_floor")
					}
					if err := l.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// measureRecords calls record from so many goroutines for a while and reports
// how often it returned a second, and how long it took.
func measureRecords(b *testing.B, writers int, record func() error) float64 {
	b.Helper()
	var (
		wg   sync.WaitGroup
		stop atomic.Bool
	)
	times := make([][]time.Duration, writers)
	start, cpu := time.Now(), cpuTime()
	for w := range writers {
		wg.Go(func() {
			for !stop.Load() {
				t := time.Now()
				if err := record(); err != nil {
					b.Error(err)
					return
				}
				times[w] = append(times[w], time.Since(t))
			}
		})
	}
	time.Sleep(auditPeriod)
	stop.Store(true)
	wg.Wait()
	took, cpu := time.Since(start), cpuTime()-cpu
	all := slices.Concat(times...)
	slices.Sort(all)
	rate := float64(len(all)) / took.Seconds()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "records/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(len(all)), "cpu_µs/record")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50_µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99_µs")
	return rate
}

func openBenchLog(b *testing.B) *audit.Log {
	b.Helper()
	dir := b.TempDir()
	l, err := audit.Open(context.Background(), audit.Config{
		Dir: dir, Origin: "bench.example/log", Reserve: -1, Logger: slog.New(slog.DiscardHandler),
		Journal: func(ctx context.Context) (audit.Journal, error) {
			return store.OpenJournal(ctx, filepath.Join(dir, "journal.db"))
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchRecord builds a decision as the pipeline does, with about 200 bytes of
// input. Stored, it takes about 1,600 bytes.
func benchRecord() audit.Record {
	return audit.Record{
		Kind: audit.KindDecision, Time: time.Unix(1_790_000_000, 123_456_789), Decision: "d-0123456789abcdef0123456789abcdef", Effect: "allow",
		Version: "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
		Who: &audit.Who{Subject: authz.Entity{Type: "Agent", ID: "billing-bot"}, For: "ada@example.com", Groups: []string{"finance", "bots"},
			Auth: "key", Session: "s-0123456789abcdef", Gate: "mcp-http", Correlation: "req-42"},
		What: &audit.What{Action: "bank/send_money", Server: "bank", Resource: authz.Entity{Type: "Server", ID: "bank"},
			Definition: "sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0", Effects: []string{"write", "external"}},
		Why: &audit.Why{Mode: "enforce", Released: true, Reasons: []authz.Reason{{Code: authz.ReasonPolicyAllow, Message: "A policy permits it."}},
			Policies: []authz.PolicyRef{{ID: "send-money", Effect: "permit", File: "bank.cedar", Line: 3}},
			Session:  &audit.Session{ID: "s-0123456789abcdef", Labels: []string{"external"}, Calls: 12, Denials: 1, Started: time.Unix(1_789_999_000, 123_456_000)},
			Labels:   []string{"external", "bank"},
			Micros:   map[string]int64{"identity": 3, "session": 1, "catalog": 2, "policy": 4}},
		Input: benchInput,
	}
}

var benchInput = []byte(`{"to":"DE89 3704 0044 0532 0130 00","amount":{"value":1250.5,"currency":"EUR"},"text":"` + strings.Repeat("Rechnung 4711 ", 7) + `","urgent":false}`)

const floorRecord = 1600

// A groupFile is the floor: whoever waits while a sync is under way shares the
// next one.
type groupFile struct {
	f       *os.File
	mu      sync.Mutex
	waiting []chan error
	busy    bool
}

func newGroupFile(b *testing.B) *groupFile {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	return &groupFile{f: f}
}

func (g *groupFile) append() error {
	done := make(chan error, 1)
	g.mu.Lock()
	g.waiting = append(g.waiting, done)
	lead := !g.busy
	g.busy = true
	g.mu.Unlock()
	if lead {
		go g.write()
	}
	return <-done
}

func (g *groupFile) write() {
	record := binary.BigEndian.AppendUint64(nil, 1)
	record = append(record, make([]byte, floorRecord-len(record))...)
	var batch []byte
	for {
		g.mu.Lock()
		waiting := g.waiting
		g.waiting = nil
		g.busy = len(waiting) > 0
		g.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		batch = batch[:0]
		for range waiting {
			batch = append(batch, record...)
		}
		_, err := g.f.Write(batch)
		if err == nil {
			err = dataSync(g.f)
		}
		for _, done := range waiting {
			done <- err
		}
	}
}

func (g *groupFile) close(b *testing.B) {
	b.Helper()
	if err := g.f.Close(); err != nil {
		b.Fatal(err)
	}
}
