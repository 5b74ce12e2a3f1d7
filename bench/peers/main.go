// Peers puts Bailiwick's decision API beside other decision servers: the same
// policies, the same questions, one run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var (
		sizes  = flag.String("n", "100,1000", "numbers of policies; above 10,000 the peers are left out")
		only   = flag.String("only", "", "measure these servers only, beside the floor")
		quick  = flag.Bool("quick", false, "one round of short windows: is everything in order?")
		write  = flag.Bool("write", false, "write the tables to bench/RESULTS.md too")
		rounds = flag.Int("rounds", 3, "rounds")
		window = flag.Duration("window", 2*time.Second, "how long one server is asked in one round with one number of connections")
		what   = flag.String("serve", "", "be the server echo, cedar or unrecorded (the benchmark starts itself this way)")
		addr   = flag.String("addr", "", "where to be that server")
	)
	flag.Parse()
	b := bench{conns: []int{1, 8, 64}, rounds: *rounds, window: *window, only: strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })}
	if *quick {
		b.rounds, b.window = 1, 700*time.Millisecond
	}
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 20 {
			fmt.Fprintf(os.Stderr, "-n: %q is not a number of at least 20 policies\n", s)
			os.Exit(2)
		}
		b.sizes = append(b.sizes, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *what == "unrecorded" {
		err = serveUnrecorded(ctx)
	} else if *what != "" {
		err = serve(*what, *addr, b.sizes[0])
	} else {
		err = b.run(ctx, *write)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// A bench is one run.
type bench struct {
	sizes, conns []int
	rounds       int
	window       time.Duration
	only         []string
}

// servers are what is measured with n policies: the floor first.
func (b *bench) servers(n int) ([]*server, error) {
	all := []*server{echo(), us(), unrecorded(), plainCedar(), opa(), cerbos(), openfga()}
	for _, name := range b.only {
		if !slices.ContainsFunc(all, func(s *server) bool { return s.name == name }) {
			return nil, fmt.Errorf("-only: there is no server %q", name)
		}
	}
	return slices.DeleteFunc(all, func(s *server) bool {
		peer := s.name != "echo" && s.name != "bailiwick" && s.name != "unrecorded"
		return n > 10_000 && peer || len(b.only) > 0 && s.name != "echo" && !slices.Contains(b.only, s.name)
	}), nil
}

// run measures, prints the tables and, if asked to, keeps them. The error names
// the servers that could not be measured, other than peers that are not there.
func (b *bench) run(ctx context.Context, write bool) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("run this in the root of the repository: %w", err)
	}
	dir, err := filepath.Abs(cache)
	if err != nil {
		return err
	}
	// Beside the checkout and not in /tmp, which may be memory: what a server
	// writes durably should go to a disk.
	if dir, err = os.MkdirTemp(dir, "run-"); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var tables []table
	var errs []error
	for _, n := range b.sizes {
		servers, err := b.servers(n)
		if err != nil {
			return err
		}
		if err := b.measure(ctx, filepath.Join(dir, strconv.Itoa(n)), newWorkload(n), servers); err != nil {
			return err
		}
		tables = append(tables, table{n, servers})
		for _, s := range servers {
			if s.failed != nil && !errors.Is(s.failed, errNotBuilt) {
				errs = append(errs, fmt.Errorf("%s with %d policies: %w", s.name, n, s.failed))
			}
		}
	}
	var text strings.Builder
	command := strings.TrimSpace("go run ./bench/peers " + strings.Join(os.Args[1:], " "))
	report(&text, tables, command, b.conns, b.rounds, b.window)
	fmt.Print(text.String())
	if write {
		errs = append(errs, replace("bench/RESULTS.md", text.String()))
	}
	return errors.Join(errs...)
}

// measure fills in what the servers show. What cannot be built, started or kept
// alive is marked as failed and left out; the error is for wrong answers, which
// make every number worthless.
func (b *bench) measure(ctx context.Context, dir string, w *workload, servers []*server) error {
	for _, s := range servers {
		defer s.stop()
		s.samples = map[int][]sample{}
		if s.failed = s.start(ctx, filepath.Join(dir, s.name), w); s.failed != nil {
			progress("%s: %v", s.name, s.failed)
			continue
		}
		if err := s.examine(ctx, w); err != nil {
			return err
		}
		progress("%s: %d policies, ready after %v, %d answers right", s.name, w.n, s.ready.Round(time.Millisecond), len(w.questions))
	}
	if servers[0].failed != nil {
		return fmt.Errorf("without the floor there is nothing to compare with: %w", servers[0].failed)
	}
	for round := range b.rounds {
		for _, conns := range b.conns {
			for i := range servers {
				// Nobody always runs after the same neighbour.
				s := servers[(i+round)%len(servers)]
				if s.failed != nil {
					continue
				}
				m, err := drive(s.addr, s.cmd.Process.Pid, s.wire, conns, b.window/5, b.window)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					s.failed = fmt.Errorf("round %d, %d connections: %w", round+1, conns, err)
					progress("%s: %v", s.name, s.failed)
					continue
				}
				s.samples[conns] = append(s.samples[conns], m)
				progress("%-10s %6d policies  round %d  %2d connections  %7.0f/s  %8s per decision  others %2.0f %%",
					s.name, w.n, round+1, conns, m.rate, span(m.cpu), 100*m.others)
			}
		}
	}
	for _, s := range servers {
		if s.failed == nil {
			peak, err := peakRSS(s.cmd.Process.Pid)
			if err != nil {
				return err
			}
			s.peak = peak
		}
	}
	return nil
}
