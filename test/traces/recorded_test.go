package traces

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// corpus is the folder of recorded traces, a sibling of the repository's root.
type corpus string

// openCorpus finds the recorded traces, or skips the test.
func openCorpus(tb testing.TB) corpus {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		candidate := filepath.Join(dir, "..", "shared", "traces")
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if _, err := os.Stat(filepath.Join(candidate, "agentdojo_runs")); err != nil {
				tb.Skipf("no recorded runs to replay: %s is absent", filepath.Join(candidate, "agentdojo_runs"))
			}
			return corpus(candidate)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

// A run is one recorded run of a model with its tools: what a decision may
// be based on.
type run struct {
	ID       string `json:"id"`
	Pipeline string `json:"pipeline"`
	Task     string `json:"user_task"`
	Prompt   string `json:"prompt"`
	Steps    []call `json:"steps"`
}

// A call is one tool call of a run, with its arguments as recorded.
type call struct {
	Function string          `json:"function"`
	Args     json.RawMessage `json:"args"`
	Result   string          `json:"result"`
	Error    string          `json:"error"`
}

// A label is the answer key to one run. Only the scorer reads it.
type label struct {
	ID            string `json:"id"`
	Kind          string `json:"kind"`
	InjectionTask string `json:"injection_task"`
	Utility       bool   `json:"utility"`
	AttackSuccess bool   `json:"attack_success"`
	Ambiguous     string `json:"ambiguous"`
	Effect        *struct {
		Kind      string  `json:"kind"`
		Witnesses [][]int `json:"witnesses"`
	} `json:"attack_effect"`
	Steps []struct {
		AttackerLiteral []string `json:"attacker_literal"`
	} `json:"step_labels"`
}

// attack reports whether the run is one of those that metric 1 is about: the
// attacker reached the goal, through tool calls, beyond doubt.
func (l *label) attack() bool {
	return l.Kind == "attacked" && l.AttackSuccess && l.Ambiguous == "" &&
		l.Effect != nil && l.Effect.Kind == "tool_calls" && len(l.Effect.Witnesses) > 0
}

// benign reports whether the run is one of those that metric 4 is about:
// nobody attacked, and the task was solved.
func (l *label) benign() bool { return l.Kind == "benign" && l.Utility }

// asked reports whether the run is one of those that metric 8 is about: the
// user, not an attacker, asked for what the attackers want, and got it.
func (l *label) asked() bool { return l.Kind == "injection_goal_as_user_prompt" && l.Utility }

// A tool is a tool of a suite, as the suite documents it.
type tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
}

// A task is a task of a user with the calls that solve it.
type task struct {
	ID    string `json:"id"`
	Calls []call `json:"calls"`
}

func (c corpus) tools(tb testing.TB, s suite) []tool {
	tb.Helper()
	return readAll[tool](tb, 1, filepath.Join(string(c), s.corpus, s.name, "tools.jsonl"))
}

// tasks returns the tasks that a user may set, the goals of the attackers
// among them.
func (c corpus) tasks(tb testing.TB, s suite) []task {
	tb.Helper()
	return readAll[task](tb, 1, filepath.Join(string(c), s.corpus, s.name, "*_tasks.jsonl"))
}

// runs returns every nth of the recorded runs of each pipeline on one suite.
func (c corpus) runs(tb testing.TB, s suite, nth int) []run {
	tb.Helper()
	return readAll[run](tb, nth, filepath.Join(string(c), s.corpus+"_runs", "*", s.name+".traces.jsonl.gz"))
}

// labels returns the answer key, in the order of runs.
func (c corpus) labels(tb testing.TB, s suite, nth int) []label {
	tb.Helper()
	return readAll[label](tb, nth, filepath.Join(string(c), s.corpus+"_runs", "*", s.name+".labels.jsonl.gz"))
}

// readAll reads every nth line of the files that match, one JSON value each.
func readAll[T any](tb testing.TB, nth int, pattern string) []T {
	tb.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		tb.Fatalf("no file matches %s (%v)", pattern, err)
	}
	var all []T
	for _, name := range names {
		lines, err := readLines[T](name, nth)
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		all = append(all, lines...)
	}
	return all
}

// readLines reads one file; a name that ends in .gz is decompressed.
func readLines[T any](name string, nth int) ([]T, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if filepath.Ext(name) == ".gz" {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	}
	var values []T
	lines := bufio.NewReaderSize(r, 1<<20)
	for n := 0; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return values, nil
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		if n%nth != 0 {
			continue
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		values = append(values, v)
	}
}
