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
	ID     string `json:"id"`
	Task   string `json:"user_task"`
	Prompt string `json:"prompt"`
	Steps  []call `json:"steps"`
}

// A call is one tool call of a run, with its arguments as recorded.
type call struct {
	Function string          `json:"function"`
	Args     json.RawMessage `json:"args"`
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

func (c corpus) tools(tb testing.TB, suite string) []tool {
	tb.Helper()
	return readLines[tool](tb, filepath.Join(string(c), "agentdojo", suite, "tools.jsonl"))
}

// tasks returns the tasks that a user may set, the goals of the attackers
// among them.
func (c corpus) tasks(tb testing.TB, suite string) []task {
	tb.Helper()
	return readAll[task](tb, filepath.Join(string(c), "agentdojo", suite, "*_tasks.jsonl"))
}

// runs returns the recorded runs of all pipelines on one suite.
func (c corpus) runs(tb testing.TB, suite string) []run {
	tb.Helper()
	return readAll[run](tb, filepath.Join(string(c), "agentdojo_runs", "*", suite+".traces.jsonl.gz"))
}

// labels returns the answer key, in the order of runs.
func (c corpus) labels(tb testing.TB, suite string) []label {
	tb.Helper()
	return readAll[label](tb, filepath.Join(string(c), "agentdojo_runs", "*", suite+".labels.jsonl.gz"))
}

func readAll[T any](tb testing.TB, pattern string) []T {
	tb.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		tb.Fatalf("no file matches %s (%v)", pattern, err)
	}
	var all []T
	for _, name := range names {
		all = append(all, readLines[T](tb, name)...)
	}
	return all
}

// readLines reads a file of one JSON value per line; a name that ends in .gz
// is decompressed.
func readLines[T any](tb testing.TB, name string) []T {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	lines, err := decodeLines[T](f, filepath.Ext(name) == ".gz")
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return lines
}

func decodeLines[T any](r io.Reader, zipped bool) ([]T, error) {
	if zipped {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	}
	var lines []T
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var v T
		switch err := dec.Decode(&v); err {
		case nil:
			lines = append(lines, v)
		case io.EOF:
			return lines, nil
		default:
			return nil, fmt.Errorf("value %d: %w", len(lines)+1, err)
		}
	}
}
