package risk

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// mostPoints bounds the cap of one signal, so that no single one, which
// somebody may find out how to raise or to silence, decides alone.
const mostPoints = 40

// A Scorecard says how many points each signal may add. It is versioned with
// the policies. It is immutable.
type Scorecard struct {
	caps [Signals]int64
	// flag is the score from which on nothing is learnt from an action.
	flag int64
}

// scorecardFile is the form of scorecard.yaml.
type scorecardFile struct {
	// Caps are the most points of each signal, 0 to 40. One that is not named
	// keeps its default.
	Caps map[string]int64 `yaml:"caps"`
	// Flag is the score, 1 to 100, from which on nothing is learnt. Default 60.
	Flag *int64 `yaml:"flag"`
}

// DefaultScorecard is the one of an installation that has none.
func DefaultScorecard() *Scorecard {
	return &Scorecard{flag: 60, caps: [Signals]int64{
		Rate: 15, Sequence: 15, Change: 25, Denials: 15, Sensitivity: 15, Untrusted: 20, Destination: 15, Hour: 10,
	}}
}

// Cap is the most that a signal may add.
func (c *Scorecard) Cap(s Signal) int64 { return c.caps[s] }

// ParseScorecard reads scorecard.yaml. An empty text is the default. Unknown
// keys and values out of bounds are errors.
func ParseScorecard(text []byte) (*Scorecard, error) {
	c := DefaultScorecard()
	if len(strings.TrimSpace(string(text))) == 0 {
		return c, nil
	}
	var f scorecardFile
	if err := yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("scorecard: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Caps)) {
		s, ok := SignalOf(name)
		if !ok {
			return nil, fmt.Errorf("scorecard: there is no signal %q; there are %s", name, Names())
		}
		if p := f.Caps[name]; p < 0 || p > mostPoints {
			return nil, fmt.Errorf("scorecard: the cap of %s is %d, and must be 0 to %d", name, p, mostPoints)
		}
		c.caps[s] = f.Caps[name]
	}
	if f.Flag != nil {
		if *f.Flag < 1 || *f.Flag > Most {
			return nil, fmt.Errorf("scorecard: flag is %d, and must be 1 to %d", *f.Flag, Most)
		}
		c.flag = *f.Flag
	}
	return c, nil
}
