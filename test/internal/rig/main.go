package rig

import (
	"fmt"
	"os"
	"testing"
)

// Main runs the tests of a package and removes what was built for them. The
// package's TestMain exits with its result.
func Main(m *testing.M) int {
	code := m.Run()
	if err := Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// EndToEnd marks a test that needs the real binary: the quick loop leaves it
// out.
func EndToEnd(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end: run 'make test'")
	}
}
