package app

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed packs
var packs embed.FS

// Packs are the names of the policy packs that Bailiwick brings, sorted.
func Packs() []string {
	entries, err := packs.ReadDir("packs")
	if err != nil {
		panic(err) // they are in the binary
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".cedar"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Pack returns a policy pack: Cedar policies that take back from an agent what
// may not be its user's will, whatever its tools are called.
func Pack(name string) ([]byte, error) {
	if !slices.Contains(Packs(), name) {
		return nil, fmt.Errorf("there is no policy pack %q: there are %s", name, strings.Join(Packs(), ", "))
	}
	return packs.ReadFile("packs/" + name + ".cedar")
}
